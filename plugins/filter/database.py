# Copyright: The kallithea.cluster maintainers
# GPL-3.0-or-later (see LICENSE)
"""What PostgreSQL's configuration is computed from."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from typing import Any

ITERATIONS = 4096


def _number(value: Any) -> int:
    """Return a number; what is none has a sentence of its own in the application's preflight."""
    return int(value) if str(value).isdigit() else 0


def connection_budget(nodes: Sequence[Mapping[str, Any]], spare_nodes: int, margin: int, running: int = 0) -> int:
    """Return max_connections: each process of a pool takes up to two (one in use, one of a push's hook), each Celery process one.

    A spare node counts like the largest one that is there. A number that the server runs with stays while it covers the nodes,
    since another one needs a restart.
    """
    each = [sum(2 * _number(pool.get("processes")) for pool in node["pools"].values()) + int(node["celery"]) + 1 for node in nodes]
    least = sum(each) + margin
    return running if running >= least else least + spare_nodes * max(each, default=0)


def memory_settings(memory_mb: int, share: float, connections: int) -> dict[str, int]:
    """Return PostgreSQL's memory settings, MiB, for its share of the host's memory."""
    given = max(256, int(memory_mb * share))
    shared = max(64, given // 4)
    return {
        "shared_buffers": shared,
        "effective_cache_size": max(128, given * 3 // 4),
        "maintenance_work_mem": min(2048, max(32, given // 16)),
        "work_mem": max(4, (given - shared) // (max(1, connections) * 3)),
    }


def scram_sha_256(password: str, context: str) -> str:
    """Return PostgreSQL's SCRAM-SHA-256 verifier of a password, so that the password itself never reaches the server's log.

    The salt follows from the password and the context (the role's name), so that a second run changes nothing.
    """
    salt = hashlib.sha256(f"{context}:{password}".encode()).digest()[:16]
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, ITERATIONS)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")

    def text(value: bytes) -> str:
        return base64.b64encode(value).decode()

    return f"SCRAM-SHA-256${ITERATIONS}:{text(salt)}${text(stored)}:{text(server)}"


def database_differences(state: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Return the names of the database and roles that are missing or differ from what is wanted."""
    owner = wanted["owner"]
    roles = state.get("roles") or {}
    names = []
    if roles.get(owner) is None or roles[owner]["login"] or roles[owner]["powers"]:
        names.append(owner)
    for login in wanted["logins"]:
        there = roles.get(login["name"])
        if (
            there is None
            or not there["login"]
            or there["powers"]
            or there["verifier"] != login["verifier"]
            or login["configuration"] not in there["configuration"]
            or not set(login["member_of"]) <= set(there["member_of"])
        ):
            names.append(login["name"])
    database = state.get("database") or {"owner": "", "rights": []}
    rights = set(database["rights"])
    allowed = {f"{login['name']}:CONNECT" for login in wanted["logins"]}
    if database["owner"] != owner or not allowed <= rights or any(right.startswith("PUBLIC:") for right in rights):
        names.append("the database")
    return names


def holder_problems(state: Mapping[str, Any], host: str, name: str, owner: str) -> list[str]:
    """Return a sentence where the database, or a table in it, belongs to somebody else."""
    holder = (state.get("database") or {}).get("owner", "")
    strangers = state.get("strangers") or []
    if holder in ("", owner) and not strangers:
        return []
    tables = f" and holds tables of {', '.join(strangers)}" if strangers else ""
    return [
        f"The database {name} on {host} belongs to {holder}{tables}: give Kallithea a database of its own with kallithea_database_name, "
        f"or let database and tables belong to {owner}."
    ]


class FilterModule:
    """Filters of the collection."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {
            "connection_budget": connection_budget,
            "memory_settings": memory_settings,
            "scram_sha_256": scram_sha_256,
            "database_differences": database_differences,
            "holder_problems": holder_problems,
        }
