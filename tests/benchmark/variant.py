"""Another cluster beside the demo, made by the demo's own means for one benchmark and removed after it."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
from collections.abc import Callable
from typing import Any

import yaml
from client import BenchFailed, Browser

ROOT = pathlib.Path(__file__).resolve().parents[2]
PLAYBOOK_SECONDS = 1500
PLAIN_PORT = 8090


class Variant:
    """Hosts of their own in a network of their own."""

    def __init__(self, name: str, inventory: pathlib.Path, folder: pathlib.Path, log: pathlib.Path, say: Callable[[str], None]) -> None:
        """Remember it: the inventory is one as a user copies it, the folder takes what the demo's has."""
        self.name = f"kallithea-{name}"
        self.word = name
        self.source = inventory
        self.state = folder / name
        self.inventory = str(self.state / "inventory" / "hosts.yml")
        self.hostname, self.ci_hostname = f"scm.{name}.test", f"ci.{name}.test"
        self.log = log
        self.say = say

    def play(self, playbook: str, variables: dict[str, Any] | None = None, seconds: float = PLAYBOOK_SECONDS) -> None:
        """Run a playbook on it."""
        command = ["ansible-playbook", "-i", self.inventory, playbook]
        command += ["-e", yaml.safe_dump(variables, default_flow_style=True, width=100_000)] if variables else []
        with self.log.open("a") as log:
            status = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, timeout=seconds, check=False).returncode
        if status:
            raise BenchFailed(f"{playbook} failed on {self.name}: see {self.log}.")

    def up(self) -> None:
        """Make it; what an interrupted run left is removed first."""
        self.say(f"Bringing up {self.name} (some minutes)")
        self.state.mkdir(parents=True, exist_ok=True)
        writer = [str(ROOT / "scripts/lib/demo_inventory.py"), "write", str(self.source), str(self.state), self.name, self.hostname, self.ci_hostname]
        subprocess.run(["python3", *writer], stdin=subprocess.DEVNULL, check=True, timeout=60)
        self.down()
        self.play(str(ROOT / "molecule/shared/create.yml"))
        self.play("kallithea.cluster.site")

    def down(self) -> None:
        """Remove it with all its data; its secrets belonged to them."""
        if not pathlib.Path(self.inventory).exists():
            return
        self.play(str(ROOT / "molecule/shared/destroy.yml"), seconds=300)
        secrets = self.state / "inventory" / ".kallithea"
        if secrets.exists():
            shutil.rmtree(secrets)

    @property
    def secrets(self) -> dict[str, str]:
        """What site has made."""
        found: dict[str, str] = yaml.safe_load((self.state / "inventory/.kallithea/secrets.yml").read_text())["kallithea_secrets"]
        return found

    @property
    def ca_file(self) -> str:
        """The CA of its certificate."""
        return str(self.state / "inventory/.kallithea/ca/ca.crt")

    def admin(self, url: str) -> Browser:
        """Return the administrator at an address of it, who knows the API key."""
        browser = Browser(url, "admin", self.secrets["admin_password"], "")
        browser.api_key = self.secrets["admin_api_key"]
        return browser

    def address(self, host: str) -> str:
        """Return a host's address."""
        state: dict[str, Any] = yaml.safe_load((self.state / "state.json").read_text())
        return str(state["addresses"][host])

    def make_plain(self, host: str, processes: int) -> str:
        """Let one Apache with one group of processes serve it, without balancer and with the patches alone that it cannot run without; return its address."""
        self.say(f"Making {self.name} plain, with {processes} processes (the first time its release is built)")
        variables = {"bench_plain_processes": processes, "bench_plain_port": PLAIN_PORT, "bench_plain_release": "plain"}
        self.play(str(ROOT / "tests/benchmark/plain.yml"), variables)
        return f"http://{self.address(host)}:{PLAIN_PORT}"


def can_be_made() -> None:
    """Refuse where scripts/bench could not say how hosts are made."""
    if not os.environ.get("KALLITHEA_TEST_IMAGE"):
        raise BenchFailed("KALLITHEA_TEST_IMAGE is empty: scripts/bench makes hosts of its own only beside the demo.")
