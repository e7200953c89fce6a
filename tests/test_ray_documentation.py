"""The documentation's commands for a Ray cluster, typed with an empty home: what they start is closed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import lth
from ray_cluster import environment
from stored_runs import contents
from test_executors import PLAIN, begin, complete, free_port, listening, wait_for
from test_resume import to_file

pytestmark = [
    pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed: pip install 'lth[ray]'"),
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
]
PAGE = Path(__file__).parents[1] / "docs" / "clusters.md"
PORTS = {"6379": str(free_port()), "10001": str(free_port())}
ANYWHERE = ("0.0.0.0", "::")
TOKEN = ".ray/auth_token"


def documented(beginning: str) -> str:
    """The command of the page that begins like this, for this machine and ports that are free."""
    lines = PAGE.read_text().partition("## Ray\n")[2].splitlines()
    line = next(line.strip() for line in lines if line.startswith(f"    {beginning}"))
    command = re.sub(r"\s{2,}#.*", "", line).replace("HEAD", "127.0.0.1")
    for documented_port, free in PORTS.items():
        command = re.sub(rf"\b{documented_port}\b", free, command)
    return command


def typed(command: str, home: Path, alone: dict[str, str], **more: str) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    here = alone | {"HOME": str(home), "PATH": path, **more}
    here.pop("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER")  # which lth sets for what it starts itself
    return subprocess.run(command, shell=True, env=here, capture_output=True, text=True, timeout=180)


def family_of(alone: dict[str, str]) -> list[Any]:
    """All processes of the cluster, found by the folder that is theirs alone."""
    import psutil

    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get("RAY_TMPDIR") == alone["RAY_TMPDIR"]:
                found.append(process)
    return found


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, str]]]:
    """The home of the head's user, which was empty, and the environment of all."""
    home = tmp_path_factory.mktemp("head")
    with environment() as alone:
        refused = typed(documented("RAY_AUTH_MODE=token ray start --head"), home, alone)
        assert refused.returncode and "no authentication token was found" in refused.stderr  # none is started open
        assert typed(documented("(umask 077; ray get-auth-token"), home, alone).returncode == 0
        assert (home / TOKEN).stat().st_mode & 0o777 == 0o600
        started = typed(documented("RAY_AUTH_MODE=token ray start --head"), home, alone)
        assert started.returncode == 0, started.stderr
        try:
            yield home, alone
        finally:
            for process in family_of(alone):
                process.kill()
            time.sleep(1)


@pytest.fixture
def dry_run(tiny: dict[str, Any], tmp_path: Path) -> str:
    experiment = to_file(tiny, tmp_path / "tiny.toml")
    options = documented("lth run").partition("--executor")[2]
    return f'{sys.executable} -c "{PLAIN}" run {experiment} --dry-run --executor {options}'


def test_it_listens_where_the_page_says(head: tuple[Path, dict[str, str]]) -> None:
    found = listening({process.pid for process in family_of(head[1])})
    assert [host for host, port in found if port == int(PORTS["6379"])] == ["::"]
    clients = {host.removeprefix("::ffff:") for host, port in found if port == int(PORTS["10001"])}
    assert "127.0.0.1" in clients and not clients & {*ANYWHERE}


def test_a_client_without_the_token_is_refused(head: tuple[Path, dict[str, str]], dry_run: str, tmp_path: Path) -> None:
    began = time.monotonic()
    refused = typed(dry_run, tmp_path, head[1])
    assert refused.returncode == 2 and time.monotonic() - began < 60
    assert "requires a token, and this machine has none; copy the head's ~/.ray/auth_token" in refused.stderr
    assert "Traceback" not in refused.stderr
    wrong = typed(dry_run, tmp_path, head[1], RAY_AUTH_TOKEN="1" * 64)
    assert wrong.returncode == 2 and "refuses this machine's token" in wrong.stderr
    (tmp_path / TOKEN).parent.mkdir()
    shutil.copy(head[0] / TOKEN, tmp_path / TOKEN)
    accepted = typed(dry_run, tmp_path, head[1])
    assert accepted.returncode == 0, accepted.stderr


@pytest.mark.parametrize("token", [None, "1" * 64])
def test_a_worker_without_the_token_is_refused(
    token: str | None, head: tuple[Path, dict[str, str]], tmp_path: Path
) -> None:
    before = {process.pid for process in family_of(head[1])}
    given = {"RAY_AUTH_TOKEN": token} if token else {}
    refused = typed(documented("RAY_AUTH_MODE=token ray start --address"), tmp_path, head[1], **given)
    assert refused.returncode, refused.stdout
    assert "uthentication" in refused.stderr
    raylets = [p for p in family_of(head[1]) if p.pid not in before and p.name() == "raylet"]
    assert not raylets


def test_a_cluster_without_a_token_is_refused_unless_told(dry_run: str, tmp_path: Path) -> None:
    """What `ray start --head` starts where there is no token."""
    with environment() as alone:
        ports = {name: str(free_port()) for name in PORTS}
        open_head = documented("RAY_AUTH_MODE=token ray start --head").removeprefix("RAY_AUTH_MODE=token ")
        for name, port in ports.items():
            open_head, dry_run = open_head.replace(PORTS[name], port), dry_run.replace(PORTS[name], port)
        try:
            assert typed(open_head, tmp_path, alone).returncode == 0
            refused = typed(dry_run, tmp_path, alone)
            assert refused.returncode == 2 and "requires no token" in refused.stderr
            accepted = typed(f"{dry_run} --insecure", tmp_path, alone)
            assert accepted.returncode == 0, accepted.stderr
        finally:
            for process in family_of(alone):
                process.kill()


def test_a_lost_head_ends_in_a_line_and_the_same_command_goes_on(
    head: tuple[Path, dict[str, str]], tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last of this file: it kills the head, and starts it again."""
    home, alone = head
    tiny["recipe"] |= {"iterations": 2500, "eval_every": 500}
    experiment, out = to_file(tiny | {"levels": 3}, tmp_path / "tiny.toml"), tmp_path / "out"
    address = f"ray://127.0.0.1:{PORTS['10001']}"
    options, client = ("--engine", "torch", "--workers", "1", "--executor", address), alone | {"HOME": str(home)}
    process = begin(experiment, out, client, *options)
    wait_for(process, lambda: (out / "trial-1/level-00/summary.json").exists())
    for part in family_of(alone):
        if part.pid != process.pid:
            part.kill()
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 1 and said.splitlines()[-1].startswith("lth: the Ray cluster was lost"), said
    assert "run the same command to continue" in said and "Traceback" not in said
    assert typed(documented("RAY_AUTH_MODE=token ray start --head"), home, alone).returncode == 0
    said = complete(begin(experiment, out, client, *options))
    assert "[4/4]" in said and "[1/4]" not in said
    lth.run(tiny | {"levels": 3}, out=tmp_path / "local", engine="torch", workers=1)
    assert contents(out) == contents(tmp_path / "local")
