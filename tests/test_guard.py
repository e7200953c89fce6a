"""Processes of a run: a script that they execute again, and SIGTERM to all of them at once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from lth import config
from lth.storage import layout
from lth.storage.tensors import read_metadata


def test_a_script_that_its_workers_would_execute_again_is_told_of_the_guard(
    tiny: dict[str, Any], tmp_path: Path
) -> None:
    call = f"lth.run(json.loads({json.dumps(tiny | {'trials': 2, 'levels': 0})!r}), engine='torch', workers=2, out='r')"
    (tmp_path / "script.py").write_text(f"import json, lth\n{call}\n")
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True)
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 1 and last.startswith("lth.errors.UsageError: the run starts processes")
    assert '`if __name__ == "__main__":`' in last and "memory" not in last


def test_sigterm_to_all_processes_at_once_loses_nothing(tiny: dict[str, Any], tmp_path: Path) -> None:
    """As `timeout` and batch systems send it: the checkpoints are of the moment of the signal, not of the clock."""
    tiny["recipe"] |= {"iterations": 10**6, "eval_every": 10**6}
    experiment = tmp_path / "long.toml"
    experiment.write_text(config.to_toml(config.resolve(tiny | {"trials": 2, "levels": 0})))
    words = [sys.executable, "-c", "from lth.cli import main; main()", "run", str(experiment), "--out", "r"]
    process = subprocess.Popen(
        [*words, "--engine", "torch", "--workers", "2"],
        cwd=tmp_path, start_new_session=True, text=True, stderr=subprocess.PIPE,
    )  # fmt: skip
    checkpoints = [layout.checkpoint_path(tmp_path / "r", f"trial-{trial}/level-00") for trial in (1, 2)]
    until = time.monotonic() + 200
    while not all(path.exists() for path in checkpoints) and time.monotonic() < until:
        time.sleep(0.1)
    before = [read_metadata(path.read_bytes())["iteration"] for path in checkpoints]
    time.sleep(1)  # a fifth of what is between two checkpoints
    sent = time.time()
    os.killpg(process.pid, signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130 and "stopped; finished work is kept" in said and "Traceback" not in said
    for path, iteration in zip(checkpoints, before, strict=True):
        assert path.stat().st_mtime > sent - 0.1 and read_metadata(path.read_bytes())["iteration"] > iteration
