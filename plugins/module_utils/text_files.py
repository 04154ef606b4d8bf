# Copyright: The kallithea.cluster maintainers
# GPL-3.0-or-later (see LICENSE)
"""Reading a host's text files."""

from __future__ import annotations


def text_of(path: str) -> str:
    """Return a file's text; a refusal is the caller's."""
    with open(path, encoding="utf-8", errors="replace") as stream:
        return stream.read()


def read(path: str) -> str:
    """Return a file's text, or nothing where it cannot be read."""
    try:
        return text_of(path)
    except OSError:
        return ""
