"""The results of a run as sentences, also if no level wins, there is one trial, or much is missing."""

from __future__ import annotations

from lth.plan import plan
from lth.results import sentences, verdict
from lth.results.captions import format_at_chance, format_length, format_percent
from lth.results.records import Records
from lth.results.trainings import each_training
from lth.storage import layout


def subject(run: Records) -> str:
    """What was run: the experiment and its size."""
    experiment, summary = run.experiment, run.summary
    about = experiment.about.rstrip(".") or experiment.name
    if not len(summary):
        return f"{about}."
    tickets = summary.loc[summary["branch"] == "ticket"]
    trials, deepest = summary["trial"].nunique(), int(tickets["level"].max()) if len(tickets) else 0
    prunings = f"{deepest} pruning{'s' * (deepest != 1)}"
    if deepest:
        prunings += f" down to {format_percent(100 * float(tickets['density'].min()))}% of the weights"
    return f"{about}: {trials} trial{'s' * (trials > 1)}, {prunings}, {format_length(experiment)}."


def headline(run: Records) -> str:
    """The main finding."""
    if not len(run.summary):
        return "Nothing is trained yet."
    judged = verdict.of(run)
    return " ".join([sentences.conclusion(judged), *sentences.caveats(judged)])


def notes(run: Records) -> list[str]:
    """What is missing or left out, and how the verdict is made."""
    judged = verdict.of(run)
    return [*sentences.basis(judged), *state(run), *sentences.method(judged)]


def next_steps(run: Records) -> list[tuple[str, str]]:
    """The next steps with their commands, the most useful first; at most four.

    A folder that has only the tables cannot be extended or exported from, but it can be run again.
    """
    experiment, folder = layout.quoted(run.folder / layout.EXPERIMENT), layout.quoted(run.folder)
    if next(each_training(run.folder), None) is None:
        return [("Run the experiment again, in a folder of its own:", f"lth run {experiment}")]
    again, judged = f"lth run {experiment} --out {folder}", verdict.of(run)
    stored, expected = progress(run)
    steps = []
    if stored < expected:
        steps.append((f"Train the {expected - stored} trainings that are missing:", again))
    if advice := sentences.advice(judged, run.experiment):
        steps.append((advice, ""))
    steps += _extensions(run, judged, again)
    if judged.winning is not None:
        steps.append(("Save the ticket of the winning level:", f"lth export {folder} --to ticket.safetensors"))
    return steps[:4]


def _extensions(run: Records, judged: verdict.Verdict, again: str) -> list[tuple[str, str]]:
    """Possible additions to the run: trials that resolve its verdict, the paper's control, sparser levels."""
    focus, trials, steps = judged.focus, run.experiment.trials, []
    if focus and focus.resolved == "open" and not focus.unreached and trials < 5:
        few = "One trial resolves" if trials == 1 else f"{trials} trials resolve"
        steps.append((f"{few} too little. Add trials:", f"{again} --trials 5"))
    if focus and not run.experiment.branch:
        steps.append(("Compare with new weights under the same masks:", f"{again} --branches reinit:1"))
    if focus and focus.level == run.experiment.levels == judged.winning:
        steps.append(("The sparsest level wins. Prune further:", f"{again} --levels {run.experiment.levels + 5}"))
    return steps


def state(run: Records) -> list[str]:
    """What is missing, left out, or smaller than in the full experiment."""
    stored, expected = progress(run)
    sentences = []
    if stored < expected:
        sentences.append(f"Unfinished: {stored} of {expected} trainings are stored; all numbers refer to these.")
    for status, text in (
        ("diverged", "diverged; means leave {them} out."),
        ("collapsed", "collapsed: a layer has no weight left."),
    ):
        if count := list(run.summary["status"]).count(status):
            them = "them" if count > 1 else "it"
            sentences.append(f"{count} of {stored} trainings {text.format(them=them)}")
    sentences += [f"{line[0].upper()}{line[1:]}." for line in format_at_chance(run)]
    return sentences


def progress(run: Records) -> tuple[int, int]:
    """The numbers of stored and of expected trainings. A trunk ends at a level that diverges."""
    places = zip(run.summary["trial"], run.summary["level"], run.summary["branch"], run.summary["status"], strict=True)
    status = {place[:3]: place[3] for place in places}
    trainings = plan(run.experiment)
    by_id = {t.id: status.get((t.trial, t.level, t.branch)) for t in trainings}
    gone: set[str] = set()
    for training in trainings:  # sorted so that a training follows those that it needs
        if by_id[training.id] is None and any(need in gone or by_id.get(need) == "diverged" for need in training.needs):
            gone.add(training.id)
    return len(status), max(len(status), len(trainings) - len(gone))
