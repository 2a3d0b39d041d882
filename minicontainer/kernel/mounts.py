"""Mounts inside a container's root: bind mounts, volumes, tmpfs, /proc and its kin.

Input is the OCI spec's `mounts`: {"destination", "type", "source", "options"}. A destination belongs to the image,
which may have put a symbolic link there: it is resolved inside the new root (openat2), and the mount is made on the
descriptor that came out, so no later rename can move it (CVE-2021-30465 was that race).
"""

from __future__ import annotations

import errno
import os
import stat

from .. import errors, files, host, steps, syscalls
from ..records import namedtuple
from . import cgroups, namespaces

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing: 4 ms of every start
    from collections.abc import Iterator
    from typing import Any

# mount(8)'s words: (bits to set, bits to clear).
FLAGS: dict[str, tuple[int, int]] = {
    "defaults": (0, 0),
    "ro": (syscalls.MS_RDONLY, 0),
    "rw": (0, syscalls.MS_RDONLY),
    "nosuid": (syscalls.MS_NOSUID, 0),
    "suid": (0, syscalls.MS_NOSUID),
    "nodev": (syscalls.MS_NODEV, 0),
    "dev": (0, syscalls.MS_NODEV),
    "noexec": (syscalls.MS_NOEXEC, 0),
    "exec": (0, syscalls.MS_NOEXEC),
    "noatime": (syscalls.MS_NOATIME, 0),
    "atime": (0, syscalls.MS_NOATIME),
    "nodiratime": (syscalls.MS_NODIRATIME, 0),
    "diratime": (0, syscalls.MS_NODIRATIME),
    "relatime": (syscalls.MS_RELATIME, 0),
    "norelatime": (0, syscalls.MS_RELATIME),
    "strictatime": (syscalls.MS_STRICTATIME, 0),
    "nostrictatime": (0, syscalls.MS_STRICTATIME),
    "lazytime": (syscalls.MS_LAZYTIME, 0),
    "nolazytime": (0, syscalls.MS_LAZYTIME),
    "sync": (syscalls.MS_SYNCHRONOUS, 0),
    "async": (0, syscalls.MS_SYNCHRONOUS),
    "dirsync": (syscalls.MS_DIRSYNC, 0),
    "nosymfollow": (syscalls.MS_NOSYMFOLLOW, 0),
    "symfollow": (0, syscalls.MS_NOSYMFOLLOW),
    "bind": (syscalls.MS_BIND, 0),
    "rbind": (syscalls.MS_BIND | syscalls.MS_REC, 0),
}

PROPAGATION = {
    "private": syscalls.MS_PRIVATE,
    "rprivate": syscalls.MS_PRIVATE | syscalls.MS_REC,
    "slave": syscalls.MS_SLAVE,
    "rslave": syscalls.MS_SLAVE | syscalls.MS_REC,
    "shared": syscalls.MS_SHARED,
    "rshared": syscalls.MS_SHARED | syscalls.MS_REC,
    "unbindable": syscalls.MS_UNBINDABLE,
    "runbindable": syscalls.MS_UNBINDABLE | syscalls.MS_REC,
}


# The same of a mount and all below it, by mount_setattr(2)'s attributes (linux/mount.h). Of the times, ATIME covers all
# three kinds: whoever sets one clears the others first.
ATIME, NOATIME, STRICTATIME = 0x70, 0x10, 0x20
RECURSIVE: dict[str, tuple[int, int]] = {
    "rro": (1, 0),
    "rrw": (0, 1),
    "rnosuid": (2, 0),
    "rsuid": (0, 2),
    "rnodev": (4, 0),
    "rdev": (0, 4),
    "rnoexec": (8, 0),
    "rexec": (0, 8),
    "rrelatime": (0, ATIME),
    "rnoatime": (NOATIME, ATIME),
    "rstrictatime": (STRICTATIME, ATIME),
    "rnodiratime": (0x80, 0),
    "rdiratime": (0, 0x80),
    "rnosymfollow": (0x200000, 0),
    "rsymfollow": (0, 0x200000),
}


# What engines and fstab(5) leave on a bind mount beside these: it was for themselves, or changes nothing of one. (mode=
# and size= are tmpfs's; runtime-tools' validation suite has one of them on a bind mount.)
IDLE = frozenset(
    "copy nocopy z Z U O consistent cached delegated silent loud mand nomand acl noacl iversion noiversion remount "
    "auto noauto user nouser users owner group nofail _netdev".split()
)
IDLE_PREFIXES = ("x-", "X-", "comment=", "consistency=", "mode=", "size=")

# Ids are translated in the mount, or in all below it, too (idmap.py).
TRANSLATED = ("idmap", "ridmap")


class Options(namedtuple("Options", "flags propagation data recursive translated", defaults=("",))):
    """A mount's options, sorted by who reads them: the kernel's flags, its propagation, the file system.

    `recursive`: attributes to set, and to clear, of the mount and all below it. `translated`: "", idmap or ridmap.
    """

    flags: int
    propagation: int
    data: str
    recursive: tuple[int, int]
    translated: str


def parse_options(options: list[str]) -> Options:
    """Sort mount(8)'s words. What is not a flag is data for the file system, which refuses what it does not know."""
    flags, propagation, data, below, translated = 0, 0, [], (0, 0), ""
    for word in options:
        if word in FLAGS:
            on, off = FLAGS[word]
            flags = (flags | on) & ~off
        elif word in PROPAGATION:
            propagation = PROPAGATION[word]
        elif word in RECURSIVE:
            on, off = RECURSIVE[word]
            below = below[0] & ~off | on, below[1] & ~on | off
        elif word in TRANSLATED:
            translated = word
        else:
            data.append(word)
    return Options(flags, propagation, ",".join(data), below, translated)


def translated(mount: dict[str, Any]) -> str:
    """How the ids in a mount are to be translated: "" (not at all), idmap (in itself), ridmap (in all below, too).

    The maps alone ask for the first: config.md says that the option should be there, not that it must.
    """
    return asked(mount).translated or ("idmap" if mount.get("uidMappings") else "")


def taken(mounts: list[dict[str, Any]], linux: dict[str, Any]) -> dict[int, steps.Symbol]:
    """The mounts that are made before the fork, by their places in the list: the symbols of their descriptors.

    Translating ids is for root of the machine, whom a child in a user namespace is not; and that one need not be let
    through to what it is to bind. An ordinary user's child binds what the user may, once it is root in there.
    """
    mapped = namespaces.has(linux["namespaces"], "user") and host.privileged()
    return {
        index: steps.Symbol(f"tree{index}")
        for index, mount in enumerate(mounts)
        if translated(mount) or (mapped and is_bind(mount))
    }


def connected(mounts: list[dict[str, Any]], trees: dict[int, steps.Symbol]) -> dict[int, steps.Symbol]:
    """The bind mounts that hear of what the host mounts below them (slave), or tell it of theirs, too (shared).

    As `taken` has it, and without those that are.
    """
    return {
        index: steps.Symbol(f"tree{index}")
        for index, mount in enumerate(mounts)
        if index not in trees and is_bind(mount) and asked(mount).propagation & (syscalls.MS_SLAVE | syscalls.MS_SHARED)
    }


def connect(mounts: list[dict[str, Any]], trees: dict[int, steps.Symbol]) -> Iterator[steps.Step]:
    """Those that are `connected`, attached nowhere yet: what is so is not cut off with all others (rootfs.private)."""
    if not trees:
        return
    from . import idmap

    for index, symbol in trees.items():
        below = bool(asked(mounts[index]).flags & syscalls.MS_REC)
        why = "still a peer of the host's mount, to go on hearing of it: all others are cut off now"
        yield steps.call(idmap.tree, mounts[index]["source"], below, why=why, result=symbol.name)


def asked(mount: dict[str, Any]) -> Options:
    """The options of one of the spec's mounts."""
    return parse_options(mount.get("options") or [])


def unknown(mount: dict[str, Any]) -> list[str]:
    """The options of a bind mount that nobody knows: it has no file system of its own to refuse them."""
    words = asked(mount).data.split(",")
    return [word for word in words if word and word not in IDLE and not word.startswith(IDLE_PREFIXES)]


def is_bind(mount: dict[str, Any]) -> bool:
    """Whether it shows what is there already."""
    return bool(asked(mount).flags & syscalls.MS_BIND)


def take(mounts: list[dict[str, Any]], linux: dict[str, Any], trees: dict[int, steps.Symbol]) -> Iterator[steps.Step]:
    """Before the fork: those that are `taken`, attached nowhere yet. Their descriptors are the child's to attach."""
    if not trees:
        return
    from . import idmap

    joined = namespaces.joined(linux["namespaces"], "user")
    spaces: dict[idmap.Maps, steps.Symbol] = {}
    for index, symbol in trees.items():
        mount = mounts[index]
        below = bool(asked(mount).flags & syscalls.MS_REC)
        words, why = [], "who is root inside may not be allowed to walk there"
        if way := translated(mount):
            if joined and not mount.get("uidMappings"):
                space = namespaces.USER
            else:
                maps = idmap.of_spec(mount if mount.get("uidMappings") else linux)
                if maps not in spaces:
                    spaces[maps] = steps.Symbol(f"ids{len(spaces)}")
                    yield steps.call(
                        idmap.namespace, maps, why="a mount takes its translation from a user namespace",
                        result=spaces[maps].name,
                    )  # fmt: skip
                space = spaces[maps]
            words, why = [space, way == "ridmap"], "its files belong to others in here, the disk stays as it is"
        yield steps.call(idmap.tree, mount["source"], below, *words, why=why, result=symbol.name)
        loose = asked(mount).propagation & (syscalls.MS_SHARED | syscalls.MS_UNBINDABLE)
        if loose and namespaces.has(linux["namespaces"], "user"):
            yield steps.call(idmap.listen, symbol, why="root of a user namespace mounts nothing on the host")
    for space in spaces.values():
        yield steps.call(idmap.let_go, space, why="the mounts keep it")


def all_of(
    root: str, mounts: list[dict[str, Any]], trees: dict[int, steps.Symbol] | None = None
) -> Iterator[steps.Step]:
    """A step for each mount, in their order: a parent comes before what is mounted inside it.

    `trees`: those that are `taken` or `connected`.
    """
    for index, mount in enumerate(mounts):
        options = asked(mount)
        arguments = (root, mount.get("source", "none"), mount["destination"])
        if options.flags & syscalls.MS_BIND:
            if trees and index in trees:
                arguments = (root, trees[index], mount["destination"])
            yield steps.call(
                bind, *arguments, options.flags, options.propagation, why=WHY.get(mount["destination"], BIND)
            )
        elif mount["type"] == "cgroup":
            yield steps.call(
                cgroup_tree, root, mount["destination"], hierarchies(), options.flags, why=WHY["/sys/fs/cgroup"]
            )
        else:
            why = WHY.get(mount["destination"], f"a {mount['type']} of its own")
            words = options.data.split(",")
            data = ",".join(word for word in words if word != COPY_UP)
            yield steps.call(
                attach_copy if COPY_UP in words else attach, *arguments, mount["type"], options.flags, data, why=why
            )
        if options.propagation and not options.flags & syscalls.MS_BIND:
            why = "who hears of what is mounted in it"
            yield steps.call(propagate, root, mount["destination"], options.propagation, why=why)
        if any(options.recursive):
            yield steps.call(
                set_below, root, mount["destination"], *options.recursive, why="the same for all that is mounted below"
            )


COPY_UP = "tmpcopyup"  # runc's and crun's option, which podman's --tmpfs uses: no file system knows it
BIND = "a directory or file of the host, at another place: native speed, no copy"

WHY = {
    "/proc": "ps and top read it; it shows the pid namespace of who mounts it",
    "/sys": "the kernel's devices and interfaces, as this network namespace sees them",
    "/sys/fs/cgroup": "its own cgroup, to read its limits and use",
    "/dev": "an empty /dev in memory, never the host's",
    "/dev/pts": "pseudo-terminals of its own: nobody else's can be written to",
    "/dev/shm": "POSIX shared memory of its own, bounded",
    "/dev/mqueue": "POSIX message queues, as this ipc namespace has them",
    "/etc/hosts": "its own name and address",
    "/etc/hostname": "its own name",
    "/etc/resolv.conf": "whom to ask for names",
}


def attach(root: str, source: str, destination: str, kind: str, flags: int, data: str) -> None:
    """mount(2) a new file system at `destination` under `root`, a directory that is made if missing."""
    with Target(root, destination, directory=True) as target:
        refuse_traps(root, target, destination, kind)
        syscalls.mount(source, target, kind, flags, data)


def refuse_traps(root: str, target: str, destination: str, kind: str, source: str = "") -> None:
    """Raise InvalidArgument where an image has chosen where what we write, mask or protect in /proc would be.

    /proc and /sys are themselves and no links (CVE-2019-19921), and in /proc nothing is mounted but what hides no
    knob: a volume there would lead our own writes to where its links lead (CVE-2019-16884, CVE-2025-52881).
    """
    found, proc, inside = os.readlink(target), syscalls.PROC_SUPER_MAGIC, os.path.realpath(root)
    if kind in ("proc", "sysfs"):
        if found != os.path.normpath(f"{inside}/{destination}"):
            raise errors.InvalidArgument(
                f"{destination} leads elsewhere in this image: {kind} is not mounted on a link"
            )
    elif syscalls.file_system(target) == proc or found == os.path.normpath(f"{inside}/proc"):
        if found.endswith(HARMLESS) or (source and syscalls.file_system(source) == proc):
            return
        raise errors.InvalidArgument(f"nothing is mounted at {destination}: it lies in /proc, which is the kernel's")


# Figures, which lxcfs and its like show for the container alone.
HARMLESS = tuple(f"/proc/{name}" for name in (
    "cpuinfo", "diskstats", "loadavg", "meminfo", "slabinfo", "stat", "swaps", "uptime",
))  # fmt: skip


def attach_copy(root: str, source: str, destination: str, kind: str, flags: int, data: str) -> None:
    """The same, and what lay beneath is copied into the new file system, in which it has room or not."""
    with Target(root, destination, directory=True) as beneath:
        attach(root, source, destination, kind, flags & ~syscalls.MS_RDONLY, data)
        with Target(root, destination, directory=True) as target:
            old, new = (os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) for place in (beneath, target))
            try:
                files.copy_tree(old, new, nodes=False)
            finally:
                os.close(old)
                os.close(new)
            if flags & syscalls.MS_RDONLY:
                remount(target, flags)


def bind(root: str, source: str | int, destination: str, flags: int, propagation: int) -> None:
    """Bind `source` at `destination` under `root`; a directory or file is made there if missing.

    A source may be the descriptor of a mount that is attached nowhere (`take`, `connect`), which is closed then.

    The kernel ignores all other flags in the call that binds (mount(2)), so a second one remounts with them.
    """
    tree, source = (source, f"/proc/self/fd/{source}") if isinstance(source, int) else (-1, source)
    directory = os.path.isdir(source)
    with Target(root, destination, directory) as target:
        refuse_traps(root, target, destination, "", source)
        if tree >= 0:
            syscalls.move_mount(tree, target)
            os.close(tree)
        else:
            syscalls.mount(source, target, "", flags & (syscalls.MS_BIND | syscalls.MS_REC))
    # Once more: the name now leads to what was mounted, the descriptor above to what lies beneath.
    with Target(root, destination, directory) as target:
        rest = flags & ~(syscalls.MS_BIND | syscalls.MS_REC)
        if rest:
            remount(target, rest)
        propagation = propagation or syscalls.MS_PRIVATE
        if propagation & (syscalls.MS_PRIVATE | syscalls.MS_SLAVE):
            propagation |= syscalls.MS_REC  # what lies below may be the host's peer, too, and is to tell it no more
        syscalls.mount("", target, "", propagation)


def set_below(root: str, destination: str, on: int, off: int) -> None:
    """Set and clear attributes of the mount at `destination` under `root` and of all below it."""
    with Target(root, destination, directory=True) as target:
        syscalls.mount_setattr(target, on, off)


def propagate(root: str, destination: str, propagation: int) -> None:
    """Make the mount at `destination` under `root` shared, private and so on."""
    with Target(root, destination, directory=True) as target:
        syscalls.mount("", target, "", propagation)


def remount(target: str, flags: int) -> None:
    """Add flags to a mount. Those it has are kept: in a user namespace the kernel refuses to see one dropped."""
    has = os.statvfs(target).f_flag
    kept = has & (
        syscalls.MS_RDONLY
        | syscalls.MS_NOSUID
        | syscalls.MS_NODEV
        | syscalls.MS_NOEXEC
        | syscalls.MS_NOATIME
        | syscalls.MS_NODIRATIME
    )
    if has & 4096:  # ST_RELATIME (statvfs(3)) has another value than MS_RELATIME
        kept |= syscalls.MS_RELATIME
    syscalls.mount("", target, "", syscalls.MS_BIND | syscalls.MS_REMOUNT | kept | flags)


class Target:
    """`with Target(root, destination, directory) as path:` a path that cannot change its meaning: /proc/self/fd/N."""

    def __init__(self, root: str, destination: str, directory: bool) -> None:
        self.root = root
        self.destination = destination
        self.directory = directory

    def __enter__(self) -> str:
        root = os.open(self.root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self.descriptor = files.make_inside(root, self.destination, self.directory)
        except OSError as error:
            hint = f"the mount point {self.destination} cannot be made in the image"
            raise errors.KernelError(error.errno or 0, "openat2", (self.destination,), hint) from None
        finally:
            os.close(root)
        return f"/proc/self/fd/{self.descriptor}"

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        os.close(self.descriptor)
        if isinstance(error, errors.KernelError):  # who reads of it knows the destination, not our descriptors
            ours = f"/proc/self/fd/{self.descriptor}"
            error.arguments = tuple(self.destination if word == ours else word for word in error.arguments)


def mask(path: str) -> None:
    """Hide a file under /dev/null, a directory under an empty read-only tmpfs. Nothing happens if it is not there.

    Raises KernelError where /dev is a volume, and /dev/null there something else (CVE-2025-31133).
    """
    if os.path.isdir(path):
        syscalls.mount("tmpfs", path, "tmpfs", syscalls.MS_RDONLY, "size=0k,nr_inodes=1")
    elif os.path.exists(path):
        syscalls.mount("/dev/null", path, "", syscalls.MS_BIND)
        found = os.stat(path)  # what is there now, whatever has become of the name since
        if not stat.S_ISCHR(found.st_mode) or found.st_rdev != os.makedev(1, 3):
            raise errors.KernelError(
                errno.ENODEV, "mount", ("/dev/null", path), "the image's /dev/null is something else"
            )


def make_readonly(path: str) -> None:
    """Bind a path on itself, read-only. Nothing happens if it is not there."""
    if os.path.exists(path):
        syscalls.mount(path, path, "", syscalls.MS_BIND | syscalls.MS_REC)
        remount(path, syscalls.MS_RDONLY)


def hierarchies() -> dict[str, str]:
    """What `cgroup_tree` shows: a directory for each hierarchy of version 1, or one nameless tree of version 2."""
    layout = cgroups.detect()
    if layout.version == 2:
        return {"": "cgroup2"}
    shown: dict[str, str] = {}
    for controller, point in layout.mounts.items():
        name = os.path.basename(point)
        shown[name] = f"{shown[name]},{controller}" if name in shown else controller
    return shown


def cgroup_tree(root: str, destination: str, hierarchies: dict[str, str], flags: int) -> None:
    """Show the container its own cgroup. `hierarchies` maps a directory's name to the controllers mounted there.

    Version 2 is one tree (an empty name). Version 1 is a directory of trees, and that directory a tmpfs.
    """
    if "" in hierarchies:
        attach(root, "cgroup", destination, "cgroup2", flags, "")
        return
    attach(root, "cgroup", destination, "tmpfs", flags & ~syscalls.MS_RDONLY, "mode=755")
    for name, controllers in hierarchies.items():
        attach(root, "cgroup", f"{destination}/{name}", "cgroup", flags, controllers)
    with Target(root, destination, directory=True) as target:
        remount(target, flags & syscalls.MS_RDONLY)
