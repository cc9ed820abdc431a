"""Fail when a notebook is not clean, or when the package is not what the notebooks export.

    python tools/check_notebooks.py

nbdev_clean and nbdev_export run in a temporary copy, which is then compared with the working tree: nothing here is
changed, and it makes no difference what is committed and what is not.
"""
import difflib
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def nbdev(command, folder):
    "Run one of nbdev's commands, from this environment, in `folder`."
    result = subprocess.run([Path(sys.executable).parent / command], cwd=folder, capture_output=True, text=True)
    if result.returncode:
        sys.exit(f"{command} failed:\n{result.stdout}{result.stderr}")


def texts(folder, pattern):
    "Relative path -> lines, of the files under `folder` that match; what begins with a dot or `_proc` is left out."
    paths = [path.relative_to(folder) for path in folder.rglob(pattern)]
    wanted = sorted(path for path in paths if not any(part.startswith((".", "_proc")) for part in path.parts))
    return {path: (folder / path).read_text(encoding="utf-8").splitlines() for path in wanted}


def differences(copy, folder, pattern, complaint):
    "One message for each file that is not the same in the working tree and in the copy that nbdev went over."
    here, made = texts(ROOT / folder, pattern), texts(copy / folder, pattern)
    for name in sorted(here.keys() | made.keys()):
        old, new = here.get(name, []), made.get(name, [])
        if old != new:
            diff = difflib.unified_diff(old, new, "as it is", "as nbdev gives it", lineterm="", n=1)
            yield "\n    ".join([f"{folder}/{name} {complaint}", *(line[:160] for line in list(diff)[:12])])


def main():
    with tempfile.TemporaryDirectory() as temporary:
        copy = Path(temporary)
        hidden = shutil.ignore_patterns(".*", "_proc", "__pycache__")
        shutil.copy(ROOT / "settings.ini", copy)
        shutil.copytree(ROOT / "nbs", copy / "nbs", ignore=hidden)
        (copy / "starscape").mkdir()
        shutil.copy(ROOT / "starscape" / "__init__.py", copy / "starscape")
        nbdev("nbdev_clean", copy)
        nbdev("nbdev_export", copy)
        problems = [
            *differences(copy, "nbs", "*.ipynb", "is not clean: run `nbdev_clean`"),
            *differences(copy, "starscape", "*.py", "is not what the notebooks export: run `nbdev_export`"),
        ]
    if problems:
        sys.exit("\n".join(problems))
    print("Notebooks are clean, and the package is what they export.")


if __name__ == "__main__":
    main()
