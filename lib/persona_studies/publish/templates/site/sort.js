"use strict";
// Give the head of every plain table buttons that sort its rows; without this script tables keep their order.
const known = (text) => text !== "" && text !== "–";
const number = (text) => {
  const found = text.replace(/−/g, "-").replace(/,(?=\d{3})/g, "").match(/^[<>=≥≤\s]*([-+]?\d*\.?\d+(?:e[-+]?\d+)?)/);
  return found ? Number(found[1]) : NaN;
};
for (const table of document.querySelectorAll(".scroll > table")) {
  const heads = [...table.querySelectorAll("thead tr:last-child th")];
  const body = table.tBodies[0];
  if (!body || body.rows.length < 3 || table.querySelector("td[colspan], tbody th[colspan]")) continue;
  heads.forEach((head, place) => {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "sort";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const falling = head.getAttribute("aria-sort") === "ascending";
      const rows = [...body.rows].map((row) => ({ row, text: (row.cells[place]?.textContent ?? "").trim() }));
      const some = rows.filter(({ text }) => known(text));
      const numeric = some.filter(({ text }) => !Number.isNaN(number(text))).length > some.length / 2;
      const order = (a, b) => (numeric ? number(a.text) - number(b.text) || 0 : a.text.localeCompare(b.text));
      const lost = ({ text }) => !known(text) || (numeric && Number.isNaN(number(text)));
      rows.sort((a, b) => lost(a) - lost(b) || (falling ? order(b, a) : order(a, b)));
      body.append(...rows.map(({ row }) => row));
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", falling ? "descending" : "ascending");
    });
  });
}
