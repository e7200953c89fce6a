"""CIFAR-10 and CIFAR-100: the binary layout (records of labels and pixels) and the Python layout (pickles)."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np

from lth.config.files import is_special, read_file
from lth.data.examples import Data
from lth.data.pickles import read_table
from lth.data.rawfiles import Absent, Damaged, unpack
from lth.data.registry import IMAGE_BYTES, DatasetInfo, PythonLayout, RawFile
from lth.errors import UsageError


def read_records(info: DatasetInfo, contents: dict[str, bytes]) -> Data:
    """Images [n, 3, 32, 32] and labels from binary files; the last file is the test set.

    A record consists of one or more label bytes, the last of which is the class, and the red, green and blue planes.
    """
    parts = [_images_and_labels(contents[file.name], len(file.labels)) for file in info.files]
    return Data(
        name=info.name,
        train_x=np.concatenate([x for x, _ in parts[:-1]]),
        train_y=np.concatenate([y for _, y in parts[:-1]]),
        test_x=np.ascontiguousarray(parts[-1][0]),
        test_y=parts[-1][1],
        classes=info.classes,
    )


def _images_and_labels(content: bytes, label_bytes: int) -> tuple[np.ndarray, np.ndarray]:
    records = np.frombuffer(content, dtype=np.uint8).reshape(-1, label_bytes + IMAGE_BYTES)
    return records[:, label_bytes:].reshape(-1, 3, 32, 32), records[:, label_bytes - 1].astype(np.int64)


def read_python_folder(folder: Path, info: DatasetInfo, layout: PythonLayout) -> dict[str, bytes]:
    """The verified content of each of the dataset's files by name, read from a folder in the Python layout."""
    paths = [folder / name for name in layout.files]
    if missing := [path.name for path in paths if not (path.is_file() or is_special(path))]:
        raise Absent(f"no {missing[0]} in {folder}")
    contents = {}
    for path, file in zip(paths, info.files, strict=True):
        try:
            contents[file.name] = from_pickle(read_file(path, most_pickled(file) + 1), file, layout)
        except OSError as error:
            raise Damaged(f"{path} cannot be read: {error.strerror}") from None
        except Damaged as damage:
            raise Damaged(f"{path} {damage}") from None
    return contents


def most_pickled(file: RawFile) -> int:
    """The maximum size of a file's pickle, including image names; nothing beyond it is read."""
    return file.size + file.size // 10 + 2**20


def from_pickle(pickled: bytes, file: RawFile, layout: PythonLayout) -> bytes:
    """The verified bytes of an official file, from its pickle: pixels [n, 3072] and a list of labels per label byte."""
    if len(pickled) > most_pickled(file):
        raise Damaged(f"is larger than the maximum of {most_pickled(file):,} bytes")
    try:
        table = read_table(BytesIO(pickled), "it")
        pixels = table["data"]
        labels = np.array([table[key] for key in layout.labels])
    except (KeyError, ValueError, UsageError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        raise Damaged(f"is not in the Python layout: {reason}") from None
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape[1:] != (IMAGE_BYTES,):
        raise Damaged(f"has data of another form than bytes [n, {IMAGE_BYTES}]")
    if labels.dtype.kind != "i" or labels.shape != (len(file.labels), len(pixels)):
        raise Damaged(f"does not have an integer of {' and '.join(layout.labels)} for each of {len(pixels):,} images")
    if labels.size and not 0 <= labels.min() <= labels.max() < 256:
        raise Damaged(f"has a label outside of 0 to {file.labels[-1] - 1}")
    return unpack(np.column_stack([labels.T.astype(np.uint8), pixels]).tobytes(), file)
