"""The test hosts as the tests use them: commands with a limit in time, files from standard input, work in the background."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import testinfra  # type: ignore[import-untyped]

COMMAND_SECONDS = 60.0
PROBE = """
import sys, urllib.error, urllib.request
try:
    answer = urllib.request.build_opener(urllib.request.ProxyHandler({})).open(sys.argv[1], timeout=10)
except urllib.error.HTTPError as error:
    answer = error
print(answer.status, answer.read().decode())
"""


class CommandFailed(AssertionError):
    """A command that had to succeed did not."""


@dataclass(frozen=True)
class Result:
    """How a command ended."""

    status: int
    output: str
    errors: str


def wait_until(what: str, condition: Callable[[], Any], seconds: float = 30.0, interval: float = 0.3) -> Any:
    """Return the condition's first true value; fail where none comes in time."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds:.0f} s: {what}")
        time.sleep(interval)


class Machine:
    """A container with systemd in it."""

    def __init__(self, name: str, container: str) -> None:
        """Remember where it is; testinfra's modules are in host."""
        self.name = name
        self.container = container
        self.host = testinfra.get_host(f"docker://{container}")

    def try_run(self, script: str, stdin: str = "", seconds: float = COMMAND_SECONDS) -> Result:
        """Run a shell script as root; the limit ends it inside the container too."""
        command = ["docker", "exec", "-i", self.container, "timeout", "--kill-after=5", str(seconds), "bash", "-c", script]
        done = subprocess.run(command, input=stdin.encode(), capture_output=True, timeout=seconds + 15, check=False)
        return Result(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))

    def run(self, script: str, stdin: str = "", seconds: float = COMMAND_SECONDS) -> str:
        """Run a shell script that has to succeed and return what it printed."""
        result = self.try_run(script, stdin, seconds)
        if result.status != 0:
            said = (result.errors.strip() or result.output.strip())[-1500:]
            raise CommandFailed(f"on {self.name} ended with {result.status}{' (time is over)' if result.status == 124 else ''}: {script}\n{said}")
        return result.output

    def write(self, path: str, content: str, mode: str = "0600") -> None:
        """Write a file; its content is on no command line."""
        self.run(f"install -D -m {mode} /dev/stdin {path}", stdin=content)

    def probe(self, url: str) -> str:
        """Return an address's status and text, asked on the host itself; a bare Debian has no curl."""
        return self.run(f"python3 -c {quote(PROBE)} {quote(url)}").strip()

    def start(self, unit: str, script: str, seconds: float) -> None:
        """Start a script in the background as a unit of its own, which ends by itself at the latest after the limit."""
        self.run(
            f"systemd-run --quiet --collect --unit={unit} --property=RuntimeMaxSec={seconds:.0f} --property=KillMode=control-group"
            f" --property=TimeoutStopSec=2 --setenv=HOME=/root bash -c {quote(script)}"
        )

    def is_running(self, unit: str) -> bool:
        """Tell whether a unit runs."""
        return self.try_run(f"systemctl is-active --quiet {unit}").status == 0

    def stop(self, *units: str) -> None:
        """Stop background units; one that has ended already is none of a problem."""
        for unit in units:
            self.try_run(f"systemctl stop {unit}; systemctl reset-failed {unit}")


def quote(text: str) -> str:
    """Quote for the shell."""
    return "'" + text.replace("'", "'\\''") + "'"
