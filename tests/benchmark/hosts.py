"""The hosts that are measured: their shares of the processor, what they used of it, and which of them the balancer gives work to."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Iterator, Mapping
from typing import Any

from client import BenchFailed

# All measured hosts share the first core; the generator has the second one.
HOSTS_CORE, GENERATOR_CORE = 0, 1
# Short, so that a host that has used up its share waits for some milliseconds.
PERIOD_MICROSECONDS = 10_000
DEFAULT_PERIOD_MICROSECONDS = 100_000
COMMAND_SECONDS = 120
# The rows of a large site are many.
STATEMENT_SECONDS = 600
# The roles' defaults, which the demo has.
DATABASE, USER = "kallithea", "kallithea"
# A host at rest still answers checks.
QUIET_SECONDS, QUIET_SHARE = 180, 0.2
# Version 2 of cgroups first; of version 1 both names that the folder has.
READ_USE = "cat /sys/fs/cgroup/cpu.stat 2>/dev/null || cat /sys/fs/cgroup/cpuacct/cpuacct.usage /sys/fs/cgroup/cpu/cpu.stat"


def share_arguments(cores: float | None) -> list[str]:
    """Return what gives a container its share of the measured hosts' core; without a number, the core without a limit."""
    if cores is None:
        return ["--cpuset-cpus", str(HOSTS_CORE), "--cpu-period", str(DEFAULT_PERIOD_MICROSECONDS), "--cpu-quota", "-1"]
    return ["--cpuset-cpus", str(HOSTS_CORE), "--cpu-period", str(PERIOD_MICROSECONDS), "--cpu-quota", str(round(cores * PERIOD_MICROSECONDS))]


def free_arguments() -> list[str]:
    """Return what gives a container all cores again."""
    return ["--cpuset-cpus", f"0-{(os.cpu_count() or 1) - 1}", "--cpu-period", str(DEFAULT_PERIOD_MICROSECONDS), "--cpu-quota", "-1"]


def cpu_seconds(text: str) -> float:
    """Return the processor time from a cpu.stat of version 2 in microseconds, or a cpuacct.usage of version 1 in nanoseconds."""
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        if key == "usage_usec":
            return int(value) / 1e6
        if key.isdigit() and not value:
            return int(key) / 1e9
    raise ValueError(f"no processor time in: {text.strip()[:200]}")


def throttled_share(before: str, after: str) -> float:
    """Return in which share of its periods a host had used up its quota, between two readings."""

    def count(text: str, name: str) -> int:
        return next((int(line.split()[1]) for line in text.splitlines() if line.startswith(f"{name} ")), 0)

    periods = count(after, "nr_periods") - count(before, "nr_periods")
    return (count(after, "nr_throttled") - count(before, "nr_throttled")) / periods if periods > 0 else 0.0


def run(*command: str, seconds: float = COMMAND_SECONDS, text: str = "") -> str:
    """Run a command that reads the text and return what it printed."""
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=seconds, check=False)
    if done.returncode:
        raise BenchFailed(f"{' '.join(command[:3])} ended with {done.returncode}: {(done.stderr.strip() or done.stdout.strip())[-400:]}")
    return done.stdout


class Hosts:
    """The containers of an inventory."""

    def __init__(self, inventory: str) -> None:
        """Ask Ansible who they are."""
        self.inventory = inventory
        told = json.loads(run("ansible-inventory", "-i", inventory, "--list"))
        self.groups = {name: list(group.get("hosts", [])) for name, group in told.items() if name != "_meta"}
        self.variables: dict[str, dict[str, Any]] = told["_meta"]["hostvars"]
        if (os.cpu_count() or 1) < 2:
            raise BenchFailed("this machine has one core; the hosts and the generator need one each.")

    def of(self, *tiers: str) -> list[str]:
        """Return the hosts of some tiers, each once."""
        return list(dict.fromkeys(host for tier in tiers for host in self.groups.get(f"kallithea_{tier}", [])))

    @property
    def all(self) -> list[str]:
        """All hosts of the cluster."""
        return self.of("loadbalancer", "app", "ci", "database", "broker", "storage")

    def container(self, host: str) -> str:
        """Return the container that is a host."""
        variables = self.variables[host]
        if variables.get("ansible_connection") != "community.docker.docker" or variables.get("test_kind") == "machine":
            raise BenchFailed(
                f"{host} is no container: a share of the processor can be given to the demo's containers alone (scripts/demo without --machines)."
            )
        return str(variables["ansible_host"])

    def processes(self, host: str) -> int:
        """Return how many application processes run on a host."""
        out = run("docker", "exec", self.container(host), "pgrep", "--count", "--full", "^.?kallithea-(ui|scm|write|ci)")
        return int(out)

    def sql(self, *statements: str) -> str:
        """Run statements in Kallithea's database, each by itself, and return what they say."""
        psql = ("runuser", "-u", "postgres", "--", "psql", "-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-d", DATABASE)
        words = [word for statement in statements for word in ("-c", statement)]
        return run("docker", "exec", "-w", "/", self.container(self.of("database")[0]), *psql, *words, seconds=STATEMENT_SECONDS)

    def as_service(self, host: str, *command: str, text: str = "", seconds: float = COMMAND_SECONDS) -> str:
        """Run a command as the service user and return what it printed."""
        return run("docker", "exec", "-i", "-w", "/", "--user", USER, self.container(host), *command, text=text, seconds=seconds)

    @contextlib.contextmanager
    def shares(self, shares: Mapping[str, float | None]) -> Iterator[None]:
        """Put hosts on the measured hosts' core, with their shares of it; afterwards they have all cores again."""
        containers = {self.container(host): share for host, share in shares.items()}
        try:
            for container, share in containers.items():
                run("docker", "update", *share_arguments(share), container)
            yield
        finally:
            problems = []
            for container in containers:
                try:
                    run("docker", "update", *free_arguments(), container)
                except (BenchFailed, subprocess.TimeoutExpired) as error:
                    problems.append(str(error))
            if problems:
                raise BenchFailed(" ".join(problems))

    def balanced(self, host: str, state: str) -> None:
        """Bring a host into a state, drained or ready, in all balancers."""
        module = ("-b", "-m", "kallithea.cluster.balancer_node", "-a", f"node={host} state={state} timeout=60")
        run("ansible", "-i", self.inventory, "kallithea_loadbalancer", *module)

    @contextlib.contextmanager
    def drained(self, *hosts: str) -> Iterator[None]:
        """Take hosts out of the balancer, and put them back."""
        taken: list[str] = []
        try:
            for host in hosts:
                taken.append(host)
                self.balanced(host, "drained")
            yield
        finally:
            for host in taken:
                self.balanced(host, "ready")

    @contextlib.contextmanager
    def without_timers(self, hosts: list[str]) -> Iterator[None]:
        """Let no job of a timer begin meanwhile."""
        timers = "for timer in index cleanup maintenance freshen; do systemctl {} kallithea-$timer.timer; done"
        try:
            for host in hosts:
                run("docker", "exec", self.container(host), "sh", "-c", timers.format("stop"))
            yield
        finally:
            for host in hosts:
                run("docker", "exec", self.container(host), "sh", "-c", timers.format("start"))

    def use(self, host: str) -> str:
        """Return what the kernel counts of a host's processor time, as text."""
        return run("docker", "exec", self.container(host), "sh", "-c", READ_USE)

    def wait_quiet(self, hosts: list[str]) -> None:
        """Wait until hosts have done what a change made them do: processes load for seconds."""
        end = time.monotonic() + QUIET_SECONDS
        before = {host: cpu_seconds(self.use(host)) for host in hosts}
        while time.monotonic() < end:
            begun = time.monotonic()
            time.sleep(3)
            now = {host: cpu_seconds(self.use(host)) for host in hosts}
            if all((now[host] - before[host]) / (time.monotonic() - begun) < QUIET_SHARE for host in hosts):
                return
            before = now
        raise BenchFailed(f"{', '.join(hosts)} did not come to rest within {QUIET_SECONDS} s.")
