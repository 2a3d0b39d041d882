"""`load`: images from an archive that docker save, podman save or skopeo wrote."""

import os
import sys

from ..engine import client
from . import UsageError
from .flags import Flag, parse

FLAGS = [
    Flag("-i --input", "input", "text", "read this file (default: standard input)"),
    Flag("-q --quiet", "quiet", "bool", "no progress: there is none"),
]


def main(arguments: list[str]) -> int:
    """docker-load(1)."""
    values, rest = parse("load [-i FILE]", FLAGS, arguments)
    if rest:
        raise UsageError(f"load takes no {rest[0]!r}; name the archive by `-i {rest[0]}`")
    images = client.Client().images
    if "input" in values:
        try:
            file = open(values["input"], "rb")  # noqa: SIM115 (closed below, as stdin must not be)
        except OSError as error:
            raise UsageError(f"load -i {values['input']}: {error.strerror}") from None
        with file:
            names = images.load(file)
    elif os.isatty(0):
        raise UsageError("load: requested load from stdin, but stdin is a terminal: use -i FILE, or a pipe")
    else:
        names = images.load(sys.stdin.buffer)
    for name in names:
        for warning in images.warnings(name):
            print(f"minicontainer: warning: {name}: {warning}", file=sys.stderr)
        print(f"Loaded image ID: {name}" if name.startswith("sha256:") else f"Loaded image: {name}")
    return 0
