"""A release's id, patches and problems; and what the repository's own patches and locks look like."""

from __future__ import annotations

import pathlib
import re
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.kallithea.cluster.plugins.filter import release

FILES = pathlib.Path(__file__).parents[2] / "roles" / "app" / "files"
INPUTS: dict[str, Any] = {
    "kallithea": "0.7.0",
    "sdist_sha256": "3d",
    "patches": {"compat-01-a.patch": "a"},
    "locks": {"build": "b", "packages": "c"},
    "build": "d",
    "debian": "13",
    "python": "3.13",
    "architecture": "x86_64",
    "extra_requirements": ["b==1", "a==1"],
}


def test_id_has_the_version_and_is_stable() -> None:
    assert re.fullmatch(r"0\.7\.0-[0-9a-f]{12}", release.release_id(INPUTS))
    assert release.release_id(INPUTS) == release.release_id(dict(reversed(list(INPUTS.items()))))
    assert release.release_id(INPUTS) == release.release_id({**INPUTS, "extra_requirements": ["a==1", "b==1", "a==1"]})


@pytest.mark.parametrize(
    "change",
    [
        {"kallithea": "0.7.1"},
        {"sdist_sha256": "3e"},
        {"patches": {"compat-01-a.patch": "b"}},
        {"patches": {"compat-02-a.patch": "a"}},
        {"patches": {}},
        {"locks": {"build": "b", "packages": "d"}},
        {"locks": {"build": "c", "packages": "c"}},
        {"build": "e"},
        {"debian": "12"},
        {"python": "3.11"},
        {"architecture": "aarch64"},
        {"extra_requirements": ["a==1"]},
    ],
)
def test_every_input_changes_the_id(change: dict[str, Any]) -> None:
    assert release.release_id({**INPUTS, **change}) != release.release_id(INPUTS)


def test_missing_and_unknown_inputs_are_named() -> None:
    with pytest.raises(AnsibleFilterError, match="locks, surplus"):
        release.release_id({**{key: value for key, value in INPUTS.items() if key != "locks"}, "surplus": 1})


def test_patches_are_ordered_by_kind_and_chosen() -> None:
    paths = ["/p/speed-01-a.patch", "/p/safety-01-b.patch", "/q/compat-02-c.patch", "/p/compat-01-d.patch"]
    wanted = ["/p/compat-01-d.patch", "/q/compat-02-c.patch", "/p/safety-01-b.patch", "/p/speed-01-a.patch"]
    assert release.release_patches(paths) == wanted
    assert release.release_patches(paths, "no_speed") == wanted[:3]
    assert release.release_patches(paths, "plain") == [path for path in wanted if "/compat-" in path]


def test_bad_patches_are_refused() -> None:
    with pytest.raises(AnsibleFilterError, match="has no kind"):
        release.release_patches(["/p/fast-01.patch"])
    with pytest.raises(AnsibleFilterError, match="give one of all, no_speed"):
        release.release_patches([], "none")


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("/srv/0.7.0-0123456789ab.tar.gz", "0.7.0-0123456789ab"),
        ("0.7.0-0123456789ab.tar.gz", "0.7.0-0123456789ab"),
        ("/srv/0.7.0-0123456789ab.tar.zst", ""),
        ("/srv/kallithea.tar.gz", ""),
        ("/srv/0.7.0-..tar.gz", ""),
    ],
)
def test_archive_names(path: str, wanted: str) -> None:
    assert release.release_archive_id(path) == wanted


def test_good_settings_have_no_problems() -> None:
    settings = {
        "extra_requirements": ["python-ldap==3.4.5", "celery[redis]==5.6.3"],
        "patches": "no_speed",
        "archive": "/srv/0.7.0-0123456789ab.tar.gz",
        "environment": {"PIP_INDEX_URL": "https://packages.example.org/simple"},
    }
    assert release.release_problems(settings) == []
    assert release.release_problems({}) == []


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({"extra_requirements": "python-ldap==3.4.5"}, "not a list"),
        ({"extra_requirements": ["python-ldap"]}, "'python-ldap'; pin one version"),
        ({"extra_requirements": ["python-ldap>=3"]}, "pin one version"),
        ({"extra_requirements": ["--index-url=http://x/==1"]}, "pin one version"),
        ({"extra_requirements": ["git+https://example.org/x"]}, "pin one version"),
        ({"patches": "none"}, "give one of all, no_speed"),
        ({"archive": "/srv/kallithea.tar.gz"}, "name a file <id>.tar.gz"),
        ({"environment": ["a"]}, "not a dictionary"),
        ({"environment": {"https proxy": "x"}}, "no name of an environment variable"),
        ({"environment": {"PIP_RETRIES": 1}}, "no text as value"),
    ],
)
def test_bad_settings_get_one_sentence(settings: dict[str, Any], wanted: str) -> None:
    (problem,) = release.release_problems(settings)
    assert wanted in problem


def test_environment_values_are_never_shown() -> None:
    assert "geheim" not in " ".join(release.release_problems({"environment": {"a b": "http://u:geheim@proxy"}}))


@pytest.mark.parametrize("path", sorted((FILES / "patches").glob("*")), ids=lambda path: path.name)
def test_every_patch_says_where_from_why_and_what(path: pathlib.Path) -> None:
    header = path.read_text().split("\n--- ", 1)[0]
    assert path.suffix == ".patch"
    assert re.search(r"^Origin: \S", header, re.MULTILINE)
    assert re.search(r"^Reason: \S", header, re.MULTILINE)
    assert f"Kind: {path.name.split('-')[0]}" in header
    assert release.release_patches([str(path)]) == [str(path)]


@pytest.mark.parametrize("path", sorted((FILES / "locks").glob("*")), ids=lambda path: path.name)
def test_every_locked_package_has_one_version_and_hashes(path: pathlib.Path) -> None:
    entries = re.sub(r"\\\n\s*", " ", path.read_text()).strip().splitlines()
    names = [re.fullmatch(r"([A-Za-z0-9._-]+)==\S+((?: +--hash=sha256:[0-9a-f]{64})+)", entry) for entry in entries]
    assert all(names), path.name
    found = [match.group(1).lower() for match in names if match]
    assert len(found) == len(set(found))


@pytest.mark.parametrize("name", ["py311.txt", "py313.txt"])
def test_what_must_not_move_is_pinned(name: str) -> None:
    text = (FILES / "locks" / name).read_text().lower()
    # Newer ones fail with sessions in the database on SQLAlchemy 1.3.
    assert "beaker==1.11.0 " in text
    assert "psycopg2==2.9.13 " in text
    # Newer ones print a warning into every push; from 82 on pkg_resources is gone.
    assert "setuptools==79.0.1 " in (FILES / "locks" / "build.txt").read_text()
