"""The secrets file on the controller: missing, encrypted, incomplete, or handed over on the command line."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import playbook_runs
import pytest
import yaml
from machines import Machine
from playbook_runs import Run
from settings import Settings

TAKEN_OUT = "broker_password"


@dataclass
class Copy:
    """A copy of the inventories whose secrets lie where a user's do, beside hosts.yml; and how a playbook is run on it."""

    folder: Path
    inventories: tuple[Path, ...]
    settings: Settings
    arguments: list[str] = field(default_factory=list)
    # Not in any failure's text.
    variables: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def secrets_file(self) -> Path:
        """Return the secrets file's path, the default one."""
        return self.inventories[0].parent / ".kallithea/secrets.yml"

    @property
    def path(self) -> str:
        """Return that path as a regular expression."""
        return re.escape(str(self.secrets_file))

    @property
    def too_few(self) -> dict[str, str]:
        """Return the secrets without one of them."""
        return {key: value for key, value in self.settings.secrets.items() if key != TAKEN_OUT}

    def write(self, secrets: Mapping[str, str]) -> None:
        """Write the secrets file as the collection writes it."""
        self.secrets_file.touch(mode=0o600)
        self.secrets_file.write_text(yaml.safe_dump({"kallithea_secrets": dict(secrets)}, sort_keys=False))

    def encrypt(self) -> Path:
        """Encrypt the secrets file; return the file of the vault password."""
        password = self.folder / "vault_password"
        password.touch(mode=0o600)
        password.write_text("only-for-this-test\n")
        environment = {name: value for name, value in os.environ.items() if name != "ANSIBLE_VAULT_PASSWORD_FILE"}
        command = ["ansible-vault", "encrypt", f"--vault-password-file={password}", str(self.secrets_file)]
        subprocess.run(command, env=environment, check=True, capture_output=True, timeout=60)
        assert self.secrets_file.read_text().startswith("$ANSIBLE_VAULT;")
        return password

    def run(self, playbook: str) -> Run:
        """Run a playbook on the copy; no secret may be seen."""
        run = playbook_runs.run(playbook, *self.arguments, inventories=self.inventories, variables=self.variables, folder=self.folder)
        run.check(self.settings.secrets)
        return run


def missing(copy: Copy) -> None:
    """Take the file away."""
    copy.secrets_file.unlink()


def encrypted(copy: Copy) -> None:
    """Encrypt the file and give its password."""
    copy.arguments.append(f"--vault-password-file={copy.encrypt()}")


def encrypted_without_password(copy: Copy) -> None:
    """Encrypt the file and give no password."""
    copy.encrypt()


def encrypted_too_few(copy: Copy) -> None:
    """Encrypt a file that lacks a secret and give its password."""
    copy.write(copy.too_few)
    encrypted(copy)


def too_few(copy: Copy) -> None:
    """Take a secret out of the file."""
    copy.write(copy.too_few)


def without_the_dictionary(copy: Copy) -> None:
    """Write the secrets in another form."""
    copy.secrets_file.write_text(yaml.safe_dump(copy.settings.secrets))


def given(copy: Copy) -> None:
    """Give the secrets on the command line in place of the file."""
    copy.secrets_file.unlink()
    copy.variables["kallithea_secrets"] = copy.settings.secrets


def given_too_few(copy: Copy) -> None:
    """Give all secrets but one on the command line in place of the file."""
    copy.secrets_file.unlink()
    copy.variables["kallithea_secrets"] = copy.too_few


Way = tuple[Callable[[Copy], None], str]
# What is done to the copy, and the playbook that is run on it.
WAYS: list[Way] = [
    (encrypted, "preflight"),
    (encrypted, "broker"),
    (given, "preflight"),
    (given, "broker"),
    (missing, "preflight"),
    (missing, "broker"),
    (encrypted_without_password, "preflight"),
    (encrypted_too_few, "preflight"),
    (too_few, "preflight"),
    (without_the_dictionary, "broker"),
    (given_too_few, "preflight"),
]


def make_copy(settings: Settings, folder: Path) -> Copy:
    """Copy the inventories and put secrets and certificates beside them."""
    inventories = playbook_runs.copy_inventories(folder)
    playbook_runs.edit(inventories[1].parent / "group_vars/test_hosts.yml", kallithea_secrets_file=None)
    copy = Copy(folder, inventories, settings)
    copy.secrets_file.parent.mkdir(mode=0o700)
    shutil.copytree(settings.ca_file.parent, copy.secrets_file.parent / "ca")
    copy.write(settings.secrets)
    return copy


@pytest.fixture(scope="module")
def copies(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> dict[Way, Copy]:
    """Return a copy for each way, made ready for it."""
    copies = {way: make_copy(settings, tmp_path_factory.mktemp("secrets_file")) for way in WAYS}
    for (prepare, _), copy in copies.items():
        prepare(copy)
    return copies


@pytest.fixture(scope="module")
def runs(copies: dict[Way, Copy], node: Machine, settings: Settings) -> dict[Way, Run]:
    """Make all runs; nothing may change, the copies included: no file appears, none is completed, an encrypted one stays so."""
    folders = [path.parent for copy in copies.values() for path in copy.inventories]
    with playbook_runs.unchanged(node, settings, *folders):
        return playbook_runs.run_all({way: partial(copy.run, way[1]) for way, copy in copies.items()})


@pytest.mark.parametrize("playbook", ["preflight", "broker"])
def test_missing_file_on_a_living_cluster_stops(copies: dict[Way, Copy], runs: dict[Way, Run], playbook: str) -> None:
    """New secrets over a living cluster would lock it out of its own database."""
    copy = copies[missing, playbook]
    runs[missing, playbook].check_refusal(
        rf"The secrets file {copy.path} is missing on the controller, but there is a living cluster on node1 \(/etc/kallithea/cluster\.json\): "
        r"put the file back, or name it with kallithea_secrets_file or -e @file; new secrets are never made over a living cluster\.",
    )
    assert not copy.secrets_file.exists()


@pytest.mark.parametrize("playbook", ["preflight", "broker"])
def test_encrypted_file_works(copies: dict[Way, Copy], runs: dict[Way, Run], settings: Settings, playbook: str) -> None:
    """With its password it is as good as a readable one, and stays encrypted."""
    runs[encrypted, playbook].check_success(settings.node)
    assert copies[encrypted, playbook].secrets_file.read_text().startswith("$ANSIBLE_VAULT;")


def test_encrypted_file_without_its_password_stops(copies: dict[Way, Copy], runs: dict[Way, Run]) -> None:
    """Nobody is asked, nothing is made anew."""
    way = encrypted_without_password, "preflight"
    runs[way].check_refusal(
        rf"The secrets file {copies[way].path} cannot be read: it is encrypted and no vault password that fits was given "
        r"\(--vault-password-file or --ask-vault-pass\), or it is not YAML with the one key kallithea_secrets\.",
    )


def test_encrypted_file_that_lacks_a_secret_stops(copies: dict[Way, Copy], runs: dict[Way, Run]) -> None:
    """It cannot be completed in place: that would leave it readable."""
    way = encrypted_too_few, "preflight"
    runs[way].check_refusal(
        rf"The encrypted secrets file {copies[way].path} lacks {TAKEN_OUT}: add it with ansible-vault edit \(letters and digits only\)\.",
    )


def test_file_that_lacks_a_secret_of_a_living_cluster_stops(copies: dict[Way, Copy], runs: dict[Way, Run]) -> None:
    """A new one would not be the one that the cluster uses."""
    way = too_few, "preflight"
    runs[way].check_refusal(
        rf"The secrets file {copies[way].path} lacks {TAKEN_OUT}, but there is a living cluster on node1 that uses them: "
        r"put them back from a copy of the file or into kallithea_given_secrets; new ones are never made over a living cluster\.",
    )
    kept = yaml.safe_load(copies[way].secrets_file.read_text()) == {"kallithea_secrets": copies[way].too_few}
    assert kept, "the file was completed"


def test_file_without_the_dictionary_stops(copies: dict[Way, Copy], runs: dict[Way, Run]) -> None:
    """It holds something, perhaps the secrets in another form: it is neither completed nor replaced."""
    way = without_the_dictionary, "broker"
    runs[way].check_refusal(rf"The secrets file {copies[way].path} cannot be read: .*not YAML with the one key kallithea_secrets\.")


@pytest.mark.parametrize("playbook", ["preflight", "broker"])
def test_secrets_on_the_command_line_need_no_file(copies: dict[Way, Copy], runs: dict[Way, Run], settings: Settings, playbook: str) -> None:
    """A controller that keeps them elsewhere gives them with -e @file, and no file appears."""
    runs[given, playbook].check_success(settings.node)
    assert not copies[given, playbook].secrets_file.exists()


def test_secrets_on_the_command_line_that_lack_one_stop(runs: dict[Way, Run]) -> None:
    """What is handed over is all there is: a secret made anew would be forgotten."""
    runs[given_too_few, "preflight"].check_refusal(rf"kallithea_secrets lacks {TAKEN_OUT}: .*")
