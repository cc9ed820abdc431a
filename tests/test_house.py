"The house rules: what each floor may import, what importing costs, and that the papers of the project agree."
import ast
import configparser
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import starscape

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = Path(starscape.__file__).parent
SETTINGS = configparser.ConfigParser(delimiters=["="])
SETTINGS.read(ROOT / "settings.ini", encoding="utf-8")
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

FLOORS = [layer.strip("()") for layer in PYPROJECT["tool"]["importlinter"]["contracts"][0]["layers"]]
COMPUTE_FLOORS = [floor for floor in FLOORS if floor not in ("viz", "cli")]
COMPUTE_MODULES = [name for name in COMPUTE_FLOORS if (PACKAGE / f"{name}.py").exists()]
COMPUTE_DEPENDENCIES = [
    "torch", "torchvision", "scipy", "numpy", "pandas", "sklearn", "safetensors", "torchmetrics", "joblib",
    "tqdm", "filelock", "lap", "mlxtend", "starscape",
]
JUPYTER = [
    "IPython", "ipywidgets", "ipykernel", "jupyter_client", "jupyterlab", "notebook", "anywidget", "plotly",
    "nbdev", "fastcore", "execnb",
]
HEAVY = ["torchvision", "sklearn", "torchmetrics", "matplotlib", "mlxtend"]
WITHOUT_JUPYTER = f"""
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {JUPYTER}:
            raise ImportError("blocked: " + name)
sys.meta_path.insert(0, Blocked())
"""


def run_python(program):
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=240)


def imports(path):
    "Names of the top-level packages that a file imports anywhere, inside functions too."
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "starscape" if node.level else node.module.partition(".")[0]


def tracked_files(*suffixes):
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, text=True
    )
    if listing.returncode:
        pytest.skip("not a git checkout")
    paths = [ROOT / name for name in listing.stdout.split("\0") if name.endswith(suffixes)]
    return [path for path in paths if path.is_file()]


def test_floors_are_the_notebooks_in_their_order():
    "The layers that import-linter holds are the modules of the notebooks, the last notebook on top."
    exports = [
        re.search(r"#\| default_exp (\w+)", path.read_text(encoding="utf-8"))
        for path in sorted((ROOT / "nbs").glob("*.ipynb"))
    ]
    modules = [export[1] for export in exports if export]
    assert [floor for floor in reversed(FLOORS) if floor in modules] == modules
    assert {path.stem for path in PACKAGE.glob("*.py")} - {"__init__", "_modidx"} == set(modules)


@pytest.mark.parametrize("module", COMPUTE_MODULES)
def test_compute_module_needs_only_compute_packages(module):
    allowed = {*COMPUTE_DEPENDENCIES, *sys.stdlib_module_names}
    if module == "paper":
        allowed.add("plotly")  # its figures; inside functions only, as the next test sees
    assert set(imports(PACKAGE / f"{module}.py")) <= allowed


def test_compute_modules_import_without_jupyter():
    program = WITHOUT_JUPYTER + "\n".join(f"import starscape.{module}" for module in COMPUTE_MODULES)
    result = run_python(program)
    assert result.returncode == 0, result.stderr


def test_the_block_on_jupyter_blocks():
    "Without this, the test above could pass because nothing is blocked."
    result = run_python(WITHOUT_JUPYTER + "import ipywidgets")
    assert result.returncode != 0 and "blocked: ipywidgets" in result.stderr


def test_importing_costs_little_beyond_torch():
    "torch itself is loaded first: what it brings along is not this package's doing."
    program = f"""
import importlib, sys, torch
before = set(sys.modules)
for module in {COMPUTE_MODULES}:
    importlib.import_module("starscape." + module)
    print(*(f"{{module}} loads {{name}};" for name in {HEAVY} if name in sys.modules and name not in before))
"""
    result = run_python(program)
    assert result.returncode == 0, result.stderr
    assert len(result.stdout.splitlines()) == len(COMPUTE_MODULES) and result.stdout.split() == []


def test_versions_agree():
    version = SETTINGS["DEFAULT"]["version"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert starscape.__version__ == version
    assert str(citation["version"]) == version
    assert newest[1] == version


def test_licences_agree():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert (ROOT / "LICENSE").read_text(encoding="utf-8").startswith(citation["license"])
    assert SETTINGS["DEFAULT"]["license"].upper() == citation["license"]


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_commands_in_the_papers_exist(name):
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    named = re.findall(r"(?:`|^)make ([a-z]+)", (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE)
    assert named and set(named) <= set(targets)


def test_ci_runs_what_the_readme_says():
    assert "make test" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()[-1] == "make test"


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_between_files_hold(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    local = re.findall(r"(?:\]\(|src=\")(?!https?:|mailto:|#)([^)\"#\s]+)", text)
    assert [link for link in local if not (ROOT / link).exists()] == []


def test_no_file_names_a_place_on_somebodys_machine():
    place = re.compile(r"/(?:home|Users|root|work)/\w")
    suffixes = (".py", ".ipynb", ".md", ".js", ".css", ".ini", ".toml", ".yml", ".yaml", ".cff", ".csv", "Makefile", ".sh")
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}"
        for path in tracked_files(*suffixes)
        if path != Path(__file__)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if place.search(line)
    ]
    assert found == []


def test_an_installed_package_has_every_file(tmp_path):
    "Modules, front end, published numbers and the example zoo: whatever lies in starscape/ is packaged."
    build = [sys.executable, "setup.py", "--quiet", "build", "--build-base", tmp_path, "--build-lib", tmp_path / "lib"]
    result = subprocess.run(build, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    here = {path.relative_to(PACKAGE) for path in tracked_files("") if PACKAGE in path.parents}
    packaged = {path.relative_to(tmp_path / "lib" / "starscape") for path in tmp_path.rglob("*") if path.is_file()}
    assert here == packaged
