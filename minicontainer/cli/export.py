"""`export`: a container's files as a tar archive."""

import os
import sys

from .. import errors, files
from ..engine import client
from .flags import Flag, parse

FLAGS = [Flag("-o --output", "output", "text", "a file to write to, in place of standard output")]


def main(arguments: list[str]) -> int:
    """docker-export(1)."""
    values, names = parse("export CONTAINER", FLAGS, arguments)
    if len(names) != 1:
        raise errors.InvalidArgument('"minicontainer export" needs one container; `minicontainer ps -a` lists them')
    container = client.Client().containers.get(names[0])
    output = values.get("output")
    if output is None:
        if os.isatty(1):
            raise errors.InvalidArgument("cowardly refusing to save to a terminal. Use the -o flag or redirect")
        sys.stdout.flush()
        for chunk in container.export():
            files.write_all(1, chunk)
        return 0
    # Under another name until it is whole: an archive that is cut off looks like one.
    temporary = f"{output}.tmp-{os.getpid()}"
    try:
        with open(temporary, "xb", buffering=0) as file:
            for chunk in container.export():
                files.write_all(file.fileno(), chunk)
        os.rename(temporary, output)
    except BaseException:
        files.unlink(temporary)
        raise
    return 0
