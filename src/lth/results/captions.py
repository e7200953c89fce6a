"""Format numbers and names of a run for tables, captions, legends and reports."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from lth.config import Experiment
from lth.results.metrics import ACCURACY, Metric, metric_of
from lth.results.records import Records
from lth.results.statistics import at_chance

QUANTITIES = {  # column -> label of its axis
    "early_stop_iteration": "early-stop iteration",
    "test_accuracy_at_early_stop": "test accuracy at early stop",
    "val_accuracy_at_early_stop": "validation accuracy at early stop",
    "final_val_accuracy": "validation accuracy at the last iteration",
    "final_test_accuracy": "test accuracy at the last iteration",
    "train_accuracy_at_early_stop": "training accuracy at early stop",
    "final_train_accuracy": "training accuracy at the last iteration",
    "test_loss_at_early_stop": "test loss at early stop",
    "val_loss_at_early_stop": "validation loss at early stop",
    "train_loss_at_early_stop": "training loss at early stop",
    "final_test_loss": "test loss at the last iteration",
    "final_val_loss": "validation loss at the last iteration",
    "final_train_loss": "training loss at the last iteration",
    "test_loss": "test loss",
    "test_accuracy": "test accuracy",
    "val_loss": "validation loss",
    "val_accuracy": "validation accuracy",
}


def format_diverged(records: Records) -> list[str]:
    """The number of diverged trainings, which means leave out; empty if there are none."""
    count = len(records.summary.loc[records.summary["status"] == "diverged"])
    return [f"{count} training{'s' * (count > 1)} that diverged"] if count else []


def format_at_chance(records: Records) -> list[str]:
    """A sentence on the levels whose tickets are all at chance, if there are any."""
    levels = at_chance(records)
    if not levels:
        return []
    chance, metric = (records.environment or {})["data"]["chance"], metric_of(records.experiment)
    which = f"level{'s' * (len(levels) > 1)} {', '.join(map(str, levels))}"
    what = f"as high as that of a constant answer (test loss {metric.text(chance)})"
    what = what if metric.relative else f"at chance (about {100 * chance:.0f}%)"
    return [f"{what}: all tickets of {which}; these networks learned nothing"]


def format_trials(counts: Sequence[int]) -> str:
    """The number of trials of a mean: `1 trial`, `mean (min-max) of 3 to 5 trials`."""
    low, high = min(counts, default=0), max(counts, default=0)
    if high < 2:
        return "1 trial" if high else "nothing trained yet"
    return f"mean (min-max) of {high if low == high else f'{low} to {high}'} trials"


def format_length(experiment: Experiment) -> str:
    """The number of iterations, and that of branches if it differs: `5,000 iterations (reinit 6,000)`."""
    apart = [
        f"{b.name} {b.iterations:,}"
        for b in experiment.branch
        if b.iterations not in (None, experiment.recipe.iterations)
    ]
    branches = f" ({', '.join(apart)})" if apart else ""
    return f"{experiment.recipe.iterations:,} iterations{branches}{format_scale(experiment)}"


def format_scale(experiment: Experiment) -> str:
    """The end of a caption: the scale of a run whose iterations were scaled, else empty."""
    return "" if experiment.scale == 1 else f", at scale {experiment.scale:g} of the full iterations"


def explain(every: Sequence[int], lowest: Sequence[float | None], paper: str = "", metric: Metric = ACCURACY) -> str:
    """Sentences that explain the error bars, pale lines and triangles in the panels of a figure.

    `every` and `lowest` are the results of lth.results.panels.draw_bars and focus for each panel.
    """
    sentences = []
    if every:
        few, most = min(every), ordinal(max(every))
        steps = f"at every {most}" if few == max(every) else f"at every {ordinal(few)} to {most}"
        step = "" if max(every) == 1 else f", in some panels at every {most} level" if few == 1 else f", {steps} level"
        sentences.append(f"Error bars: minimum and maximum{step}.")
    sentences += [f"Wide, pale lines: {paper}."] * bool(paper)
    if cut := [mean for mean in lowest if mean is not None]:
        where = f"above the axis, the highest {max(cut):.4g}" if metric.relative else ""
        where = where or f"below the axis, the lowest {100 * min(cut):.1f}%"
        sentences.append(f"Triangles: means {where}.")
    return " ".join(sentences)


def ordinal(n: int) -> str:
    """`2nd`, `3rd`, `11th`."""
    ending = {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th") if n % 100 // 10 != 1 else "th"
    return f"{n}{ending}"


def format_percent(percent: float) -> str:
    """`100`, `51.3`, `0.99`, `0.041`."""
    return f"{percent:.0f}" if percent > 99.95 else f"{percent:.1f}" if percent >= 0.95 else f"{percent:.2g}"


def quantity_label(quantity: str) -> str:
    """The name of a column in words."""
    if match := re.fullmatch(r"(test|val)_(accuracy|loss)_at_(\d+)", quantity):
        return f"{'test' if match[1] == 'test' else 'validation'} {match[2]} at iteration {int(match[3]):,}"
    return QUANTITIES.get(quantity, quantity.replace("_", " "))


def run_names(runs: Sequence[Records]) -> list[str]:
    """A name for each run in a legend: that of the experiment, or of the folder if several runs share it."""
    experiments = [run.experiment for run in runs]
    folders = [run.folder.resolve().name for run in runs]
    for names in ([e.name for e in experiments], [e.folder_name for e in experiments], folders):
        if len({*names}) == len(names):
            return names
    return [str(r.folder) for r in runs]


def caption_of(runs: Sequence[Records]) -> str:
    """Trials, length, scale and omissions of runs, as lines."""
    lines: dict[str, list[str]] = {}
    for run, name in zip(runs, run_names(runs), strict=True):
        diverged = sum(run.summary["status"] == "diverged")
        counted = (run.summary["branch"] == "ticket") & (run.summary["status"] != "diverged")
        trials = format_trials(list(Counter(run.summary.loc[counted, "level"]).values()))
        left_out = f"; diverged and left out: {diverged} of {len(run.summary)} trainings" if diverged else ""
        lines.setdefault(f"{trials}, {format_length(run.experiment)}{left_out}", []).append(name)
    return "\n".join(f"{', '.join(names)}: {what}." for what, names in lines.items())
