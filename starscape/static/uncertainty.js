// What the star posterior knows of its errors, beside the ensemble of the sources.

const POSTERIORS = {
  star: { label: "star posterior", tone: "d", dash: "solid", symbol: "circle" },
  ensemble: { label: "ensemble", tone: "b", dash: "dash", symbol: "diamond" },
};
const posteriorStyle = name => POSTERIORS[name] ?? { label: name, tone: "e", dash: "dot", symbol: "square" };
const SCORES = [ // column, title, unit, which way is better
  ["accuracy", "Accuracy", "%", "higher"], ["nll", "Negative log-likelihood", "nats", "lower"], ["brier", "Brier score", "", "lower"],
  ["ece", "Calibration error, ECE", "%", "lower"], ["auroc_max_prob", "AUROC, maximum probability", "", "higher"],
  ["auroc_entropy", "AUROC, entropy", "", "higher"],
];
const scoreScale = key => (key === "accuracy" || key === "ece" ? 100 : 1);

function renderUncertainty(model, root, plotly) {
  const state = bind(model), tip = tooltip(root);
  const scores = chart(plotly, state, "Scores against the number of samples", 440);
  const reliability = chart(plotly, state, "Reliability diagram", 300), histogram = chart(plotly, state, "Confidence", 300), bars = chart(plotly, state, "Predictive distribution", 220);
  const table = tableView("starscape-uncertainty.csv", viewTools(state, model, root, () => "UncertaintyExplorer(zoo", ["selection", "samples"]));
  const compute = h("button", { type: "button", className: "ss-primary", onclick: () => state.send({ type: "compute" }) }, "Compute the posteriors"), empty = emptyState(compute);
  const chips = chipGroup("Posteriors", name => state.set({ posteriors: names().filter(other => (other === name) !== state.get("posteriors").includes(other)) }));
  const meaning = h("span", { className: "ss-count" }), legend = h("div", { className: "ss-legend" }, chips.element, meaning);
  const samples = h("input", { type: "range", min: 0, step: 1, oninput: () => state.set({ samples: allSamples()[Number(samples.value)] }) });
  const samplesText = h("span", { className: "ss-stepper-text" });
  const steps = h("div", { className: "ss-stepper" }, h("label", { className: "ss-range" }, h("span", {}, "Samples"), samples), samplesText);
  const thumbs = h("div", { className: "ss-thumbs", role: "group", "aria-label": "Test images the posteriors disagree on most" });
  const averaged = h("span", { className: "ss-count" });
  const pictures = h("section", {}, h("h3", {}, "Where the posteriors disagree most"), thumbs, bars.box);
  const pair = h("div", { className: "ss-pair" }, h("figure", {}, h("figcaption", {}, "Reliability ", averaged), reliability.box), h("figure", {}, h("figcaption", {}, "Confidence of right (thick) and wrong (thin) predictions"), histogram.box));

  const names = () => Object.keys(state.get("scores"));
  const shown = () => names().filter(name => state.get("posteriors").includes(name));
  const allSamples = () => [...new Set(names().flatMap(name => state.get("scores")[name].n_samples))].sort((a, b) => a - b);

  function drawScores(colours) {
    const traces = [];
    SCORES.forEach(([key], i) => {
      for (const name of shown()) {
        const { n_samples: t, repeats } = state.get("scores")[name], { mean, std } = state.get("scores")[name][key], style = posteriorStyle(name), by = scoreScale(key);
        const made = bandTraces({ t, mean: mean.map(v => by * v), std: std.map(v => by * v), n: repeats }, colours[style.tone], style.dash, -Infinity);
        traces.push(...made.map(trace => ({ ...trace, xaxis: `x${i ? i + 1 : ""}`, yaxis: `y${i ? i + 1 : ""}` })));
      }
    });
    scores.draw(traces, width => scoresLayout(colours, width));
    scores.describe(`Six scores against the number of samples: ${shown().map(name => posteriorStyle(name).label).join(" and ")}`);
  }
  function scoresLayout(colours, width) {
    const base = baseLayout(colours), columns = width > 790 ? 3 : width > 490 ? 2 : 1, rows = Math.ceil(SCORES.length / columns);
    const layout = { ...base, hovermode: "x", hoverdistance: 30, annotations: [], margin: { l: 52, r: 16, t: 30, b: 44 }, shapes: [], height: 30 + 190 * rows };
    const all = allSamples(), room = 0.03 * (all[all.length - 1] - all[0]) || 0.5;
    SCORES.forEach(([, title, unit, better], i) => {
      const column = i % columns, row = Math.floor(i / columns), id = i ? i + 1 : "", gap = 0.17 / columns, drop = 0.3 / rows;
      const left = column / columns + (column ? gap / 2 : 0), right = (column + 1) / columns - (column < columns - 1 ? gap / 2 : 0);
      const top = 1 - row / rows - (row ? drop / 2 : 0), bottom = 1 - (row + 1) / rows + (row < rows - 1 ? drop / 2 : 0);
      layout[`xaxis${id}`] = { ...base.xaxis, domain: [left, right], anchor: `y${id}`, range: [all[0] - room, all[all.length - 1] + room], nticks: 6, automargin: false, title: row === rows - 1 ? { ...base.xaxis.title, text: "samples S", font: { size: 12 } } : { text: "" } };
      layout[`yaxis${id}`] = { ...base.yaxis, domain: [bottom, top], anchor: `x${id}`, nticks: 5, automargin: false };
      layout.annotations.push({ xref: "paper", yref: "paper", x: left, y: top, yanchor: "bottom", xanchor: "left", showarrow: false, font: { size: 12.5, color: colours.text },
        text: `${title}${unit ? ` (${unit})` : ""} ${better === "higher" ? "↑" : "↓"}` });
      layout.shapes.push({ type: "line", xref: `x${id}`, yref: `y${id} domain`, x0: state.get("samples"), x1: state.get("samples"), y0: 0, y1: 1, line: { color: colours.line, width: 1 } });
    });
    return layout;
  }

  function drawDetails(colours) {
    const { reliability: bins, histogram: counts } = state.get("details"), base = baseLayout(colours), there = state.get("lacking") ? [] : Object.keys(bins ?? {});
    pair.hidden = !there.length;
    if (!there.length) return;
    averaged.textContent = state.get("details").samples ? `(${state.get("details").samples} samples averaged)` : "";
    const visible = there.filter(name => state.get("posteriors").includes(name));
    const axis = (axisBase, text, range) => ({ ...axisBase, title: { ...axisBase.title, text }, range });
    reliability.draw([{ x: [0, 100], y: [0, 100], type: "scatter", mode: "lines", hoverinfo: "skip", line: { color: colours.line, width: 1, dash: "dot" } },
      ...visible.map(name => {
        const style = posteriorStyle(name), used = bins[name].filter(bin => bin.count);
        return { x: used.map(bin => 100 * bin.confidence), y: used.map(bin => 100 * bin.accuracy), type: "scatter", mode: "lines+markers", hoverinfo: "none", bins: used, label: style.label, tone: style.tone,
          line: { color: colours[style.tone], width: 2, dash: style.dash }, marker: { symbol: style.symbol, size: used.map(bin => 6 + 12 * Math.sqrt(bin.count / Math.max(...used.map(b => b.count)))), color: faded(colours[style.tone], 0.8) } };
      })], { ...base, hovermode: "closest", xaxis: axis(base.xaxis, "Confidence (%)", [-2, 102]), yaxis: axis(base.yaxis, "Accuracy (%)", [-2, 105]) });
    reliability.describe(`Reliability diagram, 15 bins: ${visible.map(name => posteriorStyle(name).label).join(" and ")}`);
    const traces = visible.flatMap(name => {
      const style = posteriorStyle(name), { edges, correct, wrong } = counts[name], x = edges.slice(0, -1).flatMap((edge, i) => [100 * edge, 100 * edges[i + 1]]);
      return [["right", correct, 2.5], ["wrong", wrong, 1]].map(([word, values, width]) => ({
        x, y: values.flatMap(v => [v || NaN, v || NaN]), type: "scatter", mode: "lines", hoverinfo: "none", label: `${style.label}, ${word}`, tone: style.tone,
        line: { color: colours[style.tone], width, dash: style.dash } }));
    });
    histogram.draw(traces, { ...base, hovermode: "closest", xaxis: axis(base.xaxis, "Confidence (%)", [0, 101]), yaxis: { ...axis(base.yaxis, "Share of test images (%)"), ...logAxis(...extent(traces)) } });
    histogram.describe(`Confidence histogram: ${visible.map(name => posteriorStyle(name).label).join(" and ")}; right predictions thick, wrong ones thin`);
  }

  function drawThumbs() {
    const { images = [], shape = [] } = state.get("details"), pixels = bytesAs(Uint8Array, state.get("pixels")), [height, width, channels] = shape;
    pictures.hidden = !images.length || Boolean(state.get("lacking"));
    thumbs.replaceChildren(...images.map((image, k) => {
      const canvas = h("canvas", { width: width || 1, height: height || 1, "aria-hidden": "true" });
      if (width) {
        const pen = canvas.getContext("2d"), data = pen.createImageData(width, height), size = width * height;
        for (let i = 0; i < size; i++) {
          for (let c = 0; c < 3; c++) data.data[4 * i + c] = pixels[(k * size + i) * channels + (channels === 3 ? c : 0)];
          data.data[4 * i + 3] = 255;
        }
        pen.putImageData(data, 0, 0);
      }
      return h("button", { type: "button", className: "ss-thumb", "aria-pressed": "false", "data-image": image.index, title: `Test image ${image.index}`,
        "aria-label": `${number(100 * image.distance, 2)} % apart: test image ${image.index}, class ${image.label}`,
        onclick: () => state.set({ clicked: { index: image.index, label: image.label, ...image.probabilities } }) }, canvas, h("span", {}, `${number(100 * image.distance, 2)} %`));
    }));
  }
  function drawBars() {
    const { images = [], classes = [] } = state.get("details"), image = images.find(one => one.index === state.get("clicked").index), colours = palette(root), base = baseLayout(colours);
    for (const thumb of thumbs.children) thumb.setAttribute("aria-pressed", String(thumb.dataset.image === String(image?.index)));
    bars.box.hidden = !image;
    if (!image) return;
    bars.draw(Object.entries(image.probabilities).filter(([name]) => state.get("posteriors").includes(name)).map(([name, values]) => ({
      x: values.map((_, i) => i), y: values.map(v => 100 * v), type: "bar", hoverinfo: "none", label: posteriorStyle(name).label, tone: posteriorStyle(name).tone,
      marker: { color: colours[posteriorStyle(name).tone], pattern: { shape: name === "star" ? "" : "/", bgcolor: colours[posteriorStyle(name).tone], fgcolor: colours.surface, size: 6 } } })), {
      ...base, bargap: 0.25, hovermode: "closest", yaxis: { ...base.yaxis, title: { ...base.yaxis.title, text: "Probability (%)" }, range: [0, 101] },
      xaxis: { ...base.xaxis, title: { ...base.xaxis.title, text: "Class (true class in bold)" }, tickvals: classes.map((_, i) => i),
        ticktext: classes.map((name, i) => (i === image.label ? `<b>${escapeLabel(readable(name, 20))}</b>` : escapeLabel(readable(name, 20)))) } });
    bars.describe(`Predictive distribution of test image ${image.index}, true class ${readable(classes[image.label] ?? image.label)}`);
  }

  function draw() {
    const lacking = state.get("lacking") ?? "", there = names().length > 0 && !lacking, colours = palette(root);
    empty.show(there ? "" : lacking || (state.get("busy") ? "Drawing samples from the posteriors." : "The posteriors have not been sampled yet."));
    compute.dataset.needed = String(state.get("live") && state.get("missing") > 0);
    compute.hidden = compute.dataset.needed !== "true" || state.get("busy");
    for (const element of [scores.box, steps, legend, table.element]) element.hidden = !there;
    const repeats = Math.max(1, ...shown().map(name => state.get("scores")[name].repeats));
    meaning.textContent = `↑ higher is better, ↓ lower is better${repeats > 1 ? `; bands: ± 1 std of ${repeats} repeats` : ""}`;
    chips.show(names().map(name => ({ name, ...posteriorStyle(name), kinds: [posteriorStyle(name)], pressed: state.get("posteriors").includes(name) })));
    drawDetails(colours);
    drawBars();
    if (!there) return;
    drawScores(colours);
    showSamples();
    table.show("Table of what is drawn", ["posterior", "samples", ...SCORES.flatMap(([, title]) => [title, "± std"])],
      () => shown().flatMap(name => state.get("scores")[name].n_samples.map((n, i) => [posteriorStyle(name).label, n,
        ...SCORES.flatMap(([key]) => [state.get("scores")[name][key].mean[i], state.get("scores")[name][key].std[i]])])));
  }
  function showSamples() {
    const all = allSamples(), at = state.get("samples");
    samples.max = all.length - 1;
    samples.value = Math.max(0, all.indexOf(at));
    const line = name => {
      const values = state.get("scores")[name], i = values.n_samples.indexOf(at);
      return i < 0 ? "" : `${posteriorStyle(name).label} ${number(100 * values.accuracy.mean[i])} % accurate, ECE ${number(100 * values.ece.mean[i])} %`;
    };
    samplesText.textContent = `${at} samples: ${shown().map(line).filter(Boolean).join("; ")}`;
    samples.setAttribute("aria-valuetext", samplesText.textContent);
  }

  scores.on("plotly_hover", ({ points, event }) => {
    const axis = points[0].xaxis._id, [key, title, unit] = SCORES[Number(axis.slice(1) || 1) - 1], by = scoreScale(key);
    tip.show(event, [[title, ""], ["samples", String(points[0].x)], ...shown().map(name => {
      const { n_samples, [key]: { mean, std } } = state.get("scores")[name], i = n_samples.indexOf(points[0].x);
      return [posteriorStyle(name).label, i < 0 ? "–" : meansAndStds([{ mean: by * mean[i], std: by * std[i] }])[0] + (unit === "%" ? " %" : ""), posteriorStyle(name).tone];
    })]);
  });
  scores.on("plotly_click", ({ points }) => state.set({ samples: points[0].x }));
  reliability.on("plotly_hover", ({ points, event }) => {
    const { data, pointNumber } = points[0], bin = data.bins?.[pointNumber];
    if (bin) tip.show(event, [[data.label, "", data.tone], ["confidence", `${number(100 * bin.confidence)} %`], ["accuracy", `${number(100 * bin.accuracy)} %`], ["images", String(bin.count)]]);
  });
  histogram.on("plotly_hover", ({ points, event }) => tip.show(event, [[points[0].data.label, `${number(Math.abs(points[0].y))} %`, points[0].data.tone], ["confidence", `${number(points[0].x)} %`]]));
  bars.on("plotly_hover", ({ points, event }) => tip.show(event, points.map(p => [p.data.label, `${number(p.y)} %`, p.data.tone])));
  for (const each of [scores, reliability, histogram, bars]) each.on("plotly_unhover", tip.hide);

  const redraw = oncePerFrame(draw);
  state.on(["scores", "details", "posteriors", "samples", "busy", "missing", "lacking"], redraw);
  state.on(["details", "pixels", "lacking"], drawThumbs);
  state.on(["clicked"], drawBars);
  root.append(h("div", { className: "ss-main" }, legend, empty.element, scores.box,
    steps,
    pair, pictures, table.element, statusLine(state, compute)));
  drawThumbs();
  draw();
  return { state, redraw };
}
