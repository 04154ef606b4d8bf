"""Which port of which host is open to whom: only what the other side needs."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

from machines import Machine, quote
from settings import Settings

HEALTH_PORT = 8089
# What hosts commonly listen on, besides what these hosts say that they do.
COMMON_PORTS = {22, 25, 80, 111, 443, 1936, 2049, 4369, 5432, 5672, 6379, 8000, 8404, 8405, 9000, 15672, 15692, 25672}
# Connects to everything at once; whoever does not answer in time is closed.
SCANNER = """
import errno, json, select, socket, sys, time
waiting, found, poll = {}, {}, select.poll()
for target, (address, ports) in json.load(sys.stdin).items():
    found[target] = []
    for port in ports:
        one = socket.socket()
        one.setblocking(False)
        if one.connect_ex((address, port)) == errno.EINPROGRESS:
            waiting[one.fileno()] = one, target, port
            poll.register(one, select.POLLOUT)
deadline = time.monotonic() + 5
while waiting and time.monotonic() < deadline:
    for number, _ in poll.poll(200):
        poll.unregister(number)
        one, target, port = waiting.pop(number)
        if one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
            found[target].append(port)
        one.close()
print(json.dumps(found))
"""


def expected(settings: Settings, source: str, target: str) -> set[int]:
    """Return the ports of a host that another one needs."""
    nodes = settings.host_pools
    asks_nodes = source in settings.groups["loadbalancer"] or settings.addresses[source] in settings.direct_clients
    ports: set[int] = set()
    if target in settings.groups["loadbalancer"]:
        ports |= {80, 443}
    if target in nodes and asks_nodes:
        ports |= {settings.static_port, HEALTH_PORT, *(pool["port"] for pool in nodes[target].values())}
    if target in settings.groups["database"] and source in nodes:
        ports |= {5432}
    if target in settings.groups["broker"] and source in nodes:
        ports |= {5672}
    return ports


def test_ports_open_between_all_hosts(machines: dict[str, Machine], settings: Settings) -> None:
    """From every host, within the cluster and outside it, only the ports that it needs are open on each host of the cluster."""

    def listening(host: str) -> set[int]:
        return {int(line.split()[3].rsplit(":", 1)[1]) for line in machines[host].run("ss -H -l -n -t").splitlines()}

    with ThreadPoolExecutor(len(machines)) as executor:
        ports = sorted(COMMON_PORTS.union(*executor.map(listening, settings.hosts)))

        def scan(source: str) -> dict[str, list[int]]:
            targets = {target: (settings.addresses[target], ports) for target in settings.hosts if target != source}
            found: dict[str, list[int]] = json.loads(machines[source].run(f"python3 -c {quote(SCANNER)}", json.dumps(targets)))
            return found

        found = dict(zip(machines, executor.map(scan, machines), strict=True))
    differences = {
        f"{source} to {target}": f"open {sorted(opened)}, expected {sorted(wanted)}"
        for source, targets in found.items()
        for target, opened in targets.items()
        if set(opened) != (wanted := expected(settings, source, target))
    }
    assert not differences
