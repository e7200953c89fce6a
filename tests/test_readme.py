"""What the README tells people to type is what works."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

import lth
from lth import config
from lth.cli import app

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
INDENTED = [line.strip() for line in README.splitlines() if line.startswith("    ")]
COMMANDS = [
    command.strip()
    for line in INDENTED
    for command in re.split(r"[;>]", line.split("  #")[0])
    if command.strip().startswith("lth ")
]


def test_the_readme_has_commands() -> None:
    assert len(COMMANDS) > 8


@pytest.mark.parametrize("command", COMMANDS)
def test_its_commands_parse(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Options, presets and keys exist; files that an earlier line writes are written here."""
    monkeypatch.chdir(tmp_path)
    Path("mine.toml").write_text(config.to_toml(config.resolve("lenet")))
    _, name, *arguments = shlex.split(command)
    group = typer.main.get_command(app)
    parsed = group.commands[name].make_context(name, arguments).params  # type: ignore[attr-defined]
    if name in ("run", "show"):
        known = {key: parsed[key] for key in ("trials", "levels", "branches", "scale") if key in parsed}
        if parsed.get("ticket") and not parsed["source"]:
            return  # the ticket itself says how it was trained
        for settings in config.sweep(parsed["settings"] or ()):
            assert config.resolve(parsed["source"], settings, **known)


def test_its_make_targets_exist() -> None:
    targets = re.findall(r"^    make (\w+)", README, re.MULTILINE)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert {"demo", "test"} <= set(targets)
    needed = [target for target in targets if target != "install"]
    assert all(re.search(rf"^{target}: (install|develop)$", makefile, re.MULTILINE) for target in needed)


def test_the_demo_is_the_readmes() -> None:
    """`make demo` types the command that the README shows for people without make."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    demo = re.search(r"^demo: install\n\t\$\(BIN\)/(lth .*)$", makefile, re.MULTILINE)
    assert demo and demo[1] in COMMANDS


def test_its_python_runs(tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    small = lambda name, trials, levels: lth.execution.running.run(  # type: ignore[attr-defined]
        tiny, trials=trials, levels=levels, out=f"runs/{name}", engine="torch", workers=1
    )
    monkeypatch.setattr(lth, "run", small, raising=False)
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert blocks
    names: dict[str, Any] = {}
    for block in blocks:
        exec(block, names)
    assert len(names["run"].summary) == 18 and 0 < names["ticket"].density < 1
    assert names["tickets"][3].density < names["tickets"][2].density < 1


def test_its_pictures_are_there() -> None:
    links = re.findall(r"\]\(((?!http)[^)]+)\)", README)
    assert links and all((ROOT / link).exists() for link in links)
