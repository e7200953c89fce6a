"""Imports go one way (design, section 4), names have one owner, and light commands stay light."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path

import pytest

import lth
import lth.config.registry
from lth import config
from lth.storage import layout

SOURCE = Path(lth.__file__).parent
# A total order: each package imports from those before it. Inside a package imports are free, without circles.
ORDER = (
    *("errors", "randomness", "config", "plan", "storage", "results", "data", "models", "pruning", "native"),
    *("training", "tickets", "measures", "papers", "report", "execution", "machine", "cli"),
)
RANK = {name: rank for rank, name in enumerate((*ORDER, "__main__"))}
MODULES = sorted(path for path in SOURCE.rglob("*.py") if path != SOURCE / "__init__.py")


def part(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """The parts of lth that a module imports, wherever in its text."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0 and node.module.split(".")[0] == "lth":
            below = node.module.split(".")[1:]
            found |= {below[0]} if below else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("lth.")}
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_go_one_way(path: Path) -> None:
    assert part(path) in RANK, f"give {part(path)} its place in ORDER"
    later = {name for name in imported(path) if RANK[name] > RANK[part(path)]}
    assert not later, f"{path.name} imports {later}, which stand below it"


def loaded_by(code: str) -> set[str]:
    command = [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"]
    return set(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())


@pytest.mark.parametrize(
    "module",
    [
        "config",
        "plan",
        "storage.runs",
        "results.tables",
        "results.terminal",
        "papers.card",
        "papers.drawing",
        "papers.behind",
        "measures.tables",
        "results.plots",
        "report.page",
        "storage.integrity",
        "execution.repair",
        "machine.doctor",
        "cli",
    ],
)
def test_the_line_of_records_has_no_torch(module: str) -> None:
    assert "torch" not in loaded_by(f"import lth.{module}")


@pytest.mark.parametrize(
    "arguments", [["--help"], ["list"], ["list", "branches"], ["show", "lenet"], ["data", "list"], ["verify", "--help"]]
)
def test_light_commands_never_import_torch(arguments: list[str]) -> None:
    code = (
        f"import sys; sys.argv = ['lth', *{arguments}]\nfrom lth.cli import main\ntry: main()\nexcept SystemExit: pass"
    )
    assert "torch" not in loaded_by(code)


RULES = [*config.registry.MASK_RULES.items(), *config.registry.START_RULES.items()]


@pytest.mark.parametrize(("name", "rule"), RULES, ids=[name for name, _ in RULES])
def test_a_rule_reads_what_its_parameters_name(name: str, rule: config.registry.Rule) -> None:
    """The entry says it without an import of torch, the function by its parameters."""
    asked = {*inspect.signature(rule.load()).parameters}
    assert asked & {"mask", "trained", "given"} == {*rule.reads} or (name in ("noise", "sampled") and "mask" in asked)
    assert ("sigma" in asked) == ("sigma" in rule.options)


def test_every_entry_that_names_its_implementation_loads_it() -> None:
    for entries in config.registry.KINDS.values():
        for entry in entries.values():
            assert not entry.make or entry.load() is not None


def test_branches_are_made_of_control_rules() -> None:
    for branch in config.registry.BRANCHES.values():
        assert config.registry.MASK_RULES[branch.mask].control and config.registry.START_RULES[branch.start].control


def test_public_names_are_there() -> None:
    for name in lth.__all__:
        assert getattr(lth, name).__name__ == name


# ------------------------------------------------------------------------------------------------- inside the packages


def imported_at_once(path: Path, modules: Collection[str]) -> set[str]:
    """The modules of lth that a module imports when it is imported itself, without those for type checkers."""
    names = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "lth":
            inside = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= inside & {*modules} or {node.module}
    return names & {*modules}


def test_there_are_no_circles_inside_a_package() -> None:
    named = {path: ".".join(path.relative_to(SOURCE.parent).with_suffix("").parts) for path in MODULES}
    of = {name.removesuffix(".__init__"): path for path, name in named.items()}
    graph = {name: sorted(imported_at_once(path, of) - {name}) for name, path in of.items()}
    done: set[str] = set()

    def visit(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, " -> ".join((*way[way.index(name) :], name))
        if name not in done:
            for other in graph[name]:
                visit(other, (*way, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def test_only_layout_spells_the_names_of_a_runs_files() -> None:
    """But for a hint of config, which stands before storage."""
    values = [value for name, value in vars(layout).items() if name.isupper() and isinstance(value, str)]
    names = {value for value in values if value not in (layout.FIGURES, layout.MEASURES, layout.TENSORBOARD)}
    spelt = {
        (path.relative_to(SOURCE).as_posix(), constant)
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(constant := node.value, str)
        if constant.rpartition("/")[2] in names
    }
    assert spelt <= {("storage/layout.py", name) for name in names} | {("config/toml.py", "/experiment.toml")}
