"""`image prune` and `image explore`. Other words after `image` are commands of their own."""

from __future__ import annotations

from .. import errors
from . import UsageError, pruning
from .flags import Flag, parse

FLAGS = {
    "explore": [
        Flag("--file", "file", "text", "which layer this path is from"),
        Flag("-a --all", "all", "bool", "every path, not the largest ones"),
        Flag("--format", "format", "text", "json"),
    ],
    "prune": [
        Flag("-a --all", "all", "bool", "also images with a name that no container uses"),
        Flag("-f --force", "force", "bool", "do not ask"),
        Flag("--filter", "filters", "list", "until=24h, label=NAME[=VALUE], label!=NAME[=VALUE]"),
    ],
}


USAGE = "image explore IMAGE, image prune [-a] [-f], and `image` before each command about images: image ls"


def main(arguments: list[str]) -> int:
    """docker-image-prune(1)."""
    verb = arguments[0] if arguments else ""
    if verb in ("-h", "--help"):
        print(f"usage: minicontainer {USAGE}")
        return 0
    if verb not in FLAGS:
        raise UsageError(USAGE)
    values, rest = parse(f"image {verb}", FLAGS[verb], arguments[1:])
    if verb == "explore":
        from . import explore

        return explore.main(values, rest)
    if rest:
        raise errors.InvalidArgument(f"image prune takes no {rest[0]!r}")
    return pruning.image(values)
