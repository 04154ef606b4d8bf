"""The mount of the storage as a host sees it, and what stands on it."""

from __future__ import annotations

import re

from machines import BOOT_SECONDS, CommandFailed, Machine, wait_until
from settings import Settings

HEALTH = "http://127.0.0.1:8089/ready"
UNITS = ("kallithea-web", "kallithea-celery", "kallithea-hooks")
# The timer mounts 5 s after the mount went away; then processes load.
BACK_SECONDS = 90.0


def is_mounted(machine: Machine, settings: Settings) -> bool:
    """Tell from the kernel's table, which no storage that hangs keeps waiting."""
    return machine.try_run(f"grep -q ' {settings.storage} .* - nfs4 ' /proc/self/mountinfo").status == 0


def operations(machine: Machine, settings: Settings) -> dict[str, int]:
    """Return how often the host has asked the server for what since the mount, by the kernel's own count."""
    mount = machine.run("cat /proc/self/mountstats").partition(f" mounted on {settings.storage} with fstype nfs4")[2].partition("\ndevice ")[0]
    counts = {name: int(count) for name, count in re.findall(r"^\s+([A-Z_0-9]+): (\d+) ", mount.partition("per-op statistics")[2], re.MULTILINE)}
    assert counts, "the storage is not mounted by NFS"
    return counts


def check_nothing_beneath(machine: Machine, settings: Settings) -> None:
    """The folder that the mount covers is empty, and root alone could write into it."""
    look = "mkdir -p /run/beneath && mount --bind / /run/beneath && { stat -c '%a %U' /run/beneath%s; ls -A /run/beneath%s; umount /run/beneath; }"
    assert machine.run(look.replace("%s", settings.storage)).split("\n") == ["555 root", ""]


def health(machine: Machine) -> str:
    """Return what the health service answers, nothing where it does not."""
    try:
        return machine.probe(HEALTH)
    except CommandFailed:
        return ""


def started(machine: Machine) -> list[str]:
    """Return when the units were started last."""
    return machine.run(f"systemctl show --property=ActiveEnterTimestampMonotonic {' '.join(UNITS)}").split()


def check_waits_for_the_storage(host: Machine, settings: Settings) -> None:
    """The host lets administrators in and says what it waits for; nothing runs on the empty folder."""
    wait_until(f"{host.name} lets administrators in", lambda: host.try_run("true", seconds=20).status == 0, BOOT_SECONDS, 1.0)
    reason = wait_until("the health service's answer", lambda: health(host), BOOT_SECONDS, 1.0)
    assert reason.startswith("503") and "storage: " in reason, reason
    assert not is_mounted(host, settings)
    for unit in UNITS:
        assert not host.is_running(unit), f"{unit} runs without the storage"
    assert host.run(f"ls -A {settings.storage}") == ""
