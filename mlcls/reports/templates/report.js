"use strict";
// Sorting, filtering and enlarging. Without this script every table and picture is there all the same.
(() => {
  const value = (row, column, numeric) => {
    const cell = row.cells[column];
    if (!numeric) return cell.textContent.trim();
    return cell.dataset.v === undefined ? null : Number(cell.dataset.v);
  };

  const sort = (table, column, numeric, ascending) => {
    const body = table.tBodies[0];
    const keyed = [...body.rows].map((row) => [value(row, column, numeric), row]);
    keyed.sort(([a], [b]) => {
      if (a === null || b === null) return (a === null) - (b === null); // undefined last, either way
      const order = numeric ? a - b : a.localeCompare(b, undefined, { numeric: true });
      return ascending ? order : -order;
    });
    body.append(...keyed.map(([, row]) => row));
  };

  for (const table of document.querySelectorAll("table[data-sortable]")) {
    const headings = [...table.tHead.rows[0].cells];
    headings.forEach((heading, column) => {
      if ("fixed" in heading.dataset) return;
      const numeric = "number" in heading.dataset;
      const title = heading.querySelector(".title");
      const button = document.createElement("button");
      button.type = "button";
      title.replaceWith(button);
      button.append(title);
      button.addEventListener("click", () => {
        const before = heading.getAttribute("aria-sort");
        const ascending = before ? before === "descending" : !numeric;
        headings.forEach((other) => other.removeAttribute("aria-sort"));
        heading.setAttribute("aria-sort", ascending ? "ascending" : "descending");
        sort(table, column, numeric, ascending);
      });
    });
  }

  for (const input of document.querySelectorAll("input[data-filter]")) {
    const place = input.closest(".filter");
    const rows = [...input.closest("section").querySelector("table").tBodies[0].rows];
    const shown = place.querySelector("output");
    place.hidden = false;
    input.addEventListener("input", () => {
      const wanted = input.value.trim().toLocaleLowerCase();
      for (const row of rows) row.hidden = !row.cells[0].textContent.toLocaleLowerCase().includes(wanted);
      const left = rows.filter((row) => !row.hidden).length;
      shown.textContent = wanted ? `${left} of ${rows.length}` : "";
    });
  }

  for (const frame of document.querySelectorAll(".frame")) {
    const picture = frame.querySelector("img");
    const button = document.createElement("button");
    button.type = "button";
    button.className = "enlarge";
    const say = () => {
      const actual = frame.classList.contains("actual");
      button.textContent = actual ? "Fit to the page" : "Actual size";
      button.setAttribute("aria-pressed", String(actual));
      button.hidden = !actual && picture.naturalWidth <= picture.clientWidth * 1.1;
      frame.tabIndex = actual ? 0 : -1;
    };
    button.addEventListener("click", () => {
      frame.classList.toggle("actual");
      say();
    });
    frame.after(button);
    picture.decode().then(say, say);
    addEventListener("resize", say);
  }

  // a table that is cut off at the right says so until it has been scrolled to its end
  for (const frame of document.querySelectorAll(".scroll")) {
    const mark = () =>
      frame.classList.toggle("more-aside", frame.scrollLeft + frame.clientWidth < frame.scrollWidth - 2);
    frame.addEventListener("scroll", mark, { passive: true });
    new ResizeObserver(mark).observe(frame);
  }

  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details:not([open])")];
    for (const part of opened) part.open = true;
  });
  addEventListener("afterprint", () => {
    for (const part of opened) part.open = false;
  });
})();
