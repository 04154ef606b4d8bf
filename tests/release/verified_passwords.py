"""A remembered password answers as a compared one does: each step's answer with the patch and without it, and how often bcrypt was asked.

verified_passwords.py WITHOUT WITH: folders that hold the package kallithea. Ends with an error where an answer differs. Needs the Python of a release.
"""

from __future__ import annotations

import json
import logging
import sys
import tempfile
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import trees
from application import PASSWORD, Application

REFERENCES = "/private/info/refs?service=git-upload-pack"
SECONDS = 30
OTHER = "second password"


class Steps:
    """What is asked one after the other: answers, and how many comparisons each of them cost."""

    def __init__(self, app: Application) -> None:
        """Count what bcrypt is asked, and set the clock of what is remembered."""
        import bcrypt
        import kallithea
        from kallithea.lib.auth_modules import auth_internal

        self.app = app
        self.config = kallithea.CONFIG
        self.module: Any = auth_internal
        self.now = 1000.0
        self.module.time = types.SimpleNamespace(monotonic=lambda: self.now)
        self.compared = 0
        self.answers: dict[str, tuple[int, int]] = {}
        compare = bcrypt.checkpw

        def counted(password: bytes, hashed: bytes) -> bool:
            self.compared += 1
            return bool(compare(password, hashed))

        bcrypt.checkpw = counted

    def ask(self, step: str, user: str = "user", password: str = PASSWORD, address: str = "192.0.2.1") -> None:
        """Fetch as this user."""
        self.compared = 0
        status, _ = self.app.ask(REFERENCES, user, password, REMOTE_ADDR=address)
        assert step not in self.answers, step
        self.answers[step] = (status, self.compared)


def change(what: Callable[[Any], None], name: str = "user") -> None:
    """Change a user in the database, as another host would."""
    from kallithea.model import db, meta

    what(db.User.get_by_username(name))
    meta.Session().commit()
    meta.Session.remove()


def limit(address: str | None) -> None:
    """Say from where the user may come; nowhere else, or from everywhere."""
    from kallithea.model import db, meta

    db.UserIpMap.query().delete()
    if address:
        row = db.UserIpMap()
        row.user_id = db.User.get_by_username("user").user_id
        row.ip_addr = address
        meta.Session().add(row)
    meta.Session().commit()
    meta.Session.remove()


def run(folder: Path) -> dict[str, Any]:
    """Go through the steps with the tree that Python finds."""
    logging.disable(logging.CRITICAL)
    app = Application(folder, verified_password_seconds=str(SECONDS))
    app.make_repository("git", "private", "repository.none")
    from kallithea.lib.utils2 import get_crypt_password
    from kallithea.model import db, meta
    from kallithea.model.repo import RepoModel

    def grant(permission: str) -> None:
        RepoModel().grant_user_permission("private", "user", permission)
        meta.Session().commit()
        meta.Session.remove()

    grant("repository.read")
    steps = Steps(app)
    steps.ask("first")
    steps.ask("again")
    steps.ask("by mail address", "user@example.com")
    steps.ask("wrong", password="wrong")
    steps.ask("wrong again", password="wrong")
    steps.ask("empty", password="")
    steps.ask("longer", password=PASSWORD + "x")
    steps.ask("with a zero byte", password=PASSWORD + "\0")
    steps.ask("nobody", "nobody")
    steps.ask("right after wrong")
    steps.ask("the same password, another user", "admin")
    steps.ask("that user again", "admin")
    change(lambda user: setattr(user, "active", False))
    steps.ask("deactivated")
    change(lambda user: setattr(user, "active", True))
    steps.ask("active again")
    limit("198.51.100.0/24")
    steps.ask("from a forbidden address")
    steps.ask("from an allowed address", address="198.51.100.7")
    limit(None)
    steps.ask("from anywhere")
    grant("repository.none")
    steps.ask("permission withdrawn")
    grant("repository.read")
    change(lambda user: setattr(user, "extern_type", "ldap"))
    steps.ask("of another plugin")
    change(lambda user: setattr(user, "extern_type", db.User.DEFAULT_AUTH_TYPE))
    steps.ask("of our own again")
    change(lambda user: setattr(user, "password", get_crypt_password(OTHER)))
    steps.ask("changed, the old one")
    steps.ask("changed, the new one", password=OTHER)
    steps.ask("changed, the old one again")
    change(lambda user: setattr(user, "password", get_crypt_password(PASSWORD)))
    steps.ask("changed back")
    steps.ask("changed back, the other", password=OTHER)
    hashed = db.User.get_by_username("user").password
    change(lambda user: setattr(user, "password", hashed), "admin")
    steps.ask("the same hash, another user", "admin")
    change(lambda user: setattr(user, "username", "renamed"))
    steps.ask("renamed, by the old name")
    steps.ask("renamed, by the new name", "renamed")
    change(lambda user: setattr(user, "username", "user"), "renamed")
    steps.now += SECONDS - 1
    steps.ask("soon")
    steps.now += 2
    steps.ask("too late")
    steps.ask("and again")
    steps.config["verified_password_seconds"] = "0"
    steps.ask("off")
    steps.ask("off again")
    steps.config["verified_password_seconds"] = str(SECONDS)
    return {"answers": steps.answers, **figures(app), **bounded(steps)}


def figures(app: Application) -> dict[str, float]:
    """Return what a request costs with a right and with a wrong password."""
    took = {}
    for name, password in (("right", PASSWORD), ("wrong", "wrong")):
        times = []
        for _ in range(10):
            begin = time.process_time()
            app.ask(REFERENCES, "user", password)
            times.append(time.process_time() - begin)
        took[name] = sorted(times)[5]
    return took


def bounded(steps: Steps) -> dict[str, Any]:
    """Return what is left of many passwords that were right."""
    remembered = getattr(steps.module, "verified_passwords", None)
    if remembered is None:
        return {}
    steps.module.utils2 = types.SimpleNamespace(check_password=lambda password, hashed: True, safe_bytes=str.encode)
    for number in range(1500):
        remembered.check(number, "password", "hash")
    kept = b"".join(remembered.ends)
    return {"kept": len(remembered.ends), "secrets": b"password" in kept or b"hash" in kept}


# Comparisons that are spared, and no others.
SPARED = {
    "again",
    "by mail address",
    "right after wrong",
    "that user again",
    "active again",
    "from a forbidden address",
    "from an allowed address",
    "from anywhere",
    "permission withdrawn",
    "of our own again",
    "renamed, by the new name",
    "soon",
    "and again",
}


def main() -> None:
    """Compare two trees, or go through the steps with one."""
    if len(sys.argv) == 1:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(run(Path(folder))))
        return
    without, patched = (trees.ask(Path(tree), __file__) for tree in sys.argv[1:3])
    for step, (status, compared) in without["answers"].items():
        print(f"{step}: {status}, comparisons: {compared}, with the patch {patched['answers'][step][1]}")
        assert patched["answers"][step] == [status, 0 if step in SPARED else compared], (step, patched["answers"][step])
    spared = [step for step in SPARED if without["answers"][step][1]]
    assert len(spared) == len(SPARED), set(SPARED) - set(spared)
    assert patched["kept"] == 1000 and not patched["secrets"], patched
    for name in ("right", "wrong"):
        print(f"a request with a {name} password: {without[name] * 1000:.0f} ms CPU, with the patch {patched[name] * 1000:.0f} ms")
    assert patched["right"] < without["right"] * 0.6
    assert patched["wrong"] > without["wrong"] * 0.6


if __name__ == "__main__":
    main()
