"""`wait`: until containers have ended; prints their exit codes."""

from .each import each
from .flags import Flag, Help, parse

FLAGS: list[Flag] = []


def main(arguments: list[str]) -> int:
    """docker-wait(1)."""
    try:
        _, names = parse("wait CONTAINER …", FLAGS, arguments)
    except Help as help:
        print(help)
        return 0
    return each("wait", names, lambda container: container.wait()["StatusCode"], say=False)
