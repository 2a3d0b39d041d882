"""`pause`: hold all processes of containers still."""

from .each import each
from .flags import Flag, parse

FLAGS: list[Flag] = []


def main(arguments: list[str]) -> int:
    """docker-pause(1)."""
    _, names = parse("pause CONTAINER …", FLAGS, arguments)
    return each("pause", names, lambda container: container.pause())
