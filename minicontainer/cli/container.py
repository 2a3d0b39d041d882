"""`container prune`: remove all containers that do not run. Other words after `container` are commands of their own."""

from . import UsageError, pruning
from .flags import Flag, parse

FLAGS = {
    "prune": [
        Flag("-f --force", "force", "bool", "do not ask"),
        Flag("--filter", "filters", "list", "until=24h, label=NAME[=VALUE], label!=NAME[=VALUE]"),
    ]
}


def main(arguments: list[str]) -> int:
    """docker-container-prune(1)."""
    verb = arguments[0] if arguments else ""
    if verb not in FLAGS:
        raise UsageError("container prune [-f], and `container` before each command about containers: container ls")
    values, rest = parse("container prune", FLAGS[verb], arguments[1:])
    if rest:
        raise UsageError(f"container prune takes no {rest[0]!r}")
    return pruning.container(values)
