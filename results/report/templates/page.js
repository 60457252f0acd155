// A click on a heading sorts its table. Without this script the tables are complete but do not sort.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, index) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
      const value = (row) => row.cells[index].dataset.sort ?? row.cells[index].textContent;
      const compare = (a, b) => (isNaN(a) || isNaN(b) || a === "" || b === "" ? a.localeCompare(b, undefined, { numeric: true }) : a - b);
      table.tBodies[0].append(...[...table.tBodies[0].rows].sort((a, b) => sign * compare(value(a), value(b))));
    });
  });
}
