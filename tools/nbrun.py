"""Run notebooks in place and keep what they show, so that a second run gives no diff.

    python tools/nbrun.py nbs/03_star_training.ipynb [more.ipynb ...]

Outputs and widget state are stored, progress bars are not; cells marked `#| eval: false` are left as they are. Widget
ids, which are random on each run, are renamed by the order in which they are first seen, names of temporary folders are
left out, execution times are not recorded, and nbdev's own cleaning comes last.
"""
import json
import os
import re
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbdev.clean import clean_nb
from nbdev.config import get_config

WIDGET_STATE = "application/vnd.jupyter.widget-state+json"
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
SKIP_TAG = "skip-execution"
PROGRESS_BAR = re.compile(r"\d+%\|.*\| \d+/\d+ \[")
SAME_FOR_ALL = ("_esm", "_css", "published")  # of our panels: the package holds them, and docs/build.py puts them back
TEMPORARY = re.compile(re.escape(tempfile.gettempdir()) + r"/(?:tmp|ipykernel_)\w+")
NOT_RUN = re.compile(r"^#\|\s*eval:\s*false|nbdev_export\(", re.MULTILINE)


def is_progress_bar(output):
    "A bar that has been and gone: of no use to a reader, and different on each run."
    return bool(PROGRESS_BAR.search(output.get("data", {}).get("text/plain", "") + output.get("text", "")))


def without_temporary_names(outputs):
    "Outputs in which a temporary folder, another one on each run, is `…`."
    return [nbformat.from_dict(json.loads(TEMPORARY.sub("…", json.dumps(output)))) for output in outputs]


def seen_widgets(notebook, state):
    "Ids of the widgets that a stored output shows, and of those they refer to, in order of first sight."
    order = []

    def visit(model_id):
        if model_id in order or model_id not in state:
            return
        order.append(model_id)
        for child in re.findall(r"IPY_MODEL_([0-9a-f]{32})", json.dumps(state[model_id], sort_keys=True)):
            visit(child)

    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            view = output.get("data", {}).get(WIDGET_VIEW)
            if view:
                visit(view["model_id"])
    return order


def with_stable_widget_ids(notebook):
    "`notebook` with its widgets renamed 0, 1, 2, ... and without the state of widgets that nothing shows."
    state = notebook.metadata.get("widgets", {}).get(WIDGET_STATE, {}).get("state")
    if not state:
        notebook.metadata.pop("widgets", None)
        return notebook
    order = seen_widgets(notebook, state)
    for model_id in set(state) - set(order):
        del state[model_id]
    for model in state.values():
        if "_anywidget_id" in model["state"] and "panel" in model["state"]:
            for key in SAME_FOR_ALL:
                model["state"].pop(key, None)
            model["state"]["status"] = ""  # how long it took, which differs on each run
    text = json.dumps(notebook)
    for number, model_id in enumerate(order):
        text = text.replace(model_id, f"{number:032x}")
    notebook = nbformat.from_dict(json.loads(text))
    widgets = notebook.metadata["widgets"][WIDGET_STATE]
    widgets["state"] = dict(sorted(widgets["state"].items()))
    return notebook


def run(path):
    "Execute the notebook at `path` in its own folder and write it back."
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        if cell.cell_type == "code" and NOT_RUN.search(cell.source):
            cell.metadata.tags = [SKIP_TAG]
    NotebookClient(
        notebook,
        timeout=600,
        kernel_name="python3",
        skip_cells_with_tag=SKIP_TAG,
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(path.parent)}},
    ).execute()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = without_temporary_names(output for output in cell.outputs if not is_progress_bar(output))
    notebook = with_stable_widget_ids(notebook)
    clean_nb(notebook, clean_ids=get_config().clean_ids)
    nbformat.write(notebook, path)


def main(arguments):
    if not arguments:
        sys.exit(__doc__)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    for path in map(Path, arguments):
        start = time.perf_counter()
        run(path)
        print(f"{path}  {time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    main(sys.argv[1:])
