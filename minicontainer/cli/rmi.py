"""`rmi`: names of images go, and with the last one the image."""

from __future__ import annotations

import sys

from .. import errors
from ..engine import client
from . import sentence
from .flags import Flag, parse

FLAGS = [
    Flag("-f --force", "force", "bool", "also what a stopped container uses, or has several names"),
    Flag("--no-prune", "no_prune", "bool", "accepted for docker's sake: there are no parents to keep"),
]


def main(arguments: list[str]) -> int:
    """docker-rmi(1)."""
    values, names = parse("rmi IMAGE …", FLAGS, arguments)
    if not names:
        raise errors.InvalidArgument('"minicontainer rmi" needs an image; `minicontainer images` lists them')
    images = client.Client().images
    code = 0
    for name in names:
        try:
            print(*images.remove(name, values["force"]), sep="\n")
        except (errors.MiniContainerError, OSError) as error:
            print(f"minicontainer: {sentence(error)}", file=sys.stderr)
            if not (values["force"] and isinstance(error, errors.ImageNotFound)):
                code = 1
    return code
