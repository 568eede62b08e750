// What a reader may do with a page beyond reading it: copy a command, sort a table, pick one of several, and ask a chart
// for its numbers. Nothing is fetched, and text is only ever set as text.
"use strict";

function element(name, text) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  return made;
}

// Copying

for (const code of document.querySelectorAll(".code")) {
  const button = element("button", "Copy"), text = code.querySelector("code");
  button.type = "button";
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text.textContent);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(text); // so that the reader's own keys copy it
      button.textContent = "Selected";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  });
  code.append(button);
}

// Sorting

function worth(cell) {
  return "value" in cell.dataset ? Number(cell.dataset.value) : cell.textContent.trim();
}

function compared(a, b) {
  const [one, other] = [typeof a === "number", typeof b === "number"];
  if (one && other) return Number.isNaN(a) ? (Number.isNaN(b) ? 0 : 1) : Number.isNaN(b) ? -1 : a - b;
  return one ? -1 : other ? 1 : a.localeCompare(b, "en", { numeric: true });
}

for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  if (body.rows.length < 2) continue;
  heads.forEach((head, column) => {
    const button = element("button", head.textContent);
    button.type = "button";
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending", sign = down ? -1 : 1;
      const rows = [...body.rows].map((row) => [worth(row.cells[column]), row]);
      const unknown = (value) => Number.isNaN(value); // stays last
      rows.sort(([a], [b]) => (unknown(a) || unknown(b) ? compared(a, b) : sign * compared(a, b)));
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      body.append(...rows.map(([, row]) => row));
    });
  });
}

// Picking

document.querySelectorAll(".pick").forEach((pick, number) => {
  const choices = [...pick.children].filter((child) => child.matches(".choice"));
  if (choices.length < 2) return;
  const select = element("select"), label = element("label", `${pick.dataset.label} `);
  select.id = `pick--${number + 1}`;
  label.htmlFor = select.id;
  choices.forEach((choice) => select.append(element("option", choice.dataset.name)));
  const chosen = choices.findIndex((choice) => choice.dataset.name === pick.dataset.first);
  select.selectedIndex = Math.max(chosen, 0);
  const show = () => choices.forEach((choice, index) => { choice.hidden = index !== select.selectedIndex; });
  select.addEventListener("change", show);
  pick.prepend(label, select);
  show();
});

// Charts

const tip = element("div");
tip.className = "tip";
tip.hidden = true;
document.body.append(tip);

function tooltip(_, event, item, value) {
  tip.hidden = value === null || value === undefined || typeof value !== "object";
  if (tip.hidden) return;
  const list = element("dl");
  for (const [name, text] of Object.entries(value)) {
    const line = element("div");
    line.append(element("dt", name), element("dd", String(text)));
    list.append(line);
  }
  tip.replaceChildren(list);
  const { width, height } = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(4, Math.min(event.clientX + 14, innerWidth - width - 8))}px`;
  tip.style.top = `${event.clientY + 18 + height < innerHeight ? event.clientY + 18 : event.clientY - height - 12}px`;
}

const MOST = 860;

function wide(place) {
  return Math.max(260, Math.min(place.clientWidth, MOST));
}

async function draw(figure) {
  const place = figure.querySelector(".drawn"), width = wide(place);
  const spec = JSON.parse(figure.querySelector(".spec").textContent);
  const narrow = width < 480;
  spec.width = width;
  if (narrow) {
    spec.config.legend.columns = 1;
    spec.config.axis.labelLimit = 110;
    for (const layer of spec.layer ?? []) {
      const { text, x } = layer.encoding;
      if (!text) continue;
      const columns = new Set(spec.data.values.map((row) => row[x.field])).size;
      if ((width - 120) / columns < 44) text.field = "sign"; // numbers would run into each other
    }
  }
  const still = [...place.childNodes], fresh = element("div");
  place.append(fresh);
  try {
    const { view } = await vegaEmbed(fresh, spec, {
      mode: "vega-lite", renderer: "svg", ast: true, actions: false, defaultStyle: false, tooltip,
    });
    still.forEach((node) => node.remove());
    const watch = new ResizeObserver(() => {
      if (place.clientWidth && Math.abs(wide(place) - view.width()) > 1) view.width(wide(place)).runAsync();
    });
    watch.observe(place);
    figure.dataset.drawn = "again";
  } catch (error) {
    fresh.remove(); // what was drawn before stays
    console.error(error);
  }
}

const charts = document.querySelectorAll("figure.chart:has(.spec)");
const near = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (!entry.isIntersecting) continue;
    near.unobserve(entry.target);
    draw(entry.target);
  }
}, { rootMargin: "600px" });
charts.forEach((figure) => near.observe(figure));
document.documentElement.dataset.ready = "true";
