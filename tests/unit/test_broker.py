"""RabbitMQ's password hash, and what systemd and the broker say of it."""

from __future__ import annotations

import base64
import hashlib

import pytest
from ansible_collections.kallithea.cluster.plugins.filter.broker import has_definitions, newer_than, rabbitmq_password_hash, stranger_problems

WANTED = {
    "users": [{"name": "k", "password_hash": "x", "tags": ""}],
    "vhosts": [{"name": "v"}],
    "permissions": [{"user": "k", "vhost": "v", "read": ".*"}],
}
EXPORTED = {
    "users": [{"name": "guest", "password_hash": "y", "tags": ["administrator"]}, {"name": "k", "password_hash": "x", "tags": [], "limits": {}}],
    "vhosts": [{"name": "v", "limits": []}],
    "permissions": [{"user": "k", "vhost": "v", "read": ".*", "write": ".*"}],
}


def test_hash_is_salt_and_sha256_over_salt_and_password() -> None:
    raw = base64.b64decode(rabbitmq_password_hash("test12", "kallithea"))
    assert raw[4:] == hashlib.sha256(raw[:4] + b"test12").digest()
    assert rabbitmq_password_hash("test12", "kallithea") == rabbitmq_password_hash("test12", "kallithea")
    assert rabbitmq_password_hash("test12", "kallithea") != rabbitmq_password_hash("test12", "other")


@pytest.mark.parametrize(("written", "moment", "newer"), [(10.9, "@10", False), (11.0, "@10", True), (9.0, "@10", False), (99.0, "", False)])
def test_a_file_written_after_the_start(written: float, moment: str, newer: bool) -> None:
    assert newer_than({"/a": written, "/b": 10.0}, moment, ["/a"]) is newer


def test_missing_file_is_not_newer() -> None:
    assert newer_than({}, "@10", ["/a"]) is False


def test_the_broker_has_what_is_wanted_among_others() -> None:
    assert has_definitions(EXPORTED, WANTED)
    assert not has_definitions({}, WANTED)


@pytest.mark.parametrize(
    ("kind", "entries"),
    [
        ("users", [{"name": "k", "password_hash": "other", "tags": []}]),
        ("users", [{"name": "k", "password_hash": "x", "tags": ["administrator"]}]),
        ("vhosts", []),
        ("permissions", [{"user": "k", "vhost": "v", "read": ""}]),
    ],
)
def test_the_broker_differs(kind: str, entries: list) -> None:
    assert not has_definitions({**EXPORTED, kind: entries}, WANTED)


def test_a_broker_with_somebody_elses_users_is_refused() -> None:
    listed = '[{"user":"guest","tags":[]},{"user":"celery","tags":[]},{"user":"kallithea","tags":[]}]'
    (sentence,) = stranger_problems(listed, "mq1", "kallithea")
    assert sentence.startswith("The RabbitMQ of mq1 has users of somebody else (celery), whom this role would remove:")


def test_a_fresh_broker_and_one_that_was_not_asked_are_fine() -> None:
    assert stranger_problems('[{"user":"guest","tags":["administrator"]}]', "mq1", "kallithea") == []
    assert stranger_problems("", "mq1", "kallithea") == []
