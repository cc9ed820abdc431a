// A plane through three models: heatmap, contours or surface, a point to read off, a line to follow.

const VIRIDIS = [[68, 1, 84], [72, 40, 120], [62, 74, 137], [49, 104, 142], [38, 130, 142], [31, 158, 137], [53, 183, 121], [109, 205, 89], [180, 222, 44], [253, 231, 37]];

function viridis(share) {
  const at = Math.max(0, Math.min(1, share)) * (VIRIDIS.length - 1), i = Math.min(VIRIDIS.length - 2, Math.floor(at));
  return VIRIDIS[i].map((low, k) => low + (at - i) * (VIRIDIS[i + 1][k] - low));
}

// The grid of one split and metric: z[row][column], rows along y.
function readGrid(state) {
  const { xs, ys, splits } = state.get("plane"), values = bytesAs(Float32Array, state.get("grid"));
  const split = Math.max(0, splits.indexOf(state.get("split"))), metric = state.get("metric") === "loss" ? 0 : 1;
  const size = xs.length * ys.length, start = (2 * split + metric) * size, scale = metric ? 100 : 1;
  return ys.map((_, row) => Float32Array.from(values.subarray(start + row * xs.length, start + (row + 1) * xs.length), v => scale * v));
}

// Bilinear between the four grid points around (x, y); NaN outside.
function sampleGrid(xs, ys, z, x, y) {
  const place = (grid, v) => {
    const share = (v - grid[0]) / (grid[grid.length - 1] - grid[0]) * (grid.length - 1);
    return share >= -1e-6 && share <= grid.length - 1 + 1e-6 ? Math.max(0, Math.min(grid.length - 1, share)) : NaN;
  };
  const u = place(xs, x), v = place(ys, y);
  if (Number.isNaN(u + v)) return NaN;
  const i = Math.min(xs.length - 2, Math.floor(u)), j = Math.min(ys.length - 2, Math.floor(v)), a = u - i, b = v - j;
  return (1 - b) * ((1 - a) * z[j][i] + a * z[j][i + 1]) + b * ((1 - a) * z[j + 1][i] + a * z[j + 1][i + 1]);
}

// The weights of the three models at (x, y); they add up to one.
function barycentric(corners, x, y) {
  const [[ax, ay], [bx, by], [cx, cy]] = corners, area = (by - cy) * (ax - cx) + (cx - bx) * (ay - cy);
  const first = ((by - cy) * (x - cx) + (cx - bx) * (y - cy)) / area, second = ((cy - ay) * (x - cx) + (ax - cx) * (y - cy)) / area;
  return [first, second, 1 - first - second];
}

const SYMBOLS = { star: "star", source: "circle", heldout: "diamond", other: "square" };

// Colour limits and tick labels; on a logarithmic scale z is log10, with the labels of the values.
function colourScale(z, log) {
  let low = Infinity, high = -Infinity;
  for (const row of z) for (const value of row) if (Number.isFinite(value)) { low = Math.min(low, value); high = Math.max(high, value); }
  if (!(low <= high)) return { low: 0, high: 1, map: v => v, ticks: {} };
  if (!log) return { low, high: high > low ? high : low + 1e-9, map: v => v, ticks: {} };
  const floor = Math.max(low, high * 1e-6, 1e-12), from = Math.log10(floor), to = Math.max(Math.log10(high), from + 1e-9), values = [];
  for (let k = Math.floor(from); k <= Math.ceil(to); k++) {
    for (const m of to - from > 3.2 ? [1] : to - from > 1.6 ? [1, 3] : [1, 2, 5]) {
      const at = k + Math.log10(m);
      if (at >= from && at <= to) values.push(at);
    }
  }
  return { low: from, high: to, map: v => Math.log10(Math.max(v, floor)), ticks: { tickvals: values, ticktext: values.map(v => number(10 ** v)) } };
}

// A surface drawn back to front on a canvas: it needs no WebGL, turns with the pointer and prints as it looks.
function surfaceView(state) {
  const canvas = h("canvas", { className: "ss-surface-canvas", role: "img", "aria-label": "Surface" });
  const settle = () => state.set({ turn: Number(turn.value), tilt: Number(tilt.value) });
  const slider = (min, max) => h("input", { type: "range", min, max, oninput: () => draw(), onchange: () => settle() });
  const turn = slider(-180, 180), tilt = slider(10, 85);
  const box = h("div", { className: "ss-surface", hidden: true }, canvas, h("div", { className: "ss-controls" },
    h("label", { className: "ss-range" }, h("span", {}, "Turn"), turn), h("label", { className: "ss-range" }, h("span", {}, "Tilt"), tilt)));
  let scene = null, grip = null;
  canvas.addEventListener("pointerdown", event => { grip = [event.clientX, event.clientY, +turn.value, +tilt.value]; canvas.setPointerCapture(event.pointerId); });
  canvas.addEventListener("pointermove", event => {
    if (!grip) return;
    turn.value = ((grip[2] + (event.clientX - grip[0]) * 0.5 + 540) % 360) - 180;
    tilt.value = grip[3] + (event.clientY - grip[1]) * 0.35;
    draw();
  });
  for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => { if (grip) settle(); grip = null; });
  const draw = oncePerFrame(paint);
  const follow = () => {
    turn.value = state.get("turn") ?? -35;
    tilt.value = state.get("tilt") ?? 32;
    draw();
  };
  state.on(["turn", "tilt"], follow);

  function paint() {
    if (!scene || box.hidden || !canvas.clientWidth) return;
    const { z, points, scale, colours } = scene, width = canvas.clientWidth, height = canvas.clientHeight, dense = devicePixelRatio || 1;
    canvas.width = width * dense;
    canvas.height = height * dense;
    const pen = canvas.getContext("2d");
    pen.scale(dense, dense);
    const a = turn.value * Math.PI / 180, b = tilt.value * Math.PI / 180, size = Math.min(width * 0.52, height * 0.66);
    const project = (u, v, w) => { // u, v in [-1/2, 1/2] over the plane, w in [0, 1] upwards
      const x = u * Math.cos(a) - v * Math.sin(a), y = u * Math.sin(a) + v * Math.cos(a);
      return [width / 2 - 24 + size * x, height * 0.56 + size * (y * Math.sin(b) - (w - 0.5) * 0.62 * Math.cos(b)), y];
    };
    const rows = z.length, columns = z[0].length, up = v => Math.max(0, Math.min(1, (scale.map(v) - scale.low) / (scale.high - scale.low)));
    const heights = z.map(row => Float32Array.from(row, up));
    const corner = (i, j) => project(i / (columns - 1) - 0.5, 0.5 - j / (rows - 1), heights[j][i]);
    const floor = [[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]].map(([u, v]) => project(u, v, 0));
    pen.strokeStyle = colours.line;
    pen.beginPath();
    floor.forEach(([x, y], k) => (k ? pen.lineTo(x, y) : pen.moveTo(x, y)));
    pen.closePath();
    pen.stroke();
    const grid = heights.map((_, j) => Array.from({ length: columns }, (_, i) => corner(i, j)));
    const faces = [];
    for (let j = 0; j + 1 < rows; j++) {
      for (let i = 0; i + 1 < columns; i++) {
        const four = [grid[j][i], grid[j][i + 1], grid[j + 1][i + 1], grid[j + 1][i]];
        const level = (heights[j][i] + heights[j][i + 1] + heights[j + 1][i + 1] + heights[j + 1][i]) / 4;
        if (Number.isNaN(level)) continue;
        const slope = (heights[j][i + 1] - heights[j][i]) * (columns - 1) * 0.09 + (heights[j + 1][i] - heights[j][i]) * (rows - 1) * 0.06;
        const shade = Math.max(0.72, Math.min(1.15, 1 - slope * 0.25));
        faces.push([four[0][2] + four[2][2], four, `rgb(${viridis(level).map(c => Math.min(255, c * shade)).join()})`]);
      }
    }
    faces.sort((p, q) => p[0] - q[0]);
    pen.lineWidth = 0.6;
    for (const [, four, fill] of faces) {
      pen.fillStyle = pen.strokeStyle = fill;
      pen.beginPath();
      four.forEach(([x, y], k) => (k ? pen.lineTo(x, y) : pen.moveTo(x, y)));
      pen.closePath();
      pen.fill();
      pen.stroke();
    }
    const onSurface = at => {
      const [u, v, value] = scene.place(at);
      return project(u, -v, up(value));
    };
    for (const line of scene.lines) {
      for (const [stroke, wide] of [["#14171a", 4.5], ["#ffffff", 2.2]]) {
        [pen.strokeStyle, pen.lineWidth] = [stroke, wide];
        pen.beginPath();
        line.map(onSurface).forEach(([x, y]) => pen.lineTo(x, y));
        pen.stroke();
      }
    }
    if (scene.clicked) {
      const [x, y] = onSurface(scene.clicked);
      for (const [stroke, wide] of [["#14171a", 4], ["#ffffff", 1.8]]) {
        [pen.strokeStyle, pen.lineWidth] = [stroke, wide];
        pen.beginPath();
        pen.arc(x, y, 7, 0, 7);
        pen.stroke();
      }
    }
    pen.font = "12px system-ui, sans-serif";
    drawScale(pen, width, height);
    for (const point of points) {
      const [x, y] = project(point.u, -point.v, up(point.value)), text = readable(point.name, 28);
      pen.fillStyle = pen.strokeStyle = colours.text;
      pen.lineWidth = 1.5;
      pen.beginPath();
      pen.moveTo(x, y);
      pen.lineTo(x, y - 26);
      pen.stroke();
      pen.beginPath();
      pen.arc(x, y, 4, 0, 7);
      pen.fill();
      const wide = pen.measureText(text).width;
      pen.fillStyle = colours.surface;
      pen.globalAlpha = 0.85;
      pen.fillRect(x - wide / 2 - 4, y - 44, wide + 8, 18);
      pen.globalAlpha = 1;
      pen.fillStyle = colours.text;
      pen.fillText(text, x - wide / 2, y - 31);
    }
  }
  // what the colours and heights mean, as beside the heatmap
  function drawScale(pen, width, height) {
    const { scale, colours, title } = scene, left = width - 74, top = 34, tall = height - 90;
    for (let i = 0; i < tall; i++) {
      pen.fillStyle = `rgb(${viridis(1 - i / tall).join()})`;
      pen.fillRect(left, top + i, 14, 1.5);
    }
    const even = [0, 0.25, 0.5, 0.75, 1].map(share => scale.low + share * (scale.high - scale.low));
    const values = scale.ticks.tickvals ?? even, texts = scale.ticks.ticktext ?? even.map(v => number(v, 2));
    pen.fillStyle = colours.text;
    values.forEach((value, i) => pen.fillText(texts[i], left + 20, top + tall * (1 - (value - scale.low) / (scale.high - scale.low)) + 4));
    pen.fillText(title, width - pen.measureText(title).width - 6, 18);
  }
  const resize = new ResizeObserver(() => draw());
  resize.observe(canvas);
  state.onEnd(() => resize.disconnect());
  follow();
  return { box, show: next => { scene = next; canvas.setAttribute("aria-label", next.label); draw(); } };
}

function renderPlane(model, root, plotly) {
  const state = bind(model), tip = tooltip(root);
  const map = chart(plotly, state, "Loss plane", 500), profile = chart(plotly, state, "Along the line", 210), surface = surfaceView(state);
  const table = tableView("starscape-plane.csv", viewTools(state, model, root, () => `LossPlaneExplorer(zoo, ${python(state.get("selection"))}`, ["metric", "split", "alignment", "view", "log", "line", "turn", "tilt", "resolution"]));
  const lacking = h("p", { className: "ss-lacking" });
  const reading = h("div", { className: "ss-reading", "aria-live": "polite" });
  const refine = h("button", { type: "button", onclick: () => state.send({ type: "refine" }) }, "Refine");
  const compute = h("button", { type: "button", className: "ss-primary", onclick: () => state.send({ type: "compute" }) }, "Compute this plane"), empty = emptyState(compute);
  const slide = axis => h("input", { type: "range", min: 0, max: 1000, "aria-label": `Point, ${axis}`, oninput: () => {
    const { xs, ys } = state.get("plane"), of = (grid, input) => grid[0] + input.value / 1000 * (grid[grid.length - 1] - grid[0]);
    point(of(xs, slideX), of(ys, slideY));
  } });
  const slideX = slide("x"), slideY = slide("y");
  let z = [], corners = [], dragged = null;

  const places = () => state.get("plane").points.filter((p, i, all) => all.findIndex(q => q.name === p.name) === i);
  const valueOf = p => (state.get("metric") === "loss" ? p.values[state.get("split")]?.loss : 100 * (p.values[state.get("split")]?.accuracy ?? NaN));
  const unit = () => (state.get("metric") === "loss" ? "nats" : "%");
  const noun = () => (state.get("metric") === "loss" ? "loss" : "accuracy");
  const axisTitle = () => (state.get("metric") === "loss" ? `Loss (${state.get("split")}, nats)` : `Accuracy (${state.get("split")}, %)`);
  const ready = () => state.get("plane").xs?.length > 1;
  const weights = (x, y) => (corners.length === 3 ? barycentric(corners, x, y) : []);

  function draw() {
    const there = ready();
    lacking.textContent = state.get("lacking") ?? "";
    lacking.hidden = !lacking.textContent;
    empty.element.nextSibling.hidden = table.element.hidden = !there;
    empty.show(there ? "" : state.get("busy") ? "The first picture is on its way." : "This plane has not been computed yet.");
    compute.dataset.needed = String(state.get("live") && state.get("missing") > 0);
    compute.hidden = compute.dataset.needed !== "true" || state.get("busy");
    refine.hidden = !state.get("live") || !there;
    refine.disabled = state.get("busy");
    const isSurface = state.get("view") === "surface";
    map.box.hidden = !there || isSurface;
    surface.box.hidden = !there || !isSurface;
    if (!there) return;
    const { xs, ys } = state.get("plane"), colours = palette(root), log = state.get("log") && state.get("metric") === "loss";
    z = readGrid(state);
    const spanning = places().slice(0, state.get("selection").length);
    corners = spanning.map(p => [p.x, p.y]);
    const scale = colourScale(z, log), label = `${axisTitle()} over the plane ${corners.length === 3 ? "through" : "around"} ${spanning.map(p => readable(p.name, 40)).join(", ")}`;
    if (isSurface) {
      const share = (grid, v) => (v - grid[0]) / (grid[grid.length - 1] - grid[0]) - 0.5;
      surface.show({ z, scale, colours, label, title: axisTitle(), points: places().map(p => ({ name: p.name, u: share(xs, p.x), v: share(ys, p.y), value: valueOf(p) })),
        lines: [state.get("line")].filter(line => line?.length === 4).map(([x0, y0, x1, y1]) => Array.from({ length: 65 }, (_, i) => [x0 + i / 64 * (x1 - x0), y0 + i / 64 * (y1 - y0)])),
        place: ([x, y]) => [share(xs, x), share(ys, y), sampleGrid(xs, ys, z, x, y)], clicked: Number.isFinite(state.get("clicked").x) ? [state.get("clicked").x, state.get("clicked").y] : null });
    } else drawMap(xs, ys, colours, scale, label);
    drawProfile(colours);
    refine.textContent = `Refine to ${2 * xs.length - 1} × ${2 * ys.length - 1}`;
    table.show(`Table of what is drawn (${xs.length} × ${ys.length} points)`, ["x", "y", "split", `${noun()} (${unit()})`],
      () => ys.flatMap((y, j) => xs.map((x, i) => [x, y, state.get("split"), z[j][i]])));
    read();
  }

  // as large as the width allows, with equal units along x and y, and the colours right beside
  function frame(xs, ys, width) {
    const across = xs[xs.length - 1] - xs[0], up = ys[ys.length - 1] - ys[0], unit = Math.min((width - 64 - 104) / across, 480 / up);
    return { height: Math.round(unit * up) + 60, margin: { l: 64, r: width - 64 - unit * across, t: 14, b: 46 } };
  }

  function drawMap(xs, ys, colours, scale, label) {
    const base = baseLayout(colours), contours = state.get("view") === "contours";
    const shown = scale.ticks.tickvals ? z.map(row => row.map(scale.map)) : z;
    const colorbar = { title: { text: axisTitle(), side: "right", font: { size: 12 } }, thickness: 14, outlinewidth: 0, ticks: "outside", ticklen: 4, len: 1, ypad: 0, xpad: 8, x: 1, ...scale.ticks };
    const common = { x: xs, y: ys, z: shown, colorscale: "Viridis", zmin: scale.low, zmax: scale.high, hoverinfo: "skip", colorbar };
    // the colours as a picture that the browser stretches; plotly alone would colour each pixel of the contours
    const fields = [{ ...common, type: "heatmap", zsmooth: "fast" }];
    if (contours) fields.unshift({ ...common, type: "contour", showscale: false, autocontour: false, line: { width: 1, color: "#ffffffb0", smoothing: xs.length > 40 ? 0 : 1 },
      colorscale: [[0, "#ffffffb0"], [1, "#ffffffb0"]], contours: { coloring: "lines", start: scale.low, end: scale.high, size: (scale.high - scale.low) / 12 } });
    const marks = places(), triangle = [...corners, corners[0]];
    const dot = { x: marks.map(p => p.x), y: marks.map(p => p.y), type: "scatter", mode: "markers", hoverinfo: "skip",
      marker: { symbol: marks.map(p => SYMBOLS[p.role] ?? "square"), size: marks.map(p => (p.role === "star" ? 17 : 12)), color: "#ffffff", line: { width: 2, color: "#14171a" } } };
    map.draw([...fields, { x: triangle.map(p => p[0]), y: triangle.map(p => p[1]), type: "scatter", mode: "lines", hoverinfo: "skip", line: { color: "#ffffffc0", width: 1.5, dash: "dot" } }, dot], width => ({
      ...base, dragmode: false, ...frame(xs, ys, width),
      xaxis: { ...base.xaxis, title: { ...base.xaxis.title, text: `x (${corners.length === 3 ? "distance in weight space" : "multiples of the first direction"})` }, range: [xs[0], xs[xs.length - 1]], fixedrange: true, nticks: 7, showgrid: false, constrain: "domain" },
      yaxis: { ...base.yaxis, title: { ...base.yaxis.title, text: `y (${corners.length === 3 ? "distance in weight space" : "multiples of the second direction"})` }, range: [ys[0], ys[ys.length - 1]], fixedrange: true, nticks: 7, showgrid: false,
        automargin: false, scaleanchor: "x", constrain: "domain" },
      annotations: marks.map(p => ({ x: p.x, y: p.y, text: escapeLabel(readable(p.name, 28)), showarrow: false, yshift: 20, font: { size: 12, color: "#14171a" }, bgcolor: "#ffffffd8", borderpad: 2 })),
    }));
    map.describe(label);
  }

  function drawProfile(colours) {
    const line = dragged ?? state.get("line"), there = line?.length === 4;
    profile.box.hidden = !there;
    if (!there) return;
    const { xs, ys } = state.get("plane"), base = baseLayout(colours), [x0, y0, x1, y1] = line, t = Array.from({ length: 101 }, (_, i) => i / 100);
    const y = t.map(s => sampleGrid(xs, ys, z, x0 + s * (x1 - x0), y0 + s * (y1 - y0)));
    profile.draw([{ x: t, y, type: "scatter", mode: "lines", line: { color: colours.a, width: 2.5 }, hoverinfo: "x+y" }], {
      ...base, hovermode: "x", margin: { ...base.margin, t: 8 },
      xaxis: { ...base.xaxis, title: { ...base.xaxis.title, text: "Along the line (0: start, 1: end)" }, range: [-0.015, 1.015] },
      yaxis: { ...base.yaxis, title: { ...base.yaxis.title, text: axisTitle() }, nticks: 5,
        ...(state.get("log") && state.get("metric") === "loss" ? logAxis(...extent([{ y }])) : { type: "linear", dtick: null, tickformat: "" }) },
    });
  }

  function point(x, y) {
    const loss = state.get("metric") === "loss", at = sampleGrid(state.get("plane").xs, state.get("plane").ys, z, x, y);
    state.set({ clicked: { x, y, split: state.get("split"), weights: weights(x, y), [loss ? "loss" : "accuracy"]: loss ? at : at / 100, exact: false } });
    if (state.get("live")) state.send({ type: "point", x, y });
  }
  function words({ x, y, exact: measured, split, loss, accuracy }) {
    const exact = measured && split === state.get("split"), interpolated = sampleGrid(state.get("plane").xs, state.get("plane").ys, z, x, y);
    const value = !exact ? interpolated : state.get("metric") === "loss" ? loss : 100 * accuracy;
    const names = places().slice(0, 3);
    return [[`${noun()}${exact ? "" : ", between grid points"}`, `${number(value)} ${unit()}`],
      ...weights(x, y).map((w, i) => [`weight of ${readable(names[i].name, 40)}`, number(Math.round(w * 1000) / 1000)])];
  }
  function read() {
    const clicked = state.get("clicked"), chosen = Number.isFinite(clicked.x) && ready();
    reading.replaceChildren(...(chosen ? words(clicked).map(([name, value]) => h("div", {}, h("bdi", {}, name), h("b", {}, value)))
      : ["Click a point to read it, or drag a line to see the path along it."]));
    if (chosen) {
      const { xs, ys } = state.get("plane");
      slideX.value = 1000 * (clicked.x - xs[0]) / (xs[xs.length - 1] - xs[0]);
      slideY.value = 1000 * (clicked.y - ys[0]) / (ys[ys.length - 1] - ys[0]);
    }
    map.light();
  }
  map.above(at => {
    const marks = [], clicked = state.get("clicked"), line = dragged ?? state.get("line");
    if (line?.length === 4) {
      const [x1, y1] = at(line[0], line[1]), [x2, y2] = at(line[2], line[3]);
      for (const [stroke, width] of [["#14171a", 5], ["#ffffff", 2.5]]) marks.push(svg("line", { x1, y1, x2, y2, stroke, "stroke-width": width, "stroke-linecap": "round", class: "ss-line" }));
      marks.push(svg("circle", { cx: x1, cy: y1, r: 4.5, fill: "#ffffff", stroke: "#14171a", "stroke-width": 1.5 }));
    }
    if (Number.isFinite(clicked.x)) {
      const [cx, cy] = at(clicked.x, clicked.y);
      for (const [stroke, width] of [["#14171a", 4], ["#ffffff", 1.8]]) marks.push(svg("circle", { cx, cy, r: 8, fill: "none", stroke, "stroke-width": width, class: "ss-lit" }));
    }
    return marks;
  });

  // pointer: a press without a move is a point, with a move a line
  const toData = event => {
    const axes = map.plot._fullLayout, area = map.plot.getBoundingClientRect();
    const x = axes.xaxis.p2d(event.clientX - area.left - axes.xaxis._offset), y = axes.yaxis.p2d(event.clientY - area.top - axes.yaxis._offset);
    const { xs, ys } = state.get("plane"), inside = x >= xs[0] && x <= xs[xs.length - 1] && y >= ys[0] && y <= ys[ys.length - 1];
    return { x, y, inside };
  };
  let pressed = null;
  map.box.addEventListener("pointerdown", event => {
    const at = ready() && event.button === 0 && toData(event);
    if (!at?.inside || event.target.closest(".modebar")) return;
    pressed = { ...at, clientX: event.clientX, clientY: event.clientY };
    map.box.setPointerCapture(event.pointerId);
  });
  const follow = oncePerFrame(() => { map.light(); drawProfile(palette(root)); });
  map.box.addEventListener("pointermove", event => {
    if (!ready() || !map.plot._fullLayout?.xaxis) return;
    const at = toData(event);
    if (pressed && Math.hypot(event.clientX - pressed.clientX, event.clientY - pressed.clientY) > 4) {
      const { xs, ys } = state.get("plane"), inside = (grid, v) => Math.max(grid[0], Math.min(grid[grid.length - 1], v));
      dragged = [pressed.x, pressed.y, inside(xs, at.x), inside(ys, at.y)];
      follow();
    }
    if (at.inside && !dragged) tip.show(event, words(at)); else tip.hide();
  });
  map.box.addEventListener("pointerup", () => {
    if (dragged) state.set({ line: dragged });
    else if (pressed) point(pressed.x, pressed.y);
    pressed = dragged = null;
  });
  map.box.addEventListener("pointercancel", () => { pressed = dragged = null; map.light(); });
  map.box.addEventListener("pointerleave", () => tip.hide());

  // the same line from the keyboard: from one model, or the point, to another
  const ends = { from: "", to: "" };
  const spots = () => [["", "–"], ...places().map((p, i) => [String(i), readable(p.name, 40)]), ["point", "the point"]];
  const endPicker = (key, label) => {
    const select = h("select", { onchange: () => {
      ends[key] = select.value;
      const spot = value => (value === "point" ? state.get("clicked") : places()[Number(value)]);
      const [a, b] = [ends.from, ends.to].map(value => (value === "" ? undefined : spot(value)));
      if (Number.isFinite(a?.x) && Number.isFinite(b?.x)) state.set({ line: [a.x, a.y, b.x, b.y] });
    } });
    const fill = () => { select.replaceChildren(...(ready() ? spots() : [["", "–"]]).map(([value, text]) => h("option", { value }, text))); select.value = ends[key]; };
    state.on(["plane"], fill);
    fill();
    return h("label", { className: "ss-dropdown" }, h("span", {}, label), select);
  };
  const clear = h("button", { type: "button", className: "ss-quiet", onclick: () => { ends.from = ends.to = ""; state.set({ line: [], clicked: {} }); redraw(); } }, "Clear");

  const redraw = oncePerFrame(draw);
  state.on(["plane", "grid", "metric", "split", "log", "view", "busy", "missing", "lacking"], redraw);
  const marked = oncePerFrame(() => { if (state.get("view") === "surface") draw(); });
  state.on(["line"], () => { drawProfile(palette(root)); map.light(); marked(); });
  state.on(["clicked"], () => { read(); marked(); });
  const logBox = checkbox(state, "log", "Log colour", "For the loss");
  const logUse = () => { logBox.querySelector("input").disabled = state.get("metric") !== "loss"; };
  state.on(["metric"], logUse);
  logUse();
  const three = (state.get("selection").length === 3 ? ["First model", "Second model", "Third model"] : ["Model in the middle"]).map((label, i) => {
    const select = h("select", { onchange: () => state.set({ selection: state.get("selection").map((name, k) => (k === i ? select.value : name)) }) });
    const show = () => {
      const groups = Object.entries(ROLES).map(([role, title]) => [title, state.get("models").filter(m => m.role === role)]);
      select.replaceChildren(...groups.filter(([, members]) => members.length).map(([title, members]) => h("optgroup", { label: title },
        ...members.map(m => h("option", { value: m.name, disabled: m.name !== state.get("selection")[i] && state.get("selection").includes(m.name) }, readable(m.name))))));
      select.value = state.get("selection")[i];
      select.disabled = !state.get("live");
    };
    state.on(["selection", "models"], show);
    show();
    return h("label", { className: "ss-dropdown" }, h("span", {}, label), select);
  });

  root.append(h("div", { className: "ss-main" },
    h("div", { className: "ss-controls" }, ...three,
      segmented(state, "metric", "Metric", [["loss", "Loss"], ["accuracy", "Accuracy"]]),
      segmented(state, "split", "Data", [["train", "Train"], ["test", "Test"]]),
      ...(state.get("live") ? [segmented(state, "alignment", "Weights", [["aligned", "Aligned", "The second and third model permuted to lie near the first"], ["raw", "Raw"]])] : []),
      segmented(state, "view", "Draw", [["heatmap", "Heatmap"], ["contours", "Contours"], ["surface", "Surface"]]), logBox),
    lacking, empty.element,
    h("div", { className: "ss-plane" }, h("div", {}, map.box, surface.box),
      h("div", { className: "ss-beside" }, reading,
        h("div", { className: "ss-controls" },
          h("label", { className: "ss-range" }, h("span", {}, "Point x"), slideX), h("label", { className: "ss-range" }, h("span", {}, "Point y"), slideY)),
        h("div", { className: "ss-controls" }, endPicker("from", "Line from"), endPicker("to", "to"), clear, refine),
        profile.box)),
    table.element, statusLine(state, compute)));
  draw();
  return { state, redraw };
}
