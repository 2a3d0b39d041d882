"""`system`: the store as a whole."""

import sys

from .. import host
from ..engine import system
from . import UsageError
from .flags import Flag, parse

FLAGS = {
    "df": [
        Flag("-v --verbose", "verbose", "bool", "each image, container and volume"),
        Flag("--format", "format", "text", "json, table TEMPLATE or TEMPLATE: '{{.Type}} {{.Reclaimable}}'"),
    ],
    "prune": [
        Flag("-a --all", "all", "bool", "also images with a name that no container uses"),
        Flag("--volumes", "volumes", "bool", "also anonymous volumes that no container mounts"),
        Flag("-f --force", "force", "bool", "do not ask"),
        Flag("--filter", "filters", "list", "until=24h, label=NAME[=VALUE], label!=NAME[=VALUE]"),
    ],
    "check": [Flag("--repair", "repair", "bool", "mend what is found")],
    "start": [],
    "enable": [],
    "disable": [],
    "reset": [Flag("-f --force", "force", "bool", "do not ask")],
}

USAGE = (
    "system df [-v] | system prune [-a] [--volumes] [-f] | system check [--repair] | system start | "
    "system enable | system disable | system reset [-f]"
)


def main(arguments: list[str]) -> int:
    """system df | prune | check [--repair] | start | enable | disable | reset [-f]"""
    verb = arguments[0] if arguments else ""
    if verb in ("-h", "--help"):
        print(USAGE)
        return 0
    if verb not in FLAGS:
        raise UsageError(USAGE)
    values, rest = parse(f"system {verb}", FLAGS[verb], arguments[1:])
    if rest:
        raise UsageError(f"system {verb} takes no {rest[0]!r}")
    if verb == "df":
        from . import df

        return df.main(values)
    if verb == "prune":
        from . import pruning

        return pruning.system(values)
    store = system.System(host.root())
    if verb == "reset":
        return reset(store, values["force"])
    if verb == "start":
        return start(store)
    if verb == "enable":
        print(f"{store.enable()}: starts containers with --restart always or unless-stopped at each boot")
        return 0
    if verb == "disable":
        store.disable()
        return 0
    problems = store.check(values["repair"])
    for problem in problems:
        print(problem + (": mended" if values["repair"] else ""))
    if problems and not values["repair"]:
        print(f"{len(problems)} found; `minicontainer system check --repair` mends them", file=sys.stderr)
        return 1
    if not problems:
        print("nothing is wrong")
    return 0


def start(store: system.System) -> int:
    """What the unit runs at boot."""
    began, failed = store.start()
    for name in began:
        print(name)
    for sentence in failed:
        print(f"minicontainer: {sentence}", file=sys.stderr)
    return 1 if failed else 0


def reset(store: system.System, force: bool) -> int:
    """Ask, then take everything away."""
    if not force:
        if not sys.stdin.isatty():
            raise UsageError(
                "system reset removes all containers, images and volumes: say `-f`, or type it in a terminal"
            )
        print(f"This removes all containers, images and volumes in {store.root}, the bridge and the firewall's table.")
        if input("Go on? [y/N] ").strip().lower() not in ("y", "yes"):
            return 1
    store.reset()
    return 0
