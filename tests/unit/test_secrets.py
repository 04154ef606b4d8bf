"""The secrets' filters: complete without changing, refuse without printing."""

from __future__ import annotations

import pytest
from ansible_collections.kallithea.cluster.plugins.filter.secrets import LENGTHS, bad_secrets, missing_secrets, with_missing_secrets


def test_missing_secrets_are_made_and_good() -> None:
    made = with_missing_secrets(None)
    assert missing_secrets(None) == list(LENGTHS)
    assert missing_secrets(made) == []
    assert bad_secrets(made) == []
    assert {name: len(value) for name, value in made.items()} == LENGTHS


def test_existing_secrets_are_never_changed() -> None:
    known = {"database_password": "abcDEF123456"}
    assert with_missing_secrets(known)["database_password"] == "abcDEF123456"
    assert with_missing_secrets(None)["database_password"] != with_missing_secrets(None)["database_password"]


@pytest.mark.parametrize("value", ["with%percent", "with:colon", "with blank", "short", 12345678, "ümlautümlaut"])
def test_a_secret_that_kallithea_cannot_take_is_named_but_not_printed(value: object) -> None:
    problems = bad_secrets({**with_missing_secrets(None), "broker_password": value})
    assert len(problems) == 1
    assert "kallithea_secrets.broker_password" in problems[0]
    assert str(value) not in problems[0].replace("shorter", "")


def test_a_given_secret_is_named_as_the_user_gave_it() -> None:
    known = {**with_missing_secrets(None), "broker_password": "with%percent", "databse": "abcdefgh"}
    problems = bad_secrets(known, {"broker_password": "with%percent", "databse": "abcdefgh"})
    assert [problem.split(" ")[0] for problem in problems] == ["kallithea_given_secrets.broker_password", "kallithea_given_secrets"]


def test_unknown_key_and_wrong_key_length() -> None:
    assert "unknown key 'databse'" in bad_secrets({"databse": "abcdefgh"})[0]
    assert "40 characters" in bad_secrets({**with_missing_secrets(None), "admin_api_key": "abcdefgh1"})[0]
    assert bad_secrets("text")
