"""Each role's defaults and its argument_specs say the same: names, values, types."""

from __future__ import annotations

import pathlib

import pytest
import yaml

ROLES = sorted(path.parent.parent for path in (pathlib.Path(__file__).parents[2] / "roles").glob("*/meta/argument_specs.yml"))
TYPES = {"str": str, "path": str, "int": int, "bool": bool, "list": list, "dict": dict, "float": float}


def load(path: pathlib.Path) -> dict:
    """Return a YAML file's content."""
    return yaml.safe_load(path.read_text(encoding="utf-8")) or {} if path.exists() else {}


def test_there_are_roles() -> None:
    assert {role.name for role in ROLES} >= {"common", "storage", "database", "broker", "app", "loadbalancer"}


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_defaults_and_specs_are_equal(role: pathlib.Path) -> None:
    defaults = load(role / "defaults" / "main.yml")
    options: dict = {}
    for entry in load(role / "meta" / "argument_specs.yml")["argument_specs"].values():
        options.update(entry.get("options", {}))
    assert sorted(defaults) == sorted(name for name, option in options.items() if not option.get("required"))
    for name, value in defaults.items():
        assert options[name]["default"] == value, name
        if not (isinstance(value, str) and "{{" in value):
            assert type(value) is TYPES[options[name]["type"]] or (value == 0 and options[name]["type"] == "float"), name
        assert name.startswith("kallithea_"), name
        assert options[name].get("description"), name


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_every_role_has_a_readme(role: pathlib.Path) -> None:
    assert (role / "README.md").exists()


def test_the_topology_knows_the_same_default_pools_as_the_role() -> None:
    topology = load(pathlib.Path(__file__).parents[2] / "roles" / "topology" / "vars" / "main" / "topology.yml")
    defaults = load(pathlib.Path(__file__).parents[2] / "roles" / "app" / "defaults" / "main.yml")
    assert topology["__kallithea_default_pools"] == defaults["kallithea_app_pools"]
    assert topology["__kallithea_default_celery"] == defaults["kallithea_app_celery_processes"]
