// The page: what is chosen, the answers to it, and the figures beside them. zoo wrote demo.json, which says what there is.
// After each round of answers, the document gets an event "answers" with the logits of every network.
import { drawChart, firstWrong } from "./chart.js";
import { Network, Preprocessing, probabilities, threads, timed } from "./networks.js";
import { bytes, decode, drawInput, drawPicture, moved, openCamera, pixelsOf, signed, Unusable } from "./pictures.js";

const SHOWN = 3; // likeliest classes of an answer
const $ = id => document.getElementById(id);
const figures = await (await fetch("demo.json")).json();
const [channels, height, width] = figures.image_shape;
const samples = figures.samples.map(sample => ({
  label: sample.label,
  pixels: bytes(sample.pixels),
  slides: sample.slides.map(slide => ({ ...slide, delta: signed(slide.delta) })),
}));
const networks = []; // those that are loaded, in the order of figures.networks
const dense = [];
let chosen = samples.length ? { sample: samples[0] } : {}; // or { own: a picture }
let preprocessing, busy = false, asked = false, stopCamera = null;

function say(text) {
  $("status").textContent = text;
  $("status").hidden = !text;
}

// Runs something that a person asked for; what fails is said in one line.
const tell = action => async event => {
  try {
    say("");
    await action(event);
  } catch (error) {
    say(error instanceof Unusable ? error.message : `This browser cannot run the networks: ${error.message || error}`);
  }
};

function pictureFor(i) {
  if (chosen.own) return chosen.own;
  const { pixels, slides } = chosen.sample;
  return { data: new Uint8Array(moved(pixels, slides[i].delta, stop(), figures.radius).buffer), height, width, channels };
}

const stop = () => Number($("strength").value);

// Answers what is chosen now; what is chosen in the meantime is answered next.
async function show() {
  asked = true;
  if (busy || !preprocessing) return;
  busy = true;
  try {
    while (asked) {
      asked = false;
      if (chosen.own || chosen.sample) await answer();
    }
  } finally {
    busy = false;
  }
}

async function answer() {
  showSlide();
  const answers = [];
  for (const [i, network] of networks.entries()) {
    const input = await preprocessing.run(pictureFor(i));
    const found = await network.answer(input);
    showAnswer(i, input, found);
    answers.push({ name: network.about.name, ...found });
  }
  if (!answers.length) return;
  if (!performance.getEntriesByName("first answer").length) performance.mark("first answer");
  document.dispatchEvent(new CustomEvent("answers", { detail: { stop: chosen.own ? null : stop(), answers } }));
}

function showAnswer(i, input, { logits, milliseconds }) {
  const card = $("networks").children[i];
  const shares = probabilities(logits);
  const order = shares.map((_, index) => index).sort((a, b) => shares[b] - shares[a]).slice(0, SHOWN);
  drawInput(card.querySelector("canvas"), input);
  const verdict = card.querySelector(".class");
  const right = chosen.sample && order[0] === chosen.sample.label;
  verdict.textContent = figures.classes[order[0]];
  verdict.className = `class ${chosen.sample ? (right ? "good" : "bad") : ""}`;
  if (chosen.sample) verdict.textContent += right ? " ✓" : ` ✗ (${figures.classes[chosen.sample.label]})`;
  card.querySelector("ol").replaceChildren(...order.map(index => bar(figures.classes[index], shares[index])));
  card.querySelector(".cost").textContent = `${milliseconds.toFixed(1)} ms · ${megabytes(networks[i].about)} MB`;
}

function bar(name, share) {
  const row = document.createElement("li");
  const meter = document.createElement("span");
  meter.className = "meter";
  meter.style.setProperty("--share", share);
  row.append(text("span", name, "name-of"), meter, text("span", `${(100 * share).toFixed(0)}%`, "share"));
  return row;
}

function text(tag, content, kind = "") {
  const made = document.createElement(tag);
  made.textContent = content;
  made.className = kind;
  return made;
}

// A name, which may be broken after its dots, hyphens and underscores.
function named(tag, name, kind = "") {
  const made = text(tag, "", kind);
  for (const part of name.split(/(?<=[._-])/)) made.append(part, document.createElement("wbr"));
  return made;
}

const megabytes = about => (about.bytes / 1e6).toFixed(1);

function showSlide() {
  $("slider").hidden = $("ways").hidden = !chosen.sample;
  $("stop").textContent = `${stop()}/255`;
  if (!chosen.sample) return;
  const { label, slides } = chosen.sample;
  const names = figures.networks.map(about => about.name);
  drawChart($("chart"), { slides, label, radius: figures.radius, stop: stop(), names });
  $("verdicts").replaceChildren(...slides.map((slide, i) => {
    const row = text("li", "", `c${i % 8}`);
    row.append(named("strong", names[i]), ` ${verdict(slide, label)}. ${overall(i)}`);
    return row;
  }));
}

function verdict(slide, label) {
  const wrong = firstWrong(slide, label);
  if (wrong < 0) return `is right up to ${figures.radius}/255`;
  return `gives way at ${wrong}/255, to ${figures.classes[slide.classes[wrong]]}`;
}

function overall(i) {
  const wrong = samples.map(sample => firstWrong(sample.slides[i], sample.label)).filter(at => at >= 0).sort((a, b) => a - b);
  const half = wrong[Math.ceil(samples.length / 2) - 1];
  return half === undefined ? `It gives way on ${wrong.length} of the ${samples.length} pictures.`
    : `On half of the ${samples.length} pictures it gives way by ${half}/255.`;
}

function choose(next) {
  stopCamera?.();
  chosen = next;
  $("strength").value = 0;
  if (next.own) document.querySelectorAll("#samples input").forEach(input => { input.checked = false; });
  return show();
}

function addSamples() {
  $("strength").max = figures.radius;
  for (const [i, sample] of samples.entries()) {
    const label = document.createElement("label");
    const input = Object.assign(document.createElement("input"), { type: "radio", name: "sample", checked: i === 0 });
    input.setAttribute("aria-label", `${figures.classes[sample.label]}, picture ${i + 1}`);
    input.addEventListener("change", tell(() => choose({ sample })));
    const canvas = document.createElement("canvas");
    drawPicture(canvas, { data: sample.pixels, height, width, channels });
    label.append(input, canvas, text("span", figures.classes[sample.label]));
    $("samples").append(label);
  }
  $("strength").addEventListener("input", tell(show));
}

function addNetworks() {
  for (const [i, about] of figures.networks.entries()) {
    const card = $("network").content.cloneNode(true);
    card.querySelector("h3").replaceWith(named("h3", about.name, `c${i % 8}`));
    card.querySelector(".kind").textContent = `${about.removed} of the parameters removed, ${about.training}`;
    card.querySelector(".class").textContent = "…";
    $("networks").append(card);
    addCost(about);
  }
}

function addCost(about) {
  const row = document.createElement("tr");
  const millions = `${(about.params / 1e6).toFixed(2)} M`;
  row.append(Object.assign(named("th", about.name), { scope: "row" }), text("td", megabytes(about), "number"),
    text("td", "…", "number time"), text("td", millions, "number"), text("td", about.clean || "", "number"),
    text("td", about.robust || ""));
  $("costs").append(row);
}

async function measure() {
  if (busy || !networks.length) return;
  busy = true;
  try {
    const input = await preprocessing.run({ data: new Uint8Array(height * width * channels), height, width, channels });
    const times = await timed([...networks, ...dense], input);
    document.querySelectorAll("#costs .time").forEach((cell, i) => { cell.textContent = times[i]?.toFixed(2) ?? "…"; });
  } finally {
    busy = false;
  }
  await show();
}

// Dense networks may be large: they are loaded when somebody asks for them.
function offerDense() {
  if (!figures.dense.length) return;
  const sum = figures.dense.reduce((all, about) => all + about.bytes, 0);
  const button = text("button", `Time the uncompressed network too (${(sum / 1e6).toFixed(1)} MB)`, "button");
  button.addEventListener("click", tell(async () => {
    button.disabled = true;
    for (const about of figures.dense) {
      dense.push(await Network.load(about));
      addCost(about);
    }
    button.remove();
    await measure();
  }));
  $("measuring").append(button);
}

async function toggleCamera() {
  if (stopCamera) return stopCamera();
  const video = $("video"), button = $("camera");
  const stopStream = await openCamera(video);
  video.hidden = false;
  button.textContent = "Stop the camera";
  button.setAttribute("aria-pressed", "true");
  let running = true;
  stopCamera = () => {
    running = false;
    stopStream();
    stopCamera = null;
    video.hidden = true;
    button.textContent = "Use the camera";
    button.setAttribute("aria-pressed", "false");
  };
  document.querySelectorAll("#samples input").forEach(input => { input.checked = false; });
  while (running) {
    chosen = { own: pixelsOf(video, video.videoWidth, video.videoHeight, channels) };
    await show();
    await new Promise(done => setTimeout(done, 60));
  }
}

function describe() {
  $("subtitle").textContent = `${figures.networks.length} networks for ${figures.data}, in this browser: `
    + "what they answer, how fast, and what makes them fail";
  $("footer").textContent = `Written by zoo ${figures.zoo}. Nothing on this page is loaded from elsewhere, and no picture leaves it.`;
  const isolated = threads > 1 || globalThis.crossOriginIsolated;
  $("threads").textContent = `Milliseconds: one picture, median of 15 in turns, ${threads} ${threads > 1 ? "threads" : "thread"}`
    + `${isolated ? "" : " (this server does not isolate the page, so browsers allow one; serve.py in its folder does)"}. `
    + "Accuracies are those of the networks' cards; < marks an upper bound, by a weaker attack than AutoAttack.";
  const paragraphs = [
    "Each picture is cropped and resized as it was before the networks were evaluated; the pictures beside the answers are "
      + `what a network sees, ${width} x ${height} pixels. The networks are ONNX files, which onnxruntime-web `
      + `${figures.onnxruntime_web} runs on this processor.`,
  ];
  if (samples.length) paragraphs.push(
    `The test pictures are from ${figures.data}: of ${figures.drawn} that were drawn with seed 0, the first of each class that `
      + "every network here classifies correctly. None was chosen for how it looks or falls.",
    `The slider moves each network's picture towards what ${figures.attack}, an attack on that network, found at the smallest `
      + `radius at which it succeeds, and in the same direction on to ${figures.radius}/255. The chart was measured beforehand on `
      + "the same files; the answers are computed here. A stronger attack may find an earlier point.");
  if (figures.dense.length) paragraphs.push("Uncompressed networks have random weights: they are timed and asked nothing.");
  $("about").append(...paragraphs.map(content => text("p", content)));
}

async function start() {
  describe();
  addSamples();
  addNetworks();
  showSlide();
  if (!samples.length) document.querySelectorAll("#networks .class").forEach(place => { place.textContent = "Give a picture."; });
  const first = Network.load(figures.networks[0]);
  preprocessing = await Preprocessing.load(figures.preprocessing);
  networks.push(await first);
  await show();
  for (const about of figures.networks.slice(1)) networks.push(await Network.load(about));
  await show();
  offerDense();
  await measure();
}

$("file").addEventListener("change", tell(async event => {
  const [file] = event.target.files;
  event.target.value = "";
  if (file) await choose({ own: await decode(file, channels) });
}));
$("camera").addEventListener("click", tell(toggleCamera));
$("measure").addEventListener("click", tell(measure));
document.addEventListener("dragover", event => event.preventDefault());
document.addEventListener("drop", tell(async event => {
  event.preventDefault();
  const [file] = event.dataTransfer.files;
  if (!file) throw new Unusable("That is not a file: drop a picture from the disk.");
  await choose({ own: await decode(file, channels) });
}));
new ResizeObserver(() => chosen.sample && showSlide()).observe($("chart").parentElement);
tell(start)();
