// Pictures: from samples, files and the camera to pixels, and from a network's input to the screen.
// A picture is { data, height, width, channels }: bytes, row by row, of one grey or three colours.

// A mistake that the person at the screen can mend; its message is shown as it is.
export class Unusable extends Error {}

const LARGEST = 2048; // pixels of the longer side: more would only cost memory, networks see far fewer

export const bytes = text => Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
export const signed = text => new Int8Array(bytes(text).buffer);

// Moves a picture by stop/radius of a change, rounded half up, as zoo did when it measured.
export function moved(pixels, delta, stop, radius) {
  return Uint8ClampedArray.from(pixels, (value, i) => value + Math.floor((2 * stop * delta[i] + radius) / (2 * radius)));
}

export async function decode(file, channels) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { colorSpaceConversion: "none" });
  } catch {
    throw new Unusable(`${file.name || "This"} is not a picture that this browser can decode: give a JPEG, PNG or WebP file.`);
  }
  return pixelsOf(bitmap, bitmap.width, bitmap.height, channels);
}

// Transparent parts are white, as people see them.
export function pixelsOf(source, width, height, channels) {
  const shrink = Math.min(1, LARGEST / Math.max(width, height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(width * shrink));
  canvas.height = Math.max(1, Math.round(height * shrink));
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.imageSmoothingQuality = "high";
  context.fillStyle = "white";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(source, 0, 0, canvas.width, canvas.height);
  const colours = context.getImageData(0, 0, canvas.width, canvas.height).data;
  const data = new Uint8Array(canvas.width * canvas.height * channels);
  for (let i = 0; i < canvas.width * canvas.height; i++) {
    const [red, green, blue] = [colours[4 * i], colours[4 * i + 1], colours[4 * i + 2]];
    if (channels === 1) data[i] = (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16; // Pillow's grey
    else data.set([red, green, blue], 3 * i);
  }
  return { data, height: canvas.height, width: canvas.width, channels };
}

// Draws a network's input, (1, C, H, W) in [0, 1].
export function drawInput(canvas, input) {
  const [, channels, height, width] = input.dims;
  const level = (channel, i) => Math.round(255 * input.data[(channels === 1 ? 0 : channel) * height * width + i]);
  draw(canvas, height, width, level);
}

export function drawPicture(canvas, { data, height, width, channels }) {
  draw(canvas, height, width, (channel, i) => data[channels === 1 ? i : 3 * i + channel]);
}

function draw(canvas, height, width, level) {
  canvas.width = width;
  canvas.height = height;
  const image = new ImageData(width, height);
  for (let i = 0; i < height * width; i++) image.data.set([level(0, i), level(1, i), level(2, i), 255], 4 * i);
  canvas.getContext("2d").putImageData(image, 0, 0);
}

const REFUSALS = {
  NotAllowedError: "The browser does not let this page use the camera: allow it there, or choose a picture.",
  NotFoundError: "There is no camera here: choose a picture.",
  NotReadableError: "Another program uses the camera: close that, or choose a picture.",
};

// Shows the camera in a video element; returns a function that stops it.
export async function openCamera(video) {
  if (!navigator.mediaDevices) throw new Unusable("Browsers give the camera to pages over https or from this machine only.");
  try {
    const stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment", width: 640 } });
    video.srcObject = stream;
    await video.play();
    return () => {
      stream.getTracks().forEach(track => track.stop());
      video.srcObject = null;
    };
  } catch (error) {
    throw new Unusable(REFUSALS[error.name] || `The camera cannot be used (${error.message}): choose a picture.`);
  }
}
