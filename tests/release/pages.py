"""Compare what pages and API answer to each kind of user, on the same data, as two trees of Kallithea give it.

pages.py STOCK PATCHED [short]: the folders that hold the package kallithea; short asks each page of a repository as one user. Ends with 1 where an
answer differs. A list that the patched tree cuts into pages is put together from them, and its rows are compared with stock's in the order in which a
browser shows those. Needs the Python of a release, and git.
"""

from __future__ import annotations

import datetime
import itertools
import json
import logging
import re
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import long_lists
import trees
from application import PASSWORD, Application

# The member has rights as one of a user group alone.
USERS = ("admin", "user", "member", "anonymous")
# All may read all of them; private takes that from the last one.
REPOSITORIES = {"git-ümläut": "git", "group/inner/hg-höme": "hg", "group/private": "git"}
COMMITS = 6
# More than a browser pages by itself.
LONG = 210
# Too old for a word that changes from minute to minute.
OLD = datetime.datetime(2020, 2, 3, 4, 5, 6)
ORDERS = (("", (1, "asc")), ("", (5, "desc")), ("7", (3, "asc")))
# One request's own: its token, names that pages make from places in memory, when a feed was made.
OWN = re.compile(r"\b(id)?\d{12,39}\b|\b0x[0-9a-f]{6,16}\b|^ *<lastBuildDate>.*|^  <updated>.*", re.MULTILINE)
# What speed-08 says of a list beside its rows, which browsers do not show.
OF_LIST = re.compile(
    r'(?<=var data = \({)"sort": "name", "dir": "asc", (?="records")|, "options": {}(?=}\);$)|(?<=DataTable\()\$\.extend\(data\.options, |(?<=}\))\)(?=;$)',
    re.MULTILINE,
)
# Answered to scripts of a page alone.
OF_SCRIPTS = re.compile("/_repos|/_users_and_groups|/changeset_")
SITE = """
/ /group /group/inner /_repos /_users_and_groups /about /_admin/journal /_admin/public_journal /_admin/public_journal/rss /_admin/public_journal/atom
/_admin/my_account /_admin/my_account/repos /_admin/my_account/watched /_admin/my_account/perms /my_pullrequests /_admin/gists /_admin/repos
/_admin/repo_groups /_admin/user_groups /_admin/users /_admin/permissions /_admin/users/2/edit/permissions /_admin/user_groups/1/edit/perms
/_admin/repo_groups/group/edit/permissions /_admin/create_repository /_admin/repo_groups/new
"""
# Of a repository; two changesets stand for old and new.
PAGES = """
/ /summary /changelog /changelog?branch=side /changelog?size=2&page=2 /changelog/{new}/folder/file-ä /changeset/{old} /changeset/{old}...{new}
/changeset-diff/{new} /changeset-patch/{new} /changeset-download/{new} /changeset_children/{old} /changeset_parents/{new} /files/tip/
/files/{new}/folder/file-ä /files/{old}/README.rst /annotate/{new}/folder/file-ä /raw/{new}/folder/file-ä /history/{new}/folder/file-ä
/authors/{new}/folder/file-ä /nodelist/{new}/ /diff/folder/file-ä?diff2={new}&diff1={old}&diff=diff /diff-2way/folder/file-ä?diff2={new}&diff1={old}
/compare/rev@{old}...rev@{new} /compare/branch@side...tag@v1 /feed/rss /feed/atom /refs-data /forks /followers /pull-request /fork /settings
/settings/permissions /settings/advanced /edit/side/README.rst /changeset/nowhere /files/{new}/nothing
"""
CALLS: tuple[tuple[str, dict[str, Any]], ...] = (
    *[(method, {}) for method in ("get_repos", "get_users", "get_user", "get_user_groups", "get_repo_groups", "get_ip", "get_gists")],
    ("get_user", {"userid": "member"}),
    ("get_user_group", {"usergroupid": "few"}),
    ("get_repo_group", {"repogroupid": "group/inner"}),
    ("get_repo", {"repoid": "nothing"}),
)
REPOSITORY_CALLS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("get_repo", {}),
    ("get_repo", {"with_revision_names": True, "with_pullrequests": True}),
    ("get_repo_nodes", {"revision": "tip", "root_path": "/"}),
    ("get_changesets", {}),
    ("get_changesets", {"reverse": True, "with_file_list": True, "max_revisions": 3}),
    ("get_changesets", {"branch_name": "side"}),
    ("get_changeset", {"raw_id": "{new}", "with_reviews": True}),
    ("get_changeset", {"raw_id": "nothing"}),
)
Answers = dict[str, list[Any]]


def grow(repository: Any) -> None:
    """Make commits on two branches, a file that changes and one that goes, and tags."""
    from kallithea.lib.vcs.nodes import FileNode, RemovedFileNode

    def commit(number: int, *nodes: Any, **options: Any) -> Any:
        changes = repository.in_memory_changeset
        for node in nodes:
            known = number and node.path == "folder/file-ä"
            (changes.remove if isinstance(node, RemovedFileNode) else changes.change if known else changes.add)(node)
        date = datetime.datetime(2010, 1, 1 + number, 12)
        return changes.commit(f"change {number} of ä, #{number}\n\n<b>more</b>", "Änne A <a@example.com>", date=date, **options)

    text = "".join(f"line {line} ä\n" for line in range(40))
    made = [commit(0, FileNode("folder/file-ä", content=text.encode()), FileNode("README.rst", content=b"Title\n=====\n"), FileNode("goes", content=b"x\n"))]
    for number in range(1, COMMITS):
        lines = text.replace(f"line {number} ", f"line <{number}> ")
        made.append(commit(number, FileNode("folder/file-ä", content=lines.encode()), FileNode(f"file-{number}", content=bytes([number, 0, 10]))))
    commit(COMMITS, RemovedFileNode("goes"))
    commit(COMMITS + 1, FileNode(f"file-{COMMITS + 1}", content=b"side\n"), parents=[made[2]], branch="side")
    tags = {"v1": made[1].raw_id, "über": made[3].raw_id}
    if repository.alias == "hg":
        # Its own way would take the working copy for the parent, which is empty.
        commit(COMMITS + 2, FileNode(".hgtags", content="".join(f"{node} {name}\n" for name, node in tags.items()).encode()))
    else:
        for name, node in tags.items():
            repository.tag(name, "", revision=node)


def fill(folder: Path) -> dict[str, list[str]]:
    """Make users, groups and repositories; return two changesets of each repository."""
    app = Application(folder)
    from kallithea.model import db, meta
    from kallithea.model.changeset_status import ChangesetStatusModel
    from kallithea.model.comment import ChangesetCommentsModel
    from kallithea.model.repo import RepoModel
    from kallithea.model.repo_group import RepoGroupModel
    from kallithea.model.scm import ScmModel
    from kallithea.model.user import UserModel
    from kallithea.model.user_group import UserGroupModel

    session = meta.Session()
    db.User.get_default_user().active = True
    for name in ("member", "owner"):
        UserModel().create_or_update(name, PASSWORD, f"{name}@example.com", "Ürsel", f"<{name}>")
    UserGroupModel().create("few", "", "owner")
    UserGroupModel().add_user_to_group("few", "member")
    for name, parent in (("group", None), ("inner", "group"), ("many", None)):
        RepoGroupModel().create(name, "a grüup", "owner", parent=parent)
        session.flush()
    RepoGroupModel().grant_user_group_permission("group", "few", "group.write")
    changesets = {}
    for number, (name, kind) in enumerate(REPOSITORIES.items()):
        app.make_repository(kind, name, "repository.read")
        made = db.Repository.get_by_repo_name(name)
        made.private, made.description = number == 2, "wörds <b>"
        RepoModel().grant_user_group_permission(name, "few", "repository.write" if number == 2 else "repository.admin")
        session.commit()
        grow(made.scm_instance)
        made.set_invalidate()
        made.update_changeset_cache()
        changesets[name] = [made.scm_instance_no_cache().revisions[at] for at in (1, 3)]
        comment = ChangesetCommentsModel().create("a cömment", made, db.User.get_by_username("user"), changesets[name][1], send_email=False)
        ChangesetStatusModel().set_status(made, db.ChangesetStatus.STATUS_APPROVED, "user", comment, changesets[name][1])
        for action in ("push:" + ",".join(changesets[name]), "pull"):
            row = {"user_id": 2, "username": "admin", "repository_id": made.repo_id, "repository_name": name, "user_ip": "192.0.2.1", "action": action}
            session.add(db.UserLog(**row, action_date=OLD))
        ScmModel().toggle_following_repo(made.repo_id, db.User.get_by_username("user").user_id)
    for number in range(LONG):
        RepoModel()._create_repo(f"many/repo-{number}", "git", f"text {number % 9}", "owner", repo_group="many", state=db.Repository.STATE_CREATED)
    session.commit()
    for column in (db.UserLog.action_date, db.Repository.created_on, db.Repository.updated_on, db.User.created_on, db.ChangesetComment.created_on):
        session.query(column.class_).update({column.key: OLD})
    session.query(db.UserFollowing).update({"follows_from": OLD})
    session.query(db.ChangesetStatus).update({"modified_at": OLD})
    session.query(db.RepoGroup).update({"created_on": OLD})
    session.query(db.UserGroup).update({"created_on": OLD})
    session.commit()
    return changesets


class Lists(long_lists.Site):
    """The application, asked by users' names."""

    def __init__(self, folder: Path) -> None:
        """Start the application."""
        self.app = Application(folder).wsgi
        from kallithea.model import db

        self.keys = {name: "" if name == "anonymous" else db.User.get_by_username(name).api_key for name in USERS}

    def answer(self, user: str, path: str, body: Any = None) -> Any:
        """Return a whole answer."""
        from webob import Request

        request = Request.blank(path, remote_addr="127.0.0.1", **({} if body is None else {"POST": json.dumps(body), "content_type": "application/json"}))
        if self.keys[user] and body is None:
            request.authorization = ("Bearer", self.keys[user])
        if OF_SCRIPTS.search(path):
            request.headers["X-Requested-With"] = "XMLHttpRequest"
        return request.get_response(self.app)

    def get(self, user: Any, path: str, query: dict[str, Any] | None = None) -> str:
        """Return what a user is shown of a list."""
        answer = self.answer(user, f"{path}?{long_lists.urlencode(query)}" if query else path)
        assert answer.status_int == 200, (user, path, query, answer.status)
        return str(answer.text)


def asked(changesets: dict[str, list[str]]) -> Iterator[tuple[str, Any]]:
    """Yield all paths, and all calls of the API with their bodies."""
    from urllib.parse import quote

    def filled(text: str, name: str) -> str:
        old, new = changesets[name]
        return text.replace("{old}", old).replace("{new}", new)

    for path in SITE.split():
        yield path, None
    for name in REPOSITORIES:
        for path in PAGES.split():
            yield quote(f"/{name}{filled(path, name)}", safe="/?=&@"), None
        yield quote(f"/changeset_info/{name}/{changesets[name][0]}"), None
    calls = list(CALLS)
    for name in REPOSITORIES:
        calls += [(method, {"repoid": name, **json.loads(filled(json.dumps(arguments), name))}) for method, arguments in REPOSITORY_CALLS]
    for method, arguments in calls:
        yield "/_admin/api", {"id": 1, "method": method, "args": arguments}


def answers(folder: Path, changesets: dict[str, list[str]], short: bool) -> dict[str, Answers]:
    """Return each user's answers; for short those of a repository's page to one user, to another one for each repository."""
    site = Lists(folder)
    given: dict[str, Answers] = {}
    for number, user in enumerate(USERS):
        given[user] = {}
        for place, (path, body) in enumerate(asked(changesets)):
            # The API has no anonymous users.
            users = len(USERS) - bool(body)
            if number >= users or (short and place >= len(SITE.split()) and place % users != number):
                continue
            answer = site.answer(user, path, body and {"api_key": site.keys[user], **body})
            name = f"{path} {body['method']} {body['args']}" if body else path
            shown = OF_LIST.sub("", OWN.sub("OWN", answer.body.decode("utf-8", "backslashreplace"))).replace(str(folder), "FOLDER")
            given[user][name] = [answer.status_int, answer.content_type, answer.headers.get("Location"), *shown.splitlines()]
        if not short or user in {"member", "anonymous"}:
            given[user].update(listed(site, user))
    return given


def listed(site: Lists, user: str) -> Answers:
    """Return the rows of the long list as a browser shows them: by stock's one page or by the patched tree's pages."""
    whole = site.data(user, "/many")  # type: ignore[arg-type]
    if whole.get("options"):
        return {f"rows {search!r} by {order}": site.pages(user, "/many", search, order)[0] for search, order in ORDERS}  # type: ignore[arg-type]
    return {f"rows {search!r} by {order}": long_lists.table(whole["records"], search, order) for search, order in ORDERS}


def difference(stock: list[Any], patched: list[Any]) -> str:
    """Return the first place where two answers differ."""
    old, new = next((pair for pair in itertools.zip_longest(map(str, stock), map(str, patched)) if pair[0] != pair[1]), ("", ""))
    same = len(list(itertools.takewhile(lambda pair: pair[0] == pair[1], zip(old or "", new or "", strict=False))))
    at = max(0, same - 40)
    return f"{old and old[at : at + 160]!r} in stock, {new and new[at : at + 160]!r} patched"


def compare(stock: Path, patched: Path, *short: str) -> int:
    """Say what differs; return the exit status."""
    with tempfile.TemporaryDirectory() as scratch:
        sites = [Path(scratch) / name for name in ("stock", "patched")]
        sites[0].mkdir()
        changesets = json.dumps(trees.ask(stock, __file__, "fill", str(sites[0])))
        shutil.copytree(*sites, symlinks=True)
        with sqlite3.connect(sites[1] / "database") as database:
            database.execute("UPDATE ui SET ui_value = ? WHERE ui_key = '/'", (str(sites[1] / "repositories"),))
        with ThreadPoolExecutor() as executor:
            wanted, given = executor.map(lambda tree, site: trees.ask(tree, __file__, "answers", str(site), changesets, *short), (stock, patched), sites)
    wrong = [
        f"{user} {name}: {difference(page, given[user].get(name, []))}"
        for user, pages in wanted.items()
        for name, page in pages.items()
        if given[user].get(name) != page
    ]
    shown = {user: sum(page[0] == 200 for page in pages.values()) for user, pages in wanted.items()}
    print(f"{sum(map(len, wanted.values()))} pages and answers, of them shown {shown}: {len(wrong)} differ")
    print("\n".join(wrong[:20]), end="\n" if wrong else "")
    # Errors alone would be equal, too.
    failed = [name for name, page in wanted["admin"].items() if page[0] != 200 and not re.search("rows|now|nothing", name)]
    print("\n".join(f"the administrator is refused {name}: {wanted['admin'][name][:3]}" for name in failed), end="\n" if failed else "")
    return int(bool(wrong or failed))


def main(arguments: list[str]) -> int:
    """Compare two trees, or answer with the tree that is imported."""
    logging.disable(logging.CRITICAL)
    if arguments[0] == "fill":
        json.dump(fill(Path(arguments[1])), sys.stdout)
    elif arguments[0] == "answers":
        json.dump(answers(Path(arguments[1]), json.loads(arguments[2]), bool(arguments[3:])), sys.stdout)
    else:
        return compare(Path(arguments[0]), Path(arguments[1]), *arguments[2:])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
