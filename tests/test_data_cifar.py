"""CIFAR-10 and CIFAR-100: both layouts, the archives, and what is said of those that are not as they should be."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import pickle
import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lth.data import load, mirrors, sources
from lth.data.cifar import from_pickle
from lth.data.pickles import read_table
from lth.data.rawfiles import Damaged
from lth.data.registry import DATASETS, Archive, DatasetInfo, RawFile
from lth.errors import UsageError

COUNT = 20  # records in a file
NAMES = ["cifar10", "cifar100"]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda name: str(tmp_path / "cache" / name))
    monkeypatch.setattr(mirrors, "PATIENCE_S", 2.0)
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    return tmp_path / "cache" / "lth"


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Callable[..., DatasetInfo]:
    """Put a small CIFAR into the registry: the real names and form, 20 records in a file, and these archives."""

    def register(name: str = "cifar10", archives: tuple[Archive, ...] = ()) -> DatasetInfo:
        info = DATASETS[name]
        files = tuple(replace(file, size=COUNT * (len(file.labels) + 3072)) for file in info.files)
        info = replace(info, files=files, archives=archives)
        monkeypatch.setitem(DATASETS, name, info)
        return info

    return register


def records(info: DatasetInfo) -> dict[str, np.ndarray]:
    """Arrays [n, labels + 3072] by file name; the last of the labels runs through all classes that fit."""
    draw = np.random.default_rng(0)
    found = {}
    for n, file in enumerate(info.files):
        labels = [(np.arange(COUNT) * (7 if place else 1) + n) % count for place, count in enumerate(file.labels)]
        found[file.name] = np.column_stack([*labels, draw.integers(0, 256, (COUNT, 3072))]).astype(np.uint8)
    return found


def binary(info: DatasetInfo) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in records(info).items()}


def table(array: np.ndarray, keys: tuple[str, ...]) -> dict[bytes, Any]:
    """A batch as the official pickles hold it."""
    labels = {key.encode(): array[:, place].tolist() for place, key in enumerate(keys)}
    rest = {b"batch_label": b"training batch 1 of 5", b"filenames": [b"x.png"] * len(array)}
    return {b"data": np.ascontiguousarray(array[:, len(keys) :]), **labels, **rest}


def pickles(info: DatasetInfo) -> dict[str, bytes]:
    assert info.python
    return {
        name: pickle.dumps(table(array, info.python.labels), protocol=3)
        for name, array in zip(info.python.files, records(info).values(), strict=True)
    }


def lay_out(folder: Path, contents: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return folder


def check(info: DatasetInfo, data_root: Path | None = None, said: list[str] | None = None) -> None:
    """What is loaded is what `records` made."""
    data = load(info.name, data_root, ([] if said is None else said).append)
    arrays = list(records(info).values())
    train, marks = np.concatenate(arrays[:-1]), len(info.files[0].labels)
    np.testing.assert_array_equal(data.train_x.reshape(len(train), -1), train[:, marks:])
    np.testing.assert_array_equal(data.train_y, train[:, marks - 1])
    np.testing.assert_array_equal(data.test_x.reshape(COUNT, -1), arrays[-1][:, marks:])
    np.testing.assert_array_equal(data.test_y, arrays[-1][:, marks - 1])
    assert data.train_x.shape[1:] == (3, 32, 32) and data.train_x.dtype == np.uint8
    assert data.train_y.dtype == np.int64 and data.classes == info.classes


# The user's folder


@pytest.mark.parametrize("name", NAMES)
def test_binary_layout(small, tmp_path, name):
    info = small(name)
    lay_out(tmp_path / "root" / info.folder, binary(info))
    check(info, tmp_path / "root")


@pytest.mark.parametrize("name", NAMES)
def test_python_layout(small, tmp_path, name):
    info = small(name)
    lay_out(tmp_path / "root" / info.python.folder, pickles(info))
    check(info, tmp_path / "root")


def test_a_row_is_a_plane_of_red_then_green_then_blue(small, tmp_path):
    info = small()
    contents = binary(info)
    image = np.zeros((3, 32, 32), np.uint8)
    image[0, 0, :2], image[2, 31, 31] = (1, 2), 3
    contents["data_batch_1.bin"] = b"\x05" + image.tobytes() + contents["data_batch_1.bin"][3073:]
    lay_out(tmp_path / "root" / info.folder, contents)
    data = load("cifar10", tmp_path / "root", print)
    assert data.train_y[0] == 5 and data.train_x[0, 0, 0, :3].tolist() == [1, 2, 0] and data.train_x[0, 2, 31, 31] == 3


def test_files_may_be_gzipped(small, tmp_path):
    info = small()
    packed = {f"{name}.gz": gzip.compress(content) for name, content in binary(info).items()}
    lay_out(tmp_path / "root" / info.folder, packed)
    check(info, tmp_path / "root")


def test_another_content_of_the_right_form_is_the_users_own_affair(small, tmp_path):
    """Pixels decoded from JPEG, say: no checksum is asked of a folder that the user named."""
    info = small()
    contents = binary(info)
    contents["test_batch.bin"] = contents["data_batch_1.bin"]
    lay_out(tmp_path / "root" / info.folder, contents)
    data = load("cifar10", tmp_path / "root", print)
    np.testing.assert_array_equal(data.test_x, data.train_x[:COUNT])


DAMAGES = {
    "short": (lambda content: content[:-1], "has 61,459 bytes, expected 61,460"),
    "long": (lambda content: content + b"x", "has more than the expected 61,460 bytes"),
    "label": (lambda c: c[: 3073 * 7] + b"\x0a" + c[3073 * 7 + 1 :], "has the label 10 in record 7, expected 0 to 9"),
    "empty": (lambda content: b"", "has 0 bytes"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_binary_layout_is_named(small, tmp_path, damage):
    spoil, expected = DAMAGES[damage]
    info = small()
    contents = binary(info)
    contents["data_batch_3.bin"] = spoil(contents["data_batch_3.bin"])
    folder = lay_out(tmp_path / "root" / info.folder, contents)
    lay_out(tmp_path / "root" / info.python.folder, pickles(info))  # no reason to pass over what is wrong
    with pytest.raises(UsageError) as caught:
        load("cifar10", tmp_path / "root", print)
    assert f"{folder / 'data_batch_3.bin'} {expected}" in str(caught.value)
    assert "replace that file" in str(caught.value)


class Hostile:
    def __init__(self, target: Path):
        self.target = target

    def __reduce__(self):
        return os.system, (f"touch {self.target}",)


PICKLED_DAMAGES = {
    "no dict": (lambda t: [t[b"data"]], "holds a list, not a dict"),
    "no data": (lambda t: {k: v for k, v in t.items() if k != b"data"}, "it has no 'data'"),
    "no labels": (lambda t: {k: v for k, v in t.items() if k != b"labels"}, "it has no 'labels'"),
    "floats": (lambda t: t | {b"data": t[b"data"].astype("f4")}, "another form than bytes"),
    "a row short": (lambda t: t | {b"data": t[b"data"][:-1]}, "an integer of labels for each of 19 images"),
    "rows of another length": (lambda t: t | {b"data": np.ascontiguousarray(t[b"data"][:, 1:])}, "another form"),
    "a label too many": (lambda t: t | {b"labels": [*t[b"labels"], 1]}, "for each of 20 images"),
    "labels that are no integers": (lambda t: t | {b"labels": [0.5] * COUNT}, "it has no 'labels'"),
    "a negative label": (lambda t: t | {b"labels": [-1, *t[b"labels"][1:]]}, "a label outside of 0 to 9"),
    "a huge label": (lambda t: t | {b"labels": [2**70, *t[b"labels"][1:]]}, "an integer of labels"),
    "a label that wraps": (lambda t: t | {b"labels": [256, *t[b"labels"][1:]]}, "a label outside of 0 to 9"),
    "no such class": (lambda t: t | {b"labels": [10, *t[b"labels"][1:]]}, "has the label 10 in record 0"),
    "all rows gone": (lambda t: t | {b"data": t[b"data"][:0], b"labels": []}, ""),
    "a table in the table": (lambda t: t | {b"labels": {}}, "labels is a dict"),
}


@pytest.mark.parametrize("damage", PICKLED_DAMAGES)
def test_damaged_python_layout_is_named(small, tmp_path, damage):
    change, expected = PICKLED_DAMAGES[damage]
    info = small()
    contents = pickles(info)
    contents["data_batch_2"] = pickle.dumps(change(table(records(info)["data_batch_2.bin"], ("labels",))), protocol=3)
    folder = lay_out(tmp_path / "root" / info.python.folder, contents)
    with pytest.raises(UsageError) as caught:
        load("cifar10", tmp_path / "root", print)
    assert f"{folder / 'data_batch_2'} " in str(caught.value) and expected in str(caught.value)


def test_hostile_pickle_is_refused_and_not_run(small, tmp_path):
    info = small()
    hostile = table(records(info)["test_batch.bin"], ("labels",)) | {b"extra": Hostile(tmp_path / "ran")}
    lay_out(tmp_path / "root" / info.python.folder, pickles(info) | {"test_batch": pickle.dumps(hostile, protocol=3)})
    with pytest.raises(UsageError, match=r"it asks for .*system"):
        load("cifar10", tmp_path / "root", print)
    assert not (tmp_path / "ran").exists()


def test_a_table_as_python_2_wrote_it():
    """The official files' own opcodes: byte strings hold keys, names and the array's memory."""
    memory = bytes(range(6))
    old = (
        b"\x80\x02}q\x01(U\x0bbatch_labelq\x02U\x05batchU\x06labelsq\x03]q\x04(K\x03K\x01eU\x04dataq\x05"
        b"cnumpy.core.multiarray\n_reconstruct\nq\x06cnumpy\nndarray\nq\x07K\x00\x85U\x01b\x87R"
        b"(K\x01K\x02K\x03\x86cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89U\x06" + memory + b"tbU\tfilenamesq\x08]q\x09(U\x01aU\x01beu."
    )
    found = read_table(io.BytesIO(old), "old")
    assert found["labels"] == [3, 1] and set(found) == {"labels", "data"}
    np.testing.assert_array_equal(found["data"], np.arange(6, dtype=np.uint8).reshape(2, 3))


def test_no_more_of_a_pickle_is_read_than_it_can_have(small):
    info = small()
    with pytest.raises(Damaged, match="is larger than the maximum"):
        from_pickle(bytes(2_000_000), info.files[0], info.python)


# Archives, from a server on this machine


@contextmanager
def serving(pages: dict[str, bytes]) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            page = pages.get(self.path.lstrip("/"))
            self.send_response(200 if page is not None else 404)
            self.send_header("Content-Length", str(len(page or b"")))
            self.end_headers()
            self.wfile.write(page or b"")

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def tar(folder: str, contents: dict[str, bytes], *more: tarfile.TarInfo) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as out:
        for member in more:
            out.addfile(member, io.BytesIO(bytes(member.size)))
        for name, content in {"batches.meta.txt": b"airplane\n", **contents}.items():
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(content)
            out.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def archive(url: str, packed: bytes, folder: str) -> Archive:
    return Archive(f"{url}cifar.tar.gz", len(packed), hashlib.md5(packed).hexdigest(), folder)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("layout", ["binary", "python"])
def test_an_archive_fills_the_cache(small, cache, name, layout):
    info = small(name)
    folder = info.folder if layout == "binary" else info.python.folder
    packed = tar(folder, binary(info) if layout == "binary" else pickles(info))
    said: list[str] = []
    with serving({"cifar.tar.gz": packed}) as url:
        check(small(name, archives=(archive(url, packed, folder),)), None, said)
    assert said[1:] == [f"{name}: downloading from {url}cifar.tar.gz", f"{name}: stored in {cache / info.folder}"]
    assert {path.name: path.read_bytes() for path in (cache / info.folder).iterdir()} == binary(info)
    check(info)  # and now without the network


def test_another_checksum_is_passed_over(small):
    info = small()
    good = tar(info.folder, binary(info))
    with serving({"cifar.tar.gz": good, "other/cifar.tar.gz": b"x" + good}) as url:
        bad = replace(archive(f"{url}other/", good, info.folder), size=len(good) + 10)
        said: list[str] = []
        check(small(archives=(bad, archive(url, good, info.folder))), None, said)
    assert any("what it sent has md5" in line and "not used" in line for line in said)


def escaping() -> tarfile.TarInfo:
    member = tarfile.TarInfo("../../escaped")
    member.size = 5
    return member


def linked(name: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
    return member


def huge() -> tarfile.TarInfo:
    member = tarfile.TarInfo("huge")
    member.size = 5_000_000
    return member


def refused(info: DatasetInfo, small: Callable[..., DatasetInfo], packed: bytes) -> str:
    with serving({"cifar.tar.gz": packed}) as url, pytest.raises(UsageError) as caught:
        small(archives=(archive(url, packed, info.folder),))
        load("cifar10", None, lambda line: None)
    return str(caught.value)


def test_nothing_of_an_archive_is_written_by_its_own_name(small, tmp_path):
    info = small()
    packed = tar(info.folder, binary(info), escaping(), linked("cifar-10-batches-bin/link"))
    with serving({"cifar.tar.gz": packed}) as url:
        check(small(archives=(archive(url, packed, info.folder),)))
    assert not list(tmp_path.rglob("escaped")) and not list(tmp_path.rglob("link"))


def test_an_archive_that_lacks_a_file_is_refused(small):
    info = small()
    whole = binary(info)
    part = {name: content for name, content in whole.items() if name != "data_batch_4.bin"}
    assert "lacks data_batch_4.bin" in refused(info, small, tar(info.folder, part))
    link = linked(f"{info.folder}/data_batch_4.bin")
    assert "lacks data_batch_4.bin" in refused(info, small, tar(info.folder, part, link))


def test_an_archive_that_unpacks_to_too_much_is_refused(small):
    info = small()
    assert "is more than 6 files" in refused(info, small, tar(info.folder, binary(info), huge()))


SPOILS = {"a page": lambda p: b"<html>", "half": lambda p: p[: len(p) // 2], "no tar": lambda p: gzip.compress(p)}


@pytest.mark.parametrize("spoil", SPOILS.values(), ids=SPOILS)
def test_an_archive_that_does_not_unpack_is_refused(small, spoil):
    info = small()
    assert "what it sent does not unpack" in refused(info, small, spoil(tar(info.folder, binary(info))))


@pytest.mark.parametrize("name", NAMES)
def test_nowhere_says_exactly_what_to_put_where(small, tmp_path, name):
    real = DATASETS[name]
    info = small(name, archives=(replace(real.archives[0], url="http://127.0.0.1:9/cifar.tar.gz"),))
    with pytest.raises(UsageError) as caught:
        load(name, tmp_path / "root", lambda line: None)
    message = str(caught.value)
    layouts = [(info.folder, [file.name for file in info.files]), (info.python.folder, info.python.files)]
    for folder, files in layouts:
        assert f"FOLDER/{folder}/: {', '.join(files)}" in message
    assert "tar -xzf cifar.tar.gz -C FOLDER" in message and "--data-root FOLDER" in message and "\n" not in message


def test_a_cut_off_cache_is_fetched_again(small, cache):
    info = small()
    folder = lay_out(cache / info.folder, binary(info))
    (folder / "test_batch.bin").write_bytes(b"")
    packed = tar(info.folder, binary(info))
    with serving({"cifar.tar.gz": packed}) as url:
        check(small(archives=(archive(url, packed, info.folder),)))
    assert (folder / "test_batch.bin").read_bytes() == binary(info)["test_batch.bin"]


# The real thing


def test_what_the_registry_knows():
    ten, hundred = DATASETS["cifar10"], DATASETS["cifar100"]
    assert {file.size for file in ten.files} == {30_730_000}
    assert [file.size for file in hundred.files] == [153_700_000, 30_740_000]
    assert [a.md5 for a in ten.archives] == ["c32a1d4ab5d03f1284b67883e8d87530", "c58f30108f718f92721af3b95e74349a"]
    assert [a.md5 for a in hundred.archives] == ["03b5dce01913d631647c71ecec9e9cb8", "eb9058c3a382ffc7106e4002c42a8d85"]
    assert isinstance(ten.files[0], RawFile) and ten.files[0].sha256 is None


def test_order_of_sources(tmp_path):
    labels = [source.label for source in sources.sources("cifar10", tmp_path)]
    assert labels[:3] == [f"--data-root {tmp_path}"] * 2 + ["the cache"]
    assert "www.cs.toronto.edu" in labels[3] and "bcebos" in labels[4] and len(labels) == 5


def test_real_cifar10_is_whole_and_loads(data_root):
    if not (data_root / "cifar-10-batches-bin").is_dir():
        pytest.skip("the shared data has no CIFAR-10")
    said: list[str] = []
    data = load("cifar10", data_root, said.append)
    assert said == []
    assert (data.train_x.shape, data.test_x.shape) == ((50_000, 3, 32, 32), (10_000, 3, 32, 32))
    assert np.bincount(data.train_y).tolist() == [5000] * 10 and np.bincount(data.test_y).tolist() == [1000] * 10
    assert (data.train_x.mean((0, 2, 3)) / 255).round(2).tolist() == [0.49, 0.48, 0.45]
