# Copyright: The kallithea.cluster maintainers
# GPL-3.0-or-later (see LICENSE)
"""What has to be the same on every application host."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def node_differences(nodes: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Return one sentence for each thing that is not the same on all hosts, naming the hosts that differ from most."""
    problems = []
    for what in dict.fromkeys(name for things in nodes.values() for name in things):
        hosts: dict[str, list[str]] = {}
        for host, things in nodes.items():
            hosts.setdefault(str(things.get(what, "")), []).append(host)
        if len(hosts) > 1:
            # Where two are as many, the first host is the pattern.
            most, *others = sorted(hosts.values(), key=len, reverse=True)
            differing = ", ".join(host for group in others for host in group)
            problems.append(
                f"{what} differs on {differing} from {', '.join(most)}, but must be the same on all application hosts: "
                "give the variables that decide it in group_vars for all hosts, not for one."
            )
    return problems


class FilterModule:
    """Filters of the collection."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {"node_differences": node_differences}
