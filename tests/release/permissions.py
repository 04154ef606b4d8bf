"""Compare the permissions of random worlds as two trees of Kallithea answer them, and what an answer costs.

permissions.py STOCK PATCHED [short] [URL...]: the folders that hold the package kallithea; short asks of fewer worlds, and no time. Each URL is of three
empty databases, with {} for their number; without one, all databases are SQLite's in memory. Ends with 1 where an answer differs, or where the patched
one's cost grows with the number of repositories. Needs the Python of a release.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import trees

SEEDS = range(6)
SHORT_SEEDS = range(1)
SIZES = (10, 500, 5000)
LEVELS = ("read", "write", "admin")
GLOBAL = ("hg.create.none", "hg.create.repository", "hg.fork.none", "hg.fork.repository", "hg.usergroup.create.false", "hg.usergroup.create.true")
DEFAULT_USER = 1
# Of SIZES; what is measured is a millisecond or two.
GROWTH = 1.5
QUESTIONS = 30


def chance(dice: random.Random, share: float) -> bool:
    """Return true in this share of the throws."""
    return dice.random() < share


class World:
    """An empty database, and what fills it."""

    def __init__(self, url: str = "sqlite://") -> None:
        """Make the tables, in place of those of the world before, and every permission there is."""
        import kallithea
        import sqlalchemy
        from kallithea.model import base, db, meta

        meta.Session.remove()
        self.engine = sqlalchemy.create_engine(url)
        base.init_model(self.engine)
        meta.Base.metadata.drop_all()
        meta.Base.metadata.create_all()
        kallithea.DEFAULT_USER_ID = DEFAULT_USER
        self.db = db
        self.permissions = {name: number for number, name in enumerate(["hg.admin", *db.Permission.PERM_WEIGHTS], 1)}
        self.add(db.Permission, ({"permission_id": number, "permission_name": name} for name, number in self.permissions.items()))

    def add(self, table: Any, rows: Iterable[dict[str, Any]]) -> None:
        """Write rows, each as columns by their names in the database."""
        if many := list(rows):
            self.engine.execute(self.insertion(table.__table__), many)

    def insertion(self, table: Any) -> Any:
        """Return the statement that writes a row unless there is one like it."""
        if self.engine.name == "sqlite":
            return table.insert().prefix_with("OR IGNORE")
        from sqlalchemy.dialects import postgresql

        return postgresql.insert(table).on_conflict_do_nothing()

    def permission(self, dice: random.Random, kind: str) -> int:
        """Return one of the four permissions of this kind."""
        return self.permissions[f"{kind}.{dice.choice(('none', 'read', 'write', 'admin'))}"]

    def user(self, number: int, *, active: bool = True, admin: bool = False) -> None:
        """Write a user."""
        name = "default" if number == DEFAULT_USER else f"user-{number}"
        row = {"user_id": number, "username": name, "password": "", "firstname": "", "lastname": "", "api_key": f"{number:040}", "email": f"{name}@example.com"}
        self.add(self.db.User, [{**row, "active": active, "admin": admin}])

    def repository(self, number: int, owner: int, *, private: bool = False, group: int | None = None) -> None:
        """Write a repository, with no permission of anybody."""
        name = f"group-{group}/repo-{number}" if group else f"repo-{number}"
        row = {"repo_id": number, "repo_name": name, "user_id": owner, "private": private, "group_id": group}
        self.add(self.db.Repository, [{**row, "repo_state": "repo_state_created", "repo_type": "git", "description": "", "landing_revision": "rev:tip"}])

    def user_group(self, number: int, owner: int, members: Iterable[int], *, active: bool = True) -> None:
        """Write a user group with its members."""
        row = {"users_group_id": number, "users_group_name": f"users-{number}", "users_group_active": active, "user_id": owner}
        self.add(self.db.UserGroup, [row])
        self.add(self.db.UserGroupMember, ({"users_group_id": number, "user_id": user} for user in members))


def random_world(seed: int, url: str) -> World:
    """Make users, groups, repositories and permissions by throwing dice."""
    world, dice = World(url), random.Random(seed)
    db = world.db
    users, groups, repositories, user_groups = range(1, 15), range(1, 8), range(1, 31), range(1, 9)
    for user in users:
        world.user(user, active=chance(dice, 0.8), admin=user != DEFAULT_USER and chance(dice, 0.15))
        for address in ("127.0.0.1/32", "10.0.0.0/8", "2001:db8::/32"):
            if chance(dice, 0.05 if user == DEFAULT_USER else 0.15):
                world.add(db.UserIpMap, [{"user_id": user, "ip_addr": address}])
        for name in GLOBAL:
            if chance(dice, 0.2):
                world.add(db.UserToPerm, [{"user_id": user, "permission_id": world.permissions[name]}])
    for group in user_groups:
        world.user_group(group, dice.choice(users), dice.sample(users, dice.randint(0, 7)), active=chance(dice, 0.7))
        for name in GLOBAL:
            if chance(dice, 0.1):
                world.add(db.UserGroupToPerm, [{"users_group_id": group, "permission_id": world.permissions[name]}])
    for group in groups:
        parent = dice.choice([None, *range(1, group)])
        row = {"group_id": group, "group_name": f"group-{group}", "group_parent_id": parent, "group_description": "", "user_id": dice.choice(users)}
        world.add(db.RepoGroup, [row])
    for repository in repositories:
        world.repository(repository, dice.choice(users), private=chance(dice, 0.4), group=dice.choice([None, *groups]))

    def grant(kind: str, targets: Iterable[int], of_user: Any, of_group: Any, column: str, of_group_column: str, group_column: str = "users_group_id") -> None:
        of_users, of_groups = [], []
        for target in targets:
            # Without the default user's, a repository is nobody's and the permissions of others are refused by an error: none are given.
            if chance(dice, 0.05):
                continue
            for user in users:
                # Now and then two for one user.
                for _ in range(dice.choice((0, 0, 0, 1, 1, 2)) if user != DEFAULT_USER else 1 + chance(dice, 0.1)):
                    of_users.append({"user_id": user, column: target, "permission_id": world.permission(dice, kind)})
            for group in user_groups:
                if chance(dice, 0.2):
                    of_groups.append({group_column: group, of_group_column: target, "permission_id": world.permission(dice, kind)})
        world.add(of_user, of_users)
        world.add(of_group, of_groups)

    grant("repository", repositories, db.UserRepoToPerm, db.UserGroupRepoToPerm, "repository_id", "repository_id")
    grant("group", groups, db.UserRepoGroupToPerm, db.UserGroupRepoGroupToPerm, "group_id", "group_id")
    grant("usergroup", user_groups, db.UserUserGroupToPerm, db.UserGroupUserGroupToPerm, "user_group_id", "target_user_group_id", "user_group_id")
    return world


def outcome(question: Callable[[], Any]) -> Any:
    """Return the answer, or the name of the error."""
    try:
        return question()
    except Exception as error:
        return type(error).__name__


def decisions(user: Callable[[], Any], names: dict[str, list[str | None]]) -> Iterator[tuple[str, Any]]:
    """Yield all that is decided about a user, by question; user() is asked for the user before each of them."""
    from kallithea.lib import auth

    checks = {"repository": auth.HasRepoPermissionLevel, "group": auth.HasRepoGroupPermissionLevel, "usergroup": auth.HasUserGroupPermissionLevel}
    for kind, check in checks.items():
        for name in names[kind]:
            auth.request = SimpleNamespace(authuser=user())
            for level in LEVELS:
                yield f"{kind} {name} {level}", outcome(lambda check=check, level=level, name=name: check(level)(name))
    for name in names["repository"]:
        asked = user()
        for count in (1, 2, 3):
            wanted = [f"repository.{level}" for level in LEVELS[-count:]]
            yield f"middleware {name} {count}", outcome(lambda asked=asked, wanted=wanted, name=name: auth.HasPermissionAnyMiddleware(*wanted)(asked, name))


def answers(seed: int, url: str, each_alone: bool) -> dict[str, Any]:
    """Return every answer about a world; each by an AuthUser of its own, as in a request, or by one for all of a user."""
    from kallithea.lib.auth import AuthUser
    from kallithea.model import meta

    world = random_world(seed, url)
    db = world.db
    names = {
        "repository": [name for (name,) in meta.Session().query(db.Repository.repo_name)],
        "group": [name for (name,) in meta.Session().query(db.RepoGroup.group_name)],
        "usergroup": [name for (name,) in meta.Session().query(db.UserGroup.users_group_name)],
    }
    for some in names.values():
        some.extend([None, "", "nothing", str(some[0]).upper(), f"{some[0]}/", "%"])
    result: dict[str, Any] = {}
    for number in [user_id for (user_id,) in meta.Session().query(db.User.user_id)]:
        same = AuthUser(user_id=number)
        found = dict(decisions((lambda number=number: AuthUser(user_id=number)) if each_alone else (lambda same=same: same), names))
        found.update(
            {
                "global": sorted(same.global_permissions),
                "permissions": {kind: dict(sorted(same.permissions[kind].items())) for kind in ("repositories", "repositories_groups", "user_groups")},
                "administered": [sorted(some) for some in (same.repositories_admin, same.repository_groups_admin, same.user_groups_admin)],
                "all repositories": sorted(repository.repo_name for repository in same.get_all_user_repos()),
            }
        )
        for address in ("127.0.0.1", "10.1.2.3", "192.0.2.1", "2001:db8::1"):
            found[f"from {address}"] = AuthUser.make(dbuser=db.User.get(number), ip_addr=address) is not None
        result[str(number)] = found
    return result


def nobodys(url: str) -> dict[str, Any]:
    """Return the answers about a repository that has a permission of a user, and none of the default user."""
    from kallithea.lib.auth import AuthUser

    world, asked = World(url), {"repository": ["repo-1"], "group": [], "usergroup": []}
    for number in (DEFAULT_USER, 2, 3):
        world.user(number, admin=number == 3)
    world.repository(1, 2)
    world.add(world.db.UserRepoToPerm, [{"user_id": 2, "repository_id": 1, "permission_id": world.permissions["repository.admin"]}])
    return {str(number): dict(decisions(lambda number=number: AuthUser(user_id=number), asked)) for number in (DEFAULT_USER, 2, 3)}


def cost(repositories: int) -> dict[str, float]:
    """Return queries and milliseconds of processor time of one question, among 500 users in 50 groups."""
    import sqlalchemy
    from kallithea.lib.auth import AuthUser
    from kallithea.model import meta

    world = World()
    db, user = world.db, 7
    numbers = range(1, repositories + 1)
    read, write = world.permissions["repository.read"], world.permissions["repository.write"]
    for number in range(1, 501):
        world.user(number)
    for group in range(1, 51):
        world.user_group(group, 2, range(group, 501, 50))
    for number in numbers:
        world.repository(number, 2 + number % 499)
    world.add(db.UserRepoToPerm, ({"user_id": DEFAULT_USER, "repository_id": number, "permission_id": read} for number in numbers))
    world.add(db.UserGroupRepoToPerm, ({"users_group_id": 1 + number % 50, "repository_id": number, "permission_id": write} for number in numbers))
    statements: list[str] = []

    @sqlalchemy.event.listens_for(world.engine, "before_cursor_execute")
    def _count(_connection: Any, _cursor: Any, statement: str, *_others: Any) -> None:
        statements.append(statement)

    best, queries = float("inf"), 0
    for question in range(QUESTIONS):
        meta.Session.remove()
        asked = AuthUser(dbuser=db.User.get(user))
        statements.clear()
        begin = time.process_time()
        asked.has_repository_permission_level(f"repo-{1 + question % 10}", "read")
        best, queries = min(best, time.process_time() - begin), len(statements)
        # Stock needs seconds for many.
        if best > 0.1 and question > 1:
            break
    return {"queries": queries, "milliseconds": round(1000 * best, 2)}


def compare_answers(stock: Path, patched: Path, url: str, *short: str) -> int:
    """Say what differs with a database; return how much."""
    ways = {"wanted": (stock, "same"), "same": (patched, "same"), "alone": (patched, "alone")}
    with ThreadPoolExecutor(2) as executor:
        asked = [executor.submit(trees.ask, tree, __file__, "answers", url.format(number), way, *short) for number, (tree, way) in enumerate(ways.values())]
        found = dict(zip(ways, [answer.result() for answer in asked], strict=True))
    count = 0
    for way in ("same", "alone"):
        given = found[way]
        wrong = trees.differences(found["wanted"], given)
        pairs = sum(len(user) for world in given.values() for user in world.values())
        print(f"{pairs} answers in {len(given)} worlds of {url.partition(':')[0]}, asked {way}: {len(wrong)} differ")
        print("\n".join(wrong[:20]), end="\n" if wrong else "")
        count += len(wrong)
    return count


def compare_costs(stock: Path, patched: Path) -> bool:
    """Say what an answer costs; return whether it grows with the number of repositories."""
    costs = {name: trees.ask(tree, __file__, "cost") for name, tree in (("stock", stock), ("patched", patched))}
    for size in costs["stock"]:
        print(f"one question with {size} repositories: stock {costs['stock'][size]}, patched {costs['patched'][size]}")
    few, many = (costs["patched"][str(size)] for size in (SIZES[0], SIZES[-1]))
    return bool(many["queries"] != few["queries"] or many["milliseconds"] > GROWTH * few["milliseconds"])


def main(arguments: list[str]) -> int:
    """Compare two trees, or answer with the tree that is imported."""
    if arguments[0] == "answers":
        url, alone = arguments[1], arguments[2] == "alone"
        seeds = SHORT_SEEDS if "short" in arguments else SEEDS
        json.dump({"nobody's": nobodys(url), **{str(seed): answers(seed, url, alone) for seed in seeds}}, sys.stdout)
    elif arguments[0] == "cost":
        json.dump({str(size): cost(size) for size in SIZES}, sys.stdout)
    else:
        stock, patched = map(Path, arguments[:2])
        short = ["short"] if "short" in arguments else []
        urls = [word for word in arguments[2:] if ":" in word] or ["sqlite://"]
        wrong = sum(compare_answers(stock, patched, url, *short) for url in urls)
        return int(bool(wrong) or (not short and compare_costs(stock, patched)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
