# Copyright: The kallithea.cluster maintainers
# GPL-3.0-or-later (see LICENSE)
"""A release's id, its patches, and what is wrong with the variables that a release is made from."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError

# Applied in this order: what makes it run, what makes it safe, what makes it fast.
KINDS = ("compat", "safety", "speed")
CHOICES = {"all": KINDS, "no_speed": ("compat", "safety")}
# What comparisons are made with; nobody may run a cluster on it.
PLAIN = {"plain": ("compat",)}
# Everything that decides what comes out of a build.
INPUTS = ("kallithea", "sdist_sha256", "patches", "locks", "build", "debian", "python", "architecture", "extra_requirements")
PINNED = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(\[[A-Za-z0-9._,-]+\])?==[A-Za-z0-9][A-Za-z0-9.!+_-]*")
ENVIRONMENT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
ID = re.compile(r"[0-9][0-9.]*-[0-9a-z]{4,40}")
SUFFIX = ".tar.gz"


def release_id(inputs: Mapping[str, Any]) -> str:
    """Return the id: Kallithea's version and a hash of all inputs; the order of sets does not matter."""
    wrong = sorted(set(INPUTS) ^ set(inputs))
    if wrong:
        raise AnsibleFilterError(f"release_id: these inputs are missing or unknown: {', '.join(wrong)}.")
    plain = {**inputs, "extra_requirements": sorted(set(inputs["extra_requirements"]))}
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return f"{inputs['kallithea']}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def release_patches(paths: Sequence[str], choice: str = "all") -> list[str]:
    """Return the chosen patches in the order in which they are applied; a patch's kind is the first word of its name."""
    choices = CHOICES | PLAIN
    if choice not in choices:
        raise AnsibleFilterError(f"release_patches: the choice is '{choice}'; give one of {', '.join(choices)}.")
    found: list[tuple[int, str, str]] = []
    for path in paths:
        name = path.rsplit("/", 1)[-1]
        kind = name.split("-", 1)[0]
        if kind not in KINDS:
            raise AnsibleFilterError(f"release_patches: the patch '{name}' has no kind; its name must begin with one of {', '.join(KINDS)}.")
        if kind in choices[choice]:
            found.append((KINDS.index(kind), name, path))
    return [path for _index, _name, path in sorted(found)]


def release_archive_id(path: str) -> str:
    """Return the id of the release that an archive holds, by its name; empty where the name is none of an archive."""
    name = path.rsplit("/", 1)[-1]
    stem = name[: -len(SUFFIX)] if name.endswith(SUFFIX) else ""
    return stem if ID.fullmatch(stem) else ""


def release_problems(settings: Mapping[str, Any]) -> list[str]:
    """Return one sentence for each variable that no release can be made of; values of the environment are never part of it."""
    problems = []
    requirements = settings.get("extra_requirements", [])
    if isinstance(requirements, (str, bytes)) or not isinstance(requirements, Sequence):
        problems.append("kallithea_app_extra_requirements is not a list; give a list of pinned requirements such as python-ldap==3.4.5.")
    else:
        problems += [
            f"kallithea_app_extra_requirements has '{item}'; pin one version with ==, such as python-ldap==3.4.5, so that every build is the same."
            for item in requirements
            if not PINNED.fullmatch(str(item))
        ]
    if settings.get("patches", "all") not in CHOICES:
        problems.append(f"kallithea_app_patches is '{settings['patches']}'; give one of {', '.join(CHOICES)}.")
    archive = settings.get("archive", "")
    if archive and not release_archive_id(archive):
        problems.append(f"kallithea_app_release_archive is '{archive}'; name a file <id>{SUFFIX} that this collection packed, under the name it was packed as.")
    environment = settings.get("environment", {})
    if not isinstance(environment, Mapping):
        problems.append(
            "kallithea_app_build_environment is not a dictionary; give names and values, such as PIP_INDEX_URL: https://packages.example.org/simple."
        )
    else:
        problems += [
            f"kallithea_app_build_environment has '{name}', which is no name of an environment variable or has no text as value; "
            f'write it such as https_proxy: "http://proxy.example.org:3128".'
            for name, value in environment.items()
            if not isinstance(value, str) or "\n" in value or not ENVIRONMENT_NAME.fullmatch(str(name))
        ]
    return problems


class FilterModule:
    """Filters of the collection."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {
            "release_id": release_id,
            "release_patches": release_patches,
            "release_archive_id": release_archive_id,
            "release_problems": release_problems,
        }
