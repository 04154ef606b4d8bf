"""Keeps what Ansible's modules are compiled to: each brings fifty files of Ansible's own in an archive, which Python compiles anew every time.

That is half of what a task costs a host. The files' content is the key, so the code that runs is that of the files.
"""

from __future__ import annotations

import _imp
import contextlib
import marshal
import os
import sys
import zipimport
from types import CodeType
from typing import Any

FOLDER = f"/run/kallithea-test-python/{sys.hexversion:x}"
# Of the interpreter alone, not of the programs that a module starts; what a task gave stays.
if given := os.environ.pop("PYTHONPATH", "").partition(":")[2]:
    os.environ["PYTHONPATH"] = given
sys.path.remove(os.path.dirname(__file__))
compile_source = zipimport._compile_source  # type: ignore[attr-defined]


def kept(path: str, source: bytes, *more: Any) -> CodeType:
    """Return what a file of an archive compiles to; root keeps it, and others take what they may read."""
    file = f"{FOLDER}/{os.path.basename(path)}-{_imp.source_hash(0, source).hex()}"
    with contextlib.suppress(OSError, EOFError, ValueError, TypeError), open(file, "rb") as stream:
        code: CodeType = marshal.load(stream)
        return code
    code = compile_source(path, source, *more)
    if os.geteuid() == 0:
        with contextlib.suppress(OSError):
            os.makedirs(FOLDER, exist_ok=True)
            # Whole or not at all: others read it meanwhile.
            with open(f"{file}.{os.getpid()}", "wb") as new:
                marshal.dump(code, new)
            os.rename(new.name, file)
    return code


zipimport._compile_source = kept  # type: ignore[attr-defined]
