"""What this machine has, what lth will choose on it, and the commands that install what is missing.

Nothing here is needed for training. torch is imported only by the checks that need it.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from lth import native
from lth.config import DATASETS, Experiment, resolve
from lth.data.memory import total_and_free
from lth.data.sources import cache_root, on_disk
from lth.errors import UsageError

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "firefox", "safari")
LEAST_FREE_GIB = 1.0  # with less free space, a full run of LeNet may not fit
AGAIN = "pip install --no-deps --force-reinstall ."  # in the source folder of lth


@dataclass(frozen=True)
class Finding:
    """One item: its name, whether it is available, a description, and the command that supplies it."""

    what: str
    found: bool
    detail: str
    command: str = ""

    def __str__(self) -> str:
        supply = f"; type: {self.command}" if self.command else ""
        return f"{self.what:<20}{'found' if self.found else 'missing':<9}{self.detail}{supply}"


def examine(data_root: Path | None = None) -> Iterator[str]:
    """Yield one line per item, then lth's choices, each as soon as it is known."""
    torch = torch_itself()
    with_torch = (bfloat16, gpu) if torch.found else ()
    yield str(torch)
    yield from (str(look()) for look in (compiler, headers, native_engine, *with_torch, memory))
    yield from (str(disk(what, folder)) for what, folder in (("disk: runs", Path.cwd()), ("disk: cache", cache_root())))
    yield from (str(dataset(name, data_root)) for name in DATASETS)
    yield from map(str, (package("ray", "--executor ray"), package("tensorboard", "--log tensorboard"), browser()))
    if torch.found:
        yield from ("", "lth will choose, by default:", *choices())


# ---------------------------------------------------------------------------------------------------------- the machine


def torch_itself() -> Finding:
    detail = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
    try:
        return Finding("torch", True, f"torch {version('torch')}, {detail}")
    except PackageNotFoundError:
        return Finding("torch", False, detail, "pip install torch")


def compiler() -> Finding:
    """The C++ compiler that an installation of lth would use."""
    names = [os.environ.get("CXX", "").split(" ")[0], "c++", "g++", "clang++"]
    path = next(filter(None, (shutil.which(name) for name in names if name)), None)
    supply = "xcode-select --install" if sys.platform == "darwin" else "sudo apt-get install g++"
    if path is None:
        return Finding("C++ compiler", False, "the native engine cannot be built without one", supply)
    try:
        process = subprocess.run([path, "--version"], capture_output=True, text=True, errors="replace", timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return Finding("C++ compiler", False, f"{path} does not run", supply)
    return Finding("C++ compiler", True, f"{path}, {(process.stdout.splitlines() or ['of unknown version'])[0]}")


def headers() -> Finding:
    """Python's C headers, which building the native engine needs in addition to the compiler."""
    folder = Path(sysconfig.get_path("include"))
    if (folder / "Python.h").is_file():
        return Finding("Python headers", True, str(folder))
    major, minor = sys.version_info[:2]
    return Finding(
        "Python headers", False, f"no Python.h in {folder}", f"sudo apt-get install python{major}.{minor}-dev"
    )


def native_engine() -> Finding:
    if lacking := native.why_not():
        return Finding("native engine", False, lacking)
    return Finding("native engine", True, f"computes with {native.instruction_set()}")


def bfloat16() -> Finding:
    """How the CPU computes in bfloat16."""
    from lth.training import precision
    from lth.training.bfloat16 import kernels

    unit = precision.hardware("cpu")
    if unit is None:
        return Finding("bfloat16", False, "this processor does not support it")
    if lacking := kernels.why_not():
        supply = AGAIN if "not built" in lacking else ""
        return Finding("bfloat16", True, f"{unit}; without compiled kernels: {lacking}", supply)
    return Finding("bfloat16", True, f"{unit}, {kernels.format_support()}")


def gpu() -> Finding:
    import torch

    if torch.cuda.is_available():
        facts = torch.cuda.get_device_properties(0)
        count = torch.cuda.device_count()
        more = f", and {count - 1} more: one training on each of the {count}, side by side" if count > 1 else ""
        return Finding("GPU", True, f"{facts.name}, {facts.total_memory / 2**30:.0f} GiB{more}")
    if not shutil.which("nvidia-smi"):
        return Finding("GPU", False, "no NVIDIA driver on this machine; lth trains without a GPU too")
    if torch.version.cuda is None:
        return Finding(
            "GPU", False, f"torch {torch.__version__} is built for CPUs only", "pip install --force-reinstall torch"
        )
    return Finding("GPU", False, "torch finds no device", "nvidia-smi")


def memory() -> Finding:
    total, free = total_and_free()
    return Finding("memory", True, f"{total / 2**30:.1f} GiB, {free / 2**30:.1f} of them free")


def disk(what: str, folder: Path) -> Finding:
    """The free space below `folder`, which need not exist yet."""
    there = next(place for place in (folder, *folder.parents) if place.exists())
    free = shutil.disk_usage(there).free / 2**30
    detail = f"{free:.1f} GiB free in {folder}"
    if not os.access(there, os.W_OK):
        detail, supply = (
            f"{there} cannot be written",
            "export XDG_CACHE_HOME=FOLDER" if "cache" in what else "cd FOLDER",
        )
        return Finding(what, False, detail, supply)
    if free < LEAST_FREE_GIB:
        return Finding(what, False, f"{detail}, which is little", "lth run ... --out FOLDER (on another disk)")
    return Finding(what, True, detail)


def dataset(name: str, data_root: Path | None) -> Finding:
    """The folder of a dataset, or what is missing or damaged. Does not use the network."""
    folder, damage = on_disk(name, data_root)
    if folder:
        return Finding(f"data: {name}", True, f"in {folder}")
    detail = damage or "not on this machine; give its folder with --data-root, or download it"
    return Finding(f"data: {name}", False, detail, f"lth data fetch {name}")


def package(name: str, use: str) -> Finding:
    try:
        return Finding(name, True, f"{name} {version(name)}, for {use}")
    except PackageNotFoundError:
        return Finding(name, False, f"only {use} needs it", f"pip install {name}")


def browser() -> Finding:
    """The browser that opens report.html here."""
    if path := next(filter(None, map(shutil.which, BROWSERS)), None):
        return Finding("browser", True, path)
    if sys.platform == "darwin":
        return Finding("browser", True, "macOS has Safari")
    supply = "sudo apt-get install chromium chromium-driver"
    return Finding("browser", False, "report.html can be opened on any other machine", supply)


# -------------------------------------------------------------------------------------------------- what will be chosen


def choices() -> Iterator[str]:
    """What `lth run` will choose here, for one experiment of each kind."""
    cases = (("fully connected (lenet)", "lenet", (1, 28, 28)), ("convolutional (resnet18)", "resnet18", (3, 32, 32)))
    for kind, preset, shape in cases:
        yield f"  {kind}: {choice(resolve(preset), shape)}"


def choice(experiment: Experiment, shape: tuple[int, ...]) -> str:
    """Engine, device, precision and workers for an experiment on inputs of `shape`, with the reason."""
    from lth.execution import resources
    from lth.execution.executors import local

    try:
        means, reason = resources.choose(experiment, shape, 10, "auto", "auto")
    except UsageError as error:
        return str(error)
    count = local.room(means)
    return f"engine {means.engine} on {means.device}, {means.precision}, {count} side by side: {reason}"
