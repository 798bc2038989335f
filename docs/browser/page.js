// What the user does with the picture; the network is in network.js.
import { decode, encode, loadNetwork } from "./network.js";

const $ = (id) => document.getElementById(id);
const picture = $("picture").getContext("2d", { willReadFrequently: true });
const drawn = $("drawn").getContext("2d");
const FOREGROUND = 1, BACKGROUND = 0, TOP_LEFT = 2, BOTTOM_RIGHT = 3;
const DRAG = 4; // pixels of the screen that make a box of a click

let network, embeddings, size, name = "picture";
let rounds = []; // what was asked so far, and each answer: {points, mask, iou, low}
let start = null; // of a drag
let queue = Promise.resolve(); // one thing after the other

const say = (text) => { $("say").textContent = text; };

function later(work) {
  queue = queue.then(work).catch((error) => say(`Something went wrong: ${error.message}`));
  return queue;
}

function toPixel(event) { // the pixel under the pointer
  const box = $("drawn").getBoundingClientRect();
  const place = (at, from, shown, pixels) => Math.min(pixels - 1, Math.max(0, Math.floor(((at - from) / shown) * pixels)));
  return {
    x: place(event.clientX, box.left, box.width, size.width),
    y: place(event.clientY, box.top, box.height, size.height),
  };
}

async function open(file) {
  const bitmap = await createImageBitmap(file).catch(() => null);
  if (!bitmap) return say(`${file.name} is not a picture that this browser can open`);
  size = { width: bitmap.width, height: bitmap.height };
  for (const id of ["picture", "drawn"]) Object.assign($(id), size);
  $("stage").style.width = `min(100%, ${(75 * size.width) / size.height}vh)`; // large, and whole on the screen
  picture.drawImage(bitmap, 0, 0);
  name = file.name.replace(/\.[^.]*$/, "");
  rounds = [];
  draw();
  say("Looking at the picture…");
  embeddings = null;
  embeddings = await encode(network, picture.getImageData(0, 0, size.width, size.height));
  say("Click on an object");
}

async function ask(added) {
  if (!embeddings) return;
  const last = rounds.at(-1);
  const points = [...(last?.points ?? []), ...added];
  const begun = performance.now();
  rounds.push({ points, ...(await decode(network, embeddings, size, points, last?.low)) });
  draw();
  say(`${Math.round(performance.now() - begun)} ms, predicted IoU ${rounds.at(-1).iou.toFixed(2)}`);
}

function maskPicture(colour) { // the mask of the last answer, in a colour, on nothing
  const pixels = new ImageData(size.width, size.height);
  const mask = rounds.at(-1).mask;
  for (let i = 0; i < mask.length; i++) if (mask[i] > 0) pixels.data.set(colour, 4 * i);
  return pixels;
}

function draw(box = null) {
  drawn.clearRect(0, 0, drawn.canvas.width, drawn.canvas.height);
  const last = rounds.at(-1);
  if (last) drawn.putImageData(maskPicture([37, 99, 235, 110]), 0, 0);
  const radius = Math.max(2, Math.max(drawn.canvas.width, drawn.canvas.height) / 120);
  drawn.lineWidth = radius / 2;
  for (const { x, y, label } of last?.points ?? []) {
    if (label > FOREGROUND) continue;
    drawn.beginPath();
    drawn.arc(x + 0.5, y + 0.5, radius, 0, 2 * Math.PI);
    drawn.fillStyle = label === FOREGROUND ? "#16a34a" : "#dc2626";
    drawn.strokeStyle = "#fff";
    drawn.fill();
    drawn.stroke();
  }
  const corners = last?.points.filter(({ label }) => label > FOREGROUND) ?? [];
  drawn.strokeStyle = "#16a34a";
  for (const [from, to] of box ? [box] : corners.length ? [corners.slice(-2)] : [])
    drawn.strokeRect(from.x, from.y, to.x - from.x + 1, to.y - from.y + 1);
  for (const id of ["undo", "clear", "save"]) $(id).disabled = !last;
}

function corners(from, to) {
  const [x0, x1] = [from.x, to.x].sort((a, b) => a - b);
  const [y0, y1] = [from.y, to.y].sort((a, b) => a - b);
  return [{ x: x0, y: y0, label: TOP_LEFT }, { x: x1, y: y1, label: BOTTOM_RIGHT }];
}

const isDrag = (event) => Math.hypot(event.clientX - start.clientX, event.clientY - start.clientY) > DRAG;

$("drawn").addEventListener("pointerdown", (event) => {
  if (!embeddings || event.button !== 0) return;
  start = { ...toPixel(event), clientX: event.clientX, clientY: event.clientY };
  $("drawn").setPointerCapture(event.pointerId);
});
$("drawn").addEventListener("pointermove", (event) => {
  if (start && isDrag(event)) draw(corners(start, toPixel(event)));
});
$("drawn").addEventListener("pointerup", (event) => {
  if (!start) return;
  const added = isDrag(event)
    ? corners(start, toPixel(event))
    : [{ x: start.x, y: start.y, label: event.shiftKey ? BACKGROUND : FOREGROUND }];
  start = null;
  later(() => ask(added));
});
$("file").addEventListener("change", (event) => {
  const [file] = event.target.files;
  if (file) later(() => open(file));
});
$("undo").addEventListener("click", () => later(() => { rounds.pop(); draw(); say(""); }));
$("clear").addEventListener("click", () => later(() => { rounds = []; draw(); say(""); }));
$("save").addEventListener("click", () => later(async () => {
  const canvas = new OffscreenCanvas(size.width, size.height);
  const context = canvas.getContext("2d");
  context.fillRect(0, 0, size.width, size.height); // black, so that the file has no transparency
  context.drawImage(await createImageBitmap(maskPicture([255, 255, 255, 255])), 0, 0);
  const link = Object.assign(document.createElement("a"), { download: `${name}_mask.png` });
  link.href = URL.createObjectURL(await canvas.convertToBlob());
  link.click();
  URL.revokeObjectURL(link.href);
}));

later(async () => {
  network = await loadNetwork("models");
  say("Open a picture");
});
