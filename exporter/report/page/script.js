"use strict";
document.documentElement.classList.add("with-script");

const cells = (row) => [...row.cells].map((cell) => cell.textContent.trim());
const rows = (table) => [...table.tBodies[0].rows];

function copy(text, button) {
  const before = button.textContent;
  const done = (word) => {
    button.textContent = word;
    setTimeout(() => { button.textContent = before; }, 1500);
  };
  const area = document.createElement("textarea");
  area.value = text;
  document.body.append(area);
  area.select();
  done(document.execCommand("copy") ? "Copied" : "Not copied");
  area.remove();
}

function filter(input) {
  const table = document.getElementById(input.dataset.filter);
  const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  for (const row of rows(table)) {
    const text = cells(row).join(" ").toLowerCase();
    row.hidden = !words.every((word) => text.includes(word));
    shown += row.hidden ? 0 : 1;
  }
  const count = document.querySelector(`[data-count="${table.id}"]`);
  count.textContent = `${shown} of ${rows(table).length} ${count.dataset.noun ?? "units"}`;
}

function sort(table, column, button) {
  const heads = [...table.tHead.rows[0].cells];
  const down = heads[column].ariaSort === "ascending";
  heads.forEach((head) => head.removeAttribute("aria-sort"));
  heads[column].ariaSort = down ? "descending" : "ascending";
  const order = new Intl.Collator("en", { numeric: true });
  const sorted = rows(table).sort((a, b) => {
    const [x, y] = [a, b].map((row) => row.cells[column].dataset.sort ?? cells(row)[column]);
    if (!x || !y) return x ? -1 : y ? 1 : 0; // empty cells last
    return (down ? -1 : 1) * order.compare(x, y);
  });
  table.tBodies[0].append(...sorted);
}

function asCsv(table) {
  const quote = (text) => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  return [table.tHead.rows[0], ...rows(table)].map((row) => cells(row).map(quote).join(",")).join("\n");
}

function asJson(table) {
  const names = cells(table.tHead.rows[0]).map((name) => name.toLowerCase());
  const records = rows(table).map((row) => Object.fromEntries(cells(row).map((text, i) => [names[i], text])));
  return JSON.stringify(records, null, 1);
}

for (const table of document.querySelectorAll("table.sortable")) {
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    button.addEventListener("click", () => sort(table, column));
    head.replaceChildren(button);
  });
}
for (const input of document.querySelectorAll("[data-filter]")) {
  input.addEventListener("input", () => filter(input));
}
for (const button of document.querySelectorAll("[data-copy]")) {
  button.addEventListener("click", () => copy(button.dataset.copy, button));
}
for (const button of document.querySelectorAll("[data-copy-table]")) {
  const table = document.getElementById(button.dataset.copyTable);
  button.addEventListener("click", () => copy((button.dataset.form === "csv" ? asCsv : asJson)(table), button));
}
for (const box of document.querySelectorAll("[data-information]")) {
  box.addEventListener("change", () => box.closest("details").classList.toggle("all", box.checked));
}
