// Interpolation curves, and beneath them each pair's barrier.

const METRICS = {
  loss: { axis: split => `Loss (${split}, nats)`, scale: 1 },
  accuracy: { axis: split => `Accuracy (${split}, %)`, scale: 100 },
  barrier: { axis: split => `Loss above the straight line (${split}, nats)`, scale: 1 },
};
const CURVE_FIELDS = 7; // first, second, pair, aligned, split, start, length

function seriesStyle(pair, aligned, position = 0) {
  const style = SERIES[pair] ?? { label: pair, tone: "e", dash: "longdashdot", symbol: "x" };
  return aligned ? style : { ...style, label: `${style.label}, raw`, dash: "dot", symbol: `${style.symbol}-open` };
}

// The curves of a sweep: who, how, and the three arrays t, loss and accuracy of each.
function readCurves(state) {
  const { models, pairs, splits } = state.get("index");
  const fields = bytesAs(Int32Array, state.get("curves")), values = bytesAs(Float32Array, state.get("values"));
  const curves = [];
  for (let i = 0; i < fields.length; i += CURVE_FIELDS) {
    const [first, second, pair, aligned, split, start, length] = fields.subarray(i, i + CURVE_FIELDS);
    const part = k => values.subarray(start + k * length, start + (k + 1) * length);
    curves.push({
      first: models[first].name, second: models[second].name, pair: pairs[pair], aligned: Boolean(aligned), split: splits[split],
      t: part(0), loss: part(1), accuracy: part(2),
    });
  }
  return curves;
}

// How far `values` rises above the straight line between its ends (sign = 1), or falls below it (sign = -1).
function aboveLine(t, values, sign = 1) {
  const first = values[0], last = values[values.length - 1];
  return Float32Array.from(values, (value, i) => sign * (value - ((1 - t[i]) * first + t[i] * last)));
}
const largest = values => values.reduce((best, value) => (value > best || Number.isNaN(best) ? value : best), NaN);
const lossBarrier = curve => (curve.lossBarrier ??= largest(aboveLine(curve.t, curve.loss)));
const accuracyBarrier = curve => (curve.accuracyBarrier ??= largest(aboveLine(curve.t, curve.accuracy, -1)));

function heights(curve, metric) {
  if (metric === "loss") return curve.loss;
  if (metric === "barrier") return (curve.above ??= aboveLine(curve.t, curve.loss));
  return (curve.percent ??= curve.accuracy.map(value => 100 * value));
}

function meanAndStd(values) {
  const n = values.length, mean = values.reduce((a, b) => a + b, 0) / n;
  const std = n > 1 ? Math.sqrt(values.reduce((a, b) => a + (b - mean) ** 2, 0) / (n - 1)) : 0;
  return { n, mean, std };
}

// Mean and standard deviation over curves at each t; curves on another grid are read off the finest one linearly.
function band(curves, metric) {
  const grid = curves.reduce((a, b) => (b.t.length > a.t.length ? b : a)).t;
  const n = curves.length, total = new Float64Array(grid.length), squares = new Float64Array(grid.length);
  const rows = curves.map(curve => {
    const y = heights(curve, metric);
    return curve.t.length === grid.length ? y : Float32Array.from(grid, t => readOff(curve.t, y, t));
  });
  for (const y of rows) for (let i = 0; i < grid.length; i++) total[i] += y[i];
  const mean = total.map(sum => sum / n);
  for (const y of rows) for (let i = 0; i < grid.length; i++) squares[i] += (y[i] - mean[i]) ** 2;
  return { t: grid, mean, std: squares.map(sum => (n > 1 ? Math.sqrt(sum / (n - 1)) : 0)), n };
}
function readOff(t, y, at) {
  let i = 1;
  while (i < t.length - 1 && t[i] < at) i++;
  const share = (at - t[i - 1]) / (t[i] - t[i - 1]);
  return y[i - 1] + share * (y[i] - y[i - 1]);
}

function bandTraces({ t, mean, std, n }, colour, dash, lowest) {
  const line = { x: t, y: mean, type: "scatter", mode: "lines", line: { color: colour, width: 2.5, dash }, hoverinfo: "none" };
  if (n < 2) return [line];
  const x = [...t, ...Array.from(t).reverse()];
  const y = [...mean.map((m, i) => m + std[i]), ...Array.from(mean, (m, i) => Math.max(m - std[i], lowest)).reverse()];
  return [{ x, y, type: "scatter", mode: "lines", fill: "toself", fillcolor: faded(colour, 0.16), line: { width: 0 }, hoverinfo: "skip" }, line];
}

const MANY = 55; // curves; beyond, they go to a canvas: a browser takes long to paint so long a path, seconds for thousands

// All curves of a series as one path; the mean over them tells the series by its dash, too.
function bundleShape(group, metric, colour) {
  const parts = group.curves.map(curve => {
    const y = heights(curve, metric), points = [];
    for (let i = 0; i < y.length; i++) if (Number.isFinite(y[i])) points.push(`${curve.t[i].toFixed(4)},${y[i].toPrecision(5)}`);
    return points.length > 1 ? `M${points.join("L")}` : "";
  });
  return { type: "path", path: parts.join(""), layer: "between", line: { color: faded(colour, opacityOf(group)), width: 1.25 } };
}
const opacityOf = ({ curves, aligned }) => (aligned ? 1 : 0.5) * Math.max(0.08, Math.min(0.7, 3 / Math.sqrt(curves.length)));
function meanTraces({ t, mean }, colours, { tone, dash }) {
  const line = { x: t, y: mean, type: "scatter", mode: "lines", hoverinfo: "skip" };
  return [{ ...line, line: { color: colours.surface, width: 5 } }, { ...line, line: { color: colours[tone], width: 2.5, dash } }];
}

// The same for thousands of curves, on a canvas.
function strokeCurves(pen, groups, metric, colours, at) {
  const stroke = (t, y) => {
    pen.beginPath();
    for (let i = 0; i < y.length; i++) pen.lineTo(...at(t[i], y[i]));
    pen.stroke();
  };
  for (const group of groups) {
    pen.strokeStyle = faded(colours[group.tone], opacityOf(group));
    pen.lineWidth = group.curves.length > 300 ? 1 : 1.25; // what is not wider than a pixel is drawn faster
    for (const curve of group.curves) stroke(curve.t, heights(curve, metric));
  }
  for (const { mean: { t, mean }, tone, dash } of groups) {
    for (const [colour, width, gaps] of [[colours.surface, 5, ""], [colours[tone], 2.5, DASHES[dash] ?? ""]]) {
      [pen.strokeStyle, pen.lineWidth] = [colour, width];
      pen.setLineDash(gaps.split(" ").filter(Boolean).map(Number));
      stroke(t, mean);
    }
  }
}

// Lowest and highest point of the curves, so that plotly chooses the axes from two points instead of all.
function spanTrace(curves, metric) {
  let low = Infinity, high = -Infinity, positive = Infinity;
  for (const curve of curves) {
    for (const y of heights(curve, metric)) {
      if (!Number.isFinite(y)) continue;
      low = Math.min(low, y);
      high = Math.max(high, y);
      if (y > 0) positive = Math.min(positive, y);
    }
  }
  return { x: [0, 1, 0.5], y: [low, high, positive], type: "scatter", mode: "markers", marker: { opacity: 0 }, hoverinfo: "skip" };
}

// The least and greatest positive height of some traces.
function extent(traces) {
  let low = Infinity, high = 0;
  for (const { y } of traces) for (const value of y) if (value > 0) { low = Math.min(low, value); high = Math.max(high, value); }
  return [low, high];
}

function renderBarriers(model, root, plotly) {
  const state = bind(model), tip = tooltip(root);
  let curves = readCurves(state), drawn = [], groups = [], hovered = null;
  const curveChart = chart(plotly, state, "Interpolation curves", 400), stripChart = chart(plotly, state, "Barriers", 130);
  const table = tableView("starscape-barriers.csv", viewTools(state, model, root, () => "BarrierExplorer(zoo", ["selection", "metric", "split", "alignment", "view", "log", "pairs", "overlay"],
    { selection: () => state.get("index").models.map(one => one.name), pairs: () => state.get("index").pairs }));
  const chips = chipGroup("Pair types", pair => state.set({ pairs: state.get("index").pairs.filter(other => (other === pair) !== state.get("pairs").includes(other)) }));
  const lacking = h("p", { className: "ss-lacking", hidden: true });
  const stepper = h("input", { type: "range", min: 0, step: 1, "aria-label": "Step through the pairs, lowest barrier first", oninput: step });
  const stepperText = h("span", { className: "ss-stepper-text" });
  const clear = h("button", { type: "button", className: "ss-quiet", onclick: () => state.set({ clicked: {} }) }, "Clear");
  const stepping = h("div", { className: "ss-stepper" }, stepper, stepperText, clear);
  const compute = h("button", { type: "button", className: "ss-primary", onclick: () => state.send({ type: "compute" }) }), empty = emptyState(compute);

  const same = (curve, clicked) => curve.first === clicked.first && curve.second === clicked.second
    && curve.aligned === clicked.aligned && curve.split === clicked.split;
  const lit = () => hovered ?? drawn.find(curve => same(curve, state.get("clicked"))) ?? null;
  const barrierOf = curve => (state.get("metric") === "accuracy" ? 100 * accuracyBarrier(curve) : lossBarrier(curve));
  const nameOf = curve => `${readable(curve.first, 40)} → ${readable(curve.second, 40)}`;

  const strip = oncePerFrame(() => { drawStrip(); showWords(); });

  function choose() {
    const chosen = new Set(state.get("selection")), shown = new Set(state.get("pairs"));
    const split = state.get("split"), alignment = state.get("alignment");
    drawn = curves.filter(curve => curve.split === split && shown.has(curve.pair) && chosen.has(curve.first) && chosen.has(curve.second)
      && (alignment === "both" || curve.aligned === (alignment === "aligned")));
    const byKey = new Map();
    for (const curve of drawn) {
      const key = `${curve.pair}|${curve.aligned}`;
      if (!byKey.has(key)) byKey.set(key, { pair: curve.pair, aligned: curve.aligned, curves: [], ...seriesStyle(curve.pair, curve.aligned) });
      byKey.get(key).curves.push(curve);
    }
    const order = Object.keys(SERIES);
    groups = [...byKey.values()].sort((a, b) => order.indexOf(a.pair) - order.indexOf(b.pair) || b.aligned - a.aligned);
  }

  function published() {
    const setting = state.get("published")[state.get("overlay")], split = state.get("split"), metric = state.get("metric");
    if (!setting) return [];
    return Object.entries(setting.pairs).filter(([pair]) => state.get("pairs").includes(pair)).map(([pair, values]) => {
      const t = values.t, loss = values[`${split}_loss`], accuracy = values[`${split}_accuracy`];
      const y = metric === "accuracy" ? accuracy : metric === "loss" ? loss : aboveLine(t, loss);
      return { pair, t, y, ...seriesStyle(pair, true) };
    });
  }

  function draw() {
    choose();
    const metric = state.get("metric"), none = !drawn.length && !state.get("overlay");
    for (const element of [curveChart.box, stripChart.box, stepping, table.element]) element.hidden = none;
    empty.show(!none ? "" : curves.length ? "No measured pair among the chosen models and pair types." : state.get("busy") ? "The first curves are on their way." : "No pair has been measured yet.");
    if (none) return showWords();
    for (const group of groups) group.mean = band(group.curves, metric);
    const colours = palette(root), split = state.get("split"), single = state.get("view") === "curves";
    const log = state.get("log") && metric === "loss", base = baseLayout(colours);
    const ends = log ? drawn.reduce((low, c) => c.loss.reduce((a, b) => (b > 0 && b < a ? b : a), low), Infinity) : -Infinity;
    const span = spanTrace(drawn, metric), many = drawn.length > MANY, [low, high] = log ? [Math.log10(span.y[2]), Math.log10(span.y[1])] : span.y;
    const margin = 0.05 * (high - low) || 0.5, range = [low - margin, high + margin];
    const bundles = () => groups.map(group => bundleShape(group, metric, colours[group.tone]));
    const means = () => groups.flatMap(group => meanTraces(group.mean, colours, group));
    const traces = single ? [span, ...(many ? [] : means())]
      : groups.flatMap(group => bandTraces(group.mean, colours[group.tone], group.dash, ends));
    for (const { t, y, tone, symbol } of published()) {
      traces.push({ x: t, y, type: "scatter", mode: "lines+markers", hoverinfo: "skip", line: { color: colours[tone], width: 1 },
        marker: { symbol: `${symbol}-open`, size: 7, color: colours[tone] } });
    }
    curveChart.canvas(single && many ? (pen, at) => strokeCurves(pen, groups, metric, colours, at) : null, () => ({ traces: means(), shapes: bundles() }));
    curveChart.draw(traces, {
      ...base, hovermode: single ? false : "x", hoverdistance: 40,
      shapes: single && !many ? bundles() : [],
      xaxis: { ...base.xaxis, title: { ...base.xaxis.title, text: "t  (0: first model, 1: second model)" }, range: [-0.015, 1.015] },
      yaxis: { ...base.yaxis, title: { ...base.yaxis.title, text: METRICS[metric].axis(split) }, nticks: 7, ...(log ? logAxis(...extent(traces)) : { type: "linear", dtick: null, tickformat: "" }),
        ...(single && drawn.length ? { range } : {}), exponentformat: "power" },
      uirevision: [metric, split, log].join(),
    });
    curveChart.describe(`Interpolation curves, ${METRICS[metric].axis(split)}: ` + groups.map(g => `${g.label}, ${g.curves.length} pairs`).join("; "));
    strip(); // in the next frame: the curves are on the screen before
  }

  function drawStrip() {
    const colours = palette(root), base = baseLayout(colours), metric = state.get("metric"), split = state.get("split");
    const unit = metric === "accuracy" ? "points" : "nats", name = metric === "accuracy" ? "Accuracy" : "Loss";
    const rows = groups.map((group, row) => {
      const values = group.curves.map(barrierOf), jitter = i => ((i * 0.618034) % 1 - 0.5) * 0.55;
      return { group, row, values, y: values.map((_, i) => groups.length - 1 - row + jitter(i)), ...meanAndStd(values) };
    });
    // hundreds of dots are drawn as one path of short strokes
    const dense = values => values.length > 400;
    const dots = rows.filter(row => !dense(row.values)).map(({ group, values, y }) => ({
      x: values, y, type: "scatter", mode: "markers", hoverinfo: "none", owner: group.curves,
      marker: { symbol: group.symbol, size: 8, color: faded(colours[group.tone], 0.75), line: { width: 1, color: colours.surface } } }));
    const strokes = rows.filter(row => dense(row.values)).map(({ group, values, y }) => ({
      type: "path", line: { width: 1, color: faded(colours[group.tone], 0.4) },
      path: values.map((v, i) => (Number.isFinite(v) ? `M${v.toPrecision(5)},${(y[i] - 0.06).toFixed(3)}L${v.toPrecision(5)},${(y[i] + 0.06).toFixed(3)}` : "")).join("") }));
    const texts = meansAndStds(rows), means = rows.map(({ mean, row }) => ({ x: [mean], y: [groups.length - 1 - row], type: "scatter", mode: "markers", hoverinfo: "skip",
      marker: { symbol: "line-ns", size: 26, line: { width: 2.5, color: colours.text } } }));
    stripChart.resize(Math.max(96, 62 + 34 * groups.length));
    const rightmost = Math.max(0, ...rows.flatMap(row => row.values).filter(Number.isFinite));
    stripChart.draw([...dots, ...means], {
      ...base, hovermode: "closest", hoverdistance: 16, margin: { l: 56, r: 132, t: 4, b: 44 }, shapes: strokes,
      xaxis: { ...base.xaxis, title: { ...base.xaxis.title, text: `${name} barrier (${split}, ${unit})` },
        range: [-0.02 * rightmost - 1e-9, 1.04 * rightmost + 1e-9], nticks: 7, zeroline: true, zerolinecolor: colours.line },
      yaxis: { ...base.yaxis, tickvals: rows.map(r => groups.length - 1 - r.row), ticktext: rows.map(r => escapeLabel(r.group.label)),
        range: [-0.6, groups.length - 0.4], ticks: "", gridcolor: "rgba(0,0,0,0)", fixedrange: true },
      annotations: rows.map((r, i) => ({ x: 1, xref: "paper", xanchor: "right", y: groups.length - 1 - r.row, showarrow: false, xshift: 122,
        text: texts[i], font: { size: 12, color: colours.text } })),
    });
    stripChart.describe(`${name} barriers in ${unit}: ` + rows.map(r => `${r.group.label}, mean ${number(r.mean)}, ${r.n} pairs`).join("; "));
  }

  function showWords() {
    const { pairs } = state.get("index"), shown = new Set(state.get("pairs"));
    const alignment = state.get("alignment"), kinds = alignment === "both" ? [true, false] : [alignment === "aligned"];
    const measured = pair => {
      const found = kinds.filter(aligned => curves.some(c => c.pair === pair && c.aligned === aligned));
      return found.length ? found : kinds;
    };
    chips.show(pairs.map(pair => ({
      name: pair, label: seriesStyle(pair, true).label, tone: seriesStyle(pair, true).tone, pressed: shown.has(pair),
      kinds: measured(pair).map(aligned => ({
        dash: seriesStyle(pair, aligned).dash, text: aligned ? (kinds.length > 1 ? "aligned" : "") : "raw",
        count: groups.find(g => g.pair === pair && g.aligned === aligned)?.curves.length ?? 0,
      })),
    })));
    const chosen = state.get("selection"), found = new Set(curves.filter(c => kinds.includes(c.aligned)).flatMap(c => [c.first, c.second]));
    const without = curves.length && !state.get("live") ? chosen.filter(name => !found.has(name)) : [];
    lacking.hidden = !without.length;
    lacking.textContent = `Not measured${alignment === "both" ? "" : alignment === "raw" ? " without alignment" : " with alignment"}, so not drawn: ${listed(without)}.`;
    const sorted = [...drawn].sort((a, b) => barrierOf(a) - barrierOf(b));
    stepper.max = Math.max(0, sorted.length - 1);
    stepper.disabled = !sorted.length;
    stepper.order = sorted;
    table.show(`Table of what is drawn (${drawn.length} pairs)`,
      ["first", "second", "pair", "aligned", "split", "loss barrier (nats)", "accuracy barrier (points)", "loss at t=0", "loss at t=1", "highest loss"],
      () => sorted.map(c => [c.first, c.second, c.pair, c.aligned ? "aligned" : "raw", c.split, lossBarrier(c), 100 * accuracyBarrier(c),
        c.loss[0], c.loss[c.loss.length - 1], largest(c.loss)]));
    compute.dataset.needed = String(state.get("live") && state.get("missing") > 0);
    compute.textContent = `Compute ${state.get("missing")} missing ${state.get("missing") === 1 ? "pair" : "pairs"}`;
    compute.hidden = compute.dataset.needed !== "true" || state.get("busy");
    light();
  }

  // one pair, lit in both charts and in words
  function light() {
    const curve = lit(), colours = palette(root), metric = state.get("metric");
    curveChart.above(at => curve
      ? [svg("path", { d: path(Array.from(heights(curve, metric), (y, i) => at(curve.t[i], y))), fill: "none", stroke: colours.surface, "stroke-width": 6 }),
         svg("path", { d: path(Array.from(heights(curve, metric), (y, i) => at(curve.t[i], y))), fill: "none", class: "ss-lit",
           stroke: colours[seriesStyle(curve.pair, curve.aligned).tone], "stroke-width": 3.5 })] : []);
    stripChart.above(at => {
      const row = curve ? groups.findIndex(g => g.pair === curve.pair && g.aligned === curve.aligned) : -1;
      if (row < 0) return [];
      const i = groups[row].curves.indexOf(curve), [cx, cy] = at(barrierOf(curve), groups.length - 1 - row + ((i * 0.618034) % 1 - 0.5) * 0.55);
      return [svg("circle", { cx, cy, r: 8, fill: "none", stroke: colours.text, "stroke-width": 2, class: "ss-lit" })];
    });
    const at = curve ? stepper.order.indexOf(curve) : -1;
    stepper.value = Math.max(0, at);
    const unit = metric === "accuracy" ? "points" : "nats";
    const words = curve ? `${nameOf(curve)}: barrier ${number(barrierOf(curve))} ${unit}` : "Step through the pairs";
    stepperText.textContent = words;
    stepper.setAttribute("aria-valuetext", words);
    clear.hidden = !state.get("clicked").first;
  }

  function click(curve, i) {
    const point = i === undefined ? {} : { t: curve.t[i], loss: curve.loss[i], accuracy: curve.accuracy[i] };
    const { first, second, pair, aligned, split } = curve;
    state.set({ clicked: { first, second, pair, aligned, split, ...point } });
  }
  function step() {
    const curve = stepper.order?.[Number(stepper.value)];
    hovered = null;
    if (curve) click(curve);
  }
  function hover(curve, event, rows) {
    if (hovered !== curve) { hovered = curve; light(); }
    tip.show(event, rows);
  }
  const leave = () => { hovered = null; tip.hide(); light(); };
  const about = curve => [[nameOf(curve), "", seriesStyle(curve.pair, curve.aligned).tone], [seriesStyle(curve.pair, curve.aligned).label, curve.split]];

  // the curve under the pointer, and the t on its grid
  function nearest(event) {
    const axes = curveChart.plot._fullLayout, area = curveChart.plot.getBoundingClientRect(), metric = state.get("metric");
    const x = event.clientX - area.left - axes.xaxis._offset, y = event.clientY - area.top - axes.yaxis._offset;
    if (x < -4 || y < 0 || x > axes.xaxis._length + 4 || y > axes.yaxis._length) return null;
    const t = Math.max(0, Math.min(1, axes.xaxis.p2d(x)));
    let best = null, distance = 24;
    for (const curve of drawn) {
      const away = Math.abs(axes.yaxis.d2p(readOff(curve.t, heights(curve, metric), t)) - y);
      if (away < distance) [best, distance] = [curve, away];
    }
    return best && { curve: best, i: best.t.reduce((near, value, i) => (Math.abs(value - t) < Math.abs(best.t[near] - t) ? i : near), 0) };
  }
  const single = () => state.get("view") === "curves" && drawn.length > 0;
  curveChart.box.addEventListener("pointermove", event => {
    if (!single() || event.buttons) return;
    const found = nearest(event);
    if (!found) return leave();
    const { curve, i } = found;
    hover(curve, event, [...about(curve), ["t", number(curve.t[i])], ["loss", number(curve.loss[i])], ["accuracy", `${number(100 * curve.accuracy[i])} %`]]);
  });
  curveChart.box.addEventListener("pointerleave", () => { if (single()) leave(); });
  curveChart.box.addEventListener("click", event => {
    const found = single() && nearest(event);
    if (found) click(found.curve, found.i);
  });
  curveChart.on("plotly_hover", ({ points, event }) => {
    const metric = state.get("metric"), t = points[0].x, stats = groups.map(group => meanAndStd(group.curves.map(c => readOff(c.t, heights(c, metric), t))));
    const texts = meansAndStds(stats);
    tip.show(event, [["t", number(t)], ...groups.map((group, i) => [`${group.label} (${stats[i].n})`, texts[i], group.tone])]);
  });
  stripChart.on("plotly_hover", ({ points, event }) => {
    const curve = points[0].data.owner[points[0].pointNumber];
    hover(curve, event, [...about(curve), ["loss barrier", number(lossBarrier(curve))], ["accuracy barrier", `${number(100 * accuracyBarrier(curve))} points`]]);
  });
  stripChart.on("plotly_click", ({ points }) => click(points[0].data.owner[points[0].pointNumber]));
  for (const each of [curveChart, stripChart]) each.on("plotly_unhover", leave);

  const redraw = oncePerFrame(draw);
  state.on(["curves", "values", "index"], () => { curves = readCurves(state); redraw(); });
  state.on(["selection", "metric", "split", "alignment", "view", "log", "pairs", "overlay", "missing", "busy"], redraw);
  state.on(["clicked"], light);
  const settings = Object.entries(state.get("published")).map(([id, { label, group }]) => [group, id, label]);
  const overlays = () => [["", "none"], ...[...new Set(settings.map(([group]) => group))].map(group =>
    [group, settings.filter(s => s[0] === group).map(([, id, label]) => [id, label])])];
  const logBox = checkbox(state, "log", "Log scale", "For the loss");
  const logUse = () => { logBox.querySelector("input").disabled = state.get("metric") !== "loss"; };
  state.on(["metric"], logUse);
  logUse();

  root.append(
    modelList(state, () => state.get("index").models),
    h("div", { className: "ss-main" },
      h("div", { className: "ss-controls" },
        segmented(state, "metric", "Metric", [["loss", "Loss"], ["accuracy", "Accuracy"], ["barrier", "Barrier", "Loss above the straight line between the two ends"]]),
        segmented(state, "split", "Data", state.get("index").splits.map(split => [split, split[0].toUpperCase() + split.slice(1)])),
        segmented(state, "alignment", "Weights", [["aligned", "Aligned", "The second model permuted to lie near the first"], ["raw", "Raw"], ["both", "Both"]]),
        segmented(state, "view", "Draw", [["mean", "Mean ± std"], ["curves", "Each pair"]]),
        logBox),
      h("div", { className: "ss-legend" }, chips.element, ...(settings.length ? [dropdown(state, "overlay", "Published", overlays)] : [])),
      lacking, empty.element, curveChart.box, stripChart.box,
      stepping,
      table.element, statusLine(state, compute)));
  draw();
  return { state, redraw };
}
