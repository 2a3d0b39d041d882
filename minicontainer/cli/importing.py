"""`import`: an image of one layer, from the tar of a root file system, such as `export` writes."""

from __future__ import annotations

import os
import sys

from .. import errors
from ..engine import client
from .flags import Flag, parse

FLAGS = [
    Flag("-c --change", "changes", "list", "a Dockerfile's CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, USER, VOLUME, WORKDIR"),
    Flag("-m --message", "message", "text", "what it is"),
    Flag("--platform", "platform", "text", "OS/ARCHITECTURE, where it is not this machine's"),
]


def main(arguments: list[str]) -> int:
    """docker-import(1)."""
    values, words = parse("import FILE|- [REPOSITORY[:TAG]]", FLAGS, arguments)
    if not 1 <= len(words) <= 2:
        raise errors.InvalidArgument(
            '"minicontainer import" needs a file, or - for standard input, and may have a name'
        )
    if "://" in words[0]:
        raise errors.InvalidArgument(f"import fetches nothing: curl -L {words[0]} | minicontainer import -")
    if words[0] == "-" and os.isatty(0):
        raise errors.InvalidArgument("import: standard input is a terminal: name a file, or use a pipe")
    try:
        file = sys.stdin.buffer if words[0] == "-" else open(words[0], "rb")  # noqa: SIM115 - closed below
    except OSError as error:
        raise errors.InvalidArgument(f"import {words[0]}: {error.strerror}") from None
    with file:
        image = client.Client().images.from_tar(
            file, "".join(words[1:]), values.get("message", ""), values["changes"], values.get("platform", "")
        )
    print(image.id)
    return 0
