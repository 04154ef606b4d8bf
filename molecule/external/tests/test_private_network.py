"""Who reaches what: only cache and build host are in the outer network; packages came by the cache, the release from the build host."""

from __future__ import annotations

import json

import pytest
from machines import Machine, quote
from settings import Settings

CACHE_PORT = 3142
CONNECT = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), 3).close()
    print("connected")
except OSError as error:
    print(error)
"""


def connect(machine: Machine, address: str, port: int = CACHE_PORT) -> str:
    """Tell what comes of connecting."""
    return machine.run(f"python3 -c {quote(CONNECT)} {address} {port}").strip()


@pytest.fixture(scope="module")
def outer_address(machines: dict[str, Machine], settings: Settings) -> str:
    """Return the cache's address in the outer network."""
    found = [
        address["local"]
        for interface in json.loads(machines["cache"].run("ip -json -4 address show scope global"))
        for address in interface["addr_info"]
        if address["local"] != settings.addresses["cache"]
    ]
    assert len(found) == 1
    return str(found[0])


@pytest.mark.parametrize("name", ["app1", "extdb", "extmq", "client"])
def test_no_way_out(machines: dict[str, Machine], settings: Settings, outer_address: str, name: str) -> None:
    """Inside, the cache answers; its address in the outer network, which the build host reaches, leads nowhere."""
    assert connect(machines[name], settings.addresses["cache"]) == "connected"
    assert connect(machines[name], outer_address) != "connected"


def test_the_build_host_gets_out(machines: dict[str, Machine], outer_address: str) -> None:
    """What the test above finds closed is open to it."""
    assert connect(machines["build"], outer_address) == "connected"


def test_packages_came_by_the_cache(app: Machine, machines: dict[str, Machine]) -> None:
    """What was installed lies in the cache."""
    kept = machines["cache"].run("ls /var/cache/package-cache")
    for package in ("apache2-bin", "haproxy", "git"):
        assert app.host.package(package).is_installed
        assert f"-{package}_" in kept


def test_the_release_was_built_on_the_build_host(app: Machine, machines: dict[str, Machine]) -> None:
    """There are the tools and the user of a build; on the application host is the release alone."""
    build = machines["build"]
    for package in ("npm", "gcc", "libpq-dev"):
        assert build.host.package(package).is_installed
        assert not app.host.package(package).is_installed
    assert build.host.user("kallithea-build").exists and not app.host.user("kallithea-build").exists
    assert app.host.file("/opt/kallithea/current/release.json").exists
    assert build.run("ls /opt/kallithea/releases") == ""


def test_the_build_host_has_nothing_of_the_site(machines: dict[str, Machine]) -> None:
    """It builds and does nothing else."""
    build = machines["build"]
    assert not build.host.file("/etc/kallithea").exists
    assert not build.host.package("apache2-bin").is_installed
