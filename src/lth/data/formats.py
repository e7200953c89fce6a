"""Readers of two array formats: IDX (MNIST's) and NumPy's .npz.

For any input, a reader returns arrays or raises a `UsageError` with the reason. A file cannot run code or exhaust the
memory.
"""

from __future__ import annotations

import math
import struct
import tokenize
import warnings
import zipfile
import zlib
from contextlib import nullcontext
from pathlib import Path
from typing import IO, BinaryIO

import numpy as np

from lth.config.files import open_file
from lth.data.memory import total_and_free
from lth.errors import LthError, UsageError

NPZ_KEYS = ("x_train", "y_train", "x_test", "y_test")
MAX_BYTES = 16 * 2**30  # limit for all arrays of a dataset together, which are held in memory
# real data are compressed by a small factor; a much larger one indicates a decompression bomb
_RATIO = 200
_ALWAYS_FINE = 64 * 2**20
# memory limit for reading a file: a constant and a factor of its size; arrays are copied while they are read
MEMORY_BASE, MEMORY_RATIO = 4 * _ALWAYS_FINE, 4 * _RATIO
_MAX_AXES, _MAX_AXIS = 8, 2**48
_UNSIGNED_BYTE = 0x08
_HEADER_ERRORS = (
    ValueError, TypeError, KeyError, IndexError, AttributeError, SyntaxError, OverflowError, RecursionError,
    MemoryError, tokenize.TokenError, Warning,
)  # fmt: skip
_ZIP_ERRORS = (
    zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, RuntimeError, ValueError,
    OverflowError,
)  # fmt: skip


def read_idx(content: bytes, name: str) -> np.ndarray:
    """The unsigned bytes in an uncompressed IDX file, in the shape that its header declares; read-only.

    Layout: two zero bytes, the type (8: unsigned byte), the number of axes, each axis as a big-endian 32-bit integer,
    then as many bytes as the product of the axes. `name` appears in errors.
    """
    if len(content) < 4 or content[:2] != b"\0\0":
        raise UsageError(f"{name} is not an IDX file: it begins with {content[:4].hex() or 'nothing'}, expected 0000")
    kind, axes = content[2], content[3]
    if kind != _UNSIGNED_BYTE:
        raise UsageError(f"{name}: IDX type 0x{kind:02x}, expected 0x08 (unsigned bytes)")
    if not 1 <= axes <= _MAX_AXES:
        raise UsageError(f"{name}: {axes} axes declared, expected 1 to {_MAX_AXES}")
    start = 4 + 4 * axes
    if len(content) < start:
        raise UsageError(f"{name} is truncated: {len(content)} bytes, its header alone has {start}")
    shape = struct.unpack(f">{axes}I", content[4:start])
    if len(content) - start != math.prod(shape):
        raise UsageError(
            f"{name}: its header declares {_by(shape)} = {math.prod(shape):,} bytes, {len(content) - start:,} follow"
        )
    return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape)


def most_bytes() -> int:
    """The maximum size of a dataset on this machine: `MAX_BYTES`, or half of the memory if that is less."""
    return min(MAX_BYTES, total_and_free()[0] // 2)


def idx_bytes(array: np.ndarray) -> bytes:
    """The IDX file of an array of unsigned bytes; the inverse of `read_idx`."""
    header = bytes((0, 0, _UNSIGNED_BYTE, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + np.ascontiguousarray(array, dtype=np.uint8).tobytes()


def read_npz(file: Path | BinaryIO, name: str) -> dict[str, np.ndarray]:
    """The arrays x_train, y_train, x_test, y_test of an .npz file, read-only; other arrays in it are not read.

    x contains numbers, y numbers or text. All headers are checked before any content is read: arrays of Python objects
    are refused, and so is a file whose arrays declare more than 16 GiB together, more than 200 times their compressed
    size (beyond the first 64 MiB), or a size that differs from the content.
    """
    try:
        with (
            open_file(file) if isinstance(file, Path) else nullcontext(file) as opened,
            zipfile.ZipFile(opened) as archive,
        ):
            members = [_member(archive, key, name) for key in NPZ_KEYS]
            _weigh(members, name)
            return {key: _array(archive, member, name) for key, member in zip(NPZ_KEYS, members, strict=True)}
    except _ZIP_ERRORS as error:
        raise UsageError(f"{name} is damaged or not an .npz file: {_first_line(error)}") from None
    except MemoryError:
        raise LthError(f"{name} does not fit into this machine's memory") from None
    except OSError as error:
        raise UsageError(f"{name} cannot be read: {error.strerror or _first_line(error)}") from None


def _member(archive: zipfile.ZipFile, key: str, name: str) -> zipfile.ZipInfo:
    try:
        member = archive.getinfo(f"{key}.npy")
    except KeyError:
        held = ", ".join(sorted(entry.removesuffix(".npy") for entry in archive.namelist())[:8]) or "nothing"
        raise UsageError(f"{name} has no array {key}; it holds {held}, expected {', '.join(NPZ_KEYS)}") from None
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or member.flag_bits & 1:
        raise UsageError(f"{name}: {key} is packed in a way that NumPy does not write; save it again with numpy.savez")
    return member


def _weigh(members: list[zipfile.ZipInfo], name: str) -> None:
    packed = sum(member.compress_size for member in members)
    unpacked = sum(member.file_size for member in members)
    if unpacked > (most := most_bytes()):
        raise UsageError(f"{name} declares {unpacked:,} bytes of arrays, at most {most:,} are read here")
    if unpacked > _ALWAYS_FINE + _RATIO * packed:
        raise UsageError(
            f"{name}: {packed:,} bytes would unpack to {unpacked:,}, more than {_RATIO} times as many; "
            "if these are your data, save them with numpy.savez instead of numpy.savez_compressed"
        )


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str) -> np.ndarray:
    key = member.filename.removesuffix(".npy")
    with archive.open(member) as stream:
        shape, fortran, dtype = _header(stream, f"{name}: {key}", "buifUS" if key.startswith("y_") else "buif")
        size = math.prod(shape) * dtype.itemsize
        if stream.tell() + size != member.file_size:
            raise UsageError(
                f"{name}: {key} declares {_by(shape)} of {dtype} = {size:,} bytes, "
                f"{member.file_size - stream.tell():,} follow"
            )
        content = stream.read(size)
        if len(content) != size:  # the archive's directory declared more than it contains
            raise UsageError(f"{name}: {key} is truncated: {len(content):,} of {size:,} bytes")
    return np.frombuffer(content, dtype=dtype).reshape(shape, order="F" if fortran else "C")


def _header(stream: IO[bytes], name: str, kinds: str) -> tuple[tuple[int, ...], bool, np.dtype]:
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    try:
        # NumPy only warns about doubtful headers; here they are errors
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            shape, fortran, dtype = readers[np.lib.format.read_magic(stream)](stream)
    except _HEADER_ERRORS as error:
        raise UsageError(f"{name} has an invalid .npy header: {_first_line(error)}") from None
    if dtype.hasobject:
        raise UsageError(
            f"{name} holds Python objects, which could run code when read; expected numbers: "
            "images of one size, saved as uint8 or float32, and labels that are integers or text: y.astype('int64') or "
            "y.astype('U')"
        )
    if dtype.kind not in kinds or dtype.itemsize == 0:
        raise UsageError(
            f"{name} is of type {dtype}, expected uint8 or float for x, integers, text or, in regression, floats for y"
        )
    if not all(type(axis) is int and 0 <= axis < _MAX_AXIS for axis in shape) or len(shape) > _MAX_AXES:
        raise UsageError(f"{name} declares the shape {_first_line(shape)}")
    return shape, fortran, dtype


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(f"{axis:,}" for axis in shape) or "1"


def _first_line(what: object) -> str:
    return (str(what).splitlines() or [type(what).__name__])[0][:200]
