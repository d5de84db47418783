"use strict";
const all = (query, within = document) => [...within.querySelectorAll(query)];

// Light, dark, or as the system has it; what was chosen is kept where the browser allows that.
const themes = ["auto", "light", "dark"];
const themeButton = document.getElementById("theme");
function setTheme(theme) {
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  themeButton.textContent = "Theme: " + theme;
  try { localStorage.setItem("bench-theme", theme); } catch { /* a file may have no storage */ }
}
let theme = "auto";
try { theme = localStorage.getItem("bench-theme") || "auto"; } catch { /* likewise */ }
if (!themes.includes(theme)) theme = "auto";
setTheme(theme);
themeButton.addEventListener("click", () => {
  theme = themes[(themes.indexOf(theme) + 1) % themes.length];
  setTheme(theme);
});

// One metric at a time.
const metric = document.getElementById("metric");
if (metric) {
  const show = () => all(".metric").forEach((part) => { part.hidden = part.id !== metric.value; });
  metric.addEventListener("change", show);
  show();
}

// One picture of a metric at a time.
for (const list of all("[role=tablist]")) {
  const tabs = all("[role=tab]", list);
  const choose = (chosen) => tabs.forEach((tab) => {
    const on = tab === chosen;
    tab.setAttribute("aria-selected", String(on));
    tab.tabIndex = on ? 0 : -1;
    document.getElementById(tab.getAttribute("aria-controls")).hidden = !on;
  });
  tabs.forEach((tab, place) => {
    tab.addEventListener("click", () => choose(tab));
    tab.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      const next = tabs[(place + step + tabs.length) % tabs.length];
      choose(next);
      next.focus();
    });
  });
  choose(tabs[0]);
}

// Sorting: by number where every text of a column that has a digit begins with one, else by text.
const number = (text) => {
  const found = text.match(/[-−]?\d[\d,]*(\.\d+)?(e[-+]?\d+)?/i);
  return found ? Number(found[0].replace("−", "-").replaceAll(",", "")) : NaN;
};
for (const button of all(".sort")) {
  button.addEventListener("click", () => {
    const head = button.closest("th");
    const body = head.closest("table").tBodies[0];
    const column = head.cellIndex;
    const down = head.getAttribute("aria-sort") === "ascending";
    all("th", head.parentElement).forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const numeric = head.classList.contains("n");
    const keyed = [...body.rows].map((row, place) => {
      const text = row.cells[column].textContent.trim();
      return { row, place, text, value: number(text) };
    });
    const byNumber = numeric || keyed.every((each) => !each.text || /^[-−]?\d/.test(each.text));
    const empty = (each) => (byNumber ? Number.isNaN(each.value) : !each.text);
    keyed.sort((a, b) => {
      if (empty(a) || empty(b)) return empty(a) - empty(b) || a.place - b.place; // holes come last
      const order = byNumber ? a.value - b.value : a.text.localeCompare(b.text, "en");
      return (down ? -order : order) || a.place - b.place;
    });
    body.append(...keyed.map((each) => each.row));
  });
}

// Filtering: rows in which every word occurs.
for (const input of all("input[data-for]")) {
  const body = document.getElementById(input.dataset.for).querySelector("tbody");
  const told = document.querySelector(`[data-count="${input.dataset.for}"]`);
  const rows = [...body.rows].map((row) => ({ row, text: row.textContent.toLowerCase() }));
  const apply = () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const { row, text } of rows) {
      row.hidden = !words.every((word) => text.includes(word));
      shown += row.hidden ? 0 : 1;
    }
    told.textContent = words.length ? `${shown} of ${rows.length}` : `${rows.length} rows`;
  };
  input.addEventListener("input", apply);
  apply();
}

// The exact value under the pointer or the focus.
const tip = document.getElementById("tip");
function showTip(words, box) {
  tip.textContent = words;
  tip.hidden = false;
  const { width, height } = tip.getBoundingClientRect();
  const left = Math.min(Math.max(8, box.left + box.width / 2 - width / 2), innerWidth - width - 8);
  const above = box.top - height - 8;
  tip.style.left = `${left}px`;
  tip.style.top = `${above > 8 ? above : box.bottom + 8}px`;
}
const wordsOf = (target) => target.dataset.tip || target.getAttribute("aria-label");
all(".spot title").forEach((title) => title.remove()); // the browser's own would stand beside ours
for (const kind of ["mouseover", "focusin"]) {
  document.addEventListener(kind, (event) => {
    const target = event.target.closest?.(".spot, [data-tip]");
    if (target) showTip(wordsOf(target), target.getBoundingClientRect());
    else tip.hidden = true;
  });
}
document.addEventListener("focusout", () => { tip.hidden = true; });
document.addEventListener("scroll", () => { tip.hidden = true; }, true);
document.addEventListener("keydown", (event) => { if (event.key === "Escape") tip.hidden = true; });

// Arrows go from value to value in a picture.
for (const picture of all(".canvas")) {
  const spots = all(".spot", picture);
  picture.addEventListener("keydown", (event) => {
    const place = spots.indexOf(document.activeElement);
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (place < 0 || !step) return;
    event.preventDefault();
    const next = spots[(place + step + spots.length) % spots.length];
    spots[place].tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  });
}

// Paper has no folds.
addEventListener("beforeprint", () => all("details").forEach((fold) => { fold.open = true; }));
