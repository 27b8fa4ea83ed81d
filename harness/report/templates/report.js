"use strict";
(() => {
  // Sorting: a click on a heading sorts by it, a second click reverses the order. Cells without a value come last.
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
        table.dispatchEvent(new Event("sorted"));
      });
    });
  };
  document.querySelectorAll("table.sortable").forEach(sortable);

  // Filtering the trials: a row is shown if it contains every word. Of many rows only the first are shown until the
  // user asks for all, because a browser needs two seconds for 10,000 rows, and again at every sorting.
  const FIRST = 1000;
  const table = document.getElementById("trial-table");
  if (!table) return;
  const body = table.tBodies[0];
  const rows = Array.from(body.rows);
  const field = document.getElementById("filter");
  const shown = document.getElementById("shown");
  const more = document.getElementById("more");
  const written = (number) => number.toLocaleString("en");
  let limit = FIRST;
  const texts = new Map(rows.map((row) => [row, row.textContent.toLowerCase()]));
  const filter = () => {
    const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const row of body.rows) {
      const hit = words.every((word) => texts.get(row).includes(word));
      count += hit;
      row.hidden = !hit || count > limit;
    }
    more.hidden = count <= limit;
    shown.textContent = `${written(count)} of ${written(rows.length)}` +
      (more.hidden ? "" : `, the first ${written(limit)} shown`);
  };
  field.addEventListener("input", filter);
  table.addEventListener("sorted", filter);
  more.addEventListener("click", () => {
    limit = Infinity;
    filter();
    field.focus();
  });
  field.closest("p").hidden = false;
  filter();
})();
