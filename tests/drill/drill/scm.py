"""Working copies of real git and hg, what a push says, and credentials that stand on no command line."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from drill.commands import Done, DrillFailed, must, run
from drill.journal import ACKNOWLEDGED, FAILED, REFUSED, UNKNOWN, Outcome

BRANCH = "refs/heads/master"
# Mercurial's name of nothing.
NULL = "0" * 40
# Read by sh, since /tmp may let nothing be executed.
CREDENTIAL = '[ "$1" != get ] || printf "username=%s\\npassword=%s\\n" "$(cat "${0%/*}/user")" "$(cat "${0%/*}/password")"\n'
GITCONFIG = "[user]\n name = Drill\n email = drill@localhost\n[gc]\n auto = 0\n[advice]\n pushUpdateRejected = false\n"

# The words in which a version control system refuses the second of two pushes.
ORDINARY = re.compile(
    r"! \[rejected\]|fetch first|non-fast-forward|cannot lock ref|failed to update ref|failed to lock|incorrect old value|reference already exists"
    r"|new remote heads?|remote has heads|unsynced changes|repository changed while|timed out waiting for lock|could not lock"
)
# An answer that says no, or nobody who could have been sent anything: the push is not there.
SURE = re.compile(
    r"unable to access|(?:error:|HTTP|HTTP Error) (?:503|4\d\d)|[Aa]uthentication failed|authorization failed|\[remote rejected\]|remote error:"
    r"|remote unpack failed|Failed to connect|Could not resolve|Connection refused|No route to host|not appear to be a git|repository .* not found"
)


@dataclass(frozen=True)
class Tools:
    """A private folder with what git and hg read, and the limit of one command."""

    folder: Path
    seconds: float
    ca_file: str = ""

    @property
    def environment(self) -> dict[str, str]:
        """Nothing of the user's own settings."""
        certificates = {"GIT_SSL_CAINFO": self.ca_file} if self.ca_file else {}
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "LC_ALL": "C.UTF-8",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_CONFIG_NOSYSTEM": "1",
            "HGRCPATH": str(self.folder / "hgrc"),
            "HGPLAIN": "1",
            **certificates,
        }

    def prepare(self, user: str = "", password: str = "") -> None:
        """Write the files; the folder is the user's alone."""
        self.folder.chmod(0o700)
        for name, content, mode in (
            ("credential", CREDENTIAL, 0o600),
            ("user", user, 0o600),
            ("password", password, 0o600),
            (".gitconfig", f"{GITCONFIG}[credential]\n helper = !sh {shlex.quote(str(self.folder / 'credential'))}\n", 0o600),
            ("hgrc", self._hgrc(user, password), 0o600),
        ):
            path = self.folder / name
            path.touch(mode)
            path.write_text(content)

    def _hgrc(self, user: str, password: str) -> str:
        auth = f"[auth]\nsite.prefix = *\nsite.schemes = http https\nsite.username = {user}\nsite.password = {password}\n" if user else ""
        return f"[ui]\nusername = Drill <drill@localhost>\n{auth}[web]\ncacerts = {self.ca_file}\n"

    def run(self, argv: Sequence[str], folder: Path | None = None) -> Done:
        """Run a command that may fail."""
        return run(argv, environment=self.environment, seconds=self.seconds, folder=folder)

    def must(self, argv: Sequence[str], folder: Path | None = None) -> str:
        """Run a command that may not."""
        return must(argv, environment=self.environment, seconds=self.seconds, folder=folder)


def outcome_of(done: Done) -> Outcome:
    """Tell what became of a push by what the command said; what is not sure is unknown."""
    if done.well:
        return Outcome(ACKNOWLEDGED)
    said = " ".join((done.errors + " " + done.output).split())[:400]
    if done.status is None:
        return Outcome(UNKNOWN, f"killed when its time was over: {said}")
    if ORDINARY.search(done.errors + done.output):
        return Outcome(REFUSED, said)
    return Outcome(FAILED if SURE.search(done.errors) else UNKNOWN, said or f"ended with {done.status} without a word")


class Unreadable(DrillFailed):
    """The remote repository could not be asked."""


class Copy:
    """A working copy, of one branch, whose remote repository is named at every call."""

    kind = ""

    def __init__(self, folder: Path, tools: Tools) -> None:
        """Make an empty one."""
        self.folder = folder
        self.tools = tools
        # The commit that the working copy is on: each start of Mercurial counts.
        self.at = ""
        folder.mkdir(parents=True)
        self.start()

    def start(self) -> None:
        """Make the local repository."""
        raise NotImplementedError

    def tip(self, url: str) -> str:
        """Ask the remote repository for its newest commit; nothing while it has none."""
        raise NotImplementedError

    def fetch(self, url: str) -> Done:
        """Fetch what the remote repository has."""
        raise NotImplementedError

    def check_out(self, commit: str) -> Done:
        """Put the working copy on a commit, if this copy has it."""
        raise NotImplementedError

    def make(self, word: str) -> str:
        """Make a commit of the changed file and return its id."""
        raise NotImplementedError

    def push(self, url: str, commit: str) -> Outcome:
        """Push a commit to the branch."""
        raise NotImplementedError

    def history(self, commit: str) -> dict[str, str]:
        """Return a commit and its ancestors with the first lines of their messages."""
        raise NotImplementedError

    @staticmethod
    def clone(tools: Tools, url: str, folder: Path) -> Done:
        """Clone afresh, as somebody who has nothing."""
        raise NotImplementedError

    def sync(self, url: str) -> str:
        """Go on from where the remote repository is, whatever this copy holds beside; return that commit.

        A push made on top of what this copy has would bring back what the server had lost.
        """
        tip = self.tip(url)
        if tip:
            self.go_to(tip, url)
        return tip

    def go_to(self, commit: str, url: str) -> None:
        """Work on top of a commit from here on; fetch it if this copy has it not."""
        if commit == self.at:
            return
        if not self.check_out(commit).well:
            for done in (self.fetch(url), self.check_out(commit)):
                if not done.well:
                    raise Unreadable(done.errors.strip()[-300:] or f"fetching {commit} ended with {done.status}")
        self.at = commit

    def commit(self, word: str) -> str:
        """Make a commit and return its id."""
        with (self.folder / "word").open("a") as file:
            file.write(f"{word}\n")
        self.at = self.make(word)
        return self.at

    def _pairs(self, text: str) -> dict[str, str]:
        return {commit: word for commit, _, word in (line.partition(" ") for line in text.splitlines())}


class Git(Copy):
    """Git's."""

    kind = "git"

    def start(self) -> None:
        """Make the local repository."""
        self.tools.must(["git", "init", "-q", "-b", "master"], self.folder)

    def tip(self, url: str) -> str:
        """Ask by ls-remote."""
        done = self.tools.run(["git", "ls-remote", url, BRANCH], self.folder)
        if not done.well:
            raise Unreadable(done.errors.strip()[-300:] or f"ls-remote ended with {done.status}")
        return done.output.split("\t")[0]

    def fetch(self, url: str) -> Done:
        """Fetch the branch."""
        return self.tools.run(["git", "fetch", "-q", url, BRANCH], self.folder)

    def check_out(self, commit: str) -> Done:
        """Reset to a commit."""
        return self.tools.run(["git", "reset", "-q", "--hard", commit], self.folder)

    def make(self, word: str) -> str:
        """Make a commit and return its id."""
        self.tools.must(["git", "add", "word"], self.folder)
        self.tools.must(["git", "commit", "-q", "-m", word], self.folder)
        return self.tools.must(["git", "rev-parse", "HEAD"], self.folder).strip()

    def push(self, url: str, commit: str) -> Outcome:
        """Push a commit to the branch."""
        return outcome_of(self.tools.run(["git", "push", "-q", url, f"{commit}:{BRANCH}"], self.folder))

    def history(self, commit: str) -> dict[str, str]:
        """Return a commit and its ancestors."""
        return self._pairs(self.tools.must(["git", "log", "--format=%H %s", commit], self.folder))

    @staticmethod
    def clone(tools: Tools, url: str, folder: Path) -> Done:
        """Clone all refs."""
        return tools.run(["git", "clone", "-q", "--mirror", url, str(folder)])


class Hg(Copy):
    """Mercurial's."""

    kind = "hg"

    def start(self) -> None:
        """Make the local repository."""
        self.tools.must(["hg", "init"], self.folder)

    def tip(self, url: str) -> str:
        """Ask by identify."""
        done = self.tools.run(["hg", "identify", "-r", "tip", "-T", "{node}", url], self.folder)
        if not done.well:
            raise Unreadable(done.errors.strip()[-300:] or f"identify ended with {done.status}")
        return "" if done.output.strip() == NULL else done.output.strip()

    def fetch(self, url: str) -> Done:
        """Pull everything."""
        return self.tools.run(["hg", "pull", "-q", url], self.folder)

    def check_out(self, commit: str) -> Done:
        """Update to a commit."""
        return self.tools.run(["hg", "update", "-q", "-C", "-r", commit], self.folder)

    def make(self, word: str) -> str:
        """Make a commit; its whole id is in what it says to debug."""
        said = self.tools.must(["hg", "commit", "--debug", "-A", "-m", word], self.folder)
        found = re.search(r"^committed changeset \d+:([0-9a-f]{40})$", said, re.MULTILINE)
        if not found:
            raise DrillFailed(f"hg commit did not say what it made: {said[-300:]}")
        return found.group(1)

    def push(self, url: str, commit: str) -> Outcome:
        """Push a commit and its ancestors."""
        return outcome_of(self.tools.run(["hg", "push", "-q", "-r", commit, url], self.folder))

    def history(self, commit: str) -> dict[str, str]:
        """Return a commit and its ancestors."""
        return self._pairs(self.tools.must(["hg", "log", "-r", f"::{commit}", "-T", "{node} {desc|firstline}\n"], self.folder))

    @staticmethod
    def clone(tools: Tools, url: str, folder: Path) -> Done:
        """Clone without a working copy."""
        return tools.run(["hg", "clone", "-q", "-U", url, str(folder)])


COPIES: Mapping[str, type[Copy]] = {"git": Git, "hg": Hg}
