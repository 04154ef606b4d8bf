"""Kallithea whole, with SQLite in a folder, for programs that ask it as clients do."""

from __future__ import annotations

import base64
import io
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

PASSWORD = "first password"
SHARED = {
    "cut_off_limit": "256000",
    "commit_parse_limit": "25",
    "app_instance_uuid": "x",
    "instance_id": "x",
    "session.type": "memory",
    "session.secret": "x",
    "beaker.cache.regions": "long_term,long_term_file",
    "beaker.cache.long_term.type": "memory",
    "beaker.cache.long_term_file.type": "memory",
}


def database_url(folder: Path) -> str:
    """Return the database's address."""
    return f"sqlite:///{folder}/database"


def load(folder: Path, **settings: str) -> Any:
    """Load the application with the database that is there."""
    from kallithea.config.application import make_app

    paths = {"cache_dir": str(folder / "cache"), "index_dir": str(folder / "index"), "sqlalchemy.url": database_url(folder)}
    return make_app({"here": str(folder), "__file__": str(folder / "none.ini")}, **SHARED, **paths, **settings)


class Application:
    """The tree of Kallithea that Python finds, with the users admin and user and without anonymous access."""

    def __init__(self, folder: Path, **settings: str) -> None:
        """Make the database, unless the folder has one, and load the application."""
        from kallithea.config.application import make_app  # noqa: F401 - first, as its parts import each other

        self.repositories = folder / "repositories"
        if not self.repositories.exists():
            self.make_database(folder)
        self.wsgi = load(folder, **settings)

    def make_database(self, folder: Path) -> None:
        """Make the database, and the folder of the repositories."""
        from kallithea.lib.db_manage import DbManage
        from kallithea.model import meta

        self.repositories.mkdir()
        answers = {"username": "admin", "password": PASSWORD, "email": "admin@example.com", "repos_location": str(self.repositories)}
        database = DbManage(dbconf=database_url(folder), root=str(folder), cli_args={**answers, "force_ask": True, "public_access": False})
        database.create_tables(reuse_database=False)
        database.create_settings(database.prompt_repo_root_path(None))
        database.create_default_user()
        database.create_admin_user()
        database.create_user("user", PASSWORD, "user@example.com")
        database.create_permissions()
        database.populate_default_permissions()
        meta.Session().commit()

    def make_repository(self, kind: str, name: str, permission: str) -> Path:
        """Make an empty repository, with this permission for all, in the group that its name tells; return its folder."""
        from kallithea.model import db, meta
        from kallithea.model.repo import RepoModel

        model = RepoModel()
        group, _, own_name = name.rpartition("/")
        made = model._create_repo(name, kind, "", "admin", repo_group=group or None, state=db.Repository.STATE_CREATED)
        meta.Session().flush()
        model.grant_user_permission(made, "default", permission)
        model._create_filesystem_repo(own_name, kind, group)
        meta.Session().commit()
        return self.repositories / name

    def ask(self, path: str, user: str = "", password: str = PASSWORD, body: bytes | None = None, **environ: str) -> tuple[int, bytes]:
        """Return an answer's status and body."""
        address = urlsplit(path)
        request: dict[str, Any] = {
            "REQUEST_METHOD": "GET" if body is None else "POST",
            "SCRIPT_NAME": "",
            "PATH_INFO": address.path,
            "QUERY_STRING": address.query,
            "SERVER_NAME": "example.com",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "REMOTE_ADDR": "192.0.2.1",
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(body or b""),
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": False,
            "wsgi.multiprocess": True,
            "wsgi.run_once": False,
            **environ,
        }
        if body is not None:
            request["CONTENT_LENGTH"] = str(len(body))
        if user:
            request["HTTP_AUTHORIZATION"] = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
        statuses: list[int] = []
        answer = self.wsgi(request, lambda status, headers, exc_info=None: statuses.append(int(status.split()[0])))
        try:
            content = b"".join(answer)
        finally:
            getattr(answer, "close", lambda: None)()
        return statuses[-1], content
