"""Write docs/tutorial.ipynb from docs/tutorial.md: `python docs/notebook.py`.

tests/test_tutorial.py checks that the two agree and executes the notebook.
"""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
from nbformat import v4

HERE = Path(__file__).parent
FENCE = re.compile(r"^```(sh|python)\n(.*?)^```\n", re.DOTALL | re.MULTILINE)
SKIPPED = {"tags": ["skip-execution"]}  # nbclient does not run such cells: the tests have lth installed


def notebook(page: str) -> nbformat.NotebookNode:
    """The page as a notebook: shell and Python blocks become code cells, the rest becomes Markdown cells."""
    cells, end = [], 0
    for block in FENCE.finditer(page):
        cells += markdown(page[end : block.start()])
        language, code = block.groups()
        installs = "pip install" in code
        lines = code.strip().split("\n")
        source = "\n".join(f"!{line}" for line in lines) if language == "sh" else code.strip()
        cells.append(v4.new_code_cell(source, metadata=SKIPPED if installs else {}))
        end = block.end()
    cells += markdown(page[end:])
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number}"  # nbformat's own ids are random
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return v4.new_notebook(cells=cells, metadata={"kernelspec": kernel, "language_info": {"name": "python"}})


def markdown(text: str) -> list[nbformat.NotebookNode]:
    return [v4.new_markdown_cell(text.strip())] if text.strip() else []


if __name__ == "__main__":
    nbformat.write(notebook((HERE / "tutorial.md").read_text(encoding="utf-8")), HERE / "tutorial.ipynb")
