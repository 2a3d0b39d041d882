"""`container prune`: remove all containers that do not run. Other words after `container` are commands of their own."""

import sys

from ..engine import client
from . import UsageError, pruning, table
from .flags import Flag, parse

FLAGS = {"prune": [Flag("-f --force", "force", "bool", "do not ask")]}


def main(arguments: list[str]) -> int:
    """docker-container-prune(1)."""
    verb = arguments[0] if arguments else ""
    if verb not in FLAGS:
        raise UsageError("container prune [-f], and `container` before each command about containers: container ls")
    values, rest = parse("container prune", FLAGS[verb], arguments[1:])
    if rest:
        raise UsageError(f"container prune takes no {rest[0]!r}")
    if not values["force"]:
        print("WARNING! This will remove all stopped containers.")
        if not sys.stdin.isatty() or input("Are you sure you want to continue? [y/N] ").lower() not in ("y", "yes"):
            return 0
    removed, space = client.Client().containers.prune()
    pruning.told("Deleted Containers", removed)
    print(f"Total reclaimed space: {table.size(space)}")
    return 0
