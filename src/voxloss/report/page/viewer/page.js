// Tables that sort and filter, and details that print opened. Without scripts the page still shows everything.
"use strict";

(function () {
  /** The number that a cell begins with, or its text; what has no value comes last in either direction. */
  function cellValue(cell) {
    const text = (cell.dataset.value || cell.textContent).trim();
    if (cell.tagName === "TH") return text.toLowerCase(); // a name, whatever it begins with
    if (text === "" || text.startsWith("n/a")) return null;
    const number = text.replace("−", "-").match(/^[-+]?\d+(\.\d+)?([eE][-+]?\d+)?/);
    return number ? Number(number[0]) : text.toLowerCase();
  }

  function compare(a, b) {
    if (typeof a === "number" && typeof b === "number") return a - b;
    if (typeof a === typeof b) return a.localeCompare(b, undefined, { numeric: true });
    return typeof a === "number" ? -1 : 1;
  }

  function sort(table, heading, column) {
    const ascending = heading.getAttribute("aria-sort") === "descending";
    for (const other of table.tHead.querySelectorAll("th")) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", ascending ? "ascending" : "descending");
    const body = table.tBodies[0];
    const rows = Array.from(body.rows, (row) => ({ row, value: cellValue(row.cells[column]) }));
    const there = rows.filter((entry) => entry.value !== null);
    there.sort((a, b) => (ascending ? compare(a.value, b.value) : compare(b.value, a.value)));
    body.append(...there.map((entry) => entry.row), ...rows.filter((e) => e.value === null).map((e) => e.row));
  }

  for (const table of document.querySelectorAll("table[data-sortable]")) {
    const headings = table.tHead.rows[table.tHead.rows.length - 1].cells;
    Array.from(headings).forEach((heading, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "sort";
      button.append(...heading.childNodes);
      heading.append(button);
      button.addEventListener("click", () => sort(table, heading, column));
    });
  }

  for (const input of document.querySelectorAll("input[data-filter]")) {
    const table = document.getElementById(input.dataset.filter);
    const status = input.closest("p").querySelector("[role=status]");
    input.closest("p").hidden = false;
    input.addEventListener("input", () => {
      const wanted = input.value.trim().toLowerCase();
      let shown = 0;
      for (const row of table.tBodies[0].rows) {
        row.hidden = !row.textContent.toLowerCase().includes(wanted);
        if (!row.hidden) shown += 1;
      }
      status.textContent = wanted ? `${shown} of ${table.tBodies[0].rows.length}` : "";
    });
  }

  let opened = [];
  window.addEventListener("beforeprint", () => {
    opened = Array.from(document.querySelectorAll("details:not([open])"));
    for (const details of opened) details.open = true;
  });
  window.addEventListener("afterprint", () => {
    for (const details of opened) details.open = false;
  });
})();
