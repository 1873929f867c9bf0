// The gallery: every image in every cell, filtered and sorted. Of its rows only those in sight are in the document.

const gallery = document.getElementById("rows");
const filters = document.getElementById("filters").elements;
const MOST_PIXELS = 15_000_000; // browsers cannot scroll an element much higher

const COLUMNS = [
  { name: "Image", key: (entry) => report.ids[entry.image] },
  { name: "Class", key: (entry) => className(classOf(entry)) },
  { name: "Method", key: (entry) => cellOf(entry).title },
  { name: "Resolution", key: (entry) => cellOf(entry).resolution, number: true },
  { name: "Deletion", key: (entry) => entry.deletion, number: true },
  { name: "Insertion", key: (entry) => entry.insertion, number: true },
  { name: "Difference", head: "Ins. \u2212 del.", title: "Insertion minus deletion: higher is better", key: contrast, number: true },
  { name: "Predicted", key: (entry) => className(entry.target) },
  { name: "Probability", key: (entry) => entry.score, number: true },
];
// As they stand from left to right, below the picture and the curves.
const SHOWN = ["Image", "Class", "Method", "Resolution", "Deletion", "Insertion", "Difference"];

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
  const found = entries.filter((entry) => {
    const cell = cellOf(entry);
    return (
      String(cell.group) === wanted.group &&
      (!wanted.method || cell.title === wanted.method) &&
      (!wanted.resolution || String(cell.resolution) === wanted.resolution) &&
      (!wanted.class || String(classOf(entry)) === wanted.class) &&
      (!wanted.outcome || outcomeOf(entry) === wanted.outcome) &&
      (!query || report.ids[entry.image].toLowerCase().includes(query))
    );
  });
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
    (listed.entries.length > most ? `; the first ${most.toLocaleString("en")} are here, filter to see the others` : "");
  listed.entries.length = Math.min(listed.entries.length, most);
  const order = listed.ascending ? "ascending" : "descending";
  for (const button of document.querySelectorAll("#columns button")) {
    button.parentElement.setAttribute("aria-sort", button.name === listed.sort ? order : "none");
  }
  filters.sort.value = `${listed.sort} ${listed.ascending ? "up" : "down"}`;
  redraw();
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
  const predicted = `${className(entry.target)} ${number(entry.score, 2)}`;
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
      labelOf(entry) === null ? "" : className(labelOf(entry)),
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
const unpainted = [];

async function paintSoon(...rowAndEntry) {
  unpainted.push(rowAndEntry);
  if (unpainted.length > 1) return; // the call that found none before it is at work
  while (unpainted.length) {
    const [row, entry] = unpainted[0];
    if (row.isConnected) {
      await paintRow(row, entry);
      await new Promise(requestAnimationFrame);
    }
    unpainted.shift();
  }
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
  view(entry, (from, offset) => listed.entries[listed.entries.indexOf(from) + offset]);
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
  const index = listed.entries.indexOf(viewed.entry);
  if (index >= 0 && gallery.checkVisibility()) choose(index);
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
  const classes = unique(entries.filter((entry) => String(cellOf(entry).group) === filters.group.value).map(classOf));
  const named = classes.filter((index) => index !== null).map((index) => [index, className(index)]);
  fill(filters.class, named.sort(([, a], [, b]) => compareKeys(a, b)), "all");
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
