"""Kallithea's own tests, on its release with the patches alone that it does not run without, and with all of ours; none may fail with ours only.

Called as: kallithea_tests.py FOLDER [TEST...] keeps packages and source in the folder; tests are paths in Kallithea's source (default: all).
"""

from __future__ import annotations

import collections
import hashlib
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree
from collections.abc import Mapping, Sequence

ROOT = pathlib.Path(__file__).resolve().parents[2]
FILES = ROOT / "roles/app/files"
RELEASE = ROOT / "roles/app/tasks/release.yml"
TREES = {"compatibility patches": "compat-", "all patches": ""}
# What our patches change on purpose where a test wants it as it was.
MEANT = {
    "kallithea.tests.other.test_vcs_operations.TestVCSOperations::test_push_new_repo[GitHttpVcsTest]": (
        "speed-07: a clone that brings nothing leaves no row in the journal, as with Mercurial"
    ),
}
SUITE_SECONDS = 3600
PIP_SECONDS = 1800
COMMAND_LINE = "#!{python}\nfrom kallithea.bin.kallithea_cli import cli\n\ncli()\n"
# A program of root's trusts no repository that another user unpacked, and the tests unpack some.
HG_CONFIG = "[trusted]\nusers = *\n"
GIT_CONFIG = "[user]\n\tname = Tests\n\temail = tests@localhost\n"


def say(text: str) -> None:
    """Tell how far it is."""
    print(text, flush=True)


def patches(kind: str) -> list[pathlib.Path]:
    """Return our patches of a kind, or of all, in the order in which a release's build applies them."""
    return sorted((FILES / "patches").glob(f"{kind}*.patch"))


def outcomes(report: str) -> dict[str, str]:
    """Return what became of each test in a report of pytest: passed, failed or skipped."""
    found = {}
    for case in xml.etree.ElementTree.fromstring(report).iter("testcase"):
        words = {child.tag for child in case}
        name = f"{case.get('classname')}::{case.get('name')}"
        found[name] = "failed" if words & {"failure", "error"} else "skipped" if "skipped" in words else "passed"
    return found


def problems(plain: Mapping[str, str], patched: Mapping[str, str]) -> list[str]:
    """Return a sentence for each test that fails with our patches only without being meant to, or that passed without them and is not made any more."""
    found = []
    for name in dict.fromkeys([*plain, *patched]):
        before, after = plain.get(name, "is not there"), patched.get(name, "is not there")
        if name in MEANT:
            if after != "failed":
                found.append(f"{name} is in MEANT and {after} with our patches: take it out.")
        elif after == "failed" != before:
            found.append(f"{name} failed with our patches and {before} without.")
        elif before == "passed" and after not in ("passed", "failed"):
            found.append(f"{name} passed without our patches and {after} with them.")
    return found


def counts(found: Mapping[str, str]) -> str:
    """Return how many tests there were of each kind."""
    numbers = collections.Counter(found.values())
    return ", ".join(f"{numbers[kind]} {kind}" for kind in ("passed", "failed", "skipped"))


def lock() -> pathlib.Path:
    """Return the packages of a release for this Python, or for the newest one that we know."""
    return FILES / "locks" / ("py311.txt" if sys.version_info[:2] == (3, 11) else "py313.txt")


def packages(folder: pathlib.Path) -> pathlib.Path:
    """Make the environment where it is missing or older than what it is made of; return its Python."""
    needed = [FILES / "locks/build.txt", lock(), ROOT / "requirements/kallithea.txt"]
    key = hashlib.sha256("".join([sys.version, *(path.read_text() for path in needed)]).encode()).hexdigest()
    venv, stamp = folder / "venv", folder / "venv/made-of"
    python = venv / "bin/python"
    if stamp.exists() and stamp.read_text() == key:
        return python
    say(f"Installing {', '.join(str(path.relative_to(ROOT)) for path in needed)}")
    shutil.rmtree(venv, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    for path, options in zip(needed, (["--only-binary", ":all:", "--require-hashes"], ["--no-build-isolation", "--require-hashes"], []), strict=True):
        subprocess.run([python, "-m", "pip", "install", "-q", "--no-input", "--no-deps", *options, "-r", path], check=True, timeout=PIP_SECONDS)
    subprocess.run([python, "-m", "pip", "check"], check=True)
    stamp.write_text(key)
    return python


def source(folder: pathlib.Path, python: pathlib.Path) -> pathlib.Path:
    """Return the archive of Kallithea's source that a release is built of."""
    text = RELEASE.read_text()
    version, digest = (re.search(rf"^ +{name}: (\S+)$", text, re.MULTILINE) for name in ("kallithea", "sdist_sha256"))
    assert version and digest
    archives = folder / f"source-{digest[1][:12]}"
    if not list(archives.glob("*.tar.gz")):
        wanted = folder / "source.txt"
        wanted.write_text(f"kallithea=={version[1]} --hash=sha256:{digest[1]}\n")
        options = ["--no-deps", "--no-binary", ":all:", "--no-build-isolation", "--require-hashes", "--no-input"]
        subprocess.run([python, "-m", "pip", "download", "-q", *options, "-d", archives, "-r", wanted], check=True, timeout=PIP_SECONDS)
    (archive,) = archives.glob("*.tar.gz")
    return archive


def unpack(archive: pathlib.Path, folder: pathlib.Path, kind: str) -> pathlib.Path:
    """Return a tree of the source with our patches of a kind."""
    subprocess.run(["tar", "-xzf", archive, "-C", folder, "--no-same-owner"], check=True)
    (tree,) = folder.iterdir()
    for patch in patches(kind):
        command = ["patch", "-s", "-p1", "--batch", "--forward", "--fuzz=0", "--no-backup-if-mismatch", "-i", str(patch)]
        subprocess.run(command, cwd=tree, stdin=subprocess.DEVNULL, check=True)
    return tree


def run(python: pathlib.Path, tree: pathlib.Path, work: pathlib.Path, tests: Sequence[str]) -> dict[str, str]:
    """Run Kallithea's tests in a tree; return what became of them. The folder for the work lies in no repository, for some tests look upwards."""
    commands, temporary, report = work / "bin", work / "tmp", work / "report.xml"
    for made in (commands, temporary):
        made.mkdir()
    command_line = commands / "kallithea-cli"
    command_line.write_text(COMMAND_LINE.format(python=python))
    command_line.chmod(0o755)
    # Our patches scan the storage only where it is the one of the ini, which has no cluster.
    (temporary / ".kallithea-cluster").write_text(json.dumps({"cluster_id": None}))
    (work / ".gitconfig").write_text(GIT_CONFIG)
    (work / ".hgrc").write_text(HG_CONFIG)
    environment = {
        "PATH": f"{commands}:{python.parent}:{os.defpath}",
        "HOME": str(work),
        "TMPDIR": str(temporary),
        "LC_ALL": "C.UTF-8",
        "PYTHONPATH": str(tree),
        "PYTHONHASHSEED": "0",
    }
    command = [str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "ignore", f"--junit-xml={report}", *tests]
    with subprocess.Popen(command, cwd=tree, env=environment, stdin=subprocess.DEVNULL, start_new_session=True) as pytest:
        try:
            status = pytest.wait(SUITE_SECONDS)
        except BaseException:
            os.killpg(pytest.pid, signal.SIGKILL)
            raise
    # 1: some tests failed, which is for the comparison to judge.
    if status not in (0, 1):
        sys.exit(f"ERROR: pytest ended with {status} in {tree.name} (see above).")
    return outcomes(report.read_text())


def main(folder: pathlib.Path, tests: Sequence[str]) -> int:
    """Run both, compare, print; return the exit status."""
    folder.mkdir(parents=True, exist_ok=True)
    python = packages(folder.resolve())
    archive = source(folder.resolve(), python)
    found, lines = {}, []
    for words, kind in TREES.items():
        begin = time.monotonic()
        say(f"Kallithea's own tests with {words}")
        with tempfile.TemporaryDirectory(prefix="kallithea-tests-") as name:
            work = pathlib.Path(name)
            (work / "source").mkdir()
            found[words] = run(python, unpack(archive, work / "source", kind), work, tests)
        lines.append(f"Kallithea's own tests with {words}: {counts(found[words])}, {time.monotonic() - begin:.0f} s")
    say("\n".join(lines))
    plain, patched = found.values()
    for test in MEANT.keys() & patched.keys():
        say(f"Meant to fail: {test} ({MEANT[test]})")
    wrong = problems(plain, patched)
    for sentence in wrong:
        print(f"ERROR: {sentence}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(pathlib.Path(sys.argv[1]), sys.argv[2:] or ["kallithea"]))
