"""A host's configuration comes from the whole inventory, whichever hosts a run is limited to."""

from __future__ import annotations

import playbook_runs
from machines import Machine
from settings import Settings

RUN_SECONDS = 300.0
# What has to be the same on every host that serves the application.
LIKENESS = """
set -e
sha256sum /etc/kallithea/kallithea.ini /etc/kallithea/dispatch.wsgi /etc/kallithea/cluster.json /usr/local/bin/kallithea-cli
readlink -f /opt/kallithea/current
id kallithea
"""


def test_site_limited_to_one_host_changes_nothing(settings: Settings) -> None:
    """The run knows one application host alone and writes for it what the run over all hosts wrote."""
    run = playbook_runs.run("site", "--limit", settings.node, seconds=RUN_SECONDS)
    run.check(settings.secrets)
    run.check_success(settings.node)
    assert set(run.changed) == {settings.node}, f"the run reached {sorted(run.changed)}"


def test_all_application_hosts_have_the_same_files(machines: dict[str, Machine], settings: Settings) -> None:
    """Release, secrets, ini, paths and numeric ids are one for the cluster, so that a session, a hook or a job works on each host."""
    likenesses = {host: machines[host].run(LIKENESS) for host in settings.groups["app"] + settings.groups["ci"]}
    assert len(set(likenesses.values())) == 1, likenesses
