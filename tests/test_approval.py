"""A Python file is run only where this user has approved it, as it is now."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer.testing

import lth
from lth import config
from lth.cli import app
from lth.config import approval, userfile
from lth.errors import UsageError
from lth.tickets.export import export
from lth.tickets.ticket import Ticket

pytestmark = pytest.mark.usefixtures("one_thread")

EVIL = """
from pathlib import Path
Path({ran!r}).touch()
from torch import nn
def build(shape, classes): return nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.ReLU(), nn.Linear(8, classes))
def score(weights): return {{name: weight.abs() for name, weight in weights.items()}}
def rule(mask): return mask
"""


@pytest.fixture
def ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What is there once my.py, in the folder that is worked in, has been run."""
    monkeypatch.chdir(tmp_path)
    ran = tmp_path / "ran"
    Path("my.py").write_text(EVIL.format(ran=str(ran)))
    return ran


@pytest.fixture
def theirs(tiny: dict[str, Any], ran: Path) -> Path:
    """A finished run with a custom model, as it comes from somebody else: this user's list does not know it."""
    lth.run(tiny, {"model.name": "my.py:build"}, out="run", pictures=False, workers=1)
    forget(ran)
    return Path("run")


def forget(ran: Path) -> None:
    ran.unlink(missing_ok=True)
    approval.list_path().unlink()
    for known in (approval._approved, userfile._contents, userfile._modules):
        known.clear()


def refused(*words: str) -> str:
    code = "from lth.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    return done.stderr


NAMES = {
    "model": {"model": {"name": "my.py:build"}},
    "score": {"prune": {"score": "my.py:score"}},
    "branch": {"branch": [{"name": "mine", "mask": "my.py:rule", "start": "trial"}]},
}


@pytest.mark.parametrize("what", NAMES)
def test_a_toml_file_runs_no_code_until_its_file_is_approved(tiny: dict[str, Any], ran: Path, what: str) -> None:
    experiment = config.resolve(tiny | NAMES[what])
    Path("theirs.toml").write_text(config.to_toml(experiment))
    call = lambda **options: lth.run("theirs.toml", out="run", pictures=False, workers=1, **options)
    line = rf"my.py is not run: you have not approved this file.*type: lth approve {Path.cwd()}/my.py"
    for options in ({"dry_run": True}, {}):
        with pytest.raises(UsageError, match=line) as caught:
            call(**options)
        assert len(str(caught.value)) < 400
    assert not ran.exists() and not Path("run").exists()
    assert typer.testing.CliRunner().invoke(app, ["approve", "my.py"]).output == f"approved: {Path.cwd()}/my.py\n"
    call()
    assert ran.exists()


TYPED = {
    "model": "model.name=my.py:build",
    "score": "prune.score=my.py:score",
    "branch": 'branch=[{name="mine",mask="my.py:rule",start="trial"}]',
}


@pytest.mark.parametrize("what", TYPED)
def test_naming_a_file_approves_it_as_it_is(tiny: dict[str, Any], ran: Path, what: str) -> None:
    """Also for later calls of other processes that do not name it: they resume and report."""
    experiment = config.resolve(tiny)
    Path("mine.toml").write_text(config.to_toml(experiment))
    lth.run("mine.toml", [TYPED[what]], out="run", pictures=False, workers=1, levels=1)
    (entry,) = json.loads(approval.list_path().read_text())["files"]
    assert (entry["path"], entry["sha256"]) == (f"{Path.cwd()}/my.py", userfile.checksum("", "my.py"))
    assert approval.list_path().stat().st_mode & 0o777 == 0o600
    for known in (approval._approved, userfile._contents, userfile._modules):
        known.clear()
    lth.run("run/experiment.toml", out="run", pictures=False, workers=1)
    Path("my.py").write_text(Path("my.py").read_text() + "\n")
    with pytest.raises(UsageError, match=r"my.py is not run: .* it has changed since"):
        config.approved_code(config.recorded(config.resolve("lenet", [TYPED[what]])))


def test_what_a_file_says_beside_what_is_typed_is_not_approved(tiny: dict[str, Any], ran: Path) -> None:
    Path("theirs.toml").write_text(config.to_toml(config.resolve(tiny | NAMES["model"])))
    Path("other.py").write_text("def score(weights): return weights\n")
    with pytest.raises(UsageError, match=r"model.name: my.py is not run"):
        lth.run("theirs.toml", ["prune.score=other.py:score"], out="run", dry_run=True)
    assert not ran.exists()


def test_a_ticket_runs_no_code(theirs: Path, ran: Path) -> None:
    file = theirs / "trial-1/level-01/ticket.safetensors"
    for words in (["run", "--ticket", str(file), "--dry-run"], ["run", "--ticket", str(file)]):
        assert "model.name: my.py is not run" in refused(*words)
    for words in (["--to", "small.pt", "--compact"], ["--to", "net.onnx"]):
        assert "model.name: my.py is not run" in refused("export", str(theirs), "--level", "1", *words)
    assert not ran.exists() and not Path("small.pt").exists()
    origin = Ticket.load(file).origin
    library = origin["model"] | {"name": f"{os.__file__}:getcwd", "sha256": None}
    forged = origin | {"model": library, "settings": origin["settings"] | {"model": {"name": library["name"]}}}
    Ticket(Ticket.load(file).mask, Ticket.load(file).start, forged).save("forged.safetensors")
    assert "os.py is not run" in refused("run", "--ticket", "forged.safetensors", "--dry-run")
    approval.approve(approval.place("my.py"), userfile.checksum("", "my.py"))
    export(theirs, 1, 1, "small.pt", compact=True)
    assert ran.exists()


@pytest.mark.parametrize("command", ["report", "repair", "verify", "show"])
def test_reading_runs_no_code(theirs: Path, ran: Path, command: str) -> None:
    given = theirs / "experiment.toml" if command == "show" else theirs
    result = typer.testing.CliRunner().invoke(app, [command, str(given)])
    assert result.exit_code == 0, result.output
    assert not ran.exists()


def test_the_same_bytes_elsewhere_are_not_approved(ran: Path) -> None:
    """What stands beside a file is run with it: the bytes alone do not say what will happen."""
    digest = userfile.checksum("", "my.py")
    approval.approve(approval.place("my.py"), digest)
    Path("evil").mkdir()
    Path("evil/my.py").symlink_to("../my.py")
    assert approval.is_approved(approval.place("./evil/../my.py"), digest)
    assert not approval.is_approved(approval.place("evil/my.py"), digest)


def test_a_sweep_approves_what_it_names_alone(tiny: dict[str, Any], ran: Path) -> None:
    Path("theirs.toml").write_text(config.to_toml(config.resolve(tiny | NAMES["score"])))
    options: dict[str, Any] = {"out": "runs", "pictures": False, "workers": 1, "levels": 1, "dry_run": True}
    from lth.execution.sweep import sweep

    with pytest.raises(UsageError, match=r"prune.score: my.py is not run"):
        sweep("theirs.toml", ["seed=[1,2]"], **options)
    sweep("theirs.toml", ["seed=[1,2]", "prune.score=my.py:score"], **options)


def test_workers_elsewhere_run_the_bytes_that_were_approved(ran: Path, tmp_path: Path) -> None:
    """They have neither the list nor, on other machines, the file."""
    experiment = config.recorded(config.resolve("lenet", ["prune.score=my.py:score", "model.name=my.py:build"]))
    with pytest.raises(UsageError, match=r"my.py is not run"):
        config.approved_code(experiment)
    config.approve_typed(experiment, None, ["prune.score=my.py:score", "model.name=my.py:build"])
    Path("sent").write_bytes(pickle.dumps((experiment, config.approved_code(experiment))))
    Path("my.py").unlink()
    program = (
        "import pickle, sys\nfrom lth.config import registry, userfile\n"
        "experiment, code = pickle.loads(open('sent', 'rb').read())\n"
        "userfile.accept(code)\n"
        "entry = registry.entry('scores', experiment.prune.score, experiment.files)\n"
        "assert entry.reads == ('weights',) and entry.load()({}) == {}\n"
        "userfile.function(experiment.model.name, experiment.model.sha256)"
    )
    subprocess.run(
        [sys.executable, "-c", program], check=True, env=os.environ | {"XDG_STATE_HOME": str(tmp_path / "no")}
    )


def test_a_list_that_cannot_be_written_holds_for_this_call(ran: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("state").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(Path("state/below").absolute()))
    digest = userfile.checksum("", "my.py")
    said = approval.approve(approval.place("my.py"), digest)
    assert said and "is approved for this time only: " in said and "cannot be written" in said
    assert approval.is_approved(approval.place("my.py"), digest)


@pytest.mark.parametrize("content", [b"", b"[]", b'{"files": 3}', b'{"files": [{"path": 1}]}', b"[" * 100_000])
def test_a_damaged_list_approves_nothing(ran: Path, content: bytes) -> None:
    approval.list_path().parent.mkdir(parents=True)
    approval.list_path().write_bytes(content)
    with pytest.raises(UsageError, match=r"is damaged: remove it, and approve your files again"):
        userfile.function("my.py:build")
    assert not ran.exists()


def test_two_processes_add_to_the_list_without_losing_any(ran: Path) -> None:
    program = (
        "import sys; from lth.config import approval\n"
        "for n in range(20): approval.approve(approval.place(f'{sys.argv[1]}{n}.py'), 'x')"
    )
    both = [subprocess.Popen([sys.executable, "-c", program, name]) for name in "ab"]
    assert [process.wait() for process in both] == [0, 0]
    assert len(json.loads(approval.list_path().read_text())["files"]) == 40


def test_a_pipe_and_an_endless_file_are_no_code(ran: Path) -> None:
    os.mkfifo("pipe.py")
    Path("zero.py").symlink_to("/dev/zero")
    Path("large.py").write_bytes(b"#" * (userfile.MOST_BYTES + 1))
    for name, fault in (
        ("pipe", "expected a file"),
        ("zero", "expected a file"),
        ("large", "larger than the maximum of 1,048,576"),
    ):
        with pytest.raises(UsageError, match=rf"{name}.py cannot be read: it .*{fault}"):
            userfile.signature(f"{name}.py:f")
