"""The entry of the container around a machine, and the tests' way to it."""

from __future__ import annotations

import importlib.util
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
from machines import CONTROL, Access, Machine, cut_rules

ROOT = Path(__file__).resolve().parents[2]
SPEC = importlib.util.spec_from_file_location("machine_boot", ROOT / "scripts/lib/machine_boot.py")
assert SPEC is not None and SPEC.loader is not None
machine_boot: Any = importlib.util.module_from_spec(SPEC)
sys.modules[SPEC.name] = machine_boot
SPEC.loader.exec_module(machine_boot)

ADDRESSES = [
    {
        "address": "02:42:ac:13:00:0a",
        "addr_info": [{"family": "inet6", "local": "fe80::1", "prefixlen": 64}, {"family": "inet", "local": "172.19.0.10", "prefixlen": 16}],
    }
]
ACCESS = Access(Path("/state/ssh_config"), "opens-sudo")


@pytest.mark.parametrize(
    ("routes", "gateway"),
    [([{"dst": "default", "gateway": "172.19.0.1", "dev": "eth0"}], "172.19.0.1"), ([], "")],
)
def test_the_guest_gets_the_address_of_its_container(routes: list[dict[str, Any]], gateway: str) -> None:
    """With its mask, its hardware address, which neighbours may know already, and the gateway where the network leads somewhere."""
    found = machine_boot.network(ADDRESSES, routes)
    assert (found.address, found.netmask, found.gateway) == ("172.19.0.10", "255.255.0.0", gateway)
    assert (found.mac, found.port_mac) == ("02:42:ac:13:00:0a", "02:4b:ac:13:00:0a")
    arguments = machine_boot.command(found, "store1", "1024")
    assert f"ip=172.19.0.10::{gateway}:255.255.0.0:store1:vec0:off" in arguments
    assert "vec0:transport=tap,ifname=tap0,depth=128,gro=1,mac=02:42:ac:13:00:0a" in arguments
    assert {"mem=1024M", "systemd.hostname=store1", "hostfs=/usr/lib/uml/modules"} <= set(arguments)
    # A reboot must not run the kernel that still holds the network card.
    assert arguments[0] == machine_boot.REBOOT


def test_the_power_button_is_a_packet_of_the_console() -> None:
    """The management console takes packets of one size: magic number, version, length, text."""
    packet = machine_boot.request("cad")
    assert len(packet) == 524
    assert machine_boot.REQUEST.unpack(packet)[:3] == (0xCAFEBABE, 2, 3)
    assert packet[12:].rstrip(b"\0") == b"cad"


def test_the_password_of_sudo_is_read_before_the_script_s_input() -> None:
    """It is on no command line, and the far shell gets the script as one word."""
    machine = Machine("store1", "demo-store1", ACCESS)
    command, stdin = machine.command("echo 'a b'; cat", "text", 5)
    assert stdin == "opens-sudo\ntext"
    assert command[:-1] == ["ssh", "-F", "/state/ssh_config", "demo-store1"]
    assert shlex.split(command[-1]) == ["sudo", "-k", "-S", "-p", "", "timeout", "--kill-after=5", "5", "bash", "-c", "echo 'a b'; cat"]
    assert "opens-sudo" not in " ".join(command) + repr(ACCESS)


def test_a_cut_is_for_both_directions() -> None:
    """Nothing to and from the addresses crosses the bridge."""
    assert "ip daddr { 192.0.2.1, 192.0.2.2 } drop; ip saddr { 192.0.2.1, 192.0.2.2 } drop;" in cut_rules(["192.0.2.2", "192.0.2.1"])


def test_a_container_s_path_is_not_cut() -> None:
    """There is no bridge around it."""
    with pytest.raises(AssertionError, match="machines only"), Machine("rest1", "demo-rest1").cut_off(["192.0.2.1"]):
        pass


def test_the_console_is_printed_without_colours_and_moves() -> None:
    """What the kernel and systemd print for a terminal becomes plain text."""
    assert CONTROL.sub("", "\x1b[!p\x1b]104\x1b\\\x1b[?7h[\x1b[0;32m  OK  \x1b[0m] Started ssh\r\n") == "[  OK  ] Started ssh\n"
