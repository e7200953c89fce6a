"""The command line: each command is a few lines over the Python API."""

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
data_app = typer.Typer(
    help="List the known datasets, fetch one, or show where lth looks for them.", no_args_is_help=True
)
app.add_typer(data_app, name="data")

SOURCE = typer.Argument(metavar="PRESET|FILE.toml", help="a preset (see `lth list presets`) or a TOML file")
Source = Annotated[str, SOURCE]
Settings = Annotated[
    list[str] | None, typer.Argument(metavar="[key=value ...]", help="settings such as recipe.lr=0.001")
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON on standard output")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="print errors only")]
Width = Annotated[
    str | None, typer.Option(help="figure width for a paper: inches, or a conference's, such as icml-column")
]
Scale = Annotated[float | None, typer.Option(help="multiply all iteration counts except eval_every by this factor")]
Engine = Annotated[str, typer.Option(help="auto, native or torch")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda")]
Workers = Annotated[int | None, typer.Option(help="number of parallel trainings (default: number of cores)")]
Threads = Annotated[int | None, typer.Option(help="cores per training, with --engine torch (default: 1)")]
Cluster = Annotated[str, typer.Option("--executor", help="local, ray, ray://HOST:10001, slurm")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="print the plan with its time and disk space; train nothing")]
Insecure = Annotated[bool, typer.Option("--insecure", help="also join a Ray cluster that requires no token")]
DataRoot = Annotated[Path | None, typer.Option(help="folder of datasets in torchvision's layout (default: $LTH_DATA)")]


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
    ticket: Annotated[Path | None, typer.Option(metavar="FILE", help="begin with this ticket as level 0")] = None,
    trials: Annotated[int | None, typer.Option(help="number of repetitions, each with its own seed")] = None,
    levels: Annotated[int | None, typer.Option(help="number of prunings: levels 0 to N")] = None,
    branches: Annotated[str | None, typer.Option(help="controls such as reinit:3,random-mask:1; '' for none")] = None,
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
    watch: Annotated[bool, typer.Option("--watch", help="serve the report on 127.0.0.1 during the run")] = False,
    log: Annotated[str | None, typer.Option(help="tensorboard: also write event files into the run's folder")] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Run an experiment: train, prune, reset, repeat. Resumes a stopped run; draws figures and a report at the end."""
    from rich.console import Console

    from lth.execution import executors, sweep
    from lth.results import tables

    if dry_run and as_json:
        raise UsageError("--json prints the results of a run, and --dry-run runs nothing: leave one of them out")
    command_of(context).begin_run(executor)
    if ticket and source and "=" in source:  # the first setting: a ticket file contains its experiment
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
    """List what can be chosen, one line per entry."""
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
    """Print an experiment with all its settings as TOML, which `lth run` accepts."""
    experiment, notes = config.resolve_with_notes(source, settings or ())
    for note in notes:
        typer.echo(note, err=True)
    typer.echo(config.to_toml(experiment, comments=True), nl=False)


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN [RUN ...]", help="run folders; several runs are overlaid")],
    out: Annotated[
        Path | None, typer.Option(help="output folder (default: the first run, figures in its figures/)")
    ] = None,
    serve: Annotated[
        bool, typer.Option("--serve", help="serve an updating report on 127.0.0.1 instead of writing it")
    ] = False,
    width: Width = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="port for --serve (default: any free port)")
    ] = None,
    token: Annotated[
        bool, typer.Option("--token", help="for --serve: require the token in the printed address")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Draw the figures and write report.html from what is stored so far."""
    from rich.console import Console

    from lth.report import publish
    from lth.report import serve as server
    from lth.results import comparison, tables, terminal, widths
    from lth.storage import atomic, layout

    if not serve and (port is not None or token):
        raise UsageError(f"--{'token' if token else 'port'} needs --serve: give both")
    if serve and as_json:
        raise UsageError("--serve prints an address and --json the results: leave one of them out")
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
        list[Path] | None, typer.Argument(metavar="[OTHER]...", help="further runs, for claims about two experiments")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Print the score card: this run compared with the papers' claims and curves, and its own statistics."""
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
    name: Annotated[str, typer.Argument(metavar="NAME", help="a measure (see `lth list measures`)")],
    run: Annotated[Path, typer.Argument(metavar="RUN", help="a run's folder")],
    options: Annotated[
        list[str] | None, typer.Argument(metavar="[option=value ...]", help="such as levels=[4,8] trials=1")
    ] = None,
) -> None:
    """Compute a measure from stored trainings and write RUN/measures/NAME.csv."""
    from lth.measures import tables

    path = tables.compute(name, run, **dict(map(config.parse_override, options or ())))
    if path is None:
        raise UsageError(f"{run} has no tickets from which {name} could be computed")
    typer.echo(path)


@app.command()
def figure(
    context: typer.Context,
    figure_: Annotated[str | None, typer.Argument(metavar="N", help="figure of the paper: 1, 3 to 45")] = None,
    settings: Settings = None,
    list_: Annotated[
        bool, typer.Option("--list", help="print one line per figure: content, required runs, estimated time")
    ] = False,
    trials: Annotated[int | None, typer.Option(min=1, help="number of trials (default: the paper's)")] = None,
    levels: Annotated[int | None, typer.Option(min=0, help="train levels 0 to N only")] = None,
    branches: Annotated[str | None, typer.Option(help="controls instead of the figure's; '' for none")] = None,
    out: Annotated[Path, typer.Option(help="folder for runs and figures")] = Path("runs"),
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
    """Train what figure N of the paper needs, and draw it over the paper's own curves."""
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
        raise UsageError("give the number of a figure, such as lth figure 3, or --list")
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
    file: Annotated[Path, typer.Argument(metavar="FILE", help="a ticket file of a run, or saved from Python")],
    as_json: AsJson = False,
) -> None:
    """Print the contents of a ticket file."""
    from lth.tickets.ticket import Ticket, describe, facts

    if as_json:
        print_json(facts(Ticket.load(file)))
        return
    for line in describe(Ticket.load(file)):
        typer.echo(line)


@app.command()
def export(
    run_: Annotated[Path, typer.Argument(metavar="RUN", help="a run's folder")],
    to: Annotated[
        Path,
        typer.Option(metavar="FILE.safetensors|FILE.pt|FILE.onnx", help="output file; its suffix selects the format"),
    ],
    trial: Annotated[int, typer.Option(min=1, help="which trial")] = 1,
    level: Annotated[int | None, typer.Option(min=0, help="which level (default: the winning level)")] = None,
    branch: Annotated[str, typer.Option(help="ticket, or a branch such as reinit-1")] = "ticket",
    weights: Annotated[str | None, typer.Option(help="for .pt and .onnx: trained (default) or start")] = None,
    compact: Annotated[bool, typer.Option("--compact", help="remove dead units and inputs")] = False,
) -> None:
    """Export a ticket: .safetensors (mask and start), .pt (a plain state_dict) or .onnx (an executable network)."""
    from lth.tickets import export

    export.export(run_, trial, level, to, branch=branch, weights=weights, compact=compact, say=typer.echo)


@app.command()
def bench(
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="write the results to this file")
    ] = None,
) -> None:
    """Measure the time per iteration on this machine by density, for both engines, and its peak arithmetic rate."""
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
    """Allow lth to run these Python files, in their present form, when an experiment or a ticket names them."""
    from lth.config import approval, userfile

    for file in files:
        place, sha256 = approval.place(file), userfile.checksum("lth approve", file)
        typer.echo(approval.approve(place, sha256) or f"approved: {place}")


@app.command()
def doctor(data_root: DataRoot = None) -> None:
    """Show what this machine has, what lth will choose, and commands that install what is missing."""
    from lth.machine import doctor as examination

    for line in examination.examine(data_root):
        typer.echo(line)


@app.command()
def repair(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="a run's folder")],
    yes: Annotated[bool, typer.Option("--yes", help="carry out the repairs; otherwise only print them")] = False,
) -> None:
    """Check all files of a run and print which are damaged and how to repair them; --yes repairs them."""
    from lth.execution import repair as mending

    mending.repair(folder, yes, typer.echo)


@data_app.command("list")
def data_list() -> None:
    """List the known datasets. `lth data where` shows which are on this machine."""
    from lth.data import sources

    for line in sources.catalogue():
        typer.echo(line)


@data_app.command("fetch")
def data_fetch(name: Annotated[str, typer.Argument()], data_root: DataRoot = None) -> None:
    """Download a dataset and verify its checksums."""
    from lth.data import sources

    typer.echo(sources.fetch(name, data_root, typer.echo))


@data_app.command("where")
def data_where(
    name: Annotated[str | None, typer.Argument(help="a dataset (default: all)")] = None, data_root: DataRoot = None
) -> None:
    """Show where lth looks for datasets, in order, and what it finds."""
    from lth.data import sources

    for dataset in [name] if name else config.DATASETS:
        for line in sources.where(dataset, data_root):
            typer.echo(line)


def print_findings(runs: list[Records]) -> None:
    """Print the results of a run as a JSON object, or those of several runs as a list."""
    from lth.report import findings

    values = [findings.as_json(run) for run in runs]
    print_json(values[0] if len(values) == 1 else values)


def print_json(value: Any) -> None:
    import json

    typer.echo(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))


def command_of(context: typer.Context) -> Command:
    """The command of `main`, or an empty one if another program calls the app."""
    return context.obj or Command(())


def main() -> None:
    """The console script. An LthError ends in one line on stderr and its exit code."""
    command = Command(sys.argv[1:])
    with stopped_by_signals(command) as signals:
        try:
            app(command.words, prog_name="lth", obj=command)
        except LthError as error:
            if error.command:
                error.command = command.line  # a figure or a sweep has several runs
            command.announced = True  # set first, because a signal may end the process at any moment
            typer.echo(f"lth: {config.printable(str(error))}", err=True)
            sys.exit(error.exit_code)
        except OSError as error:  # an unexpected failure of a disk or terminal
            message = f"lth: {error.filename or 'output'}: {error.strerror or error}"
            typer.echo(config.printable(message), err=True)
            sys.exit(1)
        except (KeyboardInterrupt, SystemExit) as end:
            if isinstance(end.__context__, BrokenPipeError) and not command.resumes:
                sys.exit(0)  # the reader, such as `head`, closed the pipe
            if signals and getattr(end, "code", 1):  # stopped before a better message was available
                typer.echo(format_stopped(command), err=True)
                sys.exit(130)
            raise
