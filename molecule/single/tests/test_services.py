"""Units, timers, rights, health and the command line as an operator meets them."""

from __future__ import annotations

import pytest
from machines import Machine, wait_until
from settings import Settings
from web import Site

INI = "/etc/kallithea/kallithea.ini"
HEALTH = "http://127.0.0.1:8089"
AS_STRANGER = "setpriv --reuid=www-data --regid=www-data --clear-groups"


@pytest.mark.parametrize("unit", ["kallithea-web", "kallithea-celery", "kallithea-health", "kallithea-hooks", "haproxy", "postgresql", "rabbitmq-server"])
def test_unit_runs_and_starts_with_the_host(node: Machine, unit: str) -> None:
    """A reboot brings it back."""
    service = node.host.service(unit)
    assert service.is_running and service.is_enabled


def test_no_unit_has_failed(node: Machine) -> None:
    """Nothing else on the host is broken either."""
    assert node.run("systemctl list-units --failed --plain --no-legend") == ""


@pytest.mark.parametrize("job", ["index", "cleanup"])
def test_timer_waits_and_its_job_works(node: Machine, job: str) -> None:
    """Each once-per-cluster job has its timer, and runs when called."""
    assert f"kallithea-{job}.timer" in node.run("systemctl list-timers --no-pager --plain")
    assert node.host.service(f"kallithea-{job}.timer").is_enabled
    node.run(f"systemctl start kallithea-{job}.service", seconds=60)
    assert node.run(f"systemctl show -p Result --value kallithea-{job}.service").strip() == "success"


def test_nothing_is_purged_unless_asked_for(node: Machine) -> None:
    """A purge cannot be undone."""
    unit = node.host.file("/etc/systemd/system/kallithea-cleanup.service").content_string
    assert "kallithea-once sessions" in unit and "purge" not in unit


@pytest.mark.parametrize(
    ("path", "user", "group", "mode"),
    [
        (INI, "root", "kallithea", 0o640),
        ("/etc/kallithea/apache.conf", "root", "root", 0o644),
        ("/etc/kallithea/health.json", "root", "kallithea", 0o640),
        ("/srv/kallithea", "kallithea", "kallithea", 0o750),
        ("/srv/kallithea/repositories", "kallithea", "kallithea", 0o750),
        ("/opt/kallithea/releases", "root", "root", 0o755),
    ],
)
def test_rights_of_files(node: Machine, path: str, user: str, group: str, mode: int) -> None:
    """Configuration belongs to root, secrets to those who need them, data to the service user."""
    file = node.host.file(path)
    assert (file.user, file.group, oct(file.mode)) == (user, group, oct(mode))


def test_service_user_cannot_change_what_it_runs(node: Machine) -> None:
    """Code and configuration are read-only for the application."""
    found = node.run(
        "cd / && setpriv --reuid=kallithea --regid=kallithea --init-groups find -L /opt/kallithea/current/ /etc/kallithea -writable 2>/dev/null || true"
    )
    assert found == ""


def test_compiled_templates_are_in_memory(node: Machine, site: Site) -> None:
    """One that a power cut has cut off would be an error 500 for ever."""
    assert site.get("/_admin/my_account").status == 200
    assert node.run("find /run/kallithea-web/templates -name '*.html.py'").split()
    assert node.run("stat --file-system --format=%T /run/kallithea-web/templates").strip() == "tmpfs"
    assert node.run("find / -xdev -name '*.html.py' -size -1c -not -path '/proc/*'") == ""


def test_processes_run_as_their_users(node: Machine) -> None:
    """No worker runs as root."""
    users = {line.split()[0] for line in node.run("ps -e -o user:20=,args= | grep -E '[k]allithea-(ui|scm|write|ci)|[c]elery-run'").splitlines()}
    assert users == {"kallithea"}
    assert "root" not in node.run("ps -C haproxy -o user=,ppid= | awk '$2 != 1 { print $1 }'").split()


@pytest.mark.parametrize("verdict", ["live", "ready", "writable"])
def test_health_is_good(node: Machine, verdict: str) -> None:
    """The host says that it is well, fast."""
    assert node.probe(f"{HEALTH}/{verdict}").startswith("200")


def test_health_misses_the_storage(node: Machine, settings: Settings, site: Site) -> None:
    """Without the marker of the shared storage the host is not ready and says why; with it, it is again."""
    marker = f"{settings.storage}/.kallithea-cluster"
    node.run(f"mv {marker} {marker}.away")

    def reason() -> str:
        answer = node.probe(f"{HEALTH}/ready")
        return answer if answer.startswith("503") else ""

    try:
        assert "storage" in wait_until("503", reason, 10)
    finally:
        node.run(f"mv {marker}.away {marker}")
    wait_until("ready again", lambda: node.probe(f"{HEALTH}/ready").startswith("200"), 15)
    wait_until("the balancer to know it", lambda: site.get("/_admin/my_account").status == 200, 15)


def test_command_line_runs_as_the_service_user(node: Machine) -> None:
    """Called by root it becomes the service user, with the cluster's ini."""
    node.run("cd /root && kallithea-cli repo-scan")
    # Whatever it made belongs to the service user.
    assert node.run("find /srv/kallithea ! -user kallithea -print -quit") == ""


@pytest.mark.parametrize(("command", "reason"), [("db-create", "destroy"), ("config-create x.ini", "not used here"), ("front-end-build", "not used here")])
def test_command_line_refuses_what_harms(node: Machine, command: str, reason: str) -> None:
    """What would destroy the database or write another configuration is refused in a sentence."""
    result = node.try_run(f"kallithea-cli {command}")
    assert result.status == 1 and reason in result.errors


def test_command_line_refuses_strangers(node: Machine) -> None:
    """Another account is told whom to be."""
    result = node.try_run(f"cd / && {AS_STRANGER} kallithea-cli repo-scan")
    assert result.status == 1 and "kallithea only" in result.errors
