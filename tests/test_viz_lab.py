"The panels in a real JupyterLab: notebooks run there, controls move figures, a reload and a second view keep the state."

import json
from pathlib import Path

import pytest
from jupyter_lab import free_port, jupyter_lab, notebook_7, run_all, serving, write_notebook

NOTEBOOKS = Path(__file__).parent.parent / "nbs"
SAVE = "() => window.jupyterapp.commands.execute('docmanager:save')"
SMALL = [
    "import pandas as pd, numpy as np\nfrom starscape.viz import BarrierExplorer",
    "t = np.linspace(0, 1, 21)\nrows = [pd.DataFrame(dict(first='star', second=f'heldout-{i}', pair='star-heldout', aligned=a, split=s, t=t,\n"
    "    loss=.1 + (i + 1) * .1 * t * (1 - t) + .2 * (s == 'test') + .5 * (not a), accuracy=.9)) for i in range(3) for s in ('train', 'test') for a in (True, False)]\n"
    "panel = BarrierExplorer(pd.concat(rows))",
    "panel",
    "panel",
    "print(panel.split, panel.metric, len(panel.selection))",
]
LAST = "el => Array.from(el.data.at(-1).y)"
FIRST = "document.querySelector('[data-panel=barriers] .js-plotly-plot')"


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    "A JupyterLab on copies of the notebooks, beside the measurements that they show."
    folder = tmp_path_factory.mktemp("lab") / "nbs"
    folder.mkdir()
    (folder.parent / "benchmarks").symlink_to(NOTEBOOKS.parent / "benchmarks")
    for name in ("03_star_training.ipynb", "06_viz.ipynb"):
        notebook = json.loads((NOTEBOOKS / name).read_text())
        notebook["cells"] = [cell for cell in notebook["cells"] if "nbdev_export()" not in "".join(cell["source"])]
        (folder / name).write_text(json.dumps(notebook))
    write_notebook(folder / "small.ipynb", SMALL)
    live = "from starscape.viz import BarrierExplorer\nfrom starscape.zoo import Zoo\npanel = BarrierExplorer(Zoo.example(), alignment='both', points=201)"
    hostile = ["from starscape.viz import *\nfrom starscape.zoo import Zoo\nimport tempfile\nhere, zoo = Zoo.example(), Zoo(tempfile.mkdtemp())",
               "names = {'star': '<img src=x>', 'source': '=1+1', 'heldout': '<b>x<i> %{x} شمس'}\n"
               "for role, names_of in (('star', here.stars[:1]), ('source', here.sources[:2]), ('heldout', here.heldouts[:1])):\n"
               "    for i, name in enumerate(names_of):\n"
               "        zoo.add(names[role] + str(i), here.network(name), role=role, network=here.network_of(name), task=here.metadata(name)['task'])",
               "plane = LossPlaneExplorer(zoo, resolution=9)\nplane", "scores = UncertaintyExplorer(zoo)\nscores"]
    write_notebook(folder / "others.ipynb", hostile)
    write_notebook(folder / "live.ipynb", [live, "panel", "print(len(panel.frame), panel.missing, panel.status)"])
    with jupyter_lab(folder) as address:
        yield address


def run_notebook(page, address):
    page.goto(address)
    assert not (errors := run_all(page)), errors
    panel = page.locator("[data-panel=barriers]").first
    panel.scroll_into_view_if_needed(timeout=60_000)
    panel.locator(".main-svg").first.wait_for(timeout=60_000)
    return panel


def heights(page):
    return page.evaluate(f"() => Array.from({FIRST}.data.at(-1).y)")


def test_two_views_and_a_reload_keep_the_state(page, lab):
    panel = run_notebook(page, lab("small.ipynb"))
    second = page.locator("[data-panel=barriers]").nth(1)
    second.locator(".main-svg").first.wait_for(timeout=60_000)
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
    for _ in range(60):  # what the browser set reaches the kernel in order, but not at once
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
    assert not page.evaluate("() => Object.keys(sessionStorage).filter(key => key.startsWith('starscape'))")  # here the kernel remembers


def test_pairs_are_computed_on_demand_and_cancel_is_heard(page, lab):
    page.goto(lab("live.ipynb"))
    assert not run_all(page)
    panel = page.locator("[data-panel=barriers]").first
    panel.get_by_text("No pair has been measured yet.").wait_for(timeout=60_000)
    panel.get_by_role("button", name="Compute 108 missing pairs").click()
    panel.locator(".main-svg").first.wait_for(timeout=60_000)  # the first results, while the rest is computed
    assert "of 108" in panel.locator(".ss-status").inner_text()
    panel.get_by_role("button", name="Cancel").click()
    panel.get_by_text("Cancelled; what was finished is kept.").wait_for(timeout=5_000)
    again = panel.get_by_role("button", name="missing pairs")
    again.wait_for(timeout=60_000)
    left = int(again.inner_text().split()[1])
    assert 0 < left < 108


def test_the_plane_and_the_scores_are_computed_on_demand_and_names_are_text(page, lab):
    page.goto(lab("others.ipynb"))
    assert not (errors := run_all(page)), errors
    plane, scores = (page.locator(f"[data-panel={name}]").first for name in ("plane", "uncertainty"))
    plane.get_by_role("button", name="Compute this plane").click(timeout=60_000)
    plane.locator(".main-svg").first.wait_for(timeout=60_000)
    plane.get_by_role("button", name="Refine to 17 × 17").wait_for(timeout=60_000)
    plane.get_by_role("slider", name="Point, x").press("Home")
    plane.get_by_text("loss", exact=True).wait_for(timeout=60_000)  # measured there, no longer read off the grid
    plane.get_by_role("button", name="Refine").click()
    plane.get_by_role("button", name="Refine to 33 × 33").wait_for(timeout=60_000)
    assert "<img src=x>0" in plane.locator(".annotation-text").all_text_contents()

    scores.scroll_into_view_if_needed()
    scores.get_by_role("button", name="Compute the posteriors").click()
    scores.locator(".ss-thumb").first.wait_for(timeout=60_000)
    scores.locator(".ss-thumb").first.click()
    scores.get_by_role("figure", name="Predictive distribution of test image").wait_for(timeout=60_000)
    assert page.locator(".starscape img").count() == 0


APP = """import marimo
app = marimo.App()


@app.cell
def _():
    import marimo as mo
{making}
    view = mo.ui.anywidget(panel)
    mo.vstack([view, view])
    return


if __name__ == "__main__":
    app.run()
"""


@pytest.mark.parametrize("host", ["notebook", "voila", "marimo"])
def test_other_hosts(page, tmp_path, host):
    """Two views of a panel in Notebook 7, Voila and marimo: a key moves the figure, the other view follows, and both are so
    after a reload, which in Voila and marimo starts a new kernel."""
    pytest.importorskip(host)
    write_notebook(tmp_path / "small.ipynb", SMALL[:4])
    port = free_port()
    if host == "notebook":
        with notebook_7(tmp_path) as address:
            page.goto(address("small.ipynb"))
            assert not (errors := run_all(page)), errors
            follows(page, views=2)
            page.evaluate(SAVE)
            page.reload()
            page.locator("[data-panel=barriers] .main-svg").first.wait_for(timeout=60_000)
            assert page.get_by_role("radio", name="Test").first.is_checked()
            page.goto("about:blank")
    elif host == "voila":
        with serving(tmp_path, ["voila", "small.ipynb", "--no-browser", f"--port={port}", "--Voila.ip=127.0.0.1"], port, "/voila/static/") as address:
            page.goto(address, timeout=60_000)
            follows(page, views=2)
            stays(page, views=2)
            page.goto("about:blank")
    else:
        making = "\n".join("    " + line for source in SMALL[:2] for line in source.splitlines())
        (tmp_path / "app.py").write_text(APP.format(making=making))
        with serving(tmp_path, ["marimo", "run", "app.py", "--headless", "--no-token", "--host=127.0.0.1", f"--port={port}"], port) as address:
            page.goto(address, timeout=60_000)
            follows(page, views=2)
            stays(page, views=2)
            page.goto("about:blank")
    page.problems[:] = [p for p in page.problems if "starscape" in p]  # what the hosts themselves ask for is theirs


def moved(page, panel, before):
    "Waits until the last line of the panel's first figure is no longer as it was."
    plot = panel.locator(".js-plotly-plot").first.element_handle()
    page.wait_for_function("([el, before]) => JSON.stringify(Array.from(el.data.at(-1).y)) !== JSON.stringify(before)", arg=[plot, before], timeout=60_000)


def follows(page, views):
    panels = page.locator("[data-panel=barriers]")
    for i in range(views):
        panels.nth(i).scroll_into_view_if_needed(timeout=60_000)
        panels.nth(i).locator(".main-svg").first.wait_for(timeout=60_000)
    before = [panels.nth(i).locator(".js-plotly-plot").first.evaluate(LAST) for i in range(views)]
    panels.first.get_by_role("radio", name="Train").press("ArrowRight")
    for i in range(views):
        panels.nth(i).get_by_role("radio", name="Test", checked=True).wait_for(timeout=60_000, state="attached")
    for i in range(views):
        moved(page, panels.nth(i), before[i])


def stays(page, views):
    panels = page.locator("[data-panel=barriers]")
    before = panels.first.locator(".js-plotly-plot").first.evaluate(LAST)
    panels.first.get_by_role("checkbox", name="heldout-1").click()
    moved(page, panels.first, before)
    before = panels.first.locator(".js-plotly-plot").first.evaluate(LAST)
    page.reload()
    for i in range(views):
        panels.nth(i).get_by_role("radio", name="Test", checked=True).wait_for(timeout=60_000, state="attached")
        panels.nth(i).get_by_text("3 of 4 chosen").wait_for(timeout=60_000)
        panels.nth(i).scroll_into_view_if_needed()
        panels.nth(i).locator(".main-svg").first.wait_for(timeout=60_000)
        assert panels.nth(i).locator(".js-plotly-plot").first.evaluate(LAST) == before
    # the new kernel heard of it, so that a choice made now adds to the old ones
    panels.first.get_by_role("checkbox", name="heldout-2").click()
    panels.nth(views - 1).get_by_text("2 of 4 chosen").wait_for(timeout=60_000)


@pytest.mark.parametrize("name", ["03_star_training.ipynb", "06_viz.ipynb"])
def test_notebooks(page, lab, name):
    panel = run_notebook(page, lab(name))
    before = panel.locator(".js-plotly-plot").first.evaluate("el => Array.from(el.data.at(-1).y)")
    panel.get_by_role("radio", name="Train").focus()
    page.keyboard.press("ArrowRight")
    moved(page, panel, before)
    # a cell that writes a file makes a panel and closes it, at times before the page has loaded the panel's module
    page.problems[:] = [p for p in page.problems if "[anywidget] Failed to initialize model" not in p]
