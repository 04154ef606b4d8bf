"""The hosts try the storage together: the common volume passes with its figures, a folder that is not shared and another account stop the run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import playbook_runs
import pytest
from machines import Machine
from settings import ROOT, Settings

PLAYBOOK = str(ROOT / "molecule/shared/acceptance.yml")
HOSTS = ("app1", "app2")


def try_storage(folder: Path, **variables: Any) -> playbook_runs.Run:
    """Run the acceptance test alone."""
    return playbook_runs.run(PLAYBOOK, variables=variables, folder=folder)


@pytest.fixture
def half_shared(machines: dict[str, Machine], settings: Settings) -> Iterator[str]:
    """Return a folder on the common volume over which the second host has mounted something of its own."""
    path = f"{settings.storage}/test-acceptance"
    machines[HOSTS[0]].run(f"install -d -o kallithea -g kallithea -m 0750 {path}")
    machines[HOSTS[1]].run(f"mount -t tmpfs -o nosuid,uid=$(id -u kallithea),gid=$(id -g kallithea),mode=0750 tmpfs {path}")
    try:
        yield path
    finally:
        machines[HOSTS[1]].run(f"umount {path}")
        machines[HOSTS[0]].run(f"rmdir {path}")


@pytest.fixture(autouse=True)
def _nothing_left(machines: dict[str, Machine], settings: Settings) -> Iterator[None]:
    """See that nothing is left behind, whether the storage passed or not."""
    yield
    for host in HOSTS:
        machines[host].run(f"! ls -d {settings.storage}/.kallithea-acceptance* {settings.storage}/test-acceptance 2>/dev/null")


def test_common_volume_passes(settings: Settings, tmp_path: Path) -> None:
    """It prints how fast each host is, that both won races, and changes nothing."""
    run = try_storage(tmp_path)
    run.check(settings.secrets)
    run.check_success(HOSTS[1])
    for host in HOSTS:
        figures = r"create \d+\.\d ms \(worst \d+\.\d\), fsync \d+\.\d ms \(worst \d+\.\d\), rename \d+\.\d ms \(worst \d+\.\d\)"
        assert re.search(rf"Storage {settings.storage} on {host} \([^)]+\): {figures}", run.output), run.end
    for way in ("exclusive creation won by", "symbolic link by"):
        won = re.search(rf"200 rounds of races.*{way} app1 (\d+), app2 (\d+)", run.output)
        assert won and int(won[1]) > 0 and int(won[2]) > 0 and int(won[1]) + int(won[2]) == 200, run.end


def test_folder_that_is_not_shared(settings: Settings, half_shared: str, tmp_path: Path) -> None:
    """The second host has a file system of its own there."""
    run = try_storage(tmp_path, kallithea_storage_path=half_shared, kallithea_storage_accept_unsafe_mount=["set_uid"], test_entry="acceptance")
    run.check(settings.secrets)
    run.check_refusal(
        rf"The storage {half_shared} of host app2 does not show what app1 made, so it is not shared between them \(tmpfs tmpfs, but nothing mounted on app1\): "
        r"mount the same file system on every host\."
    )


def test_other_account(settings: Settings, tmp_path: Path) -> None:
    """The second host comes with another numeric id."""
    run = try_storage(tmp_path, test_other_account="app2", test_entry="acceptance")
    run.check(settings.secrets)
    run.check_refusal(
        rf"The storage {settings.storage} of host app2 could not be tried by the service user 2200 \(EACCES: Permission denied\): "
        r"the file server takes the service user for somebody else: give it the same numeric ids on every host, and do not squash them\."
    )


def test_remembered(machines: dict[str, Machine], settings: Settings) -> None:
    """Each application host knows what was accepted, by which a second run needs no trial; verify shows the figures."""
    for host in (*settings.groups["app"], *settings.groups["ci"]):
        kept = machines[host].run("cat /etc/kallithea/storage-accepted.json")
        assert '"lines"' in kept and f"Storage {settings.storage} on {host}" in kept, kept
