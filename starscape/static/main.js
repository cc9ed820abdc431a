// Entry: anywidget calls `render` once per view; the exported file's host calls it with models of its own.

const PANELS = { barriers: renderBarriers, plane: renderPlane, uncertainty: renderUncertainty, dashboard: renderDashboard };

async function mount(model, el, plotly, childModel) {
  remember(model, el);
  const root = h("div", { className: "starscape" });
  root.dataset.panel = model.get("panel");
  root.dataset.theme = backgroundIsDark(el) ? "dark" : "light";
  el.append(root);
  const { state, redraw } = PANELS[model.get("panel")](model, root, plotly, childModel);
  followTheme(root, state, redraw);
  return () => state.end();
}

async function render({ model, el }) {
  const waiting = h("p", { className: "ss-waiting" }, "Loading the panel…");
  el.append(waiting);
  const plotly = await loadPlotly(model);
  waiting.remove();
  return mount(model, el, plotly, reference => model.widget_manager.get_model(reference.replace("IPY_MODEL_", "")));
}

export default { render };
