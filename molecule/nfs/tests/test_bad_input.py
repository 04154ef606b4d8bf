"""What is wrong with a storage host of its own is said in one sentence each, all of them in one run, before anything has changed on any host."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import playbook_runs
import pytest
import settings as cluster_settings
import yaml
from bad_input import load
from machines import Machine
from playbook_runs import Run
from settings import Settings

CASES = load(Path(__file__).parent / "bad_input.yml")
# Machines start processes slowly, and two runs go on at a time.
RUN_SECONDS = 240.0
Hosts = Mapping[str, Machine]


@contextmanager
def something_at_the_mount_point(machines: Hosts, settings: Settings) -> Iterator[None]:
    """Let a file lie where the second application host would mount the storage."""
    host = machines[settings.groups["app"][1]]
    host.run("mkdir /srv/elsewhere && touch /srv/elsewhere/notes")
    try:
        yield
    finally:
        host.run("rm -r /srv/elsewhere")


@contextmanager
def another_export(machines: Hosts, settings: Settings) -> Iterator[None]:
    """Let the storage host have a file of exports that an administrator has written; the server is not told of it."""
    host = machines[settings.groups["storage"][0]]
    host.write("/etc/exports.d/others.exports", "/srv *(ro)\n", "0644")
    try:
        yield
    finally:
        host.run("rm /etc/exports.d/others.exports")


@contextmanager
def share_of_another_cluster(machines: Hosts, settings: Settings) -> Iterator[None]:
    """Let the second application host have mounted what the stranger serves: a complete storage, of another cluster."""
    stranger, host = machines["stranger"], machines[settings.groups["app"][1]]
    client = f"{settings.addresses[host.name]}:/srv/theirs"
    try:
        stranger.run("mkdir -p /srv/theirs/repositories && chmod 0755 /srv/theirs")
        stranger.write("/srv/theirs/.kallithea-cluster", '{"cluster_id": "anotherclustersname"}\n', "0644")
        stranger.run(f"exportfs -o rw,sync,no_subtree_check {client}")
        host.run(f"mkdir -p /mnt/theirs && mount -t nfs -o vers=4.2,nosuid {settings.addresses['stranger']}:/srv/theirs /mnt/theirs")
        yield
    finally:
        host.try_run("umount --force --lazy /mnt/theirs; rmdir /mnt/theirs")
        stranger.try_run(f"exportfs -u {client}; rm -r /srv/theirs")


PREPARATIONS: dict[str, Callable[[Hosts, Settings], AbstractContextManager[None]]] = {
    function.__name__: function for function in (something_at_the_mount_point, another_export, share_of_another_cluster)
}


def begin(case: dict[str, Any], settings: Settings, folder: Path) -> Run:
    """Run preflight with a case's mistakes; no secret may be seen."""
    inventories = cluster_settings.inventories()
    if "groups" in case:
        more = folder / "more.yml"
        more.write_text(yaml.safe_dump({group: {"hosts": dict.fromkeys(members)} for group, members in case["groups"].items()}))
        # The scenario's own stay last, since one of them says what follows from a host's kind.
        inventories = (more, *inventories)
    run = playbook_runs.run("preflight", inventories=inventories, variables=case["variables"], folder=folder, seconds=RUN_SECONDS)
    run.check(settings.secrets)
    return run


@pytest.fixture(scope="module")
def runs(machines: Hosts, cluster: dict[str, Machine], settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """Make all runs of bad_input.yml; nothing may change."""
    ready = {name: partial(begin, case, settings, tmp_path_factory.mktemp("bad_input")) for name, case in CASES.items()}
    with ExitStack() as stack:
        for name in [name for case in CASES.values() for name in case.get("prepare", [])]:
            stack.enter_context(PREPARATIONS[name](machines, settings))
        with playbook_runs.unchanged(cluster.values(), settings):
            return playbook_runs.run_all(ready)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.replace(" ", "-"))
def test_bad_input(runs: dict[str, Run], case: str) -> None:
    """Every case of bad_input.yml: as many mistakes in one run as can be made at once, since each run takes long."""
    runs[case].check_sentences(CASES[case]["says"])
