"""Lab 07: switches, cables, and a router between them.

The README tells the job. Yours to write is what raises NotImplementedError; add functions and imports as you need.
"""

import os
import socket

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
