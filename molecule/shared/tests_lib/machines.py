"""The test hosts as the tests use them: commands with a limit in time, files from standard input, work in the background."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import testinfra  # type: ignore[import-untyped]
from settings import Settings
from testinfra.backend.base import BaseBackend, CommandResult  # type: ignore[import-untyped]

COMMAND_SECONDS = 60.0
BOOT_SECONDS = 120.0
# More than the 90 s that systemd gives most units to end.
SHUT_DOWN_SECONDS = 120.0
CONSOLE_LINES = 80
# By shared/prepare.yml; a machine is slow.
PACKAGES = "kallithea-test-packages"
PACKAGES_SECONDS = 300.0
CONTROL = re.compile(r"\x1b\[[0-9;:?!]*[a-zA-Z]|\x1b\][0-9;]*(?:\x1b\\|\x07)?|[\x1b\r]")
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


@dataclass(frozen=True)
class Access:
    """How a machine with a kernel of its own is reached: as an ordinary user, who becomes root with a password."""

    ssh_config: Path
    # In no failure's text.
    password: str = field(repr=False)


class Machine:
    """A test host with systemd in it: a container, or with an access a machine with a kernel of its own inside the container."""

    def __init__(self, name: str, container: str, access: Access | None = None) -> None:
        """Remember where it is; testinfra's modules are in host, as root on both kinds."""
        self.name = name
        self.container = container
        self.access = access
        self.host = testinfra.host.Host(Backend(self)) if access else testinfra.get_host(f"docker://{container}")

    def command(self, script: str, stdin: str, seconds: float) -> tuple[list[str], str]:
        """Return what runs a script as root, and what it reads."""
        limited = ["timeout", "--kill-after=5", str(seconds), "bash", "-c", script]
        if self.access is None:
            return ["docker", "exec", "-i", self.container, *limited], stdin
        # -k: it reads the password each time, so that the script never gets it as its input.
        remote = " ".join(quote(word) for word in ["sudo", "-k", "-S", "-p", "", *limited])
        return ["ssh", "-F", str(self.access.ssh_config), self.container, remote], f"{self.access.password}\n{stdin}"

    def try_run(self, script: str, stdin: str = "", seconds: float = COMMAND_SECONDS) -> Result:
        """Run a shell script as root; the limit ends it inside the host too."""
        command, given = self.command(script, stdin, seconds)
        done = subprocess.run(command, input=given.encode(), capture_output=True, timeout=seconds + 15, check=False)
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

    def docker(self, *arguments: str, stdin: str = "") -> str:
        """Do something with the container from outside; return what it said."""
        done = subprocess.run(["docker", *arguments], input=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60, check=False)
        if done.returncode != 0:
            raise CommandFailed(f"docker {' '.join(arguments)}: {done.stdout}")
        return done.stdout

    def power_off(self) -> None:
        """Cut the power: nothing is shut down, what was not written is lost."""
        self.docker("kill", self.container)
        self.leave()

    def shut_down(self) -> None:
        """Switch it off as an administrator does, and wait until it is off; one that hangs shows its console."""
        self.try_run("systemctl poweroff")

        def is_off() -> bool:
            return self.docker("inspect", "--format", "{{.State.Running}}", self.container).strip() == "false"

        self.wait_with_console("off", is_off, SHUT_DOWN_SECONDS)
        self.leave()

    def leave(self) -> None:
        """Give up the connection, which leads nowhere now and must not be used again."""
        if self.access is not None:
            command = ["ssh", "-F", str(self.access.ssh_config), "-O", "exit", self.container]
            subprocess.run(command, capture_output=True, timeout=30, check=False)

    def power_on(self, wait: bool = True) -> None:
        """Switch it on with the disk that it had; by default wait until it has booted."""
        self.docker("start", self.container)
        if wait:
            self.wait_booted()

    def reset(self) -> None:
        """Cut the power and switch it on at once."""
        self.power_off()
        self.power_on()

    def is_reached(self) -> bool:
        """Tell whether a command can be run there; a container is reached without a connection."""
        if self.access is None:
            return True
        # Asked often and shortly: who waits for a host that is off tries again later and later.
        hello = ["ssh", "-F", str(self.access.ssh_config), "-o", "ConnectTimeout=2", self.container, "true"]
        return subprocess.run(hello, capture_output=True, timeout=30, check=False).returncode == 0

    def is_booted(self) -> bool:
        """Tell whether systemd has started everything, with or without failures."""
        return self.is_reached() and self.try_run("systemctl is-system-running", seconds=20).output.strip() in {"running", "degraded"}

    def wait_booted(self) -> None:
        """Wait for the end of the boot; a failure shows the console."""
        self.wait_with_console("booted", self.is_booted, BOOT_SECONDS)

    def wait_with_console(self, what: str, condition: Callable[[], bool], seconds: float) -> None:
        """Wait for what it has come to; a failure shows the console."""
        try:
            wait_until(f"{self.name} {what}", condition, seconds, 0.5)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.console()}") from error

    def reboot(self) -> None:
        """Reboot as an administrator does and wait until it is back."""
        before = self.run("cat /proc/sys/kernel/random/boot_id")
        self.try_run("systemctl reboot")

        def is_another_boot() -> bool:
            return self.is_reached() and self.try_run("cat /proc/sys/kernel/random/boot_id").output not in {"", before}

        wait_until(f"{self.name} rebooted", is_another_boot, BOOT_SECONDS, 0.5)
        self.wait_booted()

    def console(self, lines: int = CONSOLE_LINES) -> str:
        """Return the end of what a machine's kernel and systemd printed, also where it is off or hangs."""
        return CONTROL.sub("", self.docker("logs", "--tail", str(lines), self.container))

    @contextmanager
    def cut_off(self, addresses: Iterable[str]) -> Iterator[None]:
        """Cut a machine's path to some addresses and back, in the container around it; the guest sees silence, not an error."""
        assert self.access is not None, f"{self.name} is a container: the path can be cut around machines only"
        self.docker("exec", "-i", self.container, "nft", "-f", "-", stdin=cut_rules(addresses))
        try:
            yield
        finally:
            self.docker("exec", self.container, "nft", "delete", "table", "bridge", "cut")


class Backend(BaseBackend):  # type: ignore[misc]
    """testinfra's way to a machine, as root."""

    NAME = "machine"

    def __init__(self, machine: Machine) -> None:
        """Remember the machine."""
        super().__init__(machine.name)
        self.machine = machine

    def run(self, command: str, *args: str, **_: Any) -> CommandResult:
        """Run one of testinfra's commands."""
        text = self.get_command(command, *args)
        done = self.machine.try_run(text)
        return self.result(done.status, text.encode(), done.output.encode(), done.errors.encode())


def cut_rules(addresses: Iterable[str]) -> str:
    """Return the table of nftables that lets nothing to and from the addresses cross the bridge."""
    given = ", ".join(sorted(addresses))
    rules = f"type filter hook forward priority 0; ip daddr {{ {given} }} drop; ip saddr {{ {given} }} drop;"
    return f"table bridge cut {{\n  chain crossing {{ {rules} }}\n}}\n"


def all_of(settings: Settings) -> dict[str, Machine]:
    """Return all test hosts by their names, each as its kind is reached."""
    access = Access(settings.state_dir / "ssh_config", (settings.machine_dir / "password").read_text().strip()) if settings.kernels else None
    return {name: Machine(name, container, access if name in settings.kernels else None) for name, container in settings.machines.items()}


def wait_prepared(machines: Iterable[Machine]) -> None:
    """Wait until clients have what shared/prepare.yml began to install; fail with its words where that failed."""
    for machine in machines:
        # An end that failed is an end; a host without the unit has none to wait for.
        machine.run(f"while systemctl show --property=ActiveState {PACKAGES} | grep -q =activating; do sleep 1; done", seconds=PACKAGES_SECONDS)
        failed = machine.try_run(f"systemctl is-failed --quiet {PACKAGES}").status == 0
        assert not failed, machine.run(f"journalctl --no-pager --quiet --output=cat --unit={PACKAGES}")


def quote(text: str) -> str:
    """Quote for the shell."""
    return "'" + text.replace("'", "'\\''") + "'"
