"use strict";
// What the page knows: the numbers that are embedded in it, and the files of single images, which are loaded when an
// image comes into view. Texts of users (names of images, reasons) are only ever shown by way of textContent.

const report = JSON.parse(document.getElementById("data").textContent);

// An entry of the gallery: one image in one cell.
const entries = report.cells.flatMap((cell, index) =>
  cell.images.map((image, i) => ({
    cell: index,
    image,
    target: cell.targets[i],
    score: cell.scores[i],
    deletion: cell.deletion[i],
    insertion: cell.insertion[i],
  })),
);

// An image that failed in a cell: of these, `failures` holds the ids by their reason.
const failed = report.cells.flatMap((cell) =>
  Object.entries(cell.failures).flatMap(([reason, ids]) => ids.map((id) => ({ cell, id, reason }))),
);

function cellOf(entry) {
  return report.cells[entry.cell];
}

function labelOf(entry) {
  return report.labels[entry.image];
}

// "hit", "miss", or "unknown" where the image has no label.
function outcomeOf(entry) {
  const label = labelOf(entry);
  if (label === null || entry.target === null) return "unknown";
  return label === entry.target ? "hit" : "miss";
}

// Of a class of an entry: by name where its network is known to have ImageNet's classes.
function className(index, entry) {
  if (index === null || index === undefined) return "";
  return cellOf(entry).has_class_names && index in report.classes ? `${report.classes[index]} (${index})` : String(index);
}

function number(value, digits = 4) {
  return value === null || value === undefined ? "-" : value.toFixed(digits);
}

// Texts in the order in which people count: image2 before image10.
const { compare: compareTexts } = new Intl.Collator("en", { numeric: true });

function signed(value) {
  return value === null ? "-" : `${value < 0 ? "\u2212" : "+"}${Math.abs(value).toFixed(4)}`;
}

function contrast(entry) {
  return entry.deletion === null || entry.insertion === null ? null : entry.insertion - entry.deletion;
}

// The file of an image: {photographs, cells}. The latest are kept.

const KEPT = 150;
const files = new Map(); // number -> {promise, build, content}

// Called by the files; whether the page may show what they hand over is judged once they have run.
function sideFile(build, number, content) {
  Object.assign(files.get(number) ?? {}, { build, content });
}

function loadFile(number) {
  let file = files.get(number);
  if (file) {
    files.delete(number); // to put it last: the first of the map is the one not asked for longest
  } else {
    file = {};
    file.promise = new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.src = `report_files/${number}.js`;
      const refuse = (why) => {
        files.delete(number); // it is asked for again when it is next in sight
        reject(new Error(`report_files/${number}.js ${why}`));
      };
      script.onload = () => {
        script.remove();
        if (!file.content) refuse("is damaged: make the report again");
        else if (file.build !== report.build) refuse("was made for another report: make it again, and load this page anew");
        else resolve(file.content);
      };
      script.onerror = () => {
        script.remove();
        refuse("is not beside this page: move the folder along with it");
      };
      document.head.append(script);
    });
  }
  files.set(number, file);
  for (const oldest of files.keys()) {
    if (files.size <= KEPT) break;
    files.delete(oldest);
  }
  return file.promise;
}

// An element with text; children that are strings become text too.
function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

// A text that may be broken after `=`, `_` and `/`, and not within its words.
function breakable(text) {
  return text.split(/(?<=[=_/])/).flatMap((part, i) => (i ? [document.createElement("wbr"), part] : [part]));
}

function drawing(name, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}
