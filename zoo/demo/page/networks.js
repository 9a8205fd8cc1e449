// The networks: ONNX Runtime in WebAssembly, on pixels as browsers decode them.
import * as ort from "./onnxruntime-web/ort.wasm.min.mjs";

export const threads = globalThis.crossOriginIsolated ? Math.min(4, navigator.hardwareConcurrency || 1) : 1;
ort.env.logLevel = "error";
ort.env.wasm.wasmPaths = new URL("./onnxruntime-web/", import.meta.url).href;
ort.env.wasm.numThreads = threads;

const open = file => ort.InferenceSession.create(file, { executionProviders: ["wasm"] });

// The graph that crops and resizes pictures of any size, as before an evaluation.
export class Preprocessing {
  static async load(file) {
    return Object.assign(new Preprocessing(), { session: await open(file) });
  }

  // Takes { data, height, width, channels }, 8 bits a value; returns the network's input, (1, C, H, W) in [0, 1].
  async run({ data, height, width, channels }) {
    return (await this.session.run({ images: new ort.Tensor("uint8", data, [1, height, width, channels]) })).pixels;
  }
}

export class Network {
  static async load(about) {
    return Object.assign(new Network(), { about, session: await open(about.file) });
  }

  // Returns the logits of one picture and the milliseconds they took.
  async answer(input) {
    const start = performance.now();
    const { logits } = await this.session.run({ images: input });
    return { logits: Array.from(logits.data), milliseconds: performance.now() - start };
  }
}

export function probabilities(logits) {
  const most = Math.max(...logits);
  const weights = logits.map(value => Math.exp(value - most));
  const sum = weights.reduce((a, b) => a + b);
  return weights.map(value => value / sum);
}

export const median = values => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)];

// Times networks in turns, so that a busy moment of the machine strikes all of them; returns a median for each.
export async function timed(networks, input, rounds = 15) {
  const times = networks.map(() => []);
  for (let round = 0; round < rounds; round++) {
    for (const [i, network] of networks.entries()) times[i].push((await network.answer(input)).milliseconds);
    await new Promise(done => setTimeout(done));
  }
  return times.map(median);
}
