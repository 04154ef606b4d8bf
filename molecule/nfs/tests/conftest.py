"""Which hosts there are; what the tests share is in many_hosts."""

from __future__ import annotations

from pathlib import Path

import drills
import pytest
import settings

pytest_plugins = ["many_hosts"]

settings.use(Path(__file__).resolve().parents[1] / "inventory/hosts.yml", settings.ROOT / "molecule/shared/inventory/kinds.yml")

# Minutes each: with the drills' long forms only. Molecule names each file, so none can be left out of what is collected.
LONG = {"test_figures.py", "test_remount.py"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out what a short run has no time for."""
    if not drills.IS_LONG:
        items[:] = [item for item in items if item.path.name not in LONG]
