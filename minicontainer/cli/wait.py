"""`wait`: until containers have ended; prints their exit codes."""

from .each import each
from .flags import Flag, parse

FLAGS: list[Flag] = []


def main(arguments: list[str]) -> int:
    """docker-wait(1)."""
    _, names = parse("wait CONTAINER …", FLAGS, arguments)
    return each("wait", names, lambda container: container.wait()["StatusCode"], say=False)
