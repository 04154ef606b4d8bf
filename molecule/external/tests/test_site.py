"""The site does all that it does with database and broker of its own, and with the certificate that was given."""

from __future__ import annotations

import socket
import ssl

import pytest
from repositories import Make, push_look_and_clone
from scm import Client
from settings import Settings
from web import Site


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


@pytest.mark.parametrize("kind", ["git", "hg"])
def test_push_page_and_clone(client: Client, site: Site, make_repository: Make, kind: str) -> None:
    """A repository made by Celery takes a push, shows it on a page and gives it to a clone."""
    push_look_and_clone(client, site, kind, make_repository(kind, kind))
