"""README.md from nbs/index.ipynb, through nbdev's own processors and without Quarto.

    python tools/readme.py            write README.md
    python tools/readme.py --check    fail when README.md is not what the notebook gives
"""
import os
import re
import sys

import yaml
from execnb.nbio import read_nb
from nbdev.config import get_config
from nbdev.processors import FilterDefaults

LOCAL_LINK = re.compile(r"(\]\(|(?:src|href)=\")(?!https?:|mailto:|#)")


def heading(cell):
    "Title and subtitle, which nbdev's processors have put into front matter."
    front_matter = yaml.safe_load(cell.source.strip().strip("-"))
    parts = [f"# {front_matter['title']}"]
    return [*parts, f"> {front_matter['description']}"] if "description" in front_matter else parts


def code(cell):
    "The source, unless hidden, and what it printed."
    parts = []
    if not re.search(r"^#\|\s*echo:\s*false", cell.source, re.MULTILINE):
        source = re.sub(r"^#\|.*\n?", "", cell.source, flags=re.MULTILINE).strip()
        parts.append(f"```python\n{source}\n```")
    for output in cell.outputs:
        data = output.get("data", {})
        text = "".join(data.get("text/markdown") or data.get("text/plain") or output.get("text", ""))
        if "text/markdown" in data:
            parts.append(text.strip())
        elif text:
            parts.append(f"```\n{text.rstrip()}\n```")
    return parts


def readme(path, folder):
    "Markdown of the notebook at `path`; its links, which are relative to `folder`, made relative to the repository."
    os.environ["IN_TEST"] = "1"
    notebook = read_nb(path)
    FilterDefaults()(notebook)
    parts = []
    for cell in notebook.cells:
        if cell.cell_type == "raw":
            parts += heading(cell)
        elif cell.cell_type == "markdown":
            parts.append(LOCAL_LINK.sub(rf"\g<1>{folder}/", cell.source.strip()))
        else:
            parts += code(cell)
    return "\n\n".join(parts).replace(f"{folder}/../", "") + "\n"


def main(arguments):
    config = get_config()
    target = config.config_path / "README.md"
    text = readme(config.nbs_path / config.readme_nb, config.nbs_path.name)
    if "--check" not in arguments:
        target.write_text(text, encoding="utf-8")
    elif not target.exists() or target.read_text(encoding="utf-8") != text:
        sys.exit(f"README.md is not what nbs/{config.readme_nb} gives: run `python tools/readme.py` and commit both.")


if __name__ == "__main__":
    main(sys.argv[1:])
