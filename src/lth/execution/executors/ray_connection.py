"""Joining a Ray cluster that asks for a token, or starting one that only this machine can reach."""

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

TRIES = 4  # of joining a cluster that answers and is not ready
PAUSE_SECONDS = 5.0  # between them
LOOPBACK = "127.0.0.1"
TOKEN = ".ray/auth_token"  # in the home folder: `ray get-auth-token --generate` makes it
PROBE_SECONDS = 5.0  # within which a cluster answers a probe
CLIENT = "ray://"  # an address for clients; one without it is that of the cluster itself
# methods that change nothing, and that a cluster answers before it knows the caller
CLIENT_METHOD = "/ray.rpc.RayletDriver/ClusterInfo"
CLUSTER_METHOD = "/ray.rpc.NodeInfoGcsService/CheckAlive"
SILENT = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "UNIMPLEMENTED")  # the status where there is no Ray cluster
SILENCE, REFUSAL = 1, 3  # a machine that says nothing may come back; one that refuses has lost the process
COPY = f"copy the head's ~/{TOKEN} to this machine's ~/{TOKEN}"


def library() -> Any:
    """Ray itself, imported when it is used.

    It reads some variables then. The second, in spite of its name, keeps what is started here on the loopback. The
    third stops it from joining another cluster when the first is lost. With the last it shows the token that a cluster
    asks for, where there is one here.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")
    if token():
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    return import_module("ray")


def token() -> str | None:
    """The token that this machine sends to clusters, read from where Ray looks for it; None if it has no token."""
    if given := os.environ.get("RAY_AUTH_TOKEN"):
        return given.strip()
    path = os.environ.get("RAY_AUTH_TOKEN_PATH")
    try:
        return (Path(path) if path else Path.home() / TOKEN).read_text().strip() or None
    except OSError:
        return None


def lost() -> tuple[type[Exception], ...]:
    """What is raised where a node, a worker, or the cluster is gone."""
    return library().exceptions.RayError, ConnectionError


# -------------------------------------------------------------------------------------------------------------- probing


def accepts(address: str, shown: str | None = None) -> bool | None:
    """Whether a cluster accepts a caller who shows this token, or none; None if no Ray cluster answers.

    One request on a connection of its own, which is closed then. The cluster starts nothing for it.
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
    """Raise UsageError if no cluster answers, where it accepts anybody, or where it refuses this machine."""
    if os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true"):
        return  # it asks each caller for a certificate, so the cluster is closed, too
    match accepts(address):
        case None:
            raise no_cluster(address, "nothing answers there as a Ray cluster does")
        case True if not insecure:
            raise UsageError(
                f"the Ray cluster at {address} asks for no token: whoever reaches it can run programs on it; start it "
                "with one (ray get-auth-token --generate; RAY_AUTH_MODE=token ray start --head), or give --insecure"
            )
        case False if not accepts(address, token()):
            why = "refuses the token of this machine" if token() else "asks for a token, and this machine has none"
            raise UsageError(f"the Ray cluster at {address} {why}; {COPY}")


def no_cluster(where: str, why: str) -> UsageError:
    return UsageError(
        f"no Ray cluster answers at {where}: {why}; start one there (ray start --head), {COPY}, or give another address"
    )


def missed(address: str) -> int:
    """How much one look tells that HOST:PORT is gone: 0 where it takes a connection, SILENCE, REFUSAL."""
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

    Returns the addresses of what this process cannot do without: the head, and Ray's process on this machine.
    Raises UsageError if a cluster cannot be joined, and where it asks for no token unless `insecure`.
    """
    ray = library()

    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    logging.getLogger("ray.util.client.logsclient").setLevel(logging.ERROR)  # it speaks of a lost head, as lth does
    given = name if "://" in name else os.environ.get("RAY_ADDRESS")
    if given and given.startswith(CLIENT):
        check_closed(given, insecure)
    try:
        with warnings.catch_warnings():  # what it warns of is said below, in a line
            warnings.simplefilter("ignore")
            _join(ray, given or "auto", quiet)
    except ray.exceptions.AuthenticationError:
        why = "refuses the token of this machine" if token() else "asks for a token, and this machine has none"
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
    """Join a cluster. One that answers and gives up is asked again: just after its start it is not ready."""
    for _ in range(TRIES - 1):
        try:
            ray.init(address, **options)
            return
        except ConnectionAbortedError:
            time.sleep(PAUSE_SECONDS)
    ray.init(address, **options)


def _reason(error: Exception) -> str:
    """Ray's own reason, in a line."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1] if lines[0].endswith(":") else lines[0]  # a heading tells less than the end of its traceback


def _start(ray: Any, quiet: dict[str, Any]) -> None:
    """Start a cluster on the loopback. Where this user has no token yet, Ray makes one."""
    before = os.umask(0o077)  # Ray writes the token as it would any file, and its logs
    try:
        ray.init("local", include_dashboard=False, num_cpus=cores(Resources("torch", "cpu", "float32", 1)), **quiet)
    finally:
        os.umask(before)
    if (listening := ray.nodes()[0]["NodeManagerAddress"]) != LOOPBACK:
        raise LthError(
            f"Ray, imported before lth could tell it to stay on {LOOPBACK}, would listen on {listening}; "
            "set RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0 before Ray is imported, or start a cluster of your own"
        ) from None
