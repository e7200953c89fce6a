"""Scores and rules from the user's own file: how they are named, read, recorded and loaded."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from lth.config import Experiment, merge, recorded, registry, resolve, to_toml, userfile
from lth.errors import UsageError

SOURCE = '''
import nothing_that_exists_here_and_is_only_found_out_when_it_is_run

def score(weights, batches, power=2):
    """Weights by their gradient.

    More of it."""

def rule(mask, start, generator): ...
def start(trained, mask, *, draw): ...
def nothing(): ...
def strange(mask, size): ...
value = 3
'''
TABLES: dict[str, Any] = {"name": "small", "trials": 1, "levels": 2, "recipe": {"lr": 0.1, "iterations": 40}}
MINE = [{"name": "mine", "mask": "my.py:rule", "start": "my.py:start"}]


@pytest.fixture(autouse=True)
def _my_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my.py").write_text(SOURCE)


def experiment(**changes: Any) -> Experiment:
    return resolve(TABLES | changes)


def refusal(function: Any, *given: Any) -> str:
    with pytest.raises(UsageError) as caught:
        function(*given)
    return str(caught.value)


# ---------------------------------------------------------------------------------------------------------- the schema


def test_a_score_and_the_rules_of_a_branch_are_taken_and_written_back() -> None:
    found = experiment(prune={"score": "my.py:score"}, branch=MINE)
    assert found.prune.score == "my.py:score"
    assert (found.branch[0].mask, found.branch[0].start) == ("my.py:rule", "my.py:start")
    assert resolve(tomllib.loads(to_toml(found))) == found
    assert resolve("lenet", ["prune.score=my.py:score"]).prune.score == "my.py:score"
    own = experiment(branch=[{"name": "reinit", "mask": "my.py:rule"}]).branch[0]
    assert (own.mask, own.start) == ("my.py:rule", "fresh")


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        (
            {"prune": {"score": "my.txt:score"}},
            "prune.score: 'my.txt:score': a custom score is FILE.py:FUNCTION, such as my.py:score",
        ),
        (
            {"branch": [{"name": "mine", "mask": "my.py:3", "start": "fresh"}]},
            "branch[0].mask: 'my.py:3': a custom mask rule is FILE.py:FUNCTION, such as my.py:rule",
        ),
        (
            {"branch": [{"name": "mine", "mask": "rando", "start": "fresh"}]},
            "branch[0].mask = 'rando': expected ticket, random, initial or FILE.py:FUNCTION; did you mean 'random'?",
        ),
        (
            {"branch": [{"name": "mine", "mask": "prune", "start": "fresh"}]},
            "branch[0].mask = 'prune': expected ticket",
        ),
        (
            {"branch": [{"name": "mine", "mask": "ticket", "start": "trained"}]},
            "expected trial, fresh, noise",
        ),
        ({"branch": [{"name": "x", "mask": "my.py:rule", "start": "my.py:start", "sigma": 1}]}, "it would do nothing"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_names_that_are_none(tables: dict[str, Any], message: str) -> None:
    assert message in refusal(lambda: experiment(**tables))


# ------------------------------------------------------------------------------------------------------------- entries


def test_an_entry_says_what_a_function_reads_without_running_it() -> None:
    score = registry.entry("scores", "my.py:score")
    assert isinstance(score, registry.Score)
    assert (score.about, score.reads) == ("Weights by their gradient.", ("weights", "batches"))
    rule, start = registry.entry("mask-rules", "my.py:rule"), registry.entry("start-rules", "my.py:start")
    assert isinstance(rule, registry.Rule) and isinstance(start, registry.Rule)
    assert (rule.about, rule.reads, rule.control) == ("a custom mask rule", ("mask",), True)
    assert start.reads == ("trained", "mask")
    assert registry.entry("mask-rules", "my.py:nothing") == registry.Rule(
        "a custom mask rule", "my.py:nothing", control=True
    )
    assert registry.entry("models", "gone.py:build").make == "gone.py:build"


def test_an_entry_of_a_built_in_name_is_that_of_the_registry() -> None:
    for kind, entries in registry.KINDS.items():
        assert all(registry.entry(kind, name) is entry and entry.about for name, entry in entries.items())
    assert refusal(registry.entry, "scores", "magnitud") == (
        "unknown score 'magnitud'; did you mean 'magnitude'? (see `lth list scores`)"
    )
    assert "unknown strategy 'my.py:x'" in refusal(registry.entry, "strategies", "my.py:x")
    assert "unknown branch 'x'" in refusal(registry.entry, "branches", "x")


WRONG = {
    "my.py:rul": "my.py has no function 'rul'; did you mean 'rule'?",
    "my.py:value": "my.py has no function 'value'",
    "gone.py:rule": "gone.py cannot be read: No such file or directory",
    "broken.py:rule": "broken.py failed: SyntaxError: ",
    "my.py:strange": "my.py:strange wants size, but is given mask, trained, start, groups and generator, or what it",
}


@pytest.mark.parametrize("name", WRONG)
def test_an_entry_that_cannot_be_had(name: str) -> None:
    Path("broken.py").write_text("def rule(:\n")
    assert WRONG[name] in refusal(registry.entry, "mask-rules", name)


# -------------------------------------------------------------------------------------------------- loading and calling


@pytest.mark.usefixtures("approving")
def test_a_function_is_loaded_once_and_given_what_it_names() -> None:
    Path("mine.py").write_text(
        "loads = []\nloads.append(1)\ndef rule(mask, start=5, **more): return mask, start, more, len(loads)\n"
    )
    entry = registry.entry("mask-rules", "mine.py:rule")
    known = {"mask": lambda: 1, "start": lambda: 2, "groups": lambda: pytest.fail("nobody asked for it")}
    first, again = (userfile.call("mine.py:rule", entry.load(), known) for _ in range(2))
    assert first[:3] == (1, 2, {}) and first == again
    assert "mine.py:rule wants mask, but is given start and groups" in refusal(
        userfile.call, "mine.py:rule", entry.load(), {"start": lambda: 2, "groups": lambda: 3}
    )


@pytest.mark.usefixtures("approving")
def test_what_a_function_raises_is_told_with_its_place() -> None:
    Path("mine.py").write_text("def rule(mask):\n    return 1 / 0\n")
    load = registry.entry("mask-rules", "mine.py:rule").load
    said = refusal(userfile.call, "mine.py:rule", load(), {"mask": lambda: 1, "start": lambda: 2})
    assert said == "mine.py:rule failed: ZeroDivisionError: division by zero (mine.py, line 2)"
    assert "my.py failed: ModuleNotFoundError" in refusal(registry.entry("mask-rules", "my.py:rule").load)


@pytest.mark.usefixtures("approving")
def test_the_file_on_record_is_loaded_or_none() -> None:
    Path("mine.py").write_text("def rule(mask): return 'first'\n")
    found = recorded(experiment(branch=[{"name": "mine", "mask": "mine.py:rule", "start": "trial"}]))
    entry = lambda: registry.entry("mask-rules", "mine.py:rule", found.files)
    assert entry().sha256 == found.files["mine.py"]
    assert entry().load()(None) == "first"
    Path("mine.py").write_text("def rule(mask): return 'second'\n")
    assert entry().load()(None) == "first"  # a process keeps what it has run
    userfile._contents.clear()
    assert "mine.py has changed since this experiment was made" in refusal(entry().load)


def test_nothing_is_imported_to_plan_it() -> None:
    code = (
        "import sys\nfrom lth.config import registry, resolve\nresolve('lenet', ['prune.score=my.py:score'])\n"
        "registry.entry('scores', 'my.py:score')\n"
        "assert not {'torch', 'lth_custom_my'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# -------------------------------------------------------------------------------------------------------------- records


def test_checksums_of_files_are_recorded_and_held() -> None:
    asked = experiment(prune={"score": "my.py:score"}, branch=MINE)
    found = recorded(asked)
    assert found.files == {"my.py": hashlib.sha256(SOURCE.encode()).hexdigest()}
    assert recorded(found) == found == resolve(tomllib.loads(to_toml(found)))
    Path("my.py").write_text(SOURCE + "\n")
    assert refusal(recorded, found) == (
        "prune.score: my.py has changed since this experiment was made, or is not named by it; "
        "restore it, or leave out files for a new experiment"
    )
    Path("my.py").unlink()
    assert refusal(recorded, asked) == "prune.score: my.py cannot be read: No such file or directory"
    assert refusal(recorded, experiment(branch=MINE)).startswith("branch mine: mask: my.py cannot be read")


def test_a_file_that_is_named_no_more_leaves_the_record() -> None:
    found = recorded(experiment(prune={"score": "my.py:score"}))
    assert recorded(resolve(to_tables(found), ["prune.score=magnitude"])).files == {}


def to_tables(experiment: Experiment) -> dict[str, Any]:
    return tomllib.loads(to_toml(experiment))


def test_files_enter_a_digest_where_they_lead_to_a_level() -> None:
    plain, scored, branched = (
        recorded(experiment(**t)) for t in ({}, {"prune": {"score": "my.py:score"}}, {"branch": MINE})
    )
    assert "files" not in to_toml(plain) and "files" not in plain.leading_to(1)
    assert plain.digest(1) == branched.digest(1) != scored.digest(1)
    assert scored.leading_to(1)["files"] == scored.files and "files" not in branched.leading_to(1)
    Path("my.py").write_text(SOURCE + "\n")
    assert recorded(experiment(prune={"score": "my.py:score"})).digest(1) != scored.digest(1)


def test_a_branch_brings_its_file_to_a_stored_run() -> None:
    stored, asked = recorded(experiment()), recorded(experiment(branch=MINE))
    merged = merge(stored, asked)
    assert merged.files == asked.files and merged.branch == asked.branch
    assert merge(merged, stored).files == asked.files
    Path("my.py").write_text(SOURCE + "\n")
    again = recorded(experiment(branch=MINE))
    assert "it holds another experiment:\nfiles.my.py: " in refusal(merge, merged, again)


@pytest.mark.usefixtures("approving")
def test_a_failure_is_placed_in_the_users_file_not_in_a_library_or_in_lth(tmp_path: Path) -> None:
    file = tmp_path / "net.py"
    file.write_text("import json\ndef build(shape):\n    return json.loads('{')\n")
    make = userfile.function(f"{file}:build")
    with pytest.raises(UsageError, match=r"JSONDecodeError: .* \(net.py, line 3\)$"):
        userfile.call(f"{file}:build", make, {"shape": lambda: (1,), "classes": lambda: 2})
    with pytest.raises(UsageError) as error, userfile.failures_named("net.py:build"):
        raise ValueError("a" * 900)
    assert len(str(error.value)) < 400
