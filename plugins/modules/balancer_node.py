#!/usr/bin/python
# Copyright: The kallithea.cluster maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Module balancer_node."""

from __future__ import annotations

DOCUMENTATION = r"""
module: balancer_node
short_description: Takes an application node out of a load balancer, or puts it back
version_added: 0.1.0
author: The kallithea.cluster maintainers (@kallithea-cluster)
description:
  - Works on HAProxy's run-time socket. Where another node can take over, the node is drained.
  - Where none can, new requests are held in the balancer until the node is back.
  - Waits until the node works on nothing. What still runs after O(timeout) is cut, so that the client sees an error and no half answer.
  - Does nothing where no HAProxy runs, or where it does not know the node.
options:
  node:
    description: Name of the node.
    type: str
    required: true
  state:
    description: V(drained) takes it out, V(ready) puts it back.
    type: str
    choices: [drained, ready]
    required: true
  timeout:
    description: Longest wait, seconds; for running requests to end, or for the node's checks to pass.
    type: int
    default: 300
  hold_timeout:
    description: Seconds that a hold lasts from the end of the drain; after that it ends by itself.
    type: int
    default: 90
  socket:
    description: Path of HAProxy's socket.
    type: path
    default: /run/haproxy/admin.sock
  hold_map:
    description: Path of the map of held pools.
    type: path
    default: /var/lib/haproxy/kallithea-hold.map
attributes:
  check_mode:
    description: Says whether it would change something, without doing so.
    support: full
  diff_mode:
    description: Has nothing to show.
    support: none
"""

EXAMPLES = r"""
- name: Take node1 out
  kallithea.cluster.balancer_node:
    node: node1
    state: drained
"""

RETURN = r"""
drained:
  description: Backends in which the node was drained.
  returned: always
  type: list
  elements: str
held:
  description: Pools whose new requests are held.
  returned: always
  type: list
  elements: str
cut:
  description: Number of requests that were cut because they did not end in time.
  returned: always
  type: int
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.kallithea.cluster.plugins.module_utils.balancer import Balancer, BalancerError, ask_socket, plan


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "node": {"type": "str", "required": True},
            "state": {"type": "str", "required": True, "choices": ["drained", "ready"]},
            "timeout": {"type": "int", "default": 300},
            "hold_timeout": {"type": "int", "default": 90},
            "socket": {"type": "path", "default": "/run/haproxy/admin.sock"},
            "hold_map": {"type": "path", "default": "/var/lib/haproxy/kallithea-hold.map"},
        },
        supports_check_mode=True,
    )
    node = module.params["node"]
    balancer = Balancer(ask_socket(module.params["socket"]), module.params["hold_map"])
    nothing: dict[str, object] = {"changed": False, "drained": [], "held": [], "cut": 0}
    try:
        servers = balancer.servers()
    except OSError as error:
        module.exit_json(msg=f"No HAProxy answers at {module.params['socket']} ({error}).", **nothing)
    own = [server for server in servers if server.name == node]
    if not own:
        module.exit_json(msg=f"HAProxy does not know {node} yet.", **nothing)
    try:
        if module.check_mode:
            held = balancer.held()
            if module.params["state"] == "ready":
                changed = any(server.drained for server in own) or any(server.backend[3:] in held for server in own)
            else:
                wanted = plan(servers, node)
                changed = any(server.backend in wanted.drain and not server.drained for server in own) or any(pool not in held for pool in wanted.hold)
            module.exit_json(**{**nothing, "changed": changed})
        if module.params["state"] == "drained":
            module.exit_json(**balancer.drain(node, module.params["timeout"], module.params["hold_timeout"]))
        module.exit_json(**balancer.undrain(node, module.params["timeout"]))
    except (BalancerError, OSError) as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
