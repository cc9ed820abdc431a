"""What the package depends on: few, bounded, each with a reason; whole on this machine; and no network unless it was asked for.

This is no audit against a database of known holes, which takes a network: it holds what can be seen offline."""
import re
import subprocess
import sys
from importlib.metadata import distribution

import pytest
from packaging.requirements import Requirement
from test_house import ROOT, SETTINGS

REQUIREMENTS = {key: [Requirement(r) for r in SETTINGS["DEFAULT"][f"{key}requirements"].split()] for key in ("", *(k.removesuffix("requirements") for k in SETTINGS["DEFAULT"] if k.endswith("_requirements")))}
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split("## Dependencies")[1].split("\n## ")[0]
ROWS = {name.strip() for row in re.findall(r"^\| ([^|]+) \|", TEXT, re.MULTILINE) for name in re.sub(r"\(.*?\)", "", row).split(",")} - {"dependency", "---"}


def test_each_has_a_row_and_each_row_is_one():
    assert {r.name for key in REQUIREMENTS if key != "dev_" for r in REQUIREMENTS[key]} == ROWS
    developing = TEXT.split("For development only")[1]
    assert [r.name for r in REQUIREMENTS["dev_"] if r.name not in developing] == []


@pytest.mark.parametrize("requirement", [r for key, rs in REQUIREMENTS.items() if key != "bench_" for r in rs], ids=str)  # the benchmarks' are not installed by `make test`
def test_each_is_bounded_and_whole(requirement):
    "An upper bound; a version within it; a licence; and the files that its own record lists, each with a hash."
    assert {s.operator for s in requirement.specifier} & {"<", "<=", "=="}, "no upper bound"
    found = distribution(requirement.name)
    assert requirement.specifier.contains(found.version, prereleases=True)
    meta = found.metadata
    licence = [meta.get("License-Expression"), meta.get("License"), *(c for c in meta.get_all("Classifier") or () if c.startswith("License")), *(meta.get_all("License-File") or ())]
    assert any(licence), "says nothing of its licence"
    code = [f for f in found.files or () if f.suffix == ".py" and ".dist-info" not in str(f)]
    assert code and all(f.hash for f in code), "its record lacks hashes"
    assert not [f for f in code if not f.locate().exists()], "files are missing"


WITHOUT_NETWORK = """
import socket, sys, tempfile
def refuse(event, args):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "urllib.Request") and not (args and isinstance(args[-1], str) and event == "socket.connect"):
        raise SystemExit(f"network: {event} {args}")
sys.addaudithook(refuse)
"""


def test_no_network_at_import_or_at_work():
    program = WITHOUT_NETWORK + """
import pkgutil, importlib, starscape
for module in pkgutil.iter_modules(starscape.__path__):
    importlib.import_module("starscape." + module.name)
from starscape.cli import Demo, run_demo
run_demo(tempfile.mkdtemp(), Demo(width=8, depth=1, n_sources=2, n_heldout=1, epochs=2, star_epochs=2, points=3))
from starscape.data import DataError, load_task
for name in ("mnist", "cifar10", "ag_news"):
    try: load_task(name, root=tempfile.mkdtemp())
    except DataError: pass
print("no network")
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=240)
    assert result.stdout.endswith("no network\n"), result.stdout + result.stderr


def test_the_refusal_refuses():
    program = WITHOUT_NETWORK + "import urllib.request; urllib.request.urlopen('http://localhost:9')"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert result.returncode and "network: " in result.stderr
