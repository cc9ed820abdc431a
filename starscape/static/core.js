// Shared by every panel: elements, controls bound to traits, theme, plotly, tooltip, table and CSV.
// The panels are concatenated into one ES module (see `panel_source` in starscape.viz); nothing here touches the page
// outside the element it was given, and every name from the data reaches the page as text, never as markup.

const ROLES = { star: "Star models", source: "Source models", heldout: "Held-out models", other: "Other models" };
const SERIES = {
  "star-heldout": { label: "star – held-out", tone: "a", dash: "solid", symbol: "circle" },
  "star-source": { label: "star – source", tone: "b", dash: "dash", symbol: "diamond" },
  "regular-regular": { label: "regular – regular", tone: "c", dash: "dashdot", symbol: "square" },
  "star-star": { label: "star – star", tone: "d", dash: "longdash", symbol: "cross" },
};
const FOCUSABLE = "input, select, button, summary, a[href], [tabindex]";
const RTL_AND_CONTROL = /[\u0000-\u001f\u007f\u200e\u200f\u202a-\u202e\u2066-\u2069]/g;

let lastId = 0;
const freshId = () => `starscape-${++lastId}-${Math.random().toString(36).slice(2, 7)}`;

function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (key in element) element[key] = value;
    else element.setAttribute(key, value);
  }
  // without this mark JupyterLab takes the arrow keys for itself
  if (element.matches(FOCUSABLE)) element.setAttribute("data-lm-suppress-shortcuts", "true");
  element.append(...children);
  return element;
}

// A name as people can read it: bidirectional marks and control characters show as a dot, a long one keeps its ends.
function readable(name, limit = 60) {
  const text = String(name).replace(RTL_AND_CONTROL, "·");
  const letters = Array.from(text);
  return letters.length <= limit ? text : letters.slice(0, limit - 13).join("") + "…" + letters.slice(-12).join("");
}

// plotly reads a little HTML in its labels; our own labels go through here.
const escapeLabel = text => readable(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

function number(value, digits = 3) {
  if (value == null || Number.isNaN(value)) return "–";
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  const size = Math.abs(value);
  const text = size !== 0 && (size < 1e-3 || size >= 1e5) ? value.toExponential(2) : Number(value.toPrecision(digits)).toString();
  return text.replace("-", "−");
}

// Typed views of the bytes a trait holds; copied, because their offset need not suit the element size.
function bytesAs(Type, view) {
  if (!view?.byteLength) return new Type(0);
  return new Type(view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength));
}

// One panel's hold on its model: what it listens to ends with the panel.
function bind(model) {
  const ends = [];
  return {
    get: key => model.get(key),
    set(values) {
      for (const [key, value] of Object.entries(values)) model.set(key, value);
      model.save_changes();
    },
    on(keys, callback) {
      for (const key of keys) {
        model.on(`change:${key}`, callback);
        ends.push(() => model.off(`change:${key}`, callback));
      }
    },
    send: message => model.send(message),
    onEnd: callback => ends.push(callback),
    end: () => ends.splice(0).forEach(callback => callback()),
  };
}

// Many changes, one drawing per frame.
function oncePerFrame(callback) {
  let waiting = 0;
  return () => {
    if (!waiting) waiting = requestAnimationFrame(() => { waiting = 0; callback(); });
  };
}

// ---- controls: each shows one trait and sets it ----

function segmented(state, key, label, options) {
  const name = freshId();
  const inputs = options.map(([value, text, hint]) => h("input", {
    type: "radio", name, value, id: freshId(), title: hint ?? "", onchange: () => state.set({ [key]: value }),
  }));
  const show = () => inputs.forEach(input => { input.checked = input.value === state.get(key); });
  state.on([key], show);
  show();
  return h("fieldset", { className: "ss-segmented" }, h("legend", {}, label), h("div", {}, ...inputs.flatMap(
    (input, i) => [input, h("label", { htmlFor: input.id, title: options[i][2] ?? "" }, options[i][1])])));
}

function checkbox(state, key, label, hint = "") {
  const input = h("input", { type: "checkbox", onchange: () => state.set({ [key]: input.checked }) });
  const show = () => { input.checked = state.get(key); };
  state.on([key], show);
  show();
  return h("label", { className: "ss-check", title: hint }, input, label);
}

// `options` is called each time, so that they may follow other traits: [[value, text], …] or [[group, [[value, text]]]].
function dropdown(state, key, label, options, follow = []) {
  const select = h("select", { onchange: () => state.set({ [key]: select.value }) });
  const option = ([value, text]) => h("option", { value }, readable(text));
  const show = () => {
    select.replaceChildren(...options().map(([first, second]) => Array.isArray(second)
      ? h("optgroup", { label: first }, ...second.map(option)) : option([first, second])));
    select.value = state.get(key);
  };
  state.on([key, ...follow], show);
  show();
  return h("label", { className: "ss-dropdown" }, h("span", {}, label), select);
}

// The list of models: search, all, none, one checkbox a model. Arrow keys walk it; Tab leaves it.
function modelList(state, models) {
  let rows = [], current = 0, typed = "";
  const list = h("div", { className: "ss-models", role: "group", "aria-label": "Models to draw" });
  const counter = h("span", { className: "ss-count", "aria-live": "polite" });
  const search = h("input", {
    type: "search", placeholder: "Search models", "aria-label": "Search models",
    oninput: () => { typed = search.value.toLowerCase(); filter(); },
  });
  const visible = () => rows.filter(row => !row.element.hidden);
  const names = chosen => models().map(m => m.name).filter(name => chosen.has(name));

  function choose(change) {
    const chosen = new Set(state.get("selection"));
    change(chosen);
    state.set({ selection: names(chosen) });
  }
  function focus(row) {
    rows.forEach(other => { other.input.tabIndex = other === row ? 0 : -1; });
    row.input.focus();
    row.element.scrollIntoView({ block: "nearest" });
  }
  function walk(event) {
    const shown = visible(), at = shown.findIndex(row => row.input === event.target);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: shown.length - 1 }[event.key];
    if (to === undefined || at < 0) return;
    event.preventDefault();
    if (shown[to]) focus(shown[to]);
  }
  function filter() {
    for (const row of rows) row.element.hidden = !row.key.includes(typed);
    for (const group of list.children) group.hidden = !group.querySelector("label:not([hidden])");
    const shown = visible();
    rows.forEach(row => { row.input.tabIndex = -1; });
    if (shown.length) shown[0].input.tabIndex = 0;
    count();
  }
  function count() {
    const chosen = rows.filter(row => row.input.checked).length;
    counter.textContent = typed ? `${visible().length} found, ${chosen} chosen` : `${chosen} of ${rows.length} chosen`;
  }
  function show() {
    const chosen = new Set(state.get("selection"));
    rows.forEach(row => { row.input.checked = chosen.has(row.name); });
    count();
  }
  function build() {
    rows = models().map(({ name, role }) => {
      const input = h("input", { type: "checkbox", onchange: () => choose(c => input.checked ? c.add(name) : c.delete(name)) });
      const element = h("label", { className: "ss-model", title: readable(name, 300) },
        input, h("span", { className: `ss-role ss-role-${role}`, "aria-hidden": "true" }), h("bdi", {}, readable(name, 200)));
      return { name, role, input, element, key: name.toLowerCase() };
    });
    const groups = Object.entries(ROLES).map(([role, title]) => [title, rows.filter(row => row.role === role)]);
    list.replaceChildren(...groups.filter(([, members]) => members.length).map(([title, members]) =>
      h("div", { role: "group", "aria-label": title },
        h("div", { className: "ss-group" }, `${title} (${members.length})`), ...members.map(row => row.element))));
    filter();
    show();
  }
  const every = (text, change) => h("button", {
    type: "button", title: "Of the models the search shows", onclick: () => choose(c => visible().forEach(row => change(c, row.name))),
  }, text);
  list.addEventListener("keydown", walk);
  list.addEventListener("focusin", event => {
    rows.forEach(row => { row.input.tabIndex = row.input === event.target ? 0 : -1; });
  });
  state.on(["selection"], show);
  state.on(["index"], build);
  build();
  return h("section", { className: "ss-side", "aria-label": "Models" },
    h("div", { className: "ss-side-head" }, search, every("All", (c, name) => c.add(name)), every("None", (c, name) => c.delete(name))),
    counter, list);
}

const DASHES = { solid: "", dash: "8 4", dashdot: "9 3 2 3", longdash: "12 4", dot: "2 3" };

// Buttons that show or hide a series and serve as the legend: each kind of line as it is drawn, the label, how many.
function chipGroup(label, toggle) {
  const element = h("div", { className: "ss-chips", role: "group", "aria-label": label });
  const sample = ({ dash, text = "" }, tone) => {
    const line = svg("svg", { viewBox: "0 0 34 10", width: 34, height: 10, "aria-hidden": "true", class: `ss-stroke-${tone}` });
    line.append(svg("line", { x1: 1, x2: 33, y1: 5, y2: 5, "stroke-width": 2.5, "stroke-dasharray": DASHES[dash] ?? "12 3 2 3" }));
    return [line, text, h("span", { className: "ss-count" })].filter(part => part !== "");
  };
  const chip = ({ name, label, tone, kinds }) => h("button", { type: "button", className: "ss-chip", title: "Show or hide", "data-series": name, onclick: () => toggle(name) },
    h("span", {}, readable(label)), ...kinds.flatMap(kind => sample(kind, tone)));
  let looks = "";
  return {
    element,
    show(series) { // kept in place where it can be, so that focus stays
      if (looks !== (looks = JSON.stringify(series.map(one => [one.name, one.kinds.map(kind => kind.text)])))) element.replaceChildren(...series.map(chip));
      series.forEach(({ pressed, kinds }, i) => {
        element.children[i].setAttribute("aria-pressed", String(pressed));
        element.children[i].querySelectorAll(".ss-count").forEach((count, k) => { count.textContent = kinds[k].count ?? ""; });
      });
    },
  };
}

// Status, progress and Cancel of work in the kernel.
function statusLine(state, action) {
  const text = h("span", { className: "ss-status", role: "status", "aria-live": "polite" });
  const bar = h("progress", { max: 1, "aria-label": "Progress" });
  const cancel = h("button", { type: "button", className: "ss-cancel", onclick: () => state.send({ type: "cancel" }) }, "Cancel");
  const show = () => {
    const busy = state.get("busy");
    text.textContent = state.get("status");
    text.dataset.kind = state.get("failed") ? "error" : "";
    bar.hidden = cancel.hidden = !busy;
    bar.value = state.get("progress");
    if (action) action.hidden = busy || action.dataset.needed !== "true";
  };
  state.on(["status", "progress", "busy", "failed", "missing"], show);
  show();
  return h("div", { className: "ss-foot" }, text, bar, cancel, ...(action ? [action] : []));
}

// ---- theme: light or dark follows the background the panel lies on, whatever the host ----

function backgroundIsDark(element) {
  for (let at = element; at; at = at.parentNode ?? at.host) {
    const parts = at instanceof Element && getComputedStyle(at).backgroundColor.match(/[\d.]+/g)?.map(Number);
    if (parts && (parts[3] ?? 1) > 0.5) return 0.299 * parts[0] + 0.587 * parts[1] + 0.114 * parts[2] < 128;
  }
  return matchMedia("(prefers-color-scheme: dark)").matches;
}

function followTheme(root, state, redraw) {
  const update = () => {
    const theme = backgroundIsDark(root.parentNode) ? "dark" : "light";
    if (root.dataset.theme === theme) return;
    root.dataset.theme = theme;
    redraw();
  };
  const soon = () => requestAnimationFrame(update);
  const page = root.ownerDocument, watcher = new MutationObserver(soon), query = matchMedia("(prefers-color-scheme: dark)");
  for (const node of [page.documentElement, page.body]) watcher.observe(node, { attributes: true });
  query.addEventListener("change", soon);
  state.onEnd(() => { watcher.disconnect(); query.removeEventListener("change", soon); });
  soon();
}

function palette(root) {
  const style = getComputedStyle(root), read = name => style.getPropertyValue(`--ss-${name}`).trim();
  return Object.fromEntries(["text", "muted", "line", "grid", "surface", "a", "b", "c", "d", "e", "star", "source", "heldout", "other"]
    .map(name => [name, read(name)]));
}

// "#rrggbb" with an opacity
const faded = (colour, alpha) => colour + Math.round(255 * alpha).toString(16).padStart(2, "0");

// ---- plotly: asked of the kernel once a page, or already there in an exported file ----

async function unzip(bytes) {
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
}

async function importPlotly(bytes) {
  const source = "const module = { exports: {} }; const exports = module.exports;\n" + await unzip(bytes) + "\nexport default module.exports;";
  const address = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
  try { return (await import(address)).default; } finally { URL.revokeObjectURL(address); }
}

function loadPlotly(model) {
  return globalThis.__starscapePlotly ??= new Promise((resolve, reject) => {
    model.on("msg:custom", function answer(message, buffers) {
      if (message?.type !== "plotly") return;
      model.off("msg:custom", answer);
      importPlotly(buffers[0]).then(resolve, reject);
    });
    model.send({ type: "plotly" });
  });
}

// A chart that draws when it has a width and follows its box. Between plotly and the pointer lie a canvas, for what is
// too much for plotly, and a light layer for what is lit.
function chart(plotly, state, label, height) {
  const plot = h("div", { className: "ss-plot" }), canvas = h("canvas", { className: "ss-layer", "aria-hidden": "true" });
  const layer = svg("svg", { class: "ss-layer", "aria-hidden": "true" });
  const box = h("div", { className: "ss-chart", role: "figure", "aria-label": label }, plot, canvas, layer);
  box.style.height = `${height}px`;
  let latest = null, width = 0, above = () => [], paint = null, started = false;
  const listeners = [];
  const settings = {
    displaylogo: false, showSendToCloud: false, responsive: false, doubleClick: "reset",
    modeBarButtons: [[{ name: "Download picture (PNG)", icon: plotly.Icons.camera, click: print }, "resetScale2d"]],
  };
  const place = (axes, left = axes.xaxis._offset, top = axes.yaxis._offset) => (x, y) => [left + axes.xaxis.d2p(x), top + axes.yaxis.d2p(y)];

  function draw(traces, layout) {
    latest = [traces, layout];
    if (!box.clientWidth) return;
    width = box.clientWidth;
    plotly.react(plot, traces, { ...layout, width, height: box.clientHeight }, settings);
    if (!started) {
      started = true;
      plot.on("plotly_afterplot", () => { fill(); light(); });
      listeners.forEach(([event, callback]) => plot.on(event, callback));
    }
    fill();
    light();
  }
  function light() {
    const axes = plot._fullLayout;
    if (axes?.xaxis) layer.replaceChildren(...above(place(axes)));
  }
  function fill() {
    canvas.hidden = !paint;
    if (!paint) return;
    const { xaxis, yaxis } = plot._fullLayout;
    canvas.width = box.clientWidth;
    canvas.height = box.clientHeight;
    const pen = canvas.getContext("2d");
    pen.rect(xaxis._offset, yaxis._offset, xaxis._length, yaxis._length);
    pen.clip();
    paint(pen, place(plot._fullLayout));
  }
  // what is on the screen, with the canvas as a picture between the axes
  function print() {
    const axes = plot._fullLayout, images = [];
    if (paint) {
      const picture = h("canvas", { width: 2 * axes.xaxis._length, height: 2 * axes.yaxis._length }), pen = picture.getContext("2d");
      pen.scale(2, 2);
      paint(pen, place(axes, 0, 0));
      images.push({ source: picture.toDataURL(), xref: "paper", yref: "paper", x: 0, y: 1, sizex: 1, sizey: 1, sizing: "stretch" });
    }
    const layout = { ...plot.layout, images, paper_bgcolor: getComputedStyle(box).getPropertyValue("--ss-surface").trim() };
    plotly.downloadImage({ data: plot.data, layout }, { format: "png", scale: 2, width: axes.width, height: axes.height, filename: "starscape" });
  }
  const resize = new ResizeObserver(() => { if (latest && box.clientWidth && box.clientWidth !== width) draw(...latest); });
  resize.observe(box);
  state.onEnd(() => { resize.disconnect(); plotly.purge(plot); });
  return {
    box, plot, draw, light,
    on: (event, callback) => started ? plot.on(event, callback) : listeners.push([event, callback]),
    above: callback => { above = callback; light(); },
    canvas: callback => { paint = callback; },
    describe: text => box.setAttribute("aria-label", text),
    resize: pixels => { box.style.height = `${pixels}px`; },
  };
}

function svg(tag, attributes) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

const path = points => points.filter(p => p.every(Number.isFinite)).map(([x, y], i) => `${i ? "L" : "M"}${x.toFixed(1)},${y.toFixed(1)}`).join("");

function baseLayout(colours) {
  const axis = {
    gridcolor: colours.grid, linecolor: colours.line, tickcolor: colours.line, zeroline: false, ticks: "outside", ticklen: 4,
    automargin: true, title: { standoff: 8, font: { size: 13 } },
  };
  return {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", showlegend: false, uirevision: "keep",
    font: { family: "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif", size: 12, color: colours.text },
    margin: { l: 56, r: 20, t: 14, b: 46 },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: colours.muted, activecolor: colours.text },
    xaxis: axis, yaxis: { ...axis },
  };
}

// A logarithmic axis whose labels stand clear of each other: 1 2 5 within two decades, powers of ten beyond.
const logAxis = (low, high) => {
  const decades = Math.log10(high / low);
  return { type: "log", tickformat: "~g", dtick: decades < 0.7 ? "D1" : decades <= 2 ? "D2" : Math.max(1, Math.ceil(decades / 6)) || 1 };
};

// A label that follows the pointer; its lines are text.
function tooltip(root) {
  const tip = h("div", { className: "ss-tip", hidden: true });
  root.append(tip);
  return {
    show(event, rows) {
      tip.replaceChildren(...rows.map(([left, right, tone]) => h("div", {},
        h("span", tone ? { className: `ss-tone-${tone}` } : {}, left), h("b", {}, right ?? ""))));
      tip.hidden = false;
      const area = root.getBoundingClientRect();
      const x = event.clientX - area.left, y = event.clientY - area.top;
      tip.style.left = `${Math.max(4, Math.min(x + 14, area.width - tip.offsetWidth - 8))}px`;
      tip.style.top = `${Math.max(4, y - tip.offsetHeight - 12)}px`;
    },
    hide: () => { tip.hidden = true; },
  };
}

// ---- the table of what is drawn, and its CSV ----

// A spreadsheet must not take a name for a formula; numbers stay numbers.
function csvCell(value) {
  if (typeof value === "number") return Number.isFinite(value) ? String(value) : "";
  if (typeof value === "boolean") return String(value);
  const text = /^[\s]*[=+\-@\t\r]/.test(value) ? `'${value}` : String(value);
  return /[",\r\n]/.test(text) ? `"${text.replace(/"/g, '""')}"` : text;
}
const csv = (columns, rows) => [columns, ...rows].map(row => row.map(csvCell).join(",")).join("\r\n") + "\r\n";

function download(element, name, text) {
  const address = URL.createObjectURL(new Blob(["\ufeff", text], { type: "text/csv;charset=utf-8" }));
  const link = h("a", { href: address, download: name, hidden: true });
  element.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
}

function tableView(file, limit = 200) {
  let columns = [], rows = () => [], title = "";
  const caption = h("span", {});
  const body = h("div", { className: "ss-table", tabIndex: 0, role: "region", "aria-label": "Table of what is drawn" });
  const details = h("details", { className: "ss-details", ontoggle: () => fill() }, h("summary", {}, caption), body);
  const button = h("button", { type: "button", onclick: () => download(details, file, csv(columns, rows())) }, "Download CSV");
  const cell = value => h("td", typeof value === "number" ? { className: "ss-number" } : {},
    typeof value === "number" ? number(value, 4) : h("bdi", {}, readable(value, 200)));
  function fill() {
    if (!details.open) return body.replaceChildren();
    const all = rows();
    body.replaceChildren(h("table", {},
      h("thead", {}, h("tr", {}, ...columns.map(column => h("th", { scope: "col" }, column)))),
      h("tbody", {}, ...all.slice(0, limit).map(row => h("tr", {}, ...row.map(cell))))),
    ...(all.length > limit ? [h("p", {}, `The first ${limit} of ${all.length} rows; the CSV holds them all.`)] : []));
  }
  const show = (newTitle, newColumns, newRows) => {
    [title, columns, rows] = [newTitle, newColumns, newRows];
    caption.textContent = title;
    fill();
  };
  return { element: h("div", { className: "ss-data" }, details, button), show };
}
