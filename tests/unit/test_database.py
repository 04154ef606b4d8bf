"""What PostgreSQL's configuration is computed from."""

from __future__ import annotations

import copy
import pathlib

import pytest
from ansible_collections.kallithea.cluster.plugins.filter.database import (
    connection_budget,
    database_differences,
    holder_problems,
    memory_settings,
    scram_sha_256,
)

NODE = {"pools": {"ui": {"processes": 3}, "ci": {"processes": 2}}, "celery": 2}


@pytest.mark.parametrize(("nodes", "spare", "expected"), [([NODE], 0, 33), ([NODE], 1, 46), ([NODE, NODE], 1, 59), ([], 2, 20)])
def test_connection_budget(nodes: list, spare: int, expected: int) -> None:
    assert connection_budget(nodes, spare, 20) == expected


def test_processes_that_are_no_number_are_somebody_elses_sentence() -> None:
    assert connection_budget([{"pools": {"ui": {"processes": "two"}, "ci": {}}, "celery": 2}], 0, 20) == 23


def test_a_node_within_the_reserve_leaves_the_running_number() -> None:
    running = connection_budget([NODE, NODE], 1, 20)
    assert connection_budget([NODE, NODE, NODE], 1, 20, running) == running
    assert connection_budget([NODE, NODE, NODE, NODE], 1, 20, running) > running
    assert connection_budget([NODE], 1, 20, running) == running


def test_memory_never_exceeds_the_share() -> None:
    for memory in (1024, 4096, 65536):
        settings = memory_settings(memory, 0.25, 100)
        assert settings["shared_buffers"] < max(256, memory * 0.25)
        assert settings["work_mem"] >= 4


def test_scram_verifier_is_the_one_of_rfc_5802() -> None:
    first = scram_sha_256("abcdefgh", "kallithea")
    assert first == scram_sha_256("abcdefgh", "kallithea")
    assert first != scram_sha_256("abcdefgh", "other")
    assert first.startswith("SCRAM-SHA-256$4096:")
    assert len(first) == 133


def test_no_statement_with_its_values_reaches_the_log() -> None:
    template = pathlib.Path(__file__).parents[2] / "roles" / "database" / "templates" / "kallithea.conf.j2"
    # The last line of a name wins, so a user's own settings stand before these.
    lines = template.read_text(encoding="utf-8").partition("endfor")[2].splitlines()
    for line in (
        "log_destination = syslog",
        "log_statement = none",
        "log_min_duration_statement = -1",
        "log_min_error_statement = panic",
        "log_error_verbosity = terse",
        "log_parameter_max_length = 0",
        "log_parameter_max_length_on_error = 0",
    ):
        assert line in lines


WANTED = {
    "owner": "o",
    "logins": [
        {"name": "k", "verifier": "1", "configuration": "role=o", "member_of": ["o"]},
        {"name": "h", "verifier": "2", "configuration": "statement_timeout=1s", "member_of": []},
    ],
}
ROLE = {"login": True, "powers": False, "configuration": [], "member_of": []}
STATE = {
    "database": {"owner": "o", "rights": ["o:CREATE", "k:CONNECT", "h:CONNECT"]},
    "roles": {
        "o": {**ROLE, "login": False, "verifier": None},
        "k": {**ROLE, "verifier": "1", "configuration": ["role=o"], "member_of": ["o"]},
        "h": {**ROLE, "verifier": "2", "configuration": ["statement_timeout=1s", "x=y"]},
    },
}


def test_a_database_as_wanted_has_no_differences() -> None:
    assert database_differences(STATE, WANTED) == []


def test_everything_differs_where_nothing_is_there() -> None:
    assert database_differences({}, WANTED) == ["o", "k", "h", "the database"]
    assert database_differences({"roles": {}, "database": None}, WANTED) == ["o", "k", "h", "the database"]


@pytest.mark.parametrize(
    ("path", "value", "name"),
    [
        (("roles", "o", "login"), True, "o"),
        (("roles", "k", "powers"), True, "k"),
        (("roles", "k", "verifier"), None, "k"),
        (("roles", "k", "configuration"), [], "k"),
        (("roles", "k", "member_of"), [], "k"),
        (("roles", "h", "login"), False, "h"),
        (("roles", "h", "configuration"), ["statement_timeout=2s"], "h"),
        (("database", "owner"), "x", "the database"),
        (("database", "rights"), ["k:CONNECT"], "the database"),
        (("database", "rights"), ["k:CONNECT", "h:CONNECT", "PUBLIC:TEMPORARY"], "the database"),
    ],
)
def test_each_drift_is_seen(path: tuple[str, ...], value: object, name: str) -> None:
    state: dict = copy.deepcopy(STATE)
    entry = state
    for key in path[:-1]:
        entry = entry[key]
    entry[path[-1]] = value
    assert database_differences(state, WANTED) == [name]


def test_a_database_of_somebody_else_is_named_with_its_tables_owners() -> None:
    state = {"database": {"owner": "postgres", "rights": []}, "strangers": ["wiki"]}
    assert holder_problems(state, "db1", "kallithea", "kallithea_owner") == [
        "The database kallithea on db1 belongs to postgres and holds tables of wiki: give Kallithea a database of its own with kallithea_database_name, "
        "or let database and tables belong to kallithea_owner."
    ]


def test_a_server_without_our_database_and_our_own_are_fine() -> None:
    assert holder_problems({}, "db1", "kallithea", "kallithea_owner") == []
    assert holder_problems({"database": None, "strangers": []}, "db1", "kallithea", "kallithea_owner") == []
    assert holder_problems({"database": {"owner": "kallithea_owner"}, "strangers": []}, "db1", "kallithea", "kallithea_owner") == []


def test_tables_of_somebody_else_in_our_database_are_refused() -> None:
    state = {"database": {"owner": "kallithea_owner"}, "strangers": ["wiki"]}
    assert len(holder_problems(state, "db1", "kallithea", "kallithea_owner")) == 1
