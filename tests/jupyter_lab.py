"A JupyterLab of one's own to drive with playwright: for the tests, and for the benchmark of the panels."

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager

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


def write_notebook(path, sources):
    "A notebook with one code cell for each source."
    cells = [dict(cell_type="code", id=f"cell-{i}", metadata={}, source=source, outputs=[], execution_count=None) for i, source in enumerate(sources)]
    kernel = dict(kernelspec=dict(name="python3", display_name="python3", language="python"))
    path.write_text(json.dumps(dict(cells=cells, metadata=kernel, nbformat=4, nbformat_minor=5)))


@contextmanager
def jupyter_lab(folder):
    "Starts a JupyterLab on `folder` with settings of its own, no news and no update check; gives a function from a notebook's name to its address."
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
                    if server.poll() is not None or time.monotonic() - began > 60:
                        raise RuntimeError(f"JupyterLab did not start:\n{(folder / 'log.txt').read_text()}") from None
                    time.sleep(0.1)
            yield lambda name: f"{address}/lab/tree/{name}?token=test&reset"
        finally:
            server.terminate()


def run_all(page):
    "Run all cells of the notebook that is open; returns the errors."
    page.wait_for_selector(".jp-Notebook", timeout=60_000)
    return page.evaluate(RUN_ALL)
