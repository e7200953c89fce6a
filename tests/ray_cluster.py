"""A Ray cluster of several node processes on the loopback, in a process of its own, and its handle for tests.

As a program it takes the number of nodes and the port for clients, says its address, and obeys lines: `kill` kills its
last node in the middle of a training, as a power failure would. It ends when its input does. Each node has one CPU; the
head has none.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

ALONE = {"include_dashboard": False, "node_ip_address": "127.0.0.1"}
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
TOKEN = "0" * 64


@dataclass(frozen=True)
class RayCluster:
    holder: subprocess.Popen[str]
    address: str
    environment: dict[str, str]  # for processes that are to find it, and no other

    def kill_a_node(self) -> None:
        assert self.holder.stdin and self.holder.stdout
        self.holder.stdin.write("kill\n")
        self.holder.stdin.flush()
        assert self.holder.stdout.readline() == "killed\n"


@contextmanager
def environment() -> Iterator[dict[str, str]]:
    """For processes that see no Ray but what they start, and no token: home and Ray's folder are theirs, and empty.

    The folder's path must be short, for sockets.
    """
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
    try:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        yield inherited | QUIET | {"RAY_TMPDIR": folder, "HOME": folder}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def cluster(nodes: int, client_port: int) -> Iterator[RayCluster]:
    with environment() as alone:
        alone |= {"RAY_AUTH_TOKEN": TOKEN, "RAY_AUTH_MODE": "token"}
        command = [sys.executable, __file__, str(nodes), str(client_port)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        holder = subprocess.Popen(command, text=True, env=alone, **pipes)
        try:
            assert holder.stdout
            address = holder.stdout.readline().strip()
            assert address, "the cluster did not start"
            yield RayCluster(holder, address, alone | {"RAY_ADDRESS": address})
        finally:
            holder.communicate(timeout=60)


def in_the_middle(raylet: int) -> Any:
    """A node's worker, halted while it trains: one that is not would live on for long enough to send its result."""
    import psutil  # which comes with Ray

    training = lambda worker: worker.cmdline()[:1] == ["ray::perform_there"]  # Ray's name for it meanwhile
    until = time.monotonic() + 60
    while time.monotonic() < until:
        for worker in psutil.Process(raylet).children():
            with suppress(psutil.NoSuchProcess):
                if training(worker):
                    worker.suspend()
                    if training(worker):
                        return worker
                    worker.resume()
    raise TimeoutError("the node got no training")


def serve(nodes: int, client_port: int) -> None:
    from ray.cluster_utils import Cluster

    def power_off(node: Any) -> None:
        training = in_the_middle(node.all_processes["raylet"][0].process.pid)
        held.remove_node(node, allow_graceful=False)
        training.kill()

    held = Cluster(initialize_head=True, head_node_args=ALONE | {"num_cpus": 0, "ray_client_server_port": client_port})
    added = [held.add_node(num_cpus=1, **ALONE) for _ in range(nodes)]
    print(held.address, flush=True)
    for _ in sys.stdin:
        power_off(added.pop())
        print("killed", flush=True)
    held.shutdown()


if __name__ == "__main__":
    serve(*map(int, sys.argv[1:]))
