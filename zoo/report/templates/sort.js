// A click on a heading sorts its table: numbers from the largest, texts from A, a second click the other way round.
// Cells without a value stay at the end.
for (const table of document.querySelectorAll("table")) {
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => heading.querySelector("button").addEventListener("click", () => {
    const numeric = heading.classList.contains("number");
    const before = heading.getAttribute("aria-sort");
    const ascending = before ? before === "descending" : !numeric;
    const value = row => row.cells[column].dataset.value;
    const compare = (a, b) => numeric ? Number(a.replace("inf", "Infinity")) - Number(b.replace("inf", "Infinity"))
      : a.localeCompare(b, "en", { numeric: true });
    const rows = [...table.tBodies[0].rows].sort((a, b) => {
      if (!value(a) || !value(b)) return (value(a) ? 0 : 1) - (value(b) ? 0 : 1);
      return (ascending ? 1 : -1) * compare(value(a), value(b));
    });
    headings.forEach(other => other.removeAttribute("aria-sort"));
    heading.setAttribute("aria-sort", ascending ? "ascending" : "descending");
    table.tBodies[0].append(...rows);
  }));
}
