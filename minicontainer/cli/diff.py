"""`diff`: what a container has changed over its image."""

from ..engine import client
from ..errors import InvalidArgument
from .flags import Flag, parse

FLAGS: list[Flag] = []
LETTERS = "CAD"  # by docker-py's kinds


def main(arguments: list[str]) -> int:
    """docker-diff(1)."""
    _, names = parse("diff CONTAINER", FLAGS, arguments)
    if len(names) != 1:
        raise InvalidArgument('"minicontainer diff" needs one container; `minicontainer ps -a` lists them')
    for change in client.Client().containers.get(names[0]).diff():
        print(LETTERS[change["Kind"]], change["Path"])
    return 0
