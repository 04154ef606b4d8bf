"""What is in Kallithea's journal of pulls, and how long."""

from __future__ import annotations

from machines import Machine
from repositories import Make
from scm import Client

SQL = "cd / && runuser -u postgres -- psql -AtX -q -v ON_ERROR_STOP=1 -d kallithea"
# Just too old by the cluster's 90 days (a day more for every time zone), not yet, and what is no pull.
OLD = """
INSERT INTO user_logs (username, repository_name, action, action_date) VALUES
  ('old-pull', 'r', 'pull', now() - interval '92 days'), ('young-pull', 'r', 'pull', now() - interval '89 days'),
  ('old-push', 'r', 'push:0123', now() - interval '900 days'), ('old-other', 'r', 'user_created_repo', now() - interval '900 days');
"""
NAMES = "SELECT username FROM user_logs WHERE username IN ('old-pull', 'young-pull', 'old-push', 'old-other') ORDER BY 1"

INDEXES = "SELECT indexrelid::regclass FROM pg_index WHERE indisvalid AND indrelid IN ('user_logs'::regclass, 'users_groups_members'::regclass)"


def pulls(node: Machine, name: str) -> int:
    """Return how many pulls of a repository are in the journal."""
    return int(node.run(SQL, stdin=f"SELECT count(*) FROM user_logs WHERE action = 'pull' AND repository_name = '{name}'"))


def test_a_person_who_finds_nothing_leaves_nothing(node: Machine, client: Client, make_repository: Make) -> None:
    """Through balancer and Apache: a look at the references leaves no row, a clone leaves one."""
    name = make_repository("git", "pulled")
    client.run("rm -rf pulled pulled-clone")
    client.commit("git", "pulled", "first")
    client.push("git", "pulled", client.url(name))
    before = pulls(node, name)
    client.run(f"git ls-remote {client.url(name)}")
    assert pulls(node, name) == before
    client.run(f"git clone -q {client.url(name)} pulled-clone && cd pulled-clone && git fetch -q")
    assert pulls(node, name) == before + 1


def test_old_pulls_go_and_nothing_else(node: Machine) -> None:
    """The clean-up's command as its timer runs it, on the cluster's own database, which has our indexes."""
    ours = {f"kallithea_cluster_{name}" for name in ("members", "log_repository")}
    assert ours <= set(node.run(SQL, stdin=INDEXES).split())
    node.run(SQL, stdin=OLD)
    try:
        command = node.run("sed -n 's/^ExecStart=.*-- \\(.* pulls .*\\)/\\1/p' /etc/systemd/system/kallithea-cleanup.service").strip()
        assert command.endswith("pulls --days 90"), command
        node.run(f"cd / && runuser -u kallithea -- {command}")
        assert node.run(SQL, stdin=NAMES).split() == ["old-other", "old-push", "young-pull"]
    finally:
        node.run(SQL, stdin="DELETE FROM user_logs WHERE username IN ('old-pull', 'young-pull', 'old-push', 'old-other')")
