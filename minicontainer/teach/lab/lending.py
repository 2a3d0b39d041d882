"""A cgroup lent to a lab's rooms: who is root in there may make cgroups below it, and set their limits.

    lent.version                        1 or 2
    lent.groups                         {"cpu": directory, "memory": …, "pids": …}; on v2 three times the same one
    lent.shown                          the same as the room sees it
    lent.admit(pid, view)               a room's process moves in where that takes rights outside (v2)
    lent.clear()                        nothing below it any more, whatever ran there

Made by who makes the rooms: root, or an ordinary user whose own cgroup is delegated (v2, systemd). It has bounds of its
own: who moves out of a container's cgroup into this one has not escaped. cgroups(7), "Cgroups delegation".
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable

from ... import files, steps
from ...kernel import cgroups

CONTROLLERS = ("cpu", "memory", "pids")
BOUNDS = {
    "cpu": {"quota": 100_000, "period": 100_000},
    "memory": {"limit": 512 << 20},
    "pids": {"limit": 200},
}
OWNED = ("cgroup.procs", "tasks", "cgroup.threads", "cgroup.subtree_control")
START = "start"  # v2: where a room's process is first, for an inner cgroup holds none


def obstacle() -> str:
    """Why no cgroup can be lent here, with the mend; empty if one can."""
    return cgroups.obstacle()


class Lent:
    """A lent cgroup; its rooms' processes are those of the user `uid`, who finds it at the same place, or `below`."""

    def __init__(self, uid: int, below: str = "") -> None:
        self.version = cgroups.version()
        self.path = f"{cgroups.parent('minicontainer-labs')}/{secrets.token_hex(6)}"
        steps.execute(cgroups.create(self.path, BOUNDS), {})
        mounts = cgroups.detect().mounts
        self.groups = {name: mounts[name if self.version == 1 else ""] + self.path for name in CONTROLLERS}
        self.binds = {path: f"{below}/{name}" if below else path for name, path in self.groups.items()}
        self.shown = {name: self.binds[path] for name, path in self.groups.items()}
        if self.version == 2:
            os.mkdir(f"{self.groups['cpu']}/{START}")
        for directory in (*self.binds, *(f"{path}/{START}" for path in self.binds if self.version == 2)):
            for path in (directory, *(f"{directory}/{name}" for name in OWNED)):
                if os.path.exists(path):
                    os.chown(path, uid, uid if uid != os.geteuid() else -1)

    def admit(self, pid: int, view: Callable[[], object]) -> None:
        """Nothing on v1, where a process may go wherever it may write. On v2 it must come from below (cgroups(7)).

        And its cgroup namespace must begin here, which `view` has it make: with nsdelegate, systemd's way to mount
        cgroup2, nobody moves anything beyond the root of its namespace (ENOENT).
        """
        if self.version == 2:
            files.put(f"{self.groups['cpu']}/cgroup.procs", str(pid))
            view()
            files.put(f"{self.groups['cpu']}/{START}/cgroup.procs", str(pid))

    def clear(self) -> None:
        """Remove every cgroup below this one, but for `start`; what runs in them is killed."""
        for directory in self.binds:
            for name in sorted(os.listdir(directory)):
                if os.path.isdir(f"{directory}/{name}") and (self.version == 1 or name != START):
                    end(f"{directory}/{name}")
            if self.version == 2:  # what hands controllers down holds no processes, and the next room's is to be here
                handed = files.read(f"{directory}/cgroup.subtree_control").decode().split()
                files.put(f"{directory}/cgroup.subtree_control", " ".join(f"-{name}" for name in handed))

    def close(self) -> None:
        """The cgroup is gone afterwards, and its parent, if nobody else has one in there."""
        self.clear()
        steps.execute(cgroups.remove(self.path), {})
        parent = os.path.dirname(self.path)
        for directory in {point + parent for point in cgroups.detect().mounts.values()}:
            with contextlib.suppress(OSError):  # EBUSY: somebody else's is in there; ENOENT: no such hierarchy
                os.rmdir(directory)


def end(directory: str) -> None:
    """A cgroup and all below it: killed, waited for, removed."""
    cgroups.empty((directory,))
    os.rmdir(directory)
