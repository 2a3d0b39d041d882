"""`unpause`: let paused containers go on."""

from .each import each
from .flags import Flag, parse

FLAGS: list[Flag] = []


def main(arguments: list[str]) -> int:
    """docker-unpause(1)."""
    _, names = parse("unpause CONTAINER …", FLAGS, arguments)
    return each("unpause", names, lambda container: container.unpause())
