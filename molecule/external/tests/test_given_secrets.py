"""What came encrypted from outside is used, and written down by nobody on the controller, in no log and on no command line."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
import yaml
from machines import Machine
from settings import Settings

COMMAND_LINES = "/run/kallithea-test/cmdlines"


def test_the_secrets_file_has_no_given_secret(settings: Settings, given: dict[str, str], state_folder: Path) -> None:
    """It has all others, and is private."""
    file = state_folder / "secrets/secrets.yml"
    kept = yaml.safe_load(file.read_text())["kallithea_secrets"]
    assert "admin_password" in kept and "cluster_id" in kept
    assert not set(kept) & set(given)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_no_other_file_of_the_controller_has_one(given: dict[str, str], state_folder: Path) -> None:
    """But for the owners' own note, beside which the encrypted one lies."""
    assert (state_folder / "secrets/given_vault.yml").read_text().startswith("$ANSIBLE_VAULT;")
    holding = [path.name for path in state_folder.rglob("*") if path.is_file() and any(word.encode() in path.read_bytes() for word in given.values())]
    assert holding == ["given.yml"]


@pytest.mark.parametrize(
    "source",
    ["journalctl --quiet --no-pager --all --output=export", f"cat {COMMAND_LINES}", "cat /proc/[0-9]*/environ"],
    ids=["journal", "command-lines", "environments"],
)
def test_the_application_host_shows_none(app: Machine, given: dict[str, str], source: str) -> None:
    """The words to look for come by a private file, so that the search does not find itself."""
    words = "".join(f"{word}\n" for word in given.values())
    app.write("/run/test-words", words)
    try:
        assert app.run("grep --count --fixed-strings --file=/run/test-words /run/test-words").strip() == str(len(given))
        found = app.try_run(f"{source} 2>/dev/null | grep --text --quiet --fixed-strings --file=/run/test-words")
    finally:
        app.run("rm /run/test-words")
    assert found.status == 1


def test_the_applications_files_have_them(app: Machine, given: dict[str, str]) -> None:
    """They are the ones in use, and only root and the service read them."""
    ini, health = app.host.file("/etc/kallithea/kallithea.ini"), app.host.file("/etc/kallithea/health.json")
    assert f":{given['database_password']}@" in ini.content_string and f":{given['broker_password']}@extmq:5671/" in ini.content_string
    assert given["database_health_password"] in health.content_string
    assert {(file.group, oct(file.mode)) for file in (ini, health)} == {("kallithea", "0o640")}
