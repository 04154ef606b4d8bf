"""The hosts try NFS together: what the collection mounts passes, mounts that hide, forget or split what others wrote stop the run with the cause.

Another account and a folder that is not shared are tried in the scenario default, where a run takes less.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import playbook_runs
import pytest
from machines import Machine
from playbook_runs import Run
from settings import ROOT, Settings

PLAYBOOK = str(ROOT / "molecule/shared/acceptance.yml")
HOSTS = ("app1", "app2")
SERVED = "/srv/foreign"
MOUNT_POINT = "/mnt/foreign"
# It passes what is tried between the hosts, or the trial is what fails: by the table of mounts, by a lock, by what a client remembers.
MOUNTS = {
    "version 3 without locks": (
        "vers=3,nolock,proto=tcp,mountproto=tcp",
        [
            r"of host app[12] is mounted with nolock or local_lock, so that each host has locks of its own; mount it without, with vers=4\.2\.",
            r"of host app[12] is mounted as NFS 3, ",
            r"of host app2 granted a lock \(flock\) that app1 held at that moment: it is mounted with nolock or local_lock",
        ],
    ),
    "soft, and remembers for long": (
        "vers=4.2,soft,actimeo=60,lookupcache=all",
        [
            r"of host app[12] is mounted with soft, so that a server which is slow for a while becomes an error in the middle of a write; mount it with hard\.",
            r"of host app2 does not show within 1 s .*(its client remembers what was missing|its client trusts what it knows for up to 60 s \(actimeo\))",
        ],
    ),
}


# What the storage is busy with, by the list of tasks and their times at a run's end.
STEP = re.compile(r"^kallithea\.cluster\.storage : (?:Make what|Look at it|Change it|See the changes|Remove what).* -+ ([\d.]+)s$", re.M)
STEPS_SECONDS = 20.0


def try_storage(folder: Path, **variables: object) -> Run:
    """Run the acceptance test alone."""
    return playbook_runs.run(PLAYBOOK, variables=variables, folder=folder)


@pytest.fixture(scope="module")
def foreign(machines: dict[str, Machine], settings: Settings) -> str:
    """Let the stranger serve a folder by every version of NFS; return its source."""
    addresses = " ".join(f"{settings.addresses[host]}(rw,sync,no_subtree_check)" for host in HOSTS)
    ids = machines[HOSTS[0]].run("id -u kallithea; id -g kallithea").split()
    machines["stranger"].run(f"install -d -o {ids[0]} -g {ids[1]} -m 0750 {SERVED}; echo '{SERVED} {addresses}' > /etc/exports; exportfs -ra")
    return f"{settings.addresses['stranger']}:{SERVED}"


@contextmanager
def mounted(machines: dict[str, Machine], source: str, options: str) -> Iterator[None]:
    """Mount the stranger's folder on both hosts."""
    try:
        for host in HOSTS:
            machines[host].run(f"mkdir -p {MOUNT_POINT}; mount -t nfs -o nosuid,{options} {source} {MOUNT_POINT}")
        yield
    finally:
        for host in HOSTS:
            machines[host].try_run(f"umount --force --lazy {MOUNT_POINT}")


def test_our_own_mount_passes(machines: dict[str, Machine], settings: Settings, tmp_path: Path) -> None:
    """Within 20 s it prints how fast each host is, that both won races and how soon changes are seen; it leaves nothing behind."""
    run = try_storage(tmp_path)
    run.check(settings.secrets)
    run.check_success(HOSTS[1])
    steps = [float(seconds) for seconds in STEP.findall(run.output)]
    assert len(steps) == 5 and sum(steps) < STEPS_SECONDS, f"the steps took {steps} s\n{run.end}"
    print(f"the steps took {sum(steps):.1f} s")
    for host in HOSTS:
        figures = r"create \d+\.\d ms \(worst \d+\.\d\), fsync \d+\.\d ms \(worst \d+\.\d\), rename \d+\.\d ms \(worst \d+\.\d\)"
        lines = re.search(rf"Storage {settings.storage} on {host} \(nfs4 [^)]+\): {figures}", run.output)
        assert lines, run.end
        print(lines[0])
    for way in ("exclusive creation won by", "symbolic link by"):
        won = re.search(rf"200 rounds of races.*{way} app1 (\d+), app2 (\d+)", run.output)
        assert won and int(won[1]) > 0 and int(won[2]) > 0 and int(won[1]) + int(won[2]) == 200, run.end
    # On the server: it shows root of the other hosts nothing.
    machines[settings.groups["storage"][0]].run(f"ls -d {settings.storage}/repositories && ! ls -A {settings.storage} | grep acceptance")


@pytest.mark.parametrize("name", MOUNTS)
def test_mount_that_fails(name: str, machines: dict[str, Machine], settings: Settings, foreign: str, tmp_path: Path) -> None:
    """Each point that fails is a sentence with its cause."""
    options, sentences = MOUNTS[name]
    with mounted(machines, foreign, options):
        run = try_storage(tmp_path, kallithea_storage_path=MOUNT_POINT, test_entry="acceptance")
    run.check(settings.secrets)
    run.check_sentences([rf"The storage {MOUNT_POINT} {sentence}" for sentence in sentences])
    machines["stranger"].run(f"! ls -A {SERVED} | grep .")
