"""`rename`: call a container otherwise."""

from ..engine import client
from . import UsageError
from .flags import Flag, Help, parse

FLAGS: list[Flag] = []


def main(arguments: list[str]) -> int:
    """docker-rename(1)."""
    try:
        _, names = parse("rename CONTAINER NAME", FLAGS, arguments)
    except Help as help:
        print(help)
        return 0
    if len(names) != 2:
        raise UsageError('"minicontainer rename" needs a container and its new name')
    client.Client().containers.get(names[0]).rename(names[1])
    return 0
