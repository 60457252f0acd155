// A click on a heading sorts its table; cards have no headings, so a list stands above them. Without this script the
// tables are complete but do not sort.
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
  if (!table.classList.contains("cards")) continue;
  const list = document.createElement("select"), turn = document.createElement("button"), label = document.createElement("label");
  list.append(...heads.map((head, index) => new Option(head.textContent, index)));
  list.selectedIndex = -1;
  turn.type = "button";
  turn.textContent = "Turn round";
  label.className = "by";
  label.append("Sort by ", list, " ", turn);
  const sort = () => { if (list.value) heads[list.value].querySelector("button").click(); };
  list.addEventListener("change", sort);
  turn.addEventListener("click", sort);
  table.before(label);
}
