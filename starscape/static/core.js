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

// A few of the names, and how many more.
function listed(names, most = 3) {
  const few = names.slice(0, names.length > most + 1 ? most : most + 1).map(name => readable(name, 40)), more = names.length - few.length;
  return more ? `${few.join(", ")} and ${more} more` : [few.slice(0, -1).join(", "), few.at(-1)].filter(Boolean).join(" and ");
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

// Means and deviations of one column with the same decimals, as a paper prints them: enough for two digits of the least
// mean and one of the least deviation, and at most five of the largest mean; what is far smaller counts for nothing.
function meansAndStds(rows) {
  const sizes = key => rows.map(row => Math.abs(row[key])).filter(size => size > 0 && Number.isFinite(size)), most = Math.max(...sizes("mean"));
  const decimals = (size, digits) => digits - 1 - Math.floor(Math.log10(size)), least = key => Math.min(...sizes(key).filter(size => size > 1e-4 * most));
  const wanted = Math.max(decimals(most, 3), decimals(least("mean"), 2), decimals(least("std"), 1));
  const places = Math.max(0, Math.min(wanted, decimals(most, 5))), text = value => (places <= 8 && Number.isFinite(value) ? value.toFixed(places).replace("-", "−") : number(value));
  return rows.map(({ mean, std, n = 2 }) => (n > 1 ? `${text(mean)} ± ${text(std)}` : text(mean)));
}

// Typed views of the bytes a trait holds; copied, because their offset need not suit the element size.
function bytesAs(Type, view) {
  if (!view?.byteLength) return new Type(0);
  return new Type(view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength));
}

// One panel's hold on its model: what it listens to ends with the panel. What is set here, a reader has chosen.
function bind(model) {
  const ends = [];
  return {
    get: key => model.get(key),
    set(values) {
      note(model, values);
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

// ---- what a reader chose outlives a reload where each visit starts a new kernel (Voila, marimo) or has none ----

const boolean = value => (typeof value === "boolean" ? value : undefined);
const oneOf = options => (value, get) => (options(get).includes(value) ? value : undefined);
const someOf = options => (value, get) => (Array.isArray(value) ? options(get).filter(option => value.includes(option)) : undefined);
const between = (low, high) => value => (typeof value === "number" && value >= low && value <= high ? value : undefined);
const those = (...names) => () => names;

// Of each panel: the traits that are kept, never data, and how a kept value is read. It may come from a link, and is
// believed only as far as it fits what is there.
const KEPT = {
  barriers: {
    selection: someOf(get => get("index").models.map(model => model.name)), pairs: someOf(get => get("index").pairs),
    metric: oneOf(those("loss", "accuracy", "barrier")), split: oneOf(get => get("index").splits), alignment: oneOf(those("aligned", "raw", "both")),
    view: oneOf(those("mean", "curves")), log: boolean, overlay: oneOf(get => ["", ...Object.keys(get("published"))]),
    clicked: value => (typeof value?.first === "string" ? Object.fromEntries(["first", "second", "pair", "aligned", "split"].map(key => [key, value[key]])) : {}),
  },
  plane: {
    selection: (value, get) => (get("live") && Array.isArray(value) && new Set(value).size === 3 && value.every(name => get("models").some(model => model.name === name)) ? value : undefined),
    metric: oneOf(those("loss", "accuracy")), split: oneOf(those("train", "test")), alignment: (value, get) => (get("live") && ["aligned", "raw"].includes(value) ? value : undefined),
    view: oneOf(those("heatmap", "contours", "surface")), log: boolean, turn: between(-180, 180), tilt: between(10, 85),
    line: value => (Array.isArray(value) && [0, 4].includes(value.length) && value.every(Number.isFinite) ? value : undefined),
    clicked: value => (Number.isFinite(value?.x) && Number.isFinite(value?.y) ? { x: value.x, y: value.y } : {}),
  },
  uncertainty: {
    posteriors: someOf(get => Object.keys(get("scores"))), samples: oneOf(get => Object.values(get("scores")).flatMap(score => score.n_samples)),
    clicked: (value, get) => get("details").images?.filter(image => image.index === value?.index).map(({ index, label, probabilities }) => ({ index, label, ...probabilities }))[0] ?? {},
  },
  dashboard: { tab: oneOf(get => get("tabs").map(tab => tab.name)) },
};

const memories = new WeakMap();

// What tells a model from the others of its page, or null where a kernel lives on across a reload, and knows best.
function identity(model, el) {
  if (model.place) return model.place; // its name in an exported file
  let inMarimo = false;
  for (let at = el; at && !inMarimo; at = at.parentNode ?? at.host) inMarimo = Boolean(at.localName?.startsWith("marimo-"));
  return inMarimo || "voila_process" in globalThis ? model.get("number") : null;
}

// A page in a frame may be forbidden to store anything.
function kept(key, value) {
  try {
    if (value === undefined) return Object(JSON.parse(sessionStorage.getItem(key)));
    sessionStorage.setItem(key, JSON.stringify(value));
  } catch { /* then it is not kept */ }
  return {};
}

function hash(text) { // FNV-1a
  let sum = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) sum = Math.imul(sum ^ text.charCodeAt(i), 0x01000193);
  return (sum >>> 0).toString(36);
}

// A link to an exported page may say what to show: #starscape={"panel": {"metric": "accuracy"}}, percent-encoded.
const LINK = "#starscape=";
function linkHere() {
  const chosen = [...globalThis.__starscapeMemories].filter(([, memory]) => Object.keys(memory.chosen).length).map(([place, memory]) => [place, memory.chosen]);
  return location.href.split("#")[0] + LINK + encodeURIComponent(JSON.stringify(Object.fromEntries(chosen)));
}
function linked(place) {
  if (!location.hash.startsWith(LINK)) return {};
  try { return Object(JSON.parse(decodeURIComponent(location.hash.slice(LINK.length)))[place]); } catch { return {}; }
}

// Once for each model of a page, however many views it has. A panel is found again by how it starts, so that what was
// chosen comes back only if Python still starts it the same way; of several that start alike, by their order.
function remember(model, el) {
  const id = identity(model, el), all = globalThis.__starscapeMemories ??= new Map();
  if (id === null) return;
  if (!all.has(id)) {
    const panel = model.get("panel"), rules = KEPT[panel], get = name => model.get(name);
    const first = Object.fromEntries([...Object.keys(rules), "selection"].map(name => [name, get(name)])), start = hash(JSON.stringify(first));
    const before = [...all.values()].filter(other => other.panel === panel && other.start === start && !model.place).length;
    const key = `starscape ${location.pathname} ${model.place ?? panel} ${start} ${before}`, old = kept(key);
    const memory = { panel, start, first, chosen: {}, keep: () => kept(key, { chosen: memory.chosen, link: location.hash }) };
    const found = model.place && location.hash.startsWith(LINK) && old.link !== location.hash ? linked(model.place) : Object(old.chosen);
    for (const [name, rule] of Object.entries(rules)) {
      const value = Object.hasOwn(found, name) ? rule(found[name], get) : undefined;
      if (value !== undefined) model.set(name, memory.chosen[name] = value);
      model.on(`change:${name}`, () => {
        if (!(name in memory.chosen) || JSON.stringify(get(name)) === JSON.stringify(memory.chosen[name])) return;
        delete memory.chosen[name]; // Python has set it since, and has the last word
        memory.keep();
      });
    }
    model.save_changes();
    memory.keep();
    all.set(id, memory);
  }
  memories.set(model, all.get(id));
}

function note(model, values) {
  const memory = memories.get(model);
  if (!memory) return;
  for (const name of Object.keys(values)) if (name in KEPT[memory.panel]) memory.chosen[name] = values[name];
  memory.keep();
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
    action.hidden = busy || action.dataset.needed !== "true";
  };
  state.on(["status", "progress", "busy", "failed", "missing"], show);
  show();
  return h("div", { className: "ss-foot" }, text, bar, cancel, action);
}

// What stands where nothing can be drawn, with the button that changes that.
function emptyState(action) {
  const text = h("p", {}), element = h("div", { className: "ss-empty", hidden: true }, text);
  let home = null;
  return {
    element,
    show(words) {
      element.hidden = !words;
      text.textContent = words;
      home ??= action.parentNode;
      (words ? element : home).append(action);
    },
  };
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
  let latest = null, width = 0, above = () => [], paint = null, inLines = null, started = false;
  const listeners = [];
  const settings = {
    displaylogo: false, showSendToCloud: false, responsive: false, doubleClick: "reset",
    modeBarButtons: [[{ name: "Download picture (PNG)", icon: plotly.Icons.camera, click: () => print("png") },
      { name: "Download picture (SVG)", icon: plotly.Icons.disk, click: () => print("svg") }, "resetScale2d"]],
  };
  const place = (axes, left = axes.xaxis._offset, top = axes.yaxis._offset) => (x, y) => [left + axes.xaxis.d2p(x), top + axes.yaxis.d2p(y)];

  function draw(traces, layout) { // a layout that depends on the width is a function of it
    latest = [traces, layout];
    if (!box.clientWidth) return;
    width = box.clientWidth;
    const made = typeof layout === "function" ? layout(width) : layout;
    if (made.height) box.style.height = `${made.height}px`;
    plotly.react(plot, traces, { ...made, width, height: box.clientHeight }, settings);
    if (!started) {
      started = true;
      plot.on("plotly_afterplot", () => {
        for (const button of plot.querySelectorAll(".modebar-btn")) button.setAttribute("data-lm-suppress-shortcuts", "true");
        fill();
        light();
      });
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
    const { xaxis, yaxis } = plot._fullLayout, dense = devicePixelRatio || 1;
    canvas.width = box.clientWidth * dense;
    canvas.height = box.clientHeight * dense;
    const pen = canvas.getContext("2d");
    pen.scale(dense, dense);
    pen.rect(xaxis._offset, yaxis._offset, xaxis._length, yaxis._length);
    pen.clip();
    paint(pen, place(plot._fullLayout));
  }
  // what is on the screen, with the canvas as a picture between the axes, or as the lines it stands for
  function print(format) {
    const axes = plot._fullLayout, images = [], lines = paint && format === "svg" ? inLines() : { traces: [], shapes: plot.layout.shapes };
    if (paint && format === "png") {
      const picture = h("canvas", { width: 2 * axes.xaxis._length, height: 2 * axes.yaxis._length }), pen = picture.getContext("2d");
      pen.scale(2, 2);
      paint(pen, place(axes, 0, 0));
      images.push({ source: picture.toDataURL(), xref: "paper", yref: "paper", x: 0, y: 1, sizex: 1, sizey: 1, sizing: "stretch" });
    }
    const layout = { ...plot.layout, images, shapes: lines.shapes, paper_bgcolor: getComputedStyle(box).getPropertyValue("--ss-surface").trim() };
    plotly.downloadImage({ data: [...plot.data, ...lines.traces], layout }, { format, scale: format === "png" ? 2 : 1, width: axes.width, height: axes.height, filename: "starscape" });
  }
  const resize = new ResizeObserver(() => { if (latest && box.clientWidth && box.clientWidth !== width) draw(...latest); });
  resize.observe(box);
  state.onEnd(() => { resize.disconnect(); plotly.purge(plot); });
  return {
    box, plot, draw, light,
    on: (event, callback) => started ? plot.on(event, callback) : listeners.push([event, callback]),
    above: callback => { above = callback; light(); },
    canvas: (callback, asLines) => { [paint, inLines] = [callback, asLines]; },
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

// A logarithmic axis whose labels stand clear of each other: even steps within a factor of three, 1 2 5 within two decades,
// powers of ten beyond.
const logAxis = (low, high) => {
  const decades = Math.log10(high / low);
  if (decades < 0.5) {
    const least = (high - low) / 5 || high / 5 || 1, power = 10 ** Math.floor(Math.log10(least));
    return { type: "log", tickformat: "~g", tick0: 0, dtick: `L${[1, 2, 5, 10].map(m => m * power).find(step => step >= least).toPrecision(1)}` };
  }
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

function tableView(file, tools = [], limit = 200) {
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
  return { element: h("div", { className: "ss-data" }, details, h("div", { className: "ss-tools" }, ...tools, button)), show };
}

// ---- this view elsewhere: as Python code, as a link; and back to how it began ----

async function copy(element, text) {
  try { return await navigator.clipboard.writeText(text); } catch { /* not on a page served without encryption */ }
  const area = h("textarea", { value: text, className: "ss-unseen" });
  element.append(area);
  area.select();
  area.ownerDocument.execCommand("copy");
  area.remove();
}

// JSON is almost Python.
const python = value => (Array.isArray(value) ? `[${value.map(python).join(", ")}]`
  : value === Object(value) ? `{${Object.entries(value).map(([key, item]) => `${python(key)}: ${python(item)}`).join(", ")}}`
  : { true: "True", false: "False", null: "None", undefined: "None" }[value] ?? JSON.stringify(value));

// `call` is the Python expression, ready for what the panel was opened with and for the traits that `traits` names: those
// that do not say "all" or "nothing".
function viewTools(state, model, root, call, traits, all = {}) {
  const memory = memories.get(model), said = h("span", { role: "status", className: "ss-said", tabIndex: -1 });
  const button = (text, hint, onclick) => h("button", { type: "button", className: "ss-quiet", title: hint, onclick }, text);
  const say = text => { said.textContent = text; setTimeout(() => { said.textContent = ""; }, 3000); };
  const empty = value => value === "" || value === Object(value) && !Object.keys(value).length;
  const code = () => {
    const given = traits.filter(name => !empty(state.get(name)) && JSON.stringify(state.get(name)) !== JSON.stringify(all[name]?.()));
    const [opened, remark] = [...state.get("opened") ?? [], "", ""];
    return `${call()}${opened}${given.map(name => `, ${name}=${python(state.get(name))}`).join("")})${remark}`;
  };
  const back = button("Reset view", "Show this panel as it was at first", () => {
    state.set(Object.fromEntries(Object.keys(KEPT[memory.panel]).map(name => [name, memory.first[name]])));
    say("As at first.");
    said.focus(); // the button is gone
  });
  const changed = () => { back.hidden = !memory || Object.keys(KEPT[memory.panel]).every(name => JSON.stringify(state.get(name)) === JSON.stringify(memory.first[name])); };
  if (memory) state.on(Object.keys(KEPT[memory.panel]), changed);
  changed();
  return [said, back,
    ...(model.place ? [button("Copy link", "A link to this page that opens with this view", () => copy(root, linkHere()).then(() => say("Link copied.")))] : []),
    button("Copy Python", "The code that opens this view in a notebook", () => copy(root, code()).then(() => say("Code copied.")))];
}
