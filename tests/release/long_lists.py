"""Compare the lists of repositories on the home page and on a group's page as two trees of Kallithea show them, and the time of their first rows.

long_lists.py STOCK PATCHED: the folders that hold the package kallithea. Ends with 1 where a row differs, is missing or stands elsewhere than in
stock's table, also while repositories are renamed and deleted. Needs the Python of a release; what stock's table does in a browser (DataTables'
order and search) is told by table().
"""

from __future__ import annotations

import contextlib
import datetime
import html
import itertools
import json
import logging
import random
import re
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import permissions
import trees

# Compared: below and above what a browser pages by itself, half of them in a group. Timed: all of them on the home page.
SIZES = (150, 500)
TIMED = (500, 5000, 20000)
SHORT = 200
DEFAULT, ADMIN, MEMBER, OWNER, STRANGER = range(1, 6)
USERS = {"anonymous": DEFAULT, "admin": ADMIN, "member": MEMBER, "owner": OWNER, "stranger": STRANGER}
PAGES = {"home": "/", "group": "/group-1"}
COLUMNS = {"name": 1, "description": 3, "last change": 5, "tip": 7, "owner": 8}
FIELDS = ("raw_name", "name", "following", "desc", "last_change_iso", "last_change", "last_rev_raw", "last_changeset", "owner", "atom")
# The column that a visible one is sorted by.
SORTED_BY = {1: 0, 5: 4, 7: 6}
SEARCHES = ("", "repo", "REPO 7", "7 repo", '"po-1"', "99", "nothing at all", "group", "ä")
SHOWN = ("show_private_icon", "show_public_icon", "stylify_metalabels")
WORDS = ("tool", "Library", "https://example.com/", "[stable]", "<b>", "@user-3", "", "-", "docs for #7", "Ünder")


def fill(folder: Path, size: int, grouped: bool) -> None:
    """Write a database with this many repositories, half of them in a group or none, 500 users in 50 user groups, and rights of many kinds."""
    world, dice = permissions.World(f"sqlite:///{folder}/kallithea.db"), random.Random(size)
    db = world.db
    world.add(db.Ui, [{"ui_section": "paths", "ui_key": "/", "ui_value": f"{folder}/repositories", "ui_active": True}])
    settings = {"auth_plugins": "kallithea.lib.auth_modules.auth_internal", "auth_internal_enabled": "True", **dict.fromkeys(SHOWN, "True")}
    kinds = {"auth_plugins": "list"}
    rows: list[dict[str, Any]] = [
        {"app_settings_name": name, "app_settings_value": value, "app_settings_type": kinds.get(name, "bool")} for name, value in settings.items()
    ]
    world.add(db.Setting, rows)
    for user in range(1, 501):
        world.user(user, admin=user == ADMIN)
    for group in range(1, 51):
        world.user_group(group, ADMIN, range(group, 501, 50), active=group != STRANGER)
    names = [(number, None if number < 30 else 1 + number % 3) for number in range(1, 60)]
    rows = [{"group_id": number, "group_name": f"group-{number}" if parent is None else f"group-{parent}/Group-{number}"} for number, parent in names]
    rows = [{**row, "group_parent_id": parent} for row, (_, parent) in zip(rows, names, strict=True)]
    world.add(db.RepoGroup, ({**row, "group_description": dice.choice(WORDS), "user_id": ADMIN} for row in rows))
    group_read = world.permissions["group.read"]
    world.add(db.UserRepoGroupToPerm, ({"user_id": DEFAULT, "group_id": number, "permission_id": group_read} for number, _ in names if number != 20))
    repositories, defaults, of_groups = [], [], []
    for number in range(1, size + 1):
        in_group = grouped and number % 2 == 1
        name, private = dice.choice(("repo-{}", "Repo-{}", "a repo & {}", "ärepo-{}")).format(number), dice.random() < 0.2
        tip = json.dumps({"raw_id": "a" * 40, "short_id": "a" * 12, "revision": dice.randrange(500), "author": "A", "message": "m"})
        changed = datetime.datetime(2001, 1, 1) + datetime.timedelta(hours=dice.randrange(9000), microseconds=dice.choice((0, 5)))
        repositories.append(
            {
                "repo_id": number,
                "repo_name": f"group-1/{name}" if in_group else name,
                "group_id": 1 if in_group else None,
                "user_id": OWNER if number % 10 == 0 else dice.randint(2, 500),
                "private": private,
                "description": " ".join(dice.sample(WORDS, dice.randint(1, 2))),
                "updated_on": changed,
                "changeset_cache": tip.encode() if dice.random() < 0.9 else dice.choice((None, b"{}", b"no")),
                "repo_state": dice.choice(("repo_state_created", "repo_state_pending")),
                "repo_type": dice.choice(("git", "hg")),
                "landing_revision": "rev:tip",
                "fork_id": 1 if number % 50 == 2 else None,
            }
        )
        permission = "repository.none" if private or dice.random() < 0.1 else "repository.read"
        defaults.append({"user_id": DEFAULT, "repository_id": number, "permission_id": world.permissions[permission]})
        of_groups.append({"users_group_id": 1 + number % 50, "repository_id": number, "permission_id": world.permissions["repository.write"]})
    world.add(db.Repository, repositories)
    world.add(db.UserRepoToPerm, defaults)
    world.add(db.UserGroupRepoToPerm, of_groups)
    followings = ({"user_id": MEMBER, "follows_repository_id": number, "follows_from": changed} for number in range(1, size + 1, 7))
    world.add(db.UserFollowing, followings)


class Site:
    """The application of the tree that is imported, on such a database."""

    def __init__(self, folder: Path) -> None:
        """Start the application."""
        from kallithea.config.application import make_app

        settings = {
            "sqlalchemy.url": f"sqlite:///{folder}/kallithea.db",
            "ignore_alembic_revision": "true",
            "cache_dir": f"{folder}/data",
            "session.secret": "secret",
            "app_instance_uuid": "test",
            "beaker.cache.regions": "long_term,long_term_file",
            "beaker.cache.long_term.type": "memory",
            "beaker.cache.long_term_file.type": "memory",
            "base_path": f"{folder}/repositories",
            "i18n.lang": "en",
        }
        (folder / "repositories/group-1").mkdir(parents=True, exist_ok=True)
        self.app = make_app({"here": str(folder), "__file__": f"{folder}/test.ini"}, **settings)

    def get(self, user: int, path: str, query: dict[str, Any] | None = None) -> str:
        """Return what a user is shown."""
        from webob import Request

        request = Request.blank(f"{path}?{urlencode(query)}" if query else path, remote_addr="127.0.0.1")
        if user != DEFAULT:
            request.authorization = ("Bearer", f"{user:040}")
        response = request.get_response(self.app)
        assert response.status_int == 200, (path, query, response.status, response.text[-2000:])
        return response.text

    def data(self, user: int, path: str) -> Any:
        """Return what a page gives DataTables."""
        found = re.search(r"var data = \((\{.*\})\);$", self.get(user, path), re.MULTILINE)
        assert found, "no list in the page"
        # JavaScript's escapes that JSON does not know.
        return json.loads(re.sub(r"\\(x..|.)", lambda escape: f"\\u00{escape[1][1:]}" if escape[1][0] == "x" else escape[0], found[1]))

    def page(self, user: int, path: str, start: int, search: str = "", order: tuple[int, str] = (1, "asc")) -> Any:
        """Return what DataTables gets for a page."""
        query = {"draw": 3, "start": start, "length": 100, "search[value]": search, "search[regex]": "false"}
        query.update({f"columns[{number}][data]": name for number, name in enumerate(FIELDS)})
        query.update({"order[0][column]": SORTED_BY.get(order[0], order[0]), "order[0][dir]": order[1]})
        answer = json.loads(self.get(user, path, query))
        assert answer["draw"] == 3
        return answer

    def pages(self, user: int, path: str, search: str, order: tuple[int, str]) -> tuple[list[Any], int]:
        """Return all rows, page by page, and how many there are without the search."""
        rows: list[Any] = []
        while True:
            answer = self.page(user, path, len(rows), search, order)
            rows += answer["data"]
            if len(rows) >= answer["recordsFiltered"] or not answer["data"]:
                assert len(rows) == answer["recordsFiltered"]
                return rows, answer["recordsTotal"]


def table(records: list[Any], search: str, order: tuple[int, str]) -> list[Any]:
    """Return the rows as stock's table orders and finds them: DataTables 1.10 in index_base.html, ties by name."""
    words = [word.strip('"').lower() for word in re.findall(r'"[^"]+"|[^ ]+', search)]
    rows = [row for row in records if all(word in html.unescape(row["just_name"]).lower() for word in words)]
    rows.sort(key=lambda row: row["raw_name"].lower())
    field = FIELDS[SORTED_BY.get(order[0], order[0])]
    empty = -(10**9) if field == "last_rev_raw" else ""

    def key(row: Any) -> Any:
        value = row.get(field, empty)
        value = empty if value in (None, "-") else value
        return re.sub("<.*?>", "", value).lower() if isinstance(value, str) else value

    return sorted(rows, key=key, reverse=order[1] == "desc")


def questions() -> Iterator[tuple[str, tuple[int, str]]]:
    """Yield searches and orders."""
    yield from ((search, (1, "asc")) for search in SEARCHES)
    yield from (("", (column, way)) for column in COLUMNS.values() for way in ("asc", "desc"))
    yield ("repo 1", (COLUMNS["last change"], "desc"))


def checked(folder: Path, wanted: Any) -> list[str]:
    """Return what differs between the patched pages and the tables that stock's records make."""
    site, wrong = Site(folder), []
    for name, number in USERS.items():
        for where, path in PAGES.items():
            records, shown = wanted[f"{name} {where}"], site.data(number, path)
            first = table(records, "", (1, "asc"))
            expected = first[:100] if len(records) > SHORT else records
            if shown["records"] != expected or bool(shown["options"]) != (len(records) > SHORT):
                wrong.append(f"{name} {where}: {len(shown['records'])} first rows, {len(expected)} expected, {shown['options']}")
            if shown["options"] and shown["options"] != {"serverSide": True, "deferLoading": len(records), "ajax": path}:
                wrong.append(f"{name} {where}: {shown['options']}")
            # A browser asks nothing of a short list, and a group's page goes the way of the home page.
            for search, order in list(questions())[:: 1 if len(records) > SHORT and where == "home" else 4]:
                rows, total = site.pages(number, path, search, order)
                if rows != table(records, search, order) or total != len(records):
                    wrong.append(f"{name} {where}: {search!r} by {order}: {len(rows)} of {total} rows")
    return wrong


def records(folder: Path) -> dict[str, Any]:
    """Return all rows that each user has in each list, as the tree that is imported has them in its pages."""
    site = Site(folder)
    return {f"{name} {where}": site.data(number, path)["records"] for name, number in USERS.items() for where, path in PAGES.items()}


def raced(folder: Path) -> list[str]:
    """Return what is wrong with the first rows where one repository is renamed and one deleted before the first call of a step that asks for them again."""
    from kallithea.model import repo_pages

    site, wrong = Site(folder), []
    for step in ("_get_keys", "_render"):
        for column in COLUMNS.values():
            before = site.page(MEMBER, "/", 0, "", (column, "asc"))["data"]
            renamed, deleted = (html.unescape(row["raw_name"]) for row in [row for row in before if "owner" in row][3:5])
            changes = [("UPDATE repositories SET repo_name = ? WHERE repo_name = ?", (f"zz {renamed}", renamed))]
            changes += [("DELETE FROM repositories WHERE repo_name = ?", (deleted,))]
            real = getattr(repo_pages, step)

            def late(*given: Any, real: Any = real, changes: list[Any] = changes) -> Any:
                with contextlib.closing(sqlite3.connect(folder / "kallithea.db")) as connection, connection:
                    while changes:
                        connection.execute(*changes.pop())
                return real(*given)

            setattr(repo_pages, step, late)
            try:
                rows = site.page(MEMBER, "/", 0, "", (column, "asc"))["data"]
            except Exception as error:
                rows = [repr(error)]
            finally:
                setattr(repo_pages, step, real)
            expected = [row for row in before if html.unescape(row["raw_name"]) not in (renamed, deleted)]
            # Where they are gone early enough, others take their places at the end.
            if rows[: len(expected)] != expected:
                wrong.append(f"{step}, by column {column}: {next(pair for pair in itertools.zip_longest(rows, expected) if pair[0] != pair[1])}")
    return wrong


def timed(folder: Path) -> dict[str, float]:
    """Return the seconds of processor time of the home page and of other pages of its list; the best of three, after a first one."""
    site, best = Site(folder), {}
    site.data(ADMIN, "/")
    for name in ("anonymous", "admin", "member"):
        user = USERS[name]
        asked = {"": lambda user=user: site.data(user, "/")}
        # Stock has no other pages.
        if site.data(user, "/").get("options"):
            asked[" by last change"] = lambda user=user: site.page(user, "/", 0, "", (COLUMNS["last change"], "desc"))
            asked[" by description"] = lambda user=user: site.page(user, "/", 0, "", (COLUMNS["description"], "desc"))
            asked[" search"] = lambda user=user: site.page(user, "/", 0, "repo 7")
        for what, ask in asked.items():
            took = []
            for _ in range(3):
                begin = time.process_time()
                ask()
                took.append(time.process_time() - begin)
            best[name + what] = round(min(took), 2)
    return best


def compare(stock: Path, patched: Path) -> int:
    """Say what differs and the times; return the exit status."""
    status = 0
    with tempfile.TemporaryDirectory() as scratch:
        for size in SIZES:
            folder = Path(scratch) / f"compared-{size}"
            folder.mkdir()
            trees.ask(stock, __file__, "fill", str(folder), str(size), "grouped")
            (folder / "wanted.json").write_text(json.dumps(trees.ask(stock, __file__, "records", str(folder))))
            wrong = trees.ask(patched, __file__, "checked", str(folder))
            print(f"{size} repositories: {len(USERS) * len(PAGES)} lists, {len(wrong)} differences")
            print("\n".join(wrong[:20]), end="\n" if wrong else "")
            status |= bool(wrong)
        # The last and longest of them.
        wrong = trees.ask(patched, __file__, "raced", str(folder))
        print(f"repositories renamed and deleted meanwhile: {len(wrong)} wrong lists")
        print("\n".join(wrong), end="\n" if wrong else "")
        status |= bool(wrong)
        for size in TIMED:
            folder = Path(scratch) / f"timed-{size}"
            folder.mkdir()
            trees.ask(stock, __file__, "fill", str(folder), str(size), "flat")
            # Stock's page of more needs minutes.
            for name, tree in {"stock": stock, "patched": patched}.items() if size == TIMED[0] else [("patched", patched)]:
                print(f"{size} repositories, seconds of processor time, {name}: {trees.ask(tree, __file__, 'timed', str(folder))}")
    return status


def main(arguments: list[str]) -> int:
    """Compare two trees, or answer with the tree that is imported."""
    logging.basicConfig(level=logging.ERROR)
    command, folder = arguments[0], Path(arguments[1])
    if command == "fill":
        answer: Any = fill(folder, int(arguments[2]), arguments[3] == "grouped")
    elif command == "records":
        answer = records(folder)
    elif command == "checked":
        answer = checked(folder, json.loads((folder / "wanted.json").read_text()))
    elif command == "raced":
        answer = raced(folder)
    elif command == "timed":
        answer = timed(folder)
    else:
        return compare(Path(command), folder)
    json.dump(answer, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
