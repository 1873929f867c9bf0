// One image in one cell, large: heatmap, deletion and insertion at one share, the curves, and the same image elsewhere.

const viewer = document.getElementById("viewer");
const parts = Object.fromEntries(
  ["heatmap", "deleted", "inserted", "curves", "step", "share", "opacity", "opaque", "colours", "cold", "scale", "hot", "siblings"].map(
    (id) => [id, document.getElementById(id)],
  ),
);
const ENDS = { value: ["low", "high"], rank: ["deleted last", "deleted first"] }; // of the colours
// What a picture may lack: beside it, and in the viewer.
const LACKS = {
  map: ["no map", "The map of this image is missing or damaged."],
  curves: ["no curves", "The curves of this image are missing or damaged; its map is shown without them."],
  match: ["map of other curves", "The map of this image does not belong to its curves."],
};
const viewed = { entry: null, pictures: null, chart: null, list: [], place: 0 };

// `list` is what Previous and Next lead through. An entry that it does not have, the same image in another cell, leaves
// the place in it as it was.
async function view(entry, list) {
  const place = list.indexOf(entry);
  Object.assign(viewed, { entry, list, place: place < 0 ? viewed.place : place, pictures: null, chart: null });
  const cell = cellOf(entry);
  document.getElementById("viewer-title").textContent = report.ids[entry.image];
  const label = labelOf(entry);
  const facts = [
    `${cell.title} at ${cell.resolution}`,
    report.groups[cell.group],
    entry.target === null ? "" : `predicted ${className(entry.target, entry)}, ${number(entry.score)}`,
    label === null ? "" : `label ${className(label, entry)}`,
    `deletion ${number(entry.deletion)}`,
    `insertion ${number(entry.insertion)}`,
  ];
  document.getElementById("viewer-about").textContent = facts.filter(Boolean).join("; ");
  for (const [id, offset] of [["previous", -1], ["next", 1]]) {
    document.getElementById(id).disabled = !list[viewed.place + offset];
  }
  // A button that is disabled loses the focus, and the dialog with it.
  if (document.activeElement.disabled) viewer.querySelector(".bar button:enabled").focus();
  if (!viewer.open) viewer.showModal();
  document.getElementById("viewer-trouble").textContent = ""; // that of the image before
  let trouble = "";
  try {
    const pictures = await loadPictures(entry);
    if (viewed.entry !== entry) return;
    viewed.pictures = pictures;
    trouble = troubleOf(entry, pictures);
  } catch (error) {
    if (viewed.entry !== entry) return;
    trouble = error.message;
  }
  document.getElementById("viewer-trouble").textContent = trouble;
  const { pictures } = viewed;
  parts.curves.replaceChildren();
  if (pictures?.curves && cell.hits) {
    viewed.chart = chart(pictures.curves, cell);
    parts.curves.append(viewed.chart.svg);
  }
  const most = cell.hits ? cell.hits.length - 1 : 0;
  const share = parts.step.value / parts.step.max; // stays where it was, also in a cell with other steps
  parts.step.max = Math.max(most, 1);
  parts.step.value = Math.round(share * parts.step.max);
  parts.step.disabled = !most;
  paintStep();
  paintHeat();
  showSiblings(entry);
}

function troubleOf(entry, pictures) {
  const missing = [];
  if (!pictures.photograph) missing.push(`Photograph: ${report.unreadable[entry.image] ?? "not found"}.`);
  else if (!pictures.deletionBaseline) missing.push("The protocol's file does not say what is shown where it is deleted.");
  return [...missing, ...pictures.lacks.map((what) => LACKS[what][1])].join(" ");
}

// Beside a heatmap the curves are not missed: what has a place for them says so there.
function lackOf(pictures) {
  return pictures.levels ? "" : pictures.lacks.map((what) => LACKS[what][0]).join(", ");
}

function paintStep() {
  const { entry, pictures, chart: shown } = viewed;
  const { hits } = cellOf(entry);
  const step = Number(parts.step.value);
  parts.share.textContent = hits ? `${((100 * hits[step]) / hits.at(-1)).toFixed(1)} %` : "-";
  shown?.at(step);
  for (const [canvas, kind, word, i] of [
    [parts.deleted, "deletion", "Deleted", 0],
    [parts.inserted, "insertion", "Inserted", 1],
  ]) {
    if (pictures) paintPerturbed(canvas, pictures, step, kind);
    else canvas.getContext("2d").clearRect(0, 0, SIZE, SIZE);
    const value = pictures?.curves?.[i][step];
    const caption = canvas.parentElement.querySelector("figcaption");
    caption.replaceChildren(
      `${word} ${parts.share.textContent}, probability `,
      element("span", { className: `${kind}-text` }, value === undefined || value === null ? "-" : (value / 1e4).toFixed(4)),
    );
  }
}

function headOf(pictures) {
  if (pictures?.levels) return "Heatmap";
  const lack = pictures ? lackOf(pictures) : "no pictures";
  return pictures?.photograph ? `Photograph, ${lack}` : lack[0].toUpperCase() + lack.slice(1);
}

function paintHeat() {
  parts.heatmap.parentElement.querySelector("figcaption").textContent = headOf(viewed.pictures);
  parts.opaque.textContent = `${parts.opacity.value} %`;
  [parts.cold.textContent, parts.hot.textContent] = ENDS[parts.colours.value];
  if (viewed.pictures) paintHeatmap(parts.heatmap, viewed.pictures, parts.opacity.value / 100, parts.colours.value);
  else parts.heatmap.getContext("2d").clearRect(0, 0, SIZE, SIZE);
}

// The same image in the cells of the same model, data and protocol.
const entriesOfImage = Map.groupBy
  ? Map.groupBy(entries, (entry) => entry.image)
  : entries.reduce((found, entry) => found.set(entry.image, [...(found.get(entry.image) ?? []), entry]), new Map());

function showSiblings(entry) {
  const group = cellOf(entry).group;
  const siblings = entriesOfImage.get(entry.image).filter((other) => cellOf(other).group === group);
  const hadFocus = parts.siblings.contains(document.activeElement);
  parts.siblings.replaceChildren(
    ...siblings.map((other) => {
      const button = thumbnail(other, [cellOf(other).title, `at ${cellOf(other).resolution}`]);
      if (other === entry) button.setAttribute("aria-current", "true");
      button.addEventListener("click", () => view(other, viewed.list));
      paintThumbnail(button, other);
      return button;
    }),
  );
  if (hadFocus) parts.siblings.querySelector("[aria-current]").focus();
}

// A button with the heatmap, lines of text, and both areas.
function thumbnail(entry, lines) {
  return element(
    "button",
    { className: "thumbnail", type: "button" },
    element("canvas", { width: SMALL, height: SMALL }),
    element("span", { className: "quiet lack" }),
    ...lines.map((line) => element("span", {}, ...breakable(line))),
    element(
      "span",
      {},
      element("b", { className: "deletion-text" }, number(entry.deletion, 3)),
      " / ",
      element("b", { className: "insertion-text" }, number(entry.insertion, 3)),
    ),
  );
}

async function paintThumbnail(button, entry) {
  const lack = button.querySelector(".lack");
  try {
    const pictures = await loadPictures(entry, SMALL);
    paintHeatmap(button.querySelector("canvas"), pictures, 0.7);
    lack.textContent = lackOf(pictures);
  } catch (error) {
    lack.textContent = "no pictures";
    button.title = error.message;
  }
}

function viewNeighbour(offset) {
  const entry = viewed.list[viewed.place + offset];
  if (entry) view(entry, viewed.list);
}

paintScale(parts.scale);
parts.step.addEventListener("input", paintStep);
parts.opacity.addEventListener("input", paintHeat);
parts.colours.addEventListener("change", paintHeat);
document.getElementById("previous").addEventListener("click", () => viewNeighbour(-1));
document.getElementById("next").addEventListener("click", () => viewNeighbour(1));
document.getElementById("close").addEventListener("click", () => viewer.close());
viewer.addEventListener("click", (event) => {
  if (event.target === viewer) viewer.close(); // beside it
});
// Of the document, which hears them also where nothing within the dialog has the focus.
document.addEventListener("keydown", (event) => {
  if (!viewer.open || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "n") viewNeighbour(1);
  if (event.key === "p") viewNeighbour(-1);
});
