"""The full text index: what is pushed is found, whatever somebody else has pushed."""

from __future__ import annotations

from machines import Machine
from repositories import Make
from scm import Client
from web import Site

INDEX = "cd / && runuser -u kallithea -- /usr/local/bin/kallithea-cli index-create"
# In the year 2286: more than 32 bits hold.
FAR = "@9999999999 +0000"


def test_a_commit_of_a_far_date_does_not_end_the_index(node: Machine, client: Client, site: Site, make_repository: Make) -> None:
    """It is found, and so are those of repositories that come later in the alphabet."""
    far, later = make_repository("git", "search-a"), make_repository("git", "search-b")
    for name, repository, word in (("search-a", far, "sooner"), ("search-b", later, "alongside")):
        client.run(f"rm -rf {name}")
        client.commit("git", name, word)
        client.push("git", name, client.url(repository))
    client.run(f"cd search-a && GIT_COMMITTER_DATE='{FAR}' git commit -q --allow-empty -m faraway && git push -q {client.url(far)} master")
    node.run(INDEX, seconds=120)
    for word, repository in (("faraway", far), ("sooner", far), ("alongside", later)):
        answer = site.get(f"/_admin/search?type=commit&q={word}")
        assert answer.status == 200 and repository in answer.text, f"{word} of {repository} is not found"
