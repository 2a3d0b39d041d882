"""`update`: other limits for containers, those that run among them, and another restart policy."""

from __future__ import annotations

from .. import errors
from . import UsageError, run
from .each import each
from .flags import parse

CHANGED = (
    "cpus", "cpu_shares", "cpu_quota", "cpu_period", "cpuset_cpus", "cpuset_mems", "mem_limit", "mem_reservation",
    "memswap_limit", "pids_limit", "restart",
)  # fmt: skip
FLAGS = [flag for flag in run.FLAGS if flag.name in CHANGED]


def main(arguments: list[str]) -> int:
    """docker-update(1)."""
    values, names = parse("update [FLAGS] CONTAINER …", FLAGS, arguments)
    if not names:
        raise UsageError('"minicontainer update" needs a container; `minicontainer ps -a` lists them')
    if not values:
        raise errors.InvalidArgument("you must provide one or more flags when using this command")
    options = run.limits(values)
    if "restart" in options:
        options["restart_policy"] = run.restart_policy(options.pop("restart"))
    return each("update", names, lambda container: container.update(**options))
