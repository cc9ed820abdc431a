// Runs the panels of an exported file: models without a kernel, then the same `render` as in the notebook.
const decode = text => Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
const unzip = bytes => new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip")));
const packed = id => decode(document.getElementById(id).textContent);

function standaloneModel(place, { state, buffers }) {
  const listeners = {}, values = { ...state };
  for (const [key, text] of Object.entries(buffers)) values[key] = new DataView(decode(text).buffer);
  const call = (event, ...rest) => [...(listeners[event] ?? [])].forEach(callback => callback(...rest));
  return {
    place,
    widget_manager: { get_model: async name => models[name] },
    get: key => values[key],
    set(key, value) {
      if (JSON.stringify(values[key]) === JSON.stringify(value)) return;
      values[key] = value;
      call(`change:${key}`);
    },
    on(event, callback) { (listeners[event] ??= []).push(callback); },
    off(event, callback) { listeners[event] = (listeners[event] ?? []).filter(other => other !== callback); },
    save_changes() {},
    send(message) {
      if (message.type === "plotly") setTimeout(() => call("msg:custom", { type: "plotly" }, [packed("starscape-plotly")]));
    },
  };
}

const { panels, source } = await unzip(packed("starscape-data")).json();
const models = Object.fromEntries(Object.entries(panels).map(([name, panel]) => [name, standaloneModel(name, panel)]));
const address = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
const { default: widget } = await import(address);
URL.revokeObjectURL(address);
for (const [name, model] of Object.entries(models)) {
  const el = document.getElementById(name);
  if (el) await widget.render({ model, el });
}
document.documentElement.dataset.ready = "true";
addEventListener("hashchange", () => { if (location.hash.startsWith("#starscape=")) location.reload(); }); // a link to another view
