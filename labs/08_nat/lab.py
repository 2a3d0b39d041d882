"""Lab 08: out through one address, in through its ports.

The README tells the job. Yours to write is what raises NotImplementedError; add functions and imports as you need.
"""

import json
import subprocess

TABLE = "lab"  # your own, in the family ip; another one is somebody else's


def nft(text):
    """Give nft(8) some lines, as one transaction: all of them or none. CalledProcessError if it refuses."""
    subprocess.run(["/usr/sbin/nft", "-f", "-"], input=text.encode(), check=True)


def masquerade(subnet, device):
    """What comes from `subnet` ("10.1.0.0/24") and leaves by `device` bears this machine's address there.

    Nothing else does, but for one case: a container that reaches another one, or itself, by a published port of this
    machine: its packets must come back the same way. To be called once, before any `publish`.
    """
    raise NotImplementedError


def publish(ports, to, protocol, source):
    """Ports of this machine lead to a container.

    `ports` is "8080:80", or "8000-8003:80-83": port by port in the same order. `to` is the container's address,
    `protocol` "tcp" or "udp". With a `source` ("192.0.2.0/25"; else None) it holds for packets from there, and goes before
    what was published without one, whichever was said first. It works from outside, from this machine by its own address,
    from the container itself; and the container sees who asks (but for the case that `masquerade` tells of).
    """
    raise NotImplementedError


def unpublish(ports, protocol):
    """What `publish` did for just these `ports` and this `protocol` is undone; everything else stays."""
    raise NotImplementedError


def isolate(subnets, allowed):
    """Containers of different `subnets` (a list) do not reach one another's addresses.

    Except: for a pair (from, to) of subnets in `allowed`, those of `from` may ask those of `to`, and are answered; not the
    other way round. What was published stays there for everybody, and the world outside is as it was. What an earlier call
    said holds no longer. With a thousand subnets there are as many rules as with two.
    """
    raise NotImplementedError


def lead(published):
    """The table `plan`, in the family ip, anew: ports by look-up. What an earlier call put into it is gone.

    `published` has (device, protocol, port, address, its port): what comes in by `device`, and is for this machine and
    this port, goes to the container at `address`. So one port may lead elsewhere for each device, and nowhere for those
    that are not told of. Who asks is never in the network of the container that he is led to. The list may be empty, or
    have thousands: there are as many rules as for one.
    """
    raise NotImplementedError
