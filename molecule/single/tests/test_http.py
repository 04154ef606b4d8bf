"""What the site says to requests that are not quite a browser's, and what of it a stranger reaches."""

from __future__ import annotations

import json
import re
import secrets

import pytest
from machines import Machine, wait_until
from settings import Settings
from web import Answer, Site

FORGED = "evil.example.org"
# What cluster hosts commonly listen on, besides what the host itself says.
COMMON_PORTS = (22, 25, 80, 111, 443, 1936, 2049, 4369, 5432, 5672, 6379, 8000, 8404, 8405, 9000, 15672, 15692, 25672)
SCANNER = """
import json, socket, sys
from concurrent.futures import ThreadPoolExecutor

def is_open(port):
    try:
        socket.create_connection((sys.argv[1], port), 0.5).close()
    except OSError:
        return False
    return True

ports = json.load(sys.stdin)["ports"]
# Most of them cost the whole half second.
with ThreadPoolExecutor(16) as executor:
    found = [port for port, is_there in zip(ports, executor.map(is_open, ports)) if is_there]
print(json.dumps(found))
"""


@pytest.fixture
def stranger(settings: Settings) -> Site:
    """Return a browser that nobody has logged in with."""
    return Site(settings)


def style_sheet(page: Answer) -> str:
    """Return the address of the style sheet that a page names."""
    match = re.search(r'href="([^"]*/css/style\.css[^"]*)"', page.text)
    assert match, "the page names no style sheet"
    return match.group(1)


def test_a_head_stays_a_head(stranger: Site) -> None:
    """Apache does not have the application make a page of which nobody reads more than the headers: where Kallithea has a GET alone, HEAD finds nothing."""
    assert stranger.request("HEAD", "/_admin/login").status == 200
    path = "/_admin/gists"
    assert stranger.get(path).status in (200, 302)
    assert stranger.request("HEAD", path).status == 404


@pytest.mark.parametrize("path", ["/", "/_admin/login", "/_admin/my_account", "/_admin/logout", "/nothing-here", "//evil.example.org/"])
@pytest.mark.parametrize("port", [443, 80])
def test_forged_host_never_redirects(stranger: Site, path: str, port: int) -> None:
    """A redirect to an address of the sender's choice would be somebody's phishing page."""
    for name in (FORGED, f"{stranger.name}.{FORGED}", f"{FORGED}:443", ""):
        answer = stranger.get(path, {"Host": name}, port=port)
        assert not 300 <= answer.status < 400, f"Host {name!r} redirects to {answer.header('Location')}"
    for header in ("X-Forwarded-Host", "X-Host", "X-Original-URL", "Forwarded"):
        location = stranger.get(path, {header: f"host={FORGED}" if header == "Forwarded" else FORGED}, port=port).header("Location")
        assert not location or location.startswith(f"https://{stranger.name}/"), f"{header} redirects to {location}"


@pytest.mark.parametrize("method", ["TRACE", "CONNECT"])
def test_dangerous_methods_are_refused(stranger: Site, method: str) -> None:
    """TRACE would hand a cookie back to a script."""
    mark = secrets.token_hex(8)
    for port in (443, 80):
        answer = stranger.request(method, "/_admin/login" if method == "TRACE" else f"{stranger.name}:443", {"X-Mark": mark}, port=port)
        assert answer.status >= 400 and mark not in answer.text


def test_trace_is_refused_by_the_pools_themselves(stranger: Site, settings: Settings) -> None:
    """Apache refuses it too, on whatever port."""
    mark = secrets.token_hex(8)
    for port in [settings.static_port, *[pool["port"] for pool in settings.pools.values()]]:
        answer = stranger.request("TRACE", "/", {"X-Mark": mark}, port=port)
        assert answer.status >= 400 and mark not in answer.text, f"port {port} answered {answer.status}"


def test_http_leads_to_https(stranger: Site, settings: Settings) -> None:
    """Plain HTTP to either name answers with the same address by HTTPS, and nothing else."""
    for name in (settings.hostname, settings.ci_hostname):
        answer = stranger.get("/_admin/login?came_from=%2Fx", {"Host": name}, port=80)
        assert answer.status in (301, 302, 307, 308) and answer.header("Location") == f"https://{name}/_admin/login?came_from=%2Fx"


def test_pages_are_for_those_who_log_in(stranger: Site) -> None:
    """Nobody sees anything without an account, and nobody makes one."""
    answer = stranger.get("/")
    assert answer.status == 302 and answer.header("Location").startswith(f"https://{stranger.name}/_admin/login")
    assert stranger.get("/_admin/register").status in (302, 403, 404)


def test_cookie_and_transport_are_safe(stranger: Site) -> None:
    """The session's cookie goes over HTTPS alone and is hidden from scripts."""
    answer = stranger.get("/_admin/login")
    assert answer.status == 200
    cookie = answer.header("Set-Cookie").lower()
    assert "kallithea=" in cookie and "secure" in cookie and "httponly" in cookie
    assert "max-age=" in answer.header("Strict-Transport-Security")


@pytest.mark.parametrize("header", ["Remote-User", "X-Remote-User", "X-Forwarded-User", "X-Kallithea-User", "Remote_User"])
def test_header_logs_nobody_in(stranger: Site, header: str) -> None:
    """Only Kallithea says who somebody is."""
    assert stranger.get("/_admin/my_account", {header: "admin"}).status == 302


def test_client_address_is_the_connections(stranger: Site, settings: Settings) -> None:
    """What a client says of its own address counts for nothing."""
    forged = {
        "X-Forwarded-For": "192.0.2.99",
        "X-Real-IP": "192.0.2.99",
        "Forwarded": "for=192.0.2.99",
        "X-Forwarded-Proto": "http",
        "X-Client-IP": "192.0.2.99",
    }
    body = json.dumps({"id": 1, "api_key": settings.secrets["admin_api_key"], "method": "get_ip", "args": {}})
    answer = stranger.request("POST", "/_admin/api", {"Content-Type": "application/json", **forged}, body)
    seen = json.loads(answer.text)["result"]["server_ip_addr"]
    assert seen != "192.0.2.99" and seen in (settings.direct_clients or [seen]), seen


def test_forged_verdict_changes_nothing(stranger: Site, node: Machine, settings: Settings) -> None:
    """A client's own X-Kallithea-… headers neither choose the pool nor reach it."""
    path = f"/nothing-{secrets.token_hex(6)}"
    for header in ("X-Kallithea-Who", "X-Kallithea-What", "X-Kallithea-Pool", "X-Kallithea-Class"):
        stranger.get(path, {header: "ci"})
    port = settings.pools["ui"]["port"]
    lines = wait_until("four lines of the access log", lambda: access_lines(node, path, 4))
    assert all(re.match(rf"(\S+:)?{port} ", line) for line in lines), lines


def access_lines(node: Machine, path: str, count: int) -> list[str]:
    """Return the pools' log lines of a path once there are so many."""
    lines = [line for line in node.run("journalctl --quiet -o cat --identifier=kallithea-access --lines=300").splitlines() if f" {path} " in line]
    return lines if len(lines) >= count else []


def test_static_files_come_from_apache(stranger: Site) -> None:
    """The style sheet comes through the balancer, may be kept for long, and its address holds the release."""
    address = style_sheet(stranger.get("/_admin/login"))
    release = re.search(r"\?ver=([0-9a-z.-]{8,})$", address)
    assert release, f"the style sheet's address {address} has no release in it"
    answer = stranger.get(address)
    assert answer.status == 200 and answer.header("Content-Type").startswith("text/css") and len(answer.text) > 10_000
    assert "max-age=31536000" in answer.header("Cache-Control")
    other = stranger.get(address.replace(release[1], "0.7.0-000000000000"))
    assert other.status == 200 and other.header("Cache-Control") == "public, max-age=86400", "of another release this host has nothing to promise"
    assert not answer.header("Set-Cookie")
    packed = stranger.get(address, {"Accept-Encoding": "gzip"})
    assert packed.status == 200 and packed.header("Content-Encoding") == "gzip"


def test_pools_serve_no_static_files(stranger: Site, node: Machine, settings: Settings) -> None:
    """Asked directly, the static port has the style sheet and no pool has it: it is Apache that serves it."""
    assert stranger.get("/css/style.css", port=settings.static_port).status == 200
    for pool, values in settings.pools.items():
        assert stranger.get("/css/style.css", port=values["port"]).status == 404, f"pool {pool}"
    assert stranger.get("/_admin/login", port=settings.static_port).status == 404
    assert stranger.get("/css/../../../../../../etc/passwd", port=settings.static_port).status in (400, 403, 404)


def test_ports_open_to_a_stranger(node: Machine, foreign: Machine, settings: Settings) -> None:
    """From a foreign host the balancer is reached and nothing else: not even the ports of the pools, of static files and of health."""
    listening = {int(line.split()[3].rsplit(":", 1)[1]) for line in node.run("ss -H -l -n -t").splitlines()}
    ports = sorted(listening | set(COMMON_PORTS))
    foreign.write("/tmp/scanner.py", SCANNER)
    found = set(json.loads(foreign.run(f"python3 /tmp/scanner.py {settings.address}", json.dumps({"ports": ports}))))
    assert found == {80, 443}


def test_application_answers_its_balancers_alone(node: Machine, foreign: Machine, settings: Settings) -> None:
    """Where the firewall is off, Apache itself refuses a foreigner."""
    node.run("systemctl stop kallithea-firewall")
    try:
        ports = [settings.static_port, *[pool["port"] for pool in settings.pools.values()]]
        answers = {port: foreign.run(f"curl -s -o /dev/null -w '%{{http_code}}' http://{settings.address}:{port}/css/style.css") for port in ports}
    finally:
        node.run("systemctl start kallithea-firewall")
    assert set(answers.values()) == {"403"}, answers
