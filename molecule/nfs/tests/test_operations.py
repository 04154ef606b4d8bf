"""What a page and a fetch ask of the file server: each file that is opened is a round trip, however fast the host is."""

from __future__ import annotations

from machines import Machine
from mounts import operations
from repositories import Make
from scm import Client
from settings import Settings
from web import Site

COMMITS = 20
REFERENCES = 60
# Measured 563 and 207: git's programs and the application open and close each loose reference once.
# Once for each changeset, as without speed-04, would be 2,400 more.
PAGE_OPERATIONS = 1000
FETCH_OPERATIONS = 400


def spent(host: Machine, settings: Settings, before: dict[str, int]) -> dict[str, int]:
    """Return what was asked since then, most first."""
    found = {name: count - before.get(name, 0) for name, count in operations(host, settings).items() if count != before.get(name, 0)}
    return dict(sorted(found.items(), key=lambda pair: -pair[1]))


def test_what_a_page_and_a_fetch_ask_of_the_server_is_bounded(
    machines: dict[str, Machine], settings: Settings, client: Client, site: Site, make_repository: Make
) -> None:
    """A page of changesets beside many loose references, and a fetch that finds nothing, straight at one host, with everything on."""
    node = settings.groups["app"][1]
    host, name = machines[node], make_repository("git", "operations")
    client.commit("git", "operations", "first")
    client.run(f"cd operations && for number in $(seq 2 {COMMITS}); do git commit -q --allow-empty -m $number; done")
    client.push("git", "operations", client.url(name))
    # As many pushes leave them.
    path, git = f"{settings.repositories}/{name}", "cd / && exec runuser -u kallithea -- git"
    head = host.run(f"{git} -C {path} rev-parse master").strip()
    host.run(f"{git} -C {path} update-ref --stdin", stdin="".join(f"create refs/heads/branch-{number} {head}\n" for number in range(REFERENCES)))
    url, port = client.url(name, node=node, pool="scm"), settings.host_pools[node]["ui"]["port"]
    client.run(f"rm -rf operations-in && git clone -q {url} operations-in")
    counts = {}
    # The first one finds out what the host remembers afterwards.
    for what in ("a first page", "a page"):
        before = operations(host, settings)
        page = site.get(f"/{name}/changelog", port=port, node=node)
        counts[what] = spent(host, settings, before)
        assert page.status == 200 and f"branch-{REFERENCES - 1}" in page.text
    before = operations(host, settings)
    assert client.run("cd operations-in && git fetch 2>&1") == ""
    counts["a fetch"] = spent(host, settings, before)
    for what, found in counts.items():
        print(f"{what}: {sum(found.values())} operations, {found}")
    assert 0 < sum(counts["a page"].values()) < PAGE_OPERATIONS, counts
    assert 0 < sum(counts["a fetch"].values()) < FETCH_OPERATIONS, counts
