"""How quickly the panels answer: `python benchmarks/panels.py` writes benchmarks/panels.json.

Needs Chromium and the dev extra. In exported files, with the network off: key to paint (60 curves of 101 points, a
plane of 101 x 101), a burst of 40 keys, size and time to interactive for a zoo of 20 models, and a zoo of 500 models
with 5,000 pairs. A key is timed twice: `key_to_paint` goes from the key's own time stamp until the compositor has presented
the frame with the new curves or plane (the browser's Event Timing, in steps of 8 ms), `key_to_whole_picture` until the
frame after the last one that drew something (the strip of barriers follows the curves by a frame); `work_per_key` is the
page's own processor time for all of it. In JupyterLab: from the end of the cell until the first figure has been painted.
"""

import json
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
from playwright.sync_api import sync_playwright

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))
from conftest import CHROMIUM_FLAGS, CHROMIUM_NAMES  # noqa: E402
from jupyter_lab import jupyter_lab, run_all, write_notebook  # noqa: E402

from starscape.viz import BarrierExplorer, LossPlaneExplorer, write_report  # noqa: E402

KEY_TO_PAINT = """element => new Promise(done => {
    let presented = 0;
    const observer = new PerformanceObserver(list => {
        for (const entry of list.getEntries()) if (entry.name === 'keydown') presented = Math.max(presented, entry.duration);
    });
    observer.observe({type: 'event', durationThreshold: 16});
    element.addEventListener('keydown', async event => {
        const frame = () => new Promise(requestAnimationFrame);
        for (let i = 0; i < 3; i++) await frame();
        const whole = performance.now() - event.timeStamp;
        for (let i = 0; i < 60 && !presented; i++) await frame();
        done([presented || 16, whole]); // what took less than 16 ms is not told
    }, {once: true});
})"""
SETTLE = "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done))))"


def sweep(pairs, points, splits=("train", "test"), alignments=(True,)):
    "A sweep with `pairs` (first, second, type) of smooth curves."
    t = np.linspace(0, 1, points)
    rows = []
    for i, (first, second, pair) in enumerate(pairs):
        for aligned in alignments:
            for split in splits:
                loss = 0.01 + (0.1 + 0.01 * (i % 97)) * t * (1 - t) * (1 if aligned else 8) + 0.1 * (split == "test")
                more = dict(first=first, second=second, pair=pair, aligned=aligned, split=split)
                rows.append(pd.DataFrame(dict(t=t, loss=loss, accuracy=np.exp(-loss))).assign(**more))
    return pd.concat(rows, ignore_index=True)


def plane(resolution):
    x, y = np.meshgrid(np.linspace(-2, 10, resolution), np.linspace(-2, 8, resolution))
    at, frames, points = {"star": (4, 3), "source": (0, 0), "heldout": (8, 1)}, [], []
    for split, own in (("train", 0.01), ("test", 0.09)):
        loss = own + 0.02 * ((x - 4) ** 2 + (y - 3) ** 2 + np.sin(x) * np.cos(y))
        frames.append(pd.DataFrame(dict(x=x.ravel(), y=y.ravel(), loss=loss.ravel())).assign(split=split))
        points += [dict(name=n, role=n, x=u, y=v, split=split, loss=own, accuracy=0.9) for n, (u, v) in at.items()]
    frame = pd.concat(frames, ignore_index=True)
    frame["accuracy"] = np.exp(-frame.loss)
    return SimpleNamespace(frame=lambda: frame, points=pd.DataFrame(points))


def twenty_models():
    "Every pair of a zoo with one star, 15 sources and 4 held-out models, aligned and raw."
    sources, heldouts = [f"source-{i:03}" for i in range(15)], [f"heldout-{i:03}" for i in range(4)]
    pairs = [("star", s, "star-source") for s in sources] + [("star", h, "star-heldout") for h in heldouts]
    regular = [*sources, *heldouts]
    pairs += [(a, b, "regular-regular") for i, a in enumerate(regular) for b in regular[i + 1 :]]
    return sweep(pairs, 21, alignments=(True, False))


def opened(browser, path):
    "A page with the exported file, offline; and the seconds until it could be used."
    context = browser.new_context(viewport=dict(width=1280, height=900), offline=True)
    page = context.new_page()
    start = time.perf_counter()
    page.goto(f"file://{path}")
    page.wait_for_selector("html[data-ready=true]")
    page.evaluate(SETTLE)
    return page, time.perf_counter() - start


def key_to_paint(page, keys, repeats=15):
    """Of `repeats` presses of each key: milliseconds from the key until its effect was presented, and until all of it was
    drawn, and milliseconds of the page's own work in that time, which do not depend on how busy the machine is."""
    clock = page.context.new_cdp_session(page)
    clock.send("Performance.enable", {"timeDomain": "threadTicks"})

    def worked():
        return next(1000 * m["value"] for m in clock.send("Performance.getMetrics")["metrics"] if m["name"] == "TaskDuration")

    presented, whole, work = [], [], []
    for _ in range(repeats):
        for name, key in keys:
            element = page.get_by_role("radio", name=name).first
            element.focus()
            page.evaluate(SETTLE)
            element.evaluate("element => { window.timed = (" + KEY_TO_PAINT + ")(element) }")
            before = worked()
            page.keyboard.press(key)
            for times, one in zip((presented, whole), page.evaluate("() => window.timed")):
                times.append(one)
            work.append(worked() - before)
    return dict(key_to_paint=presented, key_to_whole_picture=whole, work_per_key=work)


def timed(page, script):
    return page.evaluate(f"async () => {{ const start = performance.now(); {script}; await ({SETTLE})(); return performance.now() - start }}")


def exported(browser, folder):
    results = {}
    curves = sweep([("star", f"heldout-{i:03}", "star-heldout") for i in range(60)], 101)
    page, _ = opened(browser, BarrierExplorer(curves, view="curves").to_html(folder / "curves.html"))
    switch = [("Train", "ArrowRight"), ("Test", "ArrowLeft")]

    def key(name):
        results.update({f"{what}_{name}_ms": times for what, times in key_to_paint(page, switch).items()})

    key("60_curves_101_points")
    page, _ = opened(browser, LossPlaneExplorer(plane(101), ["star", "source", "heldout"]).to_html(folder / "plane.html"))
    key("plane_101")
    page.get_by_text("Contours", exact=True).click()
    key("contours_101")

    page, _ = opened(browser, BarrierExplorer(curves, view="curves").to_html(folder / "curves.html"))
    stepper = page.get_by_role("slider")
    stepper.focus()
    for key in ["Home", *["ArrowRight"] * 25, *["ArrowLeft"] * 14]:
        page.keyboard.press(key)
    page.evaluate(SETTLE)
    results["burst_of_40_keys_ends_at"] = dict(found=int(stepper.input_value()), wanted=11)

    path = write_report(twenty_models(), folder / "twenty.html")
    results["exported_20_models_bytes"] = path.stat().st_size
    results["exported_20_models_interactive_s"] = [opened(browser, path)[1] for _ in range(5)]

    names = [f"model-{i:03}" for i in range(500)]
    many = sweep([(names[i % 50], names[50 + i // 50], "regular-regular") for i in range(5000)], 21, splits=("train",))
    many["second"] = many.second.where(~many.second.isin(names[150:]), many.second)
    page, _ = opened(browser, BarrierExplorer(many).to_html(folder / "many.html"))
    search = "const box = document.querySelector('input[type=search]'); box.value = '%s'; box.dispatchEvent(new Event('input'))"
    results["filter_500_models_ms"] = [timed(page, search % f"model-{i}") for i in range(5)]
    view = "document.querySelector('input[value=%s]').click()"
    drawing = []
    for _ in range(5):
        drawing.append(timed(page, view % "curves"))
        timed(page, view % "mean")
    results["draw_5000_curves_ms"] = drawing
    return results


def in_lab(browser, folder):
    "Seconds from the end of the cell to the first drawn figure, on a fresh page each time."
    cells = ["from starscape.viz import BarrierExplorer\nimport pandas as pd\npanel = BarrierExplorer(pd.read_csv('sweep.csv'))", "panel"]
    twenty_models().to_csv(folder / "sweep.csv", index=False)
    write_notebook(folder / "paint.ipynb", cells)
    times = []
    with jupyter_lab(folder) as address:
        for _ in range(3):
            page = browser.new_page(viewport=dict(width=1280, height=900))
            page.goto(address("paint.ipynb"))
            run_all(page)
            start = time.perf_counter()
            page.wait_for_function("() => document.querySelector('[data-panel=barriers] .js-plotly-plot .main-svg')", timeout=60_000)
            page.evaluate(SETTLE)
            times.append(time.perf_counter() - start)
            page.close()
    return {"first_paint_in_jupyterlab_s": times}


def main():
    executable = next(filter(None, map(shutil.which, CHROMIUM_NAMES)))
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        browser = playwright.chromium.launch(executable_path=executable, args=CHROMIUM_FLAGS)
        environment = dict(python=platform.python_version(), chromium=browser.version, cpus=os.cpu_count(), load_at_start=os.getloadavg()[0])
        results = exported(browser, Path(folder)) | in_lab(browser, Path(folder))
        browser.close()
    summary = {k: dict(median=round(statistics.median(v), 3), lowest=round(min(v), 3), highest=round(max(v), 3), n=len(v)) if isinstance(v, list) else v for k, v in results.items()}
    text = json.dumps(dict(environment=environment, results=summary), indent=1)
    (HERE / "panels.json").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
