"""The speed table of docs/speed.md: `lth bench` several times, as a Markdown table.

    python benchmarks/engine_speed.py [RUNS] [FILE]

Each cell is the median over the runs; ratios also show their minimum and maximum.
"""

from __future__ import annotations

import statistics
import sys
from pathlib import Path

from lth.machine.bench import bench


def spread(values: list[float], digits: int = 3) -> str:
    """median (minimum to maximum)"""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def cells(rows: list[dict]) -> list[str]:
    """The row of one density over all runs."""
    column = lambda name: [row[name] for row in rows]
    return [
        f"{rows[0]['density']:g}",
        f"{statistics.median(column('torch_ms')):.3f}",
        f"{statistics.median(column('native_ms')):.3f}",
        spread(column("ratio")),
        f"{statistics.median(column('share_of_peak')):.0%}",
    ]


def table(results: list[dict]) -> str:
    """The runs as Markdown: machine, one row per density, scaling."""
    machine, versions = results[0]["machine"], results[0]["versions"]
    rows = [cells(list(rows)) for rows in zip(*(result["rows"] for result in results), strict=True)]
    head = ["density", "torch, ms", "native, ms", "native / torch", "share of peak"]
    lines = [head, ["---"] * len(head), *rows]
    scaling = spread([result["scaling"] for result in results], 2)
    about = (
        f"{machine['processor']}, {machine['cores']} cores, {results[0]['instruction_set']}; "
        f"torch {versions['torch']}; {len(results)} runs of {results[0]['n']} rounds."
    )
    return "\n".join(
        [about, "", *(f"| {' | '.join(line)} |" for line in lines), "", f"{machine['cores']} at once: {scaling}"]
    )


def main(runs: str = "5", file: str | None = None) -> None:
    results = [bench() for _ in range(int(runs))]
    if results[0]["why_not"]:
        raise SystemExit(results[0]["why_not"])
    text = table(results) + "\n"
    print("\n" + text)
    if file:
        Path(file).write_text(text)


if __name__ == "__main__":
    main(*sys.argv[1:])
