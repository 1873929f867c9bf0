// The best and the worst images of every cell, painted when they come into sight.

const EXTREMES = 4;
const extremes = document.getElementById("extremes-rows");
const extremesFilters = document.getElementById("extremes-filters").elements;

// Higher is better under each of these.
const GOODNESS = {
  contrast,
  deletion: (entry) => (entry.deletion === null ? null : -entry.deletion),
  insertion: (entry) => entry.insertion,
};

const painter = new IntersectionObserver((seen) => {
  for (const { isIntersecting, target } of seen) {
    if (!isIntersecting) continue;
    painter.unobserve(target);
    paintThumbnail(target, target.entry);
  }
});

function listExtremes() {
  painter.disconnect();
  const goodness = GOODNESS[extremesFilters.by.value];
  const rows = report.cells.flatMap((cell, index) => {
    if (String(cell.group) !== extremesFilters.group.value) return [];
    const ranked = entriesOfCell[index].filter((entry) => goodness(entry) !== null);
    ranked.sort((a, b) => goodness(b) - goodness(a));
    const strip = (name, chosen) => {
      const shown = element("div", { className: "strip" }, ...chosen.map((entry) => extreme(entry, ranked)));
      shown.dataset.name = name;
      return shown;
    };
    // Of few images none is both among the best and among the worst.
    const count = Math.min(EXTREMES, Math.ceil(ranked.length / 2));
    const worst = ranked.slice(count).slice(-EXTREMES).reverse();
    return [
      element(
        "div",
        { className: "extreme" },
        element("div", {}, ...breakable(cell.title + cell.signs), element("div", { className: "quiet" }, `at ${cell.resolution}, ${counted(ranked.length, "image")}`)),
        strip("best", ranked.slice(0, count)),
        strip("worst first", worst),
      ),
    ];
  });
  extremes.replaceChildren(...rows);
}

function extreme(entry, ranked) {
  const button = thumbnail(entry, [report.ids[entry.image]]);
  button.entry = entry;
  button.addEventListener("click", () => view(entry, ranked));
  painter.observe(button);
  return button;
}

const entriesOfCell = report.cells.map(() => []);
for (const entry of entries) entriesOfCell[entry.cell].push(entry);

fill(extremesFilters.group, report.groups.map((name, index) => [index, name]));
extremesFilters.group.addEventListener("change", listExtremes);
extremesFilters.by.addEventListener("change", listExtremes);
