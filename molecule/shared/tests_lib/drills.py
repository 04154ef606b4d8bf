"""The drill (tests/drill) on a client of the test cluster; what lies on the storage is taken from there and looked at on the client."""

from __future__ import annotations

import base64
import io
import json
import os
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from drill import journal, proof, report
from drill.places import Storage
from machines import Machine, wait_until
from repositories import remove_moved_aside
from scm import HOME, Client
from settings import ROOT, Settings

PREFIX = "test-drill"
SETTINGS = f"export PYTHONPATH={HOME}/drill-tool KALLITHEA_ADMIN_PASSWORD_FILE={HOME}/password KALLITHEA_CA_FILE={HOME}/ca.crt; "
LOOK_SECONDS = 60.0
# Again and again for all of the drill's repositories; each line with the time at which it came. NFS shows root nothing.
MAINTENANCE = """
runuser -u kallithea -- bash -c 'cd {storage}/repositories && while sleep 0.1; do
  set -- {prefix}-*
  [ ! -d "$1" ] || /usr/local/lib/kallithea/kallithea-maintenance --storage {storage} "$@"
done' 2>&1 | while read -r line; do echo "$(date +%s) $line"; done >{lines}
"""
MAINTENANCE_LINES = "/run/drill-maintenance"
# Through the balancer, straight to two nodes (around the balancer's hash), by the address that stays when a repository is
# renamed (which the hash takes for another repository), and an edit in the browser (which is no push for the balancer).
WAYS = ("balancer/balancer", "{0}/{1}", "id/balancer", "web/balancer")


@dataclass(frozen=True)
class Size:
    """How much the drills do."""

    pushes: int
    pushers: int
    repositories: int
    rounds: int


# In CI on containers and on machines, and in the long run; on machines a push takes four times as long.
ON_CONTAINERS = Size(pushes=100, pushers=4, repositories=6, rounds=5)
ON_MACHINES = Size(pushes=20, pushers=2, repositories=4, rounds=2)
LONG = {
    ON_CONTAINERS: Size(pushes=1000, pushers=8, repositories=40, rounds=100),
    ON_MACHINES: Size(pushes=200, pushers=4, repositories=20, rounds=20),
}
IS_LONG = os.environ.get("KALLITHEA_TEST_DRILLS") == "long"


def size(short: Size) -> Size:
    """Return how much is done in this run, whose short form is given."""
    return LONG[short] if IS_LONG else short


def race_seconds(ways: Sequence[str], rounds: int) -> float:
    """Return the limit of a race; half of it is for the rounds, the rest for looking everywhere."""
    return 360.0 + 24 * rounds * len(ways)


def packed() -> str:
    """Return the tool as a text that tar and base64 unpack: one call to the host instead of one a file."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        for path in sorted((ROOT / "tests/drill/drill").glob("*.py")):
            tar.add(path, f"drill/{path.name}")
    return base64.b64encode(archive.getvalue()).decode()


class Drills:
    """Runs drills one after the other, and leaves no repository behind."""

    def __init__(self, client: Client, storage: Machine, settings: Settings) -> None:
        """Bring the tool to the client; storage is a host that has the repositories on a disk of its own, or the common volume."""
        self.client, self.storage, self.settings = client, storage, settings
        self.log = ""
        # What the last drill wrote down.
        self.text = ""
        client.machine.run(f"rm -rf {HOME}/drill-tool && mkdir {HOME}/drill-tool && base64 -d | tar -xz -C {HOME}/drill-tool", stdin=packed())

    def nodes(self) -> list[str]:
        """Return the options that name the application hosts' own pools, to read and to write."""
        return [
            f"--node={node}={self.client.url('', node=node, pool='scm')},{self.client.url('', node=node, pool='write')}" for node in self.settings.groups["app"]
        ]

    def ways(self) -> list[str]:
        """Return all ways to race by, with the first two nodes' names."""
        return [way.format(*self.settings.groups["app"]) for way in WAYS]

    def push(self, size: Size) -> dict[str, Any]:
        """Drill 1: push, and read each push back at once."""
        within = 200.0 + 3 * size.pushes
        counts = (f"--pushes={size.pushes}", f"--pushers={size.pushers}", f"--repositories={size.repositories}")
        return self.run("push", *counts, "--kinds=git,hg", f"--within={within}", seconds=within + 100 + 10 * size.repositories)

    def race(self, ways: Sequence[str], rounds: int, kinds: str = "git,hg") -> dict[str, Any]:
        """Drill 2: two pushes to one branch at the same moment, on repositories of these kinds in turns."""
        within = race_seconds(ways, rounds) / 2
        return self.run(
            "race", *(f"--way={way}" for way in ways), f"--rounds={rounds}", f"--kinds={kinds}", f"--within={within}", seconds=race_seconds(ways, rounds)
        )

    def check_race_while_maintained(self, node: Machine, ways: Sequence[str], rounds: int, kinds: str) -> None:
        """Drill 2 while a host packs the racing repositories again and again: one wins each round, unless the other reads that it is in the way of that."""
        with self.maintained(node, race_seconds(ways, rounds)):
            report = self.race(ways, rounds, kinds)
        won = {way: sum(number for what, number in count.items() if what.startswith("won by ")) for way, count in report["races"].items()}
        assert won == dict.fromkeys(ways, rounds), (report["races"], report["reasons"])
        assert (report["unknown"], report["faults"], report["lost"], report["damage"]) == (0, [], [], []), report["reasons"]
        assert [reason for reason in report["reasons"] if reason.startswith("failed: ") and "The repository is being maintained" not in reason] == []
        maintained = self.maintained_meanwhile(node)
        assert len(maintained) >= rounds, maintained

    @contextmanager
    def maintained(self, node: Machine, seconds: float) -> Iterator[None]:
        """Let an application host maintain the drill's repositories all the time."""
        node.start("drill-maintenance", MAINTENANCE.format(storage=self.settings.storage, prefix=PREFIX, lines=MAINTENANCE_LINES), seconds)
        try:
            yield
        finally:
            node.stop("drill-maintenance")

    def maintained_meanwhile(self, node: Machine) -> list[str]:
        """Return the lines of each maintenance of one repository that came to its end between the last drill's first push and its last."""
        pushes = journal.read_text(self.text).pushes.values()
        first, last = min(push.begun for push in pushes), max(push.ended for push in pushes)
        lines = (line.split(" ", 1) for line in node.run(f"cat {MAINTENANCE_LINES}; rm {MAINTENANCE_LINES}").splitlines())
        return [said for at, said in lines if first < float(at) < last and "): done, " in said]

    def run(self, mode: str, *arguments: str, seconds: float) -> dict[str, Any]:
        """Run a drill with the nodes; return its report, which says what the storage has as well."""
        log = self.log = f"{HOME}/drill-{mode}.jsonl"
        command = " ".join(
            [
                "python3 -m drill",
                mode,
                f"--log={log} --json={log}.report --prefix={PREFIX} --keep --url={self.client.url('').rstrip('/')}",
                *self.nodes(),
                *arguments,
            ]
        )
        self.client.run(f"rm -f {log}")
        done = self.client.machine.try_run(SETTINGS + command, seconds=seconds)
        try:
            # 1 is a verdict, which the report explains.
            assert done.status in (0, 1), f"{command} ended with {done.status}: {done.output} {done.errors}"
            said: dict[str, Any] = json.loads(self.client.run(f"cat {log}.report"))
            print(done.output)
            self.text = self.client.run(f"cat {log}")
            stored = self.on_storage(self.text, seconds)
        finally:
            self.client.machine.try_run(
                f"{SETTINGS} [ ! -e {log} ] || python3 -m drill remove --log={log} --url={self.client.url('').rstrip('/')}", seconds=seconds
            )
            # Whoever waits for the next drill must not take this one's for it.
            self.client.machine.try_run(f"rm -f {log} {log}.report")
            remove_moved_aside(self.storage, self.settings, PREFIX)
        return {**said, **{key: said[key] + stored[key] for key in ("places", "lost", "damage")}}

    def mark(self, text: str) -> None:
        """Write into the log of the drill that runs that something begins here."""
        self.client.run(f"{SETTINGS} python3 -m drill mark --log={self.log} '{text}'")

    def wait_for_pushes(self, count: int) -> None:
        """Wait until the drill that runs has written down so many pushes that were acknowledged."""
        wait_until(f"{count} acknowledged pushes", lambda: int(self.client.run(f"cat {self.log} 2>/dev/null | grep -c acknowledged || true")) >= count, 60)

    def on_storage(self, log: str, seconds: float) -> dict[str, Any]:
        """Look into copies of what the storage has of the repositories that a log names: a file server needs neither git nor hg."""
        story = journal.read_text(log)
        names = " ".join(f"{self.settings.repositories}/{name}" for name in story.repositories)
        files = self.storage.run(f"tar -cz -C / --ignore-failed-read {names} | base64", seconds=seconds)
        self.client.run("rm -rf stored && mkdir stored && base64 -d | tar -xz -C stored --no-same-owner", seconds=seconds, stdin=files)
        storage = Storage(PurePosixPath(f"{HOME}/stored{self.settings.repositories}"), ("docker", "exec", "-i", self.client.machine.container))
        return report.summary(story, proof.on(storage, story.repositories, LOOK_SECONDS, 2))
