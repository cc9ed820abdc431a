"What tests share: how many random inputs hypothesis tries, and a browser that may not leave this machine."
import contextlib
import json
import os
import platform
import shutil
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import torch
from hypothesis import settings

settings.register_profile("default", deadline=None)
settings.register_profile("soak", deadline=None, max_examples=2000)
settings.load_profile("default")



class Tally:
    "What was done to the package, how often, and how often something was lost by it."

    def __init__(self):
        self.tried, self.lost = Counter(), Counter()

    @contextlib.contextmanager
    def __call__(self, what, n=1):
        "`n` trials; an exception counts as a loss."
        self.tried[what] += n
        self.lost[what] += 1
        yield
        self.lost[what] -= 1

    def rows(self):
        return [{"what": what, "tried": n, "lost": self.lost[what]} for what, n in sorted(self.tried.items())]


TALLY = Tally()


@pytest.fixture(scope="session")
def tally():
    return TALLY


@pytest.fixture(scope="session")
def analysis(tmp_path_factory):
    "A small analysis that nobody disturbed, and processes to do it again: see stages.py."
    from stages import Analysis, Children

    children = Children()
    yield Analysis(children, tmp_path_factory.mktemp("undisturbed"))
    children.close()


def pytest_addoption(parser):
    parser.addoption("--tally", metavar="FILE", help="write what was tried and what was lost as JSON")


def pytest_terminal_summary(terminalreporter, config):
    if not TALLY.tried:
        return
    terminalreporter.section("what was tried, and what was lost")
    rows = [("", "tried", "lost"), *((r["what"], f"{r['tried']:,}", f"{r['lost']:,}") for r in TALLY.rows())]
    rows.append(("all", f"{sum(TALLY.tried.values()):,}", f"{sum(TALLY.lost.values()):,}"))
    width = max(len(r[0]) for r in rows)
    for what, tried, lost in rows:
        terminalreporter.write_line(f"{what:{width}} {tried:>9} {lost:>6}")
    if path := config.getoption("--tally"):
        environment = {"python": platform.python_version(), "torch": str(torch.__version__), "system": platform.system(), "cpus": os.cpu_count()}
        Path(path).write_text(json.dumps({"environment": environment, "rows": TALLY.rows()}, indent=1) + "\n")


CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--no-first-run",
    "--disable-component-update",
    "--disable-sync",
)
LOCAL_SCHEMES = {"file", "data", "blob", "about"}
LOCAL_HOSTS = {"127.0.0.1", "localhost"}


def is_local(url):
    parts = urlsplit(url)
    return parts.scheme in LOCAL_SCHEMES or parts.hostname in LOCAL_HOSTS


@pytest.fixture(scope="session")
def browser():
    "The Chromium of this machine, driven by playwright."
    if os.environ.get("BROWSER_TESTS") == "no":
        pytest.skip("BROWSER_TESTS=no")
    executable = next(filter(None, map(shutil.which, CHROMIUM_NAMES)), None)
    if executable is None:
        pytest.fail("no chromium or google-chrome on PATH: install one, or set BROWSER_TESTS=no")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=executable, args=CHROMIUM_FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser):
    """A page on which only local addresses load. When the test is over, `page.problems` has to be empty: it lists
    console errors, uncaught exceptions, and requests that went to another host or failed."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.problems = []

    def local_only(route):
        if is_local(route.request.url):
            route.continue_()
        else:
            page.problems.append(f"request to another host: {route.request.url}")
            route.abort()

    def console(message):
        if message.type == "error":
            page.problems.append(f"console error: {message.text}")

    context.route("**/*", local_only)
    page.on("console", console)
    page.on("pageerror", lambda error: page.problems.append(f"uncaught exception: {error}"))
    page.on("response", lambda r: page.problems.append(f"{r.status} {r.url}") if r.status >= 400 else None)
    yield page
    context.close()
    assert not page.problems, "\n".join(page.problems)
