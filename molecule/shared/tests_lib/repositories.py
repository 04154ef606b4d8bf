"""Repositories that tests make on the site, and the way from a push to a clone."""

from __future__ import annotations

import secrets
import urllib.parse
from collections.abc import Callable, Iterator

from machines import Machine
from scm import Client
from settings import Settings
from web import ApiError, Site

# Makes a repository of a kind for a purpose and tells its name.
Make = Callable[[str, str], str]


def maker(site: Site, storage: Machine, settings: Settings) -> Iterator[Make]:
    """Yield a function that makes repositories, as the fixture make_repository; remove all of them at the end, where the storage is a disk too."""
    word = "test-" + secrets.token_hex(4)
    made: list[str] = []

    def make(kind: str, purpose: str) -> str:
        name = f"{word}-{purpose}"
        made.append(name)
        site.create_repository(name, kind)
        return name

    yield make
    for name in made:
        try:
            site.call("delete_repo", repoid=name)
        except ApiError as error:
            assert "does not exist" in str(error), error
    remove_moved_aside(storage, settings, word)


def remove_moved_aside(storage: Machine, settings: Settings, word: str) -> None:
    """Remove what Kallithea keeps of deleted repositories whose names begin with the word."""
    storage.run(f"find {settings.repositories} -maxdepth 1 -name 'rm__*__{word}-*' -exec rm -rf {{}} +")


def push_look_and_clone(client: Client, site: Site, kind: str, name: str) -> None:
    """Push a commit into an empty repository; fail unless it stands on its page and in a clone."""
    path = urllib.parse.quote(name)
    word, url = f"word-of-{kind}", client.url(path)
    client.run(f"rm -rf {kind}-out")
    commit = client.commit(kind, f"{kind}-out", word)
    client.push(kind, f"{kind}-out", url)
    page = site.get(f"/{path}/changeset/{commit}")
    assert page.status == 200 and word in page.text
    file = site.get(f"/{path}/files/tip/word")
    assert file.status == 200 and word in file.text, f"the file's page was answered {file.status}"
    assert client.clone(kind, url, f"{kind}-in").strip() == word
