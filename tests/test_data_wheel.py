"""MNIST's pickle in the package index's wheel: arrays are read, everything else is refused and nothing is run."""

from __future__ import annotations

import io
import os
import pickle
import tracemalloc
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lth.data.formats import read_idx
from lth.data.wheel import official_files, read_arrays
from lth.errors import UsageError


def read(pickled: bytes) -> object:
    return read_arrays(io.BytesIO(pickled), "data.pkl.gz")


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_plain_arrays_are_read(protocol):
    # From protocol 5 on NumPy puts arrays together by another function, which the stand-ins do not know.
    arrays = (np.arange(6, dtype=np.float32).reshape(2, 3), np.arange(2))
    if protocol == 5:
        with pytest.raises(UsageError, match="_frombuffer"):
            read(pickle.dumps(arrays, protocol))
        return
    x, y = read(pickle.dumps(arrays, protocol))  # type: ignore[misc]
    np.testing.assert_array_equal(x, arrays[0])
    np.testing.assert_array_equal(y, arrays[1])
    assert x.dtype == np.float32


def test_arrays_as_python_2_wrote_them_are_read():
    old = (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\nq\x01cnumpy\nndarray\nq\x02K\x00\x85U\x01b\x87R"
        b"(K\x01K\x02\x85cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89U\x08" + np.array([0.5, 0.25], "<f4").tobytes() + b"tb."
    )
    np.testing.assert_array_equal(read(old), np.array([0.5, 0.25], np.float32))  # type: ignore[arg-type]


class Hostile:
    def __init__(self, target: Path):
        self.target = target

    def __reduce__(self):
        return os.system, (f"touch {self.target}",)


@pytest.mark.parametrize("wrap", [lambda bad: bad, lambda bad: (np.zeros(3), bad), lambda bad: [[bad]]])
def test_hostile_pickle_is_refused_and_not_run(tmp_path, wrap):
    pickled = pickle.dumps(wrap(Hostile(tmp_path / "ran")), protocol=4)
    with pytest.raises(UsageError, match=r"it asks for .*system"):
        read(pickled)
    assert not (tmp_path / "ran").exists()
    pickle.loads(pickled)
    assert (tmp_path / "ran").exists(), "the pickle was to be one that runs where it is admitted"


def unfolding(depth: int) -> list:
    """A list that takes a line for each depth in a pickle, and doubles with each when it is copied."""
    return [part := unfolding(depth - 1), part] if depth else []


REFUSED = {
    "objects in an array": pickle.dumps(np.array([{}, "x"], dtype=object), 4),
    "text": pickle.dumps(np.array(["x"]), 4),
    "a dict": pickle.dumps({"x": np.zeros(2)}, 4),
    "big-endian": pickle.dumps(np.zeros(2, ">f4"), 4),
    "Fortran order": pickle.dumps(np.zeros((2, 3), order="F"), 4),
    "a name of builtins": b"cbuiltins\neval\n(S'1'\ntR.",
    "another name of numpy": b"cnumpy\nload\n(S'x'\ntR.",
    "a dotted name of numpy": b"\x80\x04\x8c\x05numpy\x8c\x0bndarray.dot\x93.",
    "a large array of no content": b"cnumpy\nndarray\n(I1000000000000\ntR.",
    "a stand-in's own attributes": b"cnumpy\nndarray\n(S'x'\nS'y'\nd\x94b.",
    "an array without content": b"cnumpy.core.multiarray\n_reconstruct\n)R.",
    "less memory than its shape": pickle.dumps(np.zeros(3), 4).replace(b"K\x03\x85", b"K\x04\x85"),
    "an extension code": b"\x82\x01.",
    "a persistent id": b"Px\n.",
    "nothing": b"",
    "lists that unfold without end": pickle.dumps(unfolding(40), 4),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_anything_else_is_refused(kind):
    with pytest.raises(UsageError, match="not a pickle of plain arrays"):
        read(REFUSED[kind])


@pytest.mark.parametrize(
    "pickled", [b"Nr\0\0\0\1.", b"T\0\0\0\x10x.", b"\x96\0\0\0\x10\0\0\0\0x.", b"\x8e\0\0\0\x10\0\0\0\0x."]
)
def test_no_more_memory_than_there_is_content(pickled):
    """A place far out in the memo, and texts and buffers longer than what follows them."""
    tracemalloc.start()
    with pytest.raises(UsageError):
        read(pickled)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_arbitrary_bytes_give_nothing_but_usage_errors(content):
    with suppress(UsageError):  # a few bytes can be a pickle of an empty list
        read(content)


REAL = pickle.dumps((np.zeros((2, 3), np.float32), np.arange(4)), 4)


@settings(deadline=None, max_examples=500)
@given(st.integers(0, len(REAL) - 1), st.integers(0, 255))
def test_a_changed_byte_gives_arrays_or_a_usage_error(place, byte):
    with suppress(UsageError):
        read(REAL[:place] + bytes([byte]) + REAL[place + 1 :])


def pair(first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    pixels = (np.arange(first * 784, (first + count) * 784) % 256).reshape(count, 784)
    return (pixels / 256).astype(np.float32), np.arange(first, first + count) % 10


def test_official_files_join_the_training_parts_and_give_back_bytes():
    files = official_files((pair(0, 5), pair(5, 2), pair(7, 3)))
    arrays = [read_idx(content, name) for name, content in files.items()]
    whole = (np.arange(10 * 784) % 256).reshape(10, 28, 28)
    np.testing.assert_array_equal(arrays[0], whole[:7])
    np.testing.assert_array_equal(arrays[1], np.arange(7))
    np.testing.assert_array_equal(arrays[2], whole[7:])
    np.testing.assert_array_equal(arrays[3], np.arange(7, 10))


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        (pair(0, 5), pair(5, 2)),
        ((pair(0, 5)[0] + 1, pair(0, 5)[1]), pair(5, 2), pair(7, 3)),
        ((pair(0, 5)[0] * np.nan, pair(0, 5)[1]), pair(5, 2), pair(7, 3)),
        ((pair(0, 5)[0], pair(0, 5)[1] - 1), pair(5, 2), pair(7, 3)),
        ((pair(0, 5)[0][:, :700], pair(0, 5)[1]), pair(5, 2), pair(7, 3)),
    ],
)
def test_another_layout_is_refused(wrong):
    with pytest.raises(UsageError, match="not laid out as expected"):
        official_files(wrong)
