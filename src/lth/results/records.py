"""The results of a run as a value, and the columns of its tables."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lth.config import TASKS, Experiment

if TYPE_CHECKING:
    import pandas as pd

PLACE = ("trial", "level", "branch")
TEXTS = ("branch", "status", "engine", "precision")
REACHED = "early_stop_reached"  # computed from a training's evaluations; missing in tables of version 0.1
EVALUATION = ("iteration", "val_loss", "val_accuracy", "test_loss", "test_accuracy")
CURVES = (*PLACE, "density", *EVALUATION)
RESULTS = (
    *("density", "weights", "status", "early_stop_iteration", REACHED),
    *("val_loss_at_early_stop", "val_accuracy_at_early_stop"),
    *("test_accuracy_at_early_stop", "train_accuracy_at_early_stop"),
    *("final_test_accuracy", "final_train_accuracy", "final_val_accuracy"),
)
LOSSES = (  # additional columns of tasks that are judged by the loss
    *("test_loss_at_early_stop", "train_loss_at_early_stop"),
    *("final_test_loss", "final_train_loss", "final_val_loss"),
)
EFFORT = ("iterations", "engine", "precision", "seconds")


@dataclass(frozen=True, eq=False)
class Records:
    """The results of a run: its experiment, `summary` (one row per training) and `curves` (one row per evaluation)."""

    folder: Path
    experiment: Experiment
    summary: pd.DataFrame
    curves: pd.DataFrame
    environment: dict[str, Any] | None = None


class Place(NamedTuple):
    """The place of a training in a run. Places sort like the rows of the tables."""

    trial: int
    level: int
    branch: str


def summary_columns(experiment: Experiment) -> list[str]:
    """The columns of summary.csv in order; two for each iteration of `recipe.report_at`.

    In tasks that are judged by the loss, columns of losses follow those of accuracies, which are blank.
    """
    report_at = sorted(set(experiment.recipe.report_at))
    reported = [f"{kind}_accuracy_at_{n}" for n in report_at for kind in ("test", "val")]
    if TASKS[experiment.data.task].metric == "loss":
        reported = [*LOSSES, *reported, *(name.replace("accuracy", "loss") for name in reported)]
    return [*PLACE, *RESULTS, *reported, *EFFORT]
