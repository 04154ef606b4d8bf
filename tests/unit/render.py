"""Render a role's real templates without Ansible: its defaults and vars, the collection's filters, values of the test's own."""

from __future__ import annotations

import importlib
import json
import pathlib
from typing import Any

import jinja2
import jinja2.meta
import jinja2.nativetypes
import yaml

ROOT = pathlib.Path(__file__).parents[2]


def _load(path: pathlib.Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text(encoding="utf-8")) or {} if path.exists() else {}


def _filters() -> dict[str, Any]:
    found: dict[str, Any] = {
        "combine": lambda first, *others: {key: value for part in (first, *others) for key, value in part.items()},
        "dirname": lambda path: str(pathlib.PurePosixPath(path).parent),
        "bool": bool,
        "to_nice_json": lambda value: json.dumps(value, indent=4, sort_keys=True),
        "ansible.builtin.path_join": lambda parts: str(pathlib.PurePosixPath(*parts)),
    }
    for path in (ROOT / "plugins" / "filter").glob("*.py"):
        module = importlib.import_module(f"ansible_collections.kallithea.cluster.plugins.filter.{path.stem}")
        found.update({f"kallithea.cluster.{name}": function for name, function in module.FilterModule().filters().items()})
    return found


class _Variables:
    """Variables whose values may be templates of others; resolved only where a template names them."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.values = values
        self.native = jinja2.nativetypes.NativeEnvironment(undefined=jinja2.StrictUndefined)
        self.native.filters.update(_filters())

    def named_in(self, source: str) -> dict[str, Any]:
        """Return the variables that a template names."""
        names = jinja2.meta.find_undeclared_variables(self.native.parse(source))
        return {name: self.resolve(self.values[name]) for name in names if name in self.values}

    def resolve(self, value: Any) -> Any:
        """Return a value without templates."""
        if isinstance(value, str) and "{{" in value:
            return self.resolve(self.native.from_string(value).render(self.named_in(value)))
        if isinstance(value, dict):
            return {key: self.resolve(entry) for key, entry in value.items()}
        if isinstance(value, list):
            return [self.resolve(entry) for entry in value]
        return value


def _variables(role: str, values: dict[str, Any]) -> _Variables:
    variables: dict[str, Any] = {"inventory_dir": "/nowhere"}
    for path in ("common/defaults", f"{role}/defaults", f"{role}/vars"):
        variables.update(_load(ROOT / "roles" / path / "main.yml"))
    return _Variables(variables | values)


def variable(role: str, name: str, values: dict[str, Any]) -> Any:
    """Return what a role's variable is with these values."""
    variables = _variables(role, values)
    return variables.resolve(variables.values[name])


def render(role: str, template: str, values: dict[str, Any]) -> str:
    """Return the text of roles/<role>/templates/<template>."""
    folder = ROOT / "roles" / role / "templates"
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, keep_trailing_newline=True, loader=jinja2.FileSystemLoader(folder))
    environment.filters.update(_filters())
    source = (folder / template).read_text(encoding="utf-8")
    # What is included sees the same variables.
    named = "".join((folder / name).read_text(encoding="utf-8") for name in jinja2.meta.find_referenced_templates(environment.parse(source)) if name)
    return environment.from_string(source).render(_variables(role, values).named_in(source + named))
