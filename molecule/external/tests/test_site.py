"""The site does all that it does with database and broker of its own, and with the certificate that was given."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable

import pytest
from scm import Client
from settings import Settings
from web import Site

Make = Callable[[str, str], str]


def test_login_and_pages(site: Site) -> None:
    """The account is in the external database, the session on the host."""
    assert site.get("/").status == 200
    assert "admin" in site.get("/_admin/my_account").text


@pytest.mark.parametrize("name", ["hostname", "ci_hostname"])
def test_the_certificate_is_the_given_one(settings: Settings, name: str) -> None:
    """Both public names show it, and it is good for them."""
    context = ssl.create_default_context(cafile=str(settings.ca_file))
    with socket.create_connection((settings.address, 443), 10) as plain, context.wrap_socket(plain, server_hostname=getattr(settings, name)) as connection:
        shown = connection.getpeercert(binary_form=True)
    assert shown == ssl.PEM_cert_to_DER_cert((settings.ca_file.parent / "scm.crt").read_text())


def test_git(client: Client, site: Site, make_repository: Make) -> None:
    """A repository made by Celery takes a push of git, shows it on a page and gives it to a clone."""
    name = make_repository("git", "git")
    commit = client.commit_git("git-out", "word-of-git")
    client.run(f"cd git-out && git push -q {client.url(name)} master")
    page = site.get(f"/{name}/changeset/{commit}")
    assert page.status == 200 and "word-of-git" in page.text
    assert client.run(f"rm -rf git-in && git clone -q {client.url(name)} git-in && cat git-in/word").strip() == "word-of-git"


def test_hg(client: Client, site: Site, make_repository: Make) -> None:
    """The same with Mercurial."""
    name = make_repository("hg", "hg")
    changeset = client.commit_hg("hg-out", "word-of-hg")
    client.run(f"hg -R hg-out push -q {client.url(name)}")
    page = site.get(f"/{name}/changeset/{changeset}")
    assert page.status == 200 and "word-of-hg" in page.text
    assert client.run(f"rm -rf hg-in && hg clone -q {client.url(name)} hg-in && cat hg-in/word").strip() == "word-of-hg"
