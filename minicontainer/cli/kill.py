"""`kill`: send the first process of running containers a signal."""

from .each import each
from .flags import Flag, Help, parse

FLAGS = [Flag("-s --signal", "signal", "text", "which one, by name or number (KILL)")]


def main(arguments: list[str]) -> int:
    """docker-kill(1)."""
    try:
        values, names = parse("kill CONTAINER …", FLAGS, arguments)
    except Help as help:
        print(help)
        return 0
    return each("kill", names, lambda container: container.kill(values.get("signal", "KILL")))
