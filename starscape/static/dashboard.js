// Three panels behind tabs; models chosen in one are chosen in all.

function renderDashboard(model, root, plotly, childModel) {
  const state = bind(model), ends = [], tabs = state.get("tabs"), drawn = new Map();
  const id = freshId(), bodies = tabs.map((tab, i) => h("div", { role: "tabpanel", id: `${id}-panel-${i}`, "aria-labelledby": `${id}-tab-${i}`, className: "ss-tabpanel" }));
  const buttons = tabs.map((tab, i) => h("button", { type: "button", role: "tab", id: `${id}-tab-${i}`, "aria-controls": `${id}-panel-${i}`, onclick: () => state.set({ tab: tab.name }) }, tab.name));
  const list = h("div", { role: "tablist", "aria-label": "Panels", className: "ss-tabs" }, ...buttons);
  list.addEventListener("keydown", event => {
    const at = buttons.indexOf(event.target), to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: tabs.length - 1 }[event.key];
    if (to === undefined || at < 0) return;
    event.preventDefault();
    const next = (to + tabs.length) % tabs.length;
    state.set({ tab: tabs[next].name });
    buttons[next].focus();
  });
  async function show() {
    const chosen = Math.max(0, tabs.findIndex(tab => tab.name === state.get("tab")));
    tabs.forEach((tab, i) => {
      bodies[i].hidden = i !== chosen;
      buttons[i].setAttribute("aria-selected", String(i === chosen));
      buttons[i].tabIndex = i === chosen ? 0 : -1;
    });
    if (drawn.has(chosen)) return;
    drawn.set(chosen, true); // a panel is drawn when its tab is first opened
    ends.push(await mount(await childModel(tabs[chosen].model), bodies[chosen], plotly));
  }
  state.on(["tab"], show);
  state.onEnd(() => ends.forEach(end => end()));
  root.append(h("div", { className: "ss-main" }, list, ...bodies));
  show();
  return { state, redraw: () => {} };
}
