"""The drill (tests/drill) on a client of the test cluster; the storage is looked at where the repositories lie."""

from __future__ import annotations

import base64
import io
import json
import tarfile
from pathlib import PurePosixPath
from typing import Any

from drill import journal, proof, report
from drill.places import Storage
from machines import Machine
from scm import HOME, Client
from settings import ROOT, Settings

PREFIX = "test-drill"
SETTINGS = f"export PYTHONPATH={HOME}/drill-tool KALLITHEA_ADMIN_PASSWORD_FILE={HOME}/password KALLITHEA_CA_FILE={HOME}/ca.crt; "
LOOK_SECONDS = 60.0


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
        """Bring the tool to the client; storage is a host that has the repositories, git, hg and the service's user."""
        self.client, self.storage, self.settings = client, storage, settings
        client.machine.run(f"rm -rf {HOME}/drill-tool && mkdir {HOME}/drill-tool && base64 -d | tar -xz -C {HOME}/drill-tool", stdin=packed())

    def nodes(self) -> list[str]:
        """Return the options that name the application hosts' own pools, to read and to write."""
        return [
            f"--node={node}={self.client.url('', node=node, pool='scm')},{self.client.url('', node=node, pool='write')}" for node in self.settings.groups["app"]
        ]

    def run(self, mode: str, *arguments: str, seconds: float) -> dict[str, Any]:
        """Run a drill with the nodes; return its report, which says what the storage has as well."""
        log = f"{HOME}/drill-{mode}.jsonl"
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
            stored = self.on_storage(self.client.run(f"cat {log}"))
        finally:
            self.client.machine.try_run(
                f"{SETTINGS} [ ! -e {log} ] || python3 -m drill remove --log={log} --url={self.client.url('').rstrip('/')}", seconds=120
            )
            self.storage.run(f"find {self.settings.repositories} -maxdepth 1 -name 'rm__*__{PREFIX}-*' -exec rm -rf {{}} +")
        return {**said, **{key: said[key] + stored[key] for key in ("places", "lost", "damage")}}

    def on_storage(self, log: str) -> dict[str, Any]:
        """Look into the repositories that a log names as the service's user, with the host's git and the release's hg."""
        story = journal.read_text(log)
        path = "PATH=/opt/kallithea/current/bin:/usr/bin:/bin"
        storage = Storage(PurePosixPath(self.settings.repositories), ("docker", "exec", "-i", "--user=kallithea", f"--env={path}", self.storage.container))
        return report.summary(story, proof.on(storage, story.repositories, LOOK_SECONDS, 2))
