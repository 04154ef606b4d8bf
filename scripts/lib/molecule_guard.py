#!/usr/bin/env python3
"""Runs one Molecule scenario and refuses what Molecule calls green without having tested.

Molecule passes when a playbook of the sequence is missing, when the verifier finds no tests and when a check run
after converge would change something. The guard reads the whole output of a run with -vvv and fails on these, on too
few tests, on ignored errors, on deprecation warnings, and on any secret of the scenario's cluster in the output.
"""

from __future__ import annotations

import argparse
import base64
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

import yaml

DEFAULT_ACTIONS = ("check", "converge", "idempotence", "check", "verify")
SECRET_FILE = "secrets/secrets.yml"
# Where a scenario has secrets that somebody else has made: their readable copy.
GIVEN_FILE = "secrets/given.yml"
# Stands in files and answers on purpose: it names the cluster and opens nothing.
PUBLIC_KEYS = frozenset({"cluster_id"})
SHORTEST_SECRET = 8

ACTION_STARTS = re.compile(r"^INFO\s+\[\S+ > (?P<action>\w+)\] Executing$")
ACTION_ENDS = re.compile(r"^(INFO|ERROR|WARNING)\s+\[\S+ > (?P<action>\w+)\] \S*Executed: (?P<result>\w+)")
RECAP = re.compile(
    r"^(?P<host>\S+)\s+: ok=(?P<ok>\d+)\s+changed=(?P<changed>\d+)\s+unreachable=\d+\s+failed=\d+"
    r"\s+skipped=\d+\s+rescued=\d+\s+ignored=(?P<ignored>\d+)"
)
PYTEST_END = re.compile(r"^=+ (?P<counts>(?:\d+ [a-z]+(?:, )?)+) in [\d.]+s.*=+$|^=+ (?P<none>no tests ran) in .*=+$")
MISSING = re.compile(r"\bmissing=[1-9]")


class GuardError(Exception):
    """Something that the person who runs the scenario has to mend."""


@dataclass(frozen=True)
class Settings:
    """What a scenario promises, from its guard.yml."""

    minimum_tests: int
    maximum_skipped: int = 0
    actions: tuple[str, ...] = DEFAULT_ACTIONS

    @classmethod
    def load(cls, path: Path) -> Settings:
        """Read guard.yml."""
        try:
            data = yaml.safe_load(path.read_text())
        except FileNotFoundError as error:
            raise GuardError(f"{path} is missing: every scenario says there how many tests it runs at least.") from error
        if not isinstance(data, dict) or not isinstance(data.get("minimum_tests"), int) or data["minimum_tests"] < 1:
            raise GuardError(f"{path}: minimum_tests must be a number of at least 1.")
        unknown = set(data) - {"minimum_tests", "maximum_skipped", "actions"}
        if unknown:
            raise GuardError(f"{path}: unknown key {', '.join(sorted(unknown))}.")
        return cls(data["minimum_tests"], data.get("maximum_skipped", 0), tuple(data.get("actions", DEFAULT_ACTIONS)))


@dataclass
class Action:
    """One action of the sequence with its output."""

    name: str
    lines: list[str] = field(default_factory=list)
    result: str = ""


def actions(text: str) -> list[Action]:
    """Cut a run's output into its actions."""
    found: list[Action] = []
    for line in text.splitlines():
        if start := ACTION_STARTS.match(line):
            found.append(Action(start["action"]))
        elif found and (end := ACTION_ENDS.match(line)) and end["action"] == found[-1].name:
            found[-1].result = end["result"]
        elif found and not found[-1].result:
            found[-1].lines.append(line)
    return found


def is_subsequence(wanted: Sequence[str], given: Iterable[str]) -> bool:
    """Tell whether the wanted names occur in this order."""
    remaining = iter(given)
    return all(name in remaining for name in wanted)


def pytest_counts(lines: Iterable[str]) -> dict[str, int]:
    """Add up pytest's closing lines."""
    total: dict[str, int] = {}
    for line in lines:
        match = PYTEST_END.match(line)
        if match and match["counts"]:
            for part in match["counts"].split(", "):
                number, what = part.split()
                total[what] = total.get(what, 0) + int(number)
    return total


def spellings(secret: str) -> Iterator[str]:
    """Yield the secret as it is and what shows of it inside base64, whatever stands before it."""
    yield secret
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + secret.encode()).decode()
        # The first and last characters depend on the neighbours.
        yield encoded[4 if before else 0 :].rstrip("=")[:-1]


def leaks(text: str, secrets: Mapping[str, str]) -> list[str]:
    """Name the secrets that the text shows; Ansible breaks long warnings, so lines are joined too."""
    joined = text.replace("\n", "")
    found = []
    for key, value in sorted(secrets.items()):
        if any(spelling in text or spelling in joined for spelling in spellings(value)):
            found.append(key)
    return found


def read_secrets(path: Path) -> dict[str, str]:
    """Read the secrets of the scenario's cluster, as far as they are secret."""
    try:
        text = path.read_text()
    except FileNotFoundError as error:
        raise GuardError(f"{path} does not exist, so that nothing can be searched for: did converge run?") from error
    if text.startswith("$ANSIBLE_VAULT"):
        raise GuardError(f"{path} is encrypted: the scenario must hand the guard a readable copy.")
    data = yaml.safe_load(text)
    if isinstance(data, dict) and isinstance(data.get("kallithea_secrets"), dict):
        data = data["kallithea_secrets"]
    if not isinstance(data, dict):
        raise GuardError(f"{path} holds no dictionary.")
    secrets = {str(key): value for key, value in data.items() if key not in PUBLIC_KEYS and isinstance(value, str) and len(value) >= SHORTEST_SECRET}
    if not secrets:
        raise GuardError(f"{path} holds no secret.")
    return secrets


def scenario_secrets(state: Path) -> dict[str, str]:
    """Read all secrets of the scenario."""
    given = state / GIVEN_FILE
    return read_secrets(state / SECRET_FILE) | (read_secrets(given) if given.exists() else {})


def problems(text: str, settings: Settings, secrets: Mapping[str, str]) -> list[str]:
    """Say everything that makes a green run worthless."""
    found: list[str] = []
    run = actions(text)
    done = [action.name for action in run if action.result == "Successful"]
    if not is_subsequence(settings.actions, done):
        found.append(f"expected the actions {', '.join(settings.actions)}; successful were {', '.join(done) or 'none'}")
    if MISSING.search(text):
        found.append("a playbook of the sequence is missing (missing=1 in the recap)")
    if re.search(r"no tests found", text, re.IGNORECASE):
        found.append("the verifier found no tests")
    converged = False
    for action in run:
        recaps = [match for line in action.lines if (match := RECAP.match(line))]
        if action.name in {"converge", "idempotence", "check"} and not recaps:
            found.append(f"{action.name} reached no host")
        if action.name == "idempotence" or (action.name == "check" and converged):
            for recap in recaps:
                if int(recap["changed"]) > 0:
                    found.append(f"{action.name} after converge: {recap['host']} reports changed={recap['changed']}")
        for recap in recaps:
            if int(recap["ignored"]) > 0:
                found.append(f"{action.name}: {recap['host']} ignored {recap['ignored']} errors")
        converged = converged or action.name == "converge"
    counts = pytest_counts(line for action in run if action.name == "verify" for line in action.lines)
    if counts.get("passed", 0) < settings.minimum_tests:
        found.append(f"{counts.get('passed', 0)} tests passed, the scenario promises {settings.minimum_tests}")
    skipped = counts.get("skipped", 0) + counts.get("xfailed", 0)
    if skipped > settings.maximum_skipped:
        found.append(f"{skipped} tests were skipped, the scenario allows {settings.maximum_skipped}")
    deprecated = [line for line in text.splitlines() if line.startswith("[DEPRECATION WARNING]")]
    if deprecated:
        found.append(f"{len(deprecated)} deprecation warnings, the first: {deprecated[0][:200]}")
    found.extend(f"the output shows the secret {key}" for key in leaks(text, secrets))
    return found


class Progress:
    """Shows of the long output what tells a person where it stands."""

    ALWAYS = re.compile(r"^(INFO|WARNING|ERROR|CRITICAL)\s|^PLAY \[|^fatal: |^failed: |^\S+\s+: ok=\d+")
    SILENCE_SECONDS = 15.0
    FAILURE_LINES = 60

    def __init__(self, output: TextIO) -> None:
        self.output = output
        self.started = time.monotonic()
        self.last = self.started
        self.action = ""
        self.more = 0
        self.durations: list[tuple[str, float]] = []
        self.action_started = self.started

    def line(self, line: str) -> None:
        """Look at one line."""
        now = time.monotonic()
        if start := ACTION_STARTS.match(line):
            self.action, self.action_started = start["action"], now
        elif (end := ACTION_ENDS.match(line)) and end["action"] == self.action:
            self.durations.append((self.action, now - self.action_started))
        if line.startswith(("fatal: ", "failed: ", "[ERROR]")):
            self.more = self.FAILURE_LINES
        late = line.startswith("TASK [") and now - self.last > self.SILENCE_SECONDS
        if self.action == "verify" or self.more > 0 or late or self.ALWAYS.match(line):
            self.more -= 1
            self.last = now
            print(f"[{now - self.started:4.0f}s] {line.rstrip(' *')[:400]}", file=self.output, flush=True)


def molecule(arguments: Sequence[str], environment: Mapping[str, str], log: TextIO, progress: Progress | None) -> int:
    """Run Molecule without a terminal and keep all that it says."""
    process = subprocess.Popen(
        ["molecule", *arguments],
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    assert process.stdout is not None
    try:
        for line in process.stdout:
            log.write(line)
            if progress is not None:
                progress.line(line.rstrip("\n"))
        return process.wait()
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()
        log.flush()


def has_left(scenario: str, state: Path) -> bool:
    """Tell whether an earlier run has left something: one that was interrupted, or one with --keep, also of another clone."""
    name, label = f"kallithea-{scenario}", f"--filter=label=kallithea.test=kallithea-{scenario}"
    looks = (("ps", "--all", label), ("volume", "ls", label), ("network", "ls", f"--filter=name=^{name}(-outer)?$"))
    # Molecule's own notes of what it has made.
    return (state / "state.yml").exists() or any(
        subprocess.run(["docker", *look, "--quiet"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True).stdout.strip() for look in looks
    )


def collect(folder: Path, state: Path) -> None:
    """Import the scenario's tests before its hosts are made: a slip in them costs a second here, and half an hour afterwards."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", "--hosts=ansible://all"]
    done = subprocess.run(
        [*command, f"--ansible-inventory={folder}/inventory/hosts.yml", "tests"],
        cwd=folder,
        env={**os.environ, "MOLECULE_SCENARIO_DIRECTORY": str(folder), "MOLECULE_EPHEMERAL_DIRECTORY": str(state), "PYTHONDONTWRITEBYTECODE": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise GuardError(f"its tests cannot be collected:\n{(done.stdout + done.stderr).strip()[-2000:]}")


def run(scenario: str, root: Path, state: Path, log_path: Path, keep: bool) -> int:
    """Run the scenario, judge it, clean up."""
    settings = Settings.load(root / "molecule" / scenario / "guard.yml")
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    log_path.parent.mkdir(parents=True, exist_ok=True)
    environment = {
        **os.environ,
        "MOLECULE_GLOB": "molecule/*/molecule.yml",
        "MOLECULE_EPHEMERAL_DIRECTORY": str(state),
        # Whole lines and no colours, so that what is searched for is found.
        "ANSIBLE_NOCOLOR": "1",
        "NO_COLOR": "1",
        "PY_COLORS": "0",
        "COLUMNS": "160",
    }
    environment.pop("ANSIBLE_FORCE_COLOR", None)
    progress = Progress(sys.stdout)
    found: list[str] = []
    with log_path.open("w") as log, (log_path.parent / f"{log_path.stem}-destroy.log").open("w") as other:
        destroy = ["destroy", "-s", scenario]
        if has_left(scenario, state):
            molecule(destroy, environment, other, None)
        try:
            code = molecule(
                ["test", "-s", scenario, "--destroy=never", "--no-command-borders", "--", "-vvv"],
                environment,
                log,
                progress,
            )
            if code == 0:
                found = problems(log_path.read_text(), settings, scenario_secrets(state))
            else:
                found = [f"molecule ended with {code}"]
                secrets = state / SECRET_FILE
                if secrets.exists():
                    found += [f"the output shows the secret {key}" for key in leaks(log_path.read_text(), scenario_secrets(state))]
        except GuardError as error:
            found = [str(error)]
        finally:
            if not keep and molecule(destroy, environment, other, None) != 0:
                found.append(f"molecule destroy failed, see {other.name}")
    print(f"{scenario}: " + ", ".join(f"{name} {seconds:.0f} s" for name, seconds in progress.durations))
    print(f"{scenario}: whole output in {log_path}")
    for problem in found:
        print(f"REFUSED {scenario}: {problem}")
    return 1 if found else 0


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scenario")
    parser.add_argument("--root", type=Path, default=Path(__file__).resolve().parents[2])
    parser.add_argument("--state", type=Path, required=True, help="folder for the scenario's state and secrets")
    parser.add_argument("--log", type=Path, required=True, help="file for the whole output")
    parser.add_argument("--keep", action="store_true", help="leave the test hosts running")
    options = parser.parse_args()
    # An end from outside still cleans up.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    os.chdir(options.root)
    try:
        collect(options.root / "molecule" / options.scenario, options.state.resolve())
        return run(options.scenario, options.root, options.state.resolve(), options.log.resolve(), options.keep)
    except GuardError as error:
        print(f"REFUSED {options.scenario}: {error}")
        return 1


if __name__ == "__main__":
    sys.exit(main())
