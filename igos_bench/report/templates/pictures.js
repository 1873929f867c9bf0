// Pictures of an image: its heatmap, and what it looks like with a share of it deleted or inserted. They are composed as
// igos_bench/perturb.py and metrics.py do it: an element that is hit at step s belongs to every picture from s on, the
// mask over elements is upsampled bilinearly with aligned corners, and blends the photograph with its baseline.

const SIZE = 224; // of what the network sees
const SMALL = 112; // of thumbnails

// From violet to yellow, even in lightness and for colour-blind eyes: nine places of matplotlib's inferno without its
// black, as in draw/pictures.py.
const COLOURS = [
  [87, 16, 110], [125, 30, 109], [163, 44, 97], [199, 62, 76], [228, 90, 49],
  [246, 128, 19], [252, 172, 17], [245, 219, 76], [252, 255, 164],
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

// Pixels (size x size x RGBA) of a JPEG in base64.
async function pixelsOf(base64, size) {
  const image = new Image();
  image.src = `data:image/jpeg;base64,${base64}`;
  await image.decode();
  const context = new OffscreenCanvas(size, size).getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0, size, size);
  return context.getImageData(0, 0, size, size).data;
}

// What the pictures of an entry need, size x size; baselines at full size alone. What is not there is null.
async function loadPictures(entry, size = SIZE) {
  const content = await loadFile(entry.image);
  const mine = content.cells[entry.cell] ?? {};
  const { baselines, preprocessing } = cellOf(entry);
  const seen = content.photographs[preprocessing];
  const decoded = (jpeg) => (jpeg ? pixelsOf(jpeg, size) : null);
  const baseline = (kind) => (size === SIZE ? decoded(seen?.baselines[baselines[kind]]) : null);
  return {
    size,
    photograph: await decoded(seen?.photograph),
    deletionBaseline: await baseline("deletion"),
    insertionBaseline: await baseline("insertion"),
    side: mine.side ?? null,
    levels: mine.levels ? await inflate(mine.levels) : null,
    levelsAStep: mine.levels_a_step ?? null,
    heat: mine.heat ?? null,
    curves: mine.curves ?? null,
    lacks: mine.lacks ?? [],
  };
}

// All colours from cold to hot, into a canvas of 256 x 1.
function paintScale(canvas) {
  const picture = new ImageData(256, 1);
  for (let i = 0; i < 256; i++) picture.data.set([...TABLE.subarray(3 * i, 3 * i + 3), 255], 4 * i);
  canvas.getContext("2d").putImageData(picture, 0, 0);
}

// Values (side x side) at size x size, bilinear with aligned corners.
function upsample(values, side, size) {
  if (side === size) return values;
  const resized = new Float32Array(size * size);
  const scale = (side - 1) / (size - 1);
  const lower = new Int32Array(size);
  const weight = new Float32Array(size);
  for (let i = 0; i < size; i++) {
    lower[i] = Math.min(Math.floor(i * scale), Math.max(side - 2, 0));
    weight[i] = i * scale - lower[i];
  }
  const next = side > 1 ? 1 : 0;
  for (let y = 0; y < size; y++) {
    const above = lower[y] * side;
    const below = above + next * side;
    for (let x = 0; x < size; x++) {
      const left = lower[x];
      const right = left + next;
      const upper = values[above + left] + (values[above + right] - values[above + left]) * weight[x];
      const under = values[below + left] + (values[below + right] - values[below + left]) * weight[x];
      resized[y * size + x] = upper + (under - upper) * weight[y];
    }
  }
  return resized;
}

// Heat in [0, 1] at the size of the pictures: by the map's value, from its median to its hottest level, or by its rank.
function heatOf(pictures, by) {
  const count = pictures.heat.length;
  const median = pictures.heat[pictures.levels.slice().sort()[pictures.levels.length >> 1] - 1];
  const most = Math.max(...pictures.heat);
  const byValue = (heat) => Math.max(0, heat - median) / Math.max(1, most - median);
  const byRank = (i) => (count > 1 ? 1 - i / (count - 1) : 1);
  const ofLevel = pictures.heat.map((heat, i) => (by === "rank" ? byRank(i) : byValue(heat)));
  const values = Float32Array.from(pictures.levels, (level) => ofLevel[level - 1]);
  return upsample(values, pictures.side, pictures.size);
}

// The photograph with its heatmap over it, or the heatmap alone where there is no photograph. Where it is cold it covers
// less than where it is hot; at an opacity of 1 it covers all. Under it the photograph is grey, so that colours are heat.
function paintHeatmap(canvas, pictures, opacity, by = "value") {
  const { size, photograph } = pictures;
  const picture = new ImageData(size, size);
  const heat = pictures.levels ? heatOf(pictures, by) : null;
  const cover = (i) => (photograph ? opacity ** (1 + 6 * (1 - Math.sqrt(i / 255))) : 1);
  const shares = Float32Array.from({ length: 256 }, (_, i) => cover(i));
  const greyness = heat ? Math.min(1, 4 * opacity) : 0;
  for (let i = 0; i < size * size; i++) {
    const [red, green, blue] = photograph ? photograph.subarray(4 * i) : [0, 0, 0];
    const grey = 0.299 * red + 0.587 * green + 0.114 * blue;
    const level = heat ? Math.round(255 * heat[i]) : 0;
    const share = heat ? shares[level] : 0;
    for (let c = 0; c < 3; c++) {
      const colour = photograph ? photograph[4 * i + c] : 0;
      const shown = colour + (grey - colour) * greyness;
      picture.data[4 * i + c] = shown + (TABLE[3 * level + c] - shown) * share;
    }
    picture.data[4 * i + 3] = heat || photograph ? 255 : 0;
  }
  canvas.getContext("2d").putImageData(picture, 0, 0);
}

// What the network saw at a step of the curve: "deletion" shows the baseline where elements are hit, "insertion" the
// photograph. Returns whether there is what it takes.
function paintPerturbed(canvas, pictures, step, kind) {
  const context = canvas.getContext("2d");
  const baseline = pictures[`${kind}Baseline`];
  if (!pictures.photograph || !baseline || !pictures.levels) {
    context.clearRect(0, 0, SIZE, SIZE);
    return false;
  }
  const last = step * pictures.levelsAStep;
  const hit = upsample(Float32Array.from(pictures.levels, (level) => (level <= last ? 1 : 0)), pictures.side, SIZE);
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
