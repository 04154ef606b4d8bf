# Copyright: The kallithea.cluster maintainers
# GPL-3.0-or-later (see LICENSE)
"""What is wrong with the balancer's certificate, and the state of the private authority that may have made it."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

try:
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization

    HAVE_CRYPTOGRAPHY = True
except ImportError:
    HAVE_CRYPTOGRAPHY = False

NO_CRYPTOGRAPHY = "the controller's Python has no 'cryptography', which checks the certificate: install it (pip install cryptography)."
# How the common name of a private authority begins, see private_ca_make.yml.
AUTHORITY_NAME = "Kallithea cluster "


def name_matches(pattern: str, name: str) -> bool:
    """Tell whether a certificate's name covers a host name; a star stands for one label."""
    pattern, name = pattern.lower(), name.lower()
    if pattern.startswith("*."):
        return "." in name and name.split(".", 1)[1] == pattern[2:]
    return pattern == name


def _validity(certificate: Any, name: str) -> datetime.datetime:
    """Return a moment of the certificate; cryptography before 42 knows it without a time zone only."""
    moment: datetime.datetime = getattr(certificate, f"{name}_utc", None) or getattr(certificate, name).replace(tzinfo=datetime.UTC)
    return moment


def _public(key: Any) -> bytes:
    """Return a public key in a form that can be compared."""
    encoded: bytes = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return encoded


def _names(certificate: Any) -> list[str]:
    """Return the host names that a certificate is for."""
    try:
        names: list[str] = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(x509.DNSName)
    except x509.ExtensionNotFound:
        return []
    return names


def certificate_problems(certificate: str, key: str, hostnames: Iterable[str], now: datetime.datetime | None = None) -> list[str]:
    """Return one sentence for each thing that is wrong with a certificate and its key, without showing either."""
    if not HAVE_CRYPTOGRAPHY:
        return [NO_CRYPTOGRAPHY]
    try:
        leaf = x509.load_pem_x509_certificate(certificate.encode())
    except ValueError:
        return ["kallithea_loadbalancer_certificate holds no PEM certificate: give the certificate, followed by its intermediates."]
    try:
        private = serialization.load_pem_private_key(key.encode(), password=None)
    except TypeError:
        return [
            "kallithea_loadbalancer_certificate_key is protected by a passphrase, which HAProxy cannot ask for: "
            "give the key without one (ansible-vault may encrypt the file)."
        ]
    except ValueError:
        return ["kallithea_loadbalancer_certificate_key holds no PEM private key."]
    problems = []
    if _public(leaf.public_key()) != _public(private.public_key()):
        problems.append(
            "kallithea_loadbalancer_certificate_key does not fit kallithea_loadbalancer_certificate: "
            "give the key that the certificate was made for, and its own certificate first in the file."
        )
    names = _names(leaf)
    for hostname in hostnames:
        if hostname and not any(name_matches(name, hostname) for name in names):
            problems.append(f"kallithea_loadbalancer_certificate is for {', '.join(names) or 'no name at all'}, not for {hostname}: give one that covers it.")
    moment = now or datetime.datetime.now(datetime.UTC)
    begin, end = (_validity(leaf, name) for name in ("not_valid_before", "not_valid_after"))
    if end <= moment:
        problems.append(f"kallithea_loadbalancer_certificate is valid until {end:%Y-%m-%d} only: give a new one.")
    if begin > moment:
        problems.append(f"kallithea_loadbalancer_certificate is valid from {begin:%Y-%m-%d} on: check the controller's clock.")
    return problems


def _private_key(text: str) -> Any:
    """Return the private key in a text, or nothing where there is none that needs no passphrase."""
    try:
        return serialization.load_pem_private_key(text.encode(), password=None)
    except (TypeError, ValueError):
        return None


def _certificate(text: str) -> Any:
    """Return the certificate in a text, or nothing where there is none."""
    try:
        return x509.load_pem_x509_certificate(text.encode())
    except ValueError:
        return None


def _is_issued_by(leaf: Any, authority: Any) -> bool:
    """Tell whether the certificate names the authority's key as its issuer's."""
    try:
        issuer = leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    except x509.ExtensionNotFound:
        return False
    try:
        own = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    except x509.ExtensionNotFound:
        own = x509.SubjectKeyIdentifier.from_public_key(authority.public_key()).digest
    return bool(leaf.issuer == authority.subject and issuer == own)


def private_ca_state(
    files: Sequence[Mapping[str, Any]], contents: Sequence[str], hostnames: Iterable[str], renewal_days: int, now: datetime.datetime | None = None
) -> dict[str, Any]:
    """Return what is wrong in the private authority's folder, and whether keys or the server's certificate have to be made.

    files are path and mode of what stands there, contents what is in them, in the same order.
    """
    modes = {str(entry["path"]).rpartition("/")[2]: entry["mode"] for entry in files}
    texts = dict(zip(modes, contents, strict=True))
    if not HAVE_CRYPTOGRAPHY:
        return {"problems": [NO_CRYPTOGRAPHY], "make_keys": False, "make_certificate": False}
    authority_key, server_key = (_private_key(texts.get(name, "")) for name in ("ca.key", "server.key"))
    authority, leaf = (_certificate(texts.get(name, "")) for name in ("ca.crt", "server.crt"))
    problems = []
    if "ca.crt" in texts and "ca.key" not in texts:
        problems.append("there is ca.crt but not ca.key: put the key back, or remove ca.crt to make a new authority, which every client then has to be given.")
    elif "ca.key" in texts and authority_key is None:
        problems.append("ca.key holds no PEM private key without a passphrase: put the right file back.")
    elif "ca.crt" in texts and authority is None:
        problems.append("ca.crt holds no PEM certificate: put the right file back.")
    elif authority and _public(authority.public_key()) != _public(authority_key.public_key()):
        problems.append("ca.key is not the key of ca.crt: put back the two files that belong together.")
    moment = now or datetime.datetime.now(datetime.UTC)
    fits = (
        bool(authority and leaf and server_key)
        and _public(leaf.public_key()) == _public(server_key.public_key())
        and set(_names(leaf)) == set(hostnames)
        and _is_issued_by(leaf, authority)
        and _validity(leaf, "not_valid_after") > moment + datetime.timedelta(days=renewal_days)
    )
    return {"problems": problems, "make_keys": not {modes.get("ca.key"), modes.get("server.key")} <= {"0600"}, "make_certificate": not fits}


def lost_authority_problems(served: str, folder: str, host: str) -> list[str]:
    """Return a sentence where a balancer serves a certificate of a private authority whose folder is missing on the controller."""
    leaf = _certificate(served) if HAVE_CRYPTOGRAPHY else None
    if leaf is None or "CN=" + AUTHORITY_NAME not in leaf.issuer.rfc4514_string():
        return []
    return [
        f"The private authority's folder {folder} is missing on the controller, but {host} serves a certificate of it, which every client trusts: "
        "put the folder back, or name it with kallithea_loadbalancer_ca_dir; a new authority is never made over a living cluster."
    ]


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {
            "certificate_problems": certificate_problems,
            "private_ca_state": private_ca_state,
            "lost_authority_problems": lost_authority_problems,
        }
