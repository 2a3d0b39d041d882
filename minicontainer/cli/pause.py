"""`pause`: hold all processes of containers still."""

from .each import each
from .flags import Flag, Help, parse

FLAGS: list[Flag] = []


def main(arguments: list[str]) -> int:
    """docker-pause(1)."""
    try:
        _, names = parse("pause CONTAINER …", FLAGS, arguments)
    except Help as help:
        print(help)
        return 0
    return each("pause", names, lambda container: container.pause())
