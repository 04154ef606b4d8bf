# Copyright: The kallithea.cluster maintainers
# GPL-3.0-or-later (see LICENSE)
"""What systemctl show says of several units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def unit_states(shown: str) -> dict[str, dict[str, str]]:
    """Return the properties of each unit by its Id, from the output of systemctl show for several units."""
    states = {}
    for block in shown.strip().split("\n\n"):
        properties = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        if "Id" in properties:
            states[properties["Id"]] = properties
    return states


def idle_units(states: Mapping[str, Mapping[str, str]], wanted: Sequence[str]) -> list[str]:
    """Return the wanted units that do not run, or would not after a boot, in the order wanted."""

    def runs(state: Mapping[str, str]) -> bool:
        return state.get("ActiveState") in ("active", "activating", "reloading") and state.get("UnitFileState") == "enabled"

    return [name for name in wanted if not runs(states.get(name, {}))]


class FilterModule:
    """The filters by name."""

    def filters(self) -> dict[str, Any]:
        """Return the filters."""
        return {"unit_states": unit_states, "idle_units": idle_units}
