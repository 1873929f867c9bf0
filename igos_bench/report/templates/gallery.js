// The gallery: every image in every cell, filtered and sorted. Of its rows only those in sight are in the document.

const gallery = document.getElementById("rows");
const filters = document.getElementById("filters").elements;
const MOST_PIXELS = 15_000_000; // browsers cannot scroll an element much higher

const COLUMNS = [
  { name: "Image", key: (entry) => report.ids[entry.image] },
  { name: "Class", key: (entry) => className(classOf(entry), entry) },
  { name: "Method", key: (entry) => cellOf(entry).title },
  { name: "Resolution", key: (entry) => cellOf(entry).resolution, number: true },
  { name: "Deletion", key: (entry) => entry.deletion, number: true },
  { name: "Insertion", key: (entry) => entry.insertion, number: true },
  { name: "Difference", head: "Ins. \u2212 del.", title: "Insertion minus deletion: higher is better", key: contrast, number: true },
  { name: "Predicted", key: (entry) => className(entry.target, entry) },
  { name: "Probability", key: (entry) => entry.score, number: true },
];
// As they stand from left to right, below the picture and the curves.
const SHOWN = ["Image", "Class", "Method", "Resolution", "Deletion", "Insertion", "Difference"];

const FEW_FAILED = 3; // above rows
const MANY_FAILED = 50; // where there are no rows

const listed = { entries: [], chosen: 0, sort: "Image", ascending: true, rows: new Map() };

// The label; where there is none, the prediction.
function classOf(entry) {
  return labelOf(entry) ?? entry.target;
}

function compareKeys(a, b) {
  if (a === null || b === null) return (a === null) - (b === null);
  return typeof a === "number" ? a - b : compareTexts(a, b);
}

function list() {
  const query = filters.query.value.trim().toLowerCase();
  const wanted = Object.fromEntries(["group", "method", "resolution", "class", "outcome"].map((k) => [k, filters[k].value]));
  const fits = (cell, id) =>
    String(cell.group) === wanted.group &&
    (!wanted.method || cell.title === wanted.method) &&
    (!wanted.resolution || String(cell.resolution) === wanted.resolution) &&
    (!query || id.toLowerCase().includes(query));
  const found = entries.filter(
    (entry) =>
      fits(cellOf(entry), report.ids[entry.image]) &&
      (!wanted.class || String(classOf(entry)) === wanted.class) &&
      (!wanted.outcome || outcomeOf(entry) === wanted.outcome),
  );
  const lost = failed.filter(({ cell, id }) => fits(cell, id));
  const { key } = COLUMNS.find((column) => column.name === listed.sort);
  const keyed = found.map((entry) => [key(entry), entry]);
  const direction = listed.ascending ? 1 : -1;
  keyed.sort(([a], [b]) => (a === null || b === null ? compareKeys(a, b) : direction * compareKeys(a, b)));
  listed.entries = keyed.map(([, entry]) => entry);
  listed.chosen = 0;
  const most = Math.floor(MOST_PIXELS / rowHeight());
  const images = new Set(listed.entries.map((entry) => entry.image)).size;
  document.getElementById("count").textContent =
    `${counted(images, "image")}, ${counted(listed.entries.length, "map")}` +
    (lost.length ? `, ${lost.length.toLocaleString("en")} failed` : "") +
    (lost.length && (wanted.class || wanted.outcome) ? " (of any class and prediction)" : "") +
    (listed.entries.length > most ? `; the first ${most.toLocaleString("en")} are here, filter to see the others` : "");
  listed.entries.length = Math.min(listed.entries.length, most);
  nameFailed(lost);
  const order = listed.ascending ? "ascending" : "descending";
  for (const button of document.querySelectorAll("#columns button")) {
    button.parentElement.setAttribute("aria-sort", button.name === listed.sort ? order : "none");
  }
  filters.sort.value = `${listed.sort} ${listed.ascending ? "up" : "down"}`;
  redraw();
}

// What failed in a cell has no row there. Its class and its prediction are not known.
function nameFailed(lost) {
  const named = lost.slice(0, listed.entries.length ? FEW_FAILED : MANY_FAILED);
  const others = lost.length - named.length;
  const place = document.getElementById("failed");
  place.hidden = !lost.length;
  place.classList.toggle("few", listed.entries.length > 0);
  place.replaceChildren(
    ...named.map(({ cell, id, reason }) =>
      element("li", {}, ...breakable(`${id}, ${cell.title} at ${cell.resolution}: `), element("span", { className: "trouble" }, reason)),
    ),
    element("li", {}, others ? `and ${others.toLocaleString("en")} more: ` : "", element("a", { href: "#failures" }, "All failures")),
  );
}

function counted(count, what) {
  return `${count.toLocaleString("en")} ${what}${count === 1 ? "" : "s"}`;
}

function rowHeight() {
  return Number.parseFloat(getComputedStyle(document.documentElement).getPropertyValue("--row"));
}

function redraw() {
  for (const row of listed.rows.values()) row.remove();
  listed.rows.clear();
  draw();
}

// Put the rows in sight, and some beside them, into the document; take the others out.
function draw() {
  const height = rowHeight();
  gallery.style.height = `${height * listed.entries.length}px`;
  if (!gallery.checkVisibility()) return; // another section is shown
  const top = -gallery.getBoundingClientRect().top;
  const first = Math.max(0, Math.floor(top / height) - 3);
  const last = Math.min(listed.entries.length, Math.ceil((top + innerHeight) / height) + 3);
  for (const [index, row] of listed.rows) {
    if (index < first || index >= last) {
      row.remove();
      listed.rows.delete(index);
    }
  }
  for (let index = first; index < last; index++) {
    if (listed.rows.has(index)) continue;
    const row = makeRow(listed.entries[index], index);
    row.style.top = `${index * height}px`;
    listed.rows.set(index, row);
    gallery.append(row);
    paintSoon(row, listed.entries[index]);
  }
  markChosen();
}

function makeRow(entry, index) {
  const cell = cellOf(entry);
  const outcome = outcomeOf(entry);
  const text = (className, ...children) => element("div", { className }, ...children);
  const predicted = `${className(entry.target, entry)} ${number(entry.score, 2)}`;
  const row = element(
    "div",
    { className: "row", id: `row-${index}` },
    text("picture", element("canvas", { width: SMALL, height: SMALL }), element("span", { className: "quiet lack" })),
    text("quiet spark"),
    text(
      "id",
      ...breakable(report.ids[entry.image]),
      ...(entry.image in report.unreadable ? [element("span", { className: "quiet miss" }, " no photograph")] : []),
    ),
    text(
      "class",
      labelOf(entry) === null ? "" : className(labelOf(entry), entry),
      element("span", { className: outcome === "miss" ? "quiet miss" : "quiet" }, outcome === "hit" ? ` ${number(entry.score, 2)}` : ` predicted ${predicted}`),
    ),
    text("method", ...breakable(cell.title), element("span", { className: "coarse" }, ` at ${cell.resolution}`)),
    text("number resolution", String(cell.resolution)),
    text("number deletion-text", number(entry.deletion)),
    text("number insertion-text", number(entry.insertion)),
    text("number contrast", signed(contrast(entry))),
  );
  row.setAttribute("role", "option");
  row.addEventListener("click", () => {
    listed.chosen = index;
    markChosen();
    open(entry);
  });
  return row;
}

// One row a frame, so that scrolling stays smooth; a row that has flown past is not painted.
const unpainted = new Map(); // row -> entry: each row once, however often it is asked for
let painting = false;

async function paintSoon(row, entry) {
  unpainted.set(row, entry);
  if (painting) return;
  painting = true;
  for (const [next, shown] of unpainted) {
    unpainted.delete(next); // before it is painted: asked for from here on, it is painted again, after the others
    if (!next.isConnected) continue;
    await paintRow(next, shown);
    await new Promise(requestAnimationFrame);
  }
  painting = false;
}

async function paintRow(row, entry) {
  const [lack, curves] = [row.querySelector(".lack"), row.querySelector(".spark")];
  try {
    const pictures = await loadPictures(entry, SMALL);
    paintHeatmap(row.querySelector("canvas"), pictures, filters.opacity.value / 100);
    lack.textContent = lackOf(pictures);
    curves.replaceChildren(pictures.curves ? sparkline(pictures.curves, cellOf(entry)) : "no curves");
  } catch (error) {
    lack.textContent = "no pictures";
    curves.textContent = error.message;
  }
}

function markChosen() {
  for (const [index, row] of listed.rows) {
    row.classList.toggle("chosen", index === listed.chosen);
    row.setAttribute("aria-selected", String(index === listed.chosen));
  }
  if (listed.rows.has(listed.chosen)) gallery.setAttribute("aria-activedescendant", `row-${listed.chosen}`);
  else gallery.removeAttribute("aria-activedescendant");
}

function choose(index) {
  listed.chosen = Math.max(0, Math.min(listed.entries.length - 1, index));
  const height = rowHeight();
  const top = gallery.getBoundingClientRect().top + listed.chosen * height;
  const head = document.getElementById("columns").offsetHeight;
  if (top < head) scrollBy(0, Math.floor(top - head));
  else if (top + height > innerHeight) scrollBy(0, Math.ceil(top + height - innerHeight));
  draw();
}

function open(entry) {
  view(entry, listed.entries);
}

gallery.addEventListener("keydown", (event) => {
  const page = Math.max(1, Math.floor(innerHeight / rowHeight()) - 2);
  const moves = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
  if (event.key in moves) choose(listed.chosen + moves[event.key]);
  else if (event.key === "Enter" && listed.entries.length) open(listed.entries[listed.chosen]);
  else return;
  event.preventDefault();
});

// The one looked at last is the one to go on from.
viewer.addEventListener("close", () => {
  if (viewed.list === listed.entries) choose(viewed.place);
});

function sortBy(name, ascending) {
  Object.assign(listed, { sort: name, ascending });
  list();
}

function fill(select, values, all) {
  select.replaceChildren(...(all ? [new Option(all, "")] : []), ...values.map(([value, text]) => new Option(text, value)));
}

// The choices that the cells of the chosen table offer; what was chosen stays where it is still there.
function fillFilters() {
  const mine = report.cells.filter((cell) => String(cell.group) === filters.group.value);
  const kept = ["method", "resolution", "class"].map((key) => [key, filters[key].value]);
  const unique = (values) => [...new Set(values)];
  fill(filters.method, unique(mine.map((cell) => cell.title)).map((title) => [title, title]), "all");
  const resolutions = unique(mine.map((cell) => cell.resolution)).sort((a, b) => b - a);
  fill(filters.resolution, resolutions.map((value) => [value, value]), "all");
  const members = entries.filter((entry) => String(cellOf(entry).group) === filters.group.value && classOf(entry) !== null);
  const named = new Map(members.map((entry) => [classOf(entry), className(classOf(entry), entry)]));
  fill(filters.class, [...named].sort(([, a], [, b]) => compareKeys(a, b)), "all");
  for (const [key, value] of kept) if ([...filters[key].options].some((option) => option.value === value)) filters[key].value = value;
}

function beginGallery() {
  fill(filters.group, report.groups.map((name, index) => [index, name]));
  const both = COLUMNS.flatMap(({ name, head = name }) => [[`${name} up`, `${head}, ascending`], [`${name} down`, `${head}, descending`]]);
  fill(filters.sort, both);
  const heads = SHOWN.map((shown) => {
    const { name, head = name, title = "", number } = COLUMNS.find((column) => column.name === shown);
    const button = element("button", { type: "button", name, title }, head);
    button.addEventListener("click", () => sortBy(name, listed.sort === name ? !listed.ascending : true));
    return element("span", { className: number ? "number" : "" }, button);
  });
  const row = element("div", {}, element("span", {}, "Map"), element("span", {}, "Curves"), ...heads);
  row.setAttribute("role", "row");
  for (const head of row.children) head.setAttribute("role", "columnheader");
  document.getElementById("columns").append(row);
  fillFilters();
  filters.group.addEventListener("change", () => {
    fillFilters();
    list();
  });
  for (const key of ["method", "resolution", "class", "outcome"]) filters[key].addEventListener("change", list);
  filters.query.addEventListener("input", list);
  filters.sort.addEventListener("change", () => {
    const [name, order] = filters.sort.value.split(" ");
    sortBy(name, order === "up");
  });
  filters.opacity.addEventListener("input", () => {
    for (const [index, row] of listed.rows) paintSoon(row, listed.entries[index]);
  });
  document.getElementById("filters").addEventListener("submit", (event) => event.preventDefault());
  let waiting = false;
  const soon = () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      draw();
    });
  };
  addEventListener("scroll", soon, { passive: true });
  let height = rowHeight();
  addEventListener("resize", () => {
    if (rowHeight() === height) return soon();
    height = rowHeight();
    redraw();
  });
  list();
}

beginGallery();
