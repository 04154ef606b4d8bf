# Copyright: The kallithea.cluster maintainers
# GPL-3.0-or-later (see LICENSE)
"""The cluster's secrets: which there are, which are missing, which Kallithea cannot take."""

from __future__ import annotations

import re
import secrets
import string
from collections.abc import Mapping
from typing import Any

# Kallithea's API keys are 40 characters (kallithea/lib/utils2.py); the rest is our choice.
LENGTHS = {
    "cluster_id": 20,
    "database_password": 32,
    "database_health_password": 32,
    "broker_password": 32,
    "erlang_cookie": 32,
    "balancer_key": 32,
    "session_secret": 48,
    "app_instance_uuid": 32,
    "admin_password": 24,
    "admin_api_key": 40,
}
ALPHABET = string.ascii_letters + string.digits
# A percent sign stops Kallithea's start (alembic), a blank or colon breaks URLs: so letters and digits only.
ALLOWED = re.compile(r"[A-Za-z0-9]+")


def random_text(length: int) -> str:
    """Return random letters and digits."""
    return "".join(secrets.choice(ALPHABET) for _ in range(length))


def missing_secrets(known: Mapping[str, Any] | None) -> list[str]:
    """Return the names of the secrets that are not there yet."""
    known = known or {}
    return [name for name in LENGTHS if not known.get(name)]


def with_missing_secrets(known: Mapping[str, Any] | None) -> dict[str, str]:
    """Return the secrets, each missing one made anew; existing ones are never changed."""
    result = dict(known or {})
    for name in missing_secrets(known):
        result[name] = random_text(LENGTHS[name])
    return result


def bad_secrets(known: Any, given: Mapping[str, Any] | None = None) -> list[str]:
    """Return one sentence for each secret that Kallithea cannot take; the values are never part of it."""
    if not isinstance(known, Mapping):
        return ["kallithea_secrets is not a dictionary of names and values."]
    given = given or {}
    problems = []
    for name, value in known.items():
        variable = "kallithea_given_secrets" if name in given else "kallithea_secrets"
        if name not in LENGTHS:
            problems.append(f"{variable} has the unknown key '{name}'; remove it, the known ones are {', '.join(LENGTHS)}.")
        elif not isinstance(value, str) or not ALLOWED.fullmatch(value):
            problems.append(f"{variable}.{name} holds a character that Kallithea cannot take; use letters and digits only, in quotes.")
        elif len(value) < 8:
            problems.append(f"{variable}.{name} is shorter than 8 characters; give a longer one.")
    if not problems and len(str(known.get("admin_api_key", "x" * 40))) != 40:
        problems.append("kallithea_secrets.admin_api_key must have 40 characters, as Kallithea's own keys have.")
    return problems


class FilterModule:
    """Filters of the collection."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {
            "missing_secrets": missing_secrets,
            "with_missing_secrets": with_missing_secrets,
            "bad_secrets": bad_secrets,
        }
