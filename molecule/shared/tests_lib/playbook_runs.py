"""Runs of the collection's playbooks as a user starts them, and a look at whether host and inventory stayed as they were."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

import settings as cluster_settings
import yaml
from machines import Machine
from settings import Settings

RUN_SECONDS = 120
# A run of a playbook keeps one core busy, and the tests have two.
RUNS_AT_ONCE = 2
PUBLIC_SECRETS = {"cluster_id"}
Key = TypeVar("Key", bound=Hashable)
FAILURE = re.compile(r"^(?:fatal|failed): \[(?P<host>[^\]]+)\][^{]*?(?:\(item=.*\) )?=> (?P<result>\{.*\})$", re.MULTILINE)
UNREACHABLE = re.compile(r"^fatal: \[[^\]]+\]: UNREACHABLE!", re.MULTILINE)
RECAP = re.compile(r"^(?P<host>\S+)\s+: ok=(?P<ok>\d+)\s+changed=(?P<changed>\d+)\s", re.MULTILINE)
# Sentences begin with a capital or the name of a variable.
TASK = re.compile(r"^TASK \[(?P<name>.*)\] \*+$")
CHANGED = re.compile(r"^changed: \[(?P<host>[^\] ]+)")
SENTENCE_END = re.compile(r"(?<=[.?]) (?=[A-Z]|kallithea_)")
# What Ansible or Python say where nobody thought of a sentence.
DUMPS = ("Traceback (most recent call last)", "MODULE FAILURE", "is undefined", "object has no attribute", "Unexpected failure", "argument_errors")
# What a look has to see at least on a host of the tier.
SEEN = {
    "app": ("/etc/kallithea/kallithea.ini", "/opt/kallithea/current", "Id=kallithea-web.service"),
    "loadbalancer": ("/etc/haproxy/haproxy.cfg",),
    "database": ("database kallithea",),
}
# Prints one line for each thing that must not change: all of /etc, what lies in our folders, packages, units, databases.
SNAPSHOT = r"""
import hashlib, json, os, stat, subprocess, sys
found = {}
def add(path):
    try:
        info = os.lstat(path)
        text = f"{info.st_mode:o} {info.st_uid} {info.st_gid}"
        if stat.S_ISLNK(info.st_mode):
            text += " " + os.readlink(path)
        elif stat.S_ISREG(info.st_mode):
            with open(path, "rb") as stream:
                text += f" {info.st_mtime_ns} " + hashlib.sha256(stream.read()).hexdigest()
        found[path] = text
    except FileNotFoundError:
        pass
def walk(top, depth):
    for folder, folders, files in os.walk(top):
        for name in folders + files:
            add(os.path.join(folder, name))
        if folder[len(top):].count("/") + 1 >= depth:
            folders.clear()
walk("/etc", 20)
walk("/usr/local", 20)
walk("/opt", 3)
walk("/srv", 2)
add("/var/lib/dpkg/status")
units = ["kallithea-web", "kallithea-celery", "kallithea-health", "kallithea-hooks", "haproxy", "postgresql@*", "rabbitmq-server"]
show = ["systemctl", "show", "--property=Id,ActiveState,NRestarts,ActiveEnterTimestamp,StateChangeTimestamp", *units]
for part in subprocess.run(show, capture_output=True, text=True, check=True).stdout.strip().split("\n\n"):
    found[next(line for line in part.splitlines() if line.startswith("Id="))] = part
if "database" not in sys.argv:
    print(json.dumps(found))
    sys.exit()
query = "SELECT 'database ' || datname, pg_get_userbyid(datdba) FROM pg_database UNION SELECT 'role ' || rolname, rolpassword FROM pg_authid"
ask = ["runuser", "-u", "postgres", "--", "psql", "-X", "-A", "-t", "-c", query, "postgres"]
for line in subprocess.run(ask, capture_output=True, text=True, check=True, cwd="/").stdout.splitlines():
    found[line.split("|")[0]] = hashlib.sha256(line.encode()).hexdigest()
print(json.dumps(found))
"""


@dataclass(frozen=True)
class Run:
    """How a run of a playbook ended."""

    status: int
    # In no failure's text: a test that finds a secret in it must not print it.
    output: str = field(repr=False)

    def check(self, secrets: Mapping[str, str]) -> None:
        """Fail where it shows a secret, without showing it, or changed something."""
        shown = [name for name, value in secrets.items() if name not in PUBLIC_SECRETS and (value in self.output or value in self.joined)]
        assert not shown, f"the output shows the secrets {', '.join(shown)}"
        assert not any(self.changed.values()), f"changed by {self.changes}"

    def check_refusal(self, *sentences: str) -> None:
        """Fail where it did not end with one message, and that with these sentences alone, each once."""
        assert self.status != 0, "the playbook did not refuse it"
        messages = self.messages
        assert len(messages) == 1, f"{len(messages)} messages instead of one: {messages}\n{self.end}"
        rest = messages[0]
        for sentence in sentences:
            rest, count = re.subn(sentence, "", rest)
            assert count == 1, f"{count} times instead of once: {sentence}\nin: {messages[0]}"
        assert not rest.strip(), f"said besides: {rest.strip()}"
        dumps = [words for words in DUMPS if words in self.output]
        assert not dumps, f"{messages[0]}\nwith {', '.join(dumps)}"

    def check_sentence(self, sentence: str) -> None:
        """Fail where it did not say this once, whatever else it said."""
        assert self.status != 0, "the playbook did not refuse it"
        said = " ".join(self.messages)
        count = sum(1 for _ in re.finditer(sentence, said))
        assert count == 1, f"{count} times instead of once: {sentence}\nin: {said}\n{self.end}"

    def check_sentences(self, sentences: Iterable[str]) -> None:
        """Fail where it did not say each of these, or said a sentence twice: what concerns several hosts is said once."""
        assert self.status != 0, "the playbook did not refuse it"
        said = " ".join(self.messages)
        missing = [sentence for sentence in sentences if not re.search(sentence, said)]
        assert not missing, f"nothing like {missing} was said, but: {said}\n{self.end}"
        every = SENTENCE_END.split(said)
        twice = sorted({sentence for sentence in every if every.count(sentence) > 1})
        assert not twice, f"said more than once: {twice}"
        dumps = [words for words in DUMPS if words in self.output]
        assert not dumps, f"{said}\nwith {', '.join(dumps)}"

    def check_success(self, host: str) -> None:
        """Fail where it did not end well, or without the host."""
        assert self.status == 0, f"{self.messages}\n{self.end}"
        assert host in self.changed, f"{host} was not reached"

    @property
    def joined(self) -> str:
        """Return the output without the breaks that Ansible puts into long lines."""
        return self.output.replace("\n", "")

    @property
    def end(self) -> str:
        """Return the last of what was said."""
        return self.output[-1500:]

    @property
    def messages(self) -> list[str]:
        """Return what the failed tasks said, as one line each."""
        results = [json.loads(match["result"]) for match in FAILURE.finditer(self.output)]
        return [" ".join(str(result.get("msg", result.get("censored", result))).split()) for result in results]

    @property
    def changes(self) -> list[str]:
        """Return which task changed something, on which host."""
        found, task = [], ""
        for line in self.output.splitlines():
            if named := TASK.match(line):
                task = named["name"]
            elif changed := CHANGED.match(line):
                found.append(f"{changed['host']}: {task}")
        return found

    @property
    def changed(self) -> dict[str, int]:
        """Return from the recap how many tasks changed something, for each host."""
        return {match["host"]: int(match["changed"]) for match in RECAP.finditer(self.output)}


def command_line(
    playbook: str,
    arguments: Sequence[str],
    inventories: Sequence[Path] = (),
    variables: Mapping[str, Any] | None = None,
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> tuple[list[str], dict[str, str]]:
    """Return command and environment of a run."""
    inventories = inventories or cluster_settings.inventories()
    kept = {name: value for name, value in os.environ.items() if name not in {"ANSIBLE_FORCE_COLOR", "ANSIBLE_VAULT_PASSWORD_FILE"}}
    # The output that a user sees, each result on one line.
    kept |= {
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.default",
        "ANSIBLE_CALLBACK_RESULT_FORMAT": "json",
        "ANSIBLE_VERBOSITY": "0",
    }
    command = [
        "ansible-playbook",
        *(f"--inventory={path}" for path in inventories),
        playbook if "/" in playbook else f"kallithea.cluster.{playbook}",
        *arguments,
    ]
    if variables:
        assert folder is not None
        file = folder / "extra_variables.json"
        file.touch(mode=0o600)
        file.write_text(json.dumps(variables))
        command.append(f"--extra-vars=@{file}")
    return command, {**kept, **(environment or {})}


def run(
    playbook: str,
    *arguments: str,
    inventories: Sequence[Path] = (),
    variables: Mapping[str, Any] | None = None,
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
    seconds: float = RUN_SECONDS,
) -> Run:
    """Run a playbook of the collection or, by its path, a test's own, with extra variables from a file in the folder, without a terminal to ask."""
    command, kept = command_line(playbook, arguments, inventories, variables, folder, environment)
    done = subprocess.run(command, env=kept, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds, check=False)
    output = f"{done.stdout}\n{done.stderr}"
    assert not UNREACHABLE.search(output), "a host was not reached"
    return Run(done.returncode, output)


@contextmanager
def killed(playbook: str, *arguments: str) -> Iterator[None]:
    """Run a playbook until the end of the block, and kill it with all its processes then."""
    command, kept = command_line(playbook, arguments)
    begun = subprocess.Popen(command, env=kept, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        yield
        assert begun.poll() is None, "it has ended by itself before"
    finally:
        with suppress(ProcessLookupError):
            os.killpg(begun.pid, signal.SIGKILL)
        begun.wait()


def run_all(runs: Mapping[Key, Callable[[], Run]]) -> dict[Key, Run]:
    """Make runs that change nothing, some of them at the same time."""
    with ThreadPoolExecutor(RUNS_AT_ONCE) as executor:
        started = {key: executor.submit(run) for key, run in runs.items()}
        return {key: run.result() for key, run in started.items()}


def copy_inventories(target: Path) -> tuple[Path, ...]:
    """Copy the folders of the scenario's inventories, as the tests may change nothing in the originals."""
    paths = cluster_settings.inventories()
    for path in paths:
        shutil.copytree(path.parent, target / path.parent.name)
    return tuple(target / path.parent.name / path.name for path in paths)


def edit(path: Path, **changes: Any) -> None:
    """Set keys of a YAML file; None takes a key out."""
    content = {**yaml.safe_load(path.read_text()), **changes}
    path.write_text("---\n" + yaml.safe_dump({key: value for key, value in content.items() if value is not None}, sort_keys=False, width=1000))


def folder_state(folder: Path) -> dict[str, str]:
    """Return each thing in a folder of the controller with what must not change of it."""
    found = {}
    for path in sorted(folder.rglob("*")):
        info = path.lstat()
        found[str(path)] = f"{info.st_mode:o} {info.st_mtime_ns} {sha256(path.read_bytes()).hexdigest()}" if path.is_file() else f"{info.st_mode:o}"
    return found


def differences(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """Name what appeared, vanished or changed."""
    return sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))


@contextmanager
def unchanged(hosts: Machine | Iterable[Machine], settings: Settings, *folders: Path) -> Iterator[None]:
    """See that nothing changes inside: on the hosts, in the inventories, beside the secrets, in further folders of the controller."""
    watched = [*(path.parent for path in cluster_settings.inventories()), settings.ca_file.parent.parent, *folders]
    machines = [hosts] if isinstance(hosts, Machine) else list(hosts)

    def snapshot(machine: Machine) -> dict[str, str]:
        tier = "database" if machine.name in settings.groups["database"] else ""
        things: dict[str, str] = json.loads(machine.run(f"exec python3 - {tier}", stdin=SNAPSHOT))
        return {f"{machine.name}: {name}": state for name, state in things.items()}

    def look() -> dict[str, str]:
        found: dict[str, str] = {}
        with ThreadPoolExecutor() as executor:
            for things in executor.map(snapshot, machines):
                found |= things
        for folder in watched:
            found |= folder_state(folder)
        return found

    before = look()
    # A look that sees next to nothing would call everything unchanged.
    for machine in machines:
        for name in (name for tier, names in SEEN.items() if machine.name in settings.groups[tier] for name in names):
            assert f"{machine.name}: {name}" in before, f"{name} on {machine.name} is not looked at"
    yield
    changes = differences(before, look())
    assert not changes, f"changed: {', '.join(changes)}"
