# Copyright: The kallithea.cluster maintainers
# GPL-3.0-or-later (see LICENSE)
"""What RabbitMQ's definitions file needs."""

from __future__ import annotations

import base64
import hashlib
from typing import Any


def rabbitmq_password_hash(password: str, context: str) -> str:
    """Return the hash that RabbitMQ's definitions take: base64 of a 4-byte salt and SHA-256 over salt and password.

    The salt follows from the password and the context (the user's name), so that a second run writes the same file.
    """
    salt = hashlib.sha256(f"{context}:{password}".encode()).digest()[:4]
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()


class FilterModule:
    """Filters of the collection."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {"rabbitmq_password_hash": rabbitmq_password_hash}
