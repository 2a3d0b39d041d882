"""`tag`: one more name for an image."""

from __future__ import annotations

from .. import errors
from ..engine import client
from .flags import Flag, parse

FLAGS: list[Flag] = []


def main(arguments: list[str]) -> int:
    """docker-tag(1)."""
    _, names = parse("tag IMAGE NAME[:TAG]", FLAGS, arguments)
    if len(names) != 2:
        raise errors.InvalidArgument('"minicontainer tag" needs two words: an image and its new name')
    client.Client().images.tag(*names)
    return 0
