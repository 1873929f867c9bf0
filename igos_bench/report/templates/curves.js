// Deletion and insertion curves: probability of the class over the share of the map that is deleted or inserted.

const KINDS = ["deletion", "insertion"];

function pathOf(values, shares, across, down) {
  const points = values.map((value, i) =>
    value === null ? null : `${across(shares[i]).toFixed(1)},${down(value / 1e4).toFixed(1)}`,
  );
  return `M${points.filter((point) => point !== null).join("L")}`;
}

function sharesOf(cell) {
  return cell.hits.map((hit) => hit / cell.hits.at(-1));
}

// Small and without axes, for a row of the gallery.
function sparkline(curves, cell) {
  const [width, height] = [120, 64];
  const svg = drawing("svg", { width, height, viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" });
  svg.append(drawing("path", { class: "frame", d: `M0.5,0V${height - 0.5}H${width}` }));
  const shares = sharesOf(cell);
  curves.forEach((values, i) => {
    const d = pathOf(values, shares, (x) => 1 + x * (width - 2), (y) => height - 1 - y * (height - 4));
    svg.append(drawing("path", { class: `curve ${KINDS[i]}`, d }));
  });
  return svg;
}

// With axes; `at(step)` moves the points.
function chart(curves, cell) {
  const [width, height, left, bottom, top, right] = [340, 250, 34, 34, 22, 18];
  const across = (x) => left + x * (width - left - right);
  const down = (y) => height - bottom - y * (height - bottom - top);
  const svg = drawing("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "Deletion and insertion curves" });
  svg.append(drawing("path", { class: "frame", d: `M${left},${top}V${height - bottom}H${width - right}` }));
  for (const tick of [0, 0.25, 0.5, 0.75, 1]) {
    svg.append(
      drawing("text", { x: left - 5, y: down(tick) + 4, "text-anchor": "end" }, tick.toFixed(2)),
      drawing("text", { x: across(tick), y: height - bottom + 14, "text-anchor": "middle" }, `${100 * tick} %`),
    );
  }
  svg.append(
    drawing("text", { x: across(0.5), y: height - 4, "text-anchor": "middle" }, "share of the map"),
    drawing("text", { x: 2, y: 11 }, "probability"),
    drawing("text", { class: "deletion", x: width - right - 62, y: 11, "text-anchor": "end" }, "deletion"),
    drawing("text", { class: "insertion", x: width - right, y: 11, "text-anchor": "end" }, "insertion"),
  );
  const shares = sharesOf(cell);
  curves.forEach((values, i) =>
    svg.append(drawing("path", { class: `curve ${KINDS[i]}`, d: pathOf(values, shares, across, down) })),
  );
  const line = drawing("line", { class: "here", y1: top, y2: height - bottom });
  const points = KINDS.map((kind) => drawing("circle", { class: `point ${kind}`, r: 5 }));
  svg.append(line, ...points);
  const at = (step) => {
    const x = across(shares[step]);
    line.setAttribute("x1", x);
    line.setAttribute("x2", x);
    points.forEach((point, i) => {
      const value = curves[i][step];
      point.setAttribute("cx", x);
      point.setAttribute("cy", value === null ? -10 : down(value / 1e4));
    });
  };
  return { svg, at };
}
