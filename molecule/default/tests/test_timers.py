"""What is done once per cluster is done once, whichever host is down."""

from __future__ import annotations

import re
import time
from concurrent.futures import ThreadPoolExecutor

import faults
from balancer import Balancer
from machines import Machine, wait_until
from settings import Settings

PSQL = "cd / && runuser -u postgres -- psql -X -A -t -q -v ON_ERROR_STOP=1 kallithea"
RUNNER = "SELECT value FROM kallithea_cluster WHERE key = 'last_run:index';"
AGED = "UPDATE kallithea_cluster SET changed = changed - interval '2 days' WHERE key = 'last_run:index';"
LEFT_ALONE = re.compile(r"Another node runs it\.|Done in this period already, on \S+")
JOB_SECONDS = 150.0


def test_job_runs_once_without_its_last_runner(machines: dict[str, Machine], balancer: Balancer, settings: Settings) -> None:
    """The host that did the job last is frozen and the job is due: all others begin at the same moment, and one of them does it."""
    hosts = settings.groups["app"] + settings.groups["ci"]
    database = machines[settings.groups["database"][0]]

    def start(host: str) -> None:
        machines[host].run("systemctl start kallithea-index.service", seconds=JOB_SECONDS)

    for host in hosts:
        # No timer may come in between; the job begins by hand alone.
        machines[host].run("systemctl is-active kallithea-index.timer && systemctl stop kallithea-index.timer")
    try:
        for host in hosts:
            start(host)
        last = database.run(PSQL, stdin=RUNNER).strip()
        assert last in hosts, f"the job was done last on {last!r}"
        left = [host for host in hosts if host != last]
        with faults.frozen(machines[last]):
            database.run(PSQL, stdin=AGED)
            begin = time.time()
            with ThreadPoolExecutor() as executor:
                list(executor.map(start, left))
            journal = f"journalctl --sync; journalctl --quiet --no-pager --output=cat --identifier=kallithea-index --since=@{begin:.3f}"
            said = {host: machines[host].run(journal) for host in left}
            runners = [host for host in left if not LEFT_ALONE.search(said[host])]
            assert len(runners) == 1, f"the job was done on {runners}; the hosts said {said}"
            assert database.run(PSQL, stdin=RUNNER).strip() == runners[0]
    finally:
        for host in hosts:
            machines[host].run("systemctl start kallithea-index.timer")
    wait_until("every server up", balancer.all_up, faults.RETURN_SECONDS, 1.0)
