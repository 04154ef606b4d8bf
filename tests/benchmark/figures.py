"""What scripts/bench computes: medians, spreads, the table, the repository that it pushes. Nothing here touches a host."""

from __future__ import annotations

import json
import random
import re
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

MARK = "BENCH "
SEED = 20_240_229
FIRST_COMMIT = 1_700_000_000


@dataclass
class Figure:
    """One line of the table. A figure with errors has no value: what failed fast would count as fast."""

    name: str
    unit: str
    runs: list[float] = field(default_factory=list)
    errors: int = 0
    goal: float | None = None

    @property
    def value(self) -> float | None:
        """Return the median of the runs, or None where there is no result."""
        return statistics.median(self.runs) if self.runs and not self.errors else None

    @property
    def spread(self) -> float | None:
        """Return how far the runs lie apart, as a share of their median."""
        if len(self.runs) < 2 or not self.value:
            return None
        return (max(self.runs) - min(self.runs)) / self.value

    @property
    def note(self) -> str:
        """Return what a reader has to know besides the value."""
        if self.errors:
            return f"no result: {self.errors} errors"
        if self.value is None:
            return "not measured"
        if self.goal is None:
            return ""
        return f"goal {self.goal:g}: {'met' if self.value >= self.goal else 'missed'}"

    def as_json(self) -> dict[str, Any]:
        """Return the figure for the JSON file."""
        return {
            "name": self.name,
            "value": self.value,
            "unit": self.unit,
            "runs": self.runs,
            "spread": self.spread,
            "errors": self.errors,
            "goal": self.goal,
        }


def ratio(name: str, upper: Figure, lower: Figure, goal: float | None = None) -> Figure:
    """Return how the medians of two figures compare; there is none where one of them has no result."""
    figure = Figure(name, "ratio", goal=goal, errors=upper.errors + lower.errors)
    if upper.value is not None and lower.value:
        figure.runs.append(upper.value / lower.value)
    return figure


def difference(name: str, upper: Figure, lower: Figure) -> Figure:
    """Return by how much the medians of two figures differ."""
    figure = Figure(name, upper.unit, errors=upper.errors + lower.errors)
    if upper.value is not None and lower.value is not None:
        figure.runs.append(upper.value - lower.value)
    return figure


def number(value: float | None) -> str:
    """Return a number with three digits that count."""
    if value is None:
        return "-"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def table(figures: list[Figure]) -> str:
    """Return the figures as text, a column each for name, value, unit, runs and spread."""
    rows = [("name", "value", "unit", "runs", "spread", "")]
    rows += [
        (
            figure.name,
            number(figure.value),
            figure.unit,
            str(len(figure.runs)),
            "-" if figure.spread is None else f"{figure.spread:.0%}",
            figure.note,
        )
        for figure in figures
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(6)]
    left = (0, 2, 5)
    return "\n".join(
        "  ".join(cell.ljust(width) if column in left else cell.rjust(width) for column, (cell, width) in enumerate(zip(row, widths, strict=True))).rstrip()
        for row in rows
    )


def parse_wrk(output: str) -> tuple[dict[str, float], int]:
    """Return what wrk.lua reported of a run, and the number of all errors in it."""
    lines = [line for line in output.splitlines() if line.startswith(MARK)]
    if not lines:
        raise ValueError(f"wrk reported nothing: {output.strip()[-300:]}")
    report: dict[str, float] = json.loads(lines[-1].removeprefix(MARK))
    return report, int(sum(count for key, count in report.items() if key.startswith("errors_")))


def parse_lock(output: str) -> tuple[list[float], list[float]]:
    """Return from what Ansible printed of lock.py the medians without and with the lock, in milliseconds."""
    found = re.search(MARK + r"(\{.*?\})", output.replace('\\"', '"'))
    if not found:
        raise ValueError(f"lock.py said no figures: {output.strip()[-300:]}")
    times = json.loads(found[1])
    return times["plain"], times["locked"]


def parse_sizes(output: str, folders: tuple[str, ...]) -> dict[str, int]:
    """Return path and size of the files in these folders, from lines "SIZE PATH" among others."""
    sizes: dict[str, int] = {}
    for line in output.splitlines():
        size, _, path = line.partition(" ")
        if size.isdigit() and path.startswith(folders):
            sizes[path] = int(size)
    return sizes


def nearest(sizes: dict[str, int], wanted: int) -> str:
    """Return the file whose size comes nearest; of equal ones the first by name."""
    return min(sorted(sizes), key=lambda path: abs(sizes[path] - wanted))


def fast_import(commits: int, size: int, branch: str = "master") -> Iterator[bytes]:
    """Return a stream for git fast-import: the same commits with the same ids each time, `size` bytes that do not compress in all."""
    source = random.Random(SEED)
    share = size // commits
    for index in range(commits):
        message = f"Change {index + 1} of {commits}\n".encode()
        when = FIRST_COMMIT + 3600 * index
        yield f"commit refs/heads/{branch}\ncommitter Bench <bench@localhost> {when} +0000\ndata {len(message)}\n".encode() + message
        yield f"M 100644 inline part-{index % 25:02}/file-{index:04}.bin\ndata {share}\n".encode() + source.randbytes(share) + b"\n"
