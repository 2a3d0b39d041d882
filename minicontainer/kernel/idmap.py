"""User namespaces: which ids inside are which ids outside (user_namespaces(7)).

    inside          outside
    0               1000            root in here is you out there
    1 … 65536       100000 …        ids that /etc/subuid keeps for you and for nobody else (subuid(5))

An ordinary user may map one id alone, the own one. More of them only a program of root's writes: newuidmap(1) and
newgidmap(1), setuid programs that look into /etc/subuid and /etc/subgid. With one id, chown, setresuid and setgroups
have nobody else to name.

A container with a user namespace of its own (linux.uidMappings) is born in it; root of the machine writes its maps.
One that joins another's has the maps which that has, whatever its own config says.

A mount may translate ids, too (mount_setattr(2), MOUNT_ATTR_IDMAP): the disk's ids are its namespace's inside, what is
seen of them the outside. Nothing is copied, and on disk nothing changes.

Offers: `choose` (which map this user can have), `of_spec` (which one a config asks for), `plan` (the steps that give it
to a process), `join` (the steps that find out about one that is there), `of_process`, `mapped`, `mend`; `tree` (a mount
that translates, or none), `namespace`, `obstacle` (why there can be none).
"""

from __future__ import annotations

import errno
import os
import stat

from .. import errors, files, host, steps, syscalls
from ..records import namedtuple
from . import capabilities, namespaces

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

PROGRAMS = ("newuidmap", "newgidmap")


class Range(namedtuple("Range", "inside outside count")):
    """`count` ids from `inside` on are those from `outside` on: one line of /proc/PID/uid_map."""

    inside: int
    outside: int
    count: int


class Maps(namedtuple("Maps", "uids gids helped")):
    """A user namespace's two maps; `helped`: newuidmap and newgidmap must write them."""

    uids: tuple[Range, ...]
    gids: tuple[Range, ...]
    helped: bool


def choose(
    uid: int, gid: int, name: str, subuid: str = "", subgid: str = "", programs: bool = True, privileged: bool = False
) -> Maps:
    """The widest maps that a user can have, who becomes root inside. Pure: it is given what it decides from.

    `subuid` and `subgid` are the texts of /etc/subuid and /etc/subgid, `programs` whether newuidmap and newgidmap are
    there, `privileged` whether we hold CAP_SETUID where we are: then we give away what we have ourselves.
    """
    if privileged:
        return Maps(read("uid_map"), read("gid_map"), False)
    spare_uids, spare_gids = ranges(subuid, name, uid), ranges(subgid, name, uid)
    if not (spare_uids and spare_gids and programs):
        return Maps((Range(0, uid, 1),), (Range(0, gid, 1),), False)
    return Maps(stacked(uid, spare_uids), stacked(gid, spare_gids), True)


def here() -> Maps:
    """`choose`, from this machine's own facts."""
    import pwd

    try:
        name = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        name = ""
    there = all(map(found, PROGRAMS))
    subuid, subgid = text_of("/etc/subuid"), text_of("/etc/subgid")
    return choose(os.geteuid(), os.getegid(), name, subuid, subgid, there, host.privileged())


def ranges(text: str, name: str, uid: int) -> list[tuple[int, int]]:
    """The (first id, how many) that /etc/subuid keeps for this user, by name or by number."""
    kept = []
    for line in text.splitlines():
        fields = line.strip().split(":")
        if len(fields) == 3 and fields[0] in (name, str(uid)) and fields[1].isdigit() and fields[2].isdigit():
            kept.append((int(fields[1]), int(fields[2])))
    return kept


def stacked(own: int, spare: Iterable[tuple[int, int]]) -> tuple[Range, ...]:
    """0 is the user's own id; the spare ones follow from 1 on, without a gap."""
    lines = [Range(0, own, 1)]
    for first, count in spare:
        lines.append(Range(lines[-1].inside + lines[-1].count, first, count))
    return tuple(lines)


def plan(maps: Maps, pid: int | steps.Symbol = steps.PID) -> Iterator[steps.Step]:
    """Give a process that has just made its user namespace these maps. To be done from outside of it."""
    if maps.helped:
        for program, lines in zip(PROGRAMS, (maps.uids, maps.gids), strict=True):
            yield steps.call(
                helper, program, pid, lines, why=f"{program} is root's and looks into /etc/sub{program[3:6]}"
            )
        return
    if len(maps.gids) == 1 and maps.gids[0].count == 1:
        yield steps.put(
            steps.Text(("/proc/", pid, "/setgroups")), "deny",
            why="or a group that is kept out of a file could be laid down to get in (CVE-2014-8989)",
        )  # fmt: skip
    for name, lines in (("uid_map", maps.uids), ("gid_map", maps.gids)):
        yield steps.put(
            steps.Text(("/proc/", pid, "/", name)), text(lines), why="which ids inside are which ids outside"
        )


def text(lines: Iterable[Range]) -> str:
    """A map as /proc/PID/uid_map takes it: one write, a line for each range."""
    return "".join(f"{line.inside} {line.outside} {line.count}\n" for line in lines)


def helper(program: str, pid: int, lines: Iterable[Range]) -> None:
    """newuidmap PID INSIDE OUTSIDE COUNT …: the one job here that only another program can do, for it is setuid."""
    words = [program, str(pid), *(str(number) for line in lines for number in line)]
    child = os.posix_spawnp(program, words, dict(os.environ))
    _, status = os.waitpid(child, 0)
    if status:
        raise errors.Unsupported(f"{' '.join(words)} was refused; /etc/sub{program[3:6]} must keep these ids for you")


def of_spec(linux: dict[str, Any]) -> Maps:
    """The maps that a config's linux.uidMappings and gidMappings ask for (config-linux.md, User namespace mappings)."""
    uids, gids = (
        tuple(Range(line["containerID"], line["hostID"], line["size"]) for line in linux.get(name) or ())
        for name in ("uidMappings", "gidMappings")
    )
    return Maps(uids, gids, False)


MAPS = steps.Symbol("maps")  # those of the namespace that is joined


def join(path: str) -> Iterator[steps.Step]:
    """Before anybody joins the user namespace at `path`: it is open from here on, and its maps are known."""
    yield steps.call(
        open_namespace, path, why="a path may come to mean another; a descriptor cannot", result=namespaces.USER.name
    )
    yield steps.call(
        of_namespace, namespaces.USER, path, why="which ids are mapped the namespace itself knows best",
        result=MAPS.name,
    )  # fmt: skip


def open_namespace(path: str) -> int:
    """The user namespace at `path`, as a descriptor.

    Raises InvalidArgument where there is something else, Unsupported where it is our own, the host's.
    """
    import fcntl

    try:
        found = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise errors.KernelError(error.errno or 0, "open", (path,)) from None
    try:
        try:
            kind = fcntl.ioctl(found, NS_GET_NSTYPE)
        except OSError:
            kind = 0
        if kind != syscalls.CLONE_NEWUSER:
            raise errors.InvalidArgument(f"{path} is no user namespace")
        if os.path.samestat(os.fstat(found), os.stat("/proc/self/ns/user")):
            raise errors.Unsupported(f"{path} {HOSTS}")
    except BaseException:
        os.close(found)
        raise
    return found


NS_GET_NSTYPE = 0xB703  # linux/nsfs.h
HOSTS = "is the host's own user namespace: a container in it asks for none"


def of_namespace(space: int, path: str) -> Maps:
    """The maps of a user namespace, as we number what is outside: they are shown for a process that is in there.

    Raises KernelError for one that is not below ours, InvalidArgument for one without a root.
    """
    (arrived, tell), (stay, let_go) = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.close(let_go)
            syscalls.hide()
            syscalls.setns(space, syscalls.CLONE_NEWUSER)
            os.write(tell, b"!")
            os.read(stay, 1)  # until the other end is closed, be it by our parent's death
        except errors.KernelError as error:
            code = error.errno or code
        finally:
            os._exit(code)
    os.close(tell)
    os.close(stay)
    try:
        there = os.read(arrived, 1)
        maps = of_process(pid) if there else None
    finally:
        os.close(arrived)
        os.close(let_go)
        _, status = os.waitpid(pid, 0)
    if maps is None:
        hint = "is it a user namespace below this one, and are we root here?"
        raise errors.KernelError(os.waitstatus_to_exitcode(status), "setns", (path, syscalls.CLONE_NEWUSER), hint)
    for name, lines in (("user", maps.uids), ("group", maps.gids)):
        if not any(line.inside == 0 for line in lines):
            raise errors.InvalidArgument(
                f"the user namespace {path} does not map {name} 0, which makes the container's mounts"
            )
    return maps


def of_process(pid: int) -> Maps:
    """The maps of the user namespace that a process is in, as we number what is outside."""
    uids, gids = (
        tuple(Range(*map(int, line.split())) for line in files.read(f"/proc/{pid}/{name}").decode().splitlines())
        for name in ("uid_map", "gid_map")
    )
    return Maps(uids, gids, False)


def tree(path: str, recursive: bool, space: int = -1, all_below: bool = False) -> int:
    """A mount of what lies at `path`, attached nowhere, that translates ids as the `namespace` says, if there is one.

    `all_below`: so do those mounted below it. The descriptor of open_tree(2). Raises Unsupported where the kernel or
    the file system cannot translate.
    """
    try:
        clone = syscalls.open_tree(path, recursive)
    except errors.KernelError as error:
        error.arguments = (path,)
        raise
    if space < 0:
        return clone
    try:
        syscalls.map_ids(clone, space, all_below)
    except errors.KernelError as error:
        os.close(clone)
        if error.errno not in CANNOT:
            raise
        what = "or one mounted below it " if all_below else ""
        raise errors.Unsupported(
            f"ids cannot be translated in a mount of {path}: the kernel has that for some file systems "
            f"(mount_setattr(2): ext4, btrfs and xfs since Linux 5.12 to 5.15, tmpfs since 6.3), and this {what}"
            "is none of them, or translates already"
        ) from error
    return clone


def listen(tree: int) -> None:
    """A mount that is attached nowhere, and all below it, hear of what the host mounts there and tell it nothing."""
    syscalls.propagate(tree, syscalls.MS_SLAVE)


CANNOT = (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.EPERM)


def namespace(maps: Maps) -> int:
    """The descriptor of a new user namespace with these maps, in which no process is."""
    reader, writer = os.pipe()
    pid = syscalls.fork(syscalls.CLONE_NEWUSER)
    if pid == 0:
        os.close(writer)
        os.read(reader, 1)  # until the other end is closed, be it by our parent's death
        os._exit(0)
    try:
        os.close(reader)
        for name, lines in (("uid_map", maps.uids), ("gid_map", maps.gids)):
            files.put(f"/proc/{pid}/{name}", text(lines))
        return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(writer)
        os.waitpid(pid, 0)


def let_go(space: int) -> None:
    """The namespace's descriptor is closed: what was mounted with it keeps it."""
    os.close(space)


def obstacle(path: str) -> str:
    """Why ids cannot be translated in a mount of what lies at `path`, by whoever we are; empty if they can.

    An empty path: in a tmpfs of our own. Tried where nobody sees it.
    """

    def attempt() -> None:
        if not path:
            syscalls.mount("tmpfs", "/tmp", "tmpfs")
        os.close(tree(path or "/tmp", False, namespace(ITSELF)))

    return host.probe(attempt, syscalls.CLONE_NEWNS)


ITSELF = Maps((Range(0, 0, 1),), (Range(0, 0, 1),), False)  # everybody has an id 0 to give, if it is only his own


def translates() -> bool:
    """Whether this kernel has mount_setattr(2), which came with translation (Linux 5.12): asked without a mount."""
    try:
        syscalls.map_ids(-1, 2**31 - 1, False)
    except errors.KernelError as error:
        return error.errno != errno.ENOSYS
    return True


def outside(lines: Iterable[Range], number: int) -> int:
    """What an id inside is outside. Raises InvalidArgument for one that is not mapped."""
    for line in lines:
        if line.inside <= number < line.inside + line.count:
            return line.outside + number - line.inside
    raise errors.InvalidArgument(
        f"id {number} is not mapped into the user namespace: see linux.uidMappings, gidMappings, or who has made it"
    )


def give_pipes(maps: Maps, uid: int, gid: int) -> None:
    """Pipes that are our standard descriptors become those of a user inside, who can then open /dev/stdout.

    It is root of the machine's to do: root inside may not change what belongs to an id that it does not know. Nor
    may an ordinary user what is another's: those pipes stay as they are, as with runc.
    """
    uid, gid = outside(maps.uids, uid), outside(maps.gids, gid)
    for descriptor in (0, 1, 2):
        found = os.fstat(descriptor)
        if stat.S_ISFIFO(found.st_mode) and found.st_uid != uid:
            try:
                os.fchown(descriptor, uid, gid)
            except PermissionError:
                pass


def become_root() -> None:
    """Root of our user namespace, whose ids have been mapped; so far we are nobody in here."""
    capabilities.set_groups([], 0)
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)


def mapped() -> int:
    """How many user ids this process's user namespace knows; all, where it is the machine's own."""
    return sum(line.count for line in read("uid_map"))


def mend() -> str:
    """What gives this user several ids."""
    if not all(map(found, PROGRAMS)):
        return "sudo apt-get install uidmap"
    return "sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 $USER"


def read(name: str) -> tuple[Range, ...]:
    """Our own /proc/self/uid_map or gid_map, as what we could hand on: each id as itself."""
    lines = (map(int, line.split()) for line in files.read(f"/proc/self/{name}").decode().splitlines())
    return tuple(Range(inside, inside, count) for inside, _, count in lines)


def found(program: str) -> bool:
    """Whether a program is on the path."""
    folders = os.environ.get("PATH", "/usr/bin:/bin").split(":")
    return any(os.access(f"{folder}/{program}", os.X_OK) for folder in folders)


def text_of(path: str) -> str:
    """A file's text, none if there is no such file."""
    try:
        return files.read(path).decode()
    except FileNotFoundError:
        return ""
