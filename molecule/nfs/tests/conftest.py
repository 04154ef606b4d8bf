"""Which hosts there are; what the tests share is in many_hosts."""

from __future__ import annotations

from pathlib import Path

import drills
import settings

pytest_plugins = ["many_hosts"]

settings.use(Path(__file__).resolve().parents[1] / "inventory/hosts.yml", settings.ROOT / "molecule/shared/inventory/kinds.yml")

# Minutes each: with the drills' long forms only.
collect_ignore = [] if drills.IS_LONG else ["test_figures.py", "test_remount.py"]
