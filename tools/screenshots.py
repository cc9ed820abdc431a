"""Pictures of every panel: `python tools/screenshots.py FOLDER [NAME ...]` writes one PNG per panel, state, width and theme.

States: full, raw beside aligned, single pairs, contours, surface, a clicked image; empty; busy; an error. Each is 1180
pixels wide, the full ones 480 and 1600, too. With names (`plane-surface`), only those. Needs Chromium.
"""
import itertools
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
from conftest import CHROMIUM_FLAGS, CHROMIUM_NAMES  # noqa: E402
from playwright.sync_api import sync_playwright  # noqa: E402
from test_viz import plane, settle, sweep_frame, uncertainty  # noqa: E402

from starscape.viz import BarrierExplorer, LossPlaneExplorer, StarDashboard, UncertaintyExplorer, write_page  # noqa: E402
from starscape.zoo import Zoo  # noqa: E402

BUSY = dict(live=True, busy=True, progress=0.4, status="star → heldout-002 (4 of 10), 12 s left")
FAILED = dict(live=True, failed=True, missing=3, status="ZooError: model heldout-002 holds NaN in layer 1.weight; train it again, or leave it out of the selection.")
MODELS = ["star", "source", "heldout"]


def panels():
    "Name of a picture → panel, and the traits that a kernel would have set."
    frame, of_plane = sweep_frame(), plane(49)
    yield "barriers-full", BarrierExplorer(frame), {}
    yield "barriers-both-log", BarrierExplorer(frame, alignment="both", log=True, overlay="resnet18/cifar10/sgd"), {}
    yield "barriers-pairs", BarrierExplorer(frame, view="curves", split="test", metric="accuracy"), {}
    yield "barriers-empty", BarrierExplorer(Zoo.example()), dict(live=True, missing=108)
    yield "barriers-busy", BarrierExplorer(frame), BUSY
    yield "barriers-error", BarrierExplorer(frame), FAILED
    for view in ("heatmap", "contours", "surface"):
        yield f"plane-{view}", LossPlaneExplorer(of_plane, MODELS, view=view, line=[0, 0, 4, 3], clicked=dict(x=2.0, y=5.0)), {}
    yield "plane-empty", LossPlaneExplorer(Zoo.example()), dict(live=True, missing=1)
    yield "plane-busy", LossPlaneExplorer(of_plane, MODELS), BUSY | dict(status="Measuring the plane, 12 s left")
    yield "plane-error", LossPlaneExplorer(of_plane, MODELS), FAILED
    full = uncertainty()
    yield "uncertainty-full", full, dict(clicked=dict(index=full.details["images"][0]["index"]))
    yield "uncertainty-empty", UncertaintyExplorer(Zoo.example()), dict(live=True, missing=1)
    yield "uncertainty-busy", UncertaintyExplorer(Zoo.example()), BUSY | dict(status="Scores of the star posterior, 12 s left")
    yield "uncertainty-error", uncertainty(), FAILED
    yield "dashboard", StarDashboard(None, panels={"Barriers": BarrierExplorer(frame), "Loss plane": LossPlaneExplorer(of_plane, MODELS), "Uncertainty": uncertainty()}), {}


def main(folder, *names):
    import shutil

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    executable = next(filter(None, map(shutil.which, CHROMIUM_NAMES)))
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as pages:
        browser = playwright.chromium.launch(executable_path=executable, args=CHROMIUM_FLAGS)
        for name, panel, traits in panels():
            if names and name not in names:
                continue
            states = panel.export_state()
            states["panel"]["state"].update(traits)
            path = write_page(Path(pages) / f"{name}.html", panel.title, '<div id="panel"></div>', states)
            widths = (480, 1180, 1600) if name.endswith(("full", "heatmap", "dashboard")) else (1180,)
            for scheme, width in itertools.product(("light", "dark"), widths):
                page = browser.new_page(viewport=dict(width=width, height=900), color_scheme=scheme)
                page.goto(f"file://{path}")
                page.wait_for_selector("html[data-ready=true]")
                settle(page)
                page.wait_for_timeout(200)
                page.screenshot(path=folder / f"{name}-{width}-{scheme}.png", full_page=True)
                page.close()
            panel.close()
        browser.close()


if __name__ == "__main__":
    main(*sys.argv[1:]) if len(sys.argv) > 1 else sys.exit(__doc__)
