"""The documentation, from the notebooks as they are committed, with no network, no Quarto and no kernel.

    python docs/build.py

nbdev's own processors put the notebooks into `_proc`; here they become pages in `docs/_src`, which Sphinx and MyST-NB
build into `_docs`. Warnings are errors. Stored plotly figures and panels go into the pages as data, which
`_static/site.js` brings to life.
"""
import inspect
import json
import re
import shutil
import subprocess
import sys
from contextlib import suppress
from importlib import import_module
from itertools import groupby
from pathlib import Path

import plotly
import yaml
from api import cell as table_cell
from api import describe, methods
from nbdev.config import get_config
from nbdev.serve import proc_nbs
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

from starscape.viz import Panel, published_curves

CONFIG = get_config()
ROOT = CONFIG.config_path
HERE = ROOT / "docs"
PROCESSED = ROOT / "_proc"
PAGES = HERE / "_src"
SITE = f"{CONFIG.doc_host}{CONFIG.doc_baseurl}/"
SOURCE = f"{CONFIG.git_url}/blob/{CONFIG.branch}/{CONFIG.lib_path.name}/"

PLOTLY = "application/vnd.plotly.v1+json"
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
WIDGET_STATE = "application/vnd.jupyter.widget-state+json"

SAME_FOR_ALL = {"_esm": Panel._esm, "_css": Panel._css, "published": published_curves()}

SHOW_DOC = re.compile(r"^#\|\s*output:\s*asis", re.MULTILINE)
DIRECTIVE = re.compile(r"^\s*#\|.*\n?", re.MULTILINE)
SITE_LINK = re.compile(r"\[([^\]]*)\]\(" + re.escape(SITE) + r"([\w/]+)\.html(?:#([\w.]+))?\)")
NUMBER = re.compile(r"^\d+[a-z]*_")
NOTEBOOK_LINK = re.compile(r"\]\((?!https?:)([\w./]*?)(\w+)\.ipynb(#[\w.-]+)?\)")
SOURCE_LINK = re.compile(r"\[source\]\(" + re.escape(SOURCE) + r"(\w+)\.py#L(\d+)\)\{[^}]*\}")


def text(lines):
    "A cell's source or output, which a notebook may hold as one string or as a list of lines."
    return "".join(lines)


def embedded(kind, name, content, height=None):
    "`content` as JSON for the script that looks for `kind`; with `<` escaped, nothing in it can end the element."
    data = json.dumps(content).replace("<", "\\u003c")
    style = f' style="height: {height}px"' if height else ""
    return (f'<div class="{kind}" id="{name}"{style}></div>'
            f'<script type="application/json" data-{kind}="{name}">{data}</script>')


def is_documentation(cell):
    "Is this one of the `show_doc` cells that nbdev has put in the place of exported code?"
    return cell["cell_type"] == "code" and bool(SHOW_DOC.search(text(cell["source"]))) and bool(cell["outputs"])


def documentation(cell):
    return text(cell["outputs"][0]["data"]["text/markdown"])


def documented_name(cell):
    return re.search(r"^#+ (\S+)$", documentation(cell), re.MULTILINE)[1]


def source_line(cell):
    link = SOURCE_LINK.search(documentation(cell))
    return int(link[2]) if link else 0


class Page:
    "One notebook on its way to a page: `02a_matching.ipynb` becomes `matching`."

    def __init__(self, path):
        name = NUMBER.sub("", path.stem)
        self.address = path.relative_to(PROCESSED).with_name(name).as_posix()
        self.root = "../" * self.address.count("/")
        self.notebook = json.loads(path.read_text(encoding="utf-8"))
        cells = self.notebook["cells"]
        self.widgets = self.notebook["metadata"].pop("widgets", {}).get(WIDGET_STATE, {}).get("state", {})
        heading = next(text(cell["source"]) for cell in cells if cell["cell_type"] == "raw")
        front_matter = yaml.safe_load(heading.strip().strip("-"))
        self.title, self.subtitle = front_matter["title"], front_matter.get("description", "")
        names = [documented_name(cell) for cell in sorted(filter(is_documentation, cells), key=source_line)]
        self.things = {name: self.thing(name) for name in names}
        self.methods = {
            name: [method for method in (f"{name}.{m}" for m in methods(thing)) if method not in names]
            for name, thing in self.things.items()
        }

    def thing(self, name):
        "What the documented `name` is."
        found = import_module(f"{CONFIG.lib_name}.{self.address}")
        for part in name.split("."):
            found = inspect.getattr_static(found, part)
            found = found.__func__ if isinstance(found, (classmethod, staticmethod)) else found
        return found

    def names(self):
        "Everything documented here: what the notebook shows, each class followed by its methods."
        return [entry for name in self.things for entry in (name, *self.methods[name])]

    def label(self, name):
        "Sphinx knows no case in targets, so a class that has a function's name in capitals needs another."
        namesake = name != name.lower() and name.lower() in self.things
        return f"{self.address}.{name.lower()}" + ("-class" if namesake else "")

    def documented(self, name, labels, level=3):
        "A target for links, a heading, a link to the source, what there is to say; then the methods of a class."
        thing = self.thing(name)
        function = thing.fget if isinstance(thing, property) else thing
        parts = [f"({self.label(name)})=", f"{'#' * level} {name}\n"]
        with suppress(OSError, TypeError):
            line = inspect.getsourcelines(function)[1]
            parts.append(f'<a class="source" href="{self.root}source/{self.address}.html#L-{line}">source</a>\n')
        parts += [describe(name.rpartition(".")[2], thing, labels), ""]
        parts += [self.documented(method, labels, level + 1) for method in self.methods.get(name, ())]
        return "\n".join(parts)

    def is_panel(self, model_id):
        "Does this widget, or one in it, bring a front end of its own?"
        state = self.widgets.get(model_id, {}).get("state", {})
        children = (child.removeprefix("IPY_MODEL_") for child in state.get("children", []))
        return "_anywidget_id" in state or any(map(self.is_panel, children))

    def panel(self, model_id):
        "What a panel needs where there is no kernel: its traits, the binary ones apart, what is in it, and the panels it names."
        model = self.widgets[model_id]
        children = [child.removeprefix("IPY_MODEL_") for child in model["state"].get("children", [])]
        tabs = [tab["model"].removeprefix("IPY_MODEL_") for tab in model["state"].get("tabs", [])]
        own = "panel" in model["state"]  # tools/nbrun.py stores it without what the package holds
        return {
            "state": {**(SAME_FOR_ALL if own else {}), **model["state"], "live": False},  # a panel that knows this trait offers nothing to compute
            "buffers": {buffer["path"][0]: buffer["data"] for buffer in model.get("buffers", [])},
            "direction": "row" if model["model_name"] == "HBoxModel" else "column",
            "children": [self.panel(child) for child in children],
            "models": {tab: self.panel(tab) for tab in tabs},
        }

    def output(self, output, name):
        "An output as the site shows it."
        data = output.get("data", {})
        if PLOTLY in data:
            figure = {"data": data[PLOTLY]["data"], "layout": data[PLOTLY]["layout"]}
            html = embedded("figure", name, figure, figure["layout"].get("height", 450))
        elif self.is_panel(data.get(WIDGET_VIEW, {}).get("model_id")):
            html = embedded("panel", name, self.panel(data[WIDGET_VIEW]["model_id"]))
        else:
            data.pop(WIDGET_VIEW, None)  # a widget that cannot live without a kernel shows its text
            return output
        return {"output_type": "display_data", "metadata": {}, "data": {"text/html": html}}

    def code(self, cell):
        source = text(cell["source"])
        if re.search(r"^#\|\s*echo:\s*false", source, re.MULTILINE):
            cell["metadata"]["tags"] = ["remove-input"]
        cell["source"] = DIRECTIVE.sub("", source)
        cell["outputs"] = [self.output(o, f"out-{cell['id']}-{n}") for n, o in enumerate(cell["outputs"])]
        return cell

    def local_links(self, markdown, names_of):
        "Links to this site, and to other notebooks, as links between pages."

        def site_link(link):
            words, page, anchor = link.groups()
            if anchor is None:
                return f"[{words}]({self.root}{page}.ipynb)"
            names = [words.strip("`"), *(name for name in names_of.get(page, ()) if name.lower() == anchor)]
            label = next((names_of[page][name] for name in names if name in names_of.get(page, ())), None)
            return f"[{words}](#{label})" if label else words

        markdown = NOTEBOOK_LINK.sub(lambda link: f"]({link[1]}{NUMBER.sub('', link[2])}.ipynb{link[3] or ''})", markdown)
        return SITE_LINK.sub(site_link, markdown)

    def cells(self, names_of, labels):
        "Markdown and code cells of the page; nbdev shows the things of one cell last first, here they come in order."
        shown = set()
        for documents, group in groupby(self.notebook["cells"], is_documentation):
            if documents:
                for name in map(documented_name, sorted(group, key=source_line)):
                    if name not in shown:
                        yield self.documented(name, labels)
                    shown.add(name)
                continue
            for cell in group:
                source = text(cell["source"])
                if cell["cell_type"] == "raw":
                    yield f"# {self.title}\n\n{{.subtitle}}\n{self.subtitle}\n" if self.subtitle else f"# {self.title}\n"
                elif cell["cell_type"] == "code":
                    yield self.code(cell)
                elif "WARNING: THIS FILE WAS AUTOGENERATED" not in source:
                    yield self.local_links(source, names_of)

    def write(self, names_of, ending=""):
        labels = {name: label for names in names_of.values() for name, label in names.items()}
        cells = [*self.cells(names_of, labels), *([ending] if ending else [])]
        cells = [
            {"cell_type": "markdown", "id": f"text-{number}", "metadata": {}, "source": cell} if isinstance(cell, str) else cell
            for number, cell in enumerate(cells)
        ]
        target = PAGES / f"{self.address}.ipynb"
        target.parent.mkdir(exist_ok=True)
        target.write_text(json.dumps({**self.notebook, "cells": cells}), encoding="utf-8")


def toctree(addresses, maxdepth=1):
    return "\n".join(["```{toctree}", ":hidden:", f":maxdepth: {maxdepth}", "", *addresses, "```", ""])


def write_list(address, title, introduction, pages):
    "A page that lists others, each with its subtitle."
    rows = [f"| [{page.title}]({page.address}.ipynb) | {page.subtitle} |" for page in pages]
    table = "\n".join(["{.names}", "| | |", "|---|---|", *rows])
    body = f"# {title}\n\n{introduction}\n\n{table}\n\n{toctree(page.address for page in pages)}"
    (PAGES / f"{address}.md").write_text(body, encoding="utf-8")


def write_reference(pages):
    "Every public name, with the first line of its docstring, by module."
    parts = ["# API reference\n", "Every public name. Signature, arguments and an example stand where a name links to.\n"]
    for page in pages:
        parts += [f"## {CONFIG.lib_name}.{page.address}\n", f"{page.subtitle}\n", "{.names}", "| | |", "|---|---|"]
        for name in page.names():
            summary = (inspect.getdoc(page.thing(name)) or "").partition("\n\n")[0]
            parts.append(f"| [`{name}`](#{page.label(name)}) | {table_cell(summary)} |")
        parts.append("")
    (PAGES / "reference.md").write_text("\n".join(parts), encoding="utf-8")


def write_sources():
    "The modules themselves, as pages that `source` links point into; they stay out of the search."
    (PAGES / "source").mkdir()
    formatter = HtmlFormatter(lineanchors="L", linenos="inline", anchorlinenos=True)
    modules = sorted(path for path in CONFIG.lib_path.glob("*.py") if not path.name.startswith("_"))
    for path in modules:
        html = highlight(path.read_text(encoding="utf-8"), PythonLexer(), formatter)
        body = f"---\nnosearch: true\norphan: true\n---\n# {path.name}\n\n```{{raw}} html\n{html}\n```\n"
        (PAGES / "source" / f"{path.stem}.md").write_text(body, encoding="utf-8")


def write_papers():
    "The changelog and the guide for contributors, whose links between files become links to the repository."
    for name in ("CHANGELOG.md", "CONTRIBUTING.md"):
        body = (ROOT / name).read_text(encoding="utf-8")
        body = re.sub(r"\]\((?!https?:|#)([^)]+)\)", rf"]({CONFIG.git_url}/blob/{CONFIG.branch}/\1)", body)
        (PAGES / name.lower()).write_text(body, encoding="utf-8")


def write_pages():
    pages = [Page(path) for path in sorted(PROCESSED.rglob("*.ipynb"))]
    names_of = {page.address: {name: page.label(name) for name in page.names()} for page in pages}
    index = next(page for page in pages if page.address == "index")
    contents = "".join(text(cell["source"]) for cell in index.notebook["cells"])  # tutorials come in the order of its list
    tutorials = sorted((page for page in pages if page.address.startswith("tutorials/")), key=lambda page: contents.find(page.address))
    notebooks = [page for page in pages if page not in (index, *tutorials)]
    sections = ["notebooks", *(["learn"] if tutorials else []), "reference", "changelog", "contributing"]
    index.write(names_of, ending=toctree(sections))
    for page in (*notebooks, *tutorials):
        page.write(names_of)
    write_list("notebooks", "Notebooks", "The package, in the order in which it is built: each notebook is a module, "
               "its explanation, its tests and its examples.", notebooks)
    if tutorials:
        write_list("learn", "Tutorials", "One task each, from beginning to end.", tutorials)
    write_reference([page for page in notebooks if page.things])
    write_sources()
    write_papers()


def main():
    shutil.rmtree(PAGES, ignore_errors=True)
    shutil.rmtree(CONFIG.doc_path, ignore_errors=True)
    PAGES.mkdir()
    proc_nbs(n_workers=0, force=True)
    write_pages()
    shutil.copytree(CONFIG.nbs_path / "images", PAGES / "images")
    shutil.copytree(HERE / "_static", PAGES / "_static")
    shutil.copy(Path(plotly.__file__).parent / "package_data" / "plotly.min.js", PAGES / "_static")
    sphinx = [sys.executable, "-m", "sphinx", "--quiet", "--fail-on-warning", "--keep-going", "--builder", "html"]
    folders = ["--conf-dir", HERE, "--doctree-dir", PAGES / ".doctrees", PAGES, CONFIG.doc_path]
    sys.exit(subprocess.call([*sphinx, *folders]))


if __name__ == "__main__":
    main()
