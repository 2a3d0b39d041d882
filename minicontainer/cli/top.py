"""`top`: the processes of a container, as ps(1) on this machine sees them."""

from ..engine import client
from ..errors import InvalidArgument
from . import table
from .flags import Flag, parse

FLAGS: list[Flag] = []


def main(arguments: list[str]) -> int:
    """docker-top(1): top CONTAINER [ps options]"""
    _, words = parse("top CONTAINER [ps options]", FLAGS, arguments, stop=True)
    if not words:
        raise InvalidArgument('"minicontainer top" needs a container; `minicontainer ps` lists them')
    found = client.Client().containers.get(words[0]).top(" ".join(words[1:]))
    print(table.wide([found["Titles"], *found["Processes"]]))
    return 0
