"""Which hosts there are; what the tests share is in many_hosts."""

from __future__ import annotations

from pathlib import Path

import settings

pytest_plugins = ["many_hosts"]

settings.use(Path(__file__).resolve().parents[1] / "inventory/hosts.yml")
