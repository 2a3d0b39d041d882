"""`rm`: remove containers that do not run. `--explain` prints the plan: the one that cleans up after a crash."""

import sys

from .. import errors
from ..engine import client
from . import UsageError
from .flags import Flag, Help, parse

FLAGS = [
    Flag("--explain", "explain", "bool", "print the steps that would be taken, and take none"),
    Flag("-v --volumes", "volumes", "bool", "its anonymous volumes, too"),
]


def main(arguments: list[str]) -> int:
    """docker-rm(1)."""
    try:
        values, names = parse("rm CONTAINER …", FLAGS, arguments)
    except Help as help:
        print(help)
        return 0
    if not names:
        raise UsageError('"minicontainer rm" needs a container; `minicontainer ps -a` lists them')
    containers = client.Client().containers
    code = 0
    for name in names:
        try:
            if values["explain"]:
                from ..teach import explain

                record = containers.get(name)
                print(explain.text(containers.teardown(record, remove=True, volumes_too=values["volumes"])))
            else:
                containers.remove(name, values["volumes"])
                print(name)
        except errors.MiniContainerError as error:
            print(f"minicontainer: {error}", file=sys.stderr)
            code = 1
    return code
