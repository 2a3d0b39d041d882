"""`kill`: send the first process of running containers a signal."""

from .each import each
from .flags import Flag, parse

FLAGS = [Flag("-s --signal", "signal", "text", "which one, by name or number (KILL)")]


def main(arguments: list[str]) -> int:
    """docker-kill(1)."""
    values, names = parse("kill CONTAINER …", FLAGS, arguments)
    return each("kill", names, lambda container: container.kill(values.get("signal", "KILL")))
