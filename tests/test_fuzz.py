"""Bad input in bulk: whatever the bytes, lth reads them or says in clear words what is wrong, and ends with code 2.

Never a traceback, a hang, or more memory than is stated: `formats.MEMORY_BASE` and `formats.MEMORY_RATIO` bytes a byte.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import pickletools
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from lth import config, data
from lth.cli import main
from lth.config import keys, presets, resolve
from lth.config.toml import MOST_BYTES as MOST_TOML
from lth.data.cifar import from_pickle, read_records
from lth.data.formats import MEMORY_BASE, MEMORY_RATIO, NPZ_KEYS, idx_bytes, read_idx
from lth.data.rawfiles import Absent, Damaged, read_folder
from lth.data.registry import DATASETS, DatasetInfo
from lth.errors import LthError, UsageError
from lth.execution import repair, setup
from lth.execution.checkpoints import from_checkpoint_bytes
from lth.execution.stored import Run
from lth.papers.card import card
from lth.report import words
from lth.results import tables
from lth.storage.tensors import save_tensors

CASES = {
    "toml": 150, "override": 120, "idx": 60, "cifar": 50, "pickle": 80, "npz": 150, "images": 60, "ticket": 150,
    "checkpoint": 60, "run": 25,
}  # fmt: skip
OTHERS = int(os.environ.get("LTH_FUZZ", "0"))  # so many, others at each time: benchmarks/fuzz.py
SECONDS = 20  # that one case may take on a busy machine
CORPUS = Path(__file__).parent / "data" / "corpus"  # what is changed: a small finished run


def cases(kind: str) -> Any:
    """As many cases as CASES says, the same at each time."""
    healthy = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large]
    return settings(
        max_examples=OTHERS or CASES[kind], deadline=None, derandomize=not OTHERS, database=None,
        suppress_health_check=healthy,
    )  # fmt: skip


def test_there_are_many_cases() -> None:
    assert sum(CASES.values()) >= 500


@contextmanager
def limited(size: int) -> Iterator[None]:
    """Fails what takes too long, or more memory than is stated for an input of `size` bytes."""

    def too_long(*_: object) -> None:
        raise AssertionError(f"it takes longer than {SECONDS} s")

    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(SECONDS)
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
        assert peak <= MEMORY_BASE + MEMORY_RATIO * size, f"{peak:,} bytes for an input of {size:,}"
    finally:
        tracemalloc.stop()
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def read_or_refused(read: Callable[[], Any], size: int, refusal: type[LthError] = UsageError) -> Any:
    """What is read, or None where it is refused, which it must be in clear words; any other exception fails."""
    with limited(size):
        try:
            return read()
        except refusal as error:
            said = str(error)
            assert error.exit_code == 2 or refusal is LthError
            assert said and all(line.strip() for line in said.splitlines()), repr(said)
            assert all(len(line) <= 1000 for line in said.splitlines()), said[:2000]
            assert "Traceback" not in said
            return None


@st.composite
def mutated(draw: DrawFn, content: bytes, most: int = 4) -> bytes:
    """`content` with a few of its bytes changed, cut out, doubled, or replaced by numbers that break readers."""
    for _ in range(draw(st.integers(1, most))):
        at = draw(st.integers(0, max(0, len(content) - 1)))
        length = draw(st.sampled_from([1, 1, 1, 4, 8, 64, 1000]))
        new = draw(
            st.one_of(
                st.binary(max_size=8),
                st.sampled_from([b"\xff" * length, b"\0" * length, b"", content[at : at + length] * 2]),
                st.builds(struct.pack, st.sampled_from([">I", "<I", ">Q", "<Q"]), st.integers(0, 2**32 - 1)),
            )
        )
        content = content[:at] + new + content[at + length :]
    return content[: draw(st.integers(0, len(content)))] if draw(st.booleans()) and len(content) else content


# ---------------------------------------------------------------------------------------------------- experiments: TOML

PRESETS = list(presets().values())
VALUES: SearchStrategy[str] = st.one_of(
    st.sampled_from(
        [
            "0",
            "-1",
            "1e999",
            "nan",
            "inf",
            "true",
            "[]",
            "{}",
            '""',
            "'x'",
            "1979-05-27",
            "9" * 5000,
            "[[1]]",
            "{a={a=1}}",
        ]
    ),
    st.sampled_from(
        ['"mnist"', '"../../x"', '"a/b.npz"', "0x7fffffffffffffff", "1_000", "[1, [2]]", '"\\u0000"', "\\"]
    ),
    st.integers(-(2**70), 2**70).map(str),
    st.floats().map(repr),
    st.text(max_size=12).map(json.dumps),
    st.text(max_size=12),
)


@st.composite
def toml_text(draw: DrawFn) -> bytes:
    """A preset with lines lost, doubled, or given other values; or with bytes changed; or anything."""
    text = draw(st.sampled_from(PRESETS))
    if draw(st.integers(0, 9)) == 0:
        return draw(st.binary(max_size=300))
    if draw(st.integers(0, 3)) == 0:
        return draw(mutated(text.encode()))
    lines = text.splitlines()
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(lines) - 1))
        key = lines[at].partition("=")[0] if "=" in lines[at] else draw(st.sampled_from(sorted(keys())))
        new = draw(st.sampled_from(["lost", "twice", "value", "value", "value", "key"]))
        value = draw(VALUES)
        other = f"{draw(st.text(max_size=5))} = {value}"
        lines[at : at + 1] = {"lost": [], "twice": [lines[at]] * 2, "value": [f"{key} = {value}"], "key": [other]}[new]
        lines = lines or [""]
    return "\n".join(lines).encode("utf-8", "surrogatepass")


@cases("toml")
@given(content=toml_text())
def test_toml(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_bytes(content)
    found = read_or_refused(lambda: resolve(path), len(content))
    assert found is None or resolve(config.read(path)) == found


@pytest.mark.parametrize(
    "content",
    [
        b"a = " + b"[" * 100_000,
        b"a" + b".a" * 200_000 + b" = 1",
        b"[" + b"a." * 100_000 + b"a]",
        b"a = " + b"9" * 1_000_000,
        b'a = "' + b"x" * 2_000_000 + b'"',
        b"a = {" * 5_000,
        b"".join(b"[t%d]\n" % n for n in range(60_000)),
        b"x = 1\n" * 200_000,
        b"#" * (MOST_TOML + 1),
    ],
    ids=range(9),
)
def test_toml_that_is_made_to_hurt(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_bytes(content)
    assert read_or_refused(lambda: resolve(path), len(content)) is None


@cases("override")
@given(
    settings_=st.lists(
        st.one_of(
            st.builds(
                lambda k, v: f"{k}={v}", st.sampled_from([*sorted(keys()), "branch", "recipe", "recipe.lr.x"]), VALUES
            ),
            st.builds(lambda k, v: f"{k}={v}", st.text(max_size=8), VALUES),
            st.text(max_size=20),
        ),
        max_size=4,
    ),
    branches=st.one_of(
        st.none(), st.text(max_size=20), st.sampled_from(["reinit:0", "reinit:9999999999", "a:b:c", ","])
    ),
    scale=st.one_of(st.none(), st.floats()),
    levels=st.one_of(st.none(), st.integers(-(2**65), 2**65)),
)
def test_overrides(settings_: list[str], branches: str | None, scale: float | None, levels: int | None) -> None:
    asked = lambda: resolve("lenet", settings_, branches=branches, scale=scale, levels=levels)
    found = read_or_refused(asked, sum(map(len, settings_)))
    if found is not None:
        assert config.to_toml(found)


# -------------------------------------------------------------------------------------------------------- datasets: IDX

IDX = idx_bytes(np.arange(24, dtype=np.uint8).reshape(2, 3, 4))


@cases("idx")
@given(content=st.one_of(mutated(IDX), st.binary(max_size=80)))
def test_idx(content: bytes) -> None:
    found = read_or_refused(lambda: read_idx(content, "x"), len(content))
    assert found is None or found.size <= len(content)


# ------------------------------------------------------------------------------------------------------ datasets: CIFAR


def small(name: str, count: int = 3) -> DatasetInfo:
    info = DATASETS[name]
    return replace(info, files=tuple(replace(f, size=count * (len(f.labels) + 3072)) for f in info.files))


@st.composite
def bent(draw: DrawFn, right: bytes) -> bytes:
    """Mostly right content: records are long, and few bytes of them can be wrong."""
    if draw(st.booleans()):
        content = bytearray(right)
        content[draw(st.integers(0, 2)) * 3073] = draw(st.integers(0, 255))
        return bytes(content)
    return draw(mutated(right))


@cases("cifar")
@given(data_=st.data(), name=st.sampled_from(["cifar10", "cifar100"]))
def test_cifar_binary(data_: st.DataObject, name: str, tmp_path: Path) -> None:
    info = small(name)
    for file in info.files:
        (tmp_path / file.name).write_bytes(bytes(file.size))
    victim = data_.draw(st.sampled_from(info.files))
    content = data_.draw(bent(bytes(victim.size)))
    (tmp_path / victim.name).write_bytes(content)

    def read() -> object:
        try:
            return read_records(info, read_folder(tmp_path, info))
        except (Damaged, Absent) as damage:  # `sources.obtain` makes a UsageError of it
            raise UsageError(str(damage)) from None

    read_or_refused(read, len(content))


RIGHT_TABLE = {b"data": np.zeros((3, 3072), np.uint8), b"labels": [0, 1, 2], b"filenames": [b"x.png"] * 3}
PICKLES = [pickle.dumps(RIGHT_TABLE, protocol=protocol) for protocol in (2, 3, 4, 5)]
OPCODES = [op.code.encode("latin-1") for op in pickletools.opcodes]
THINGS: SearchStrategy[Any] = st.one_of(
    st.none(), st.integers(), st.binary(max_size=20), st.lists(st.integers(), max_size=4), st.floats(),
    st.just(np.zeros((3, 3072), np.int64)), st.just(np.zeros(3, object)), st.just(np.zeros((3, 2), "U5")),
    st.just([300, 1, 2]), st.just([-1, 1, 2]), st.just([2**80, 1, 2]), st.just(print), st.just({1: 2}),
)  # fmt: skip


@st.composite
def pickled(draw: DrawFn) -> bytes:
    """A pickled batch: of other things, with bytes changed, or opcodes in any order."""
    kind = draw(st.integers(0, 2))
    if kind == 0:
        table: Any = RIGHT_TABLE | {draw(st.sampled_from([b"data", b"labels", b"x", 7])): draw(THINGS)}
        return pickle.dumps(draw(st.sampled_from([table, [table], draw(THINGS)])), draw(st.sampled_from([2, 3, 4, 5])))
    if kind == 1:
        return draw(mutated(draw(st.sampled_from(PICKLES))))
    return b"".join(draw(st.lists(st.one_of(st.sampled_from(OPCODES), st.binary(max_size=9)), max_size=30))) + b"."


@cases("pickle")
@given(content=pickled())
def test_cifar_pickles(content: bytes) -> None:
    info = small("cifar10")
    assert info.python

    def read() -> object:
        try:
            return from_pickle(content, info.files[0], info.python)  # type: ignore[arg-type]
        except Damaged as damage:
            raise UsageError(str(damage)) from None

    found = read_or_refused(read, len(content))
    assert found is None or isinstance(found, bytes)


def test_a_pickle_that_asks_for_a_name_without_end() -> None:
    """The message repeated it, with its control characters."""
    test_cifar_pickles.hypothesis.inner_test(b"\x80\x03c" + b"\0" * 3000 + b"\nx\n.")


# -------------------------------------------------------------------------------------------------------- datasets: npz


def saved(arrays: dict[str, np.ndarray], compressed: bool = False) -> bytes:
    file = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(file, **arrays)  # type: ignore[arg-type]
    return file.getvalue()


RIGHT_NPZ = {
    "x_train": np.arange(12 * 16, dtype=np.uint8).reshape(12, 4, 4), "y_train": np.arange(12) % 3,
    "x_test": np.zeros((3, 4, 4), np.uint8), "y_test": np.array([2, 1, 0]),
}  # fmt: skip
TYPES = ["u1", "i1", "i8", "u8", ">i4", "f2", "f8", "c8", "?", "U3", "S4", "O", "M8[s]", "V3", "i4,f4"]
SHAPES = [
    (),
    (0,),
    (12,),
    (12, 4, 4),
    (12, 4, 4, 3),
    (12, 3, 4, 4),
    (3,),
    (3, 4, 4),
    (1, 1, 1, 1, 1),
    (12, 0),
    (12, 9, 9, 9),
]


@st.composite
def npz(draw: DrawFn) -> bytes:
    """Arrays of other types and shapes, headers that lie, or bytes changed."""
    arrays = dict(RIGHT_NPZ)
    for _ in range(draw(st.integers(0, 2))):
        shape, kind = draw(st.sampled_from(SHAPES)), draw(st.sampled_from(TYPES))
        array = np.zeros(shape, kind)
        if array.dtype.kind == "f" and array.size:
            array.flat[0] = draw(st.sampled_from([0.0, np.nan, np.inf, -1e300])) if kind == "f8" else 1
        if array.dtype.kind in "iu" and array.size and array.dtype.itemsize == 8:
            array.flat[0] = draw(st.sampled_from([0, 1, 2**40]))
        arrays[draw(st.sampled_from(NPZ_KEYS))] = array
    if draw(st.integers(0, 9)) == 0:
        del arrays[draw(st.sampled_from(NPZ_KEYS))]
    content = saved(arrays, draw(st.booleans()))
    if draw(st.booleans()):
        return content
    header = re.sub(
        rb"'shape': \([^)]*\)",
        b"'shape': " + draw(st.sampled_from([b"(9**9,)", b"(-1,)", b"((),)", b"(2**99,)"])),
        content,
    )
    return draw(st.one_of(st.just(header), mutated(content)))


@cases("npz")
@given(content=npz())
def test_npz(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    path.write_bytes(content)
    found = read_or_refused(lambda: data.load(path, None, lambda line: None), len(content))
    if found is not None:
        experiment = resolve(
            {"name": "x", "recipe": {"lr": 0.1, "iterations": 1, "batch": 2}, "data": {"validation": 3}}
        )
        read_or_refused(lambda: ready(found, experiment), len(content))


def ready(found: data.Data, experiment: config.Experiment) -> object:
    """All that is checked between loading data and training on them."""
    return setup.check(experiment, found), data.split(found, experiment.data.validation, experiment.seed)


# ----------------------------------------------------------------------------------------------------- datasets: images


def png(width: int = 4, height: int = 4, kind: int = 0, depth: int = 8, body: bytes | None = None) -> bytes:
    """A PNG of zeros whose header says what it is told to."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}.get(kind, 1)
    rows = body if body is not None else (b"\0" + bytes(width * channels * depth // 8)) * height
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


PICTURES: SearchStrategy[bytes] = st.one_of(
    st.binary(max_size=60),
    mutated(png()),
    st.builds(
        png, st.sampled_from([0, 1, 4, 5, 70_000, 2**31 - 1]), st.sampled_from([0, 4, 70_000]), body=st.just(b"")
    ),
    st.builds(png, kind=st.sampled_from([0, 2, 3, 4, 6, 7]), depth=st.sampled_from([1, 8, 16])),
    st.sampled_from([b"GIF89a" + bytes(30), b"\xff\xd8\xff\xe0" + bytes(30), b"<svg/>", b"BM" + bytes(50)]),
)


@cases("images")
@given(
    picture=PICTURES,
    place=st.sampled_from(["train/a/1.png", "test/b/1.jpg", "train/b/2.jpeg"]),
    odd=st.sampled_from(
        ["", "", "link out", "loop", "folder link out", "lost link", "empty class", "class missing", "fifo"]
    ),
)
def test_images(picture: bytes, place: str, odd: str) -> None:
    pytest.importorskip("PIL.Image")
    with tempfile.TemporaryDirectory() as folder:
        root, outside = Path(folder, "root"), Path(folder, "outside")
        outside.mkdir()
        (outside / "secret.png").write_bytes(png())
        for name in ("train/a/0.png", "train/b/0.png", "test/a/0.png", "test/b/0.png"):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(png())
        (root / place).write_bytes(picture)
        make_odd(odd, root, outside)
        from lth.data.folders import read_images

        found = read_or_refused(lambda: read_images(root, Path(folder, "cache"), lambda line: None), len(picture))
        if "out" in odd:
            assert found is None


def make_odd(odd: str, root: Path, outside: Path) -> None:
    match odd:
        case "link out":
            (root / "train/a/9.png").symlink_to(outside / "secret.png")
        case "folder link out":
            (root / "train/z").symlink_to(outside)
            (root / "test/z").symlink_to(outside)
        case "loop":
            (root / "train/a/9.png").symlink_to(root / "train/a/9.png")
        case "lost link":
            (root / "train/a/9.png").symlink_to("nowhere.png")
        case "empty class":
            (root / "train/c").mkdir()
            (root / "test/c").mkdir()
        case "class missing":
            shutil.rmtree(root / "test/b")
        case "fifo":
            os.mkfifo(root / "train/a/9.png")


# --------------------------------------------------------------------------------------------------------- ticket files


def ticket_bytes() -> bytes:
    import torch

    from lth.tickets.ticket import Ticket, to_bytes

    mask = {"1.weight": torch.tensor([[True, False, True], [False, True, True]])}
    return to_bytes(Ticket(mask, {"1.weight": torch.ones(2, 3), "1.bias": torch.zeros(2)}, {"trial": 1}))


TICKET = ticket_bytes()
HEADER_LENGTH = int.from_bytes(TICKET[:8], "little")
HEADER: dict[str, Any] = json.loads(TICKET[8 : 8 + HEADER_LENGTH])
BODY = TICKET[8 + HEADER_LENGTH :]
FACTS = {"format": 1, "counts": {"1.weight": 4}, "trial": 1}


@st.composite
def ticket(draw: DrawFn) -> bytes:
    """A ticket of other tensors and facts, with a bent header, or with bytes changed."""
    kind = draw(st.integers(0, 3))
    if kind < 2:
        return made_ticket(draw)
    return bent_header(draw) if kind == 2 else draw(mutated(TICKET))


def made_ticket(draw: DrawFn) -> bytes:
    """Well formed as a file, and of tensors and facts as they come."""
    import safetensors.torch
    import torch

    types = [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int64, torch.uint8, torch.bool]
    types += [torch.complex64, torch.float8_e4m3fn, torch.float8_e5m2, torch.uint16, torch.uint64]
    sizes = [(2, 3), (2, 3), (6,), (), (0,), (1,), (3, 0, 2), (7, 9)]
    make = lambda: torch.zeros(draw(st.sampled_from(sizes)), dtype=draw(st.sampled_from(types)))
    tensors = {"mask/1.weight": torch.tensor([0b10101100], dtype=torch.uint8), "start/1.weight": torch.zeros(2, 3)}
    for name in draw(st.lists(st.sampled_from(["mask/1.weight", "start/1.weight", "start/b", "mask/b", "x", "mask/"]))):
        tensors[name] = make()
    for name in draw(st.lists(st.sampled_from(["mask/1.weight", "start/1.weight"]), max_size=1)):
        del tensors[name]
    facts = FACTS | {draw(st.sampled_from(["format", "counts", "seal", "x"])): draw(THINGS.filter(_is_json))}
    texts = [json.dumps(facts)] * 9 + [json.dumps(FACTS)] * 3 + ["[" * 5000, "3", "{", "", "[]"]
    return safetensors.torch.save(tensors, {"lth": draw(st.sampled_from(texts))})


def bent_header(draw: DrawFn) -> bytes:
    """A header that does not fit what follows it."""
    header = json.loads(json.dumps(HEADER)) | {"__metadata__": {"lth": json.dumps(FACTS)}}
    entry = header[draw(st.sampled_from(["mask/1.weight", "start/1.weight", "start/1.bias"]))]
    match draw(st.sampled_from(["dtype", "shape", "offsets", "name", "length"])):
        case "dtype":
            entry["dtype"] = draw(st.sampled_from(["U8", "F64", "BF16", "F4", "F6_E2M3", "I64", "BOOL", "XX", 3, None]))
        case "shape":
            entry["shape"] = draw(
                st.sampled_from([[], [0], [6], [3, 2], [2**40, 2**40], [-1], [2**64], "x", [1, 6], [1.5]])
            )
        case "offsets":
            entry["data_offsets"] = draw(st.sampled_from([[0, 0], [0, 2**63], [5, 1], [-1, 4], [], [0, len(BODY)]]))
        case "name":
            header[draw(st.sampled_from(["mask/x", "start/1.weight", "x", "mask/", ""]))] = header.pop("mask/1.weight")
        case "length":
            return draw(st.integers(0, 2**64 - 1)).to_bytes(8, "little") + TICKET[8:]
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + BODY


def _is_json(thing: object) -> bool:
    try:
        return bool(json.dumps(thing))
    except TypeError:
        return False


@cases("ticket")
@given(content=ticket())
def test_tickets(content: bytes, tmp_path: Path) -> None:
    from lth.tickets.ticket import Ticket, to_bytes

    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    found = read_or_refused(lambda: Ticket.load(path), len(content))
    if found is not None:
        assert 0 <= found.density <= 1 and to_bytes(found)


# ---------------------------------------------------------------------------------------------------------- checkpoints

IDENTITY = {"training": "trial-1/level-00"}
NUMBERS: SearchStrategy[Any] = st.one_of(
    st.sampled_from([0, -1, 2**63, 2**70, "2", None, True, [], {}, 1e308, float("nan"), float("inf")]),
    st.integers(),
    st.floats(),
)


@st.composite
def checkpoint(draw: DrawFn) -> bytes:
    """A checkpoint of other numbers and tensors, with its checksum right, or with bytes changed."""
    import torch

    rows = [{"iteration": 1, "val_loss": 2.0, "val_accuracy": 0.1, "test_loss": None, "test_accuracy": None}]
    facts: dict[str, Any] = {"iteration": 1, "seconds": 1.0, "curve": rows, "states": [], "identity": IDENTITY}
    tensors = {"state/a.weight": torch.ones(2, 3), "best/a.weight": torch.ones(2, 3)}
    if draw(st.integers(0, 3)) == 0:
        return draw(mutated(save_tensors(tensors, facts)))
    for name in draw(st.lists(st.sampled_from(["state/a.weight", "best/", "states/3/a", "x", "state/"]), max_size=2)):
        shape, dtype = (
            draw(st.sampled_from([(), (0,), (2, 3), (7,)])),
            draw(st.sampled_from(["float64", "bool", "int8"])),
        )
        tensors[name] = torch.zeros(shape, dtype=getattr(torch, dtype))
    for key in draw(st.lists(st.sampled_from([*facts, "other", *rows[0]]), max_size=3)):
        target = rows[0] if key in rows[0] and draw(st.booleans()) else facts
        target[key] = draw(st.one_of(NUMBERS, THINGS.filter(_is_json)))
    return save_tensors(tensors, facts)


@cases("checkpoint")
@given(content=checkpoint())
def test_checkpoints(content: bytes) -> None:
    """One that cannot be used is left alone, with a warning; what is used has the types that it should have."""
    found = read_or_refused(lambda: from_checkpoint_bytes(content, IDENTITY), len(content))
    if found is not None:
        assert type(found.iteration) is int and all(type(row.iteration) is int for row in found.curve)
        assert isinstance(found.state, dict) and isinstance(found.seconds, int | float)


# ---------------------------------------------------------------------------------------------------------- run folders

FILES = sorted(path.relative_to(CORPUS).as_posix() for path in CORPUS.rglob("*") if path.is_file())
READERS: dict[str, Callable[[Path], object]] = {
    "tables": tables.load,
    "verdict": lambda folder: card(tables.load(folder)),
    "words": lambda folder: words.next_steps(tables.load(folder)),
    "tickets": lambda folder: Run(folder).tickets(),
    "trained": lambda folder: Run(folder).trained(1),
    "repair": lambda folder: repair.repair(folder, False, lambda line: None),
    "run": lambda folder: resolve(folder / "experiment.toml"),
}


def kept(folder: Path) -> dict[str, bytes]:
    """The files that readers leave as they are, by their paths."""
    made = ("curves.csv", "summary.csv", "manifest.json", ".lock")
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name not in made]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


@cases("run")
@given(data_=st.data(), name=st.sampled_from(FILES))
def test_run_folders(data_: st.DataObject, name: str) -> None:
    """A file of a run is changed, or is another of its files, or is lost: all readers end well.

    They change nothing but the tables, which are made again from the trainings.
    """
    right = (CORPUS / name).read_bytes()
    other = (CORPUS / data_.draw(st.sampled_from(FILES))).read_bytes()
    content = data_.draw(st.one_of(mutated(right), mutated(right), st.just(other), st.none(), st.binary(max_size=40)))
    with tempfile.TemporaryDirectory() as place:
        shutil.copytree(CORPUS, Path(place, "corpus"))
        victim = Path(place, "corpus", name)
        victim.unlink()
        if content is not None:
            victim.write_bytes(content)
        before = kept(Path(place))
        for read in READERS.values():
            read_or_refused(lambda read=read: read(Path(place, "corpus", "run")), len(content or b""), LthError)
        assert kept(Path(place)) == before


# ------------------------------------------------------------------------------------- bombs: in a process with a limit

LIMITED = """
import resource, sys
import lth.data.loading, lth.tickets.ticket, PIL.Image, PIL.PngImagePlugin, PIL.JpegImagePlugin
from pathlib import Path
from lth.errors import LthError, UsageError
from lth.data.formats import MEMORY_BASE
used = int(next(l for l in open("/proc/self/status") if l.startswith("VmSize")).split()[1]) * 1024
resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_BASE, used + MEMORY_BASE))
for path in map(Path, sys.argv[1:]):
    try:
        lth.Ticket.load(path) if path.suffix == ".safetensors" else lth.data.loading.load(path, None, print)
    except UsageError as error:
        print("refused", path.name, error)
"""
GIB = 2**30


def zip_bomb(path: Path) -> None:
    """An array of 1 GiB of zeros, in 1 MB."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (GIB // 64, 64)})
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        with archive.open("x_train.npy", "w") as stream:
            stream.write(header.getvalue())
            for _ in range(64):
                stream.write(bytes(GIB // 64))
        for key in NPZ_KEYS[1:]:
            archive.writestr(f"{key}.npy", b"")


def lying_bomb(path: Path) -> None:
    """The same, but its directory says that a few bytes unpack to a few."""
    zip_bomb(path)
    with zipfile.ZipFile(path) as archive:
        size = archive.getinfo("x_train.npy").file_size
    path.write_bytes(path.read_bytes().replace(struct.pack("<I", size), struct.pack("<I", 300)))


def picture_bomb(path: Path) -> None:
    """64 pictures of 50 million pixels each, all black: 3 GB from 3 MB."""
    content = png(10_000, 5_000)
    for name in ("train/a", "train/b", "test/a", "test/b"):
        (path / name).mkdir(parents=True)
        for number in range(16):
            (path / name / f"{number}.png").write_bytes(content)


def ticket_bomb(path: Path) -> None:
    """A header of which its first bytes say that it is 90 MB long."""
    path.write_bytes((90 * 10**6).to_bytes(8, "little") + b"{" + bytes(10**6))


BOMBS = {"x.npz": zip_bomb, "lying.npz": lying_bomb, "pictures": picture_bomb, "x.safetensors": ticket_bomb}


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited as Linux does it")
def test_bombs_are_refused_within_the_stated_memory(tmp_path: Path) -> None:
    pytest.importorskip("PIL.Image")
    for name, make in BOMBS.items():
        make(tmp_path / name)
    words = [sys.executable, "-c", LIMITED, *(str(tmp_path / name) for name in BOMBS)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    refused = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("refused")]
    assert refused == list(BOMBS), done.stdout


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="there is no file without an end here")
def test_a_toml_file_without_an_end(tmp_path: Path) -> None:
    (tmp_path / "x.toml").symlink_to("/dev/zero")
    assert read_or_refused(lambda: resolve(tmp_path / "x.toml"), 0) is None


# ------------------------------------------------------------------------------------------------- as a person meets it


def wide(path: Path) -> None:
    """Inputs so long that a small network on them has more weights than anybody trains."""
    x = np.zeros((4, 2**22), np.uint8)
    np.savez(path, x_train=x, y_train=np.arange(4) % 2, x_test=x[:1], y_test=np.array([0]))


@pytest.mark.parametrize(
    ("make", "words", "said"),
    [
        (lambda path: path.write_text("recipe = 3"), ["FILE.toml"], "recipe = 3: expected a table"),
        (lambda path: path.write_bytes(b"\xff\xfe"), ["FILE.toml"], "cannot be read"),
        (lambda path: path.write_bytes(b"PK"), ["lenet", "data.name=FILE.npz"], "is damaged or not an .npz file"),
        (lambda path: path.mkdir(), ["lenet", "data.name=FILE.d/"], "has no folder train/"),
        (
            wide,
            ["lenet", "data.name=FILE.npz", "data.validation=1", "recipe.batch=1"],
            "weights; at most 1,000,000,000",
        ),
    ],
    ids=["table", "no text", "no zip", "no images", "too wide"],
)
def test_a_line_and_exit_code_2(
    make: Callable[[Path], object],
    words: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ending = next(word for word in words if "FILE" in word).partition("FILE")[2].rstrip("/")
    path = tmp_path / f"x{ending}"
    make(path)
    typed = [word.replace(f"FILE{ending}", str(path)) for word in words]
    monkeypatch.setattr(sys, "argv", ["lth", "run", *typed, "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as ended:
        main()
    error = capsys.readouterr().err
    assert ended.value.code == 2 and error.startswith("lth: ") and said in error and "Traceback" not in error
    assert not (tmp_path / "out").exists()
