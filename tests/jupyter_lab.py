"A JupyterLab of one's own to drive with playwright: for the tests, and for the benchmark of the panels."

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
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


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def serving(folder, command, port, path="/"):
    "Runs a server, with settings of its own below `folder`; gives its address once it answers at `path`."
    own = {f"JUPYTER_{kind}_DIR": str(folder / kind) for kind in ("CONFIG", "RUNTIME")}
    own |= {"IPYTHONDIR": str(folder / "ipython"), "XDG_CONFIG_HOME": str(folder / "xdg"), "OMP_NUM_THREADS": "1", "MARIMO_SKIP_UPDATE_CHECK": "1"}
    log = folder / f"log-{port}.txt"
    with open(log, "w") as out, subprocess.Popen([sys.executable, "-m", *command], cwd=folder, env=os.environ | own, stdout=out, stderr=out) as server:
        address, began = f"http://127.0.0.1:{port}", time.monotonic()
        try:
            while True:
                try:
                    urllib.request.urlopen(f"{address}{path}", timeout=30)
                    break
                except urllib.error.HTTPError:
                    break  # an answer, if not a page
                except OSError:
                    if server.poll() is not None or time.monotonic() - began > 60:
                        raise RuntimeError(f"{command[0]} did not start:\n{log.read_text()}") from None
                    time.sleep(0.1)
            yield address
        finally:
            server.terminate()


@contextmanager
def jupyter_lab(folder, module="jupyterlab", app="LabApp", path="lab/tree"):
    "Starts a JupyterLab (or a Jupyter Notebook) on `folder`, no news and no update check; gives a function from a notebook's name to its address."
    port = free_port()
    command = [module, "--allow-root", "--no-browser", "--ip=127.0.0.1", f"--port={port}", "--IdentityProvider.token=test", f"--ServerApp.root_dir={folder}",
               "--LabApp.news_url=", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate", f"--{app}.expose_app_in_browser=True"]
    with serving(folder, command, port, "/api/status?token=test") as address:
        yield lambda name: f"{address}/{path}/{name}?token=test&reset"


def notebook_7(folder):
    return jupyter_lab(folder, "notebook", "JupyterNotebookApp", "notebooks")


def run_all(page):
    "Run all cells of the notebook that is open; returns the errors."
    page.wait_for_selector(".jp-Notebook", timeout=60_000)
    return page.evaluate(RUN_ALL)
