"""The release's patches, as tests compare with what Kallithea would do without them."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from machines import Machine
from settings import ROOT

PATCHES = ROOT / "roles" / "app" / "files" / "patches"
PROGRAMS = ROOT / "tests" / "release"
PYTHON = "/opt/kallithea/current/bin/python3"


def packages(node: Machine) -> str:
    """Return the folder of the release's packages."""
    return node.run(f"{PYTHON} -c 'import sysconfig; print(sysconfig.get_path(\"purelib\"))'").strip()


def original(text: str, path: str, folder: Path, since: str = "") -> str:
    """Return a file of the release as it was before the named patch and those after it, or before all; nothing where one of them makes it.

    The folder is for the work.
    """
    file = folder / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    for patch in sorted(PATCHES.glob("*.patch"), reverse=True):
        if patch.name >= since and f"\n+++ b/{path}\n" in patch.read_text():
            subprocess.run(["git", "apply", "--reverse", f"--include={path}", str(patch)], cwd=folder, check=True)
    return file.read_text() if file.exists() else ""


@contextmanager
def compared(node: Machine, name: str, patch: str, work: Path) -> Iterator[str]:
    """Give the command that runs a program of tests/release on the host with the release without the patch and with it."""
    folder, installed = f"/root/{name}", packages(node)
    files = re.findall(r"^\+\+\+ b/(\S+)$", (PATCHES / patch).read_text(), re.MULTILINE)
    # Links, but for what differs; the compiled ones are taken without a look at their source.
    node.run(f"mkdir -p {folder}/without && cp -rs {installed}/kallithea {folder}/without/")
    try:
        for path in files:
            place, _, module = f"{folder}/without/{path}".rpartition("/")
            node.run(f"rm -f {place}/{module} {place}/__pycache__/{module.removesuffix('.py')}.*")
            if text := original(node.run(f"cat {installed}/{path}"), path, work, patch):
                node.write(f"{place}/{module}", text)
        for program in PROGRAMS.glob("*.py"):
            node.write(f"{folder}/{program.name}", program.read_text())
        yield f"cd {folder} && nice {PYTHON} {name}.py {folder}/without {installed}"
    finally:
        node.run(f"rm -r {folder}")
