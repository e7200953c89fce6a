"""The served report: only on the loopback, only to who calls it by its name, for as long as the run lasts."""

from __future__ import annotations

import io
import json
import re
import shutil
import socket
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import lth
from lth.errors import UsageError
from lth.report import events, serve
from lth.storage import layout, runs
from test_records import make_run, training

pytestmark = pytest.mark.figures


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "run", {(1, 0, "ticket"): training(0)}, trials=1, levels=1, branch=[])


def fetch(address: str, host: str | None = None) -> tuple[int, str]:
    request = urllib.request.Request(address, headers={"Host": host} if host else {})
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, ""


def test_it_answers_three_addresses_and_nobody_elses_name(run: Path) -> None:
    with serve.serving(serve.Live([run])) as address:
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", address)
        state = json.loads(fetch(address + "state.json")[1])
        assert state == {"version": "1", "said": "Live: 1 of 2 trainings are stored.", "ended": False}
        whole, part = fetch(address), fetch(address + "main.html")
        assert whole[0] == part[0] == 200 and part[1] in whole[1] and 'data-version="1"' in part[1]
        for name in ("report.html", "experiment.toml", "../", "%2e%2e/", "trial-1/level-00/summary.json"):
            assert fetch(address + name)[0] == 404
        assert fetch(address + "state.json", host="rebound.example:80")[0] == 403


@pytest.mark.parametrize("target", ["http://[", "/?" + "&".join(f"a{n}=1" for n in range(100))])
def test_an_address_that_is_none_is_a_bad_request(run: Path, target: str, capfd: pytest.CaptureFixture[str]) -> None:
    with serve.serving(serve.Live([run])) as address:
        port = int(address.rstrip("/").rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=10) as line:
            line.sendall(f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
            assert b" 400 " in line.recv(100)
        assert fetch(address)[0] == 200
    assert "Traceback" not in capfd.readouterr().err


def test_a_connection_that_says_nothing_is_closed(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "IDLE", 0.2)
    with serve.serving(serve.Live([run])) as address:
        port = int(address.rstrip("/").rpartition(":")[2])
        for said in (b"", b"GET / HTTP/1.1\r\nHost: "):
            with socket.create_connection(("127.0.0.1", port), timeout=10) as line:
                line.sendall(said)
                assert line.recv(100) == b""


def test_with_a_token_it_answers_to_who_knows_it(run: Path) -> None:
    with serve.serving(serve.Live([run]), token="secret") as address:
        base, _, query = address.partition("?")
        assert query == "token=secret"
        assert [fetch(base + name)[0] for name in ("", "state.json", "?token=", "?token=secre", "?token=s%C3%A9")] == [
            401
        ] * 5
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPCookieProcessor())
        assert opener.open(address, timeout=30).status == 200
        assert opener.open(base + "state.json", timeout=30).status == 200  # by the cookie
        assert fetch(address, host="rebound.example:80")[0] == 403


def test_it_never_listens_beyond_the_loopback(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bound = []
    bind = socket.socket.bind
    monkeypatch.setattr(socket.socket, "bind", lambda self, place: bound.append(place[0]) or bind(self, place))
    with serve.serving(serve.Live([run])):
        assert bound == ["127.0.0.1"]


def test_a_port_that_is_taken_is_said(run: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"--port {port} cannot be used"), serve.serving(serve.Live([run]), port):
            pass


def test_it_serves_until_the_run_ends(run: Path) -> None:
    said: list[str] = []
    server = threading.Thread(target=serve.serve, args=([run], 0, said.append, 0.05))
    with runs.lock(run):
        server.start()
        until = time.monotonic() + 60
        while not said and time.monotonic() < until:
            time.sleep(0.05)
        address = said[0].partition(" ")[0]
        assert "until the run ends, or Ctrl-C" in said[0]
        assert fetch(address)[0] == 200
        server.join(0.5)
        assert server.is_alive()
    server.join(30)
    assert not server.is_alive() and "the server has stopped" in said[1]
    with pytest.raises(urllib.error.URLError):
        fetch(address)


def test_asking_whether_a_run_goes_on_is_no_second_run(run: Path) -> None:
    assert not runs.in_use(run)
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            runs.in_use(run)
            time.sleep(0.001)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        for _ in range(100):
            with runs.lock(run):
                assert runs.in_use(run)
    finally:
        stop.set()
        asking.join()


def test_a_folder_that_is_no_run_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not a run folder"):
        serve.serve([tmp_path], 0, print)


def test_tickets_of_a_run_that_goes_on_are_shown_and_nothing_is_written(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(Path(__file__).parent / "data/version-0.1/finished", tmp_path / "run"))
    for name in layout.ANATOMY:
        for path in folder.glob(f"trial-*/level-*/{name}"):
            path.unlink()
    before = sorted(folder.rglob("*"))
    live = serve.Live([folder])
    assert 'id="tickets"' in live.html(whole=False)
    shutil.rmtree(folder / "trial-2")
    assert '"trial":1' in live.html(whole=True)
    assert [path for path in before if "trial-2" not in path.parts] == sorted(folder.rglob("*"))


def test_a_run_can_be_watched(tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, states = io.StringIO(), []

    def look(folder: Path, console: Console) -> None:
        address = re.findall(r"live report: (\S+)", out.getvalue())[0]
        states.append(json.loads(fetch(address + "state.json")[1]))

    monkeypatch.setattr("lth.execution.running.show_results", look)
    monkeypatch.setattr("lth.report.serve.LINGER", 0.2)
    lth.run(tiny, out=tmp_path / "run", engine="torch", workers=1, watch=True, console=Console(file=out))
    assert states == [{"version": "3", "said": "Live: 3 of 3 trainings are stored.", "ended": False}]


# --------------------------------------------------------------------------------------------------------- tensorboard


def test_event_files_hold_the_curves(tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboard", reason="the extra tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from lth.results import tables

    lth.run(tiny, out=tmp_path / "run", engine="torch", workers=1, levels=0)
    lth.run(tiny, out=tmp_path / "run", engine="torch", workers=1, levels=1, branches="reinit:1", log="tensorboard")
    curves = tables.load(tmp_path / "run").curves
    for name, level, branch in (("level-00/ticket", 0, "ticket"), ("level-01/reinit-1", 1, "reinit-1")):
        read = EventAccumulator(str(tmp_path / "run/tensorboard/trial-1" / name))
        read.Reload()
        mine = curves[(curves["level"] == level) & (curves["branch"] == branch)]
        assert set(read.Tags()["scalars"]) == {"val_loss", "val_accuracy", "test_loss", "test_accuracy"}
        assert [event.step for event in read.Scalars("val_loss")] == mine["iteration"].tolist()
        assert [event.value for event in read.Scalars("val_loss")] == pytest.approx(mine["val_loss"].tolist(), rel=1e-6)
    events.write(tmp_path / "run", "trial-1/level-00")  # again: left as it is
    assert len(list((tmp_path / "run/tensorboard").rglob("events.*"))) == 3


def test_the_extra_is_asked_for_before_any_work(
    tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "available", lambda: False)
    with pytest.raises(UsageError, match=r"pip install 'lth\[tensorboard\]'"):
        lth.run(tiny, out=tmp_path / "run", log="tensorboard")
    with pytest.raises(UsageError, match="--log takes tensorboard; not 'tensorbord'; did you mean"):
        lth.run(tiny, out=tmp_path / "run", log="tensorbord")
    assert not (tmp_path / "run").exists()
