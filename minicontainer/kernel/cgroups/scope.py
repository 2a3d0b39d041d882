"""A cgroup that systemd makes: a scope of the container's own (systemd.scope(5), org.freedesktop.systemd1(5)).

What `minicontainer-runtime --systemd-cgroup` asks for, as podman and docker do where systemd owns the tree. There,
cgroupsPath is `slice:prefix:name`, and means the unit `prefix-name.scope` below that slice.

Offers: which unit and cgroup a cgroupsPath means, the plans that start, change and stop it. Callers owe it `check`
first, and a process that is there already: a scope begins with its processes, and ends with the last of them.

systemd writes its own idea of a limit whenever it goes over its units. So it is told each limit that it has a word for;
all of them are then written by v2.py's table, as for a cgroup of our own making. The engine's own containers need none
of this: all of them lie in one service (see `delegate` in __init__.py).
"""

from __future__ import annotations

import os
from collections import deque

from jeepney import DBusAddress, DBusErrorResponse, MatchRule, MessageType, Properties, message_bus, new_method_call
from jeepney.io.blocking import DBusConnection, prep_socket

from ... import errors, host, steps
from ...records import namedtuple
from .. import cgroups
from . import v2

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing: 4 ms of every start
    from typing import Any

    Value = tuple[str, Any]  # a D-Bus variant: its signature and what it holds

BUS = "/run/dbus/system_bus_socket"
PATIENCE = 30  # seconds, for each answer; D-Bus's own callers wait 25

MANAGER = DBusAddress(
    "/org/freedesktop/systemd1", bus_name="org.freedesktop.systemd1", interface="org.freedesktop.systemd1.Manager"
)
REMOVED = MatchRule(type="signal", interface=MANAGER.interface, member="JobRemoved", path=MANAGER.object_path)
FROM_SYSTEMD = MatchRule(sender=MANAGER.bus_name, type="signal", interface=MANAGER.interface, member="JobRemoved")

NO_LIMIT = (1 << 64) - 1


class Scope(namedtuple("Scope", "unit slice path")):
    """The scope's name, the slice's, and the path of its cgroup from the top."""

    unit: str
    slice: str
    path: str


def check() -> None:
    """Raise Unsupported where there is no systemd that could be asked."""
    other = "leave --systemd-cgroup out, and cgroups are made directly"
    if not os.path.isdir(cgroups.SYSTEMD):
        raise errors.Unsupported(f"--systemd-cgroup: systemd is not process 1 here; {other}")
    if cgroups.version() != 2:
        raise errors.Unsupported(f"--systemd-cgroup is supported on cgroup v2, not on v1; {other}")
    if not host.is_root():
        raise errors.Unsupported(
            "--systemd-cgroup: root of the machine alone may ask its systemd; leave it out, and run this inside "
            "`systemd-run --user --scope -p Delegate=yes`"
        )
    if not os.path.exists(BUS):
        raise errors.Unsupported(
            f"--systemd-cgroup: there is no {BUS} to ask systemd by: apt-get install dbus; or {other}"
        )


def meant(path: str, identifier: str) -> Scope:
    """What a cgroupsPath means, by runc's rules and defaults. Raises InvalidArgument, Unsupported."""
    words = path.split(":") if path else ["", "minicontainer", identifier]
    if len(words) != 3 or not words[2]:
        raise errors.InvalidArgument(
            f'expected cgroupsPath to be of format "slice:prefix:name" for systemd cgroups, got "{path}" instead'
        )
    above, prefix, name = words
    above = above or "system.slice"
    if name.endswith(".slice"):
        raise errors.Unsupported(f"linux.cgroupsPath {path!r}: processes lie in a scope, not in a slice itself")
    unit = f"{prefix}-{name}.scope"
    if "/" in unit:
        raise errors.InvalidArgument(f"linux.cgroupsPath {path!r}: a unit's name has no slash")
    return Scope(unit, above, f"{directory(above)}/{unit}")


def directory(name: str) -> str:
    """Where a slice lies: a-b.slice in a.slice, -.slice at the top (systemd.slice(5)). Raises InvalidArgument."""
    words = name.removesuffix(".slice").split("-")
    if name == "-.slice":
        return ""
    if not name.endswith(".slice") or "/" in name or "" in words:
        raise errors.InvalidArgument(f"linux.cgroupsPath: {name!r} is not the name of a slice")
    return "".join(f"/{'-'.join(words[: count + 1])}.slice" for count in range(len(words)))


def properties(resources: dict[str, Any]) -> list[tuple[str, Value]]:
    """Those limits that systemd has a word for, in its words (systemd.resource-control(5)).

    No limit is said, too: systemd would have one on tasks by default, and keeps what it was told before. Raises
    InvalidArgument for a value that the kernel may know, and we cannot tell systemd: `unified` has it as text.
    """
    found: dict[str, Value] = {"TasksMax": ("t", NO_LIMIT)}
    for file, value in v2.writes(resources):
        try:
            if file in NUMBERS:
                found[NUMBERS[file]] = ("t", number(value))
            elif file in SETS:
                found[SETS[file]] = ("ay", bits(value))
            elif file == v2.BFQ:
                found["IOWeight"] = ("t", v2.cost_weight(number(value)))
            elif file == "memory.oom.group":
                found[OOM] = ("s", "kill" if number(value) else "continue")
            elif file == "cpu.max":
                quota, period = (*value.split(), "100000")[:2]
                found["CPUQuotaPeriodUSec"] = ("t", number(period))
                found["CPUQuotaPerSecUSec"] = ("t", NO_LIMIT if quota == "max" else per_second(quota, period))
        except (ValueError, ZeroDivisionError):
            raise errors.InvalidArgument(
                f"{file}: {value!r} cannot be said to systemd, which wants plain numbers, a list of them, or `max`"
            ) from None
    return list(found.items())


NUMBERS = {
    "memory.max": "MemoryMax",
    "memory.high": "MemoryHigh",
    "memory.low": "MemoryLow",
    "memory.min": "MemoryMin",
    "memory.swap.max": "MemorySwapMax",
    "pids.max": "TasksMax",
    "cpu.weight": "CPUWeight",
}
SETS = {"cpuset.cpus": "AllowedCPUs", "cpuset.mems": "AllowedMemoryNodes"}
OOM = "OOMPolicy"  # `continue` unless told, which a reload would write: 0. kubelet asks for 1


MOST_PROCESSORS = 8192  # of a Linux kernel (arch/x86/Kconfig, NR_CPUS); as many memory nodes there are never


def number(text: str) -> int:
    """A number of D-Bus's 64 bits. Raises ValueError."""
    value = NO_LIMIT if text == "max" else int(text)
    if not 0 <= value <= NO_LIMIT:
        raise ValueError(text)
    return value


def per_second(quota: str, period: str) -> int:
    """Microseconds of processor time in a second. systemd counts in whole hundredths: rounded up, as runc does."""
    return -(-number(quota) * 1000000 // number(period) // 10000) * 10000


def bits(text: str) -> bytes:
    """A list of numbers as the kernel writes it (`0-2,7`), as a bit for each: the lowest in the first byte.

    Raises ValueError.
    """
    mask = 0
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        begin, end = int(first), int(last if dash else first)
        if not 0 <= begin <= end < MOST_PROCESSORS:
            raise ValueError(text)
        for one in range(begin, end + 1):
            mask |= 1 << one
    return mask.to_bytes((mask.bit_length() + 7) // 8, "little")


# ---------------------------------------------------------------------------------------------------------------- plans


def start(scope: Scope, pid: steps.Symbol | int, resources: dict[str, Any]) -> steps.Plan:
    """The scope with this process in it, and its limits. Raises Unsupported, Conflict."""
    words = properties(resources)
    yield steps.call(begin, *scope[:2], pid, words, why="systemd owns the tree: it makes the cgroup, and delegates it")
    yield from cgroups.create(scope.path, resources)


def update(scope: Scope, before: dict[str, Any], after: dict[str, Any]) -> steps.Plan:
    """Other limits, in the parts of `after`; the other parts stay. Raises as `start` does."""
    words = properties({**before, **after})
    changes = cgroups.update(scope.path, before, after)
    yield steps.call(change, scope.unit, words, why="else systemd would put the old ones back")
    yield from changes


def remove(scope: Scope) -> steps.Plan:
    """The scope is gone afterwards, with whatever ran in it. As often as one likes."""
    [directory] = cgroups.directories(scope.path, {})
    yield steps.call(cgroups.empty, (directory,), why="systemd would ask first, and wait a minute and a half")
    yield steps.call(stop, scope.unit, scope.path, why="systemd made it, and takes it away")
    yield steps.rmdir(directory, why="the container's limits and counters end with it")


# ------------------------------------------------------------------------------------------------------ what they call


def begin(unit: str, above: str, pid: int, limits: list[tuple[str, Value]]) -> None:
    """StartTransientUnit, and wait until it is there. Raises Conflict if a unit of that name is there already."""
    asked = [
        ("Description", ("s", f"minicontainer: {unit}")),
        ("Slice", ("s", above)),
        ("PIDs", ("au", [pid])),
        ("Delegate", ("b", True)),  # what lies below is ours
        *((f"{what}Accounting", ("b", True)) for what in ("CPU", "Memory", "Tasks", "IO")),  # systemd-cgtop, status
        ("DefaultDependencies", ("b", False)),
        ("CollectMode", ("s", "inactive-or-failed")),  # out of memory is a failure: its name shall not stay taken
        *limits,
    ]
    with Conversation() as systemd:
        systemd.job("StartTransientUnit", "ssa(sv)a(sa(sv))", (unit, "replace", asked, []))


def change(unit: str, limits: list[tuple[str, Value]]) -> None:
    """SetUnitProperties, until the next boot. What systemd does when memory is out was said when the scope began."""
    changeable = [(name, value) for name, value in limits if name != OOM]
    with Conversation() as systemd:
        systemd.call("SetUnitProperties", "sba(sv)", (unit, True, changeable))


def stop(unit: str, path: str) -> None:
    """StopUnit, and wait until it is gone; nothing happens if it is, or if that name means another cgroup."""
    with Conversation() as systemd:
        if systemd.cgroup(unit) == path:
            try:
                systemd.job("StopUnit", "ss", (unit, "replace"))
            except errors.NotFound:
                pass  # it has just gone, for it was empty


class Conversation:
    """A connection to systemd by the machine's bus. Raises Unsupported if there is none."""

    def __enter__(self) -> Conversation:
        try:
            self.connection = DBusConnection(prep_socket(BUS, timeout=PATIENCE))
        except (OSError, ValueError, DBusErrorResponse) as error:  # a ValueError: we are nobody to it
            raise errors.Unsupported(f"systemd cannot be asked for a scope: {BUS}: {error}") from None
        self.answer(message_bus.AddMatch(FROM_SYSTEMD))
        self.call("Subscribe", "", ())
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def answer(self, message: Any) -> tuple[Any, ...]:
        """Send a message. What comes back; raises DBusErrorResponse."""
        reply = self.connection.send_and_get_reply(message, timeout=PATIENCE)
        if reply.header.message_type == MessageType.error:
            raise DBusErrorResponse(reply)
        return reply.body  # type: ignore[no-any-return]

    def call(self, method: str, signature: str, body: tuple[Any, ...]) -> tuple[Any, ...]:
        """One of the manager's methods. Raises Conflict for a name that is taken, NotFound, Unsupported."""
        try:
            return self.answer(new_method_call(MANAGER, method, signature or None, body))
        except DBusErrorResponse as error:
            text = f"systemd refuses {body[0] if body else method}: {' '.join(map(str, error.data)) or error.name}"
            if error.name == f"{MANAGER.bus_name}.UnitExists":
                raise errors.Conflict(text) from None
            if error.name == f"{MANAGER.bus_name}.NoSuchUnit":
                raise errors.NotFound(text) from None
            raise errors.Unsupported(text) from None
        except TimeoutError:
            raise errors.Unsupported(f"systemd has not answered {method} for {PATIENCE} s") from None

    def job(self, method: str, signature: str, body: tuple[Any, ...]) -> None:
        """A method whose work goes on after its answer: until it is done. Raises Unsupported if it fails."""
        with self.connection.filter(REMOVED, queue=deque()) as ended:
            [job] = self.call(method, signature, body)
            try:
                while True:
                    _, path, unit, result = self.connection.recv_until_filtered(ended, timeout=PATIENCE).body
                    if path == job:
                        break
            except TimeoutError:
                raise errors.Unsupported(f"systemd has not done {method} of {body[0]} in {PATIENCE} s") from None
        if result != "done":
            raise errors.Unsupported(f"systemd did not do {method} of {unit}: {result}; see journalctl -u {unit}")

    def cgroup(self, unit: str) -> str:
        """The path of a unit's cgroup; empty if there is no such unit, or it has none."""
        try:
            [path] = self.answer(new_method_call(MANAGER, "GetUnit", "s", (unit,)))
            scope = DBusAddress(path, bus_name=MANAGER.bus_name, interface="org.freedesktop.systemd1.Scope")
            [[_, found]] = self.answer(Properties(scope).get("ControlGroup"))
        except DBusErrorResponse:
            return ""
        return str(found)
