"""A dataset of one's own as folders of images: train/CLASS/*.png|jpg|jpeg beside test/CLASS/*."""

from __future__ import annotations

import hashlib
import os
import struct
import warnings
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lth.data.examples import Data, from_arrays
from lth.data.formats import NPZ_KEYS, most_bytes, read_npz
from lth.data.rawfiles import write_whole
from lth.errors import UsageError

PARTS = ("train", "test")
_SUFFIXES = (".png", ".jpg", ".jpeg")
_GREY = ("1", "L", "LA")
_COLOUR = ("RGB", "RGBA", "P", "PA", "CMYK", "YCbCr")
_MOST_PIXELS = 64 * 2**20  # of one image
_DECODING_ERRORS = (
    OSError, SyntaxError, ValueError, TypeError, IndexError, KeyError, EOFError, OverflowError, MemoryError, zlib.error,
    struct.error,
)  # fmt: skip
_FORMAT = "1"  # of the cache: raised whenever decoding changes
Say = Callable[[str], None]


class _Listing(NamedTuple):
    """What is in the folder: each part's images in order, with the number of their class."""

    files: dict[str, list[tuple[Path, int]]]
    passed_over: int


def read_images(root: Path, cache: Path, say: Say) -> Data:
    """The images below a folder as uint8 [n, 1, h, w] where every one is grey, else [n, 3, h, w], decoded once: the
    arrays are kept in `cache` under a digest of the folder's path and its files' names, sizes and times.

    Classes are the names of train's subfolders, sorted; within a class, files come sorted by name. Transparency is
    dropped. `UsageError` where the folders' classes differ, a file is no image, sizes differ, or a link leads outside.
    """
    listing = _listing(root)
    if listing.passed_over:
        say(f"{root}: {listing.passed_over:,} entries that are no .png, .jpg or .jpeg file passed over")
    kept = cache / f"{_digest(os.fsencode(root.resolve()))[:16]}-{_fingerprint(root, listing)[:32]}.npz"
    arrays = _read_kept(kept, say)
    if arrays is None:
        say(f"{root}: decoding {sum(len(files) for files in listing.files.values()):,} images, once")
        arrays = _decode_all(listing)
        _keep(kept, arrays, say)
    return from_arrays(root.resolve().name, *(arrays[key] for key in NPZ_KEYS))


def _listing(root: Path) -> _Listing:
    try:
        found = {part: _classes(root, part) for part in PARTS}
        if list(found["train"]) != list(found["test"]):
            odd = sorted(set(found["train"]) ^ set(found["test"]))
            raise UsageError(
                f"{root}: the classes in train/ and test/ differ: {', '.join(odd[:5])} in one of them only; "
                "expected the same subfolders in both"
            )
        files: dict[str, list[tuple[Path, int]]] = {part: [] for part in PARTS}
        passed_over = 0
        for part in PARTS:
            for number, folder in enumerate(found[part].values()):
                images, others = _images_in(root, folder)
                files[part] += [(path, number) for path in images]
                passed_over += others
    except OSError as error:
        raise UsageError(f"{error.filename or root} cannot be read: {error.strerror}") from None
    return _Listing(files, passed_over)


def _classes(root: Path, part: str) -> dict[str, Path]:
    folder = root / part
    if not folder.is_dir():
        raise UsageError(f"{root} has no folder {part}/; expected {root}/train/CLASS/*.png and {root}/test/CLASS/*.png")
    entries = [entry for entry in sorted(folder.iterdir()) if not entry.name.startswith(".") and entry.is_dir()]
    if len(entries) < 2:
        raise UsageError(f"{folder} has {len(entries)} subfolders, expected two or more: one for each class")
    return {entry.name: _inside(root, entry) for entry in [_inside(root, folder) / entry.name for entry in entries]}


def _images_in(root: Path, folder: Path) -> tuple[list[Path], int]:
    """The images of one class, sorted by name, and how many other entries lie beside them."""
    entries = [entry for entry in sorted(folder.iterdir()) if not entry.name.startswith(".")]
    images = [_inside(root, entry) for entry in entries if entry.suffix.lower() in _SUFFIXES and entry.is_file()]
    if not images:
        raise UsageError(f"{folder} holds no .png, .jpg or .jpeg file; expected images of class {folder.name!r}")
    return images, len(entries) - len(images)


def _inside(root: Path, path: Path) -> Path:
    """The path, once it is sure that no link takes it out of the folder that the user named."""
    if path.is_symlink() and not path.resolve().is_relative_to(root.resolve()):
        raise UsageError(f"{path} is a link that leads outside of {root}; copy what it points to into the folder")
    return path


def _fingerprint(root: Path, listing: _Listing) -> str:
    lines = [_FORMAT]
    for path, number in listing.files["train"] + listing.files["test"]:
        facts = path.stat()
        lines.append(f"{path.relative_to(root)}/{number}/{facts.st_size}/{facts.st_mtime_ns}")
    return _digest(os.fsencode("\n".join(lines)))


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _read_kept(kept: Path, say: Say) -> dict[str, np.ndarray] | None:
    if not kept.is_file():
        return None
    try:
        return read_npz(kept, str(kept))
    except UsageError as damage:
        say(f"{damage}; the images are decoded again")
        return None


def _keep(kept: Path, arrays: dict[str, np.ndarray], say: Say) -> None:
    """Write the arrays into the cache and remove what an earlier state of the same folder left there."""
    packed = BytesIO()
    np.savez(packed, **arrays)  # type: ignore[arg-type]
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_whole(kept, packed.getbuffer())
        for older in kept.parent.glob(f"{kept.name.split('-')[0]}-*.npz"):
            if older != kept:
                older.unlink(missing_ok=True)
    except OSError as error:
        # The arrays are at hand; only the time that the cache would have saved is lost.
        say(f"the decoded images cannot be kept in {kept.parent} ({error.strerror}): they are decoded anew each time")


def _decode_all(listing: _Listing) -> dict[str, np.ndarray]:
    paths = [path for part in PARTS for path, _ in listing.files[part]]
    heads = [_head(path) for path in paths]
    size, grey = heads[0][0], all(mode in _GREY for _, mode in heads)
    for path, (other, _) in zip(paths, heads, strict=True):
        if other != size:
            raise UsageError(f"{path} is {_by(other)} pixels, {paths[0]} {_by(size)}; expected images of one size")
    _weigh(len(paths) * size[0] * size[1] * (1 if grey else 3), paths[0].parents[2])
    arrays = {}
    for part in PARTS:
        files = listing.files[part]
        arrays[f"x_{part}"] = images = np.empty((len(files), 1 if grey else 3, size[1], size[0]), np.uint8)
        for image, (path, _) in zip(images, files, strict=True):
            image[:] = _decode(path, "L" if grey else "RGB")
        arrays[f"y_{part}"] = np.array([number for _, number in files], dtype=np.int64)
    return arrays


def _weigh(size: int, root: Path) -> None:
    if size > (most := most_bytes()):
        raise UsageError(f"the images in {root} decode to {size:,} bytes, at most {most:,} are read here")


def _head(path: Path) -> tuple[tuple[int, int], str]:
    """An image's size and mode, without decoding it."""
    size, mode = _open(path, lambda image: (image.size, image.mode))
    if size[0] * size[1] > _MOST_PIXELS:
        raise UsageError(f"{path} declares {_by(size)} pixels, at most {_MOST_PIXELS:,} are decoded")
    if mode not in _GREY + _COLOUR:
        raise UsageError(f"{path} has pixels of mode {mode}, expected 8 bits a channel, grey or colour")
    return size, mode


def _decode(path: Path, mode: str) -> np.ndarray:
    """An image's bytes [channels, h, w]."""
    pixels = np.asarray(_open(path, lambda image: image.convert(mode)))
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _open(path: Path, use: Callable):
    try:
        from PIL import Image
    except ImportError:
        raise UsageError("reading images needs Pillow, which is not here; type: pip install lth[images]") from None
    try:
        # Pillow warns of large images and of oddities in metadata: size has a bound here, and metadata is not used.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=("PNG", "JPEG")) as image:
                return use(image)
    except _DECODING_ERRORS as error:
        raise UsageError(f"{path} is no whole PNG or JPEG image: {error}") from None
    except Image.DecompressionBombError:
        raise UsageError(f"{path} declares more than the {_MOST_PIXELS:,} pixels that are decoded") from None


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"
