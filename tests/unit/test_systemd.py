"""The states of units, as systemctl show prints them."""

from __future__ import annotations

from ansible_collections.kallithea.cluster.plugins.filter.systemd import idle_units, unit_states

SHOWN = """Id=kallithea-web.service
LoadState=loaded
ActiveState=active
UnitFileState=enabled

Id=kallithea-index.timer
LoadState=loaded
ActiveState=active
UnitFileState=disabled

Id=kallithea-celery.service
LoadState=not-found
ActiveState=inactive
UnitFileState="""


def test_each_unit_has_its_properties() -> None:
    states = unit_states(SHOWN)
    assert list(states) == ["kallithea-web.service", "kallithea-index.timer", "kallithea-celery.service"]
    assert states["kallithea-celery.service"]["LoadState"] == "not-found"
    assert states["kallithea-celery.service"]["UnitFileState"] == ""


def test_a_unit_that_no_boot_would_start_is_idle() -> None:
    wanted = ["kallithea-celery.service", "kallithea-index.timer", "kallithea-web.service"]
    assert idle_units(unit_states(SHOWN), wanted) == ["kallithea-celery.service", "kallithea-index.timer"]


def test_a_unit_that_systemd_does_not_know_is_idle() -> None:
    assert idle_units({}, ["kallithea-web.service"]) == ["kallithea-web.service"]


def test_a_unit_that_starts_is_not_idle() -> None:
    states = {"a.service": {"ActiveState": "activating", "UnitFileState": "enabled"}}
    assert idle_units(states, ["a.service"]) == []
