"""`volume`: directories that outlive containers."""

import json
import sys

from .. import errors
from ..engine import client
from . import UsageError, table
from .flags import Flag, parse

FLAGS = {
    "create": [
        Flag("--label", "labels", "list", "NAME=VALUE"),
        Flag("-d --driver", "driver", "text", "local, the only one"),
    ],
    "ls": [Flag("-q --quiet", "quiet", "bool", "names only")],
    "inspect": [],
    "rm": [],
}

USAGE = "volume create | ls | inspect | rm"


def main(arguments: list[str]) -> int:
    """docker-volume(1)."""
    verb = {"list": "ls", "remove": "rm"}.get(arguments[0], arguments[0]) if arguments else ""
    if verb in ("-h", "--help"):
        print(USAGE)
        return 0
    if verb not in FLAGS:
        raise UsageError(USAGE)
    values, names = parse(f"volume {verb}", FLAGS[verb], arguments[1:])
    engine = client.Client()
    volumes = engine.volumes
    if verb == "create":
        if values.get("driver", "local") != "local":
            raise UsageError(f"there is no volume driver {values['driver']!r}: local is the only one")
        labels = dict(text.partition("=")[::2] for text in values["labels"])
        print(volumes.create(names[0] if names else "", labels))
        return 0
    if verb == "ls":
        found = volumes.list()
        if values["quiet"]:
            print("\n".join(found), end="\n" if found else "")
        else:
            print(table.show(["DRIVER", "VOLUME NAME"], [["local", name] for name in found]))
        return 0
    if not names:
        raise UsageError(f"volume {verb} needs a name; `minicontainer volume ls` lists them")
    if verb == "inspect":
        print(json.dumps([volumes.inspect(name) for name in names], indent=4))
        return 0
    code = 0
    for name in names:
        try:
            volumes.remove(name, engine.containers.using_volume(name))
            print(name)
        except errors.MiniContainerError as error:
            print(f"minicontainer: {error}", file=sys.stderr)
            code = 1
    return code
