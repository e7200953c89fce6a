"""The command line: a few lines a command over the Python API."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lth import config
from lth.errors import LthError, UsageError
from lth.execution.stopping import Command, format_stopped, stopped_by_signals

if TYPE_CHECKING:
    from lth.results.records import Records

app = typer.Typer(
    name="lth",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
data_app = typer.Typer(help="Datasets: what there is, fetch one, where they are looked for.", no_args_is_help=True)
app.add_typer(data_app, name="data")

SOURCE = typer.Argument(metavar="PRESET|FILE.toml", help="a preset (see `lth list presets`) or a TOML file")
Source = Annotated[str, SOURCE]
Settings = Annotated[list[str] | None, typer.Argument(metavar="[key=value ...]", help="such as recipe.lr=0.001")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON on standard output")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="print errors only")]
Width = Annotated[str | None, typer.Option(help="figures for a paper: inches, or a conference's, such as icml-column")]
Scale = Annotated[float | None, typer.Option(help="multiply all iteration counts but eval_every by this")]
Engine = Annotated[str, typer.Option(help="auto, native or torch")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda")]
Workers = Annotated[int | None, typer.Option(help="trainings side by side (default: all cores)")]
Threads = Annotated[int | None, typer.Option(help="cores per training, with --engine torch (default: 1)")]
Cluster = Annotated[str, typer.Option("--executor", help="local, ray, ray://HOST:10001, slurm")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="show the plan, with time and disk; train nothing")]
Insecure = Annotated[bool, typer.Option("--insecure", help="join a Ray cluster that asks for no token, too")]
DataRoot = Annotated[Path | None, typer.Option(help="where datasets lie, as torchvision lays them out; else $LTH_DATA")]


def show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"lth {version('lth')}, torch {version('torch')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="print the version and exit")
    ] = False,
) -> None:
    """Find, train, check and explain winning lottery tickets."""


@app.command()
def run(
    context: typer.Context,
    source: Annotated[str | None, SOURCE] = None,
    settings: Settings = None,
    ticket: Annotated[Path | None, typer.Option(metavar="FILE", help="a ticket file: level 0 is that ticket")] = None,
    trials: Annotated[int | None, typer.Option(help="repetitions, each with its own seed")] = None,
    levels: Annotated[int | None, typer.Option(help="prunings: levels 0 to N")] = None,
    branches: Annotated[str | None, typer.Option(help="such as reinit:3,random-mask:1; '' for none")] = None,
    out: Annotated[Path | None, typer.Option(help="the run's folder (default: runs/NAME)")] = None,
    data_root: DataRoot = None,
    scale: Scale = None,
    engine: Engine = "auto",
    device: Device = "auto",
    workers: Workers = None,
    threads: Threads = None,
    executor: Cluster = "local",
    insecure: Insecure = False,
    dry_run: DryRun = False,
    watch: Annotated[bool, typer.Option("--watch", help="serve the report on 127.0.0.1 while the run lasts")] = False,
    log: Annotated[str | None, typer.Option(help="tensorboard: event files too, in the run's folder")] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Train, prune, reset, repeat; resumes; draws figures and the report at the end."""
    from rich.console import Console

    from lth.execution import executors, sweep
    from lth.results import tables

    if dry_run and as_json:
        raise UsageError("--json prints what the run has found, which --dry-run does not: leave one of them out")
    command_of(context).begin_run(executor)
    if ticket and source and "=" in source:  # the first of the settings: a ticket says itself how it was trained
        source, settings = None, [source, *(settings or ())]
    runs = sweep.sweep(
        source, settings or (), ticket=ticket, trials=trials, levels=levels, branches=branches, out=out,
        data_root=data_root, scale=scale, engine=engine, device=device, workers=workers, threads=threads,
        executor=executor, insecure=insecure, dry_run=dry_run, watch=watch, log=log,
        console=Console(stderr=as_json, quiet=quiet),
    )  # fmt: skip
    if as_json and not executors.follows():
        print_findings([tables.load(done.folder) for done in runs])


@app.command("list")
def list_(
    what: Annotated[str, typer.Argument(metavar=f"[presets|{'|'.join(config.registry.KINDS)}]")] = "presets",
    as_json: AsJson = False,
) -> None:
    """What can be chosen, a line each."""
    kinds = ("presets", *config.registry.KINDS)
    if what not in kinds:
        raise UsageError(f"lth list takes {', '.join(kinds)}; not {what!r}{config.nearest(what, kinds)}")
    lines = (
        {name: config.resolve(name).about for name in config.presets()}
        if what == "presets"
        else {name: entry.about for name, entry in config.registry.choices(what).items()}
    )
    if as_json:
        print_json(lines)
        return
    for name, about in lines.items():
        typer.echo(f"{name:{max(map(len, lines))}}  {about}")


@app.command()
def show(source: Source, settings: Settings = None) -> None:
    """The experiment, resolved, as TOML that `lth run` takes back."""
    experiment, notes = config.resolve_with_notes(source, settings or ())
    for note in notes:
        typer.echo(note, err=True)
    typer.echo(config.to_toml(experiment, comments=True), nl=False)


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN [RUN ...]", help="folders of runs; several are overlaid")],
    out: Annotated[Path | None, typer.Option(help="where to (default: the first run, figures in its figures/)")] = None,
    serve: Annotated[bool, typer.Option("--serve", help="only serve the report on 127.0.0.1, up to date")] = False,
    width: Width = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="of --serve (default: any that is free)")] = None,
    token: Annotated[
        bool, typer.Option("--token", help="of --serve: answer only to the address that is printed")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Figures and report.html, from what is stored so far."""
    from rich.console import Console

    from lth.report import publish
    from lth.report import serve as server
    from lth.results import comparison, tables, terminal, widths
    from lth.storage import atomic, layout

    if not serve and (port is not None or token):
        raise UsageError(f"--{'token' if token else 'port'} is for --serve: give both")
    if serve and as_json:
        raise UsageError("--serve prints an address, --json the findings: leave one of them out")
    if serve and out:
        raise UsageError("--serve writes nothing, so --out does nothing: leave one of them out")
    if serve:
        server.serve(runs, port or 0, typer.echo, with_token=token)
        return
    inches = widths.width_of(width)
    records = [tables.load(folder) for folder in runs]
    figures = out or runs[0] / layout.FIGURES
    atomic.make_folder(figures)
    console = Console(quiet=as_json)
    shown = [terminal.render_comparison(comparison.ranked(records))] if len(records) > 1 else []
    for table in shown or terminal.render_tables(records[0], console):
        console.print(table)
    written = publish.publish(records, figures, (out or runs[0]) / layout.REPORT, inches)
    if as_json:
        print_findings(records)
        return
    for line in publish.summarized(written):
        typer.echo(line)


@app.command()
def verify(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="a run's folder")],
    beside: Annotated[
        list[Path] | None, typer.Argument(metavar="[OTHER]...", help="runs that claims about two experiments read too")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """The score card: the papers' claims and curves against this run, and what it shows by itself."""
    from rich.console import Console

    from lth.papers import serialize, terminal
    from lth.papers.card import card
    from lth.results import tables

    scored = card(tables.load(run), [tables.load(other) for other in beside or ()])
    if as_json:
        print_json(serialize.as_json(scored))
    else:
        Console().print(terminal.render(scored))


@app.command()
def measure(
    name: Annotated[str, typer.Argument(metavar="NAME", help="of `lth list measures`")],
    run: Annotated[Path, typer.Argument(metavar="RUN", help="a run's folder")],
    options: Annotated[
        list[str] | None, typer.Argument(metavar="[option=value ...]", help="such as levels=[4,8] trials=1")
    ] = None,
) -> None:
    """Compute a measure from stored trainings, into RUN/measures/NAME.csv."""
    from lth.measures import tables

    path = tables.compute(name, run, **dict(map(config.parse_override, options or ())))
    if path is None:
        raise UsageError(f"{run} holds no tickets that {name} could be computed of")
    typer.echo(path)


@app.command()
def figure(
    context: typer.Context,
    figure_: Annotated[str | None, typer.Argument(metavar="N", help="of the paper: 1, 3 to 45")] = None,
    settings: Settings = None,
    list_: Annotated[
        bool, typer.Option("--list", help="one line per figure: what it shows and needs, and how long that takes")
    ] = False,
    trials: Annotated[int | None, typer.Option(min=1, help="fewer or more than the paper's")] = None,
    levels: Annotated[int | None, typer.Option(min=0, help="levels 0 to N, where the paper goes further")] = None,
    branches: Annotated[str | None, typer.Option(help="in place of the figure's own; '' for none")] = None,
    out: Annotated[Path, typer.Option(help="runs and figures go below it")] = Path("runs"),
    data_root: DataRoot = None,
    scale: Scale = None,
    engine: Engine = "auto",
    device: Device = "auto",
    workers: Workers = None,
    threads: Threads = None,
    executor: Cluster = "local",
    insecure: Insecure = False,
    dry_run: DryRun = False,
    width: Width = None,
    quiet: Quiet = False,
) -> None:
    """Run what figure N of the paper needs, and draw it over the paper's own curve."""
    from rich.console import Console

    from lth.execution import figures as paper_figure
    from lth.execution import pace
    from lth.execution.call import wrong_options
    from lth.execution.prepare import Wanted
    from lth.results import widths
    from lth.training import processor

    number, settings = paper_figure.of_command(figure_, settings or ())
    version = paper_figure.Version(trials, levels, branches, None if scale == 1 else scale, tuple(settings))
    if list_ == (number is not None):
        raise UsageError("give the number of a figure, such as lth figure 3; or lth figure --list")
    if wrong := wrong_options(Wanted(engine, device, threads, workers), executor):
        raise UsageError("\n".join(wrong))
    if number is None:
        for line in paper_figure.listing(version, out, pace.estimator(workers or processor.cores())):
            typer.echo(line)
        return
    command_of(context).begin_run(executor)
    means: dict[str, Any] = {"data_root": data_root, "engine": engine, "device": device, "workers": workers}
    means |= {"threads": threads, "executor": executor, "insecure": insecure}
    shown: dict[str, Any] = {"width": widths.width_of(width), "dry_run": dry_run, "console": Console(quiet=quiet)}
    for path in paper_figure.make(number, version, out, **shown, **means):
        if not quiet:
            typer.echo(path)


@app.command()
def ticket(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="of a run's folder, or saved from Python")],
    as_json: AsJson = False,
) -> None:
    """What a ticket file holds."""
    from lth.tickets.ticket import Ticket, describe, facts

    if as_json:
        print_json(facts(Ticket.load(file)))
        return
    for line in describe(Ticket.load(file)):
        typer.echo(line)


@app.command()
def export(
    run_: Annotated[Path, typer.Argument(metavar="RUN", help="a run's folder")],
    to: Annotated[Path, typer.Option(metavar="FILE.safetensors|FILE.pt|FILE.onnx", help="what to write")],
    trial: Annotated[int, typer.Option(min=1, help="which trial")] = 1,
    level: Annotated[int | None, typer.Option(min=0, help="which level (default: the winning level)")] = None,
    branch: Annotated[str, typer.Option(help="such as reinit-1")] = "ticket",
    weights: Annotated[str | None, typer.Option(help="for .pt and .onnx: trained (default), or start")] = None,
    compact: Annotated[bool, typer.Option("--compact", help="remove dead units and inputs")] = False,
) -> None:
    """A ticket as a file: .safetensors (mask and start), .pt (a plain state_dict), or .onnx (a network that runs)."""
    from lth.tickets import export

    export.export(run_, trial, level, to, branch=branch, weights=weights, compact=compact, say=typer.echo)


@app.command()
def bench(
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="write the numbers there")] = None,
) -> None:
    """This machine: time per iteration by density, both engines, and the limit of its arithmetic."""
    from rich.console import Console

    from lth.machine import bench as benchmark
    from lth.storage import documents

    if json_file:
        benchmark.check_file(json_file)
    console = Console()
    measured = benchmark.bench(tell=lambda line: console.print(line, highlight=False, markup=False))
    if json_file:
        documents.write_json(json_file, measured)


@app.command()
def approve(
    files: Annotated[list[Path], typer.Argument(metavar="FILE.py [FILE.py ...]", help="files that you have read")],
) -> None:
    """Let lth run these Python files, as they are now, where an experiment or a ticket names them."""
    from lth.config import approval, userfile

    for file in files:
        place, sha256 = approval.place(file), userfile.checksum("lth approve", file)
        typer.echo(approval.approve(place, sha256) or f"approved: {place}")


@app.command()
def doctor(data_root: DataRoot = None) -> None:
    """What this machine has, what lth will therefore choose, and the command for what is missing."""
    from lth.machine import doctor as examination

    for line in examination.examine(data_root):
        typer.echo(line)


@app.command()
def repair(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="a run's folder")],
    yes: Annotated[bool, typer.Option("--yes", help="do it; without it, only show what would be done")] = False,
) -> None:
    """Read all that a run has stored, say what is damaged and what can be done, and do it on --yes."""
    from lth.execution import repair as mending

    mending.repair(folder, yes, typer.echo)


@data_app.command("list")
def data_list() -> None:
    """The datasets that lth knows, a line each; `lth data where` says what of them is on this machine."""
    from lth.data import sources

    for line in sources.catalogue():
        typer.echo(line)


@data_app.command("fetch")
def data_fetch(name: Annotated[str, typer.Argument()], data_root: DataRoot = None) -> None:
    """Bring a dataset to this machine, and check it."""
    from lth.data import sources

    typer.echo(sources.fetch(name, data_root, typer.echo))


@data_app.command("where")
def data_where(
    name: Annotated[str | None, typer.Argument(help="a dataset (default: all)")] = None, data_root: DataRoot = None
) -> None:
    """Where datasets are looked for, in order, and what is there."""
    from lth.data import sources

    for dataset in [name] if name else config.DATASETS:
        for line in sources.where(dataset, data_root):
            typer.echo(line)


def print_findings(runs: list[Records]) -> None:
    """What a run shows as an object, what several show as a list of them."""
    from lth.report import findings

    values = [findings.as_json(run) for run in runs]
    print_json(values[0] if len(values) == 1 else values)


def print_json(value: Any) -> None:
    import json

    typer.echo(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))


def command_of(context: typer.Context) -> Command:
    """The command that `main` carries out; without it, as in a program that calls the app, one of no words."""
    return context.obj or Command(())


def main() -> None:
    """The console script: errors that are the user's to mend end in a clear line and their exit code."""
    command = Command(sys.argv[1:])
    with stopped_by_signals(command) as signals:
        try:
            app(command.words, prog_name="lth", obj=command)
        except LthError as error:
            if error.command:
                error.command = command.line  # a figure and a sweep are of several runs
            command.announced = True  # before it is: what ends the process may come at any moment
            typer.echo(f"lth: {config.printable(str(error))}", err=True)
            sys.exit(error.exit_code)
        except OSError as error:  # a disk or a terminal that fails where nobody expected it
            said = f"lth: {error.filename or 'output'}: {error.strerror or error}"
            typer.echo(config.printable(said), err=True)
            sys.exit(1)
        except (KeyboardInterrupt, SystemExit) as end:
            if isinstance(end.__context__, BrokenPipeError) and not command.resumes:
                sys.exit(0)  # the reader, such as `head`, has what it wanted
            if signals and getattr(end, "code", 1):  # before there was anything to say it better
                typer.echo(format_stopped(command), err=True)
                sys.exit(130)
            raise
