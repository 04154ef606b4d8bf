#!/usr/bin/env python3
"""Boots User-Mode Linux inside a container so that the guest is what the container's address leads to.

The container's address, gateway and name become the guest's; a bridge joins the container's interface with the guest's.
The disk is a copy-on-write file over /machine/root.img, which outlives a cut of the power. The console goes to standard
output. A stop of the container is a press of the guest's power button.
"""

from __future__ import annotations

import ipaddress
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

OUTER, BRIDGE, TAP = "eth0", "br0", "tap0"
ROOT, DISK = "/machine/root.img", "/machine/disk.cow"
STATE = Path("/run/machine")
KERNEL = "/usr/bin/linux.uml"
# A kernel that reboots runs its own name once more, but with its network card still in its hand: the name is of a script that ends with this.
REBOOT, REBOOTED = "/usr/local/sbin/machine-reboot", 64
NAME = "guest"
MEMORY_MIB = "2048"
# The management console's protocol: magic, version, length, text.
REQUEST = struct.Struct("<III512s")
MAGIC, VERSION = 0xCAFEBABE, 2


@dataclass(frozen=True)
class Network:
    """What the container has and the guest gets."""

    address: str
    netmask: str
    gateway: str
    # Neighbours may have asked before the guest was there: it keeps the container's.
    mac: str

    @property
    def port_mac(self) -> str:
        """Return a hardware address for the container's interface, which is a port of the bridge now."""
        return "02:4b:" + ":".join(f"{byte:02x}" for byte in ipaddress.IPv4Address(self.address).packed)


def network(links: list[dict[str, Any]], routes: list[dict[str, Any]]) -> Network:
    """Read the network from ip's JSON; a network that leads nowhere has no gateway."""
    link, info = next((link, info) for link in links for info in link["addr_info"] if info["family"] == "inet")
    interface = ipaddress.IPv4Interface(f"{info['local']}/{info['prefixlen']}")
    gateway = next((route["gateway"] for route in routes if "gateway" in route), "")
    return Network(str(interface.ip), str(interface.netmask), gateway, link["address"])


def command(net: Network, hostname: str, memory: str) -> list[str]:
    """Return the kernel's command line."""
    return [
        REBOOT,
        f"mem={memory}M",
        f"uml_dir={STATE}",
        f"umid={NAME}",
        f"ubd0={DISK},{ROOT}",
        # All that the guest may mount of the container.
        "hostfs=/usr/lib/uml/modules",
        "root=/dev/ubda",
        "rw",
        f"vec0:transport=tap,ifname={TAP},depth=128,gro=1,mac={net.mac}",
        "seccomp=auto",
        f"systemd.hostname={hostname}",
        f"ip={net.address}::{net.gateway}:{net.netmask}:{hostname}:vec0:off",
        "con=null",
        "con0=null,fd:1",
        "ssl=null",
    ]


def request(text: str) -> bytes:
    """Return the packet that asks the management console."""
    return REQUEST.pack(MAGIC, VERSION, len(text), text.encode())


def ip(*arguments: str) -> Any:
    """Run ip; return what it says."""
    done = subprocess.run(["ip", "-json", *arguments], check=True, capture_output=True, text=True)
    return json.loads(done.stdout or "[]")


def join(net: Network) -> None:
    """Give the container's address away: the bridge has none."""
    ip("address", "flush", "dev", OUTER)
    ip("link", "set", OUTER, "address", net.port_mac)
    ip("link", "add", BRIDGE, "type", "bridge", "forward_delay", "0")
    ip("tuntap", "add", TAP, "mode", "tap")
    for port in (OUTER, TAP):
        ip("link", "set", port, "master", BRIDGE)
        ip("link", "set", port, "up")
    ip("link", "set", BRIDGE, "up")


def press_power_button() -> None:
    """Let the guest shut down."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as console:
        console.bind(str(STATE / "stop"))
        console.sendto(request("cad"), str(STATE / NAME / "mconsole"))


def boot(arguments: list[str]) -> int:
    """Run the guest until it is off or reboots."""
    # A cut leaves the process number of the guest, which is another's now.
    shutil.rmtree(STATE, ignore_errors=True)
    STATE.mkdir()
    return subprocess.run(arguments, executable=KERNEL, stdin=subprocess.DEVNULL, env={**os.environ, "TMPDIR": "/dev/shm"}, check=False).returncode


def main() -> int:
    """Boot as often as the guest asks for it."""
    net = network(ip("address", "show", "dev", OUTER), ip("route", "show", "default"))
    join(net)
    signal.signal(signal.SIGTERM, lambda *_: press_power_button())
    arguments = command(net, socket.gethostname(), os.environ.get("MACHINE_MEMORY", MEMORY_MIB))
    while (status := boot(arguments)) == REBOOTED:
        print("machine-boot: the guest reboots", flush=True)
    return status


if __name__ == "__main__":
    sys.exit(main())
