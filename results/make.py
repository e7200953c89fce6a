"""Make a folder of results: run its experiments, then keep of them what is committed.

    make results-lenet                                  # or: python results/make.py lenet
    python results/make.py lenet --keep                 # keep what is stored so far, run nothing
    python results/make.py lenet --seal                 # write manifest.json anew, of the tables as they are

Runs go below RUNS (default: runs/results) and resume: stop them as you like, and type the same again. Kept are
experiment.toml, environment.json, summary.csv, curves.csv.gz, the anatomy of trial 1's tickets, the figures as
pictures, the score card, the commands, and manifest.json, which has the checksums of the tables and says what is left
out.
"""

from __future__ import annotations

import argparse
import gzip
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import score
from PIL import Image

from lth.execution import figures
from lth.measures import tables as measures
from lth.papers import behind, drawing
from lth.papers.figures import Panel
from lth.papers.setups import Setup
from lth.results import plots, tables
from lth.results.records import Records
from lth.results.sheets import save
from lth.results.statistics import family
from lth.storage import layout, manifest
from lth.storage import runs as storage

HERE = Path(__file__).parent
CONTROLS = '[{name="reinit",count=3,levels="1-18"},{name="random-mask",count=1,levels="1-18"}]'
# A reinit at level 8 needs at most 4,600, 4,900 and 7,500 iterations to its early stop in the paper's figure 5.
SHORT, LONGER = (f'[{{name="reinit",count=1,levels="1-8",iterations={n}}}]' for n in (6000, 9000))
RATES = ("", "-lr0.01", "-warmup")
VGG = "[0.8,0.41,0.107,0.02]"  # four prunings down to 2%
LAST = '[{name="reinit",count=1,levels="4"}]'  # section 4's comparison, at the sparsest
SWEEP = "--trials 3 --scale 0.4"
DEEPER = [  # further than figure 29 has them: until a layer would be left without a weight
    f"lth run lenet name=lenet-rate{rate} prune.rate={rate} {SWEEP} --levels {levels} --branches ''"
    f" --out RUNS/appendix-g/scale0.4-trials3-levels14/lenet-rate{rate}"
    for rate, levels in ((0.6, 11), (0.8, 6))
]

PIXELS, STANDARDISED = "data.mean=[] data.std=[]", "data.mean=[0.4914,0.4822,0.4465] data.std=[0.247,0.2435,0.2616]"
FAILING = "conv2-dropout recipe.lr=0.0001 recipe.iterations=1500"  # the paper's figure 36: at chance until pruned
INPUTS = [  # how images are scaled, which the paper does not say: as the presets have it, and otherwise
    f"lth run {words} --levels 0 --branches '' --out RUNS/inputs/{name}"
    for name, words in {
        "conv2-pixels": f"conv2 {PIXELS} recipe.iterations=5000 --trials 2",
        "conv2-standardised": f"conv2 {STANDARDISED} recipe.iterations=5000 --trials 2",
        "dropout-bytes": f"{FAILING} --trials 2",
        "dropout-bytes-3e-4": "conv2-dropout recipe.iterations=1500 --trials 2",  # which the paper's always learns by
        "dropout-standardised": f"{FAILING} {STANDARDISED} --trials 2",
        "lenet-standardised": "lenet data.mean=[0.1307] data.std=[0.3081] --scale 0.4",
    }.items()
]
LENGTH = [  # whether masks of trunks that end sooner after their early stop make other tickets
    "lth run conv2 prune.densities=[0.6416,0.412,0.265] --trials 1 --levels 3 --branches ''"
    " --out RUNS/length/conv2-20000",
    "lth run lenet recipe.iterations=10000 --trials 3 --levels 8 --branches '' --out RUNS/length/lenet-10000",
]
SEEDS = [  # whether early stops and accuracies are a validation set's: each seed has another
    f"lth run lenet seed={n} --trials 3 --levels 8 --scale 0.3 --branches '' --out RUNS/seeds/seed{n}"
    for n in range(1, 5)
]
SAMPLED = [  # whether large first values make tickets poor: the same ones, drawn anew within each layer
    "lth run conv2 recipe.iterations=5000 prune.densities=[0.265]"
    """ 'branch=[{name="reinit",count=2},{name="sampled",count=2}]' --trials 1 --levels 1 --threads 2"""
    " --out RUNS/sampled/conv2-5000",
    "lth run conv2 prune.densities=[0.265]"
    """ 'branch=[{name="reinit",count=2,iterations=5000},{name="sampled",count=2,iterations=5000}]'"""
    " --trials 1 --levels 1 --threads 2 --out RUNS/sampled/conv2-20000",
]
COMMANDS = {
    "lenet": [f"lth run lenet 'branch={CONTROLS}' --out RUNS/lenet"],
    "lenet-oneshot": ["lth run lenet-oneshot --trials 3 --out RUNS/lenet-oneshot"],
    "lenet-continued": ["lth run lenet-continued --trials 3 --out RUNS/lenet-continued"],
    "inputs": INPUTS,
    "length": LENGTH,
    "sampled": SAMPLED,
    "seeds": SEEDS,
    "conv2": [f"lth run conv2 recipe.iterations=5000 'branch={SHORT}' --trials 2 --levels 10 --out RUNS/conv2"],
    "conv4": [f"lth run conv4 recipe.iterations=5000 'branch={SHORT}' --trials 1 --levels 10 --out RUNS/conv4"],
    "conv6": [f"lth run conv6 recipe.iterations=6000 'branch={LONGER}' --trials 1 --levels 10 --out RUNS/conv6"],
    "appendix-g": [*DEEPER, *(f"lth figure {n} {SWEEP} --levels 14 --out RUNS/appendix-g" for n in range(26, 32))],
    # Scaled, the deep presets would evaluate seven times in a training: the least loss of seven is no early stop.
    "resnet18": [
        f"lth run resnet18{rate} recipe.eval_every=200 --trials 1 --levels 4 --scale 0.2 --branches ''"
        f" --out RUNS/resnet18/resnet18{rate}"
        for rate in RATES
    ],
    "vgg19": [
        f"lth run vgg19{rate} recipe.eval_every=500 prune.densities={VGG} 'branch={LAST}' --trials 1 --levels 4"
        f" --scale 0.05 --threads 2 --out RUNS/vgg19/vgg19{rate}"
        for rate in RATES
    ],
}
LEFT_OUT = (  # of a run's folder; `*` is for any folders too
    *("report.html", "figures/*.svg", "curves.csv", "trial-*/start.safetensors", "trial-*/ticket.safetensors"),
    *("trial-*/trained.safetensors", "trial-*/curve.csv", "trial-*/summary.json"),
)
FIGURES = {  # drawn of what is stored below RUNS, over the paper's curves
    "lenet": (1, 3, 4, 11, 12, 14),
    "lenet-oneshot": (4,),
    "lenet-continued": (9,),
    "conv2": (5, 13),
    "conv4": (5, 13),
    "conv6": (5, 13),
    "resnet18": (8,),
    "vgg19": (7,),
}


def run(name: str, runs: Path) -> None:
    for command in COMMANDS[name]:
        words = [word.replace("RUNS", str(runs)) for word in shlex.split(command)]
        subprocess.run([sys.executable, "-c", "from lth.cli import main; main()", *words[1:]], check=True)


def keep(name: str, runs: Path) -> None:
    """Copy what is committed of the runs below RUNS/NAME, and draw the figures anew that they are in."""
    folders, target = sorted(path.parent for path in (runs / name).rglob("experiment.toml")), HERE / name
    if not folders:
        sys.exit(f"nothing is stored below {runs / name}; type: python results/make.py {name} --runs {runs}")
    for folder in folders:
        keep_run(folder, target / folder.relative_to(runs / name))
    for picture in sorted((runs / name).rglob("figures/figure-*.png")):
        copy(picture, target / "figures" / picture.name)
        shrink(target / "figures" / picture.name)
    stored = score.kept()
    for folder, numbers in FIGURES.items():
        of = {Path(run).name: stored[run] for run in stored if Path(run).parent in (Path(), Path(folder))}
        for number in numbers if (HERE / folder).exists() else ():
            draw(number, of, HERE / folder / "figures")
    commands = [command.replace("RUNS", "runs/results") for command in COMMANDS[name]]
    (target / "command.sh").write_text("\n".join([f"# make results-{name}", *commands]) + "\n")


def keep_run(folder: Path, target: Path) -> None:
    """Copy what is committed of a run. What is there stays until all of it could be read."""
    with tempfile.TemporaryDirectory() as place:
        new = Path(place) / "run"
        tables.load(folder)  # whose tables are held against its trainings
        for name in ("experiment.toml", "environment.json", "summary.csv"):
            copy(folder / name, new / name)
        (new / "curves.csv.gz").write_bytes(gzip.compress((folder / "curves.csv").read_bytes(), mtime=0))
        keep_anatomy(folder, new)
        plots.draw([tables.load(folder)], new / "figures", behind.series)
        finish(new / "figures")
        seal(new)
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(new, target)


def seal(folder: Path) -> None:
    """Write the manifest of a folder of results."""
    manifest.seal(folder, storage.read_experiment(folder), storage.text_of(folder), LEFT_OUT)


def keep_anatomy(folder: Path, new: Path) -> None:
    """Copy the anatomy of trial 1's tickets, as the run has it: beside them, or as a measure."""
    beside = [path for path in folder.glob("trial-1/level-*/*.csv") if path.name in layout.ANATOMY]
    for path in sorted(beside):
        copy(path, new / path.relative_to(folder))
    if not beside and measures.compute("anatomy", folder):
        table = measures.read("anatomy", folder)
        assert table is not None
        measures.write("anatomy", new, table.loc[table["trial"] == 1])


def draw(number: int, stored: dict[str, Records], target: Path) -> None:
    """Draw the panels and lines of a figure that there are runs of, by the folder's name."""
    whole = figures.figure_of(number)
    needed = figures.needed(whole, figures.Version(), Path())
    runs = {run.setup: stored[run.folder.name] for run in needed if run.folder.name in stored}
    panels = [_stored(panel, runs) for panel in whole.panels]
    target.mkdir(parents=True, exist_ok=True)
    picture = drawing.draw(replace(whole, panels=tuple(panel for panel in panels if panel.lines)), runs)
    save(picture, target / f"figure-{number:02}")
    finish(target)


def _stored(panel: Panel, runs: Mapping[Setup, Records]) -> Panel:
    """The lines of a panel, ours and the paper's, of the branches that there are."""
    there = {(of, family(label)) for of, run in runs.items() for label in run.summary["branch"].unique()}
    among = lambda lines: tuple(line for line in lines if (line.setup, line.role) in there)
    return replace(panel, lines=among(panel.lines), paper=among(panel.paper))


def finish(figures: Path) -> None:
    """Of the pictures keep the PNGs, small."""
    for path in figures.iterdir():
        if path.suffix == ".png":
            shrink(path)
        else:
            path.unlink()


def shrink(picture: Path) -> None:
    """To 64 colours: a quarter of the bytes, and nothing that an eye sees."""
    with Image.open(picture) as image:
        if image.mode != "P":
            image.convert("RGB").quantize(64, dither=Image.Dither.NONE).save(picture, optimize=True)


def copy(path: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, target)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=COMMANDS)
    parser.add_argument("--keep", action="store_true", help="run nothing")
    parser.add_argument("--seal", action="store_true", help="write manifest.json alone")
    parser.add_argument("--runs", type=Path, default=Path("runs/results"))
    given = parser.parse_args()
    if given.seal:
        for path in sorted((HERE / given.name).rglob(layout.EXPERIMENT)):
            seal(path.parent)
        return
    if not given.keep:
        run(given.name, given.runs)
    keep(given.name, given.runs)
    score.main()


if __name__ == "__main__":
    main()
