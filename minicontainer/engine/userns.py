"""`--userns auto`: which ids of the machine stand behind a container's ids (user_namespaces(7)).

    /var/lib/minicontainer-ids/<first>-<count>
        a link to who has these ids, from the container's creation until its removal: PATH:PID:START_TIME, the
        container's directory and who has planned it; of no ids: who is shown the place in a mount of his own

All stores of a machine lease from that one place: their containers share no id either.

On disk nothing is shifted: layers, the container's changes and volumes have the ids of the image's view, and are
mounted in a way that translates (kernel/idmap.py). So what is committed or copied is as of any other container.
"""

from __future__ import annotations

import os

from .. import errors, files, host, syscalls
from ..kernel import idmap
from ..runtime import state

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing: 4 ms of every start
    from typing import Any

NAME = "containers"  # whose line in /etc/subuid and /etc/subgid says which ids there are to give, as with podman
# Where it has none: (first, count). systemd, whose UIDS-GIDS.md says who has which, knows nobody there; and above 2^31
# ps(1) shows a negative number.
OWN = (0x70000000, 1 << 28)
PLACE = "/var/lib/minicontainer-ids"
COUNT = 65536  # for one container, unless it asks for another size: nobody (65534) is in it

# The ids that an overlay and `cp` use when the machine's root itself makes a file in a mount that translates: nobody's
# in the container, and on disk a number that no file of an image has. (inside, outside, count)
ROOT = (0xFFFFFFFE, 0, 1)


def count_of(mode: str) -> int:
    """How many ids `--userns` asks for; 0: no user namespace. Raises InvalidArgument, Unsupported."""
    kind, _, rest = mode.partition(":")
    if mode in ("", "host"):
        return 0
    if kind != "auto":
        raise errors.Unsupported(f"--userns {mode}: auto, auto:size=N and host are supported")
    count = COUNT
    for word in rest.split(",") if rest else ():
        key, _, value = word.partition("=")
        if key != "size":
            raise errors.Unsupported(f"--userns {mode}: of its options, size=N is supported")
        if not value.isdecimal() or not 1 <= int(value) <= 1 << 24:
            raise errors.InvalidArgument(f"--userns {mode}: size is a number of ids, from 1 to {1 << 24}")
        count = int(value)
    return count


def check(options: dict[str, Any]) -> int:
    """`count_of` of a container's options, with what goes not together. Raises InvalidArgument, Unsupported."""
    count = count_of(options["userns_mode"])
    if not count:
        return 0
    if not host.is_root():
        raise errors.Unsupported("--userns auto is for root of the machine: this process is in a user namespace")
    for flag, key in (("network", "network_mode"), ("pid", "pid_mode"), ("ipc", "ipc_mode"), ("uts", "uts_mode")):
        if options[key].startswith("container:"):
            raise errors.Unsupported(
                f"--userns auto conflicts with --{flag} {options[key]}: that container's namespace belongs to another "
                "user namespace"
            )
    return count


def kept() -> list[tuple[int, int]]:
    """The (first, count) of the ids that there are to give: where /etc/subuid and /etc/subgid agree."""
    uids, gids = (idmap.ranges(idmap.text_of(path), NAME, -1) for path in ("/etc/subuid", "/etc/subgid"))
    if not uids and not gids:
        return [OWN]
    found = []
    for first, count in uids:
        for other, many in gids:
            begin, end = max(first, other), min(first + count, other + many, ROOT[0])
            if begin < end:
                found.append((begin, end - begin))
    return sorted(found)


def obstacle(directory: str) -> str:
    """Why a container with its layers in `directory` cannot have ids of its own here; empty if it can. Tried."""
    if not host.is_root():
        return "--userns auto is for root of the machine"
    from ..kernel import overlay

    return overlay.translated_obstacle(directory, translation(OWN[0], COUNT))


def take(root: str, identifier: str, count: int, dry: bool = False) -> int:
    """Lease `count` ids that no other container of the machine has; `dry`: only say which. Returns the first.

    Raises Unsupported where so many are not free.
    """
    with Locked():
        sweep()
        first = free(kept(), sorted((begin, end) for begin, end, _ in taken()), count)
        if not dry:
            note(f"{first}-{count}", directory(root, identifier))
    return first


def confirm(root: str, identifier: str, first: int, count: int) -> None:
    """As it starts: the ids that a container was created with are its own, still, or again.

    A store that others could not see meanwhile (its disk was elsewhere) has lost its leases. Raises Conflict where
    another container has got them since.
    """
    lease, ours = f"{first}-{count}", directory(root, identifier)
    with Locked():
        if leases().get(lease, "").rsplit(":", 2)[0] == ours:
            return
        sweep()
        for begin, end, holder in taken():
            if begin < first + count and first < end:
                raise errors.Conflict(
                    f"the ids of container {identifier[:12]} (from {first} on) have been given to another one, "
                    f"{holder}, while this store was not to be seen: commit it, and run its image"
                )
        note(lease, ours)


class Locked:
    """`with Locked():` the place is there, and nobody else's; `clear` may be removing it.

    Raises Conflict where it was removed, and a mount still shows it here.
    """

    def __enter__(self) -> None:
        for _ in range(100):
            files.make_directory(PLACE, 0o700)
            try:
                self.lock = files.lock(PLACE, make=False)
            except FileNotFoundError:
                continue
            if os.fstat(self.lock).st_nlink:
                return
            os.close(self.lock)
        raise errors.Conflict(f"{PLACE} was removed by `system reset`, and is still mounted here: start this anew")

    def __exit__(self, *error: object) -> None:
        os.close(self.lock)


def keep(directory: str) -> None:
    """The place stays as long as that directory or this process: a mount is to show it to those inside of one."""
    with Locked():
        sweep()
        files.unlink(f"{PLACE}/{os.getpid()}-0")  # of somebody who had this pid before
        note(f"{os.getpid()}-0", directory)


def note(name: str, directory: str) -> None:
    """The link: whose the ids are, and who has planned it."""
    os.symlink(f"{directory}:{os.getpid()}:{state.start_time(os.getpid())}", f"{PLACE}/{name}")


def sweep() -> None:
    """What nobody has any more is free again. Who is shown the place by a mount does not see all whose it is."""
    if syscalls.is_mounted(PLACE):
        return
    for name, holder in leases().items():
        if stale(holder) and not in_use(*map(int, name.split("-"))):
            files.unlink(f"{PLACE}/{name}")


def clear() -> None:
    """The place is gone, if no store of the machine has ids; where it is only shown, by a mount, it stays."""
    if os.path.isdir(PLACE):
        with Locked():
            sweep()
            if not leases() and not syscalls.is_mounted(PLACE):
                files.remove_directory(PLACE)


def directory(root: str, identifier: str) -> str:
    """A container's, which says whose a lease is."""
    return f"{root}/containers/{identifier}"


def free(ranges: list[tuple[int, int]], taken: list[tuple[int, int]], count: int) -> int:
    """The first of `count` ids in one of the ranges, beside what is taken: (begin, end), sorted. Raises Unsupported."""
    for first, many in ranges:
        at = first
        for begin, end in taken:
            if at + count <= begin:
                break
            at = max(at, end)
        if at + count <= first + many:
            return at
    raise errors.Unsupported(
        f"no {count} ids in a row are free for --userns auto: remove containers (rm), ask for fewer (auto:size=N), or "
        f"give the user {NAME!r} more in /etc/subuid and /etc/subgid"
    )


def leases() -> dict[str, str]:
    """Who has which ids: {"FIRST-COUNT": "PATH:PID:START_TIME"}."""
    try:
        names = [name for name in os.listdir(PLACE) if name.replace("-", "").isdecimal()]
    except FileNotFoundError:
        return {}
    return {name: os.readlink(f"{PLACE}/{name}") for name in names}


def taken() -> list[tuple[int, int, str]]:
    """The ids that somebody has: (first, behind the last, whose directory)."""
    found = []
    for name, holder in leases().items():
        first, count = map(int, name.split("-"))
        if count:
            found.append((first, first + count, holder.rsplit(":", 2)[0]))
    return found


def in_use(first: int, count: int) -> bool:
    """Whether a process has one of these ids: its container may lie where we cannot see it, and run."""
    for pid in os.listdir("/proc"):
        if pid.isdecimal():
            try:
                status = files.read(f"/proc/{pid}/status")
            except (FileNotFoundError, ProcessLookupError):
                continue  # it has ended
            [line] = [line for line in status.splitlines() if line.startswith(b"Uid:")]
            if any(first <= int(uid) < first + count for uid in line.split()[1:]):
                return True
    return False


def stale(holder: str) -> bool:
    """Whether there is no such container (any more, or its store), nor somebody who is about to make it."""
    path, pid, began = holder.rsplit(":", 2)
    return not os.path.isdir(path) and not state.alive(int(pid), int(began))


def give_back(root: str, identifier: str) -> None:
    """The container's ids are free again."""
    if not os.path.isdir(PLACE):
        return
    with Locked():
        for name, holder in leases().items():
            if holder.rsplit(":", 2)[0] == directory(root, identifier):
                files.unlink(f"{PLACE}/{name}")


def lines(first: int, count: int) -> list[dict[str, int]]:
    """The spec's uidMappings and gidMappings."""
    return [{"containerID": 0, "hostID": first, "size": count}]


def translation(first: int, count: int) -> idmap.Maps:
    """The same for mounts: from what the disk has to what is seen."""
    both = (idmap.Range(0, first, count), idmap.Range(*ROOT))
    return idmap.Maps(both, both, False)


def translated(mount: dict[str, Any], first: int, count: int) -> dict[str, Any]:
    """A mount of the spec's, with that translation."""
    maps = [dict(zip(("containerID", "hostID", "size"), line, strict=True)) for line in translation(first, count).uids]
    return {**mount, "options": [*mount["options"], "idmap"], "uidMappings": maps, "gidMappings": maps}


def inside(ids: tuple[int, int], number: int) -> int:
    """What an id of the machine is in a container that has these; nobody (65534), if it is none of them."""
    first, count = ids
    return number - first if first <= number < first + count else 65534


def outside(ids: tuple[int, int], number: int) -> int:
    """What an id of such a container's is on the machine. Raises InvalidArgument for one that it has not."""
    first, count = ids
    if number >= count:
        raise errors.InvalidArgument(f"id {number} is none of the {count} that the container has (--userns)")
    return first + number
