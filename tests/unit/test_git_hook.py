"""Git hooks: run by a process that has the application already they do, say and return what an interpreter of their own would; in doubt that one runs them."""

from __future__ import annotations

import os
import pathlib
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator

import pytest
from render import ROOT

FILES = ROOT / "roles" / "app" / "files"
# What the service loads; each load is written down. None of it is imported by a hook below but "loaded".
FAKE = {
    "kallithea/__init__.py": "",
    "kallithea/bin/__init__.py": "",
    "kallithea/bin/vcs_hooks.py": "",
    "kallithea/config/__init__.py": "",
    "kallithea/config/application.py": """
        import os
        def make_app(global_conf, **local_conf):
            import loaded
            loaded.WHERE = "in the service"
            with open(os.path.join(os.path.dirname(__file__), "loads"), "a") as loads:
                loads.write(global_conf["__file__"] + "\\n")
    """,
    "kallithea/model/__init__.py": "",
    "kallithea/model/meta.py": """
        class Base:
            class metadata:
                class bind:
                    dispose = staticmethod(lambda: None)
    """,
    "kallithea/model/scm.py": "",
    "paste/__init__.py": "",
    "paste/deploy.py": """
        import types
        def appconfig(where):
            return types.SimpleNamespace(global_conf={"__file__": where.removeprefix("config:")}, local_conf={})
    """,
    "loaded.py": 'WHERE = "by itself"',
}
HOOK = """
import loaded, os, subprocess, sys
print(loaded.WHERE, __name__, sys.argv, os.getcwd(), os.environ["WHO"], os.path.abspath(__file__))
print(sys.stdin.read().upper(), file=sys.stderr)
sys.stdout.flush()
"""
ENDS = {
    "ends": "",
    "exits": "sys.exit()",
    "exits with 0": "sys.exit(0 or None)",
    "exits with 3": "sys.exit(3)",
    "exits with 256": "sys.exit(256)",
    "exits with words": "sys.exit('no, Grüße')",
    "fails": "raise KeyError('x')",
    "asks a program": "sys.exit(subprocess.run(['sh', '-c', 'echo from sh; exit 7']).returncode)",
    "reads more than a pipe holds": "print('x' * 200_000)",
}


def wait_until(what: str, condition: Callable[[], bool]) -> None:
    """Wait until something is so."""
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.02)


class Node:
    """A host with the release, the service's program and a repository with a hook."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.library = folder / "library"
        for name, text in FAKE.items():
            path = self.library / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text))
        self.python = folder / "python3"
        self.python.write_text(f'#!/bin/sh\nPYTHONPATH={self.library} exec {sys.executable} "$@"\n')
        self.socket = folder / "socket"
        self.client = folder / "kallithea-git-hook"
        text = (FILES / "kallithea-git-hook").read_text().replace("/run/kallithea-hooks/socket", str(self.socket))
        self.client.write_text(text.replace("/opt/kallithea/current/bin/python3", str(self.python)).replace("READY_SECONDS = 5.0", "READY_SECONDS = 0.5"))
        self.server = folder / "kallithea-hooks"
        self.server.write_text((FILES / "kallithea-hooks").read_text())
        self.repository = folder / "repository"
        (self.repository / "hooks").mkdir(parents=True)
        for program in (self.client, self.python):
            program.chmod(0o755)
        self.service: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the service and wait until it serves."""
        environment = {**os.environ, "PYTHONPATH": str(self.library), "PYTHONDONTWRITEBYTECODE": "1"}
        self.service = subprocess.Popen([sys.executable, self.server, "/etc/k.ini", self.socket], env=environment, stdin=subprocess.DEVNULL)
        self.wait()

    def wait(self) -> None:
        """Wait until it takes a connection."""

        def serves() -> bool:
            with socket.socket(socket.AF_UNIX) as connection:
                return connection.connect_ex(str(self.socket)) == 0

        wait_until("the service does not serve", serves)

    def hook(self, interpreter: pathlib.Path, text: str) -> list[str]:
        """Write the hook; return the command by which git runs it."""
        path = self.repository / "hooks" / "post-receive"
        path.write_text(f"#!{interpreter}\n{text}")
        path.chmod(0o755)
        return ["hooks/post-receive"]

    def begin(self, interpreter: pathlib.Path, text: str) -> subprocess.Popen[str]:
        """Start the hook as git does."""
        environment = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "WHO": "somebody\udcff"}
        pipe = subprocess.PIPE
        command = self.hook(interpreter, text)
        return subprocess.Popen(command, cwd=self.repository, env=environment, stdin=pipe, stdout=pipe, stderr=pipe, encoding="utf-8", errors="surrogateescape")

    def run(self, interpreter: pathlib.Path, text: str) -> tuple[str, str, int]:
        """Run the hook; return what it said and its exit status."""
        process = self.begin(interpreter, text)
        said, complained = process.communicate("old new ref\n", timeout=20)
        return said, complained, process.returncode

    @property
    def loads(self) -> list[str]:
        """Return with which ini the service loaded the application."""
        return (self.library / "kallithea/config/loads").read_text().split()


@pytest.fixture
def node(tmp_path: pathlib.Path) -> Iterator[Node]:
    """Return a host; what runs on it ends with the test."""
    made = Node(tmp_path)
    yield made
    if made.service and made.service.poll() is None:
        made.service.kill()
        made.service.wait()


@pytest.mark.parametrize("end", ENDS)
def test_a_hook_does_the_same_either_way(node: Node, end: str) -> None:
    text = HOOK + ENDS[end]
    wanted = node.run(node.python, text)
    assert wanted[0].startswith("by itself __main__ ['hooks/post-receive']")
    assert node.run(node.client, text) == wanted, "without the service"
    node.start()
    said, complained, status = node.run(node.client, text)
    assert said == wanted[0].replace("by itself", "in the service")
    assert status == wanted[2]
    if end == "fails":
        # With a traceback that also names who ran it.
        assert complained.splitlines()[:2] == wanted[1].splitlines()[:2]
        assert complained.splitlines()[-1] == wanted[1].splitlines()[-1] == "KeyError: 'x'"
    else:
        assert complained == wanted[1]


def test_the_application_is_loaded_once_for_all_hooks(node: Node) -> None:
    node.start()
    for _ in range(5):
        assert node.run(node.client, HOOK)[0].startswith("in the service")
    assert node.loads == ["/etc/k.ini"]


def test_hooks_run_side_by_side_and_one_that_is_killed_says_so(node: Node) -> None:
    node.start()
    long = node.begin(node.client, "import os, sys; print(os.getpid(), flush=True); sys.stdin.read(); print('done')")
    assert long.stdout and long.stdin
    first = int(long.stdout.readline())
    killed = node.begin(node.client, "import os, sys; print(os.getpid(), flush=True); sys.stdin.read()")
    assert killed.stdout
    second = int(killed.stdout.readline())
    assert first != second
    os.kill(second, signal.SIGKILL)
    assert killed.communicate(timeout=10)[1].startswith("The hook was ended before its time")
    assert killed.returncode == 1
    assert node.run(node.client, HOOK)[2] == 0
    assert long.communicate("", timeout=10)[0] == "done\n"
    assert long.returncode == 0


def test_a_service_that_hangs_takes_no_hook_later(node: Node) -> None:
    node.start()
    assert node.service
    node.service.send_signal(signal.SIGSTOP)
    counted = "print(1, file=open('runs', 'a'))\n" + HOOK
    assert node.run(node.client, counted)[0].startswith("by itself")
    node.service.send_signal(signal.SIGCONT)
    assert node.run(node.client, counted)[0].startswith("in the service")
    time.sleep(0.2)
    assert (node.repository / "runs").read_text() == "1\n1\n"


def test_a_socket_that_nobody_serves(node: Node) -> None:
    node.start()
    assert node.service
    node.service.kill()
    node.service.wait()
    assert node.socket.exists()
    assert node.run(node.client, HOOK)[0].startswith("by itself")
    # One left behind is in nobody's way.
    node.start()
    assert node.run(node.client, HOOK)[0].startswith("in the service")


@pytest.mark.parametrize("reload", [False, True])
def test_the_end_and_a_new_ini_wait_for_running_hooks(node: Node, reload: bool) -> None:
    node.start()
    assert node.service
    running = node.begin(node.client, "import sys; print(1, flush=True); sys.stdin.read(); import loaded; print(loaded.WHERE)")
    assert running.stdout
    running.stdout.readline()
    node.service.send_signal(signal.SIGHUP if reload else signal.SIGTERM)
    if reload:
        wait_until("it was not loaded anew", lambda: len(node.loads) >= 2)
        node.wait()
        assert node.service.poll() is None
        assert node.run(node.client, HOOK)[0].startswith("in the service")
    else:
        wait_until("it still serves", lambda: not node.socket.exists())
        # It has not ended yet.
        with pytest.raises(subprocess.TimeoutExpired):
            node.service.wait(0.3)
    assert running.communicate("", timeout=10)[0] == "in the service\n"
    assert running.returncode == 0
    if not reload:
        assert node.service.wait(10) == 0


def test_nobody_else_may_ask(node: Node) -> None:
    node.start()
    assert node.socket.stat().st_mode & 0o777 == 0o600


def test_a_wrong_call_gets_one_line(node: Node) -> None:
    done = subprocess.run([sys.executable, node.server], capture_output=True, text=True, check=False)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
