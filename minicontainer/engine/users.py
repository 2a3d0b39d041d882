"""Who `-u` means: names are looked up in the image's own /etc/passwd and /etc/group (passwd(5), group(5)).

The files are read from the image's layers, topmost first, before anything is mounted; a path in them is resolved inside
its layer, so an image cannot make us read the host's.
"""

from __future__ import annotations

import errno
import os
import stat

from .. import errors, files, host
from ..records import namedtuple


class User(namedtuple("User", "uid gid groups home")):
    """What execve will run as."""

    uid: int
    gid: int
    groups: list[int]
    home: str


def lookup(user: str, extra_groups: list[str], layers: list[str], process: int | str = "self") -> User:
    """Resolve docker's `user[:group]`, by name or number. `layers` are directories, lowest first;
    `process` is one in the user namespace that it will run in.

    Raises NotFound for a name that the image does not have.
    """
    passwd = [line.split(":") for line in read_lines(layers, "/etc/passwd")]
    group = [line.split(":") for line in read_lines(layers, "/etc/group")]
    name, _, group_name = user.partition(":")
    name = name or "0"
    entry = next((row for row in passwd if len(row) >= 6 and row[0] == name), None)
    if entry is None and name.isdecimal():
        entry = next((row for row in passwd if len(row) >= 6 and row[2] == name), None)
    if entry is None and not name.isdecimal():
        raise errors.NotFound(f"the image has no user {name!r}: give a number, or a name from its /etc/passwd")
    uid = number(entry[2] if entry else name)
    home = entry[5] if entry and entry[5] else "/"
    if group_name:
        gid, member = group_id(group_name, group), []
    else:
        gid = number(entry[3]) if entry else 0
        member = [number(row[2]) for row in group if entry and len(row) >= 4 and entry[0] in row[3].split(",")]
    if host.forbids_setgroups(process):
        member = []  # the kernel would refuse them; who asks for a group by --group-add is told so
    # The own group first, as docker does: a file that shuts out a group must shut out its members (CVE-2022-36109).
    groups = [gid, *member, *[group_id(extra, group) for extra in extra_groups]]
    return User(uid, gid, list(dict.fromkeys(groups)), home)


def number(text: str) -> int:
    """A user's or group's number. Raises InvalidArgument: setresuid(2) takes -1 for "as it is", which is root."""
    if not text.isdecimal() or int(text) > LARGEST:
        raise errors.InvalidArgument(f"{text!r} is no number of a user or group: they range from 0 to {LARGEST}")
    return int(text)


LARGEST = 2**31 - 1  # docker's bound


def group_id(name: str, group: list[list[str]]) -> int:
    """The number of a group, by name or number."""
    for row in group:
        if len(row) >= 3 and row[0] == name:
            return number(row[2])
    if name.isdecimal():
        return number(name)
    raise errors.NotFound(f"the image has no group {name!r}: give a number, or a name from its /etc/group")


MOST = 10 << 20  # bytes of a list of users: a container may make one of terabytes, which cost it nothing


def read_lines(layers: list[str], path: str) -> list[str]:
    """The lines of a file as the stacked layers show it; none if it is not there, or a whiteout hides it."""
    for layer in reversed(layers):
        root = os.open(layer, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            found = files.inside(root, path)
        except errors.KernelError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                raise
            continue
        finally:
            os.close(root)
        try:
            status = os.fstat(found)
            if not stat.S_ISREG(status.st_mode):
                return []  # a whiteout, a device, a directory: nobody's list of users
            if status.st_size > MOST:
                raise errors.InvalidArgument(f"the image's {path} is too large: {status.st_size} bytes")
            return files.read(f"/proc/self/fd/{found}").decode(errors="surrogateescape").splitlines()
        finally:
            os.close(found)
    return []
