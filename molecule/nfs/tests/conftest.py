"""Which hosts there are; what the tests share is in many_hosts."""

from __future__ import annotations

from pathlib import Path

import drills
import settings

pytest_plugins = ["many_hosts"]

settings.use(Path(__file__).resolve().parents[1] / "inventory/hosts.yml", settings.ROOT / "molecule/shared/inventory/kinds.yml")

# It compares, and says nothing new of what has to hold.
collect_ignore = [] if drills.IS_LONG else ["test_figures.py"]
