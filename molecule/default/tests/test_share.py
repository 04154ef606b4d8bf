"""A share that is missing, empty or another cluster's on one host is never taken for "all repositories were removed"."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import playbook_runs
import pytest
from balancer import Balancer
from faults import Users
from machines import Machine, wait_until
from repositories import Make
from scm import Client
from settings import Settings
from web import Answer, Site

HEALTH = "http://127.0.0.1:8089/ready"
OUT_SECONDS = 20.0
RUN_SECONDS = 180.0
KEPT = "/run/test-share"
# How each is brought about and put back. $share is the path; the real mount waits where nobody looks while it is missing.
TMPFS = "mount -t tmpfs -o uid=$(id -u kallithea),gid=$(id -g kallithea),mode=0750 tmpfs $share"
FOREIGN = f"""{TMPFS}; mkdir $share/repositories $share/locks; echo '{{"cluster_id": "anotherclustersname"}}' > $share/.kallithea-cluster
chown -R kallithea:kallithea $share"""
SHARES = {
    "missing": (
        f"mkdir -p {KEPT}; mount --bind $share {KEPT}; while [ -e $share/.kallithea-cluster ]; do umount --lazy $share; done",
        f"mount --bind {KEPT} $share; umount {KEPT}",
    ),
    "empty": (TMPFS, "umount --lazy $share"),
    "foreign": (FOREIGN, "umount --lazy $share"),
}
# What preflight says of each.
SAYS = {"missing": "is no mount point", "empty": "has no marker", "foreign": "belongs to another cluster"}


def names(site: Site) -> set[str]:
    """Return the names of all repositories in the database."""
    return {repository["repo_name"] for repository in site.call("get_repos")}


@contextmanager
def share(host: Machine, storage: str, kind: str) -> Iterator[None]:
    """Let the share be gone, empty or another cluster's on a host."""
    bring_about, put_back = SHARES[kind]
    # The units see it too, since create.yml lets mounts spread to them.
    host.run(f"set -e; share={storage}; {bring_about}")
    try:
        yield
    finally:
        host.run(f"set -e; share={storage}; {put_back}")


def scan_by_api(site: Site, settings: Settings, host: str) -> Answer:
    """Ask a host, past the balancer, to scan its share and to forget the repositories that are not on it."""
    arguments = {"id": 1, "api_key": settings.secrets["admin_api_key"], "method": "rescan_repos", "args": {"remove_obsolete": True}}
    port = next(iter(settings.host_pools[host].values()))["port"]
    return site.request("POST", "/_admin/api", {"Content-Type": "application/json"}, json.dumps(arguments), port=port, node=host)


# The second application host and the CI host; without an entry the share is as it should be. Another cluster's stops a run before others are looked at.
@pytest.mark.parametrize("kinds", [("missing", "empty"), ("foreign",)], ids="-".join)
def test_share_of_some_hosts(
    kinds: tuple[str, ...],
    machines: dict[str, Machine],
    cluster: dict[str, Machine],
    balancer: Balancer,
    settings: Settings,
    site: Site,
    client: Client,
    make_repository: Make,
) -> None:
    """Such hosts are taken out and say why, others go on, no scan on them removes a repository, and preflight stops before anything is changed."""
    users = Users(site, client, settings, make_repository)
    word = f"before-{kinds[0]}"
    users.push(word)
    hosts = dict(zip((settings.groups["app"][1], settings.groups["ci"][0]), kinds, strict=False))
    repositories = names(site)
    assert set(users.repositories) <= repositories

    def are_out() -> bool:
        return all(status.startswith("DOWN") for (_, server), status in balancer.statuses().items() if server in hosts)

    with ExitStack() as stack:
        for host, kind in hosts.items():
            stack.enter_context(share(machines[host], settings.storage, kind))
        wait_until(f"the balancer without {', '.join(hosts)}", are_out, OUT_SECONDS)
        users.look(8)
        users.clone(word)
        users.clone_as_bot(word)
        for host in hosts:
            reason = machines[host].probe(HEALTH)
            assert reason.startswith("503") and "storage" in reason, reason
            scan = machines[host].try_run("kallithea-cli repo-scan --remove-missing")
            assert scan.status != 0, f"the scan was not refused: {scan}"
            assert settings.storage in scan.errors and "Traceback" not in scan.errors, f"no sentence but {scan.errors[-500:]}"
            answer = scan_by_api(site, settings, host)
            assert names(site) == repositories, f"a scan on {host} removed repositories"
            assert "Traceback" not in answer.text and (answer.status != 200 or json.loads(answer.text)["error"]), f"it was not refused: {answer.text[:300]}"
        with playbook_runs.unchanged(cluster.values(), settings):
            run = playbook_runs.run("preflight", seconds=RUN_SECONDS)
            run.check(settings.secrets)
            run.check_sentences([rf"The storage {settings.storage} of (?:host )?{host} [^;]*{SAYS[kind]}" for host, kind in hosts.items()])
    wait_until("every server up", balancer.all_up, 60)
    users.push(f"after-{kinds[0]}")
    assert names(site) == repositories
