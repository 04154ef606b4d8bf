#!/usr/bin/python
# Copyright: The kallithea.cluster maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Module files."""

from __future__ import annotations

DOCUMENTATION = r"""
module: files
short_description: Several files and folders in one call
version_added: 0.1.0
author: The kallithea.cluster maintainers (@kallithea-cluster)
description:
  - Writes files with the given content and makes folders, each with owner, group and mode, one after the other; a file appears as a whole or not at all.
  - A host is asked once for all of them, which is what makes a second run fast.
options:
  files:
    description: What has to be there.
    type: list
    elements: dict
    required: true
    suboptions:
      path:
        description: Absolute path; a link is not followed.
        type: path
        required: true
      content:
        description: The file's content; without it, C(path) is a folder. Never logged.
        type: str
      owner:
        description: Name of the owner.
        type: str
        default: root
      group:
        description: Name of the group.
        type: str
        default: root
      mode:
        description: Permissions, octal, in quotes.
        type: str
        required: true
      backup:
        description: Keep the old content beside the file where it changes.
        type: bool
        default: false
      secret:
        description: Leave the file's content out of the difference that is shown as well.
        type: bool
        default: false
attributes:
  check_mode:
    description: Says what would change and changes nothing.
    support: full
  diff_mode:
    description: Shows the difference of content, except where a file is secret.
    support: full
"""

EXAMPLES = r"""
- name: Write a folder and a file in it
  kallithea.cluster.files:
    files:
      - {path: /etc/example, mode: "0755"}
      - {path: /etc/example/settings, mode: "0644", content: "a = 1\n"}
"""

RETURN = r"""
changed_paths:
  description: The paths that were changed.
  returned: always
  type: list
  elements: str
backups:
  description: For each file that was kept, the path of the copy.
  returned: always
  type: dict
modified:
  description: For each file that is there, when its content was last written, seconds since the epoch.
  returned: always
  type: dict
checksums:
  description: For each file, the SHA-256 of the wanted content.
  returned: always
  type: dict
"""

import grp
import hashlib
import os
import pwd
import tempfile

from ansible.module_utils.basic import AnsibleModule


def read(path: str) -> str | None:
    """Return a regular file's text, or nothing where there is none."""
    if os.path.islink(path) or not os.path.isfile(path):
        return None
    with open(path, encoding="utf-8", errors="surrogateescape") as stream:
        return stream.read()


def known(owner: str, group: str) -> bool:
    """Tell whether user and group are there; check mode on a bare host goes on without them."""
    try:
        pwd.getpwnam(owner)
        grp.getgrnam(group)
    except KeyError:
        return False
    return True


def write(module: AnsibleModule, path: str, content: str) -> None:
    """Put the content in the file's place at once; only root sees it before it has its mode."""
    descriptor, temporary = tempfile.mkstemp(dir=module.tmpdir)
    with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape") as stream:
        stream.write(content)
    module.atomic_move(temporary, path)


def ensure(module: AnsibleModule, entry: dict, backups: dict[str, str], diffs: list[dict]) -> bool:
    """Bring one file or folder into its state; tell whether something changed."""
    path, content = entry["path"], entry["content"]
    changed = False
    if content is None:
        if os.path.lexists(path) and (os.path.islink(path) or not os.path.isdir(path)):
            module.fail_json(msg=f"{path} is there and no folder; move it away.")
        if not os.path.isdir(path):
            changed = True
            if not module.check_mode:
                os.makedirs(path, mode=int(entry["mode"], 8))
    else:
        if os.path.isdir(path):
            module.fail_json(msg=f"{path} is a folder, where a file has to be; move it away.")
        before = read(path)
        if before != content:
            changed = True
            old, new = ("(secret)\n", "(another secret)\n") if entry["secret"] else (before or "", content)
            diffs.append({"before": old, "after": new, "before_header": path, "after_header": path})
            if not module.check_mode:
                if entry["backup"] and before is not None:
                    backups[path] = module.backup_local(path)
                write(module, path, content)
    if module.check_mode and not known(entry["owner"], entry["group"]):
        return True
    if os.path.lexists(path):
        wanted = {**module.params, "path": path, "owner": entry["owner"], "group": entry["group"], "mode": entry["mode"]}
        changed = module.set_fs_attributes_if_different(module.load_file_common_arguments(wanted, path=path), changed)
    return changed


def main() -> None:
    """Bring all files and folders into their state."""
    module = AnsibleModule(
        argument_spec={
            "files": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "path": {"type": "path", "required": True},
                    "content": {"type": "str", "no_log": True},
                    "owner": {"type": "str", "default": "root"},
                    "group": {"type": "str", "default": "root"},
                    "mode": {"type": "str", "required": True},
                    "backup": {"type": "bool", "default": False},
                    "secret": {"type": "bool", "default": False, "no_log": False},
                },
            },
        },
        supports_check_mode=True,
    )
    backups: dict[str, str] = {}
    diffs: list[dict] = []
    entries = module.params["files"]
    # No content is logged, but the difference of what is no secret may be shown.
    module.no_log_values -= {entry["content"] for entry in entries if not entry["secret"]}
    changed_paths = [entry["path"] for entry in entries if ensure(module, entry, backups, diffs)]
    modified = {entry["path"]: os.stat(entry["path"]).st_mtime for entry in entries if os.path.isfile(entry["path"])}
    contents = {entry["path"]: entry.pop("content") for entry in entries}
    checksums = {path: hashlib.sha256(content.encode("utf-8", "surrogateescape")).hexdigest() for path, content in contents.items() if content is not None}
    module.exit_json(changed=bool(changed_paths), changed_paths=changed_paths, backups=backups, modified=modified, checksums=checksums, diff=diffs)


if __name__ == "__main__":
    main()
