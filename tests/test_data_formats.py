"""IDX and .npz: what is right is read exactly; whatever else, a clear line and nothing worse."""

from __future__ import annotations

import io
import struct
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from lth.data import formats, from_arrays
from lth.data.formats import NPZ_KEYS, idx_bytes, read_idx, read_npz
from lth.errors import UsageError


def npz(**changed) -> dict[str, np.ndarray]:
    right = {
        "x_train": np.arange(6 * 16, dtype=np.uint8).reshape(6, 4, 4),
        "y_train": np.array([0, 1, 2, 0, 1, 2]),
        "x_test": np.zeros((3, 4, 4), np.uint8),
        "y_test": np.array([2, 1, 0]),
    }
    return {key: array for key, array in {**right, **changed}.items() if array is not None}


def saved(contents: dict[str, np.ndarray], compressed: bool = False) -> io.BytesIO:
    file = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(file, **contents)  # type: ignore[arg-type]
    file.seek(0)
    return file


# IDX


@settings(deadline=None)
@given(arrays(np.uint8, array_shapes(max_dims=4, max_side=6)))
def test_idx_round_trip(array):
    read = read_idx(idx_bytes(array), "a")
    assert read.shape == array.shape
    np.testing.assert_array_equal(read, array)


def test_idx_is_the_official_layout():
    content = struct.pack(">HBBII", 0, 8, 2, 2, 3) + bytes(range(6))
    np.testing.assert_array_equal(read_idx(content, "a"), [[0, 1, 2], [3, 4, 5]])
    assert idx_bytes(read_idx(content, "a")) == content


IDX = idx_bytes(np.zeros((2, 3), np.uint8))


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "begins with nothing, expected 0000"),
        (b"\x89PNG", "begins with 89504e47, expected 0000"),
        (b"\0\0\x0d\x01" + bytes(8), "type 0x0d, expected 0x08"),
        (b"\0\0\x08\x00", "0 axes declared, expected 1 to 8"),
        (b"\0\0\x08\x02\0\0\0\x02", "is truncated: 8 bytes, its header alone has 12"),
        (IDX[:-1], "declares 2 x 3 = 6 bytes, 5 follow"),
        (IDX + b"x", "declares 2 x 3 = 6 bytes, 7 follow"),
        (b"\0\0\x08\x03" + b"\xff" * 12, "bytes, 0 follow"),
    ],
)
def test_wrong_idx_says_what_is_wrong(content, text):
    with pytest.raises(UsageError) as caught:
        read_idx(content, "file-ubyte")
    assert str(caught.value).startswith("file-ubyte")
    assert text in str(caught.value)


def test_idx_of_no_examples_is_an_empty_array():
    assert read_idx(idx_bytes(np.zeros((0, 28, 28), np.uint8)), "a").shape == (0, 28, 28)


@settings(deadline=None)
@given(st.one_of(st.binary(max_size=64), st.binary(max_size=40).map(lambda tail: b"\0\0\x08" + tail)))
def test_arbitrary_bytes_as_idx(content):
    try:
        assert idx_bytes(read_idx(content, "a")) == content
    except UsageError as error:
        assert "\n" not in str(error)


# .npz


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npz_is_read_exactly(compressed, order):
    contents = {key: np.asarray(array, order=order) for key, array in npz(extra=np.zeros(3)).items()}
    read = read_npz(saved(contents, compressed), "a.npz")
    assert list(read) == list(NPZ_KEYS)
    for key in NPZ_KEYS:
        np.testing.assert_array_equal(read[key], contents[key])
        assert read[key].dtype == contents[key].dtype


def test_npz_reads_a_file(tmp_path):
    np.savez(tmp_path / "a.npz", **npz())  # type: ignore[arg-type]
    np.testing.assert_array_equal(read_npz(tmp_path / "a.npz", "a.npz")["y_test"], [2, 1, 0])


def archive(members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> io.BytesIO:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as out:
        for name, content in members.items():
            out.writestr(name, content)
    file.seek(0)
    return file


def npy(header: str, content: bytes = b"") -> bytes:
    line = header.encode("latin1") + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(line)) + line + content


def header(kind: str, shape: str) -> str:
    return f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}}}"


def with_x_train(content: bytes) -> io.BytesIO:
    members = {f"{key}.npy": npy(header("|u1", "(1,)"), b"x") for key in NPZ_KEYS}
    return archive({**members, "x_train.npy": content})


@pytest.mark.parametrize(
    ("file", "text"),
    [
        (lambda: io.BytesIO(b"no zip"), "is damaged or not an .npz file"),
        (lambda: io.BytesIO(saved(npz()).getvalue()[:-30]), "is damaged or not an .npz file"),
        (lambda: saved(npz(y_test=None)), "has no array y_test; it holds x_test, x_train, y_train, expected"),
        (lambda: saved(npz(x_train=np.array([{}, []], dtype=object))), "x_train holds Python objects"),
        (lambda: saved(npz(x_train=np.array(["a", "b"]))), "x_train is of type <U1"),
        (lambda: saved(npz(x_train=np.zeros(2, [("a", "u1")]))), "x_train is of type"),
        (lambda: saved(npz(x_train=np.zeros(2, complex))), "x_train is of type complex128"),
        (lambda: with_x_train(b"not npy"), "x_train has an invalid .npy header"),
        (lambda: with_x_train(npy("{'descr': '|u1'")), "x_train has an invalid .npy header"),
        (lambda: with_x_train(npy("__import__('os').system('touch ran')")), "x_train has an invalid .npy header"),
        (lambda: with_x_train(npy(header("|u1", "(3,)"), b"xx")), "3 bytes, 2 follow"),
        (lambda: with_x_train(npy(header("|u1", "(1,)"), b"xx")), "1 bytes, 2 follow"),
        (lambda: with_x_train(npy(header("|u1", "(-1,)"), b"x")), "the shape (-1,)"),
        (lambda: with_x_train(npy(header("|u1", "(True, 3600)"), b"x" * 3600)), "the shape (True, 3600)"),
        (lambda: with_x_train(npy(header("|u1", "(-1, -3600)"), b"x" * 3600)), "the shape (-1, -3600)"),
        (lambda: with_x_train(npy(header("|u1", f"(0, {10**21})"))), f"the shape (0, {10**21})"),
        (lambda: with_x_train(npy(header("|u1", "(1.0, 1)"), b"x")), "shape is not valid: (1.0, 1)"),
        (lambda: with_x_train(npy(header("<f8", "(10000000000000,)"), b"x")), "80,000,000,000,000 bytes, 1 follow"),
        (
            lambda: archive({f"{key}.npy": b"x" for key in NPZ_KEYS}, zipfile.ZIP_LZMA),
            "packed in a way that NumPy does not write",
        ),
    ],
)  # fmt: skip
def test_wrong_npz_says_what_is_wrong(file, text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as caught:
        read_npz(file(), "mine.npz")
    assert str(caught.value).startswith("mine.npz")
    assert text in str(caught.value)
    assert not (tmp_path / "ran").exists()


def test_npz_bomb_is_refused_before_it_is_unpacked():
    bomb = saved(npz(x_train=np.zeros((100_000, 1000), np.uint8)), compressed=True)
    with pytest.raises(UsageError, match=r"would unpack to 100,.*more than 200 times"):
        read_npz(bomb, "a.npz")


def test_npz_larger_than_memory_is_meant_for_is_refused(monkeypatch):
    monkeypatch.setattr(formats, "MAX_BYTES", 500)
    with pytest.raises(UsageError, match="at most 500 are read"):
        read_npz(saved(npz()), "a.npz")


def test_directory_that_lies_about_sizes():
    """A zip's directory can declare fewer bytes than a member unpacks to: no more than declared is ever taken."""
    whole = bytearray(saved(npz(), compressed=True).getvalue())
    entry = whole.index(b"PK\x01\x02")
    whole[entry + 24 : entry + 28] = struct.pack("<I", 130)
    with pytest.raises(UsageError):
        read_npz(io.BytesIO(bytes(whole)), "a.npz")


def test_flipped_byte_in_npz_is_noticed():
    whole = saved(npz()).getvalue()
    place = whole.index(bytes(range(96))) + 50
    with pytest.raises(UsageError, match="Bad CRC-32"):
        read_npz(io.BytesIO(whole[:place] + b"\xff" + whole[place + 1 :]), "a.npz")


@pytest.mark.parametrize("size", [16, 1000, 100_000])
@pytest.mark.parametrize("compressed", [False, True])
def test_wrong_checksum_in_npz_is_noticed(size, compressed):
    x = np.random.default_rng(0).integers(0, 256, (6, size)).astype(np.uint8)
    whole = bytearray(saved(npz(x_train=x, x_test=x[:3]), compressed).getvalue())
    whole[whole.index(b"PK\x01\x02") + 16] ^= 1
    with pytest.raises(UsageError, match="Bad CRC-32"):
        read_npz(io.BytesIO(bytes(whole)), "a.npz")


def test_missing_npz(tmp_path):
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        read_npz(tmp_path / "none.npz", "none.npz")


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_arbitrary_bytes_as_npz(content):
    with pytest.raises(UsageError):
        read_npz(io.BytesIO(content), "a.npz")


NPZ = saved(npz(), compressed=True).getvalue()


@settings(deadline=None, max_examples=300)
@given(st.lists(st.tuples(st.integers(0, len(NPZ) - 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_npz_with_changed_bytes(changes):
    spoilt = bytearray(NPZ)
    for place, byte in changes:
        spoilt[place] = byte
    try:
        read_npz(io.BytesIO(bytes(spoilt)), "a.npz")
    except UsageError as error:
        assert "\n" not in str(error)


pieces = st.sampled_from(
    [
        *"{}()[]:,-'\"\\\n#L 1\0",
        "'descr'",
        "'shape'",
        "'fortran_order'",
        "'|u1'",
        "'O'",
        "True",
        "9" * 50,
        "1if",
        "{'a': 1}",
    ]
)


@settings(deadline=None, max_examples=300)
@given(st.one_of(st.lists(pieces, max_size=20).map("".join), st.text(max_size=60)), st.binary(max_size=10))
def test_arbitrary_headers_and_content(line, content):
    encoded = line.encode("utf-8", "replace")
    member = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(encoded)) + encoded + content
    with pytest.raises(UsageError):
        read_npz(with_x_train(member), "a.npz")


# What arrays have to be


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((6, 5), (6, 5)),
        ((6, 4, 5), (6, 1, 4, 5)),
        ((6, 3, 8, 9), (6, 3, 8, 9)),
        ((6, 8, 9, 3), (6, 3, 8, 9)),
        ((6, 8, 9, 1), (6, 1, 8, 9)),
        ((6, 2, 9, 2), (6, 2, 9, 2)),
        ((6, 4, 9, 1), (6, 1, 4, 9)),
    ],
)
def test_shapes_become_channels_first(shape, expected):
    x = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    data = from_arrays("a", **npz(x_train=x, x_test=x[:3]))
    assert data.train_x.shape == expected
    if shape[1:] == (8, 9, 3):
        np.testing.assert_array_equal(data.train_x[2, 1], x[2, :, :, 1])


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f4"])
def test_floats_become_float32(dtype):
    x = np.linspace(0, 1, 24).reshape(6, 4).astype(dtype)
    data = from_arrays("a", **npz(x_train=x, x_test=x[:3]))
    assert data.train_x.dtype == np.float32
    np.testing.assert_array_equal(data.train_x, x.astype(np.float32))


def test_labels_become_int64_and_classes_are_counted():
    for dtype in ("uint8", "int32", ">i2", "uint64"):
        data = from_arrays("a", **npz(y_train=np.array([0, 1, 2, 3, 1, 1], dtype), y_test=np.array([3, 0, 0], dtype)))
        assert (data.train_y.dtype, data.classes) == (np.int64, 4)


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"x_train": np.zeros((6, 4, 4), np.int64)}, "x_train is of type int64, expected uint8"),
        ({"x_test": np.full((3, 4, 4), np.nan)}, "x_test holds values that are not finite"),
        ({"x_test": np.full((3, 4, 4), 1e300)}, "x_test holds values that are not finite"),
        ({"x_train": np.zeros(6, np.uint8)}, "x_train has shape (6,), expected [n, features]"),
        ({"x_train": np.zeros((0, 4, 4), np.uint8)}, "x_train has shape (0, 4, 4), expected"),
        ({"x_train": np.zeros((6, 9, 9, 9), np.uint8)}, "neither axis 1 nor axis 3 can be the channels"),
        ({"x_test": np.zeros((3, 5, 4), np.uint8)}, "expected the same type and"),
        ({"x_test": np.zeros((3, 4, 4), np.float32)}, "expected the same type and"),
        ({"y_train": np.zeros(6)}, "y_train is of type float64, expected integers"),
        ({"y_train": np.zeros((6, 1), int)}, "y_train has shape (6, 1), expected (6,)"),
        ({"y_train": np.zeros(5, int)}, "y_train has shape (5,), expected (6,)"),
        ({"y_train": np.array([0, 1, 2, 0, 1, -1])}, "y_train holds the label -1, expected 0 and up"),
        ({"y_train": np.array([0, 1, 2, 0, 1, 2**63], np.uint64)}, "y_train holds the label 9223372036854775808"),
        ({"y_train": np.array([1, 2, 3, 1, 2, 3])}, "labels up to 3 but no example of class 0"),
        ({"y_train": np.array([0, 1, 10**12, 1, 0, 0])}, "no example of class 2"),
        ({"y_train": np.zeros(6, int), "y_test": np.zeros(3, int)}, "one class only"),
        ({"y_test": np.array([0, 1, 3])}, "y_test holds the label 3"),
    ],
)
def test_arrays_that_are_no_dataset(changed, text):
    with pytest.raises(UsageError) as caught:
        from_arrays("mine", **npz(**changed))
    assert str(caught.value).startswith("mine: ")
    assert text in str(caught.value)
