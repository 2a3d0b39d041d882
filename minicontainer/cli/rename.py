"""`rename`: call a container otherwise."""

from ..engine import client
from . import UsageError
from .flags import Flag, parse

FLAGS: list[Flag] = []


def main(arguments: list[str]) -> int:
    """docker-rename(1)."""
    _, names = parse("rename CONTAINER NAME", FLAGS, arguments)
    if len(names) != 2:
        raise UsageError('"minicontainer rename" needs a container and its new name')
    client.Client().containers.get(names[0]).rename(names[1])
    return 0
