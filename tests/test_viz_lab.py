"The panels in a real JupyterLab: notebooks run there, controls move figures, a reload and a second view keep the state."

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

NOTEBOOKS = Path(__file__).parent.parent / "nbs"
RUN_ALL = """async () => {
    const app = window.jupyterapp;
    await app.restored;
    const panel = app.shell.currentWidget;
    await panel.context.ready;
    await panel.sessionContext.ready;
    await panel.sessionContext.session.kernel.info;
    await app.commands.execute('notebook:run-all-cells');
    const cells = panel.content.widgets.filter(cell => cell.model.type === 'code');
    return cells.flatMap(cell => cell.model.outputs.toJSON()).filter(output => output.output_type === 'error').map(output => output.evalue);
}"""
SAVE = "() => window.jupyterapp.commands.execute('docmanager:save')"
FIRST = "document.querySelector('[data-panel=barriers] .js-plotly-plot')"


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    "Address of a JupyterLab with settings of its own, on copies of the notebooks."
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
    cells = [dict(cell_type="code", id=f"cell-{i}", metadata={}, source=source, outputs=[], execution_count=None) for i, source in enumerate(small)]
    kernel = dict(kernelspec=dict(name="python3", display_name="python3", language="python"))
    (folder / "small.ipynb").write_text(json.dumps(dict(cells=cells, metadata=kernel, nbformat=4, nbformat_minor=5)))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    own = {f"JUPYTER_{kind}_DIR": str(folder / kind) for kind in ("CONFIG", "RUNTIME")} | {"IPYTHONDIR": str(folder / "ipython"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "jupyterlab", "--allow-root", "--no-browser", "--ip=127.0.0.1", f"--port={port}", "--IdentityProvider.token=test",
               f"--ServerApp.root_dir={folder}", "--LabApp.news_url=", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate", "--LabApp.expose_app_in_browser=True"]
    with open(folder / "log.txt", "w") as log, subprocess.Popen(command, env=os.environ | own, stdout=log, stderr=log) as server:
        address, began = f"http://127.0.0.1:{port}", time.monotonic()
        try:
            while True:
                try:
                    urllib.request.urlopen(f"{address}/api/status?token=test", timeout=5)
                    break
                except OSError:
                    assert server.poll() is None and time.monotonic() - began < 60, (folder / "log.txt").read_text()
                    time.sleep(0.1)
            yield lambda name: f"{address}/lab/tree/{name}?token=test&reset"
        finally:
            server.terminate()


def run_notebook(page, address):
    page.goto(address)
    page.wait_for_selector(".jp-Notebook", timeout=60_000)
    errors = page.evaluate(RUN_ALL)
    assert not errors, errors
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

    page.evaluate("() => { window.jupyterapp.shell.currentWidget.content.activeCellIndex = 4 }")
    page.evaluate("() => window.jupyterapp.commands.execute('notebook:run-cell')")
    page.wait_for_function("() => window.jupyterapp.shell.currentWidget.content.widgets[4].outputArea.node.innerText.includes('test accuracy 3')")
    page.evaluate(SAVE)

    page.reload()
    page.wait_for_selector("[data-panel=barriers] .main-svg", timeout=60_000)
    panel = page.locator("[data-panel=barriers]").first
    assert panel.get_by_role("radio", name="Test").is_checked() and panel.get_by_role("radio", name="Accuracy").is_checked()
    assert panel.get_by_text("3 of 4 chosen").is_visible()


@pytest.mark.parametrize("name", ["03_star_training.ipynb", "06_viz.ipynb"])
def test_notebooks(page, lab, name):
    panel = run_notebook(page, lab(name))
    before = panel.locator(".js-plotly-plot").first.evaluate("el => Array.from(el.data.at(-1).y)")
    panel.get_by_role("radio", name="Train").focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_timeout(300)
    assert panel.locator(".js-plotly-plot").first.evaluate("el => Array.from(el.data.at(-1).y)") != before
