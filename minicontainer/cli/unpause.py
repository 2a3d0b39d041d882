"""`unpause`: let paused containers go on."""

from .each import each
from .flags import Flag, Help, parse

FLAGS: list[Flag] = []


def main(arguments: list[str]) -> int:
    """docker-unpause(1)."""
    try:
        _, names = parse("unpause CONTAINER …", FLAGS, arguments)
    except Help as help:
        print(help)
        return 0
    return each("unpause", names, lambda container: container.unpause())
