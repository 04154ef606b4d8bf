"""The release's patches, as tests compare with what Kallithea would do without them."""

from __future__ import annotations

import subprocess
from pathlib import Path

from machines import Machine
from settings import ROOT

PATCHES = ROOT / "roles" / "app" / "files" / "patches"
PROGRAMS = ROOT / "tests" / "release"
PYTHON = "/opt/kallithea/current/bin/python3"


def packages(node: Machine) -> str:
    """Return the folder of the release's packages."""
    return node.run(f"{PYTHON} -c 'import sysconfig; print(sysconfig.get_path(\"purelib\"))'").strip()


def original(text: str, path: str, folder: Path) -> str:
    """Return a file of the release as it was before any patch; the folder is for the work."""
    file = folder / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    for patch in sorted(PATCHES.glob("*.patch"), reverse=True):
        if f"\n+++ b/{path}\n" in patch.read_text():
            subprocess.run(["git", "apply", "--reverse", f"--include={path}", str(patch)], cwd=folder, check=True)
    return file.read_text()
