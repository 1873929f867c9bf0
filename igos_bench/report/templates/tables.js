// Tables that a click on a column's head sorts: numbers by value, intervals by their lower ends, with which they begin,
// texts by letters; what has no number is last.

function sortTable(table, column, ascending) {
  const body = table.tBodies[0];
  const isText = table.tHead.rows[0].cells[column].classList.contains("text");
  const keyOf = (row) => {
    const cell = row.cells[column];
    if (isText) return cell.textContent.trim();
    return Number.parseFloat(cell.dataset.value ?? cell.textContent.replace("\u2212", "-"));
  };
  const keyed = [...body.rows].map((row) => [keyOf(row), row]);
  const direction = ascending ? 1 : -1;
  keyed.sort(([a], [b]) => {
    if (isText) return direction * compareTexts(a, b);
    if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b);
    return direction * (a - b);
  });
  body.append(...keyed.map(([, row]) => row));
}

for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    head.querySelector("button")?.addEventListener("click", () => {
      const ascending = head.getAttribute("aria-sort") !== "ascending";
      for (const other of heads) if (other.hasAttribute("aria-sort")) other.setAttribute("aria-sort", "none");
      head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
      sortTable(table, column, ascending);
    });
  });
}

// What scrolls sideways can be scrolled by the keyboard.
for (const wide of document.querySelectorAll(".wide")) {
  wide.tabIndex = 0;
  wide.setAttribute("role", "region");
  wide.setAttribute("aria-label", "Table");
}
