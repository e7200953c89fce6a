"""Join a Ray cluster that requires a token, or start one that only this machine can reach."""

from __future__ import annotations

import logging
import os
import socket
import time
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

from lth.errors import LthError, UsageError
from lth.execution.executors.local import room as cores
from lth.execution.resources import Resources

TRIES = 4  # attempts to join a cluster that answers but is not ready
PAUSE_SECONDS = 5.0  # seconds between attempts
LOOPBACK = "127.0.0.1"
TOKEN = ".ray/auth_token"  # in the home folder; created by `ray get-auth-token --generate`
PROBE_SECONDS = 5.0  # seconds in which a cluster answers a probe
CLIENT = "ray://"  # the scheme of client addresses; an address without it is that of the cluster itself
# methods that change nothing and that a cluster answers before it authenticates the caller
CLIENT_METHOD = "/ray.rpc.RayletDriver/ClusterInfo"
CLUSTER_METHOD = "/ray.rpc.NodeInfoGcsService/CheckAlive"
SILENT = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "UNIMPLEMENTED")  # the status if there is no Ray cluster
SILENCE, REFUSAL = 1, 3  # a silent machine may come back; a machine that refuses has lost the process
COPY = f"copy the head's ~/{TOKEN} to this machine's ~/{TOKEN}"


def library() -> Any:
    """Ray, imported on first use.

    It reads some environment variables on import. The second one, despite its name, keeps a new cluster on the loopback
    interface. The third prevents it from joining another cluster when the first is lost. With the last one it sends the
    token that a cluster requires, if this machine has it.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")
    if token():
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    return import_module("ray")


def token() -> str | None:
    """The token that this machine sends to clusters, read from Ray's places; None if it has none."""
    if given := os.environ.get("RAY_AUTH_TOKEN"):
        return given.strip()
    path = os.environ.get("RAY_AUTH_TOKEN_PATH")
    try:
        return (Path(path) if path else Path.home() / TOKEN).read_text().strip() or None
    except OSError:
        return None


def lost() -> tuple[type[Exception], ...]:
    """The exceptions that mean a lost node, worker or cluster."""
    return library().exceptions.RayError, ConnectionError


# -------------------------------------------------------------------------------------------------------------- probing


def accepts(address: str, shown: str | None = None) -> bool | None:
    """Return whether a cluster accepts a caller with this token, or without one; None if no Ray cluster answers.

    This is one request on a connection of its own. The cluster starts nothing for it.
    """
    grpc = import_module("grpc")

    method = CLIENT_METHOD if address.startswith(CLIENT) else CLUSTER_METHOD
    header = [("authorization", f"Bearer {shown}")] if shown else []
    with grpc.insecure_channel(address.removeprefix(CLIENT), options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            channel.unary_unary(method)(b"", timeout=PROBE_SECONDS, metadata=header)
        except grpc.RpcError as error:
            status = error.code().name
            return None if status in SILENT else status != "UNAUTHENTICATED"
    return True


def check_closed(address: str, insecure: bool) -> None:
    """Raise UsageError if no cluster answers, if it accepts callers without a token, or if it refuses this machine."""
    if os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true"):
        return  # it requires client certificates, so it is closed too
    match accepts(address):
        case None:
            raise no_cluster(address, "nothing there answers like a Ray cluster")
        case True if not insecure:
            raise UsageError(
                f"the Ray cluster at {address} requires no token: anyone who reaches it can run programs on it; start "
                "it with one (ray get-auth-token --generate; RAY_AUTH_MODE=token ray start --head), or give --insecure"
            )
        case False if not accepts(address, token()):
            why = "refuses this machine's token" if token() else "requires a token, and this machine has none"
            raise UsageError(f"the Ray cluster at {address} {why}; {COPY}")


def no_cluster(where: str, why: str) -> UsageError:
    return UsageError(
        f"no Ray cluster answers at {where}: {why}; start one there (ray start --head), {COPY}, or give another address"
    )


def missed(address: str) -> int:
    """The weight of one check of HOST:PORT: 0 if it accepts a connection, else SILENCE or REFUSAL."""
    host, _, port = address.removeprefix(CLIENT).rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), PROBE_SECONDS).close()
    except ConnectionRefusedError:
        return REFUSAL
    except OSError:
        return SILENCE
    return 0


# -------------------------------------------------------------------------------------------------------------- joining


def connect(name: str, insecure: bool = False) -> tuple[str, ...]:
    """Join the cluster of `ray://ADDRESS`, of RAY_ADDRESS, or of this machine, or start one.

    Returns the addresses that this process depends on: the head, and Ray's process on this machine. Raises UsageError
    if a cluster cannot be joined, or requires no token unless `insecure`.
    """
    ray = library()

    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    logging.getLogger("ray.util.client.logsclient").setLevel(logging.ERROR)  # Ray logs a lost head, and so does lth
    given = name if "://" in name else os.environ.get("RAY_ADDRESS")
    if given and given.startswith(CLIENT):
        check_closed(given, insecure)
    try:
        with warnings.catch_warnings():  # its warnings are summarised below in one line
            warnings.simplefilter("ignore")
            _join(ray, given or "auto", quiet)
    except ray.exceptions.AuthenticationError:
        why = "refuses this machine's token" if token() else "requires a token, and this machine has none"
        raise UsageError(f"the Ray cluster {f'at {given}' if given else 'of this machine'} {why}; {COPY}") from None
    except (ConnectionError, ValueError, RuntimeError) as error:
        if given:
            where = given if "://" in name else f"RAY_ADDRESS={given}"
            raise no_cluster(where, _reason(error)) from None
        _start(ray, quiet)
        return _joined(ray)
    if given and given.startswith(CLIENT):
        return (given,)
    check_closed(ray.get_runtime_context().gcs_address, insecure)
    return _joined(ray)


def _joined(ray: Any) -> tuple[str, ...]:
    context = ray.get_runtime_context()
    here = next(node for node in ray.nodes() if node["NodeID"] == context.get_node_id())
    return context.gcs_address, f"{here['NodeManagerAddress']}:{here['NodeManagerPort']}"


def _join(ray: Any, address: str, options: dict[str, Any]) -> None:
    """Join a cluster; retry if it answers but refuses, because it is not ready just after its start."""
    for _ in range(TRIES - 1):
        try:
            ray.init(address, **options)
            return
        except ConnectionAbortedError:
            time.sleep(PAUSE_SECONDS)
    ray.init(address, **options)


def _reason(error: Exception) -> str:
    """Ray's reason in one line."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1] if lines[0].endswith(":") else lines[0]  # the end of its traceback says more than the heading


def _start(ray: Any, quiet: dict[str, Any]) -> None:
    """Start a cluster on the loopback interface. If this user has no token yet, Ray creates one."""
    before = os.umask(0o077)  # Ray writes the token and its logs with the default permissions
    try:
        ray.init("local", include_dashboard=False, num_cpus=cores(Resources("torch", "cpu", "float32", 1)), **quiet)
    finally:
        os.umask(before)
    if (listening := ray.nodes()[0]["NodeManagerAddress"]) != LOOPBACK:
        raise LthError(
            f"Ray, imported before lth could tell it to stay on {LOOPBACK}, would listen on {listening}; "
            "set RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0 before Ray is imported, or start a cluster yourself"
        ) from None
