"""Whatever happens to a stored file is noticed when it is read, named, never trained on, and mended by lth repair."""

from __future__ import annotations

import gzip
import itertools
import json
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

import lth
from conftest import tiny_arrays
from lth.cli import main
from lth.errors import LthError, UsageError
from lth.execution.checkpoints import checkpoint_bytes, from_checkpoint_bytes
from lth.execution.repair import repair
from lth.measures import anatomy
from lth.measures import tables as measures
from lth.results import tables
from lth.storage import atomic, checksums, documents, integrity, manifest, runs
from lth.tickets.ticket import Ticket
from lth.training.loop import Checkpoint
from stored_runs import contents

FIRST = Path(__file__).parent / "data/version-0.1/finished"
LAST = "trial-1/level-02"  # read by whoever adds a level
QUIET = Console(quiet=True)


def train(tables: dict[str, Any], out: Path, **options: Any) -> None:
    lth.run(tables, out=out, engine="torch", workers=1, console=QUIET, **options)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path, Path]:
    """An experiment, a finished run of it, and one of the same with another seed."""
    folder = tmp_path_factory.mktemp("damage")
    np.savez(folder / "tiny.npz", **tiny_arrays())
    tables = {
        "name": "tiny", "trials": 2, "levels": 2, "branch": [{"name": "reinit"}],
        "data": {"name": str(folder / "tiny.npz"), "validation": 90},
        "model": {"name": "lenet", "layers": [12, 8]},
        "recipe": {"optimizer": "adam", "lr": 0.01, "iterations": 40, "batch": 30, "eval_every": 10},
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lth.execution.running.show_results", lambda folder, console: None)
        train(tables, folder / "run")
        train(tables | {"seed": 2}, folder / "other")
    return tables, folder / "run", folder / "other"


@pytest.fixture
def run(made: tuple[dict[str, Any], Path, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(made[1], tmp_path / "run"))


def flip(path: Path, at: int | None = None, bit: int = 3) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2 if at is None else at] ^= 1 << bit
    path.write_bytes(content)


DAMAGES: dict[str, Callable[[Path, Path], Any]] = {
    "cut off": lambda path, other: path.write_bytes(path.read_bytes()[:-20]),
    "empty": lambda path, other: path.write_bytes(b""),
    "a bit flipped": lambda path, other: flip(path),
    "of another run": lambda path, other: shutil.copy(other, path),
}
FILES = ["start.safetensors", *(f"level-02/{name}" for name in ("ticket.safetensors", "trained.safetensors"))]
TRAINED_ON = [f"trial-1/{name}" for name in [*FILES, "level-02/summary.json"]]
REPORTED = [f"{LAST}/{name}" for name in ("curve.csv", "summary.json")]
WHOLE_RUNS = ["experiment.toml", "environment.json"]


@pytest.mark.parametrize("harm", DAMAGES)
@pytest.mark.parametrize("name", [*TRAINED_ON, *WHOLE_RUNS])
def test_nothing_is_trained_on_what_is_damaged(
    name: str, harm: str, run: Path, made: tuple[dict[str, Any], Path, Path]
) -> None:
    DAMAGES[harm](run / name, made[2] / name)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != ".lock"}
    with pytest.raises(LthError) as error:
        train(made[0], run, levels=3)
    assert str(run / name) in str(error.value) or (name == "experiment.toml" and "experiment" in str(error.value))
    after = {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != ".lock"}
    if name != f"{LAST}/trained.safetensors" and name != f"{LAST}/ticket.safetensors":  # read while working
        assert after == before
    assert not (run / "trial-1/level-03").exists()


@pytest.mark.parametrize("harm", DAMAGES)
@pytest.mark.parametrize("name", [*REPORTED, *WHOLE_RUNS])
def test_nothing_damaged_is_reported(name: str, harm: str, run: Path, made: tuple[dict[str, Any], Path, Path]) -> None:
    DAMAGES[harm](run / name, made[2] / name)
    with pytest.raises(UsageError) as error:
        tables.load(run)
    assert str(run / name) in str(error.value) or (name == "experiment.toml" and "is damaged" in str(error.value))


def test_repair_sets_aside_a_spoilt_table_that_version_0_1_wrote_beside_a_ticket(tmp_path: Path) -> None:
    run, said = Path(shutil.copytree(FIRST, tmp_path / "run")), []
    path = run / LAST / "starts.csv"
    flip(path)
    repair(run, yes=True, say=said.append)
    assert f"set aside {path}: it does not match summary.json" in said
    assert said[-2:] == [f"make {run / 'measures/anatomy.csv'} again from the tickets", "done"]
    assert (run / "damaged" / LAST / "starts.csv").exists() and not list((run / LAST).glob("*s.csv"))
    assert anatomy.read(run) == anatomy.read(FIRST)


EVERYTHING = [*TRAINED_ON, *REPORTED, "environment.json", "summary.csv", "curves.csv", f"{LAST}/reinit-1/curve.csv"]


@pytest.mark.parametrize("harm", [harm for harm in DAMAGES if harm != "empty"])
@pytest.mark.parametrize("name", sorted({*EVERYTHING, "trial-2/level-00/trained.safetensors"}))
def test_repair_says_and_does_and_the_run_goes_on_to_the_same_bits(
    name: str, harm: str, run: Path, made: tuple[dict[str, Any], Path, Path]
) -> None:
    whole = contents(made[1])
    DAMAGES[harm](run / name, made[2] / name)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    said: list[str] = []
    repair(run, yes=False, say=said.append)
    assert any(str((run / name).parent) in line and line.startswith("would ") for line in said), said
    assert said[-1] == f"nothing is done yet; to do it: lth repair {run} --yes"
    assert before == {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    repair(run, yes=True, say=said.append)
    train(made[0], run)
    shutil.rmtree(run / "damaged", ignore_errors=True)
    assert contents(run) == whole
    assert tables.load(run).environment
    said.clear()
    repair(run, yes=False, say=said.append)
    assert said == [f"{run}: nothing is damaged"]


def test_other_examples_under_the_same_path_are_refused(
    run: Path, made: tuple[dict[str, Any], Path, Path], tmp_path: Path
) -> None:
    path = Path(made[0]["data"]["name"])
    kept, before = path.read_bytes(), contents(run)
    try:
        np.savez(path, **tiny_arrays(seed=8))
        for dry_run in (False, True):
            with pytest.raises(
                UsageError, match=r"tiny.npz no longer has the examples with which .*run was begun; restore"
            ):
                train(made[0], run, levels=3, dry_run=dry_run)
        assert contents(run) == before
    finally:
        path.write_bytes(kept)
    np.savez(path, **tiny_arrays())  # written anew: other bytes of the file, the same examples
    train(made[0], run, levels=3)


def test_what_another_lth_wrote_meanwhile_is_seen(
    run: Path, made: tuple[dict[str, Any], Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the first look at a folder and its lock, which is as long as data take to load."""
    first, real = tmp_path / "new", runs.lock

    def late(folder: Path) -> Any:
        monkeypatch.setattr(runs, "lock", real)
        shutil.copytree(run, folder)
        return real(folder)

    monkeypatch.setattr(runs, "lock", late)
    with pytest.raises(
        UsageError, match=r"new: another lth process wrote to it a moment ago; run the same command again"
    ):
        train(made[0], first, levels=1)
    assert contents(first) == contents(run)


@pytest.mark.parametrize("name", ["trial-1/level-01", "trial-1/level-00"])
def test_a_whole_training_of_another_run_is_told_from_ours(
    name: str, run: Path, made: tuple[dict[str, Any], Path, Path], tmp_path: Path
) -> None:
    """Of the very same experiment, but other data: only what was made from it can tell."""
    arrays = np.load(made[0]["data"]["name"])
    kept = Path(made[0]["data"]["name"]).read_bytes()
    try:
        np.savez(made[0]["data"]["name"], **{k: v[::-1] if k.endswith("train") else v for k, v in arrays.items()})
        train(made[0], tmp_path / "stranger")
    finally:
        Path(made[0]["data"]["name"]).write_bytes(kept)
    for path in integrity.own_files(run / name):
        shutil.copy(tmp_path / "stranger" / name / path.name, path)
    with pytest.raises(UsageError, match=rf"{run}/{name} is damaged: it does not belong to "):
        train(made[0], run, levels=3)
    repair(run, yes=True, say=lambda line: None)
    train(made[0], run)
    shutil.rmtree(run / "damaged")
    assert contents(run) == contents(made[1])


def test_a_lost_start_is_made_again_from_level_0(run: Path, made: tuple[dict[str, Any], Path, Path]) -> None:
    (run / "trial-2/start.safetensors").unlink()
    repair(run, yes=True, say=lambda line: None)
    assert contents(run) == contents(made[1])


def test_a_training_that_lost_its_summary_is_done_again_below_its_branches(
    run: Path, made: tuple[dict[str, Any], Path, Path]
) -> None:
    (run / LAST / "summary.json").unlink()
    branch = (run / LAST / "reinit-1/summary.json").stat().st_mtime_ns
    train(made[0], run)
    assert contents(run) == contents(made[1])
    assert (run / LAST / "reinit-1/summary.json").stat().st_mtime_ns == branch


def test_a_run_without_its_environment_is_refused(run: Path, made: tuple[dict[str, Any], Path, Path]) -> None:
    """Chosen anew, the engine might be another than that of what is stored."""
    (run / "environment.json").unlink()
    with pytest.raises(UsageError, match=r"environment.json is missing; `lth repair"):
        train(made[0], run)


TABLES = ("experiment.toml", "environment.json", "summary.csv", "curves.csv")


@pytest.fixture
def alone(run: Path, tmp_path: Path) -> Path:
    """A folder of tables alone, as people send each other, with a measure."""
    measures.compute("anatomy", run)
    (tmp_path / "alone/measures").mkdir(parents=True)
    for name in (*TABLES, "manifest.json", "measures/anatomy.csv"):
        shutil.copy(run / name, tmp_path / "alone" / name)
    return tmp_path / "alone"


def lines_of_repair(folder: Path, yes: bool = False) -> list[str]:
    said: list[str] = []
    repair(folder, yes=yes, say=said.append)
    return said


@pytest.mark.parametrize("name", ["summary.csv", "curves.csv", "measures/anatomy.csv"])
def test_a_changed_number_in_a_table_alone_is_noticed(name: str, alone: Path, caplog: pytest.LogCaptureFixture) -> None:
    tables.load(alone), measures.read("anatomy", alone)
    assert not caplog.messages and lines_of_repair(alone) == [f"{alone}: nothing is damaged"]
    before = (alone / name).read_text()
    at = re.search(r"[0-8]\d*$", before.splitlines()[1], re.M)
    assert at
    changed = before.replace(before.splitlines()[1], before.splitlines()[1][: at.start()] + "9")
    (alone / name).write_text(changed)
    with pytest.raises(UsageError, match=f"{alone / name} is damaged: it does not match manifest.json; "):
        measures.read("anatomy", alone) if "/" in name else tables.load(alone)
    said = lines_of_repair(alone, yes=True)
    assert said[0].startswith(f"{alone / name} is damaged: it does not match manifest.json; its folder ")
    assert said[-1] == f"{alone}: nothing can be made again here" and (alone / name).read_text() == changed


def test_a_flipped_bit_in_a_manifest_is_noticed_and_mended(alone: Path, run: Path) -> None:
    for folder in (alone, run):
        flip(folder / "manifest.json")
        with pytest.raises(UsageError, match=r"manifest.json is damaged: .*`lth repair"):
            tables.load(folder)
        assert lines_of_repair(folder, yes=True)[0].startswith(f"make {folder / 'manifest.json'} again")
        assert lines_of_repair(folder) == [f"{folder}: nothing is damaged"]


@pytest.mark.parametrize("with_manifest", [False, True])
def test_tables_of_another_run_under_this_experiment_are_noticed(
    with_manifest: bool, alone: Path, made: tuple[dict[str, Any], Path, Path]
) -> None:
    for name in ("summary.csv", "curves.csv", *(["manifest.json"] if with_manifest else [])):
        shutil.copy(made[2] / name, alone / name)
    with pytest.raises(UsageError, match=r"manifest.json is damaged: it belongs|it does not match manifest"):
        tables.load(alone)
    assert lines_of_repair(alone, yes=True)[-1] == f"{alone}: nothing can be made again here"


def test_what_is_left_out_on_purpose_is_no_damage(alone: Path) -> None:
    (alone / "measures/anatomy.csv").unlink()
    assert "anatomy.csv is damaged: it is missing, and manifest.json does not list it" in lines_of_repair(alone)[0]
    document = json.loads((alone / "manifest.json").read_text())
    (alone / "manifest.json").write_bytes(documents.sealed_json(document | {"left_out": ["measures/*"]}))
    assert lines_of_repair(alone) == [f"{alone}: nothing is damaged; left out on purpose: measures/*"]


def test_repair_makes_a_spoilt_anatomy_again_from_the_tickets(run: Path) -> None:
    path = measures.compute("anatomy", run)
    assert path
    whole = path.read_bytes()
    flip(path)
    with pytest.raises(UsageError, match=f"{path} is damaged: it does not match manifest.json"):
        measures.compute("anatomy", run)
    lines_of_repair(run, yes=True)
    assert path.read_bytes() == whole and lines_of_repair(run) == [f"{run}: nothing is damaged"]


@pytest.mark.parametrize("harm", [*DAMAGES, "missing"])
def test_repair_makes_the_experiment_again_from_its_copy(
    harm: str, run: Path, made: tuple[dict[str, Any], Path, Path]
) -> None:
    whole, path = contents(made[1]), run / "experiment.toml"
    path.unlink() if harm == "missing" else DAMAGES[harm](path, made[2] / "experiment.toml")
    with pytest.raises(UsageError):
        train(made[0], run)
    assert lines_of_repair(run)[0].startswith(f"would make {path} again from its copy in manifest.json: ")
    lines_of_repair(run, yes=True)
    shutil.rmtree(run / "damaged", ignore_errors=True)
    train(made[0], run)
    assert contents(run) == whole


@pytest.mark.parametrize("at", range(6))
def test_a_table_that_is_killed_while_it_is_replaced_is_never_called_damaged(
    at: int, alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Either the old table or the new one is there, and its checksum with it: before and after each of the renames."""
    moments, rename = itertools.count(), atomic.rename

    def moment() -> None:
        if next(moments) == at:
            raise KeyboardInterrupt

    def killed(source: Path, target: Path) -> None:
        moment()
        rename(source, target)
        moment()

    text = (alone / "summary.csv").read_bytes()
    monkeypatch.setattr(atomic, "rename", killed)
    with pytest.raises(KeyboardInterrupt):
        manifest.write_table(alone, "summary.csv", text.replace(b"done", b"diverged", 1))
    monkeypatch.setattr(atomic, "rename", rename)
    assert len(tables.load(alone).summary) == 10
    manifest.write_table(alone, "summary.csv", text)
    tables.load(alone)
    assert len(json.loads((alone / "manifest.json").read_text())["files"]["summary.csv"]) == 1


def test_tables_alone_are_kept_by_repair_and_by_runs(
    run: Path, made: tuple[dict[str, Any], Path, Path], tmp_path: Path
) -> None:
    alone, said = tmp_path / "alone", []
    (alone / LAST).mkdir(parents=True)
    for name in TABLES:
        shutil.copy(run / name, alone / name)
    shutil.copy(FIRST / LAST / "starts.csv", alone / LAST)  # as results of version 0.1 are kept
    (alone / "curves.csv.gz").write_bytes(gzip.compress((alone / "curves.csv").read_bytes()))
    (alone / "curves.csv").unlink()
    before = contents(alone)
    repair(alone, yes=False, say=said.append)
    assert said[0].startswith("would add the checksums of curves.csv.gz, summary.csv, trial-1/level-02/starts.csv to ")
    for options in ({}, {"trials": 1, "levels": 0, "branches": ""}):
        with pytest.raises(UsageError, match=r"have rows of 10 trainings that it does not hold.* give another --out"):
            train(made[0], alone, **options)
    assert contents(alone) == before
    (alone / "curves.csv.gz").unlink()
    with pytest.raises(UsageError, match="have rows of 9 trainings that it does not hold"):
        train(made[0], alone, trials=1, levels=0, branches="")


def test_rows_of_trainings_that_are_gone_are_set_aside_or_done_again(
    run: Path, made: tuple[dict[str, Any], Path, Path]
) -> None:
    rows = (run / "summary.csv").read_bytes()
    shutil.rmtree(run / "trial-2")
    with pytest.raises(UsageError, match="have rows of 5 trainings"):
        train(made[0], run, trials=1)
    (run / "curves.csv").rename(run / "kept")
    with pytest.raises(UsageError, match=r"curves.csv is missing, and .*summary.csv has rows of 5 trainings"):
        tables.load(run)
    (run / "kept").rename(run / "curves.csv")
    repair(run, yes=True, say=[].append)
    assert (run / "damaged/summary.csv").read_bytes() == rows
    assert len(tables.load(run).summary) == 5
    train(made[0], run)
    assert len((run / "summary.csv").read_bytes().splitlines()) == 11


def test_an_environment_made_again_holds_the_next_examples(run: Path, made: tuple[dict[str, Any], Path, Path]) -> None:
    whole = json.loads((run / "environment.json").read_bytes())["data"]
    (run / "environment.json").unlink()
    said: list[str] = []
    repair(run, yes=True, say=said.append)
    assert "the record of the examples is lost" in said[0]
    train(made[0], run)
    assert json.loads((run / "environment.json").read_bytes())["data"] == whole


def test_repair_waits_for_nobody(run: Path) -> None:
    with runs.lock(run), pytest.raises(UsageError, match="in use by another lth"):
        repair(run, yes=True, say=print)
    with pytest.raises(UsageError, match="not a run folder"):
        repair(run / "trial-1", yes=True, say=print)


def test_the_command(run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    flip(run / LAST / "curve.csv")
    ended = []
    for more in ([], ["--yes"], []):
        monkeypatch.setattr("sys.argv", ["lth", "repair", str(run), *more])
        with pytest.raises(SystemExit) as end:
            main()
        ended.append((end.value.code or 0, capsys.readouterr().out))
    assert [code for code, _ in ended] == [0, 0, 0]
    assert "would set aside" in ended[0][1] and "1 training to do again: lth run" in ended[1][1]
    assert (run / "damaged" / LAST / "curve.csv").exists()
    assert ended[2][1] == f"{run}: nothing is damaged\n"


# ---------------------------------------------------------------------------------------------- every bit, file by file


@pytest.mark.parametrize("name", ["experiment.toml", "environment.json", f"{LAST}/summary.json"])
def test_no_bit_of_a_sealed_text_can_change(name: str, run: Path) -> None:
    content = (run / name).read_bytes()
    assert checksums.text_fault(content) is None
    for at, bit in itertools.product(range(len(content)), range(8)):
        changed = content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :]
        if checksums.text_fault(changed) is None:
            pytest.fail(f"bit {bit} of byte {at}, in {content[max(0, at - 20) : at + 20]!r}")
    for length in range(100, len(content), 11):
        cut = content[:length]
        assert not name.endswith("toml") or checksums.text_fault(cut)  # a cut JSON object is none


@pytest.mark.parametrize("recorded", ["model.sha256", "ticket_sha256"])
def test_an_experiment_changed_by_hand_is_taken_without_its_first_line(recorded: str, tmp_path: Path) -> None:
    """Also where it records a digest, of a network of one's own or of a ticket: that is no seal that was lost."""
    own = {"model.sha256": {"model.name": "my.py:build"}, "ticket_sha256": {"ticket": "t.safetensors"}}[recorded]
    atomic.make_folder(tmp_path / "run")
    written = runs.open_run(tmp_path / "run", lth.config.resolve("lenet", {**own, recorded: "5eed" * 16}))
    path = tmp_path / "run" / "experiment.toml"
    assert recorded.rpartition(".")[2] in path.read_text() and runs.read_experiment(path.parent) == written
    for at, bit in itertools.product(range(path.read_bytes().index(b"\n")), range(8)):
        flip(path, at, bit)  # no bit of the first line can change
        assert checksums.text_fault(path.read_bytes())
        flip(path, at, bit)
    path.write_text(path.read_text().replace("trials = 5", "trials = 4"))
    with pytest.raises(UsageError, match="if you changed it yourself, remove its first line"):
        runs.read_experiment(path.parent)
    path.write_text(path.read_text().partition("\n")[2])
    assert runs.read_experiment(path.parent).trials == 4
    assert runs.open_run(path.parent, written).trials == 5  # and it is sealed again
    assert path.read_text().startswith("# seal: ") and runs.read_experiment(path.parent) == written


def test_no_bit_of_a_ticket_can_change(run: Path, tmp_path: Path) -> None:
    content = (run / LAST / "ticket.safetensors").read_bytes()
    path = tmp_path / "ticket.safetensors"
    drawn = random.Random(1)
    for at in range(0, len(content), 2):
        path.write_bytes(content[:at] + bytes([content[at] ^ 1 << drawn.randrange(8)]) + content[at + 1 :])
        with pytest.raises(UsageError, match="ticket"):
            Ticket.load(path)


def test_a_checkpoint_that_is_damaged_or_of_another_training_is_as_good_as_none(
    caplog: pytest.LogCaptureFixture,
) -> None:
    import torch

    own = {"training": "a" * 64, "made_from": {}}
    content = checkpoint_bytes(Checkpoint(iteration=3, state={"w": torch.arange(9.0)}), own)
    found = from_checkpoint_bytes(content, own)
    assert found and found.iteration == 3
    assert from_checkpoint_bytes(content, own | {"training": "b" * 64}) is None
    for at in range(0, len(content), 3):
        changed = content[:at] + bytes([content[at] ^ 8]) + content[at + 1 :]
        assert from_checkpoint_bytes(changed, own) is None, content[max(0, at - 20) : at + 20]
    for length in range(0, len(content), 7):
        assert from_checkpoint_bytes(content[:length], own) is None
    assert "cannot be used" in caplog.text


# ------------------------------------------------------------------------------------------------------- from before


def test_a_run_from_before_there_were_seals_is_read_and_extended(
    run: Path, made: tuple[dict[str, Any], Path, Path]
) -> None:
    """As version 0.1 wrote it: no first line in the TOML, no digests in the JSON."""
    new = ("seal", "files", "made_from", "training", "device", "threads")
    for path in run.rglob("summary.json"):
        path.write_bytes(documents.json_bytes({k: v for k, v in json.loads(path.read_bytes()).items() if k not in new}))
    environment = json.loads((run / "environment.json").read_bytes())
    del environment["data"]["sha256"]
    old = {k: v for k, v in environment.items() if k not in ("seal", "experiment")}
    (run / "environment.json").write_bytes(documents.json_bytes(old))
    text = (run / "experiment.toml").read_text().partition("\n")[2]
    (run / "experiment.toml").write_text(text)
    said: list[str] = []
    repair(run, yes=False, say=said.append)
    assert said == [f"{run}: nothing is damaged"]
    assert len(tables.load(run).summary) == 10
    train(made[0], run, levels=3)
    assert len(tables.load(run).summary) == 14
