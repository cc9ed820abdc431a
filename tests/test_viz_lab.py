"The panels in a real JupyterLab: notebooks run there, controls move figures, a reload and a second view keep the state."

import json
from pathlib import Path

import pytest
from jupyter_lab import jupyter_lab, run_all, write_notebook

NOTEBOOKS = Path(__file__).parent.parent / "nbs"
SAVE = "() => window.jupyterapp.commands.execute('docmanager:save')"
FIRST = "document.querySelector('[data-panel=barriers] .js-plotly-plot')"


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    "A JupyterLab on copies of the notebooks."
    folder = tmp_path_factory.mktemp("lab")
    for name in ("03_star_training.ipynb", "06_viz.ipynb"):
        notebook = json.loads((NOTEBOOKS / name).read_text())
        notebook["cells"] = [cell for cell in notebook["cells"] if "nbdev_export()" not in "".join(cell["source"])]
        (folder / name).write_text(json.dumps(notebook))
    small = [
        "import pandas as pd, numpy as np\nfrom starscape.viz import BarrierExplorer",
        "t = np.linspace(0, 1, 21)\nrows = [pd.DataFrame(dict(first='star', second=f'heldout-{i}', pair='star-heldout', aligned=a, split=s, t=t,\n"
        "    loss=.1 + (i + 1) * .1 * t * (1 - t) + .2 * (s == 'test') + .5 * (not a), accuracy=.9)) for i in range(3) for s in ('train', 'test') for a in (True, False)]\n"
        "panel = BarrierExplorer(pd.concat(rows))",
        "panel",
        "panel",
        "print(panel.split, panel.metric, len(panel.selection))",
    ]
    write_notebook(folder / "small.ipynb", small)
    live = "from starscape.viz import BarrierExplorer\nfrom starscape.zoo import Zoo\npanel = BarrierExplorer(Zoo.example(), alignment='both', points=201)"
    write_notebook(folder / "live.ipynb", [live, "panel", "print(len(panel.frame), panel.missing, panel.status)"])
    with jupyter_lab(folder) as address:
        yield address


def run_notebook(page, address):
    page.goto(address)
    assert not (errors := run_all(page)), errors
    panel = page.locator("[data-panel=barriers]").first
    panel.scroll_into_view_if_needed(timeout=60_000)
    panel.locator(".main-svg").first.wait_for(timeout=20_000)
    return panel


def heights(page):
    return page.evaluate(f"() => Array.from({FIRST}.data.at(-1).y)")


def test_two_views_and_a_reload_keep_the_state(page, lab):
    panel = run_notebook(page, lab("small.ipynb"))
    second = page.locator("[data-panel=barriers]").nth(1)
    second.locator(".main-svg").first.wait_for(timeout=20_000)
    before = heights(page)
    panel.get_by_role("radio", name="Train").focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function(f"() => Math.abs({FIRST}.data.at(-1).y[0] - 0.3) < 1e-5")
    assert heights(page) != before
    assert second.get_by_role("radio", name="Test").is_checked()
    second.get_by_role("checkbox", name="heldout-1").focus()
    page.keyboard.press("Space")
    page.wait_for_function("() => document.querySelector('[data-panel=barriers] .ss-side > .ss-count').textContent === '3 of 4 chosen'")
    for _ in range(40):  # a burst of keys: the kernel has to end where the browser does
        panel.get_by_role("radio", checked=True).first.press("ArrowRight")
    assert panel.get_by_role("radio", name="Accuracy").is_checked()

    output = "() => window.jupyterapp.shell.currentWidget.content.widgets[4].outputArea.node.innerText"
    for _ in range(20):  # what the browser set reaches the kernel in order, but not at once
        page.evaluate("() => { window.jupyterapp.shell.currentWidget.content.activeCellIndex = 4 }")
        page.evaluate("() => window.jupyterapp.commands.execute('notebook:run-cell')")
        if "test accuracy 3" in page.evaluate(output):
            break
        page.wait_for_timeout(500)
    assert "test accuracy 3" in page.evaluate(output)
    page.evaluate(SAVE)

    page.reload()
    page.wait_for_selector("[data-panel=barriers] .main-svg", timeout=60_000)
    panel = page.locator("[data-panel=barriers]").first
    assert panel.get_by_role("radio", name="Test").is_checked() and panel.get_by_role("radio", name="Accuracy").is_checked()
    assert panel.get_by_text("3 of 4 chosen").is_visible()


def test_pairs_are_computed_on_demand_and_cancel_is_heard(page, lab):
    page.goto(lab("live.ipynb"))
    assert not run_all(page)
    panel = page.locator("[data-panel=barriers]").first
    panel.get_by_text("No pair has been measured yet.").wait_for(timeout=20_000)
    panel.get_by_role("button", name="Compute 108 missing pairs").click()
    panel.locator(".main-svg").first.wait_for(timeout=30_000)  # the first results, while the rest is computed
    assert "of 108" in panel.locator(".ss-status").inner_text()
    panel.get_by_role("button", name="Cancel").click()
    panel.get_by_text("Cancelled; what was finished is kept.").wait_for(timeout=2_000)
    again = panel.get_by_role("button", name="missing pairs")
    again.wait_for(timeout=10_000)
    left = int(again.inner_text().split()[1])
    assert 0 < left < 108


@pytest.mark.parametrize("name", ["03_star_training.ipynb", "06_viz.ipynb"])
def test_notebooks(page, lab, name):
    panel = run_notebook(page, lab(name))
    before = panel.locator(".js-plotly-plot").first.evaluate("el => Array.from(el.data.at(-1).y)")
    panel.get_by_role("radio", name="Train").focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_timeout(300)
    assert panel.locator(".js-plotly-plot").first.evaluate("el => Array.from(el.data.at(-1).y)") != before
    # a cell that writes a file makes a panel and closes it, at times before the page has loaded the panel's module
    page.problems[:] = [p for p in page.problems if "[anywidget] Failed to initialize model" not in p]
