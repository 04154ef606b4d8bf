# Copyright: The kallithea.cluster maintainers
# GPL-3.0-or-later (see LICENSE)
"""Whether a text is an address or a network."""

from __future__ import annotations

import ipaddress


def network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    """Return the network that a text names, an address being one of a single host, or nothing where it names none."""
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None


def is_address(text: str) -> bool:
    """Tell whether a text is the address of a host."""
    return "/" not in text and network(text) is not None


def split_bind(bind: object) -> tuple[str, str]:
    """Return the host and the port of what a server listens on."""
    host, _, port = str(bind).rpartition(":")
    return host, port


def bind_problem(variable: str, bind: object) -> list[str]:
    """Return a sentence where a variable holds no address and port to listen on."""
    host, port = split_bind(bind)
    if port.isascii() and port.isdigit() and 0 < int(port) < 65536 and (host in ("*", "localhost") or (network(host.strip("[]")) and "/" not in host)):
        return []
    return [f"{variable} is '{bind}': give an address and a port, such as 127.0.0.1:8405 or *:8405."]
