"use strict";
(() => {
  // Sorting: a click on a heading, again for the other direction. Cells without a value go last.
  const valueOf = (row, column) => {
    const cell = row.cells[column];
    const shown = (cell.dataset.value ?? cell.textContent).trim().replace(/ %$/, "").replace("\u2212", "-");
    const text = shown === "\u2013" ? "" : shown;
    return { text, number: Number(text) };
  };
  const words = new Intl.Collator();
  const compare = (a, b) =>
    Number.isNaN(a.number) || Number.isNaN(b.number) ? words.compare(a.text, b.text) : a.number - b.number;
  const sortable = (table) => {
    const body = table.tBodies[0];
    const rows = Array.from(body.rows);
    const heads = Array.from(table.tHead.rows[0].cells);
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = head.textContent;
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const first = head.classList.contains("n") && column > 0 ? "descending" : "ascending";
        const last = first === "ascending" ? "descending" : "ascending";
        const order = head.getAttribute("aria-sort") === first ? last : first;
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", order);
        const sign = order === "ascending" ? 1 : -1;
        const values = new Map(rows.map((row) => [row, valueOf(row, column)]));  // each cell is read once
        rows.sort((a, b) => {
          const x = values.get(a), y = values.get(b);
          if (x.text === "" || y.text === "") return (x.text === "") - (y.text === "");
          return sign * compare(x, y);
        });
        body.append(...rows);
      });
    });
  };
  document.querySelectorAll("table.sortable").forEach(sortable);

  // Filtering the trials: every word must stand somewhere in the row.
  const table = document.getElementById("trial-table");
  if (!table) return;
  const rows = Array.from(table.tBodies[0].rows);
  const field = document.getElementById("filter");
  const shown = document.getElementById("shown");
  const texts = new Map(rows.map((row) => [row, row.textContent.toLowerCase()]));
  const filter = () => {
    const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const row of rows) {
      const hit = words.every((word) => texts.get(row).includes(word));
      row.hidden = !hit;
      count += hit;
    }
    shown.textContent = `${count} of ${rows.length}`;
  };
  field.addEventListener("input", filter);
  field.closest("p").hidden = false;
  filter();
})();
