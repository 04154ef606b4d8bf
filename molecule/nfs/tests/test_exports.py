"""What is exported is exported to the application hosts alone, and the kernels run with what was written."""

from __future__ import annotations

import re
from pathlib import Path

import playbook_runs
from balancer import Balancer
from faults import RETURN_SECONDS
from machines import Machine, wait_until
from settings import Settings


def test_server_runs_with_what_was_written(machines: dict[str, Machine]) -> None:
    """One version, so many threads, short times; the kernel's own answers."""
    read = "cd /proc/fs/nfsd && cat versions threads nfsv4leasetime nfsv4gracetime /proc/sys/fs/leases-enable"
    assert machines["store1"].run(read).split("\n") == ["-3 +4 -4.0 -4.1 +4.2", "32", "15", "15", "0", ""]


def test_exports_name_the_application_hosts_alone(machines: dict[str, Machine], settings: Settings) -> None:
    """Each by its address, written through before an answer, root taken for nobody."""
    exports = [re.split(r"[\t(]", line.rstrip(")")) for line in machines["store1"].run("cat /var/lib/nfs/etab").splitlines()]
    assert sorted((path, client) for path, client, _ in exports) == sorted((settings.storage, settings.addresses[host]) for host in settings.groups["app"])
    for _, _, options in exports:
        assert {"rw", "sync", "root_squash", "no_subtree_check", "sec=sys"} <= set(options.split(",")), options
        assert "fsid=" in options and "async" not in options.split(","), options


def test_stranger_is_refused(machines: dict[str, Machine], settings: Settings) -> None:
    """By every version, although it reaches the port; nothing but the one port listens for NFS."""
    stranger, server = machines["stranger"], settings.addresses["store1"]
    stranger.run(f"timeout 10 bash -c 'exec 3<>/dev/tcp/{server}/2049'")
    for options in ("vers=4.2", "vers=4.1", "vers=3,nolock"):
        mount = f"mount -t nfs -o {options},retry=0,timeo=50,retrans=1 {server}:{settings.storage} /mnt"
        refused = stranger.try_run(f"timeout 30 {mount}")
        assert refused.status != 0, f"{options} was mounted"
        assert refused.status != 124, f"{options} was not refused but not answered"
    listening = machines["store1"].run("ss --listening --tcp --udp --numeric --no-header").splitlines()
    ports = {line.split()[4].rpartition(":")[2] for line in listening}
    assert "2049" in ports and not ports & {"111", "20048"}, listening


def test_hosts_mount_as_wanted(machines: dict[str, Machine], settings: Settings) -> None:
    """Hard, nothing remembered that is missing, the kernel reads ahead."""
    for host in settings.groups["app"]:
        options = machines[host].run(f"findmnt --noheadings --output OPTIONS {settings.storage}").strip().split(",")
        wanted = {"vers=4.2", "hard", "nosuid", "noatime", "lookupcache=pos", "local_lock=none", "nconnect=4", "timeo=150"}
        assert wanted <= set(options), (host, options)
        ahead = machines[host].run(f"cat /sys/class/bdi/$(mountpoint --fs-devno {settings.storage})/read_ahead_kb").strip()
        assert ahead == "1024", (host, ahead)


def test_export_options_that_the_server_does_not_take_cost_nothing(machines: dict[str, Machine], tmp_path: Path) -> None:
    """One that looks well, so that only the server itself knows: what it exported before, it exports still."""
    store = machines["store1"]
    look = "cat /etc/exports.d/*.exports; sort /var/lib/nfs/etab"
    before = store.run(look)
    options = ["rw", "sync", "no_subtree_check", "root_squash", "sec=krb5x"]
    run = playbook_runs.run("storage", "--limit", store.name, variables={"kallithea_storage_nfs_export_options": options}, folder=tmp_path)
    said = r"The NFS server of host store1 does not take the export options [^(]*sec=krb5x[^(]* \([^)]*krb5x[^)]*\)"
    run.check_sentence(said + ": mend kallithea_storage_nfs_export_options;")
    assert store.run(look) == before


def test_exports_that_are_gone_come_back_by_a_run(machines: dict[str, Machine], balancer: Balancer, settings: Settings) -> None:
    """Although no host can read the storage when the run begins."""
    store = machines["store1"]
    store.run("exportfs -ua")
    wait_until("no node serves", lambda: not any(status.startswith("UP") for status in balancer.statuses().values()), 30.0)
    playbook_runs.run("storage", seconds=300).check_success(store.name)
    wait_until("every server up", balancer.all_up, RETURN_SECONDS)
    clients = [line.split("(")[0].split()[1] for line in store.run("cat /var/lib/nfs/etab").splitlines()]
    assert sorted(clients) == sorted(settings.addresses[host] for host in settings.groups["app"])
