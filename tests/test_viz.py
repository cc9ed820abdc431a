"The panels as people meet them: the exported file in a browser that is offline, by mouse and by keyboard alone."

import csv
import itertools
import json
import re
from pathlib import Path
from types import SimpleNamespace

import axe_playwright_python
import numpy as np
import pandas as pd
import pytest
import torch

from starscape.barriers import barriers, sweep
from starscape.data import SettingsError, Task, UnknownName, load_task
from starscape.networks import Network
from starscape.planes import directions_plane, loss_plane
from starscape.star_training import train_star
from starscape.training import Recipe, train_population
from starscape.viz import SCORES, BarrierExplorer, LossPlaneExplorer, StarDashboard, UncertaintyExplorer, cached_sweeps, panel_source, task_of, write_report
from starscape.zoo import Zoo

AXE = Path(axe_playwright_python.__file__).with_name("axe.min.js")
HIGH = {"star-source": 0.03, "star-heldout": 0.05, "regular-regular": 0.15}
DATA = "el => el.data.map(trace => ({mode: trace.mode, y: Array.from(trace.y ?? []), x: Array.from(trace.x ?? [])}))"
CURVES = "el => el.layout.shapes.map(shape => shape.path.split('M').slice(1).map(path => path.split('L').map(point => Number(point.split(',')[1]))))"


def sweep_frame(sources=6, heldouts=3, points=21, rename=lambda name: name):
    "A sweep whose barriers are known: a parabola on the straight line between its ends."
    t, rows = np.linspace(0, 1, points), []
    names = {role: [rename(f"{role}-{i:03}") for i in range(n)] for role, n in (("source", sources), ("heldout", heldouts))}
    pairs = [(rename("star"), name, f"star-{role}") for role in names for name in names[role]]
    pairs += [(a, b, "regular-regular") for a in names["source"] for b in names["heldout"]]
    for i, (first, second, pair) in enumerate(pairs):
        for aligned in (True, False):
            high = HIGH[pair] * (1 if aligned else 10) * (1 + 0.01 * i)
            for split, own in (("train", 0.01), ("test", 0.09)):
                loss = own * (1 + t) + high * 4 * t * (1 - t)
                more = dict(first=first, second=second, pair=pair, aligned=aligned, split=split)
                rows.append(pd.DataFrame(dict(t=t, loss=loss, accuracy=np.exp(-loss))).assign(**more))
    return pd.concat(rows, ignore_index=True)


def plane(resolution=25, rename=lambda name: name):
    "A paraboloid with its lowest point at the star."
    x, y = np.meshgrid(np.linspace(-2, 10, resolution), np.linspace(-2, 8, resolution))
    at, frames, points = {"star": (4, 3), "source": (0, 0), "heldout": (8, 1)}, [], []
    for split, own in (("train", 0.01), ("test", 0.09)):
        loss = own + 0.02 * ((x - 4) ** 2 + (y - 3) ** 2)
        frames.append(pd.DataFrame(dict(x=x.ravel(), y=y.ravel(), loss=loss.ravel())).assign(split=split))
        points += [dict(name=rename(n), role=n, x=u, y=v, split=split, loss=own + 0.02 * ((u - 4) ** 2 + (v - 3) ** 2)) for n, (u, v) in at.items()]
    frame, points = (f.assign(accuracy=np.exp(-f.loss)) for f in (pd.concat(frames, ignore_index=True), pd.DataFrame(points)))
    return SimpleNamespace(frame=lambda: frame, points=points)


def uncertainty(n=120, classes=10, rename=lambda name: name):
    "Scores on straight lines, and predictions of two posteriors."
    rng, rows, predictions = np.random.default_rng(0), [], {}
    labels = rng.integers(classes, size=n)
    for posterior, skill in (("star", 3.0), ("ensemble", 2.0)):
        logits = rng.normal(size=(n, classes)) + skill * np.eye(classes)[labels]
        predictions[rename(posterior)] = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        rows += [dict(posterior=rename(posterior), n_samples=s, repeat=r, **dict.fromkeys(SCORES, 0.5 + 0.01 * s + 0.001 * r)) for s in range(2, 20) for r in range(3)]
    task = SimpleNamespace(test_y=torch.tensor(labels), test_x=torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(0)))
    return UncertaintyExplorer(pd.DataFrame(rows), task, predictions)


@pytest.fixture
def open_panel(page, tmp_path):
    "Writes a panel to a file and opens it with the network off; returns the page once the panel can be used."

    def opened(panel, width=1280, scheme="light", **options):
        path = panel if isinstance(panel, Path) else panel.to_html(tmp_path / "panel.html", **options)
        page.set_viewport_size(dict(width=width, height=900))
        page.emulate_media(color_scheme=scheme)
        page.context.set_offline(True)
        page.goto(f"file://{path}")
        page.wait_for_selector("html[data-ready=true]", timeout=60_000)
        page.set_default_timeout(30_000)
        settle(page)
        return page

    return opened


def settle(page):
    "Let two frames pass: what a control changed is on the screen then."
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done))))")


def drawn(page, figure):
    "The traces of a chart: mode, x and y of each."
    return page.locator(f'[role=figure][aria-label^="{figure}"] .js-plotly-plot').evaluate(DATA)


def lines(page, figure="Interpolation curves"):
    return [trace for trace in drawn(page, figure) if trace["mode"] == "lines" and len(trace["y"]) == 21]


def single(page):
    "Each pair's curve: for each series, the heights of each curve."
    return page.locator('[role=figure][aria-label^="Interpolation curves"] .js-plotly-plot').evaluate(CURVES)


def press(page, locator, *keys):
    "Reach a control and use it with keys alone."
    locator.focus()
    for key in keys:
        page.keyboard.press(key)
    settle(page)


def test_curves_follow_the_mouse(open_panel):
    page = open_panel(BarrierExplorer(sweep_frame()))
    t, mean = np.linspace(0, 1, 21), [HIGH["star-heldout"] * (1 + 0.01 * i) for i in (6, 7, 8)]
    rise = np.mean(mean) * 4 * t * (1 - t)
    assert lines(page)[0]["y"] == pytest.approx(0.01 * (1 + t) + rise, rel=1e-4)

    page.get_by_text("Test", exact=True).click()
    settle(page)
    assert lines(page)[0]["y"] == pytest.approx(0.09 * (1 + t) + rise, rel=1e-4)
    page.get_by_text("Accuracy", exact=True).click()
    settle(page)
    assert lines(page)[0]["y"] == pytest.approx(100 * np.exp(-0.09 * (1 + t) - rise), rel=1e-4)
    page.get_by_text("Barrier", exact=True).click()
    settle(page)
    assert max(lines(page)[0]["y"]) == pytest.approx(np.mean(mean), rel=1e-4)
    page.get_by_text("Raw", exact=True).click()
    settle(page)
    assert max(lines(page)[0]["y"]) == pytest.approx(10 * np.mean(mean), rel=1e-4)
    page.get_by_text("Both", exact=True).click()
    settle(page)
    assert len(lines(page)) == 6
    assert page.locator(".ss-chip").all_inner_texts() == [f"{name}\naligned\n{n}\nraw\n{n}" for name, n in (("star – held-out", 3), ("star – source", 6), ("regular – regular", 18))]
    assert len(set(page.locator(".ss-chip").first.locator("line").evaluate_all("all => all.map(line => line.getAttribute('stroke-dasharray'))"))) == 2
    page.get_by_text("Each pair", exact=True).click()
    settle(page)
    assert [len(series) for series in single(page)] == [3, 3, 6, 6, 18, 18]
    assert single(page)[0][2] == pytest.approx(mean[2] * 4 * t * (1 - t), rel=1e-3, abs=1e-9)

    page.get_by_role("button", name="regular – regular").click()
    settle(page)
    assert len(single(page)) == 4
    page.get_by_label("source-002").click()
    settle(page)
    assert [len(series) for series in single(page)] == [3, 3, 5, 5]
    assert page.get_by_text("9 of 10 chosen").is_visible()


def test_every_control_from_the_keyboard(open_panel):
    page = open_panel(BarrierExplorer(sweep_frame()))
    start = lines(page)[0]["y"]
    press(page, page.get_by_role("radio", name="Train"), "ArrowRight")
    assert lines(page)[0]["y"] != start
    press(page, page.get_by_role("radio", name="Test"), "ArrowLeft")
    assert lines(page)[0]["y"] == start
    press(page, page.get_by_role("radio", name="Loss"), "ArrowRight", "ArrowRight")
    assert lines(page)[0]["y"][0] == 0
    press(page, page.get_by_role("radio", name="Barrier"), "ArrowLeft", "ArrowLeft")
    axis = page.locator(".js-plotly-plot").first
    press(page, page.get_by_role("checkbox", name="Log scale"), " ")
    assert axis.evaluate("el => el.layout.yaxis.type") == "log"
    press(page, page.get_by_role("checkbox", name="Log scale"), " ")
    press(page, page.get_by_role("radio", name="Aligned"), "ArrowRight")
    assert max(lines(page)[0]["y"]) > 5 * max(start)
    press(page, page.get_by_role("radio", name="Raw"), "ArrowLeft")
    press(page, page.get_by_role("radio", name="Mean ± std"), "ArrowRight")
    assert len(single(page)) == 3
    press(page, page.get_by_role("button", name="star – source"), "Enter")
    assert len(single(page)) == 2
    assert page.evaluate("document.activeElement.dataset.series") == "star-source"
    press(page, page.get_by_role("button", name="star – source"), " ")

    press(page, page.get_by_role("combobox", name="Published"), "r", "e", "s", "n")
    overlay = page.get_by_role("combobox", name="Published").input_value()
    assert overlay.startswith("resnet18/") and [t["mode"] for t in drawn(page, "Interpolation curves")].count("lines+markers") == 3

    first = page.get_by_role("checkbox", name="star", exact=True)
    press(page, first, "ArrowDown", "ArrowDown", " ")
    assert not page.get_by_role("checkbox", name="source-001").is_checked()
    assert page.get_by_role("checkbox", name="source-000").is_checked()
    press(page, first, "End")
    assert page.evaluate("document.activeElement.parentElement.innerText.trim()") == "heldout-002"
    press(page, page.get_by_role("searchbox"), *"heldout")
    assert page.locator(".ss-model:visible").count() == 3
    press(page, page.get_by_role("button", name="None"), "Enter")
    assert page.get_by_text("3 found, 6 chosen").is_visible()
    assert [len(series) for series in single(page)] == [5]
    press(page, page.get_by_role("button", name="All"), "Enter")

    stepper = page.get_by_role("slider", name="Step through the pairs")
    press(page, stepper, "End")
    assert page.locator(".ss-lit").count() == 2
    assert "barrier" in stepper.get_attribute("aria-valuetext")
    highest = stepper.get_attribute("aria-valuetext")
    press(page, stepper, "Home")
    assert stepper.get_attribute("aria-valuetext") != highest
    press(page, page.get_by_role("button", name="Clear"), "Enter")
    assert page.locator(".ss-lit").count() == 0
    press(page, page.locator("summary"), "Enter")
    assert page.locator("tbody tr").count() == 3 + 5 + 15


def test_tab_reaches_each_control_once(open_panel):
    page = open_panel(BarrierExplorer(sweep_frame()))
    page.evaluate("document.body.focus()")
    seen = []
    for _ in range(40):
        page.keyboard.press("Tab")
        name = page.evaluate("""() => {
            const e = document.activeElement, again = e.dataset.seen ? 'again ' : '';
            e.dataset.seen = 'yes';
            return e === document.body ? '' : again + (e.type || e.tagName) + ' ' + (e.ariaLabel || e.labels?.[0]?.innerText || e.innerText || '')
        }""")
        if not name:
            break
        seen.append(name)
    assert not [name for name in seen if name.startswith("again")], seen
    for wanted in ("search", "checkbox star", "radio Loss", "radio Train", "radio Aligned", "radio Mean", "checkbox Log", "select-one", "button star", "range Step", "SUMMARY", "button Download CSV"):
        assert sum(name.startswith(wanted) for name in seen) >= 1, (wanted, seen)


def test_a_burst_of_keys_loses_no_final_state(open_panel):
    page = open_panel(BarrierExplorer(sweep_frame()))
    stepper = page.get_by_role("slider", name="Step through the pairs")
    press(page, stepper, "Home", *["ArrowRight"] * 20, *["ArrowLeft"] * 13, *["ArrowRight"] * 7)
    assert stepper.input_value() == "14"
    order = sorted(float(v) for v in np.concatenate([t["x"] for t in drawn(page, "Loss barriers") if t["mode"] == "markers" and len(t["x"]) > 1]))
    shown = float(stepper.get_attribute("aria-valuetext").split("barrier ")[1].split()[0])
    assert shown == pytest.approx(order[14], rel=2e-3)


def test_hover_lights_the_other_chart_and_click_selects(open_panel):
    page = open_panel(BarrierExplorer(sweep_frame(), view="curves"))
    dots = page.locator('[aria-label^="Loss barriers"]')
    dots.scroll_into_view_if_needed()
    dot = dots.locator(".scatterlayer .point").first
    dot.hover(force=True)
    page.wait_for_selector(".ss-tip:visible")
    assert page.locator("path.ss-lit").count() == 1 and page.locator("circle.ss-lit").count() == 1
    assert "star → heldout-" in page.locator(".ss-tip").inner_text()
    box = dot.bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.move(5, 5)
    settle(page)
    assert page.locator("path.ss-lit").count() == 1
    assert page.locator(".ss-stepper-text").first.inner_text().startswith("star → heldout-")

    curve = page.locator('[aria-label^="Interpolation curves"]')
    curve.scroll_into_view_if_needed()
    at = curve.locator(".js-plotly-plot").evaluate("el => { const a = el._fullLayout, r = el.getBoundingClientRect(); return [r.x + a.xaxis._offset + a.xaxis.d2p(0.5), r.y + a.yaxis._offset + a.yaxis.d2p(0.06)] }")
    page.mouse.move(at[0] - 3, at[1])
    page.mouse.move(*at)
    page.wait_for_selector(".ss-tip:visible")
    tip = page.locator(".ss-tip").inner_text()
    assert "0.5" in tip and "loss" in tip and "accuracy" in tip and "→" in tip


HOSTILE = {
    "star": '<img src=x onerror="document.title=1">',
    "source-000": "</script><script>document.title=1</script>",
    "source-001": "=HYPERLINK(\"http://example.org\")",
    "source-002": "@SUM(1+1)*cmd|' /C calc'!A0",
    "source-003": "\u202egnp.exe\u2066 شمس",
    "source-004": "x" * 300,
    "heldout-000": "🌟 {t} %{x} <b>bold</b> &amp;",
    "heldout-001": "-2+3\r\nx,\"y\"",
    "source": "</script><script>document.title=1</script>",
    "heldout": "<b>held</b> %{x}",
}


def test_hostile_names_are_text(open_panel, tmp_path):
    frame = sweep_frame(rename=lambda name: HOSTILE.get(name, name))
    table = pd.DataFrame({HOSTILE["star"]: [HOSTILE["source-000"]], "n": [1]})
    path = write_report(frame, tmp_path / "r.html", title=HOSTILE["source-000"], text=HOSTILE["star"], tables={HOSTILE["star"]: table}, settings=HOSTILE)
    page = open_panel(path)
    assert page.title() == HOSTILE["source-000"]
    assert page.locator("img").count() == 0 and page.locator("script").count() == 3
    page.get_by_text("Each pair", exact=True).click()
    page.locator("summary").click()
    stepper = page.get_by_role("slider", name="Step through the pairs")
    press(page, stepper, "End")
    assert page.locator("img").count() == 0
    labels = page.locator(".ss-model").all_text_contents()
    assert HOSTILE["star"] in labels and any("🌟 {t} %{x} <b>bold</b> &amp;" in text for text in labels)
    assert any(text.count("x") > 80 and "…" in text for text in labels)
    with page.expect_download() as download:
        page.get_by_role("button", name="Download CSV").click()
    rows = list(csv.reader(Path(download.value.path()).read_text(encoding="utf-8-sig").splitlines(keepends=True)))
    assert len(rows) == 1 + len(frame.query("split == 'train'")) // 21
    cells = {cell for row in rows for cell in row}
    assert HOSTILE["star"] in cells and "'" + HOSTILE["source-001"] in cells and "'" + HOSTILE["source-002"] in cells
    assert not any(cell.lstrip().startswith(("=", "+", "@")) for cell in cells)
    assert page.title() == HOSTILE["source-000"]


def test_hostile_names_in_the_plane(open_panel):
    names = [HOSTILE[n] for n in ("star", "source", "heldout")]
    page = open_panel(LossPlaneExplorer(plane(rename=lambda n: HOSTILE[n]), names))
    assert page.locator("img").count() == 0
    labels = page.locator(".annotation-text").all_text_contents()
    assert len(labels) == 3 and labels[2] == HOSTILE["heldout"]
    page.get_by_text("Surface", exact=True).click()
    settle(page)
    assert page.locator("img").count() == 0


def test_hostile_names_in_the_uncertainty_panel(open_panel):
    hostile = dict(star=HOSTILE["source-001"], ensemble=HOSTILE["star"])
    page = open_panel(uncertainty(rename=hostile.get))
    page.locator("summary").click()
    page.locator(".ss-thumb").first.click()
    settle(page)
    assert page.locator("img").count() == 0 and page.title() == "Uncertainty"
    assert page.locator(".ss-chip").all_inner_texts() == list(hostile.values())
    assert {cell.inner_text() for cell in page.locator("tbody td:first-child").all()} == set(hostile.values())
    with page.expect_download() as download:
        page.get_by_role("button", name="Download CSV").click()
    rows = list(csv.reader(Path(download.value.path()).read_text(encoding="utf-8-sig").splitlines(keepends=True)))
    assert {row[0] for row in rows[1:]} == {"'" + hostile["star"], hostile["ensemble"]}


def test_plane_reads_points_and_lines(open_panel):
    page = open_panel(LossPlaneExplorer(plane(), ["star", "source", "heldout"], log=False))
    chart = page.locator('[aria-label^="Loss (train, nats) over the plane"]')
    place = "(el, [x, y]) => { const a = el._fullLayout, r = el.getBoundingClientRect(); return [r.x + a.xaxis._offset + a.xaxis.d2p(x), r.y + a.yaxis._offset + a.yaxis.d2p(y)] }"
    star, source = (chart.locator(".js-plotly-plot").evaluate(place, at) for at in ([4, 3], [0, 0]))
    page.mouse.click(*star)
    settle(page)
    reading = page.locator(".ss-reading").inner_text()
    assert "weight of star" in reading and "1\n" in reading
    value = float(page.locator(".ss-reading b").first.inner_text().split()[0])
    assert value == pytest.approx(0.01, abs=0.004)

    page.mouse.move(*source)
    page.mouse.down()
    page.mouse.move(source[0] + 40, source[1] - 10, steps=4)
    page.mouse.move(*star, steps=4)
    page.mouse.up()
    settle(page)
    path = drawn(page, "Along the line")[0]["y"]
    assert len(path) == 101 and path[0] == pytest.approx(0.51, abs=0.03) and path[-1] == pytest.approx(0.01, abs=0.01)
    assert all(a >= b - 1e-3 for a, b in itertools.pairwise(path))


def test_plane_from_the_keyboard(open_panel):
    page = open_panel(LossPlaneExplorer(plane(), ["star", "source", "heldout"]))
    surface = page.locator("canvas.ss-surface-canvas")
    figure = page.locator(".js-plotly-plot").first

    def kind():
        return figure.evaluate("el => el.data[0].type"), figure.evaluate("el => el.data[0].z[3][7]")

    assert kind()[0] == "heatmap" and kind()[1] < 0  # log10 of the loss
    press(page, page.get_by_role("checkbox", name="Log colour"), " ")
    assert kind()[1] > 0
    press(page, page.get_by_role("radio", name="Heatmap"), "ArrowRight")
    assert kind()[0] == "contour"
    before = kind()[1]
    press(page, page.get_by_role("radio", name="Train"), "ArrowRight")
    assert kind()[1] == pytest.approx(before + 0.08, abs=1e-5)
    press(page, page.get_by_role("radio", name="Loss"), "ArrowRight")
    assert kind()[1] == pytest.approx(100 * np.exp(-before - 0.08), rel=1e-4)
    press(page, page.get_by_role("slider", name="Point, x"), "Home", *["PageUp"] * 3)
    assert "accuracy" in page.locator(".ss-reading").inner_text()
    for name, value in (("Line from", "source"), ("to", "heldout")):
        page.get_by_role("combobox", name=name, exact=True).focus()
        page.keyboard.type(value)
    settle(page)
    path = drawn(page, "Along the line")[0]["y"]
    assert path[0] == pytest.approx(100 * np.exp(-0.09 - 0.02 * 25), rel=0.02) and path[-1] == pytest.approx(100 * np.exp(-0.09 - 0.02 * 20), rel=0.02)
    press(page, page.get_by_role("radio", name="Contours"), "ArrowRight")
    assert surface.is_visible()
    picture = surface.evaluate("el => el.toDataURL()")
    press(page, page.get_by_role("slider", name="Turn"), *["ArrowRight"] * 8)
    turned = surface.evaluate("el => el.toDataURL()")
    press(page, page.get_by_role("slider", name="Tilt"), *["ArrowRight"] * 8)
    assert len({picture, turned, surface.evaluate("el => el.toDataURL()")}) == 3
    press(page, page.get_by_role("button", name="Clear"), "Enter")
    assert page.locator(".ss-reading").inner_text().startswith("Click a point")


def test_uncertainty_by_mouse_and_keyboard(open_panel):
    page = open_panel(uncertainty())
    assert len(drawn(page, "Six scores")) == 24
    assert drawn(page, "Six scores")[1]["y"][0] == pytest.approx(100 * 0.521, rel=1e-5)
    samples = page.get_by_role("slider", name="Samples")
    press(page, samples, "Home", "ArrowRight")
    assert page.locator(".ss-stepper-text").inner_text().startswith("3 samples: star posterior 53.1 %")
    press(page, page.get_by_role("button", name="ensemble"), "Enter")
    assert len(drawn(page, "Six scores")) == 12 and len(drawn(page, "Reliability")) == 2
    page.get_by_role("button", name="ensemble").click()
    thumbs = page.locator(".ss-thumb")
    assert thumbs.count() == 24
    press(page, thumbs.nth(2), "Enter")
    first = page.locator(".ss-thumb[aria-pressed=true]").get_attribute("data-image")
    bars = drawn(page, "Predictive distribution")
    assert [sum(trace["y"]) for trace in bars] == pytest.approx([100, 100], abs=0.1)
    thumbs.nth(4).click()
    settle(page)
    assert page.locator(".ss-thumb[aria-pressed=true]").get_attribute("data-image") != first
    assert drawn(page, "Predictive distribution")[0]["y"] != bars[0]["y"]
    page.locator("summary").click()
    settle(page)
    assert page.locator("tbody tr").count() == 36


def test_the_script_asks_for_nothing_that_a_host_may_forbid():
    "One module with no imports of its own, no code made from text, no address: so it runs in VS Code's and Colab's frames, too."
    script = panel_source()
    assert not re.search(r"\beval\(|new Function|^import |\brequire\(|\bfetch\(|XMLHttpRequest|WebSocket", script, re.MULTILINE)
    assert set(re.findall(r"https?://[^\s\"'`]*", script)) <= {"http://www.w3.org/2000/svg"}
    assert not re.search(r"document\.(querySelector|getElement|body)", script)  # the panel may lie in a shadow root
    assert BarrierExplorer._esm == script or str(BarrierExplorer._esm) == script


@pytest.fixture(scope="module")
def dashboard():
    panels = {"Barriers": BarrierExplorer(sweep_frame()), "Loss plane": LossPlaneExplorer(plane(), ["star", "source", "heldout"]), "Uncertainty": uncertainty()}
    return StarDashboard(None, panels=panels)


def test_dashboard_tabs(open_panel, dashboard):
    page = open_panel(dashboard)
    tab = page.get_by_role("tab", name="Barriers")
    press(page, tab, "ArrowRight")
    assert page.get_by_role("tab", name="Loss plane").get_attribute("aria-selected") == "true"
    assert page.locator("[data-panel=plane]").is_visible() and not page.locator("[data-panel=barriers]").is_visible()
    page.get_by_role("tab", name="Uncertainty").click()
    settle(page)
    assert page.locator("[data-panel=uncertainty] .ss-thumb").count() == 24
    press(page, page.get_by_role("tab", name="Uncertainty"), "Home")
    assert page.locator("[data-panel=barriers] .js-plotly-plot").first.is_visible()


def test_accessible_and_in_place(open_panel, dashboard):
    "axe finds nothing serious in light and dark, and nothing sticks out from 480 to 1600 pixels, on each tab."
    for scheme, widths in (("light", (480, 761, 1100, 1600)), ("dark", ())):
        page = open_panel(dashboard, scheme=scheme)
        page.evaluate(AXE.read_text())
        for name in ("Barriers", "Loss plane", "Uncertainty"):
            page.get_by_role("tab", name=name).click()
            settle(page)
            for summary in page.locator("summary:visible").all():
                summary.click()
            settle(page)
            found = page.evaluate("() => axe.run(document, {resultTypes: ['violations']})")["violations"]
            takes_keys = ".starscape :is(input, select, button, summary, a[href], [tabindex])"
            assert not page.locator(f"{takes_keys}:not([data-lm-suppress-shortcuts])").evaluate_all("all => all.map(element => element.outerHTML)")
            assert page.locator("[role=tabpanel]:not([hidden]) .ss-status[aria-live=polite]").count() == 1
            bad = [(v["id"], [node["html"][:160] + str(node["any"][:1])[:200] for node in v["nodes"][:3]]) for v in found if v["impact"] in ("serious", "critical")]
            assert not bad, json.dumps(bad, indent=1)
            for width in widths:
                page.set_viewport_size(dict(width=width, height=900))
                settle(page)
                sticking = page.evaluate("""() => [...document.querySelectorAll('.starscape *')].filter(e => e.checkVisibility() && !e.closest('.ss-table, .ss-tip, svg')
                    && (e.getBoundingClientRect().right > innerWidth + 1 || e.getBoundingClientRect().left < -1)).map(e => e.className || e.tagName)""")
                assert not sticking, (name, width, sticking[:5])
                assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
                plot = page.locator(".js-plotly-plot:visible").first
                assert plot.evaluate("el => Math.abs(el._fullLayout.width - el.clientWidth)") <= 1


def test_five_hundred_models(open_panel):
    "500 models and 5,000 pairs: the list filters in 100 ms of the page's time, the curves are drawn in 300 ms; the best of three."
    t = np.linspace(0, 1, 21)
    names = [f"model-{i:03}" for i in range(500)]
    n = 5000
    high = np.repeat(0.1 + np.arange(n) / n, 21)
    frame = pd.DataFrame(dict(first=np.repeat([names[i % 50] for i in range(n)], 21), second=np.repeat([names[50 + i // 12] for i in range(n)], 21), pair="regular-regular",
                              aligned=np.repeat(np.arange(n) % 2 == 0, 21), split="train", t=np.tile(t, n)))
    frame["loss"] = high * 4 * frame.t * (1 - frame.t)
    frame["accuracy"] = np.exp(-frame.loss)
    panel = BarrierExplorer(frame, alignment="both")
    page = open_panel(panel)
    clock = page.context.new_cdp_session(page)
    clock.send("Performance.enable", {"timeDomain": "threadTicks"})  # the page's own work, however busy the machine

    def work(act):
        before = {m["name"]: m["value"] for m in clock.send("Performance.getMetrics")["metrics"]}
        act()
        settle(page)
        after = {m["name"]: m["value"] for m in clock.send("Performance.getMetrics")["metrics"]}
        return 1000 * (after["TaskDuration"] - before["TaskDuration"])

    # on a slower machine the limits are wider by as much as it takes longer over sums: 130 ms is what two cores of 2026 take
    slower = max(1, min(work(lambda: page.evaluate("() => { let s = 0; for (let i = 0; i < 3e7; i++) s += Math.sqrt(i); return s }")) for _ in range(3)) / 130)
    filtering = min(work(lambda i=i: page.get_by_role("searchbox").fill(f"model-{i}1")) for i in range(3))
    assert page.locator(".ss-model:visible").count() == 10
    drawing = []
    for _ in range(3):
        drawing.append(work(lambda: page.get_by_text("Each pair", exact=True).click()))
        assert page.locator("canvas.ss-layer").first.evaluate("""el => {
            const data = el.getContext('2d').getImageData(0, 0, el.width, el.height).data;
            return data.reduce((n, value, i) => n + (i % 4 === 3 && value > 0), 0) }""") > 50_000
        work(lambda: page.get_by_text("Mean", exact=False).first.click())
    print(f"filtering {filtering:.0f} ms, drawing {min(drawing):.0f} ms, on a machine {slower:.2f} times as slow")
    assert filtering < 100 * slower and min(drawing) < 300 * slower


def reload(page):
    page.reload()
    page.wait_for_selector("html[data-ready=true]", timeout=60_000)
    settle(page)


def test_a_reload_keeps_what_was_chosen(open_panel, tmp_path):
    page = open_panel(BarrierExplorer(sweep_frame()))
    before = lines(page)[0]["y"]
    page.get_by_text("Test", exact=True).click()
    page.get_by_text("Accuracy", exact=True).click()
    page.get_by_label("source-002").click()
    page.get_by_role("button", name="star – source").click()
    press(page, page.get_by_role("slider", name="Step through the pairs"), "End")
    there = lines(page), page.locator(".ss-stepper-text").inner_text()
    reload(page)
    assert (lines(page), page.locator(".ss-stepper-text").inner_text()) == there and there[0][0]["y"] != before
    assert page.get_by_text("9 of 10 chosen").is_visible()
    assert page.get_by_role("button", name="star – source").get_attribute("aria-pressed") == "false"
    assert page.locator("path.ss-lit").count() == 1

    press(page, page.get_by_role("button", name="Reset view"), "Enter")
    assert page.evaluate("document.activeElement.innerText") == "As at first."
    assert lines(page)[0]["y"] == before and not page.get_by_role("button", name="Reset view").is_visible()
    page.get_by_text("Raw", exact=True).click()
    page = open_panel(BarrierExplorer(sweep_frame(), metric="barrier"))  # in the same place, but it starts another way
    assert page.get_by_role("radio", name="Barrier").is_checked() and page.get_by_role("radio", name="Aligned").is_checked()


def test_a_page_that_may_not_store_works(open_panel, page):
    page.add_init_script("Object.defineProperty(window, 'sessionStorage', { get() { throw new DOMException('forbidden', 'SecurityError') } })")
    open_panel(BarrierExplorer(sweep_frame()))
    press(page, page.get_by_role("radio", name="Train"), "ArrowRight")
    reload(page)
    assert page.get_by_role("radio", name="Train").is_checked() and len(lines(page)) == 3


def copied(page, button):
    "What a button puts on the clipboard."
    page.evaluate("() => { navigator.clipboard.writeText = async text => { window.copied = text } }")
    page.get_by_role("button", name=button).click()
    page.get_by_text("copied.").wait_for()
    return page.evaluate("window.copied")


def test_a_link_opens_what_it_was_copied_from(open_panel):
    page = open_panel(LossPlaneExplorer(plane(), ["star", "source", "heldout"]))
    page.get_by_text("Contours", exact=True).click()
    page.get_by_text("Accuracy", exact=True).click()
    press(page, page.get_by_role("slider", name="Point, x"), "End")
    link, there = copied(page, "Copy link"), page.locator(".ss-reading").inner_text()
    page.get_by_role("button", name="Reset view").click()
    page.goto("about:blank")
    page.goto(link)
    page.wait_for_selector("html[data-ready=true]", timeout=60_000)
    assert page.get_by_role("radio", name="Contours").is_checked() and page.locator(".ss-reading").inner_text() == there
    page.get_by_text("Heatmap", exact=True).click()  # what is chosen after a link was opened counts, once reloaded
    reload(page)
    assert page.get_by_role("radio", name="Heatmap").is_checked() and page.get_by_role("radio", name="Accuracy").is_checked()


def test_a_link_is_believed_as_far_as_it_fits(open_panel):
    page = open_panel(BarrierExplorer(sweep_frame()))
    for said in (
        "%", "7", "null", '{"panel": 7}',
        '{"panel": {"selection": "star", "metric": "lost", "split": 1, "log": "yes", "pairs": [7], "overlay": "<img>", "view": {}, "clicked": 7}}',
        '{"panel": {"selection": ["nobody"], "metric": ["loss"], "clicked": {"first": "<img src=x>"}, "__proto__": {"x": 1}, "values": "AAAA", "live": true, "title": "no"}}',
    ):
        page.evaluate("said => { window.before = true; sessionStorage.clear(); location.hash = 'starscape=' + said }", said)  # loads the page again
        page.wait_for_function("() => !window.before && document.documentElement.dataset.ready", timeout=60_000)
        settle(page)
        assert page.get_by_role("radio", name="Loss").is_checked() and page.get_by_role("radio", name="Train").is_checked(), said
        assert not page.get_by_role("button", name="Compute").is_visible() and page.locator("img").count() == 0, said
        assert page.get_by_text("0 of 10 chosen" if "nobody" in said or "[7]" in said else "10 of 10 chosen").is_visible(), said


def test_copied_code_opens_the_same_view(open_panel):
    frame = sweep_frame(rename=lambda name: HOSTILE.get(name, name))
    page = open_panel(BarrierExplorer(frame))
    page.get_by_text("Accuracy", exact=True).click()
    page.get_by_text("Each pair", exact=True).click()
    page.get_by_role("button", name="regular – regular").click()
    page.get_by_label(HOSTILE["source-001"]).click()
    panel = eval(copied(page, "Copy Python"), dict(BarrierExplorer=BarrierExplorer, zoo=frame))
    assert (panel.metric, panel.view, panel.log, panel.pairs) == ("accuracy", "curves", False, ["star-heldout", "star-source"])
    assert set(panel.roles) - set(panel.selection) == {HOSTILE["source-001"]}

    page = open_panel(LossPlaneExplorer(plane(), ["star", "source", "heldout"], view="surface", line=[0, 0, 4, 3.5]))
    press(page, page.get_by_role("slider", name="Turn"), "Home")
    panel = eval(copied(page, "Copy Python"), dict(LossPlaneExplorer=LossPlaneExplorer, zoo=plane()))
    assert (panel.view, panel.line, panel.turn, panel.selection) == ("surface", [0, 0, 4, 3.5], -180, ["star", "source", "heldout"])


def test_an_exported_dashboard_shares_its_selection(open_panel):
    scores = uncertainty()
    scores.roles = {"star": "star", **{f"source-{i:03}": "source" for i in range(6)}}
    scores.selection = list(scores.roles)
    named = plane(rename={"star": "star", "source": "source-000", "heldout": "heldout-001"}.get)
    panels = {"Barriers": BarrierExplorer(sweep_frame()), "Loss plane": LossPlaneExplorer(named, ["star", "source-000", "heldout-001"]), "Uncertainty": scores}
    page = open_panel(StarDashboard(None, panels=panels))
    page.get_by_label("heldout-001").click()
    page.get_by_role("tab", name="Uncertainty").click()
    settle(page)
    assert page.locator("[aria-label^='Six scores']").is_visible() and page.locator(".ss-thumb:visible").count() == 24
    page.get_by_role("tab", name="Loss plane").click()
    settle(page)
    lacking = page.get_by_text("This file holds the plane through star, source-000 and heldout-001, no other. heldout-001 is not among the chosen models.")
    assert lacking.is_visible()

    page.get_by_role("tab", name="Barriers").click()
    page.get_by_label("source-003").click()
    page.get_by_role("tab", name="Uncertainty").click()
    settle(page)
    sentence = page.get_by_text("The scores of star, source-000, source-001 and 3 more are not in this file: it holds those of star, source-000, source-001 and 4 more.")
    assert sentence.is_visible()
    assert page.locator("[data-panel=uncertainty] [role=figure]:visible, .ss-thumb:visible").count() == 0
    reload(page)  # the tab in front, and what all tabs make of the selection
    assert page.get_by_role("tab", name="Uncertainty").get_attribute("aria-selected") == "true" and sentence.is_visible()
    page.get_by_role("tab", name="Barriers").click()
    settle(page)
    assert page.get_by_text("8 of 10 chosen").is_visible()
    page.get_by_label("source-003").click()
    page.get_by_role("tab", name="Uncertainty").click()
    settle(page)
    assert page.locator("[aria-label^='Six scores']").is_visible() and not sentence.is_visible()


def test_models_without_a_curve_are_named(open_panel):
    frame = sweep_frame()
    page = open_panel(BarrierExplorer(frame[frame.aligned | (frame.second != "heldout-002")]))
    sentence = page.get_by_text("Not measured without alignment, so not drawn: heldout-002.")
    assert not sentence.is_visible()
    page.get_by_text("Raw", exact=True).click()
    settle(page)
    assert sentence.is_visible()


def test_means_of_one_column_have_the_same_decimals(open_panel):
    frame = sweep_frame()
    page = open_panel(BarrierExplorer(frame, alignment="both"))
    found = page.locator('[aria-label^="Loss barriers"] .annotation-text').all_text_contents()
    means = barriers(frame.query("split == 'train'")).groupby(["pair", "aligned"]).loss_barrier.agg(["mean", "std"])
    order = [(pair, aligned) for pair in ("star-heldout", "star-source", "regular-regular") for aligned in (True, False)]
    assert found == ["{:.4f} ± {:.4f}".format(*means.loc[key]) for key in order]


def test_pictures_to_print(open_panel):
    page = open_panel(BarrierExplorer(sweep_frame()))
    page.locator('[aria-label^="Interpolation curves"]').hover()
    for form, head in (("PNG", b"\x89PNG"), ("SVG", b"<svg")):
        with page.expect_download() as download:
            page.locator(f'[aria-label^="Interpolation curves"] .modebar-btn[data-title$="({form})"]').click()
        data = Path(download.value.path()).read_bytes()
        assert data.startswith(head) and (form == "PNG" or b"Loss (train, nats)" in data)
    page = open_panel(BarrierExplorer(sweep_frame(sources=12, heldouts=5), view="curves"))  # 77 curves on a canvas: lines, when printed
    page.locator('[aria-label^="Interpolation curves"]').hover()
    with page.expect_download() as download:
        page.locator('[aria-label^="Interpolation curves"] .modebar-btn[data-title$="(SVG)"]').click()
    paths = re.findall(r'<path [^>]*?d="(M[^"]*)"', Path(download.value.path()).read_text())
    assert {5, 12, 60} <= {path.count("M") for path in paths}
    press(page, page.locator("select"), "Tab")  # and without a mouse
    assert page.evaluate("document.activeElement.dataset.title") == "Download picture (PNG)"
    with page.expect_download() as download:
        page.keyboard.press("Enter")
    assert Path(download.value.path()).read_bytes().startswith(b"\x89PNG")


def test_an_empty_panel_says_so(open_panel):
    page = open_panel(BarrierExplorer(sweep_frame()[:0]))
    assert page.get_by_text("No pair has been measured yet.").is_visible()
    assert page.locator("[role=figure]:visible").count() == 0


def test_choosing_no_model_says_so_and_all_brings_the_curves_back(open_panel):
    page = open_panel(BarrierExplorer(sweep_frame()))
    page.get_by_role("button", name="None").click()
    settle(page)
    assert page.get_by_text("No measured pair among the chosen models").is_visible()
    page.get_by_role("button", name="All").click()
    settle(page)
    assert page.locator("[role=figure]:visible").count() == 2 and len(lines(page)) == 3


PART = load_task("digits").subset(200, 100)  # a task of one's own that is called digits


@pytest.fixture
def own_zoo(tmp_path):
    "A star, two sources and a held-out model, with BatchNorm, trained on a part of digits."
    zoo = train_population(PART, Network("mlp", width=6, depth=1, batchnorm=True), Recipe(epochs=2), tmp_path / "zoo", n_sources=2, n_heldout=1)
    train_star(PART, zoo, Recipe(epochs=2))
    return zoo


@pytest.mark.parametrize("task", [PART, Task("digits", *load_task("digits").split("test"), *load_task("digits").split("test"))], ids=["a part", "same name"])
def test_a_task_of_ones_own_is_not_mistaken_for_the_one_of_its_name(task, tmp_path):
    zoo = train_population(task, Network("mlp", width=4, depth=1), Recipe(epochs=1), tmp_path / "zoo", n_sources=2, n_heldout=1)
    train_star(task, zoo, Recipe(epochs=1))
    panels = BarrierExplorer(zoo), LossPlaneExplorer(zoo, resolution=3), UncertaintyExplorer(zoo)
    for panel in panels:
        with pytest.raises(SettingsError, match="4 of the 4 models .* were trained on another task named 'digits'.*task=…"):
            panel.compute(block=True)
        assert panel.failed and "another task" in panel.status
    assert not zoo.cache.items("sweep") and not zoo.cache.items("plane") and not zoo.cache.items("bma")
    measured = sweep(zoo, "star-source", task, 3)
    sweep(zoo, "star-source", load_task("digits"), 3)
    shown = BarrierExplorer(zoo, points=3)  # the cache is searched for what the models were trained on, which need not be found by its name
    assert shown.frame.loss.tolist() == pytest.approx(measured.sort_values(["first", "second", "split", "t"]).loss.tolist())
    assert BarrierExplorer(zoo, task, points=3).frame.equals(shown.frame)
    assert not BarrierExplorer(zoo, load_task("digits"), points=3).frame.equals(shown.frame)


def test_files_without_a_fingerprint_are_believed(tmp_path):
    zoo = Zoo(tmp_path / "zoo")
    for name in ("source-000", "source-001"):
        zoo.add(name, Network("mlp", width=4, depth=1, input_shape=[1, 8, 8]).build(), "source", network=Network("mlp", width=4, depth=1, input_shape=[1, 8, 8]), task="digits")
    assert task_of(zoo).fingerprint == load_task("digits").fingerprint
    with pytest.raises(SettingsError, match="name no task, wanted one.*--task"):
        task_of(Zoo(tmp_path / "empty"), how="--task")
    zoo.add("heldout-000", zoo.state("source-000"), "heldout", task="mine")
    with pytest.raises(SettingsError, match="name digits, mine, wanted one"):
        task_of(zoo)
    for name in ("source-000", "source-001"):
        (zoo.path / f"{name}.safetensors").unlink()
    with pytest.raises(SettingsError, match="trained on 'mine', which is none of the tasks"):
        task_of(zoo)


def test_a_panel_takes_from_the_cache_what_it_would_have_measured(own_zoo):
    settings = (dict(points=5), dict(splits=("train",)), dict(splits=("test",)), dict(batchnorm="keep"), dict(batchnorm="momentum"), dict(n_restarts=2), dict(seed=1), dict(align_to="star-000"))
    for other in settings:
        sweep(own_zoo, ["star-source", "regular-regular"], PART, **(dict(points=3) | other))
    assert cached_sweeps(own_zoo, PART, 3).empty
    panel = BarrierExplorer(own_zoo, PART, points=3)
    assert panel.missing == 2 + 1 + 2 and panel.status == "Not shown: 4 pairs that were measured with other settings (seed 1)."  # the last of each pair
    panel.compute(block=True)
    assert panel.missing == 0 and set(panel.frame.groupby(["first", "second", "split"]).size()) == {3} and len(panel.frame) == 5 * 2 * 3
    wanted = sweep(own_zoo, ["star-source", "star-heldout"], PART, 3, splits=("test", "train"), cached=False)
    for row in wanted.itertuples():
        found = panel.frame.query("first == @row.first and second == @row.second and split == @row.split and t == @row.t")
        assert found.loss.item() == pytest.approx(row.loss, rel=1e-5)
    pd.testing.assert_frame_equal(BarrierExplorer(own_zoo, PART, points=3).frame, panel.frame, check_dtype=False)
    assert BarrierExplorer(own_zoo, PART, points=np.array([0, 0.5, 1])).missing == 0 and BarrierExplorer(own_zoo, PART).missing == 5
    assert BarrierExplorer(own_zoo, PART, points=3).status == "" and "(3 points)" in BarrierExplorer(own_zoo, PART).status
    (own_zoo.path / "cache.sqlite").unlink()
    sweep(own_zoo, [("source-000", "star-000"), ("star-000", "source-000")], PART, 3, splits=("test", "train"))
    assert len(BarrierExplorer(own_zoo, PART, points=3).frame) == 2 * 3  # a line and its reverse are one pair


def test_a_plane_is_drawn_through_what_spans_it(own_zoo, open_panel):
    names = ["source-001", "source-000", "star-000"]
    given = loss_plane(own_zoo, names, PART, 3, models=["heldout-000"])
    panel = LossPlaneExplorer(given)
    assert panel.selection == names and [p["name"] for p in panel.plane["points"]] == [*names, "heldout-000"]
    with pytest.raises(SettingsError, match="spanned by source-001, source-000, star-000; found"):
        LossPlaneExplorer(given, ["star-000", "source-000", "heldout-000"])
    page = open_panel(panel)
    label = page.locator('[role=figure][aria-label^="Loss (train, nats) over the plane"]').get_attribute("aria-label")
    assert label.endswith("through source-001, source-000, star-000")


def test_a_plane_of_directions_is_drawn_around_its_model(own_zoo, open_panel):
    panel = LossPlaneExplorer(directions_plane(own_zoo, "star-000", PART, resolution=5))
    assert panel.selection == ["star-000"] and list(panel.figure.data[1].text) == ["star-000"]
    page = open_panel(panel)
    assert page.locator('[aria-label="Loss (train, nats) over the plane around star-000"]').is_visible()
    assert panel.figure.layout.xaxis.title.text == page.locator(".xtitle").first.text_content() == "x (multiples of the first direction)"
    assert page.get_by_text("Model in the middle").is_visible() and not page.get_by_text("Second model").is_visible()
    press(page, page.get_by_role("slider", name="Point, x"), "End")
    assert "loss" in page.locator(".ss-reading").inner_text() and "weight of" not in page.locator(".ss-reading").inner_text()
    page.get_by_text("Surface", exact=True).click()
    settle(page)
    assert page.locator("canvas.ss-surface-canvas").is_visible()
    with pytest.raises(SettingsError, match="three different models"):
        panel.selection = []


def test_a_figure_of_nothing_says_so(own_zoo):
    dashboard = StarDashboard(own_zoo, PART)
    for tab, words in (("Barriers", "No pair .* measured"), ("Loss plane", "plane has not been computed"), ("Uncertainty", "no scores")):
        dashboard.tab = tab
        assert re.search(words, dashboard.figure.layout.annotations[0].text) and not dashboard.figure.data, tab
    assert len(BarrierExplorer(sweep_frame(), pairs=[]).figure.layout.annotations) == 1


@pytest.mark.parametrize("n", [0, 1, 2])
def test_a_dashboard_of_few_models_has_no_plane_and_says_why(n, tmp_path, open_panel):
    zoo = Zoo(tmp_path / "zoo") if not n else train_population(PART, Network("mlp", width=4, depth=1), Recipe(epochs=1), tmp_path / "zoo", n_sources=n, n_heldout=0)
    dashboard = StarDashboard(zoo, PART)
    assert list(dashboard.panels) == ["Barriers", "Uncertainty"] and dashboard.missing == 0
    page = open_panel(dashboard)
    assert page.get_by_text(f"There is no tab for the loss plane: a plane goes through three models, and this zoo holds {n}.").is_visible()
    assert page.get_by_role("tab").all_inner_texts() == ["Barriers", "Uncertainty"]


def test_a_misspelt_option_is_told(own_zoo):
    for wrong, right, opening in (
        ("metrc", "metric", lambda **given: BarrierExplorer(own_zoo, PART, **given)),
        ("pints", "points", lambda **given: BarrierExplorer(own_zoo, PART, **given)),
        ("resolutoin", "resolution", lambda **given: LossPlaneExplorer(own_zoo, task=PART, **given)),
        ("sample", "samples", lambda **given: UncertaintyExplorer(own_zoo, PART, **given)),
    ):
        with pytest.raises(UnknownName, match=f"Did you mean '{right}'. There are: (?!.*(curves|busy|status))"):
            opening(**{wrong: 5})
    for explorer in (BarrierExplorer, UncertaintyExplorer, lambda zoo, task: LossPlaneExplorer(zoo, task=task), StarDashboard):
        with pytest.raises(SettingsError, match="task is a Task, such as .*; found 'digits'"):
            explorer(own_zoo, "digits")
    assert BarrierExplorer(own_zoo, PART, layout={"width": "50%"}).layout.width == "50%"


def test_numbers_of_samples_that_have_no_scores(own_zoo):
    panel = UncertaintyExplorer(own_zoo, PART, samples=3)
    with pytest.raises(SettingsError, match="mean of 500 samples, wanted one of 2, 3, "):
        panel.samples = 500
    panel.compute(block=True)
    assert panel.samples == 3 and len(panel.summary()) == 2
    with pytest.raises(SettingsError, match="500"):
        panel.samples = 500
    assert panel.samples == 3 and len(panel.summary()) == 2
    with pytest.raises(SettingsError, match="500"):
        UncertaintyExplorer(own_zoo, PART, samples=500)
    given = uncertainty()
    given.samples = 7
    with pytest.raises(SettingsError, match="wanted one of 2, 3, .*19"):
        given.samples = 20


def test_copied_code_opens_ones_own_task_and_points(own_zoo, open_panel):
    given = dict(BarrierExplorer=BarrierExplorer, LossPlaneExplorer=LossPlaneExplorer, UncertaintyExplorer=UncertaintyExplorer, zoo=own_zoo)
    sweep(own_zoo, "star-source", PART, [0, 0.25, 1])
    panel = BarrierExplorer(own_zoo, PART, points=[0, 0.25, 1], metric="accuracy")
    code = copied(open_panel(panel), "Copy Python")
    assert code.endswith(")  # task: your Task 'digits'") and "task=task" in code
    again = eval(code, given | dict(task=PART))
    assert again.task is PART and again.points == [0, 0.25, 1] and again.metric == "accuracy" and again.frame.equals(panel.frame) and len(again.frame) == 12

    plane = LossPlaneExplorer(own_zoo, task=PART, resolution=5)
    plane.compute(block=True)
    again = eval(copied(open_panel(plane), "Copy Python"), given | dict(task=PART))
    assert again.task is PART and again.resolution == 5 and again.selection == plane.selection

    scores = UncertaintyExplorer(own_zoo, Task("a\nname", *PART.split("train"), *PART.split("test")))
    scores.compute(block=True)
    code = copied(open_panel(scores), "Copy Python")
    assert "\n" not in code and eval(code, given | dict(task=PART)).task is PART

    sweep(own_zoo, "star-source", PART)
    code = copied(open_panel(BarrierExplorer(own_zoo)), "Copy Python")
    assert "task" not in code and "points" not in code


def test_a_line_within_a_decade_has_ticks_on_a_log_scale(open_panel):
    def ticks(page, chart):
        return [float(text.replace("−", "-")) for text in page.locator(f'[role=figure][aria-label^="{chart}"] .ytick text').all_text_contents()]

    for rise in (0.02, 0.002, 0.2, 2.5):
        shallow = plane()
        frame = shallow.frame()
        shallow.frame = lambda frame=frame, rise=rise: frame.assign(loss=0.211 + rise * 0.211 * (frame.x + 2) / 12)
        page = open_panel(LossPlaneExplorer(shallow, ["star", "source", "heldout"], line=[-2, 0, 10, 0]))
        found = ticks(page, "Along the line")
        assert len(found) >= 2 and len(set(found)) == len(found) <= 10 and all(0.15 < value < 0.8 for value in found), (rise, found)
        page = open_panel(BarrierExplorer(sweep_frame().assign(loss=lambda f, rise=rise: 0.211 * (1 + rise * f.t)), log=True))
        assert 2 <= len(ticks(page, "Interpolation curves")) <= 10


def test_tables_on_a_phone_keep_words_whole(tmp_path, open_panel):
    table = BarrierExplorer(sweep_frame()).summary()
    page = open_panel(write_report(sweep_frame(), tmp_path / "r.html", tables={"Barriers": table, "Long": pd.DataFrame({"name": ["x" * 300], "n": [1]})}), width=390)
    for pair in page.locator(".ss-report").first.locator("td:first-child bdi").all():
        assert pair.inner_text() in HIGH and pair.evaluate("el => el.getClientRects().length") <= 2  # lines: it may break at its hyphen
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.locator(".ss-report").nth(1).locator("td").first.evaluate("el => el.offsetWidth") <= 400
