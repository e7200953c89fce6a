"""Where trainings run changes no bit of them, and nothing that dies on the way loses one."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import lth
from lth import native
from lth.config import resolve
from lth.errors import LthError, UsageError
from lth.execution.executors import EXECUTORS, executor, ray_connection, ray_task, wrong_name
from lth.execution.executors import ray as on_ray
from lth.execution.executors import slurm as on_slurm
from lth.execution.executors.local import room
from lth.execution.resources import Resources
from lth.plan import plan
from ray_cluster import RayCluster, cluster, environment
from stored_runs import contents
from test_resume import has_checkpoint, to_file

needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed: pip install 'lth[ray]'")
needs_submitit = pytest.mark.skipif(find_spec("submitit") is None, reason="pip install 'lth[slurm]'")
ENGINE = "native" if native.available() else "torch"
# lth without figures at the end
AT_HOME = "from lth.execution.executors import slurm\nslurm.CLUSTER = 'local'\n"  # jobs are processes of this machine
PLAIN = "from lth.execution import running\nrunning.show_results = lambda *_: None\nfrom lth.cli import main\nmain()"


no_exceptions = SimpleNamespace(AuthenticationError=type("AuthenticationError", (Exception,), {}))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


CLIENT_PORT = free_port()


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[RayCluster]:
    with cluster(nodes=3, client_port=CLIENT_PORT) as started:
        yield started


def begin(
    experiment: Path, out: Path, environment: dict[str, str], *options: str, before: str = ""
) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", before + PLAIN, "run", str(experiment), "--out", str(out), *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)


def complete(process: subprocess.Popen[str]) -> str:
    said, _ = process.communicate(timeout=900)
    assert process.returncode == 0, said
    return said


def wait_for(process: subprocess.Popen[str], what: Any) -> None:
    until = time.monotonic() + 300
    while not what():
        assert process.poll() is None and time.monotonic() < until, process.communicate()[0]
        time.sleep(0.02)


def finished(run: Path) -> int:
    """Trainings that are stored; what a killed process left half written is none."""
    found = (folder for folder, _, names in os.walk(run) if "summary.json" in names)  # may vanish on the way
    return sum(not folder.endswith(".unfinished") for folder in found)


@pytest.fixture
def local(monkeypatch: pytest.MonkeyPatch) -> Any:
    return lth.run


@needs_ray
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_what_is_started_here_listens_on_the_loopback_alone(tiny: dict[str, Any], tmp_path: Path) -> None:
    """The first of this file: once there is a cluster on this machine, it would be joined."""
    tiny["recipe"]["iterations"] = 10**6
    with environment() as alone:
        process = begin(to_file(tiny, tmp_path / "tiny.toml"), tmp_path / "ray", alone, "--executor", "ray")
        wait_for(process, lambda: (tmp_path / "ray/trial-1/start.safetensors").exists())
        until = time.monotonic() + 60
        while time.monotonic() < until and len(listening(descendants(process.pid))) < 6:  # until its workers run
            time.sleep(0.2)
        family = descendants(process.pid)
        found = listening(family)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
        assert process.returncode == 130
        assert len(found) >= 4 and all(name.startswith(("127.", "::ffff:127.", "::1")) for name, _ in found), found
        time.sleep(1)
        assert not [pid for pid in family if Path(f"/proc/{pid}/fd").exists() and open_files(pid)]


@pytest.mark.parametrize(("refusals", "joined"), [(0, True), (3, True), (4, False)])
def test_a_cluster_that_is_not_ready_is_asked_again(
    refusals: int, joined: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def init(address: str, **_: Any) -> None:
        asked.append(address)
        if len(asked) <= refusals:
            raise ConnectionAbortedError("Initialization failure from server:\nTraceback\nTimeoutError: no agent yet\n")

    monkeypatch.setattr(ray_connection, "library", lambda: SimpleNamespace(init=init, exceptions=no_exceptions))
    monkeypatch.setattr(ray_connection, "accepts", lambda address, shown=None: shown == "secret")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "secret")
    monkeypatch.setattr(ray_connection, "PAUSE_SECONDS", 0.0)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if joined:
        assert ray_connection.connect("ray://there:1") == ("ray://there:1",)
    else:
        with pytest.raises(UsageError, match=r"answers at ray://there:1: TimeoutError: no agent yet; start one there"):
            ray_connection.connect("ray://there:1")
    assert asked == ["ray://there:1"] * min(refusals + 1, ray_connection.TRIES)


@needs_ray
@pytest.mark.parametrize(
    ("engine", "name"), [("torch", "ray"), (ENGINE, f"ray://127.0.0.1:{CLIENT_PORT}")], ids=["ray", "ray client"]
)
def test_ray_gives_the_same_bits(
    tiny: dict[str, Any], tmp_path: Path, local: Any, ray_cluster: RayCluster, engine: str, name: str
) -> None:
    tiny |= {"trials": 2, "levels": 1, "branch": [{"name": "reinit"}, {"name": "random-mask"}]}
    tiny["model"]["dropout"] = 0.2
    local(tiny, out=tmp_path / "local", engine=engine, workers=1)
    experiment = to_file(tiny, tmp_path / "tiny.toml")
    said = complete(
        begin(experiment, tmp_path / "ray", ray_cluster.environment, "--engine", engine, "--executor", name)
    )
    assert "8 trainings, 3 side by side" in said and "[8/8]" in said
    assert contents(tmp_path / "ray") == contents(tmp_path / "local")


@needs_ray
def test_a_stopped_run_keeps_checkpoints_and_goes_on(
    tiny: dict[str, Any], tmp_path: Path, local: Any, ray_cluster: RayCluster
) -> None:
    """More trainings than places: those that wait for one are cancelled, the others send their checkpoints."""
    tiny |= {"trials": 6, "levels": 0}
    tiny["recipe"] |= {"iterations": 2000, "eval_every": 1000}
    experiment, out = to_file(tiny, tmp_path / "tiny.toml"), tmp_path / "ray"
    options = ("--engine", "torch", "--executor", "ray", "--workers", "5")
    process = begin(experiment, out, ray_cluster.environment, *options)
    wait_for(process, lambda: finished(out))
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    asked = time.monotonic()
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 130 and time.monotonic() - asked < 60, said
    assert "To continue:" in said and "--executor ray" in said and "Traceback" not in said
    assert has_checkpoint(out)
    complete(begin(experiment, out, ray_cluster.environment, *options))
    local(tiny, out=tmp_path / "local", engine="torch", workers=1)
    assert contents(out) == contents(tmp_path / "local")


@needs_ray
def test_killed_nodes_and_killed_drivers_lose_nothing(
    tiny: dict[str, Any], tmp_path: Path, local: Any, ray_cluster: RayCluster
) -> None:
    """5 trials x 6 levels x 2 branches; the last of this file, as it leaves the cluster a node short."""
    tiny |= {"trials": 5, "levels": 6, "branch": [{"name": "reinit"}, {"name": "random-mask"}]}
    tiny["recipe"]["iterations"] = 10_000 if ENGINE == "native" else 300
    experiment, out = to_file(tiny, tmp_path / "tiny.toml"), tmp_path / "ray"
    options = ("--engine", ENGINE, "--executor", "ray", "--workers", "6")
    first = begin(experiment, out, ray_cluster.environment, *options)
    wait_for(first, lambda: finished(out) >= 10)
    ray_cluster.kill_a_node()
    assert first.stdout
    assert any("was lost with its worker and is repeated (1 of 10)" in line for line in first.stdout)
    before = finished(out)
    wait_for(first, lambda: finished(out) >= before + 10)
    first.kill()
    first.communicate()
    done = finished(out)
    assert 20 <= done < 95
    said = complete(begin(experiment, out, ray_cluster.environment, *options))
    assert "95 trainings, 6 side by side" in said and f"[{done + 1}/95]" in said and f"[{done}/95]" not in said
    local(tiny, out=tmp_path / "local", engine=ENGINE, workers=2)
    assert contents(out) == contents(tmp_path / "local")
    rows = lth.Run(out).summary[["trial", "level", "branch"]]
    assert len(rows) == 95 and not rows.duplicated().any()


# a program whose workers, which read it too, write checkpoints many times a second; or die of trial 2
EAGER = """
from lth.training import loop
loop.CHECKPOINT_SECONDS, loop.CHECKPOINT_COST, loop.SLICE_SECONDS = 0.05, 0, 0.01
"""
DEADLY = """
import os
from lth.execution.executors import local

def carry_out(training, *rest, before=local.carry_out):
    return os.kill(os.getpid(), 9) if training.trial == 2 else before(training, *rest)

local.carry_out = carry_out
"""


def begin_program(before: str, experiment: Path, out: Path, *options: str) -> subprocess.Popen[str]:
    """A local run with two workers, by a program that begins with `before`, in them too."""
    program = out.with_suffix(".py")
    program.write_text(f"{before}\nif __name__ == '__main__':\n    " + PLAIN.replace("\n", "\n    "))
    command = [sys.executable, str(program), "run", str(experiment), "--out", str(out), "--engine", "torch"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.Popen([*command, "--workers", "2", *options], text=True, **pipes)  # type: ignore[call-overload]


def workers_of(process: subprocess.Popen[str], count: int) -> list[int]:
    """The processes of a local run's workers, once there are so many."""
    import psutil

    spawned = lambda child: "spawn_main" in " ".join(child.cmdline())
    wait_for(process, lambda: len([c for c in psutil.Process(process.pid).children() if spawned(c)]) >= count)
    return [child.pid for child in psutil.Process(process.pid).children() if spawned(child)]


def test_a_killed_worker_of_this_machine_ends_no_run(tiny: dict[str, Any], tmp_path: Path, local: Any) -> None:
    """Its training goes on from its checkpoint, the other worker's is not disturbed, and the bits are the same."""
    tiny |= {"trials": 2, "levels": 1}
    tiny["recipe"] |= {"iterations": 1500, "eval_every": 500}
    experiment, out = to_file(tiny, tmp_path / "tiny.toml"), tmp_path / "out"
    process = begin_program(EAGER, experiment, out)
    wait_for(process, lambda: has_checkpoint(out))
    os.kill(workers_of(process, 2)[0], signal.SIGKILL)
    said = complete(process)
    assert said.count("was lost with its process and is repeated (1 of 2)") == 1 and "[4/4]" in said
    assert "Traceback" not in said and not has_checkpoint(out)
    local(tiny, out=tmp_path / "undisturbed", engine="torch", workers=1)
    assert contents(out) == contents(tmp_path / "undisturbed")


def test_a_training_that_kills_its_processes_ends_the_run(tiny: dict[str, Any], tmp_path: Path) -> None:
    """Three times, then in one line; what the other worker has stored is kept."""
    tiny |= {"trials": 2, "levels": 0}
    experiment, out = to_file(tiny, tmp_path / "tiny.toml"), tmp_path / "out"
    process = begin_program(DEADLY, experiment, out)
    said, _ = process.communicate(timeout=500)
    assert process.returncode == 1 and said.count("is repeated") == 2 and "(2 of 2)" in said
    assert "trial-2/level-00: its process died 3 times" in said and "fewer --workers" in said
    assert "Traceback" not in said and finished(out) == 1


@needs_submitit
def test_slurm_gives_the_same_bits(
    tiny: dict[str, Any], tmp_path: Path, local: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its jobs are processes of this machine. A driver is killed in the middle, and its jobs outlive it."""
    tiny |= {"trials": 2, "levels": 1}
    tiny["recipe"]["iterations"] = 1500
    experiment, out = to_file(tiny, tmp_path / "tiny.toml"), tmp_path / "slurm"
    options = ("--engine", "torch", "--executor", "slurm", "--workers", "2")
    first = begin(experiment, out, dict(os.environ), *options, before=AT_HOME)
    wait_for(first, lambda: list(out.glob(".slurm/*/*.iteration")))
    first.kill()
    first.communicate()
    assert finished(out) < 4 and list(out.glob(".slurm/*/jobs/*"))
    said = complete(begin(experiment, out, dict(os.environ), *options, before=AT_HOME))
    assert "4 trainings, 2 side by side" in said and "[4/4]" in said
    local(tiny, out=tmp_path / "local", engine="torch", workers=1)
    assert contents(out) == contents(tmp_path / "local")
    assert not (out / ".slurm").exists()


@needs_submitit
def test_a_stopped_slurm_run_keeps_checkpoints(tiny: dict[str, Any], tmp_path: Path) -> None:
    tiny["recipe"]["iterations"] = 10**6
    out = tmp_path / "slurm"
    options = ("--engine", "torch", "--executor", "slurm", "--workers", "2")
    process = begin(to_file(tiny, tmp_path / "tiny.toml"), out, dict(os.environ), *options, before=AT_HOME)
    wait_for(process, lambda: list(out.glob(".slurm/*/*.iteration")))
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130 and "--executor slurm" in said
    assert has_checkpoint(out) and not (out / ".slurm").exists()


@needs_submitit
def test_a_job_that_fails_says_why_and_where_its_log_is(tiny: dict[str, Any], tmp_path: Path) -> None:
    out = tmp_path / "slurm"
    experiment, here = to_file(tiny | {"levels": 0}, tmp_path / "tiny.toml"), dict(os.environ)
    options = ("--engine", "torch", "--workers", "1", "--executor")
    complete(begin(experiment, out, here, *options, "local"))
    (out / "trial-1/level-00/trained.safetensors").write_bytes(b"")
    again = begin(experiment, out, here, *options, "slurm", "--levels", "1", before=AT_HOME)
    said, _ = again.communicate(timeout=120)
    assert again.returncode == 1
    assert "level-01 failed: " in said and "trained.safetensors is damaged" in said and "Traceback" not in said
    assert list((out / ".slurm").glob("*/jobs/*.err"))


def descendants(parent: int) -> set[int]:
    """The process itself, its children, theirs, and so on."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    found = {parent}
    while more := {pid for pid, its in parents.items() if its in found} - found:
        found |= more
    return found


def listening(family: set[int]) -> list[tuple[str, int]]:
    """The addresses and ports on which these processes wait for TCP connections."""
    own, found = {name for pid in family for name in open_files(pid)}, []
    for table, kind in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        for line in Path("/proc/net", table).read_text().splitlines()[1:]:
            _, here, _, state, *_, inode = line.split()[:10]
            if state == "0A" and f"socket:[{inode}]" in own:
                words = bytes.fromhex(here.partition(":")[0])
                address = b"".join(words[n : n + 4][::-1] for n in range(0, len(words), 4))
                found.append((socket.inet_ntop(kind, address), int(here.partition(":")[2], 16)))
    return found


def open_files(pid: int) -> set[str]:
    found = set()
    with suppress(OSError):  # it may end meanwhile
        for file in Path(f"/proc/{pid}/fd").iterdir():
            found.add(os.readlink(file))  # noqa: PTH115  (what it links to is no path)
    return found


# ------------------------------------------------------------------------------------------------- without a cluster


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("rai", "--executor takes local, ray, slurm, torchrun; not 'rai'; did you mean 'ray'?"),
        ("local://here", "--executor local takes no address"),
        ("ray://", "give one such as ray://head:10001"),
    ],
)
def test_wrong_names_are_named(name: str, said: str) -> None:
    assert said in str(wrong_name(name))
    with pytest.raises(UsageError, match="--executor"):
        executor(name)


def test_insecure_is_for_ray_alone() -> None:
    assert wrong_name("ray", insecure=True) is None and wrong_name("ray://there:1", insecure=True) is None
    assert "--insecure is for a Ray cluster" in str(wrong_name("local", insecure=True))


def test_slurm_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_slurm.shutil, "which", lambda name: None)
    monkeypatch.setattr(on_slurm, "find_spec", lambda name: True)
    with pytest.raises(UsageError, match="sbatch was not found"), executor("slurm"):
        pass
    monkeypatch.setattr(on_slurm, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'lth\[slurm\]'"), executor("slurm"):
        pass


def test_slurm_uses_gpus_where_they_are_asked_for(tiny: dict[str, Any]) -> None:
    """This machine, which submits, need not have one."""
    auto, float32 = (resolve(tiny, {"recipe.precision": precision}) for precision in ("auto", "float32"))
    assert on_slurm.choose_unseen(float32, (1, 6, 6), 4, "torch", "auto")[0] == Resources("torch", "cpu", "float32", 1)
    assert on_slurm.choose_unseen(float32, (1, 6, 6), 4, "auto", "cuda")[0] == Resources("torch", "cuda", "float32", 1)
    with pytest.raises(UsageError, match=r"give --engine torch recipe\.precision=float32"):
        on_slurm.choose_unseen(auto, (1, 6, 6), 4, "auto", "cuda")


@needs_submitit
def test_a_slurm_job_whose_time_is_over_is_queued_again(tiny: dict[str, Any], tmp_path: Path) -> None:
    experiment = resolve(tiny)
    resources = Resources("torch", "cpu", "float32", 1)
    task = on_slurm.Task(experiment, {}, resources, tmp_path, None, tmp_path / "session", plan(experiment)[0])
    assert task.checkpoint().function is task
    assert task() is False  # its driver is gone


def test_every_executor_is_a_module() -> None:
    for name in EXECUTORS:
        assert wrong_name(name) is None and callable(import_module(f"lth.execution.executors.{name}").executor)
    assert executor("local")


@pytest.mark.parametrize(
    ("accepted", "token", "insecure", "said"),
    [
        ({None: None}, None, False, "no Ray cluster answers at ray://there:1: nothing there answers"),
        ({None: True}, "secret", False, "requires no token: anyone who reaches it can run programs on it"),
        ({None: True}, None, True, None),
        ({None: False}, None, False, "requires a token, and this machine has none; copy the head's ~/.ray/auth_token"),
        ({None: False, "secret": False}, "secret", True, "refuses this machine's token; copy the head's"),
        ({None: False, "secret": True}, "secret", False, None),
    ],
)
def test_only_clusters_that_ask_for_a_token_are_joined(
    accepted: Any, token: str | None, insecure: bool, said: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_connection, "accepts", lambda address, shown=None: accepted[shown])
    monkeypatch.setattr(ray_connection, "token", lambda: token)
    if said is None:
        ray_connection.check_closed("ray://there:1", insecure)
    else:
        with pytest.raises(UsageError, match=said) as refusal:
            ray_connection.check_closed("ray://there:1", insecure)
        assert len(str(refusal.value)) <= 400


@needs_ray
@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_a_probe_is_quick_and_leaves_no_connection(scheme: str) -> None:
    """Against a server that asks for a token, one that does not, one that is not Ray's, and none."""
    import grpc
    import psutil

    def answer(request: bytes, context: Any) -> bytes:
        if closed and ("authorization", "Bearer secret") not in context.invocation_metadata():
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "no token")
        return b""

    def method(details: Any) -> Any:
        return grpc.unary_unary_rpc_method_handler(answer) if "ray.rpc" in details.method and known else None

    closed, known = True, True
    server = grpc.server(ThreadPoolExecutor(2), handlers=[SimpleNamespace(service=method)])  # type: ignore[list-item]
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    address = f"{scheme}127.0.0.1:{port}"
    began = time.monotonic()
    assert ray_connection.accepts(address) is False and ray_connection.accepts(address, "wrong") is False
    assert ray_connection.accepts(address, "secret") is True
    closed = False
    assert ray_connection.accepts(address) is True
    known = False
    assert ray_connection.accepts(address) is None
    assert time.monotonic() - began < ray_connection.PROBE_SECONDS
    time.sleep(0.2)
    mine = psutil.Process().net_connections("tcp")
    assert not [c for c in mine if c.raddr and port in (c.raddr.port, c.laddr.port) and c.status == "ESTABLISHED"]
    server.stop(None).wait()
    assert ray_connection.accepts(address) is None


@pytest.mark.parametrize("there", [False, True])
@needs_ray
def test_the_token_of_a_cluster_is_shown_where_there_is_one(
    there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "environ", {"HOME": str(tmp_path)})
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    if there:
        (tmp_path / ".ray").mkdir()
        (tmp_path / ".ray/auth_token").write_text("secret")
    ray_connection.library()
    assert os.environ.get("RAY_AUTH_MODE") == ("token" if there else None)


def test_without_ray_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_ray, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'lth\[ray\]'"), executor("ray"):
        pass


def test_places_are_cpus_and_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    resources = {"CPU": 10.0, "GPU": 2.0}
    nodes = [{"Alive": True, "Resources": {"CPU": 6.0}}, {"Alive": False, "Resources": {"CPU": 9.0}}]
    ray = SimpleNamespace(cluster_resources=lambda: resources, nodes=lambda: nodes)
    monkeypatch.setattr(on_ray, "library", lambda: ray)
    assert on_ray.room(Resources("torch", "cuda", "float32", 1)) == 2
    assert on_ray.room(Resources("torch", "cpu", "float32", 4)) == 2
    with pytest.raises(
        UsageError, match=r"--threads 7: the largest node of the Ray cluster has 6 CPUs; give at most 6"
    ):
        on_ray.room(Resources("torch", "cpu", "float32", 7))
    resources.clear()
    with pytest.raises(UsageError, match="no CPU for trainings; start a node: ray start"):
        on_ray.choose(None, (), 0, "auto", "auto")  # type: ignore[arg-type]
    resources["CPU"] = 1.0
    with pytest.raises(UsageError, match="has no GPU; give --device cpu"):
        on_ray.choose(None, (), 0, "auto", "cuda")  # type: ignore[arg-type]


def test_cores_are_shared_by_the_threads_of_trainings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda process: range(8))
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    assert [room(Resources("torch", "cpu", "float32", threads)) for threads in (1, 2, 3, 8, 9)] == [8, 4, 2, 1, 1]


def test_a_node_with_other_versions_is_refused() -> None:
    expected = ray_task.versions() | {"torch": "1.0"}
    with pytest.raises(UsageError, match=r"has torch .*, not 1\.0; install the same versions"):
        ray_task.choose_there(expected, {})


def driver_that_fails(how: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A driver whose attempts all end as `how` says, and what it says."""

    class Lost(Exception):
        pass

    def fail(training: Any) -> None:
        raise {"lost": Lost, "gone": ConnectionError}[how]("gone\nand more")

    monkeypatch.setattr(on_ray, "keep_start", lambda trial, setup: None)
    monkeypatch.setattr(on_ray, "lost", lambda: (Lost, ConnectionError))
    gone = threading.Event()
    gone.wait = lambda timeout=None: gone.is_set()  # type: ignore[method-assign]
    said: list[str] = []
    job = SimpleNamespace(say=said.append)
    return SimpleNamespace(setup=None, _attempt=fail, stopping=threading.Event(), gone=gone, job=job, said=said)


def test_a_training_that_kills_its_workers_ends_the_run(tiny: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    driver = driver_that_fails("lost", monkeypatch)
    training = plan(resolve(tiny))[0]
    with pytest.raises(LthError, match="lost 10 times; it may need more memory"):
        on_ray.Driver.do(driver, training)
    assert driver.said[0] == f"{training.id} was lost with its worker and is repeated (1 of 10): gone"
    assert len(driver.said) == 10


def test_a_lost_cluster_is_told_from_a_lost_worker(tiny: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    driver = driver_that_fails("gone", monkeypatch)
    with pytest.raises(on_ray.ClusterLost, match=r"the Ray cluster was lost: .* run the same command to continue"):
        on_ray.Driver.do(driver, plan(resolve(tiny))[0])
    assert not driver.said


@pytest.mark.parametrize("looks", [[0, 1, 1, 1, 1, 1, 0, 3, 0, 3, 3], [1, 1, 0, 1, 1, 1, 1, 1, 1], [1, 3, 3]])
def test_a_cluster_that_stays_away_is_gone(looks: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Two refusals in a row, or six silences; fewer may be those of a slow network."""
    answers = iter(looks)
    monkeypatch.setattr(on_ray, "missed", lambda address: next(answers))
    driver: Any = SimpleNamespace(closed=SimpleNamespace(wait=lambda seconds: False), gone=threading.Event())
    on_ray.Driver.watch(driver, ("there:1",))
    assert driver.gone.is_set() and not list(answers)


def test_what_refuses_is_told_from_what_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        assert ray_connection.missed(address) == ray_connection.missed(f"ray://{address}") == 0
    assert ray_connection.missed(address) == ray_connection.REFUSAL
    assert ray_connection.missed("ray://no.such.host.invalid:10001") == ray_connection.SILENCE
