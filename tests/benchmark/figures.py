"""What scripts/bench computes: medians, spreads, the table, the repository that it pushes. Nothing here touches a host."""

from __future__ import annotations

import json
import random
import re
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

MARK = "BENCH "
SEED = 20_240_229
FIRST_COMMIT = 1_700_000_000
FILES = 1_000
# A generator that used more of its core measured itself.
GENERATOR_LIMIT = 0.9
PERCENTILES = (50, 95, 99)
# What the commits of a long history change.
MODULES, MODULE_LINES = 40, 25
# What people look at in the repository besides what is cloned.
TEXTS = {
    "README.rst": "Benchmark\n=========\n\n" + "A repository that nobody needs.\n\n* one\n* two\n\n" * 10,
    "code.py": "".join(
        f'def function_{number}(value: int) -> str:\n    """Return a text."""\n    return f"{{value + {number}}}"\n\n\n' for number in range(60)
    ),
}


@dataclass
class Figure:
    """One line of the table. A figure with errors has no value: what failed fast would count as fast. Void runs count for nothing."""

    name: str
    unit: str
    runs: list[float] = field(default_factory=list)
    errors: int = 0
    goal: float | None = None
    at_most: bool = False
    void: int = 0
    # The benchmark that it belongs to.
    part: str = ""

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
            return f"no result: all {self.void} runs void" if self.void else "not measured"
        return ", ".join(filter(None, (self.verdict, f"{self.void} runs void" if self.void else "")))

    @property
    def verdict(self) -> str:
        """Return whether the goal is met, or by how much it is missed."""
        if self.goal is None or self.value is None:
            return ""
        missed = self.value - self.goal if self.at_most else self.goal - self.value
        return f"goal {'at most' if self.at_most else 'at least'} {self.goal:g}: {'met' if missed <= 0 else f'missed by {number(missed)}'}"

    def as_json(self) -> dict[str, Any]:
        """Return the figure for the JSON file."""
        return {
            "name": self.name,
            "value": self.value,
            "unit": self.unit,
            "runs": self.runs,
            "spread": self.spread,
            "errors": self.errors,
            "void": self.void,
            "goal": self.goal,
            "at_most": self.at_most,
            "part": self.part,
        }

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> Figure:
        """Return the figure that the JSON file holds."""
        return cls(**{key: given[key] for key in ("name", "unit", "runs", "errors", "goal", "at_most", "void", "part")})


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


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which that share (in per cent) of the values lies, between two of them in proportion."""
    ordered = sorted(values)
    place = (len(ordered) - 1) * share / 100
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def is_void(*phases: Mapping[str, Any]) -> bool:
    """Tell whether the generator was too busy in one of a run's phases."""
    return any(phase["generator_share"] > GENERATOR_LIMIT for phase in phases)


def milliseconds(phase: Mapping[str, Any], page: str = "") -> list[float]:
    """Return how long each of a phase's pages took; without a name, of all pages."""
    return [1000 * seconds for name, times in phase["pages"].items() if page in ("", name) for seconds in times]


def page_figures(name: str, phases: Sequence[Mapping[str, Any]]) -> list[Figure]:
    """Return the percentiles of people's pages in one phase's runs, of all pages, and the 95th of each."""
    counted = [phase for phase in phases if not is_void(phase) and milliseconds(phase)]
    void = sum(is_void(phase) for phase in phases)
    figures = [Figure(f"{name}: all pages, p{share}", "ms", [percentile(milliseconds(phase), share) for phase in counted], void=void) for share in PERCENTILES]
    pages = sorted({page for phase in phases for page in phase["pages"]})
    for page in pages:
        figures.append(Figure(f"{name}: {page}, p95", "ms", [percentile(found, 95) for phase in counted if (found := milliseconds(phase, page))], void=void))
    return figures


def rises(name: str, idle: Sequence[Mapping[str, Any]], storm: Sequence[Mapping[str, Any]], goal: float | None = None, page: str = "") -> Figure:
    """Return how the 95th percentile rises from idle to the storm, each run against its own idle phase."""
    figure = Figure(name, "x", goal=goal, at_most=True)
    for before, during in zip(idle, storm, strict=True):
        if is_void(before, during):
            figure.void += 1
        elif (lower := milliseconds(before, page)) and (upper := milliseconds(during, page)):
            figure.runs.append(percentile(upper, 95) / percentile(lower, 95))
    return figure


def failures(phases: Sequence[Mapping[str, Any]], kind: str) -> dict[str, int]:
    """Return what failed in all the phases, by its name and reason; kind is pages or clones."""
    found: dict[str, int] = {}
    for phase in phases:
        for why, count in phase[f"failed_{kind}"].items():
            found[why] = found.get(why, 0) + count
    return found


def failure_figure(name: str, phases: Sequence[Mapping[str, Any]], kind: str) -> Figure:
    """Return how many failed in all runs together; none may, and a median would hide one."""
    return Figure(name, kind, [float(sum(failures(phases, kind).values()))], goal=0, at_most=True)


def clone_rate(name: str, phases: Sequence[Mapping[str, Any]], bot: str) -> Figure:
    """Return how many clones a second ended."""
    counted = [phase for phase in phases if not is_void(phase)]
    return Figure(name, "clones/s", [len(phase["clones"].get(bot, [])) / phase["seconds"] for phase in counted], void=len(phases) - len(counted))


def page_rate(name: str, phases: Sequence[Mapping[str, Any]]) -> Figure:
    """Return how many pages a second came."""
    counted = [phase for phase in phases if not is_void(phase)]
    return Figure(name, "pages/s", [len(milliseconds(phase)) / phase["seconds"] for phase in counted], void=len(phases) - len(counted))


def clone_seconds(name: str, phases: Sequence[Mapping[str, Any]], bot: str) -> Figure:
    """Return the median time of a bot's clones in each run; a run without one has none."""
    counted = [phase for phase in phases if not is_void(phase)]
    return Figure(name, "s", [statistics.median(times) for phase in counted if (times := phase["clones"].get(bot))], void=len(phases) - len(counted))


def pair_ratio(name: str, upper: Figure, lower: Figure, goal: float | None = None, at_most: bool = True) -> Figure:
    """Return how two figures compare, run by run where both have all runs, else their medians."""
    figure = Figure(name, "x", goal=goal, at_most=at_most, void=max(upper.void, lower.void))
    if len(upper.runs) == len(lower.runs) and not figure.void:
        figure.runs = [above / below for above, below in zip(upper.runs, lower.runs, strict=True) if below]
    elif upper.value is not None and lower.value:
        figure.runs = [upper.value / lower.value]
    return figure


def added(name: str, phases: Sequence[Mapping[str, Any]], page: str, ways: tuple[str, str], share: float, goal: float | None = None) -> Figure:
    """Return by how many milliseconds the first way to a page is slower than the second, at a percentile."""
    figure = Figure(name, "ms", goal=goal, at_most=True)
    for phase in phases:
        through, straight = (milliseconds(phase, f"{page}, {way}") for way in ways)
        if is_void(phase):
            figure.void += 1
        elif through and straight:
            figure.runs.append(percentile(through, share) - percentile(straight, share))
    return figure


def curve(phases: Sequence[Mapping[str, Any]]) -> list[tuple[int, float]]:
    """Return the milliseconds of all runs' pages by percentile, for a plot."""
    values = [value for phase in phases if not is_void(phase) for value in milliseconds(phase)]
    return [(share, round(percentile(values, share), 1)) for share in range(100)] if values else []


def number(value: float | None) -> str:
    """Return a number with three digits that count."""
    if value is None:
        return "-"
    if value == 0:
        return "0"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def as_rows(figures: Sequence[Figure]) -> list[tuple[str, ...]]:
    """Return each figure's name, value, unit, runs, spread and note as text."""
    return [
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


def table(figures: list[Figure]) -> str:
    """Return the figures as text, a column each for name, value, unit, runs and spread."""
    rows = [("name", "value", "unit", "runs", "spread", ""), *as_rows(figures)]
    widths = [max(len(row[column]) for row in rows) for column in range(6)]
    left = (0, 2, 5)
    return "\n".join(
        "  ".join(cell.ljust(width) if column in left else cell.rjust(width) for column, (cell, width) in enumerate(zip(row, widths, strict=True))).rstrip()
        for row in rows
    )


def marked(output: str) -> dict[str, Any]:
    """Return what a program of ours reported among other lines."""
    lines = [line for line in output.splitlines() if line.startswith(MARK)]
    if not lines:
        raise ValueError(f"reported nothing: {output.strip()[-300:]}")
    report: dict[str, Any] = json.loads(lines[-1].removeprefix(MARK))
    return report


def parse_wrk(output: str) -> tuple[dict[str, float], int]:
    """Return what wrk.lua reported of a run, and the number of all errors in it."""
    report: dict[str, float] = marked(output)
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
    """Return a stream for git fast-import: the same commits with the same ids each time, `size` bytes that do not compress in all.

    Each commit replaces one of FILES files.
    """
    source = random.Random(SEED)
    share = size // commits
    for index in range(commits):
        message = f"Change {index + 1} of {commits}\n".encode()
        when = FIRST_COMMIT + 3600 * index
        yield f"commit refs/heads/{branch}\ncommitter Bench <bench@localhost> {when} +0000\ndata {len(message)}\n".encode() + message
        for path, content in TEXTS.items() if index == 0 else ():
            yield f"M 100644 inline {path}\ndata {len(content)}\n".encode() + content.encode() + b"\n"
        yield f"M 100644 inline part-{index % 25:02}/file-{index % FILES:04}.bin\ndata {share}\n".encode() + source.randbytes(share) + b"\n"


def history(commits: int) -> Iterator[bytes]:
    """Return a stream for git fast-import: many small commits with the same ids each time, each of them a new line in one of the modules."""
    modules: dict[int, list[str]] = {}
    for index in range(commits):
        message = f"Change {index + 1} of {commits}\n".encode()
        lines = modules.setdefault(index % MODULES, [f"value_{number} = {number}\n" for number in range(MODULE_LINES)])
        lines[index // MODULES % MODULE_LINES] = f"value_{index // MODULES % MODULE_LINES} = {index}\n"
        content = "".join(lines).encode()
        yield f"commit refs/heads/master\ncommitter Bench <bench@localhost> {FIRST_COMMIT + 600 * index} +0000\ndata {len(message)}\n".encode() + message
        yield f"M 100644 inline {module(index % MODULES)}\ndata {len(content)}\n".encode() + content + b"\n"


def module(number: int) -> str:
    """Return the path of a module in history's repository."""
    return f"source/module_{number:02}.py"


def references(ids: Sequence[str], count: int) -> Iterator[bytes]:
    """Return what git update-ref --stdin makes so many references of, spread evenly over the commits: each tenth is a branch, the others are tags."""
    for number in range(count):
        kind = "heads/branch" if number % 10 == 0 else "tags/tag"
        yield f"create refs/{kind}-{number:04} {ids[number * len(ids) // count]}\n".encode()


def upload_request(ids: Sequence[str]) -> bytes:
    """Return what a client that has nothing sends for these commits."""
    lines = [f"want {commit}" + (" side-band-64k ofs-delta no-progress" if number == 0 else "") + "\n" for number, commit in enumerate(ids)]
    return b"".join(f"{len(line) + 4:04x}{line}".encode() for line in lines) + b"00000009done\n"
