"""libgit2 clones, fetches and pushes."""

import sys

import pygit2

CALLS = pygit2.RemoteCallbacks(credentials=pygit2.UserPass("jane", "secret"))
WHO = pygit2.Signature("Jane", "jane@example.org")

repository = pygit2.clone_repository(sys.argv[1], "pygit2", callbacks=CALLS)
origin = repository.remotes["origin"]
origin.fetch(callbacks=CALLS)
repository.create_commit("refs/heads/pygit2", WHO, WHO, "x", repository.head.peel().tree.id, [repository.head.target])
origin.push(["refs/heads/pygit2"], callbacks=CALLS)
