"""Read plain arrays from an untrusted pickle.

Reading a pickle can run code. Here it is read with substitutes for the three numpy names that an array needs, and
every other name is refused.
"""

from __future__ import annotations

import gzip
import pickle
import struct
import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING, BinaryIO, TypeVar

from lth.config import shown
from lth.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

T = TypeVar("T")
_UNPICKLING_ERRORS = (
    pickle.UnpicklingError, AttributeError, EOFError, ImportError, IndexError, KeyError, MemoryError, OSError,
    OverflowError, RecursionError, TypeError, ValueError, struct.error, zlib.error,
)  # fmt: skip


def read_arrays(pickled: BinaryIO | gzip.GzipFile, name: str) -> object:
    """The plain numpy arrays in a pickle, in tuples or lists. Raises UsageError for anything else in it."""
    return _read(pickled, name, lambda value: _arrays_in(value, depth=0))


def read_table(pickled: BinaryIO, name: str) -> dict[str, np.ndarray | list[int]]:
    """The arrays and the lists of integers in a pickled dict, by key.

    Texts, numbers and lists of these are left out. Raises UsageError for anything else.
    """
    return _read(pickled, name, _table_of)


def _read(pickled: BinaryIO | gzip.GzipFile, name: str, take: Callable[[object], T]) -> T:
    try:
        # as bytes: Python 2 wrote these pickles, and its strings contain the arrays' memory
        return take(_ArraysOnly(pickled, encoding="bytes").load())
    except _UNPICKLING_ERRORS as error:
        raise UsageError(f"{name} is not a pickle of plain arrays, and nothing else is read: {error}") from None


class _Kind:
    """Substitute for numpy.ndarray, which a pickle passes to _reconstruct; it cannot be instantiated."""

    def __init__(self, *_: object):
        raise pickle.UnpicklingError("numpy.ndarray is not to be called")

    def __setstate__(self, state: object) -> None:
        raise pickle.UnpicklingError("numpy.ndarray holds no state")


class _Type:
    """Substitute for numpy.dtype: the code of a plain little-endian number such as f4."""

    def __init__(self, code: bytes | str, *_: object):
        self.code = code.decode("ascii") if isinstance(code, bytes) else str(code)
        if self.code not in ("f4", "f8", "u1", "i4", "i8"):
            raise pickle.UnpicklingError(f"an array of {self.code!r}")

    def __setstate__(self, state: tuple) -> None:
        if state[1] not in (b"<", "<", b"|", "|"):
            raise pickle.UnpicklingError(f"an array of byte order {state[1]!r}")


class _Array:
    """Substitute for an array under construction: its shape, dtype and memory, not yet read."""

    def __init__(self, *_: object):
        self.state: tuple | None = None

    def __setstate__(self, state: tuple) -> None:
        self.state = state

    def array(self) -> np.ndarray:
        import numpy as np

        if self.state is None:
            raise pickle.UnpicklingError("an array without content")
        _, shape, kind, fortran, memory = self.state
        if not isinstance(kind, _Type) or not isinstance(memory, bytes) or fortran:
            raise pickle.UnpicklingError("an array that is not plain numbers in C order")
        return np.frombuffer(memory, dtype=f"<{kind.code}").reshape(shape)


# numpy 2 renamed its module; the pinned wheel has the older name
_ADMITTED = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy", "ndarray"): _Kind,
    ("numpy", "dtype"): _Type,
}


# the Python implementation: the one in C allocates as much memory as a number in the pickle requests
class _ArraysOnly(pickle._Unpickler):
    dispatch = {code: load for code, load in pickle._Unpickler.dispatch.items() if code != pickle.BYTEARRAY8[0]}  # noqa: RUF012

    def find_class(self, module: str, name: str) -> type:
        if (module, name) not in _ADMITTED:
            raise pickle.UnpicklingError(f"it asks for {shown(f'{module}.{name}')}")
        return _ADMITTED[module, name]


def _arrays_in(value: object, depth: int) -> object:
    # a pickle can refer to one object many times; without a limit, a small one could unfold without end
    if isinstance(value, (tuple, list)) and depth < 2 and len(value) <= 3:
        return tuple(_arrays_in(part, depth + 1) for part in value)
    if isinstance(value, _Array):
        return value.array()
    raise pickle.UnpicklingError(f"it holds a {type(value).__name__}")


def _table_of(value: object) -> dict[str, np.ndarray | list[int]]:
    if not isinstance(value, dict):
        raise pickle.UnpicklingError(f"it holds a {type(value).__name__}, not a dict")
    table: dict[str, np.ndarray | list[int]] = {}
    for key, held in value.items():
        name = key.decode("ascii") if isinstance(key, bytes) else str(key)
        if isinstance(held, _Array):
            table[name] = held.array()
        elif isinstance(held, list) and all(type(number) is int for number in held):
            table[name] = held
        elif not _is_plain(held):
            raise pickle.UnpicklingError(f"{name} is a {type(held).__name__}")
    return table


def _is_plain(held: object) -> bool:
    plain = (bytes, str, int, float)
    return isinstance(held, plain) or (isinstance(held, list) and all(isinstance(part, plain) for part in held))
