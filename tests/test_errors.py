"""Errors carry what a caller needs of them as fields; their messages are made of these."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from lth.errors import Damaged, Interrupted, LthError, UsageError
from lth.execution import stopping
from lth.execution.stopping import Command, format_stopped

ERRORS = [
    (LthError("no space left"), "no space left", 1),
    (UsageError("it is empty", path=Path("x.toml"), cure="fill it"), "x.toml: it is empty; fill it", 2),
    (Damaged("run/x.csv", "it has no rows", "delete it"), "run/x.csv is damaged: it has no rows; delete it", 2),
    (Interrupted("stopped", command="lth run lenet"), "stopped. To continue: lth run lenet", 130),
]


@pytest.mark.parametrize(("error", "message", "code"), ERRORS, ids=lambda value: type(value).__name__)
def test_a_message_is_made_of_the_fields_also_in_another_process(error: LthError, message: str, code: int) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert str(error) == str(copy) == message and error.exit_code == code
    assert vars(copy) == vars(error) and type(copy) is type(error)


def test_a_command_knows_how_it_goes_on() -> None:
    command = Command(["run", "my preset", "recipe.lr=0.1"])
    assert (format_stopped(command), command.patience_s) == ("lth: stopped", stopping.PATIENCE_S)
    command.begin_run("local")
    assert format_stopped(command).endswith("To continue: lth run 'my preset' recipe.lr=0.1")
    assert command.patience_s == stopping.PATIENCE_S
    command.begin_run("ray://head:10001")
    assert command.patience_s == stopping.CLUSTER_PATIENCE_S
