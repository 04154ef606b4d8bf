"""Where pushes go, and where what they brought is looked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath


@dataclass(frozen=True)
class Place:
    """A way to the repositories: the balancer, or a node's own pools."""

    name: str
    read: str
    write: str


@dataclass(frozen=True)
class Storage:
    """The repositories' folder on the storage, reached by a command that runs what follows it there."""

    path: PurePosixPath
    command: tuple[str, ...] = ()


def place_of(text: str) -> Place:
    """Return the place that NAME=READ_URL[,WRITE_URL] names."""
    name, equals, urls = text.partition("=")
    read, _, write = urls.partition(",")
    if not (name and equals and read):
        raise ValueError(f"{text!r} is not NAME=URL or NAME=READ_URL,WRITE_URL")
    return Place(name, read.rstrip("/"), (write or read).rstrip("/"))
