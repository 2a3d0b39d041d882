"""`rm`: remove containers; with `-f`, running ones too. `--explain` prints the plan, also that of a clean-up."""

import sys

from .. import errors
from ..engine import client
from . import UsageError
from .flags import Flag, parse

FLAGS = [
    Flag("--explain", "explain", "bool", "print the steps that would be taken, and take none"),
    Flag("-f --force", "force", "bool", "kill those that run"),
    Flag("-v --volumes", "volumes", "bool", "its anonymous volumes, too"),
]


def main(arguments: list[str]) -> int:
    """docker-rm(1)."""
    values, names = parse("rm CONTAINER …", FLAGS, arguments)
    if not names:
        raise UsageError('"minicontainer rm" needs a container; `minicontainer ps -a` lists them')
    containers = client.Client().containers
    code = 0
    for name in names:
        try:
            if values["explain"]:
                from ..teach import explain

                record = containers.find(name)
                print(explain.text(containers.teardown(record, remove=True, volumes_too=values["volumes"])))
                continue
            if values["force"]:
                containers.get(name).remove(values["volumes"], force=True)
            else:
                containers.remove(name, values["volumes"])
            print(name)
        except errors.MiniContainerError as error:
            print(f"minicontainer: {error}", file=sys.stderr)
            code = 0 if values["force"] and isinstance(error, errors.ContainerNotFound) else 1
    return code
