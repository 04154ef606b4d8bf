"""What has to be the same on every application host."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.kallithea.cluster.plugins.filter.nodes import node_differences
from render import ROOT, render

POOLS = {"ui": {"processes": 3, "port": 8081}, "ci": {"processes": 2, "port": 8084}}
APP1 = {"name": "app1", "ci": False, "pools": POOLS, "celery": 2}
APP2 = {"name": "app2", "ci": False, "pools": {"ui": {"processes": 9, "port": 8081}, "ci": {"processes": 1, "port": 8084}}, "celery": 1}
CI1 = {"name": "ci1", "ci": True, "pools": {"ci": {"processes": 4, "port": 8084}}, "celery": 0}
TEMPLATES = sorted(path.name for path in (ROOT / "roles" / "app" / "templates").glob("*.j2"))
INI = "/etc/kallithea/kallithea.ini"


def test_the_same_everywhere() -> None:
    assert node_differences({host: {INI: "a", "uid": "900"} for host in ("app1", "app2", "ci1")}) == []
    assert node_differences({"app1": {INI: "a"}}) == []
    assert node_differences({}) == []


def test_the_one_that_differs_is_named() -> None:
    (problem,) = node_differences({"app1": {INI: "a", "uid": "900"}, "app2": {INI: "b", "uid": "900"}, "ci1": {INI: "a", "uid": "900"}})
    assert problem.startswith(f"{INI} differs on app2 from app1, ci1, but must be the same")


def test_of_two_the_first_is_the_pattern() -> None:
    (problem,) = node_differences({"app1": {INI: "a"}, "app2": {INI: "b"}})
    assert problem.startswith(f"{INI} differs on app2 from app1,")


def test_what_is_missing_on_one_host_differs() -> None:
    (problem,) = node_differences({"app1": {INI: "a"}, "app2": {}})
    assert problem.startswith(f"{INI} differs on app2 from app1,")


def test_a_sentence_for_each_thing() -> None:
    problems = node_differences({"app1": {INI: "a", "uid": "900"}, "app2": {INI: "b", "uid": "901"}})
    assert [problem.split(" differs")[0] for problem in problems] == [INI, "uid"]


def rendered(template: str, host: dict[str, Any], nodes: list[dict[str, Any]]) -> str:
    """Return a template as it is written on a host."""
    secrets = ("cluster_id", "database_password", "database_health_password", "broker_password", "session_secret", "app_instance_uuid")
    return render(
        "app",
        template,
        {
            "inventory_hostname": host["name"],
            "kallithea_hostname": "scm.example.org",
            "kallithea_secrets": dict.fromkeys(secrets, "secret"),
            "kallithea_app_nodes": nodes,
            "kallithea_app_database_hosts": ["192.0.2.20"],
            "kallithea_app_broker_hosts": ["192.0.2.21"],
            "kallithea_app_trusted_proxies": ["192.0.2.1"],
            "kallithea_app_celery_processes": host["celery"],
            "__kallithea_app_release_id": "one",
            "__kallithea_app_release_path": "/opt/kallithea/releases/one",
            "__kallithea_app_python": "3.11",
            "__kallithea_app_listen": [""],
            "__kallithea_app_timer": "index",
            "__kallithea_common_as_user": ["setpriv"],
        },
    )


@pytest.mark.parametrize("template", [name for name in TEMPLATES if name not in ("hardening.j2", "job.service.j2")])
def test_a_new_host_changes_nothing_on_the_others(template: str) -> None:
    assert rendered(template, APP1, [APP1]) == rendered(template, APP1, [APP2, APP1, CI1])


@pytest.mark.parametrize("template", ["kallithea.ini.j2", "dispatch.wsgi.j2", "kallithea-cli.j2", "health.json.j2"])
def test_what_is_the_same_on_every_host(template: str) -> None:
    nodes = [APP1, APP2, CI1]
    assert len({rendered(template, host, nodes) for host in nodes}) == 1


def test_a_ci_node_has_the_pool_ci_alone() -> None:
    text = rendered("apache.conf.j2", CI1, [APP1, CI1])
    assert "process-group=kallithea-ci " in text
    assert "kallithea-ui" not in text
    assert text.count("<VirtualHost ") == 3, "Apache's status, static files and the pool ci"
