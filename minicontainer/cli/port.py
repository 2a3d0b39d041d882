"""`port`: where the published ports of a container lead."""

from .. import errors
from ..engine import client
from . import UsageError, ps
from .flags import Flag, parse

FLAGS: list[Flag] = []


def main(arguments: list[str]) -> int:
    """docker-port(1): port CONTAINER [PORT[/PROTOCOL]]"""
    _, words = parse("port CONTAINER [PORT[/PROTOCOL]]", FLAGS, arguments)
    if not 1 <= len(words) <= 2:
        raise UsageError('"minicontainer port" needs a container, and may have one of its ports')
    found = client.Client().containers.get(words[0]).ports
    if len(words) == 1:
        for inside, places in found.items():
            for place in places:
                print(f"{inside} -> {ps.place(place['HostIp'])}:{place['HostPort']}")
        return 0
    asked = words[1] if "/" in words[1] else f"{words[1]}/tcp"
    if asked not in found:
        raise errors.NotFound(f"No public port '{asked}' published for {words[0]}")
    for place in found[asked]:
        print(f"{ps.place(place['HostIp'])}:{place['HostPort']}")
    return 0
