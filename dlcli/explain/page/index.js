"use strict";
// Rows stay JSON text until they are shown; what sorting and searching need is read once.

const ROWS_A_PAGE = 50;

function mean(numbers) {
  const known = numbers.filter((value) => value !== null && value !== undefined);
  return known.length ? known.reduce((sum, value) => sum + value, 0) / known.length : null;
}

function entryOf(row, place) {
  const faithfulness = {};
  for (const method of new Set(row.cells.map((cell) => cell.method))) {
    faithfulness[method] = mean(row.cells.filter((cell) => cell.method === method).map((cell) => cell.faithfulness));
  }
  const words = [row.name, row.predicted, row.truth, row.error, row.text, ...row.cells.map((cell) => cell.class)];
  return {
    place,
    name: row.name,
    class: row.predicted,
    probability: row.probability,
    faithfulness: mean(Object.values(faithfulness)),
    methods: faithfulness,
    words: words.filter(Boolean).join("\n").toLowerCase(),
    flagged: Boolean(row.error) || row.cells.some((cell) => cell.status !== "ok" || cell.warnings.length > 0),
    wrong: row.truth !== null && row.truth !== row.predicted,
  };
}

function valueOf(entry, key) {
  const value = key.startsWith("method:") ? entry.methods[key.slice(7)] : entry[key];
  return value === undefined ? null : value;
}

// What has no value comes last in both directions; equal ones stay in the order of the inputs, since sort() is stable.
function ordered(entries, key, descending) {
  const collator = new Intl.Collator(undefined, { numeric: true });
  return [...entries].sort((first, second) => {
    const [a, b] = [valueOf(first, key), valueOf(second, key)];
    if (a === null || b === null) return (a === null) - (b === null);
    const difference = typeof a === "string" ? collator.compare(a, b) : a - b;
    return descending ? -difference : difference;
  });
}

function chosen(entries, find, flagged, wrong) {
  const words = find.toLowerCase().split(/\s+/).filter(Boolean);
  return entries.filter((entry) =>
    words.every((word) => entry.words.includes(word)) && (!flagged || entry.flagged) && (!wrong || entry.wrong));
}

function percent(value) {
  return value === null ? "" : (100 * value).toFixed(1) + " %";
}

// Names and texts enter the page as text only, never as HTML.
function element(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

function imageOf(source, description) {
  const image = element("img");
  image.alt = description;
  image.addEventListener("load", () => {
    const longer = Math.max(image.naturalWidth, image.naturalHeight);
    if (longer <= 64) image.classList.add("small");
    if (longer > 128) image.classList.add("wide");
  });
  image.src = source;
  return image;
}

function linked(node, file) {
  if (!file) return node;
  const link = element("a");
  link.href = "./" + encodeURIComponent(file);
  link.append(node);
  return link;
}

function inputOf(row) {
  const cell = element("td", "input");
  if (row.picture) cell.append(imageOf(row.picture, row.name));
  const name = element("div", "name", row.picture ? row.name.split("/").slice(-2).join("/") : row.name);
  name.title = row.name;
  cell.append(name);
  if (row.text) cell.append(element("div", "text", row.text));
  if (row.error) cell.append(element("div", "problem", row.error));
  if (row.predicted !== null) {
    const wrong = row.truth !== null && row.truth !== row.predicted;
    cell.append(element("div", "", ("predicted: " + row.predicted + " " + percent(row.probability)).trim()));
    if (row.truth !== null) cell.append(element("div", wrong ? "problem" : "good", "true: " + row.truth));
  }
  for (const note of row.notes) cell.append(element("div", "quiet", note));
  return cell;
}

function explanationOf(cell) {
  const box = element("div", "cell");
  const said = cell.scale === "probability" || cell.value === null ? "" : ", " + cell.scale + " " + cell.value.toPrecision(4);
  box.append(element("div", "", "why " + cell.class + "? " + percent(cell.probability) + said));
  if (cell.status === "flat_map") box.append(element("div", "problem", "flat map: nothing to show"));
  if (cell.status === "not_finite") box.append(element("div", "problem", "not finite: nothing to show"));
  if (cell.picture) box.append(linked(imageOf(cell.picture, cell.method + " for " + cell.class), cell.file));
  if (cell.fragment) {
    const words = element("div", "words");
    words.innerHTML = cell.fragment;  // escaped by dlcli; the page's policy runs no script of it
    box.append(words);
  }
  if (!cell.picture && cell.file) box.append(linked(element("span", "", "picture"), cell.file));
  if (cell.faithfulness !== null) {
    const sign = cell.faithfulness < 0 ? "" : "+";
    const tone = cell.verdict === "better than random" ? "good" : "problem";
    box.append(element("div", tone, "faithfulness " + sign + cell.faithfulness.toFixed(2) + ", " + cell.verdict));
  }
  if (cell.stability !== null) box.append(element("div", "quiet", "stability " + cell.stability.toFixed(2)));
  for (const warning of cell.warnings) box.append(element("div", "problem", warning));
  return box;
}

function start() {
  const blocks = [...document.querySelectorAll("script.row")];
  const entries = blocks.map((block, place) => entryOf(JSON.parse(block.textContent), place));
  const methods = [...new Set(entries.flatMap((entry) => Object.keys(entry.methods)))];
  const hidden = new Set();
  const by = (id) => document.getElementById(id);
  let page = 0;

  const keys = [["place", "input order"], ["name", "name"], ["class", "class"], ["probability", "probability"],
    ["faithfulness", "faithfulness"], ...methods.map((name) => ["method:" + name, "faithfulness of " + name])];
  for (const [key, label] of keys) {
    const option = element("option", "", label);
    option.value = key;
    by("key").append(option);
  }
  for (const name of methods) {
    const label = element("label");
    const box = element("input");
    box.type = "checkbox";
    box.checked = true;
    box.addEventListener("change", () => { if (box.checked) hidden.delete(name); else hidden.add(name); show(); });
    label.append(box, " " + name + " ");
    by("methods").append(label);
  }

  function show() {
    const rows = ordered(chosen(entries, by("find").value, by("flagged").checked, by("wrong").checked),
      by("key").value, by("descending").checked);
    page = Math.max(0, Math.min(page, Math.ceil(rows.length / ROWS_A_PAGE) - 1));
    const first = page * ROWS_A_PAGE;
    const visible = rows.slice(first, first + ROWS_A_PAGE);
    const shown = methods.filter((name) => !hidden.has(name));
    const head = element("tr");
    for (const name of ["input", ...shown]) head.append(element("th", "", name));
    by("grid").tHead.replaceChildren(head);
    by("grid").tBodies[0].replaceChildren(...visible.map((entry) => {
      const row = JSON.parse(blocks[entry.place].textContent);
      const line = element("tr");
      line.append(inputOf(row));
      for (const name of shown) {
        const cell = element("td");
        cell.append(...row.cells.filter((each) => each.method === name).map(explanationOf));
        line.append(cell);
      }
      return line;
    }));
    by("shown").textContent = rows.length
      ? (first + 1) + " to " + (first + visible.length) + " of " + rows.length + (rows.length < entries.length ? " found" : "")
      : "nothing found";
    by("back").disabled = page === 0;
    by("next").disabled = first + ROWS_A_PAGE >= rows.length;
  }

  for (const id of ["key", "descending", "find", "flagged", "wrong"]) {
    by(id).addEventListener("input", () => { page = 0; show(); });
  }
  by("controls").addEventListener("submit", (event) => event.preventDefault());
  by("back").addEventListener("click", () => { page -= 1; show(); });
  by("next").addEventListener("click", () => { page += 1; show(); window.scrollTo(0, 0); });
  by("wrong").parentElement.hidden = !entries.some((entry) => entry.wrong);
  show();
}

if (typeof document !== "undefined") start();
