"""The filters that judge certificates and the private authority's folder."""

from __future__ import annotations

import datetime
from typing import Any

import pytest
from ansible_collections.kallithea.cluster.plugins.filter.certificates import (
    certificate_problems,
    lost_authority_problems,
    name_matches,
    private_ca_state,
)
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from haproxy_rig import make_certificate


def test_certificate_that_fits() -> None:
    certificate, key = make_certificate(["scm.example.org", "ci.scm.example.org"])
    assert certificate_problems(certificate, key, ["scm.example.org", "CI.scm.example.org", ""]) == []


def test_certificate_problems() -> None:
    certificate, key = make_certificate(["scm.example.org"])
    other = make_certificate(["scm.example.org"])[1]
    assert "does not fit" in certificate_problems(certificate, other, ["scm.example.org"])[0]
    assert "not for www.example.org" in certificate_problems(certificate, key, ["www.example.org"])[0]
    assert "no PEM certificate" in certificate_problems("x", key, [])[0]
    assert "no PEM private key" in certificate_problems(certificate, "x", [])[0]
    assert "valid until" in certificate_problems(*make_certificate(["a.example"], days=-1), ["a.example"])[0]
    early = datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)
    assert "valid from" in certificate_problems(certificate, key, [], early)[0]
    locked = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"secret")
    )
    (problem,) = certificate_problems(certificate, locked.decode(), [])
    assert "passphrase" in problem


NAMES = ["scm.example.org", "ci.scm.example.org"]


def private_ca(names: list[str] = NAMES, days: int = 365, authority: tuple[str, str] | None = None) -> dict[str, tuple[str, str]]:
    """Return what stands in the authority's folder: mode and content of each file."""
    ca_crt, ca_key = authority or make_certificate(["An authority"], days=3650)
    crt, key = make_certificate(names, days=days, authority=(ca_crt, ca_key))
    return {"ca.crt": ("0644", ca_crt), "ca.key": ("0600", ca_key), "server.crt": ("0644", crt), "server.key": ("0600", key)}


def judge(folder: dict[str, tuple[str, str]], names: list[str] = NAMES) -> dict[str, Any]:
    """Return the filter's judgement of a folder."""
    files = [{"path": f"/a/folder/{name}", "mode": mode} for name, (mode, _) in folder.items()]
    state: dict[str, Any] = private_ca_state(files, [content for _, content in folder.values()], names, 30)
    return state


def test_a_private_authority_in_order_needs_nothing() -> None:
    nothing = {"problems": [], "make_keys": False, "make_certificate": False}
    assert judge(private_ca()) == nothing
    assert judge(private_ca(days=31)) == nothing
    assert judge(private_ca(), NAMES[::-1]) == nothing


def test_an_empty_folder_needs_everything() -> None:
    assert judge({}) == {"problems": [], "make_keys": True, "make_certificate": True}


@pytest.mark.parametrize("days", [30, 1, -1])
def test_a_certificate_that_ends_soon_is_renewed(days: int) -> None:
    assert judge(private_ca(days=days)) == {"problems": [], "make_keys": False, "make_certificate": True}


@pytest.mark.parametrize("names", [["scm.example.org"], [*NAMES, "www.example.org"], ["*.example.org"]])
def test_other_names_need_another_certificate(names: list[str]) -> None:
    assert judge(private_ca(names)) == {"problems": [], "make_keys": False, "make_certificate": True}


@pytest.mark.parametrize("name", ["server.crt", "server.key", "ca.crt"])
@pytest.mark.parametrize("content", ["another", "rubbish", "none"])
def test_a_file_that_does_not_fit(name: str, content: str) -> None:
    folder = private_ca()
    if content == "none":
        del folder[name]
    else:
        folder[name] = (folder[name][0], private_ca()[name][1] if content == "another" else "rubbish")
    state = judge(folder)
    assert state["make_certificate"] is True
    # Another ca.crt is not made silently over the one that clients trust.
    assert len(state["problems"]) == (1 if name == "ca.crt" and content != "none" else 0)


def test_a_certificate_of_another_authority_of_the_same_name() -> None:
    folder = private_ca()
    other = private_ca()
    assert judge({**folder, "server.crt": other["server.crt"], "server.key": other["server.key"]})["make_certificate"] is True


@pytest.mark.parametrize("name", ["ca.key", "server.key"])
def test_a_key_that_others_may_read(name: str) -> None:
    folder = private_ca()
    folder[name] = ("0640", folder[name][1])
    assert judge(folder) == {"problems": [], "make_keys": True, "make_certificate": False}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"ca.key": None}, "there is ca.crt but not ca.key: put"),
        ({"ca.key": ("0600", "x")}, "ca.key holds no PEM private key"),
        ({"ca.crt": ("0644", "x")}, "ca.crt holds no PEM certificate"),
        ({"ca.key": ("0600", make_certificate(["x"])[1])}, "ca.key is not the key of ca.crt"),
    ],
)
def test_an_authority_that_cannot_sign(change: dict[str, Any], words: str) -> None:
    folder = {name: entry for name, entry in {**private_ca(), **change}.items() if entry}
    (problem,) = judge(folder)["problems"]
    assert words in problem


@pytest.mark.parametrize(
    ("pattern", "name", "fits"),
    [
        ("*.example.org", "scm.example.org", True),
        ("*.example.org", "ci.scm.example.org", False),
        ("*.example.org", "example.org", False),
        ("SCM.example.org", "scm.example.org", True),
    ],
)
def test_names_of_certificates(pattern: str, name: str, fits: bool) -> None:
    assert name_matches(pattern, name) is fits


def test_a_lost_authority_is_said_where_a_balancer_serves_its_certificate() -> None:
    ours = make_certificate(["scm.example.org"], authority=make_certificate(["Kallithea cluster scm.example.org"]))[0]
    (sentence,) = lost_authority_problems(ours, "/srv/ca", "lb1")
    assert sentence.startswith("The private authority's folder /srv/ca is missing on the controller, but lb1 serves a certificate of it")


def test_a_certificate_of_another_authority_or_none_means_no_loss() -> None:
    given = make_certificate(["scm.example.org"], authority=make_certificate(["Some authority"]))[0]
    assert lost_authority_problems(given, "/srv/ca", "lb1") == []
    assert lost_authority_problems("", "/srv/ca", "lb1") == []
