"""`push`: an image to a registry."""

from __future__ import annotations

import sys

from .. import errors
from ..engine import client
from ..image import reference
from . import pull
from .flags import Flag, parse

FLAGS = [
    Flag("-a --all-tags", "all_tags", "bool", "every tag of the repository that is here"),
    Flag("-q --quiet", "quiet", "bool", "print the name alone"),
    Flag("--disable-content-trust", "trust", "bool", "accepted for docker's sake"),
]


def main(arguments: list[str]) -> int:
    """docker-push(1)."""
    values, rest = parse("push [FLAGS] NAME[:TAG]", FLAGS, ["--disable-content-trust", *arguments])
    if len(rest) != 1:
        raise errors.InvalidArgument('"minicontainer push" needs one name: host:5000/name, host:5000/name:tag')
    wanted = reference.parse(rest[0])
    engine = client.Client().images
    names = [wanted.full()]
    if values["all_tags"]:
        if wanted.tag or wanted.digest:
            raise errors.InvalidArgument("tag can't be used with --all-tags/-a")
        everything = [reference.parse(name) for image in engine.list() for name in image.names]
        names = [name.full() for name in everything if name.name == wanted.name]
        if not names:
            raise errors.ImageNotFound(f"an image does not exist locally with the tag: {wanted.familiar_name()}")
    elif not values["quiet"] and not wanted.tag and not wanted.digest:
        print("Using default tag: latest")
    if not values["quiet"]:
        print(f"The push refers to repository [{wanted.name}]", flush=True)
    for name in names:
        if values["quiet"]:
            engine.push(name)
            continue
        with pull.display(sys.stdout) as show:
            pushed = engine.push(name, show.progress)
        print(f"{reference.parse(name).tag}: digest: {pushed.digest} size: {pushed.size}", flush=True)
    if values["quiet"]:
        print(wanted.name if values["all_tags"] else wanted.full())
    return 0
