"""The tutorial's commands work: its notebook, which is generated from the page, is executed with short trainings."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest

DOCS = Path(__file__).parents[1] / "docs"
SHORTER = {  # 500 iterations per training in place of 10,000, and two prunings
    "scale 0.2": "scale 0.01",
    "scale0.2": "scale0.01",
    "--levels 10": "--levels 2",
    "level=10": "level=2",
}


def generated() -> Any:
    spec = importlib.util.spec_from_file_location("docs_notebook", DOCS / "notebook.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.notebook((DOCS / "tutorial.md").read_text(encoding="utf-8"))


def test_the_notebook_is_made_from_the_page() -> None:
    assert nbformat.read(DOCS / "tutorial.ipynb", as_version=4) == generated(), "type: python docs/notebook.py"


def test_the_notebook_runs(data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbclient = pytest.importorskip("nbclient", reason="not installed: nbclient (pip install 'lth[dev]')")
    monkeypatch.setenv("LTH_DATA", str(data_root))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    monkeypatch.setenv("COLUMNS", "120")
    text = nbformat.writes(nbformat.read(DOCS / "tutorial.ipynb", as_version=4))
    for full, short in SHORTER.items():
        assert full in text
        text = text.replace(full, short)
    notebook = nbformat.reads(text, as_version=4)
    nbclient.NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    shown = ["".join(str(o.get("text", o.get("data", ""))) for o in cell.outputs) for cell in cells]
    assert len(cells) > 10 and "Usage" not in "".join(shown) and "lth: " not in "".join(shown)
    table = next(output for cell, output in zip(cells, shown, strict=True) if cell.source.startswith("!lth run lenet"))
    assert "level" in table and "report.html (open it in a web browser)" in table
    assert (tmp_path / "runs/lenet-scale0.01/comparison.csv").is_file()
