#!/usr/bin/python
# Copyright: The kallithea.cluster maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Module reachable."""

from __future__ import annotations

DOCUMENTATION = r"""
module: reachable
short_description: Whether an external database and broker can be reached, trusted and logged in to
version_added: 0.1.0
author: The kallithea.cluster maintainers (@kallithea-cluster)
description:
  - Asks a PostgreSQL and a RabbitMQ from the host on which it runs, with Python's standard library alone, so that a bare host can do it; changes nothing.
  - Connects, checks TLS and the certificate as the application will do it, and logs in.
  - Of several servers those that are down are no problem while one answers.
options:
  database:
    description: The PostgreSQL; without it none is asked.
    type: dict
    suboptions:
      hosts:
        description: Names or addresses.
        type: list
        elements: str
        required: true
      port:
        description: Port.
        type: int
        required: true
      sslmode:
        description: Libpq's word for how TLS is insisted on.
        type: str
        choices: [require, verify-ca, verify-full]
        required: true
      ca:
        description: Certificates of those who sign the server's, PEM; empty means none.
        type: str
        required: true
      name:
        description: Name of the database.
        type: str
        required: true
      logins:
        description: Accounts to log in as.
        type: list
        elements: dict
        required: true
        suboptions: &login
          user:
            description: Name of the account.
            type: str
            required: true
          password:
            description: Its password.
            type: str
            required: true
          secret:
            description: Name of the secret that holds the password.
            type: str
            required: true
          connections:
            description: Connections that the cluster may take with it.
            type: int
            default: 0
  broker:
    description: The RabbitMQ; without it none is asked.
    type: dict
    suboptions:
      hosts:
        description: Names or addresses.
        type: list
        elements: str
        required: true
      port:
        description: Port.
        type: int
        required: true
      tls:
        description: Whether it is spoken to over TLS.
        type: bool
        required: true
      ca:
        description: Certificates of those who sign the server's, PEM; empty means those that the system trusts.
        type: str
        required: true
      vhost:
        description: Virtual host.
        type: str
        required: true
      logins:
        description: Accounts to log in as.
        type: list
        elements: dict
        required: true
        suboptions: *login
attributes:
  check_mode:
    description: Runs in check mode, since it changes nothing.
    support: full
  diff_mode:
    description: Has nothing to show.
    support: none
"""

EXAMPLES = r"""
- name: Ask an external broker
  kallithea.cluster.reachable:
    broker:
      hosts: [mq.example.org]
      port: 5671
      tls: true
      ca: "{{ lookup('ansible.builtin.file', 'ca.crt') }}"
      vhost: kallithea
      logins: [{user: kallithea, password: "{{ kallithea_secrets.broker_password }}", secret: broker_password}]
"""

RETURN = r"""
problems:
  description: One sentence for each thing that is wrong.
  returned: always
  type: list
  elements: str
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.kallithea.cluster.plugins.module_utils.reachable import ask_broker, ask_postgresql, problems


def main() -> None:
    """Ask both."""
    login: dict[str, Any] = {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "user": {"type": "str", "required": True},
            "password": {"type": "str", "required": True, "no_log": True},
            "secret": {"type": "str", "required": True, "no_log": False},
            "connections": {"type": "int", "default": 0},
        },
    }
    server: dict[str, Any] = {
        "hosts": {"type": "list", "elements": "str", "required": True},
        "port": {"type": "int", "required": True},
        "ca": {"type": "str", "required": True},
        "logins": login,
    }
    modes = ["require", "verify-ca", "verify-full"]
    database = {**server, "sslmode": {"type": "str", "required": True, "choices": modes}, "name": {"type": "str", "required": True}}
    broker = {**server, "tls": {"type": "bool", "required": True}, "vhost": {"type": "str", "required": True}}
    module = AnsibleModule(
        argument_spec={"database": {"type": "dict", "options": database}, "broker": {"type": "dict", "options": broker}},
        supports_check_mode=True,
    )
    found = []
    for ask, wanted in ((ask_postgresql, module.params["database"]), (ask_broker, module.params["broker"])):
        if wanted:
            found += problems(ask, wanted)
    module.exit_json(changed=False, problems=found)


if __name__ == "__main__":
    main()
