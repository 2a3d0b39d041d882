"""Lab 07: switches, cables, a router between them, and names.

The README tells the job. Yours to write is what raises NotImplementedError; add functions and imports as you need.
"""

import ipaddress
import os
import socket
import struct

from minicontainer import netlink, syscalls


def wire(segments):
    """Build networks for containers that are there already, each a process in a network namespace of its own.

    `segments` is a list of {"switch": the name of a bridge to make here, "gateway": "10.1.0.1/24" or None,
    "containers": [[pid, "10.1.0.2/24"], …]}. Afterwards each container has a loopback that is up and an `eth0` that is
    plugged into its switch, up, with that address; packets pass. A segment with a gateway has it on its switch, and its
    containers reach every other segment that has one through it. A segment without a gateway is nobody's but its own:
    no packet gets in or out.
    """
    raise NotImplementedError


def port_of(pid):
    """The name of the device here that is the other end of a container's `eth0`, whatever it is called.

    (What one asks who sees `eth0@if12` in a container and wants to listen to it from outside.) None if it has no eth0.
    """
    raise NotImplementedError


def answer(question, asker, known):
    """What a resolver says to a question of DNS. Both messages are hexadecimal digits; they come and go by UDP.

    `known` tells who is called what, in all networks: {"db": ["10.1.0.2", "10.2.0.7"]}. `asker` is the container that
    asks, "10.1.0.9/24": it hears of its neighbours, and of all their addresses for a name. What none of its neighbours is
    called does not exist for it (NXDOMAIN, 3). Letters are the same whether small or large. Who asks of a neighbour for
    anything but its IPv4 address (A, 1) hears that there is none: no error, and no record.
    """
    raise NotImplementedError
