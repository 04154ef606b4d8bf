"""The drill's log: one JSON object a line, appended; what it says is what the verification later goes by."""

from __future__ import annotations

import json
import os
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

ACKNOWLEDGED, REFUSED, FAILED, UNKNOWN = "acknowledged", "refused", "failed", "unknown"


@dataclass(frozen=True)
class Outcome:
    """What became of a push: acknowledged, refused in the system's own ordinary words, failed otherwise, or unknown."""

    result: str
    reason: str = ""


@dataclass
class Push:
    """One push, as the log tells it; one whose end is missing was killed with the drill."""

    number: int
    repository: str
    commit: str
    word: str
    through: str
    begun: float
    ended: float = 0.0
    result: str = UNKNOWN
    reason: str = "the drill ended before the answer"


@dataclass
class Story:
    """All that a log tells."""

    mode: str = ""
    # Name to kind, and the order of the pushes is that of their beginning.
    repositories: dict[str, str] = field(default_factory=dict)
    pushes: dict[int, Push] = field(default_factory=dict)
    # Begin, end, whether it went well.
    pages: list[tuple[float, float, bool]] = field(default_factory=list)
    # Questions before and after pushes; only those that failed are logged.
    pulls: list[tuple[float, float, bool]] = field(default_factory=list)
    marks: list[tuple[float, str]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    rounds: list[dict[str, Any]] = field(default_factory=list)


class Journal:
    """Appends to the log; several threads and processes may."""

    def __init__(self, path: Path) -> None:
        """Open or make the file."""
        self.path = path
        self.lock = threading.Lock()
        self.file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self.last = 0

    def __enter__(self) -> Journal:
        """Return itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close the file."""
        os.close(self.file)

    def add(self, event: str, *, sync: bool = True, **values: Any) -> None:
        """Append one line, and do not return before it is on the disk."""
        line = json.dumps({"event": event, "at": time.time(), **values}) + "\n"
        os.write(self.file, line.encode())
        if sync:
            os.fsync(self.file)

    def begin(self, repository: str, commit: str, word: str, through: str) -> int:
        """Say that a push begins; return its number."""
        with self.lock:
            self.last += 1
            number = self.last
        self.add("begin", push=number, repository=repository, commit=commit, word=word, through=through)
        return number

    def end(self, number: int, outcome: Outcome) -> None:
        """Say what became of a push."""
        self.add("end", push=number, result=outcome.result, reason=outcome.reason)


def read(path: Path) -> Story:
    """Return what a log tells."""
    return read_text(path.read_text())


def read_text(text: str) -> Story:
    """Return what a log's text tells; a last line that is cut off counts as not written."""
    story = Story()
    for line in text.splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        _take(story, record)
    return story


def _take(story: Story, record: dict[str, Any]) -> None:
    at = record["at"]
    match record["event"]:
        case "start":
            story.mode = record["mode"]
        case "repository":
            story.repositories[record["name"]] = record["kind"]
        case "begin":
            number = record["push"]
            story.pushes[number] = Push(number, record["repository"], record["commit"], record["word"], record["through"], at)
        case "end":
            push = story.pushes[record["push"]]
            push.ended, push.result, push.reason = at, record["result"], record["reason"]
        case "page":
            story.pages.append((record["begun"], at, record["well"]))
        case "pull":
            story.pulls.append((record["begun"], at, False))
        case "mark":
            story.marks.append((at, record["text"]))
        case "fault":
            story.faults.append(record["text"])
        case "round":
            story.rounds.append(record)
