"""Load the dataset that the user named: a known dataset, a folder, or an .npz file."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from lth.config.files import kind_of
from lth.data.cifar import read_records
from lth.data.classes import Order, by_number
from lth.data.examples import Data, from_arrays
from lth.data.folders import Size, read_images
from lth.data.formats import NPZ_KEYS, read_idx, read_npz
from lth.data.registry import DATASETS, DatasetInfo, unknown
from lth.data.sources import Say, cache_root, obtain
from lth.errors import UsageError


def load(
    name: str | Path,
    data_root: Path | None = None,
    say: Say = print,
    size: Size = (),
    order: Order = by_number,
    task: str = "classification",
) -> Data:
    """Load a known dataset, a folder of images, or an .npz file.

    A string is a name first, then a path; ./mnist is the folder. Known datasets are looked for in `data_root` first
    (see `lth.data.sources`); `say` gets one line for each source that lacks them. `size` is the height and width to
    which the images of a folder are scaled; `order` sorts class names; `task` is one of `lth list tasks`. Raises
    UsageError if there is no such dataset, it cannot be found or downloaded, or it is damaged.
    """
    if isinstance(name, str) and name in DATASETS:
        _refuse_size(size, name)
        info = DATASETS[name]
        _, contents = obtain(info.name, data_root, say)
        return READERS[info.reader](info, contents)
    if name == "":
        raise unknown("")
    path = Path(os.path.expanduser(name))  # noqa: PTH111  (this one leaves the ~ of an unknown user alone)
    try:
        if path.is_dir():
            _refuse_task(task, path)
            return read_images(path, cache_root() / "images", say, size, order)
        if path.exists():
            _refuse_size(size, path)
            return _from_npz(path, order, task)
    except OSError as error:
        raise UsageError(f"{str(name)[:300]} cannot be read: {error.strerror}") from None
    if path.suffix or os.sep in str(name):
        raise UsageError(
            f"{name}: no such file or folder; expected a folder of images, an .npz file or a dataset's name"
        )
    raise unknown(str(name))


def read_idx_dataset(info: DatasetInfo, contents: dict[str, bytes]) -> Data:
    """MNIST and similar datasets: uint8 images [n, 1, h, w] and labels from four IDX files in the order of `files`."""
    x_train, y_train, x_test, y_test = (read_idx(contents[file.name], file.name) for file in info.files)
    return Data(
        name=info.name,
        train_x=x_train[:, None],
        train_y=y_train.astype(np.int64),
        test_x=x_test[:, None],
        test_y=y_test.astype(np.int64),
        classes=info.classes,
    )


READERS: dict[str, Callable[[DatasetInfo, dict[str, bytes]], Data]] = {
    "idx": read_idx_dataset,
    "records": read_records,
}


def _refuse_size(size: Size, name: str | Path) -> None:
    if size:
        raise UsageError(f"data.size is for folders of images, and {name} is not a folder: leave data.size out")


def _refuse_task(task: str, path: Path) -> None:
    if task != "classification":
        raise UsageError(f"data.task={task}: the targets of a folder of images, {path}, are classes; give an .npz file")


def _from_npz(path: Path, order: Order, task: str) -> Data:
    if kind := kind_of(path):
        raise UsageError(f"{path} is {kind}, expected an .npz file, a folder of images or a dataset's name")
    if path.suffix.lower() != ".npz":
        raise UsageError(f"{path} is not a dataset: expected an .npz file, a folder of images or a dataset's name")
    arrays = read_npz(path, str(path))
    x_train, y_train, x_test, y_test = (arrays[key] for key in NPZ_KEYS)
    return from_arrays(path.stem, x_train, y_train, x_test, y_test, order=order, task=task)
