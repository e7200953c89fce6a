"""The docs build without a warning, their reference has all that the code has, and what they tell to type works."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import typer

import lth
import test_imports
from lth import config
from lth.cli import app

pytestmark = pytest.mark.usefixtures("one_thread")
ROOT = Path(__file__).parents[1]
PAGES = {path.name: path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("*.md"))}
COMMANDS = [
    (page, command.strip())
    for page, text in PAGES.items()
    for line in text.splitlines()
    for command in re.split(r";", line.split("  #")[0])
    if line.startswith("    ") and command.strip().startswith("lth ")
]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not find_spec("material"):
        pytest.skip("not installed: mkdocs-material (pip install 'lth[docs]')")
    folder = tmp_path_factory.mktemp("site")
    command = ["-m", "mkdocs", "build", "--strict", "--config-file", ROOT / "mkdocs.yml", "--site-dir", folder]
    built = subprocess.run(
        [sys.executable, *command],
        capture_output=True, text=True, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, check=False,
    )  # fmt: skip
    assert built.returncode == 0 and "WARNING" not in built.stderr, built.stderr
    return folder


def test_the_site_has_every_page(site: Path) -> None:
    for name in PAGES:
        assert (site / ("index.html" if name == "index.md" else f"{name.removesuffix('.md')}/index.html")).is_file()


def test_the_reference_has_all_that_the_code_has(site: Path) -> None:
    page = lambda name: (site / "reference" / name / "index.html").read_text(encoding="utf-8")
    ids = re.findall(r'<h[23] id="([^"]+)"', page("python"))
    assert {name.rpartition(".")[2] for name in ids} >= {*lth.__all__} - {"Recipe"} and "recipe" in ids
    members = {name.removeprefix("lth.tickets.") for name in ids}
    assert {"ticket.Ticket.save", "ticket.Ticket.density", "ticket.Ticket.mask", "imp.Tickets.winning"} <= members
    assert "Keep pruned weights of" in page("python") and "Raises UsageError" in page("python")
    assert all(f"<code>{key}</code>" in page("settings") for key in [*config.keys()])
    group: Any = typer.main.get_command(app)
    assert all(
        f'id="lth-{name}"' in page("commands") for name, c in group.commands.items() if not hasattr(c, "commands")
    )
    assert 'id="lth-data-fetch"' in page("commands") and "<code>--branches</code>" in page("commands")


@pytest.mark.parametrize(("page", "command"), COMMANDS)
def test_their_commands_parse(page: str, command: str) -> None:
    _, name, *arguments = shlex.split(command)
    group = typer.main.get_command(app)
    parsed = group.commands[name].make_context(name, arguments).params  # type: ignore[attr-defined]
    if name == "run" and not parsed["ticket"]:
        known = {key: parsed[key] for key in ("trials", "levels", "branches", "scale")}
        for settings in config.sweep(parsed["settings"] or ()):
            assert config.resolve(parsed["source"], settings, **known)


@pytest.mark.parametrize(
    "page",
    [name for name, text in PAGES.items() if "```python" in text and name != "tutorial.md"],  # see test_tutorial
)
def test_their_python_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks of a page, one after the other."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": page}
    for block in re.findall(r"```python\n(.*?)```", PAGES[page], re.DOTALL):
        exec(block, names)


def test_the_picture_of_the_packages_has_them_in_the_order_of_imports() -> None:
    picture = (ROOT / "docs" / "packages.svg").read_text(encoding="utf-8")
    names = [name for box in re.findall(r'font-weight="bold">([^<]+)<', picture) for name in box.split(", ")]
    assert tuple(names) == test_imports.ORDER
