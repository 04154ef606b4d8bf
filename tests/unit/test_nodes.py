"""What has to be the same on every application host."""

from __future__ import annotations

from ansible_collections.kallithea.cluster.plugins.filter.nodes import node_differences

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
