"""Run the cases of tests/test_fuzz.py with new random files, which must load or be refused with a clear message.

    python benchmarks/fuzz.py [--minutes 60] [--only ticket,checkpoint,run,toml,...] [--cases 300] [--seed N]

Each round draws new cases for each kind of file: experiments, overrides, datasets (IDX, CIFAR, pickles, npz, image
folders), tickets, checkpoints and run folders, starting from tests/data/corpus. A find is a traceback, a hang,
excessive memory, or a changed file; its falsifying example is printed, and the program fails at the end.

2026-12-01, one hour on one of two cores (Intel Xeon with AMX), --seed 1: 18,000 cases, 1,800 of each kind. One find:
the message about a pickle repeated a name of thousands of characters; fixed, with a test.
"""

from __future__ import annotations

import argparse
import os
import secrets
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TESTS = {
    "toml": "test_toml", "override": "test_overrides", "idx": "test_idx", "cifar": "test_cifar_binary",
    "pickle": "test_cifar_pickles", "npz": "test_npz", "images": "test_images", "ticket": "test_tickets",
    "checkpoint": "test_checkpoints", "run": "test_run_folders",
}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--only", default=",".join(TESTS), help="kinds of files")
    parser.add_argument("--cases", type=int, default=300, help="of each kind in a round")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(2**31))
    asked = parser.parse_args()
    kinds, end = asked.only.split(","), time.monotonic() + 60 * asked.minutes
    tried: Counter[str] = Counter()
    finds: list[str] = []
    seed = asked.seed
    while time.monotonic() < end:
        for kind in kinds:
            if output := attack(kind, asked.cases, seed):
                finds.append(f"{kind}, --seed {seed}")
                print(f"FIND {finds[-1]}\n{output}", flush=True)
            tried[kind] += asked.cases
        seed += 1
    print(", ".join(f"{kind} {count:,}" for kind, count in tried.items()))
    print(f"{sum(tried.values()):,} cases in {asked.minutes:g} minutes from --seed {asked.seed}: {len(finds)} finds")
    return 1 if finds else 0


def attack(kind: str, cases: int, seed: int) -> str:
    """Run cases of one kind. Returns an empty string if all pass, else pytest's output."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--hypothesis-seed={seed}"]
    command += ["-W", "ignore::hypothesis.errors.HypothesisWarning", f"tests/test_fuzz.py::{TESTS[kind]}"]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "LTH_FUZZ": str(cases)}, capture_output=True, text=True)
    return "" if done.returncode == 0 else done.stdout[-6000:] + done.stderr[-2000:]


if __name__ == "__main__":
    sys.exit(main())
