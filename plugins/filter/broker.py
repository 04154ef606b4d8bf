# Copyright: The kallithea.cluster maintainers
# GPL-3.0-or-later (see LICENSE)
"""What RabbitMQ's definitions file needs, and what systemd and the broker say of it."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any


def rabbitmq_password_hash(password: str, context: str) -> str:
    """Return the hash that RabbitMQ's definitions take: base64 of a 4-byte salt and SHA-256 over salt and password.

    The salt follows from the password and the context (the user's name), so that a second run writes the same file.
    """
    salt = hashlib.sha256(f"{context}:{password}".encode()).digest()[:4]
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()


def newer_than(modified: Mapping[str, float], moment: str, paths: Sequence[str]) -> bool:
    """Tell whether one of the files was written after a service started (systemd's --timestamp=unix: @ and whole seconds).

    A service that never ran reads them when it starts.
    """
    return moment.startswith("@") and any(modified.get(path, 0.0) >= float(moment[1:]) + 1 for path in paths)


def has_definitions(exported: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Tell whether the broker has the wanted users, virtual hosts and rights, as it exports them."""

    def same(key: str, value: Any, there: Any) -> bool:
        # Tags are written as text and exported as a list.
        return (value or []) == (there or []) if key == "tags" else bool(value == there)

    return all(
        any(all(same(key, value, there.get(key)) for key, value in entry.items()) for there in exported.get(kind, []))
        for kind, entries in wanted.items()
        for entry in entries
    )


def stranger_problems(listed: str, host: str, user: str) -> list[str]:
    """Return a sentence where a broker that is not ours has users besides guest and our own."""
    names = [entry["user"] for entry in json.loads(listed)] if listed.startswith("[") else []
    others = [name for name in names if name not in ("guest", user)]
    if not others:
        return []
    return [
        f"The RabbitMQ of {host} has users of somebody else ({', '.join(others)}), whom this role would remove: give Kallithea a broker of its own "
        "on another host of the group kallithea_broker, or remove the users with rabbitmqctl delete_user."
    ]


class FilterModule:
    """Filters of the collection."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {
            "rabbitmq_password_hash": rabbitmq_password_hash,
            "newer_than": newer_than,
            "has_definitions": has_definitions,
            "stranger_problems": stranger_problems,
        }
