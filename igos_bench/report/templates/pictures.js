// Pictures of an image: its heatmap, and what it looks like with a share of it deleted or inserted. They are composed as
// igos_bench/perturb.py and metrics.py do it: an element that is hit at step s belongs to every picture from s on, the
// mask over elements is upsampled bilinearly with aligned corners, and blends the photograph with its baseline.

const SIZE = 224;

// From dark violet to yellow, even in lightness and for colour-blind eyes (matplotlib's viridis at nine places).
const COLOURS = [
  [68, 1, 84], [71, 44, 122], [59, 81, 139], [44, 113, 142], [33, 144, 141],
  [39, 173, 129], [92, 200, 99], [170, 220, 50], [253, 231, 37],
];

const TABLE = Uint8ClampedArray.from({ length: 256 * 3 }, (_, i) => {
  const place = (Math.floor(i / 3) / 255) * (COLOURS.length - 1);
  const below = Math.min(Math.floor(place), COLOURS.length - 2);
  const [low, high] = [COLOURS[below][i % 3], COLOURS[below + 1][i % 3]];
  return low + (high - low) * (place - below);
});

async function inflate(text) {
  const stream = new Blob([bytesOf(text)]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

function bytesOf(base64) {
  return Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
}

// Pixels (224 x 224 x RGBA) of a JPEG in base64.
async function pixelsOf(base64) {
  const image = new Image();
  image.src = `data:image/jpeg;base64,${base64}`;
  await image.decode();
  const context = new OffscreenCanvas(SIZE, SIZE).getContext("2d");
  context.drawImage(image, 0, 0, SIZE, SIZE);
  return context.getImageData(0, 0, SIZE, SIZE).data;
}

// Everything that the pictures of an entry need. What is not there is null.
async function loadPictures(entry) {
  const content = await loadFile(entry.image);
  const mine = content.cells[entry.cell] ?? {};
  const { baselines, preprocessing } = cellOf(entry);
  const seen = content.photographs[preprocessing];
  const decoded = (jpeg) => (jpeg ? pixelsOf(jpeg) : null);
  return {
    photograph: await decoded(seen?.photograph),
    deletionBaseline: await decoded(seen?.baselines[baselines.deletion]),
    insertionBaseline: await decoded(seen?.baselines[baselines.insertion]),
    side: mine.side ?? null,
    steps: mine.steps ? await inflate(mine.steps) : null,
    heat: mine.heat ?? null,
    curves: mine.curves ?? null,
  };
}

// Values (side x side) at 224 x 224, bilinear with aligned corners.
function upsample(values, side) {
  if (side === SIZE) return values;
  const large = new Float32Array(SIZE * SIZE);
  const scale = (side - 1) / (SIZE - 1);
  const lower = new Int32Array(SIZE);
  const weight = new Float32Array(SIZE);
  for (let i = 0; i < SIZE; i++) {
    lower[i] = Math.min(Math.floor(i * scale), Math.max(side - 2, 0));
    weight[i] = i * scale - lower[i];
  }
  const next = side > 1 ? 1 : 0;
  for (let y = 0; y < SIZE; y++) {
    const above = lower[y] * side;
    const below = above + next * side;
    for (let x = 0; x < SIZE; x++) {
      const left = lower[x];
      const right = left + next;
      const upper = values[above + left] + (values[above + right] - values[above + left]) * weight[x];
      const under = values[below + left] + (values[below + right] - values[below + left]) * weight[x];
      large[y * SIZE + x] = upper + (under - upper) * weight[y];
    }
  }
  return large;
}

// Heat in [0, 1] at 224 x 224: by the map's value, or by its rank.
function heatOf(pictures, by) {
  const steps = pictures.heat.length;
  const ofStep = pictures.heat.map((heat, i) => (by === "rank" ? (steps > 1 ? 1 - i / (steps - 1) : 1) : heat / 1000));
  const values = Float32Array.from(pictures.steps, (step) => ofStep[step - 1]);
  return upsample(values, pictures.side);
}

// The photograph with its heatmap over it, or the heatmap alone where there is no photograph. Where it is cold it covers
// less than where it is hot; at an opacity of 1 it covers all.
function paintHeatmap(canvas, pictures, opacity, by = "value") {
  const picture = new ImageData(SIZE, SIZE);
  const heat = pictures.steps ? heatOf(pictures, by) : null;
  for (let i = 0; i < SIZE * SIZE; i++) {
    const colour = heat ? 3 * Math.round(255 * heat[i]) : 0;
    const share = heat ? (pictures.photograph ? opacity ** (4 - 3 * heat[i]) : 1) : 0;
    for (let c = 0; c < 3; c++) {
      const shown = pictures.photograph ? pictures.photograph[4 * i + c] : 0;
      picture.data[4 * i + c] = shown + (TABLE[colour + c] - shown) * share;
    }
    picture.data[4 * i + 3] = heat || pictures.photograph ? 255 : 0;
  }
  canvas.getContext("2d").putImageData(picture, 0, 0);
}

// What the network saw at a step of the curve: "deletion" shows the baseline where elements are hit, "insertion" the
// photograph. Returns whether there is what it takes.
function paintPerturbed(canvas, pictures, step, kind) {
  const context = canvas.getContext("2d");
  const baseline = pictures[`${kind}Baseline`];
  if (!pictures.photograph || !baseline || !pictures.steps) {
    context.clearRect(0, 0, SIZE, SIZE);
    return false;
  }
  const hit = upsample(Float32Array.from(pictures.steps, (at) => (at <= step ? 1 : 0)), pictures.side);
  const [background, foreground] =
    kind === "deletion" ? [pictures.photograph, baseline] : [baseline, pictures.photograph];
  const picture = new ImageData(SIZE, SIZE);
  for (let i = 0; i < SIZE * SIZE; i++) {
    for (let c = 4 * i; c < 4 * i + 3; c++) {
      picture.data[c] = background[c] + (foreground[c] - background[c]) * hit[i];
    }
    picture.data[4 * i + 3] = 255;
  }
  context.putImageData(picture, 0, 0);
  return true;
}
