(() => {
  "use strict";
  const root = document.documentElement;
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];

  // Light and dark: the reader's system decides until the button is pressed.
  const system = matchMedia("(prefers-color-scheme: dark)");
  const theme = document.getElementById("theme");
  const dark = () => (root.dataset.theme || (system.matches ? "dark" : "light")) === "dark";
  const name = () => { theme.textContent = dark() ? "Light" : "Dark"; };
  try { root.dataset.theme = localStorage.getItem("attnlab-theme") || ""; } catch { /* a file may have no storage */ }
  theme.addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    try { localStorage.setItem("attnlab-theme", root.dataset.theme); } catch { /* as above */ }
    name();
  });
  system.addEventListener("change", name);
  name();

  // A cell's details open under its row.
  const button = (panel) => document.querySelector(`[aria-controls="${panel.id}"]`);
  const show = (panel, open) => {
    panel.classList.toggle("shown", open);
    panel.closest("tr").classList.toggle("shown", !!panel.parentElement.querySelector(".shown"));
    button(panel).setAttribute("aria-expanded", open);
    button(panel).closest("td").classList.toggle("chosen", open);
    const section = panel.closest(".results");
    section.querySelector(".everything").textContent =
      all(".panel", section).every((one) => one.classList.contains("shown")) ? "Close all" : "Open all";
  };
  const toggle = (cell) => {
    const panel = document.getElementById(cell.querySelector(".open").getAttribute("aria-controls"));
    show(panel, !panel.classList.contains("shown"));
  };
  all("tbody[data-order] > tr > td[data-label]").forEach((cell) => {
    if (!cell.querySelector(".open")) return;
    cell.addEventListener("click", (event) => {
      if (event.target.closest("a") || (String(getSelection()) && !event.target.closest("button"))) return;
      toggle(cell);
    });
  });
  all(".close").forEach((close) => close.addEventListener("click", () => {
    const panel = close.closest(".panel");
    show(panel, false);
    button(panel).focus();
  }));
  all(".zoom").forEach((zoom) => zoom.addEventListener("click", () => {
    zoom.setAttribute("aria-expanded", zoom.getAttribute("aria-expanded") !== "true");
  }));
  all(".everything").forEach((everything) => everything.addEventListener("click", () => {
    const open = everything.textContent === "Open all";
    all(".panel", everything.closest(".results")).forEach((panel) => show(panel, open));
  }));
  const follow = () => {
    const panel = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (panel && panel.classList.contains("panel")) { show(panel, true); panel.scrollIntoView({ block: "nearest" }); }
  };
  addEventListener("hashchange", follow);

  // Sorting: best first, worst first, the table's own order. What has no number stays below.
  const value = (body, column) => {
    const cell = body.rows[0].cells[column + 1];
    return cell.dataset.value === undefined ? NaN : Number(cell.dataset.value);
  };
  all("table[data-better] .sort").forEach((button) => button.addEventListener("click", () => {
    const table = button.closest("table"), statusLine = table.closest(".results").querySelector("[role=status]");
    const head = button.closest("th"), column = Number(button.dataset.column);
    const first = column < 0 || button.dataset.better === "min" ? "ascending" : "descending";
    const second = first === "ascending" ? "descending" : "ascending";
    const now = head.getAttribute("aria-sort");
    const next = now === "none" ? first : now === first ? second : "none";
    all("thead th[aria-sort]", table).forEach((other) => other.setAttribute("aria-sort", "none"));
    head.setAttribute("aria-sort", next);
    const sign = next === "descending" ? -1 : 1;
    const order = (a, b) => a.dataset.order - b.dataset.order;
    const compare = (a, b) => {
      if (next === "none") return order(a, b);
      if (column < 0) return sign * a.dataset.name.localeCompare(b.dataset.name, undefined, { numeric: true }) || order(a, b);
      const x = value(a, column), y = value(b, column);
      if (isNaN(x) || isNaN(y)) return isNaN(x) - isNaN(y) || order(a, b);
      return sign * (x - y) || order(a, b);
    };
    table.append(...all(":scope > tbody", table).sort(compare));
    statusLine.textContent = next === "none" ? "In the table's own order" : `Sorted by ${button.textContent}, ${next}`;
  }));

  all(".copy").forEach((copy) => copy.addEventListener("click", async () => {
    const code = copy.parentElement.querySelector("code");
    try {
      await navigator.clipboard.writeText(code.textContent);
      copy.textContent = "Copied";
      setTimeout(() => { copy.textContent = "Copy"; }, 1500);
    } catch { getSelection().selectAllChildren(code); } // no clipboard for a file: leave it selected
  }));
  follow();
})();
