"""The secrets file on the controller: missing, encrypted, incomplete, or handed over on the command line."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import playbook_runs
import pytest
import yaml
from machines import Machine
from playbook_runs import Run
from settings import Settings

TAKEN_OUT = "broker_password"


@dataclass(frozen=True)
class Copy:
    """A copy of the inventories whose secrets lie where a user's do: beside hosts.yml."""

    folder: Path
    inventories: tuple[Path, ...]
    node: Machine
    settings: Settings

    @property
    def secrets_file(self) -> Path:
        """Return the secrets file's path, the default one."""
        return self.inventories[0].parent / ".kallithea/secrets.yml"

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

    def run(self, playbook: str, *arguments: str, variables: Mapping[str, Any] | None = None) -> Run:
        """Run a playbook on the copy; nothing may change, and no secret may be seen."""
        with playbook_runs.unchanged(self.node, self.settings, *(path.parent for path in self.inventories)):
            run = playbook_runs.run(playbook, *arguments, inventories=self.inventories, variables=variables, folder=self.folder)
        run.check(self.settings.secrets)
        return run

    def works(self, playbook: str, *arguments: str, variables: Mapping[str, Any] | None = None) -> None:
        """Run a playbook that has to end well."""
        self.run(playbook, *arguments, variables=variables).check_success(self.settings.node)

    def refuses(self, playbook: str, sentence: str, *arguments: str, variables: Mapping[str, Any] | None = None) -> None:
        """Run a playbook that has to end with the sentence."""
        self.run(playbook, *arguments, variables=variables).check_refusal(sentence)


@pytest.fixture
def copy(node: Machine, settings: Settings, tmp_path: Path) -> Copy:
    """Return a copy of the inventories with secrets and certificates beside it."""
    inventories = playbook_runs.copy_inventories(tmp_path)
    playbook_runs.edit(inventories[1].parent / "group_vars/test_hosts.yml", kallithea_secrets_file=None)
    copy = Copy(tmp_path, inventories, node, settings)
    copy.secrets_file.parent.mkdir(mode=0o700)
    shutil.copytree(settings.ca_file.parent, copy.secrets_file.parent / "ca")
    copy.write(settings.secrets)
    return copy


@pytest.mark.parametrize("playbook", ["preflight", "broker"])
def test_missing_file_on_a_living_cluster_stops(copy: Copy, playbook: str) -> None:
    """New secrets over a living cluster would lock it out of its own database."""
    copy.secrets_file.unlink()
    path = re.escape(str(copy.secrets_file))
    copy.refuses(
        playbook,
        rf"The secrets file {path} is missing on the controller, but node1 belongs to a living cluster \(/etc/kallithea/cluster\.json\): "
        r"put the file back, or name it with kallithea_secrets_file or -e @file; new secrets are never made over a living cluster\.",
    )
    assert not copy.secrets_file.exists()


@pytest.mark.parametrize("playbook", ["preflight", "broker"])
def test_encrypted_file_works(copy: Copy, playbook: str) -> None:
    """With its password it is as good as a readable one, and stays encrypted."""
    password = copy.encrypt()
    copy.works(playbook, f"--vault-password-file={password}")
    assert copy.secrets_file.read_text().startswith("$ANSIBLE_VAULT;")


def test_encrypted_file_without_its_password_stops(copy: Copy) -> None:
    """Nobody is asked, nothing is made anew."""
    copy.encrypt()
    path = re.escape(str(copy.secrets_file))
    copy.refuses(
        "preflight",
        rf"The secrets file {path} cannot be read: it is encrypted and no vault password that fits was given "
        r"\(--vault-password-file or --ask-vault-pass\), or it is not YAML with the one key kallithea_secrets\.",
    )


def test_encrypted_file_that_lacks_a_secret_stops(copy: Copy) -> None:
    """It cannot be completed in place: that would leave it readable."""
    copy.write({key: value for key, value in copy.settings.secrets.items() if key != TAKEN_OUT})
    password = copy.encrypt()
    path = re.escape(str(copy.secrets_file))
    copy.refuses(
        "preflight",
        rf"The encrypted secrets file {path} lacks {TAKEN_OUT}: add it with ansible-vault edit \(letters and digits only\)\.",
        f"--vault-password-file={password}",
    )


def test_file_that_lacks_a_secret_of_a_living_cluster_stops(copy: Copy) -> None:
    """A new one would not be the one that the cluster uses."""
    copy.write({key: value for key, value in copy.settings.secrets.items() if key != TAKEN_OUT})
    before = copy.secrets_file.read_text()
    path = re.escape(str(copy.secrets_file))
    copy.refuses(
        "preflight",
        rf"The secrets file {path} lacks {TAKEN_OUT}, but node1 belongs to a living cluster that uses them: "
        r"put them back from a copy of the file or into kallithea_given_secrets; new ones are never made over a living cluster\.",
    )
    assert copy.secrets_file.read_text() == before


def test_file_without_the_dictionary_stops(copy: Copy) -> None:
    """It holds something, perhaps the secrets in another form: it is neither completed nor replaced."""
    copy.secrets_file.write_text(yaml.safe_dump(copy.settings.secrets))
    path = re.escape(str(copy.secrets_file))
    copy.refuses("broker", rf"The secrets file {path} cannot be read: .*not YAML with the one key kallithea_secrets\.")


@pytest.mark.parametrize("playbook", ["preflight", "broker"])
def test_secrets_on_the_command_line_need_no_file(copy: Copy, playbook: str) -> None:
    """A controller that keeps them elsewhere gives them with -e @file, and no file appears."""
    copy.secrets_file.unlink()
    copy.works(playbook, variables={"kallithea_secrets": copy.settings.secrets})
    assert not copy.secrets_file.exists()


def test_secrets_on_the_command_line_that_lack_one_stop(copy: Copy) -> None:
    """What is handed over is all there is: a secret made anew would be forgotten."""
    copy.secrets_file.unlink()
    given = {key: value for key, value in copy.settings.secrets.items() if key != TAKEN_OUT}
    copy.refuses("preflight", rf"kallithea_secrets lacks {TAKEN_OUT}: .*", variables={"kallithea_secrets": given})
