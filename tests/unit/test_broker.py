"""RabbitMQ's password hash."""

from __future__ import annotations

import base64
import hashlib

from ansible_collections.kallithea.cluster.plugins.filter.broker import rabbitmq_password_hash


def test_hash_is_salt_and_sha256_over_salt_and_password() -> None:
    raw = base64.b64decode(rabbitmq_password_hash("test12", "kallithea"))
    assert raw[4:] == hashlib.sha256(raw[:4] + b"test12").digest()
    assert rabbitmq_password_hash("test12", "kallithea") == rabbitmq_password_hash("test12", "kallithea")
    assert rabbitmq_password_hash("test12", "kallithea") != rabbitmq_password_hash("test12", "other")
