// Three panels behind tabs; models chosen in one are chosen in all.

// What the selection of the curves means for the other panels, where no kernel says so (see StarDashboard in starscape.viz):
// the plane offers the chosen models, the posteriors are those of the chosen stars and sources. What the file lacks is said.
function shareSelection(children, state) {
  const [curves, plane, posteriors] = ["barriers", "plane", "uncertainty"].map(kind => children.find(child => child.get("panel") === kind));
  if (!curves) return;
  const three = plane?.get("selection"), offered = plane?.get("models"), sampled = posteriors?.get("selection"), models = curves.get("index").models;
  const share = () => {
    const chosen = new Set(curves.get("selection")), gone = three?.filter(name => !chosen.has(name)) ?? [];
    state.set({ selection: [...chosen] });
    plane?.set("models", offered.filter(({ name }) => chosen.has(name) || three.includes(name)));
    plane?.set("lacking", `This file holds the plane through ${listed(three)}, no other.${gone.length ? ` ${listed(gone)} ${gone.length > 1 ? "are" : "is"} not among the chosen models.` : ""}`);
    if (!sampled?.length) return; // scores of no named models
    const asked = models.filter(({ name, role }) => chosen.has(name) && ["star", "source"].includes(role)).map(({ name }) => name);
    const same = asked.length === sampled.length && sampled.every(name => asked.includes(name));
    posteriors.set("selection", asked);
    posteriors.set("lacking", same ? "" : `The scores of ${asked.length ? listed(asked) : "no star and no source"} are not in this file: it holds those of ${listed(sampled)}.`);
  };
  const listening = bind(curves);
  listening.on(["selection"], share);
  state.onEnd(listening.end);
}

function renderDashboard(model, root, plotly, childModel) {
  const state = bind(model), ends = [], tabs = state.get("tabs"), drawn = new Set();
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
    drawn.add(chosen); // a panel is drawn when its tab is first opened
    ends.push(await mount((await children)[chosen], bodies[chosen], plotly));
  }
  const children = Promise.all(tabs.map(tab => childModel(tab.model))).then(models => {
    if (!state.get("live")) shareSelection(models, state);
    models.forEach(child => remember(child, root)); // what was chosen in one, the others have to hear of
    return models;
  });
  state.on(["tab"], show);
  state.onEnd(() => ends.forEach(end => end()));
  const note = h("p", { className: "ss-lacking", hidden: !state.get("note") }, state.get("note") ?? "");
  root.append(h("div", { className: "ss-main" }, list, note, ...bodies));
  show();
  return { state, redraw: () => {} };
}
