// The exported pair, by ONNX Runtime: what a picture and its prompts are turned into, and back.
import * as ort from "./node_modules/onnxruntime-web/dist/ort.wasm.min.mjs";

const FRAME = 1024; // segment-anything's: prompts are in pixels of the picture scaled to this longer side
const LOW = 256; // side of the mask that goes on to the next click
ort.env.wasm.numThreads = globalThis.crossOriginIsolated ? Math.min(8, navigator.hardwareConcurrency) : 1;

export async function loadNetwork(folder) {
  const [encoder, decoder] = await Promise.all(
    ["encoder", "decoder"].map((part) => ort.InferenceSession.create(`${folder}/sam_${part}.onnx`)),
  );
  return { encoder, decoder };
}

// pixels: ImageData; RGBA bytes become (1, 3, H, W) in 0..1
export async function encode(network, pixels) {
  const { width, height, data } = pixels;
  const area = width * height;
  const values = new Float32Array(3 * area);
  for (let i = 0; i < area; i++) for (let c = 0; c < 3; c++) values[c * area + i] = data[4 * i + c] / 255;
  const image = new ort.Tensor("float32", values, [1, 3, height, width]);
  return (await network.encoder.run({ input_image: image })).image_embeddings;
}

// points: [{x, y, label}] in pixels of the picture; low: of the click before, or null
export async function decode(network, embeddings, size, points, low) {
  const scale = FRAME / Math.max(size.width, size.height);
  const xy = points.flatMap(({ x, y }) => [x * scale, y * scale]);
  const tensor = (values, shape) => new ort.Tensor("float32", Float32Array.from(values), shape);
  const found = await network.decoder.run({
    image_embeddings: embeddings,
    point_coords: tensor(xy, [1, points.length, 2]),
    point_labels: tensor(points.map(({ label }) => label), [1, points.length]),
    mask_input: low ?? tensor(new Float32Array(LOW * LOW), [1, 1, LOW, LOW]),
    has_mask_input: tensor([low ? 1 : 0], [1]),
    orig_im_size: tensor([size.height, size.width], [2]),
  });
  return { mask: found.masks.data, iou: found.iou_predictions.data[0], low: found.low_res_masks };
}
