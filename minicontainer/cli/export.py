"""`export`: a container's files as a tar archive."""

from .. import errors
from ..engine import client
from . import output
from .flags import Flag, parse

FLAGS = [Flag("-o --output", "output", "text", "a file to write to, in place of standard output")]


def main(arguments: list[str]) -> int:
    """docker-export(1)."""
    values, names = parse("export CONTAINER", FLAGS, arguments)
    if len(names) != 1:
        raise errors.InvalidArgument('"minicontainer export" needs one container; `minicontainer ps -a` lists them')
    container = client.Client().containers.get(names[0])
    output.write(values.get("output"), container.export())
    return 0
