"""`restart`: stop containers and start them again."""

from .each import each
from .flags import Flag, number, parse

FLAGS = [
    Flag("-t --time --timeout", "timeout", "text", "seconds until it is killed (10, or --stop-timeout); -1: never"),
    Flag("-s --signal", "signal", "text", "what to send it first (TERM, or --stop-signal)"),
]


def main(arguments: list[str]) -> int:
    """docker-restart(1)."""
    values, names = parse("restart CONTAINER …", FLAGS, arguments)
    timeout = number("--time", values["timeout"]) if "timeout" in values else None
    return each("restart", names, lambda container: container.restart(timeout, values.get("signal", "")))
