"""Parsing what a host says of itself."""

from __future__ import annotations

import pytest
from ansible_collections.kallithea.cluster.plugins.module_utils import host_state


def test_listening_sockets_only() -> None:
    lines = [
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode",
        "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100 0 0 10 0",
        "   1: 0100007F:1F91 0100007F:9999 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 0 100 0 0 10 0",
    ]
    assert host_state.parse_listening(lines) == [(8080, "4711")]


def test_memory_and_cgroup() -> None:
    assert host_state.parse_meminfo_mb("MemTotal:        2048000 kB\nMemFree: 1 kB\n") == 2000
    assert host_state.parse_cgroup_limit_mb("max", 2000) == 2000
    assert host_state.parse_cgroup_limit_mb("1048576000", 2000) == 1000
    assert host_state.parse_cgroup_limit_mb("9223372036854771712", 2000) == 2000


@pytest.mark.parametrize(("text", "cores"), [("max 100000", 2.0), ("50000 100000", 0.5), ("", 2.0), ("900000 100000", 2.0)])
def test_cpu_quota(text: str, cores: float) -> None:
    assert host_state.parse_cpu_quota(text, 2) == cores


@pytest.mark.parametrize(
    ("text", "cluster"),
    [('{"cluster_id": "abc"}\n', "abc"), ("", ""), ("{", ""), ("[]", ""), ("7", ""), ('{"cluster_id": 7}', ""), ('{"other": "abc"}', "")],
)
def test_a_damaged_identity_names_no_cluster(text: str, cluster: str) -> None:
    assert host_state.parse_cluster_id(text) == cluster
