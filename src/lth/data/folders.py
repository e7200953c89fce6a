"""A dataset as folders of images: train/CLASS/*.png|jpg|jpeg and test/CLASS/*."""

from __future__ import annotations

import hashlib
import os
import struct
import warnings
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from lth.config.files import open_file
from lth.data.classes import Order, by_number, of_folder
from lth.data.examples import Data, from_arrays
from lth.data.formats import NPZ_KEYS, most_bytes, read_npz
from lth.data.rawfiles import writing_whole
from lth.errors import UsageError

T = TypeVar("T")
PARTS = ("train", "test")
_SUFFIXES = (".png", ".jpg", ".jpeg")
_DEEP = ("I;16", "I;16B", "I")  # 16-bit grey; for 16-bit colour, Pillow itself keeps the upper byte
_GREY = ("1", "L", "LA", *_DEEP)
_COLOUR = ("RGB", "RGBA", "P", "PA", "CMYK", "YCbCr")
MOST_PIXELS = 64 * 2**20  # maximum number of pixels of one image
# photographs are compressed by a small factor; a much larger one indicates a decompression bomb
MOST_RATIO, ALWAYS_FINE = 200, 64 * 2**20
_DECODING_ERRORS = (
    OSError, SyntaxError, ValueError, TypeError, IndexError, KeyError, EOFError, OverflowError, MemoryError, zlib.error,
    struct.error,
)  # fmt: skip
_FEWEST_LEVELS = 16  # minimum number of grey levels that must remain in 8 bits
_FORMAT = "1"  # version of the cache: increased whenever decoding changes
Say = Callable[[str], None]
Size = tuple[int, ...]  # height and width to which images are scaled; empty to leave them unchanged


class _Listing(NamedTuple):
    """The contents of the folder: the images of each split in order with their class index, and the class names."""

    files: dict[str, list[tuple[Path, int]]]
    names: tuple[str, ...]
    passed_over: int


class _Head(NamedTuple):
    """The properties that an image file declares."""

    width: int
    height: int
    mode: str
    deep: bool  # 16 bits per channel


def read_images(root: Path, cache: Path, say: Say, size: Size = (), order: Order = by_number) -> Data:
    """The images in a folder as uint8 [n, 1, h, w] if all are grey, else [n, 3, h, w].

    Images are decoded once: the arrays are stored in `cache` under a digest of the folder's path and its files' names,
    sizes and times. Classes are the names of train's subfolders, in `order`; within a class, files are sorted by name.
    Transparency is dropped, and 16-bit channels are reduced to the upper 8 bits. With `size`, a height and a width,
    each image is rotated as its metadata say, scaled until it covers that size, and cropped to its centre. Raises
    UsageError if the splits have different classes, a file is not an image, sizes differ and `size` is not given,
    images declare more pixels than `MOST_PIXELS` or, together, more than `MOST_RATIO` times the bytes of their files,
    or a link leads outside.
    """
    listing = _listing(root, order)
    if listing.passed_over:
        say(f"{root}: {listing.passed_over:,} entries are ignored because they are not .png, .jpg or .jpeg files")
    cached = cache / f"{_digest(os.fsencode(root.resolve()))[:16]}-{_fingerprint(root, listing, size)[:32]}.npz"
    arrays = _read_kept(cached, say)
    if arrays is None:
        say(f"{root}: decoding {sum(len(files) for files in listing.files.values()):,} images, once")
        arrays = _decode_all(root, listing, size, say)
        _keep(cached, arrays, say)
    x_train, y_train, x_test, y_test = (arrays[key] for key in NPZ_KEYS)
    return from_arrays(root.resolve().name, x_train, y_train, x_test, y_test, listing.names)


def _listing(root: Path, order: Order) -> _Listing:
    try:
        classes = {part: _classes(root, part) for part in PARTS}
        if {*classes["train"]} != {*classes["test"]}:
            odd = sorted({*classes["train"]} ^ {*classes["test"]})
            raise UsageError(
                f"{root}: the classes in train/ and test/ differ: {', '.join(odd[:5])} in one of them only; "
                "expected the same subfolders in both"
            )
        files: dict[str, list[tuple[Path, int]]] = {part: [] for part in PARTS}
        names, passed_over = order(classes["train"]), 0
        for part in PARTS:
            for number, name in enumerate(names):
                images, others = _images_in(root, classes[part][name])
                files[part] += [(path, number) for path in images]
                passed_over += others
    except OSError as error:
        raise UsageError(f"{error.filename or root} cannot be read: {error.strerror}") from None
    return _Listing(files, names, passed_over)


def _classes(root: Path, part: str) -> dict[str, Path]:
    folder = root / part
    if not folder.is_dir():
        raise UsageError(f"{root} has no folder {part}/; expected {root}/train/CLASS/*.png and {root}/test/CLASS/*.png")
    entries = [entry for entry in sorted(folder.iterdir()) if not entry.name.startswith(".") and entry.is_dir()]
    if len(entries) < 2:
        raise UsageError(f"{folder} has {len(entries)} subfolders, expected at least two: one per class")
    return {
        of_folder(entry.name): _inside(root, entry)
        for entry in [_inside(root, folder) / entry.name for entry in entries]
    }


def _images_in(root: Path, folder: Path) -> tuple[list[Path], int]:
    """The images of one class, sorted by name, and the number of other entries in its folder."""
    entries = [entry for entry in sorted(folder.iterdir()) if not entry.name.startswith(".")]
    images = [_inside(root, entry) for entry in entries if entry.suffix.lower() in _SUFFIXES and entry.is_file()]
    if not images:
        raise UsageError(f"{folder} holds no .png, .jpg or .jpeg file; expected images of class {folder.name!r}")
    return images, len(entries) - len(images)


def _inside(root: Path, path: Path) -> Path:
    """Return the path after checking that no link leads out of the folder that the user named."""
    if path.is_symlink() and not path.resolve().is_relative_to(root.resolve()):
        raise UsageError(f"{path} is a link that leads outside of {root}; copy what it points to into the folder")
    return path


def _fingerprint(root: Path, listing: _Listing, size: Size) -> str:
    lines = [_FORMAT, *([f"size {_by(size)}"] if size else [])]
    for path, number in listing.files["train"] + listing.files["test"]:
        facts = path.stat()
        lines.append(f"{path.relative_to(root)}/{number}/{facts.st_size}/{facts.st_mtime_ns}")
    return _digest(os.fsencode("\n".join(lines)))


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _read_kept(cached: Path, say: Say) -> dict[str, np.ndarray] | None:
    if not cached.is_file():
        return None
    try:
        return read_npz(cached, str(cached))
    except UsageError as damage:
        say(f"{damage}; the images are decoded again")
        return None


def _keep(cached: Path, arrays: dict[str, np.ndarray], say: Say) -> None:
    """Write the arrays into the cache and remove arrays of an earlier state of the same folder."""
    try:
        cached.parent.mkdir(parents=True, exist_ok=True)
        with writing_whole(cached) as out:  # decoded directly into the file, not in memory
            np.savez(out, **arrays)  # type: ignore[arg-type]
        for older in cached.parent.glob(f"{cached.name.split('-')[0]}-*.npz"):
            if older != cached:
                older.unlink(missing_ok=True)
    except OSError as error:
        # the arrays are available; only the time that the cache would save is lost
        say(
            f"the decoded images cannot be kept in {cached.parent} ({error.strerror}): they are decoded again each time"
        )


def _decode_all(root: Path, listing: _Listing, size: Size, say: Say) -> dict[str, np.ndarray]:
    paths = [path for part in PARTS for path, _ in listing.files[part]]
    heads = [_head(path) for path in paths]
    channels = 1 if all(head.mode in _GREY for head in heads) else 3
    height, width = size or _one_size(paths, heads)
    _weigh(len(paths) * height * width * channels, root)
    _refuse_bombs(sum(h.width * h.height for h in heads) * channels, sum(p.stat().st_size for p in paths), root)
    if deep := sum(head.deep for head in heads):
        say(f"{root}: {deep:,} images have 16 bits per channel: only the upper 8 are used; values below 256 become 0")
    arrays = {}
    for part in PARTS:
        files = listing.files[part]
        arrays[f"x_{part}"] = images = np.empty((len(files), channels, height, width), np.uint8)
        for image, (path, _) in zip(images, files, strict=True):
            image[:] = _decode(path, "L" if channels == 1 else "RGB", size)
        arrays[f"y_{part}"] = np.array([number for _, number in files], dtype=np.int64)
    if channels == 1 and deep == len(paths) and arrays["x_train"].max() < _FEWEST_LEVELS:
        raise UsageError(
            f"the images in {root} have 16 bits per channel but use only the lower 12, so {_FEWEST_LEVELS} levels "
            "would remain; save their values as float32 with numpy.savez and give the .npz file"
        )
    return arrays


def _one_size(paths: list[Path], heads: list[_Head]) -> tuple[int, int]:
    """The height and width of all images. Raises UsageError if they differ."""
    first = heads[0]
    for path, head in zip(paths, heads, strict=True):
        if head[:2] != first[:2]:
            raise UsageError(
                f"{path} is {_by(head[:2])} pixels, {paths[0]} {_by(first[:2])}; expected images of one size, or "
                "data.size=64 to scale and crop all of them to 64 x 64"
            )
    return first.height, first.width


def _weigh(size: int, root: Path) -> None:
    if size > (most := most_bytes()):
        raise UsageError(
            f"the images in {root} decode to {size:,} bytes, at most {most:,} are read here; data.size=64 scales "
            "them to 64 x 64"
        )


def _refuse_bombs(pixels: int, stored: int, root: Path) -> None:
    """Raise UsageError if files of `stored` bytes decode to far more bytes than photographs do."""
    if pixels > (most := ALWAYS_FINE + MOST_RATIO * stored):
        raise UsageError(
            f"the images in {root} have {stored:,} bytes and decode to {pixels:,}, more than the {most:,} that are "
            f"decoded of so many (64 MiB and {MOST_RATIO} times as many); if they are your data, save their pixels "
            "with numpy.savez and give the .npz file"
        )


def _head(path: Path) -> _Head:
    """The properties that an image declares, read without decoding it."""
    head = _open(path, lambda image: _Head(image.width, image.height, image.mode, _is_deep(image)))
    if head.width * head.height > MOST_PIXELS:
        raise UsageError(
            f"{path} declares {_by(head[:2])} pixels, at most {MOST_PIXELS:,} are decoded; make it smaller"
        )
    if head.mode not in _GREY + _COLOUR:
        raise UsageError(f"{path} has pixels of mode {head.mode}, expected 8 or 16 bits per channel, grey or colour")
    return head


def _is_deep(image: Any) -> bool:
    """Return whether the file has 16 bits per channel; Pillow's mode shows it for grey, its raw mode for colour."""
    return image.mode in _DEEP or any("16" in str(tile[3]) for tile in image.tile)


def _decode(path: Path, mode: str, size: Size) -> np.ndarray:
    """An image as bytes [channels, h, w]."""
    pixels = np.asarray(_open(path, lambda image: _fitted(image, mode, size)))
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _fitted(image: Any, mode: str, size: Size) -> Any:
    from PIL import Image, ImageOps

    if image.mode in _DEEP:
        image = Image.fromarray((np.asarray(image).astype(np.int64) >> 8).astype(np.uint8))
    if not size:
        return image.convert(mode)
    turned = ImageOps.exif_transpose(image).convert(mode)
    return ImageOps.fit(turned, (size[1], size[0]), Image.Resampling.BICUBIC)


def _open(path: Path, use: Callable[[Any], T]) -> T:
    try:
        from PIL import Image
    except ImportError:
        raise UsageError("reading images needs Pillow, which is not installed; type: pip install lth[images]") from None
    try:
        # Pillow warns about large images and odd metadata; the size is limited here, and metadata are not used
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with open_file(path) as file, Image.open(file, formats=("PNG", "JPEG")) as image:
                return use(image)
    except _DECODING_ERRORS as error:
        raise UsageError(f"{path} is not a complete PNG or JPEG image: {error}") from None
    except Image.DecompressionBombError:
        raise UsageError(f"{path} declares more than the {MOST_PIXELS:,} pixels that are decoded") from None


def _by(size: Sequence[int]) -> str:
    return f"{size[0]} x {size[1]}"
