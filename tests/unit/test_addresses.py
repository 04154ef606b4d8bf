"""Texts that are addresses or networks."""

from __future__ import annotations

import pytest
from ansible_collections.kallithea.cluster.plugins.module_utils.addresses import is_address, network


@pytest.mark.parametrize("text", ["192.0.2.1", "::1", "fe80::1%eth0"])
def test_an_address_is_a_network_of_one_host(text: str) -> None:
    found = network(text)
    assert is_address(text) and found is not None and found.num_addresses == 1


@pytest.mark.parametrize("text", ["192.0.2.0/24", "192.0.2.1/24", "192.0.2.0/255.255.255.0", "2001:db8::/32"])
def test_a_network_is_no_address(text: str) -> None:
    assert network(text) is not None and not is_address(text)


@pytest.mark.parametrize("text", ["", "1", "a", "192.0.2.1/33", "192.0.2", "01.2.3.4", " 192.0.2.1"])
def test_anything_else_is_neither(text: str) -> None:
    assert network(text) is None and not is_address(text)
