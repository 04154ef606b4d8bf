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
