"""Writers and maintenance exclude each other on the storage, whichever host they are on; and nobody's push is lost."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from machines import Machine, Result, wait_until
from repositories import Make
from scm import Client
from settings import Settings
from web import Site

pytest_plugins = ["big_repository"]

PUSHES = 4
ROUNDS = 3


class Repository:
    """A git repository, and what may be done to it on the second application host."""

    def __init__(self, name: str, node: Machine, settings: Settings) -> None:
        """Remember where it is."""
        self.name = name
        self.node = node
        self.storage = settings.storage
        self.path = f"{settings.repositories}/{name}"
        self.lock = f"{settings.storage}/locks/{name}/.lock"

    def as_user(self, script: str) -> Result:
        """Run a script as the service user."""
        return self.node.try_run(f"cd / && runuser -u kallithea -- sh -c '{script}'")

    def maintain(self) -> Result:
        """Run the maintenance by hand."""
        return self.as_user(f"/usr/local/lib/kallithea/kallithea-maintenance --storage {self.storage} {self.name}")


@pytest.fixture(scope="module")
def repository(make_repository: Make, machines: dict[str, Machine], settings: Settings) -> Repository:
    """Return a repository of this module's own."""
    return Repository(make_repository("git", "maintained"), machines[settings.groups["app"][1]], settings)


@pytest.fixture(scope="module")
def _working_copy(repository: Repository, client: Client) -> Iterator[None]:
    """Make the working copy "maintained" with a first commit, which is pushed, so that each test runs alone."""
    client.run(
        "rm -rf maintained && git init -q maintained && cd maintained && git commit -q --allow-empty -m first"
        f" && git push -q {client.url(repository.name)} HEAD:refs/heads/master"
    )
    yield
    client.run("rm -rf maintained")


@pytest.mark.usefixtures("_working_copy")
def test_pushes_and_maintenance_go_on_together(repository: Repository, client: Client, settings: Settings) -> None:
    """Through one host is pushed, on the other the same repository is packed again and again: each push is there at the end."""
    url = client.url(repository.name, node=settings.groups["app"][0], pool="write")
    # The maintenance makes way for the one who waits, so every push has to succeed.
    script = (
        f"cd maintained && for number in $(seq {PUSHES}); do git commit -q --allow-empty -m $number"
        f" && git push -q {url} HEAD:refs/heads/branch$number HEAD:refs/heads/master || exit 1; done; git rev-parse HEAD"
    )
    with ThreadPoolExecutor() as executor:
        pushing = executor.submit(client.run, script)
        runs = []
        while not pushing.done():
            runs.append(repository.maintain())
    head = pushing.result().strip()
    assert all(": done, " in run.output or ": busy" in run.output for run in runs), runs
    wait_until("a maintenance in peace", lambda: repository.maintain().status == 0, 5)
    assert repository.as_user(f"ls {repository.path}/objects/pack/*.pack").output.count("\n") < PUSHES
    assert repository.as_user(f"git -C {repository.path} fsck --full --strict").status == 0
    branches = client.run(f"git ls-remote {client.url(repository.name)} refs/heads/*").split()[1::2]
    assert len(branches) == PUSHES + 1, branches
    assert client.run(f"git ls-remote {client.url(repository.name)} refs/heads/master").split()[0] == head


@pytest.mark.usefixtures("_working_copy")
def test_who_pushes_while_the_lock_is_held_reads_why(repository: Repository, client: Client) -> None:
    """The lock that another host holds keeps a push waiting, then its user reads a sentence; afterwards it goes through."""
    repository.as_user(f"install -d {repository.lock.rpartition('/')[0]}")
    push = f"cd maintained && git commit -q --allow-empty -m held && git push {client.url(repository.name)} HEAD:refs/heads/master"
    repository.node.start("held-lock", f"exec runuser -u kallithea -- flock --exclusive {repository.lock} sleep 60", 60)
    try:
        wait_until("the lock held", lambda: repository.as_user(f"flock --shared --nonblock {repository.lock} true").status == 1, 5)
        said = client.run(f"({push}) 2>&1 || true")
        assert "remote: The repository is being maintained; the write waited " in said, said
        assert "remote unpack failed" in said, said
    finally:
        repository.node.stop("held-lock")
    client.run(push)
    writer = repository.as_user(f"cat {repository.lock}").output.split()
    assert len(writer) == 3 and writer[2] == "receive-pack", writer


@pytest.mark.usefixtures("_working_copy")
def test_an_edit_in_the_browser_and_a_push_at_the_same_moment(repository: Repository, client: Client, site: Site) -> None:
    """Whoever is told of success is in the history; the other is refused in the ordinary way."""
    url = client.url(repository.name)
    client.run(f"cd maintained && echo 0 > word && git add word && git commit -q -m word && git push -q {url} HEAD:refs/heads/master")

    def edit(number: int) -> bool:
        site.post(f"/{repository.name}/edit/master/word", {"content": f"edited {number}\n", "message": f"edit-{number}"})
        return "Successfully committed" in site.get(f"/{repository.name}").text

    def push(number: int) -> bool:
        return "pushed" in client.run(
            f"cd maintained && git commit -q --allow-empty -m push-{number} && (git push -q {url} HEAD:refs/heads/master && echo pushed || true)"
        )

    for number in range(ROUNDS):
        with ThreadPoolExecutor() as executor:
            edited, pushed = executor.submit(edit, number), executor.submit(push, number)
        history = client.run(f"cd maintained && git fetch -q {url} master && git log --format=%s FETCH_HEAD && git reset -q --hard FETCH_HEAD").split()
        assert pushed.result() == (f"push-{number}" in history), history
        assert edited.result() == (f"edit-{number}" in history), history
        assert pushed.result() or edited.result(), history


def test_a_clone_outlives_the_packs_that_it_reads(big_repository: str, client: Client, machines: dict[str, Machine], settings: Settings) -> None:
    """While one host sends a pack, another puts all packs together and removes it: the clone is whole all the same, and so is the next one there."""
    nodes = settings.groups["app"]
    # A second pack, so that there is something to put together.
    client.run(
        "rm -rf second && git init -q second && cd second && git commit -q --allow-empty -m second"
        f" && git push -q {client.url(big_repository)} HEAD:refs/heads/second"
    )
    with client.slow_clones(big_repository, 1):
        sends = "pgrep --uid kallithea --full 'git pack-objects'"
        (serving,) = wait_until("a node that sends the clone", lambda: [name for name in nodes if machines[name].try_run(sends).status == 0], 15)
        other = next(name for name in nodes if name != serving)
        folder = f"{settings.repositories}/{big_repository}/objects/pack"
        packs = f"ls {folder}/*.pack"
        before = machines[other].run(packs).split()
        run = Repository(big_repository, machines[other], settings).maintain()
        assert run.status == 0, run
        after = machines[other].run(packs).split()
        assert len(before) == 2 and len(after) == 1 and not set(before) & set(after), (before, after)
        assert machines[other].run(f"ls {folder}/*.bitmap").split() == [after[0].removesuffix("pack") + "bitmap"]
        # One branch, since the cache of packs has the answer to who wants both.
        client.run(f"rm -rf next && git clone -q --bare --single-branch --branch master {client.url(big_repository, node=serving, pool='scm')} next")
        client.run("git -C next rev-list --quiet --objects master && rm -rf next")
        assert client.machine.is_running("slow-clone-0"), f"the clone ended early: {client.run('cat slow-0.log')}"
        client.free_clones()
        wait_until("the clone whole", lambda: client.cloned(0), 90, 1.0)
