"""Real git and hg on a foreign host, with credentials that stand on no command line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from machines import Machine
from settings import Settings

COMMANDS = ("git", "hg", "curl", "python3")
HOME = "/root/client"
ASKPASS = '#!/bin/sh\ncase "$1" in Username*) echo admin;; *) cat ' + HOME + "/password;; esac\n"
ENVIRONMENT = (
    f"export HOME={HOME} LC_ALL=C.UTF-8 GIT_ASKPASS={HOME}/askpass GIT_TERMINAL_PROMPT=0 GIT_SSL_CAINFO={HOME}/ca.crt HGRCPATH={HOME}/hgrc"
    f" CURL_CA_BUNDLE={HOME}/ca.crt; umask 077; cd {HOME}; "
)
GITCONFIG = "[user]\n name = Tester\n email = tester@localhost\n[init]\n defaultBranch = master\n[core]\n compression = 0\n[gc]\n auto = 0\n"

# Bytes a second: slow enough that what the buffers on the way hold lets no clone of a big repository end while a test looks.
SLOW_RATE = 1_000_000
# Stands between git and the site, and passes the answer on as slowly as a bad line, until a file appears.
THROTTLE = """
import os, select, socket, sys, threading, time

here, address, rate, free = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]

def up(source, target):
    while block := source.recv(65536):
        target.sendall(block)
    target.shutdown(socket.SHUT_WR)

def serve(near):
    far = socket.socket()
    far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
    far.connect((address, 443))
    threading.Thread(target=up, args=(near, far), daemon=True).start()
    while True:
        slow = not os.path.exists(free)
        block = far.recv(max(1, rate // 10) if slow else 65536)
        if not block:
            break
        near.sendall(block)
        if slow:
            time.sleep(len(block) / rate)
    near.close()

listener = socket.create_server((here, 443))
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"""


class Client:
    """A user of the site with git, hg and curl."""

    def __init__(self, machine: Machine, settings: Settings) -> None:
        """Put the private files there that git, hg and curl read."""
        self.machine = machine
        self.settings = settings
        password = settings.secrets["admin_password"]
        machine.run(f"install -d -m 0700 {HOME}")
        machine.write(f"{HOME}/askpass", ASKPASS, "0700")
        machine.write(f"{HOME}/password", password)
        machine.write(f"{HOME}/.gitconfig", GITCONFIG)
        machine.write(f"{HOME}/ca.crt", settings.ca_file.read_text())
        machine.write(f"{HOME}/throttle.py", THROTTLE)
        names = [name for name in (settings.hostname, settings.ci_hostname) if name]
        auth = "".join(f"{name.replace('.', '_')}.{key} = {value}\n" for name in names for key, value in
                       (("prefix", name), ("schemes", "https"), ("username", "admin"), ("password", password)))  # fmt: skip
        # Past the balancer, straight to the pools. A colon in a prefix would make the part before it a scheme.
        auth += "".join(f"{host}.{key} = {value}\n" for host in settings.host_pools for key, value in
                        (("prefix", settings.addresses[host]), ("schemes", "http"), ("username", "admin"), ("password", password)))  # fmt: skip
        machine.write(f"{HOME}/hgrc", f"[ui]\nusername = Tester\n[auth]\n{auth}[web]\ncacerts = {HOME}/ca.crt\n")
        machine.write(f"{HOME}/curl-right", f'user = "admin:{password}"\n')
        machine.write(f"{HOME}/curl-wrong", 'user = "admin:this-is-not-it"\n')

    def url(self, repository: str, name: str = "", *, node: str = "", pool: str = "") -> str:
        """Return a repository's address: through the balancer, or straight at a pool of a node."""
        if node:
            return f"http://{self.settings.addresses[node]}:{self.settings.host_pools[node][pool]['port']}/{repository}"
        return f"https://{name or self.settings.hostname}/{repository}"

    def run(self, script: str, seconds: float = 60.0, stdin: str = "") -> str:
        """Run a script as the user."""
        return self.machine.run(ENVIRONMENT + script, stdin=stdin, seconds=seconds)

    def commit_git(self, folder: str, text: str) -> str:
        """Make a commit in a (new) working copy and return its id."""
        return self.run(
            f"mkdir -p {folder} && cd {folder} && (git rev-parse --git-dir >/dev/null 2>&1 || git init -q) && echo {text} >> word && git add word"
            f" && git commit -q -m {text} && git rev-parse HEAD"
        ).strip()

    def commit_hg(self, folder: str, text: str) -> str:
        """Make a changeset in a (new) working copy and return its id."""
        return self.run(
            f"[ -d {folder}/.hg ] || hg init {folder}; cd {folder} && echo {text} >> word && hg commit -q -A -m {text} && hg log -r tip -T '{{node}}'"
        ).strip()

    def commit(self, kind: str, folder: str, text: str) -> str:
        """Make a commit of either kind."""
        return self.commit_git(folder, text) if kind == "git" else self.commit_hg(folder, text)

    def push(self, kind: str, folder: str, url: str) -> None:
        """Push what is in a working copy."""
        self.run(f"git -C {folder} push -q {url} master" if kind == "git" else f"hg -R {folder} push -q {url}")

    def clone(self, kind: str, url: str, folder: str) -> str:
        """Clone anew and return the file that the commits are made in."""
        return self.run(f"rm -rf {folder} && {kind} clone -q {url} {folder} && cat {folder}/word")

    def slow_clone(self, number: int, repository: str, rate: int, seconds: float) -> str:
        """Start a clone over a slow line in the background and return its unit; free_clones lets all run at full speed."""
        unit, here, folder = f"slow-clone-{number}", f"127.0.1.{number + 1}", f"{HOME}/slow-{number}"
        name = self.settings.hostname
        script = (
            f"{ENVIRONMENT} rm -rf {folder} {folder}.log; python3 throttle.py {here} {self.settings.address} {rate} {HOME}/free & sleep 0.5;"
            f" git -c http.curloptResolve={name}:443:{here} clone -q --no-checkout {self.url(repository)} {folder} 2> {folder}.log;"
            f" echo $? >> {folder}.log"
        )
        self.machine.start(unit, script, seconds)
        return unit

    @contextmanager
    def slow_clones(self, repository: str, count: int, seconds: float = 150.0) -> Iterator[None]:
        """Hold so many clones open over slow lines; end them and remove their folders."""
        self.clear_slow_clones(count)
        try:
            for number in range(count):
                self.slow_clone(number, repository, SLOW_RATE, seconds)
            yield
        finally:
            self.clear_slow_clones(count)

    def free_clones(self) -> None:
        """Take the brake off all slow clones."""
        self.run("touch free")

    def clear_slow_clones(self, count: int) -> None:
        """Stop what is left of slow clones and remove their folders."""
        self.machine.stop(*[f"slow-clone-{number}" for number in range(count)])
        self.run(f"rm -rf {HOME}/free {HOME}/slow-*")

    def cloned(self, number: int) -> bool:
        """Tell whether a slow clone has ended well and is whole; fail where it ended otherwise."""
        log = self.run(f"cat slow-{number}.log 2>/dev/null || true").split("\n")
        if not [line for line in log if line.strip().isdigit()]:
            return False
        assert log[-2] == "0", f"the slow clone failed: {' '.join(log)}"
        self.run(f"cd slow-{number} && git fsck --full --no-progress", seconds=120)
        return True


def client_on(machine: Machine, settings: Settings) -> Iterator[Client]:
    """Return git and hg on a host outside the cluster; remove what they wrote."""
    for command in COMMANDS:
        assert machine.host.exists(command), f"{command} is missing on {machine.name}: prepare.yml has to install it"
    yield Client(machine, settings)
    machine.run(f"rm -rf {HOME}")


def curl(arguments: str, config: str = "") -> str:
    """Return a curl command that prints the status; credentials come from a private file."""
    return f"curl --silent --show-error --output /dev/null --write-out '%{{http_code}}' {f'--config {HOME}/{config}' if config else ''} {arguments}"
