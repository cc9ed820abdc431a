"""The built site, as a reader meets it: links, anchors, search, and every page in a browser that is offline.

`make docs` builds it in _docs; where it is older than a notebook, it is built here.
"""
import functools
import re
import subprocess
import sys
import threading
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

import pytest

ROOT = Path(__file__).resolve().parent.parent
SITE = ROOT / "_docs"
SOURCES = [
    path
    for folder, pattern in (("nbs", "**/*.ipynb"), ("docs", "*.py"), ("docs/_static", "*.*"), ("starscape", "*.py"), (".", "C*.md"))
    for path in (ROOT / folder).glob(pattern)
]


class Links(HTMLParser):
    "The ids of a page, and what it refers to."

    def __init__(self, path):
        super().__init__()
        self.ids, self.references = set(), []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.ids.update(filter(None, (attributes.get("id"), attributes.get("name"))))
        reference = attributes.get("href") or attributes.get("src")
        if reference is not None and tag != "base":
            self.references.append((tag, reference))


@pytest.fixture(scope="session")
def site():
    "The folder of the site, built anew unless it is younger than all that it is made from."
    built = SITE / "index.html"
    if not built.exists() or any(path.stat().st_mtime > built.stat().st_mtime for path in SOURCES):
        result = subprocess.run([sys.executable, ROOT / "docs" / "build.py"], cwd=ROOT, capture_output=True, text=True)
        assert result.returncode == 0, result.stdout + result.stderr
    return SITE


@pytest.fixture(scope="session")
def pages(site):
    return {path.relative_to(site).as_posix(): Links(path) for path in sorted(site.rglob("*.html"))
            if "_static" not in path.parts}


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="session")
def address(site):
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(QuietHandler, directory=site))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


def test_every_notebook_has_a_page(pages):
    notebooks = [path.relative_to(ROOT / "nbs") for path in (ROOT / "nbs").rglob("*.ipynb")
                 if not any(part.startswith((".", "_")) for part in path.parts[len(ROOT.parts):])]
    names = {path.with_name(re.sub(r"^\d+[a-z]*_", "", path.stem) + ".html").as_posix() for path in notebooks}
    assert names <= set(pages)


def test_links_and_anchors_hold(site, pages):
    broken = []
    for name, page in pages.items():
        for _, reference in page.references:
            address, anchor = urldefrag(reference)
            address = address.partition("?")[0]
            if urlsplit(address).scheme or address.startswith("//"):
                continue
            target = (site / name).parent / unquote(address) if address else site / name
            if target.is_dir():
                target /= "index.html"
            target = target.resolve()
            if not target.is_file():
                broken.append(f"{name}: {reference}")
            elif anchor and target.suffix == ".html" and unquote(anchor) not in pages[str(target.relative_to(site))].ids:
                broken.append(f"{name}: {reference} (no such anchor)")
    assert broken == []


def test_nothing_is_loaded_from_another_host(pages):
    loaded = [f"{name}: {reference}" for name, page in pages.items() for tag, reference in page.references
              if tag not in ("a", "link") and urlsplit(reference).netloc]
    styles = [f"{name}: {reference}" for name, page in pages.items() for tag, reference in page.references
              if tag == "link" and reference.endswith((".css", ".js")) and urlsplit(reference).netloc]
    assert loaded + styles == []


WITHIN = "drawing => drawing.getBoundingClientRect().right <= drawing.closest('.cell_output').getBoundingClientRect().right + 1"


def test_every_page_opens_offline_without_an_error(address, pages, page):
    "The `page` fixture collects console errors and requests to other hosts, and fails the test if there are any."
    for name in pages:
        page.goto(address + name)
        page.wait_for_selector("html[data-ready=true]", timeout=20_000)
        for figure in page.locator("script[data-figure]").all():
            drawing = page.locator(f'[id="{figure.get_attribute("data-figure")}"] svg.main-svg')
            assert drawing.count() > 0, f"{name}: a figure was not drawn"
            assert drawing.first.evaluate(WITHIN), f"{name}: a figure is wider than its column"
        for panel in page.locator("script[data-panel]").all():
            drawing = page.locator(f'[id="{panel.get_attribute("data-panel")}"] svg.main-svg')
            assert drawing.count() > 0, f"{name}: a panel was not drawn"
        assert page.locator(".katex-error").count() == 0, f"{name}: mathematics that cannot be shown"


def test_a_panel_answers_without_a_kernel(address, page):
    page.goto(address + "star_training.html")
    panel = page.locator("div.panel").first
    axis = panel.locator(".ytitle").first
    axis.wait_for()
    assert "Loss" in axis.text_content()
    panel.get_by_text("Accuracy", exact=True).first.click()
    page.wait_for_function("title => title.textContent.includes('Accuracy')", arg=axis.element_handle(), timeout=5_000)


def test_search_finds_a_function(address, page):
    page.goto(address + "search.html?q=load_task")
    first = page.locator("ul.search a").first
    first.wait_for(timeout=20_000)
    assert "data.html" in first.get_attribute("href")


def test_reference_names_lead_to_their_documentation(address, page):
    page.goto(address + "reference.html")
    page.get_by_role("link", name="load_task", exact=True).click()
    page.wait_for_url("**/data.html#*")
    assert page.locator(":target").inner_text().startswith("load_task")


def test_dark_theme_reaches_the_page(address, page):
    page.emulate_media(color_scheme="dark")
    page.goto(address)
    page.wait_for_selector("html[data-theme=dark]")
    red, green, blue = map(int, re.findall(r"\d+", page.evaluate("getComputedStyle(document.body).backgroundColor"))[:3])
    assert max(red, green, blue) < 80
