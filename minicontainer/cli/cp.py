"""`cp`: files between a container and the host, whether the container runs or not."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

from .. import errors, files
from ..engine import client
from .flags import Flag, parse

FLAGS = [
    Flag("-a --archive", "archive", "bool", "keep the files' owners"),
    Flag("-L --follow-link", "follow", "bool", "copy what SOURCE is a link to"),
    Flag("-q --quiet", "quiet", "bool", "accepted for docker's sake: nothing is said here"),
]


def main(arguments: list[str]) -> int:
    """docker-cp(1)."""
    usage = "cp [FLAGS] CONTAINER:SOURCE DESTINATION|-, or SOURCE|- CONTAINER:DESTINATION"
    values, words = parse(usage, FLAGS, arguments)
    if len(words) != 2:
        raise errors.InvalidArgument('"minicontainer cp" needs a source and a destination, one of them in a container')
    (source_container, source), (container, destination) = map(split, words)
    if source_container and container:
        raise errors.InvalidArgument("copying between containers is not supported")
    if not source_container and not container:
        raise errors.InvalidArgument("must specify at least one container source")
    from ..engine import copying

    engine = client.Client().containers
    record = engine.find(source_container or container)
    follow, archive = values["follow"], values["archive"]
    if source_container and destination == "-":
        if os.isatty(1):
            raise errors.InvalidArgument("refusing to write an archive to a terminal: redirect it")
        sys.stdout.flush()
        for chunk in copying.read(engine, record, source, follow)[0]:
            files.write_all(1, chunk)
    elif source_container:
        copying.copy_out(engine, record, source, destination, follow, archive)
    elif source == "-":
        try:
            copying.write(engine, record, destination, standard_input(), archive)
        except (errors.NotFound, errors.InvalidArgument) as error:
            if isinstance(error, errors.ContainerNotFound):
                raise
            raise errors.InvalidArgument(f'destination "{words[1]}" must be a directory') from None
    else:
        copying.copy_in(engine, record, source, destination, follow, archive)
    return 0


def split(word: str) -> tuple[str, str]:
    """`web:/etc` as container and path; a path of the host's begins with `/` or `.`, or has no colon."""
    if word.startswith(("/", ".")) or ":" not in word:
        return "", word
    container, _, path = word.partition(":")
    return container, path


def standard_input() -> Iterator[bytes]:
    """Our standard input, in chunks."""
    while chunk := os.read(0, 1 << 16):
        yield chunk
