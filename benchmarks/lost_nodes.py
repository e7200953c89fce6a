"""Measure the cost of a lost node: a Ray cluster of several nodes on this machine, one of which is killed.

    python benchmarks/lost_nodes.py [--nodes N] [--trials T] [--iterations I]

Each node consists of Ray's own processes with one CPU (default: 3 nodes). The run is tiny trainings on random images
(default: 12 trials of 4 levels, 2,000 updates each, with the torch engine). It is done twice: undisturbed, and with a
node killed when a third of its trainings are stored. One line for each gives its duration, the number of repeated
trainings, and the longest gap between two stored trainings. The last line says whether both stored the same bits.
"""

from __future__ import annotations

import argparse
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lth.config import resolve, to_toml
from lth.storage import layout

LEVELS = 3
LTH = [sys.executable, "-c", "from lth.cli import main; main()"]
NODE = {"include_dashboard": False, "node_ip_address": "127.0.0.1"}
LOOK_SECONDS = 0.05


@dataclass(frozen=True)
class Measured:
    seconds: float
    lost: int  # repeated trainings
    gap: float  # longest gap between two stored trainings, in seconds


def experiment_in(folder: Path, trials: int, iterations: int) -> Path:
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (500, 6, 6)).astype(np.uint8)
    labels = generator.integers(0, 4, 500)
    np.savez(folder / "tiny.npz", x_train=images[:400], y_train=labels[:400], x_test=images[400:], y_test=labels[400:])
    recipe = {"optimizer": "adam", "lr": 0.01, "iterations": iterations, "batch": 30, "eval_every": 500}
    tables: dict[str, Any] = {"name": "tiny", "trials": trials, "levels": LEVELS, "recipe": recipe}
    tables["data"] = {"name": str(folder / "tiny.npz"), "validation": 90}
    tables["model"] = {"name": "lenet", "layers": [12, 8]}
    path = folder / "tiny.toml"
    path.write_text(to_toml(resolve(tables)))
    return path


def stored(out: Path) -> int:
    return len(list(out.glob(f"trial-*/level-*/{layout.SUMMARY}")))


def run(experiment: Path, out: Path, address: str, kill: Callable[[], None], kill_at: int | None) -> Measured:
    command = [*LTH, "run", str(experiment), "--out", str(out), "--engine", "torch", "--executor", "ray"]
    log = out.with_suffix(".log")
    began = time.monotonic()
    with log.open("w") as handle:
        environment = {**os.environ, "RAY_ADDRESS": address}
        process = subprocess.Popen(command, stdout=handle, stderr=subprocess.STDOUT, env=environment)
        gap, seen, since = 0.0, 0, began
        while process.poll() is None:
            time.sleep(LOOK_SECONDS)
            if (now_stored := stored(out)) > seen:
                gap = max(gap, time.monotonic() - since) if seen else 0.0
                seen, since = now_stored, time.monotonic()
            if kill_at is not None and seen >= kill_at:
                kill()
                kill_at = None
    if process.returncode:
        sys.exit(f"lth run ended with {process.returncode}:\n{log.read_text()}")
    return Measured(time.monotonic() - began, log.read_text().count("is repeated"), gap)


def contents(out: Path) -> dict[str, bytes]:
    """Tickets and curves."""
    paths = [*out.rglob(layout.TICKET), *out.rglob(layout.CURVE)]
    return {str(path.relative_to(out)): path.read_bytes() for path in paths}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--iterations", type=int, default=2000)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as short:  # Ray's sockets need short paths
        os.environ |= {"RAY_TMPDIR": short, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
        from ray.cluster_utils import Cluster  # which reads them

        folder, count = Path(short), asked.trials * (LEVELS + 1)
        experiment = experiment_in(folder, asked.trials, asked.iterations)
        cluster = Cluster(initialize_head=True, head_node_args=NODE | {"num_cpus": 0})
        nodes = [cluster.add_node(num_cpus=1, **NODE) for _ in range(asked.nodes)]
        print(f"{count} trainings of {asked.iterations:,} updates on {asked.nodes} nodes with a CPU each")
        print(f"{'':14}  seconds  repeated  longest gap, seconds")
        lose = lambda: cluster.remove_node(nodes.pop(), allow_graceful=False)
        try:
            for name, kill_at in (("undisturbed", None), ("a node killed", count // 3)):
                measured = run(experiment, folder / name.replace(" ", "-"), cluster.address, lose, kill_at)
                print(f"{name:14}  {measured.seconds:7.1f}  {measured.lost:10}  {measured.gap:.1f}", flush=True)
            same = contents(folder / "undisturbed") == contents(folder / "a-node-killed")
            print("both stored the same bits" if same else "THE BITS DIFFER")
        finally:
            cluster.shutdown()


if __name__ == "__main__":
    main()
