// Brings pages to life with no kernel and no network: stored plotly figures, panels, mathematics.

const isDark = () => document.documentElement.dataset.theme === "dark";
const colour = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const decode = text => Uint8Array.from(atob(text), letter => letter.charCodeAt(0));

// A figure's layout on this page: as wide as the text, on the page's own background, in the theme's colours when dark.
function themed(layout) {
  const { width, ...rest } = structuredClone(layout);
  const result = { ...rest, autosize: true, paper_bgcolor: "rgba(0,0,0,0)" };
  if (!isDark()) return result;
  const [text, line, surface] = ["--pst-color-text-base", "--pst-color-border", "--pst-color-surface"].map(colour);
  const axis = { gridcolor: line, linecolor: line, zerolinecolor: line };
  Object.assign(result, { plot_bgcolor: "rgba(0,0,0,0)", font: { ...result.font, color: text } });
  result.hoverlabel = { ...result.hoverlabel, bgcolor: surface, font: { color: text } };
  for (const name of new Set(["xaxis", "yaxis", ...Object.keys(result).filter(key => /^[xy]axis\d*$/.test(key))]))
    result[name] = { ...result[name], ...axis };
  return result;
}

function drawFigure(script) {
  const place = document.getElementById(script.dataset.figure);
  const { data, layout } = JSON.parse(script.textContent);
  const draw = () => Plotly.react(place, data, themed(layout), { responsive: true, displaylogo: false });
  draw();
  return draw;
}

// The model that a panel's `render` expects, with its traits but nobody to send them to.
function standaloneModel({ state, buffers, models }) {
  const values = { ...state }, listeners = {};
  for (const [name, data] of Object.entries(buffers)) values[name] = new DataView(decode(data).buffer);
  return {
    widget_manager: { get_model: async name => standaloneModel(models[name]) },
    get: name => values[name],
    set(name, value) {
      if (JSON.stringify(values[name]) === JSON.stringify(value)) return;
      values[name] = value;
      for (const callback of [...(listeners[`change:${name}`] ?? [])]) callback();
    },
    on(event, callback) { (listeners[event] ??= []).push(callback); },
    off(event, callback) { listeners[event] = (listeners[event] ?? []).filter(other => other !== callback); },
    save_changes() {},
    send() {},
  };
}

const modules = new Map();
function frontEnd(source) {
  if (!modules.has(source)) modules.set(source, import(URL.createObjectURL(new Blob([source], { type: "text/javascript" }))));
  return modules.get(source);
}

async function startPanel(panel, el) {
  if (panel.state._esm) {
    if (panel.state._css) {
      const style = document.createElement("style");
      style.textContent = panel.state._css;
      el.append(style);
    }
    const root = document.createElement("div");
    el.append(root);
    const { default: widget } = await frontEnd(panel.state._esm);
    await widget.render({ model: standaloneModel(panel), el: root });
  }
  if (panel.children.length) el.classList.add(`panel-${panel.direction}`);
  for (const child of panel.children) {
    const place = document.createElement("div");
    el.append(place);
    await startPanel(child, place);
  }
}

function showMathematics(element) {
  const source = element.textContent.trim();
  const displayed = source.startsWith("\\[");
  katex.render(source.slice(2, -2), element, { displayMode: displayed });
}

if (globalThis.Plotly) globalThis.__starscapePlotly = Promise.resolve(Plotly); // the panels look for it here
document.querySelectorAll(".math").forEach(showMathematics);
const redraws = [...document.querySelectorAll("script[data-figure]")].map(drawFigure);
new MutationObserver(() => redraws.forEach(draw => draw())).observe(document.documentElement, { attributeFilter: ["data-theme"] });
const panels = [...document.querySelectorAll("script[data-panel]")];
Promise.all(panels.map(script => startPanel(JSON.parse(script.textContent), document.getElementById(script.dataset.panel))))
  .then(() => { document.documentElement.dataset.ready = "true"; });
