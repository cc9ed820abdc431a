// Entry: anywidget calls `render` once per view; the exported file's host calls it with a model of its own.

const PANELS = { barriers: renderBarriers };

async function render({ model, el }) {
  const root = h("div", { className: "starscape" });
  root.dataset.panel = model.get("panel");
  root.append(h("p", { className: "ss-empty" }, "Loading…"));
  el.append(root);
  const plotly = await loadPlotly(model);
  root.replaceChildren();
  root.dataset.theme = backgroundIsDark(el) ? "dark" : "light";
  const { state, redraw } = PANELS[model.get("panel")](model, root, plotly);
  followTheme(root, state, redraw);
  return () => state.end();
}

export default { render };
