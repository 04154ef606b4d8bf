"""What is wrong with the variables of the role app."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.kallithea.cluster.plugins.filter.application import application_problems

GOOD: dict[str, Any] = {
    "name": "app1",
    "pools": {"ui": {"processes": 3, "port": 8081}},
    "static_port": 8080,
    "purge_deleted_after": "",
    "trusted_proxies": ["192.0.2.1"],
    "direct_clients": ["2001:db8::/32"],
    "metrics_bind": "127.0.0.1:8406",
    "metrics_networks": [],
    "index_seconds": 1800,
    "cleanup_seconds": 86400,
    "session_days": 30,
    "beaker_keep_days": 30,
    "maintenance_seconds": 86400,
    "maintenance_run_seconds": 7200,
    "maintenance_repository_seconds": 900,
    "write_wait_seconds": 10,
    "pull_log_days": 90,
    "verified_password_seconds": 30,
}


def test_the_defaults_are_fine() -> None:
    assert application_problems(GOOD) == []


@pytest.mark.parametrize("seconds", [0, 300])
def test_the_bounds_are_fine(seconds: int) -> None:
    assert application_problems({**GOOD, "verified_password_seconds": seconds, "pull_log_days": 1}) == []


@pytest.mark.parametrize("age", ["30d", "12h"])
def test_an_age_in_days_or_hours_is_fine(age: str) -> None:
    assert application_problems({**GOOD, "purge_deleted_after": age}) == []


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"static_port": 8081}, "kallithea_app_static_port 8081 is the port of a pool of host app1; give static files a port of their own."),
        (
            {"purge_deleted_after": "0d"},
            "kallithea_app_purge_deleted_after is '0d'; give days or hours such as 30d, or leave it empty to keep deleted repositories.",
        ),
        (
            {"purge_deleted_after": 30},
            "kallithea_app_purge_deleted_after is '30'; give days or hours such as 30d, or leave it empty to keep deleted repositories.",
        ),
        ({"trusted_proxies": []}, "kallithea_app_trusted_proxies is empty, so no balancer could reach the pools; name the balancers' addresses."),
        ({"static_port": "8081"}, "kallithea_app_static_port 8081 is the port of a pool of host app1; give static files a port of their own."),
        ({"metrics_bind": "8406"}, "kallithea_app_metrics_bind is '8406': give an address and a port, such as 127.0.0.1:8405 or *:8405."),
        ({"metrics_networks": ["x"]}, "kallithea_app_metrics_networks holds 'x', which is neither an address nor a network such as 192.0.2.0/24."),
        ({"direct_clients": ["x y"]}, "kallithea_app_direct_clients holds 'x y', which is neither an address nor a network such as 192.0.2.0/24."),
        ({"index_seconds": "soon"}, "kallithea_app_index_seconds is soon; give at least 60."),
        ({"index_seconds": 5}, "kallithea_app_index_seconds is 5; give at least 60."),
        ({"maintenance_run_seconds": 0}, "kallithea_app_maintenance_run_seconds is 0; give at least 1."),
        ({"write_wait_seconds": "no"}, "kallithea_app_write_wait_seconds is no; give at least 0."),
        ({"pull_log_days": 0}, "kallithea_app_pull_log_days is 0; give at least 1."),
        ({"verified_password_seconds": "no"}, "kallithea_app_verified_password_seconds is no; give at least 0."),
        ({"verified_password_seconds": 3600}, "kallithea_app_verified_password_seconds is 3600; give at most 300."),
        ({"session_days": 0}, "kallithea_app_session_days is 0; give at least 1."),
    ],
)
def test_each_mistake_is_one_sentence(change: dict[str, Any], sentence: str) -> None:
    assert application_problems({**GOOD, **change}) == [sentence]
