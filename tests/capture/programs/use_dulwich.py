"""dulwich lists, clones and pushes."""

import pathlib
import sys

from dulwich import porcelain

WHO = {"username": "jane", "password": "secret"}
AUTHOR = b"Jane <jane@example.org>"

porcelain.ls_remote(sys.argv[1], **WHO)
porcelain.clone(sys.argv[1], "dulwich", **WHO)
pathlib.Path("dulwich/d").write_text("d", encoding="utf-8")
porcelain.add("dulwich", ["dulwich/d"])
porcelain.commit("dulwich", message=b"d", author=AUTHOR, committer=AUTHOR)
porcelain.push("dulwich", sys.argv[1], "HEAD:refs/heads/dulwich", **WHO)
