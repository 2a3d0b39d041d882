"""`stop`: ask containers to end, and see to it that they do."""

from .each import each
from .flags import Flag, number, parse

FLAGS = [
    Flag("-t --time --timeout", "timeout", "text", "seconds until it is killed (10, or --stop-timeout); -1: never"),
    Flag("-s --signal", "signal", "text", "what to send it first (TERM, or --stop-signal)"),
]


def main(arguments: list[str]) -> int:
    """docker-stop(1)."""
    values, names = parse("stop CONTAINER …", FLAGS, arguments)
    timeout = number("--time", values["timeout"]) if "timeout" in values else None
    return each("stop", names, lambda container: container.stop(timeout, values.get("signal", "")))
