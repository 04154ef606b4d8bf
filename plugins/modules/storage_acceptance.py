#!/usr/bin/python
# Copyright: The kallithea.cluster maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Module storage_acceptance."""

from __future__ import annotations

DOCUMENTATION = r"""
module: storage_acceptance
short_description: One host's part in a step of the storage's acceptance test
version_added: 0.1.0
author: The kallithea.cluster maintainers (@kallithea-cluster)
description:
  - Several hosts try a shared storage together; all of them do a step at the same time, and the next one when all have answered.
  - The first host makes a folder C(.kallithea-acceptance) at the top of the storage (C(begin)), all look at it (C(look)), the first one changes it while
    the others try the lock that it holds and all race for names (C(change)), all say what they see (C(see)), and the folder is removed (C(end)).
  - It acts as the service user; a storage that hangs ends a step by its limit. What it finds is no failure of the module but the matter of the
    filter C(acceptance_problems).
options:
  step:
    description: The step; C(exports) reads the table of exports on an NFS server instead.
    type: str
    choices: [begin, look, change, see, end, exports]
    required: true
  path:
    description: The storage's path.
    type: path
    required: true
  uid:
    description: Numeric id of the service user.
    type: int
    required: true
  gid:
    description: Numeric id of its group.
    type: int
    required: true
  number:
    description: This host's number among those that try it; 0 is the first host.
    type: int
    default: 0
  hosts:
    description: How many hosts try it.
    type: int
    default: 1
  run:
    description: What C(begin) returned on the first host.
    type: str
    default: ""
  earlier:
    description: What this host found in the earlier steps.
    type: dict
    default: {}
attributes:
  check_mode:
    description: Does not run in check mode, since it writes, if only for a while.
    support: none
  diff_mode:
    description: Has nothing to show.
    support: none
"""

EXAMPLES = r"""
- name: Look at the storage
  kallithea.cluster.storage_acceptance:
    step: look
    path: /srv/kallithea
    uid: 2200
    gid: 2200
    number: 1
    hosts: 2
    run: "{{ hostvars['app1'].begun.result.run }}"
  register: looked
"""

RETURN = r"""
result:
  description: What this host found in this step and the earlier ones; C(error) where the storage refused something or did not answer.
  returned: always
  type: dict
"""

import os
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.kallithea.cluster.plugins.module_utils.bounded import bounded
from ansible_collections.kallithea.cluster.plugins.module_utils.host_state import parse_mount
from ansible_collections.kallithea.cluster.plugins.module_utils.storage_acceptance import FOLDER, OTHER_RUN_SECONDS, become, export_options, step
from ansible_collections.kallithea.cluster.plugins.module_utils.storage_probes import said
from ansible_collections.kallithea.cluster.plugins.module_utils.text_files import read

EXPORT_TABLE = "/var/lib/nfs/etab"
# More than what a step takes on a storage that works: an NFS server that was started a moment ago gives no file before its grace time is over,
# and the first step waits for another run.
SECONDS = {"begin": OTHER_RUN_SECONDS + 12.0, "look": 8.0, "change": 10.0, "see": 8.0, "end": 8.0}


def main() -> None:
    """Do the step."""
    module = AnsibleModule(
        argument_spec={
            "step": {"type": "str", "required": True, "choices": [*SECONDS, "exports"]},
            "path": {"type": "path", "required": True},
            "uid": {"type": "int", "required": True},
            "gid": {"type": "int", "required": True},
            "number": {"type": "int", "default": 0},
            "hosts": {"type": "int", "default": 1},
            "run": {"type": "str", "default": ""},
            "earlier": {"type": "dict", "default": {}},
        },
    )
    wanted = module.params
    if wanted["step"] == "exports":
        module.exit_json(changed=False, result={"exports": export_options(read(EXPORT_TABLE), wanted["path"])})

    def work() -> dict[str, Any]:
        become(wanted["uid"], wanted["gid"])
        folder = os.path.join(wanted["path"], FOLDER)
        return dict(step(wanted["step"], folder, wanted["run"], wanted["number"], wanted["hosts"], wanted["earlier"]))

    try:
        found = bounded(work, SECONDS[wanted["step"]])
    except OSError as error:
        found = {"error": said(error)}
    result = {**wanted["earlier"], **found}
    if wanted["step"] == "look":
        result["mount"] = parse_mount(read("/proc/self/mountinfo"), wanted["path"])
    module.exit_json(changed=False, result=result)


if __name__ == "__main__":
    main()
