"""A share that is missing, empty or another cluster's on one host is never taken for "all repositories were removed"."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

import playbook_runs
import pytest
from balancer import Balancer
from faults import Make, Users
from machines import Machine, quote, wait_until
from scm import Client
from settings import Settings
from web import Site

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
SAYS = {"missing": "is no mount point", "empty": r"has no marker", "foreign": "belongs to another cluster"}
UNITS = "kallithea-web kallithea-celery kallithea-health"


def everywhere(host: Machine, storage: str, script: str) -> None:
    """Run a script in the host's mount namespace and in that of each unit: in a container, mounts do not spread from one to the others."""
    inside = f"set -e; share={storage}; {script}"
    host.run(f"set -e; for pid in 1 $(systemctl show --property=MainPID --value {UNITS}); do nsenter --target=$pid --mount sh -c {quote(inside)}; done")


@contextmanager
def share(host: Machine, storage: str, kind: str) -> Iterator[None]:
    """Let the share be gone, empty or another cluster's on a host."""
    bring_about, put_back = SHARES[kind]
    everywhere(host, storage, bring_about)
    try:
        yield
    finally:
        everywhere(host, storage, put_back)


@pytest.mark.parametrize("kind", SHARES)
def test_share_of_one_host(
    kind: str,
    machines: dict[str, Machine],
    cluster: dict[str, Machine],
    balancer: Balancer,
    settings: Settings,
    site: Site,
    client: Client,
    make_repository: Make,
) -> None:
    """The host is taken out and says why, others go on, no scan on it removes a repository, and preflight stops before anything is changed."""
    users = Users(site, client, settings, make_repository)
    users.push(f"before-{kind}")
    host = machines[settings.groups["app"][1]]
    repositories = {repository["repo_name"] for repository in site.call("get_repos")}
    assert set(users.repositories) <= repositories

    def is_out() -> bool:
        return all(status.startswith("DOWN") for (_, server), status in balancer.statuses().items() if server == host.name)

    with share(host, settings.storage, kind):
        wait_until(f"the balancer without {host.name}", is_out, OUT_SECONDS)
        reason = host.probe(HEALTH)
        assert reason.startswith("503") and "storage" in reason, reason
        users.look(8)
        users.clone(f"before-{kind}")

        scan = host.try_run("kallithea-cli repo-scan --remove-missing")
        assert scan.status != 0, f"the scan was not refused: {scan}"
        assert settings.storage in scan.errors and "Traceback" not in scan.errors, f"no sentence but {scan.errors[-500:]}"

        arguments = {"id": 1, "api_key": settings.secrets["admin_api_key"], "method": "rescan_repos", "args": {"remove_obsolete": True}}
        ui = settings.host_pools[host.name]["ui"]["port"]
        answer = site.request("POST", "/_admin/api", {"Content-Type": "application/json"}, json.dumps(arguments), port=ui, node=host.name)
        assert {repository["repo_name"] for repository in site.call("get_repos")} == repositories, "a scan over it removed repositories"
        assert "Traceback" not in answer.text and (answer.status != 200 or json.loads(answer.text)["error"]), f"the scan was not refused: {answer.text[:300]}"

        with playbook_runs.unchanged(cluster.values(), settings):
            run = playbook_runs.run("preflight", seconds=RUN_SECONDS)
            run.check(settings.secrets)
            run.check_sentences([rf"The storage {settings.storage} of (?:host )?{host.name} [^;]*?{SAYS[kind]}"])
    wait_until("every server up", balancer.all_up, 60)
    users.push(f"after-{kind}")
    assert {repository["repo_name"] for repository in site.call("get_repos")} == repositories
