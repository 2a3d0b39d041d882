"""`image prune`. Other words after `image` are commands of their own."""

from __future__ import annotations

from .. import errors
from . import UsageError, pruning
from .flags import Flag, parse

FLAGS = {
    "prune": [
        Flag("-a --all", "all", "bool", "also images with a name that no container uses"),
        Flag("-f --force", "force", "bool", "do not ask"),
        Flag("--filter", "filters", "list", "until=24h, label=NAME[=VALUE], label!=NAME[=VALUE]"),
    ],
}


def main(arguments: list[str]) -> int:
    """docker-image-prune(1)."""
    verb = arguments[0] if arguments else ""
    if verb not in FLAGS:
        raise UsageError("image prune [-a] [-f], and `image` before each command about images: image ls")
    values, rest = parse(f"image {verb}", FLAGS[verb], arguments[1:])
    if rest:
        raise errors.InvalidArgument(f"image prune takes no {rest[0]!r}")
    return pruning.image(values)
