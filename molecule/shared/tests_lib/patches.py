"""The release's patches, as tests compare with what Kallithea would do without them."""

from __future__ import annotations

import base64
import io
import re
import subprocess
import tarfile
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


def without(release: bytes, folder: Path, since: str) -> bytes:
    """Return these files of the release, a tar of them, as they were before the patch whose name begins so and those after it; the folder is for the work."""
    with tarfile.open(fileobj=io.BytesIO(release)) as tar:
        files = {member.name: content.read() for member in tar if (content := tar.extractfile(member))}
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(text)
    only = [f"--include={path}" for path in files]
    for patch in sorted(PATCHES.glob("*.patch"), reverse=True):
        if patch.name >= since and any(f"\n+++ b/{path}\n" in patch.read_text() for path in files):
            subprocess.run(["git", "apply", "--reverse", *only, str(patch)], cwd=folder, check=True)
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for path in files:
            # One that a patch makes is none before.
            if (folder / path).exists():
                tar.add(folder / path, path)
    return made.getvalue()


@contextmanager
def compared(node: Machine, name: str, patch: str, work: Path) -> Iterator[str]:
    """Give the command that runs a program of tests/release on the host with the release without a patch, or all whose names begin so, and with it."""
    folder, installed = f"/root/{name}", packages(node)
    texts = [file.read_text() for file in PATCHES.glob(f"{patch}*")]
    files = sorted({path for text in texts for path in re.findall(r"^\+\+\+ b/(\S+)$", text, re.MULTILINE)})
    words = " ".join(files)
    # Links, but for what differs; the compiled ones are taken without a look at their source.
    compiled = " ".join(re.sub(r"([^/]+)\.py$", r"__pycache__/\1.*", path) for path in files)
    node.run(f"mkdir -p {folder}/without && cp -rs {installed}/kallithea {folder}/without/ && cd {folder}/without && rm -f {words} {compiled}")
    try:
        release = base64.b64decode(node.run(f"tar -C {installed} -c {words} | base64"))
        node.run(f"base64 -d | tar -x -C {folder}/without --no-same-owner", stdin=base64.b64encode(without(release, work, patch)).decode())
        node.run(f"base64 -d | tar -x -C {folder} --no-same-owner", stdin=programs())
        yield f"cd {folder} && nice {PYTHON} {name}.py {folder}/without {installed}"
    finally:
        node.run(f"rm -r {folder}")


def programs() -> str:
    """Return the programs as a text that tar and base64 unpack: one call to the host instead of one a file."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for program in PROGRAMS.glob("*.py"):
            tar.add(program, program.name)
    return base64.b64encode(made.getvalue()).decode()
