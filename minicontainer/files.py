"""Files, written so that a crash at any moment leaves either the old state or the new one.

Offers: `read`, `write` (temporary name, then rename), `put` (one write(2), for the kernel's files), `lock` and `locked`
(flock); `make_directory`, `unlink`, `remove_directory` and `remove_tree`, which may be done twice; `sync_directory`;
`disk_usage`; `inside` and `make_inside`, which resolve a path as a process chrooted there would (openat2), so that an
image's symbolic link never leads out; `place`, which tells where that is, and `beneath`, which opens it again;
`copy_tree`, of what others may be at.
Callers owe it: a directory that exists, and one place per file (two processes that write the same name both win,
one after the other; neither is ever torn).
"""

import _thread
import errno
import fcntl
import os
import stat
import time

from . import errors, syscalls
from .records import namedtuple

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing: 4 ms of every start
    from collections.abc import Callable

    Owner = Callable[[os.stat_result], tuple[int, int]]


def read(path: str) -> bytes:
    """The whole content of `path`. Raises OSError as open(2) does."""
    with open(path, "rb") as file:
        return file.read()


def write(path: str, content: bytes, mode: int = 0o644, sync: bool = False) -> None:
    """Replace `path` by `content` in one step: a reader sees all of the old or all of the new.

    With `sync`, it survives a power cut from here on: the file and its directory are fsynced (rename(2), fsync(2)).
    Raises OSError; whatever it is, the old content is still there, and for a full disk it is a KernelError with a hint.
    """
    temporary = f"{path}.tmp-{_thread.get_native_id()}"  # gettid(2): threads of one process may be at it, too
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
        try:
            write_all(descriptor, content)
            if sync:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.rename(temporary, path)
    except OSError as error:
        unlink(temporary)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            hint = "the disk is full: free some space, and do it again"
            raise errors.KernelError(error.errno, "write", (path,), hint) from None
        raise
    if sync:
        sync_directory(os.path.dirname(path))


def write_all(descriptor: int, content: bytes | memoryview) -> None:
    """write(2) until nothing is left."""
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]


def put(path: str, content: str) -> None:
    """Write `content` into a file that exists, in one write(2): what /proc, /sys and cgroup files want.

    Raises KernelError, which names the file and the value that the kernel refused.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, content.encode())
        finally:
            os.close(descriptor)
    except OSError as error:
        raise errors.KernelError(error.errno or 0, "write", (path, content)) from None


def sync_directory(path: str) -> None:
    """Make the names in a directory survive a power cut (fsync(2) of the directory)."""
    descriptor = os.open(path or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_directory(path: str, mode: int = 0o755) -> None:
    """mkdir(2), and the parents; nothing happens if it is there. The mode holds whatever the umask is."""
    try:
        os.mkdir(path, mode)
    except FileExistsError:
        if not os.path.isdir(path):
            raise
    except FileNotFoundError:
        make_directory(os.path.dirname(path))
        make_directory(path, mode)
    else:
        os.chmod(path, mode)


def lock(path: str, shared: bool = False, wait: bool = True, make: bool = True) -> int:
    """Open `path` (a directory, or a file, with `make` made if missing) and flock(2) it. Returns the descriptor.

    The lock belongs to the open file: every process that inherits the descriptor holds it, and it is gone when the
    last of them closed it or died. Raises BlockingIOError where `wait` is false and somebody else holds it.
    """
    directory = os.path.isdir(path)
    flags = os.O_RDONLY | os.O_DIRECTORY if directory or not make else os.O_RDWR | os.O_CREAT
    descriptor = os.open(path, flags | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


class locked:
    """`with files.locked(path):` holds an flock for the length of the block."""

    def __init__(self, path: str, shared: bool = False) -> None:
        self.path = path
        self.shared = shared

    def __enter__(self) -> int:
        self.descriptor = lock(self.path, self.shared)
        return self.descriptor

    def __exit__(self, *_: object) -> None:
        os.close(self.descriptor)


def unlink(path: str) -> None:
    """unlink(2); nothing happens if the name is not there."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def remove_directory(path: str) -> None:
    """rmdir(2); nothing happens if it is not there. A cgroup is busy (EBUSY) until who was killed in it, or on the way
    into it, has ended: that is waited for, a second at most."""
    until = time.monotonic() + 1
    while True:
        try:
            os.rmdir(path)
            return
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > until:
                raise
        time.sleep(0.001)


def remove_tree(path: str) -> None:
    """Remove `path` and all below it; nothing happens if it is not there.

    Never follows a symbolic link and never leaves the file system that `path` is on: a mount inside is an error
    (EBUSY), not a way out. Each directory is entered by descriptor, so that a rename meanwhile cannot lead elsewhere.
    """
    try:
        if not stat.S_ISDIR(os.lstat(path).st_mode):
            os.unlink(path)
            return
        parent = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        remove_inside(parent, os.path.basename(path))
    finally:
        os.close(parent)


def remove_inside(parent: int, name: str) -> None:
    """The same for a directory `name` in an open one."""
    top = enter(parent, name)
    try:
        while remove_below(top, top, DEEPEST):
            pass
    finally:
        os.close(top)
    os.rmdir(name, dir_fd=parent)


# How many directories in one another are entered before what is deeper is moved up: each takes two descriptors, and a
# container may make thousands.
DEEPEST = 100
DEEPEST_PATH = 256  # names in a path of an image: each may be an open descriptor, or a stack frame, to who walks there


def enter(parent: int, name: str) -> int:
    """A directory in an open one, open. Raises OSError: EBUSY, where a file system is mounted."""
    directory = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    if os.fstat(directory).st_dev != os.fstat(parent).st_dev:
        os.close(directory)
        raise OSError(errno.EBUSY, "a file system is mounted here", name)
    return directory


def remove_below(directory: int, top: int, deepest: int) -> bool:
    """Remove all that is in an open directory. What lies deeper than so many directories is moved to the open directory
    at the `top` of all; whether there was such, for which another round is needed."""
    moved = False
    with os.scandir(directory) as entries:
        for entry in entries:
            if not entry.is_dir(follow_symlinks=False):
                os.unlink(entry.name, dir_fd=directory)
            elif deepest:
                below = enter(directory, entry.name)
                try:
                    moved = remove_below(below, top, deepest - 1) or moved
                finally:
                    os.close(below)
                os.rmdir(entry.name, dir_fd=directory)
            else:
                os.rename(entry.name, f".{os.urandom(16).hex()}", src_dir_fd=directory, dst_dir_fd=top)
                moved = True
    return moved


def disk_usage(path: str) -> int:
    """The bytes of all files below a directory, links not followed; 0 if it is not there.

    What lies deeper than an image may have it is not counted.
    """
    try:
        directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return 0
    try:
        return usage_below(directory, DEEPEST_PATH)
    finally:
        os.close(directory)


def usage_below(directory: int, deepest: int) -> int:
    """The same for an open directory, and so many below one another."""
    total = 0
    with os.scandir(directory) as entries:
        for entry in entries:
            try:
                if not entry.is_dir(follow_symlinks=False):
                    total += entry.stat(follow_symlinks=False).st_size
                elif deepest:
                    below = os.open(entry.name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=directory)
                    try:
                        total += usage_below(below, deepest - 1)
                    finally:
                        os.close(below)
            except (FileNotFoundError, NotADirectoryError):
                continue  # whose files they are may be at work
    return total


def inside(root: int, path: str, flags: int = os.O_PATH) -> int:
    """Open `path` as if `root` (a directory descriptor) were `/`: symbolic links and `..` stay within (openat2(2)).

    Raises KernelError (an OSError): ENOENT, ELOOP (a magic link of /proc), EXDEV ...
    """
    resolve = syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_MAGICLINKS
    return syscalls.openat2(root, path, flags, resolve=resolve)


def make_inside(root: int, path: str, directory: bool, owner: tuple[int, int] | None = None) -> int:
    """`inside`, and where nothing is there, a directory (0755) or an empty file (0644) is made first, and its parents,
    whatever the umask is; directories that are made get this owner."""
    try:
        return inside(root, path)
    except errors.KernelError as error:
        if error.errno != errno.ENOENT:
            raise
    parent_path, name = os.path.split(path.rstrip("/"))
    parent = make_inside(root, parent_path or "/", directory=True, owner=owner)
    mode, made = 0o644, -1
    try:
        if directory:
            mode = 0o755
            os.mkdir(name, mode, dir_fd=parent)
            made = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
            if owner:
                os.fchown(made, *owner)
        else:
            made = os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, mode, dir_fd=parent)
        has = stat.S_IMODE(os.fstat(made).st_mode)
        if has & mode != mode:
            os.fchmod(made, has | mode)
    except (FileExistsError, FileNotFoundError, NotADirectoryError):
        # Somebody else was quicker: made it, which the next line finds, or took away or replaced what was made here; or
        # it is a link to nowhere: ENOENT there.
        pass
    finally:
        if made >= 0:
            os.close(made)
        os.close(parent)
    return inside(root, path)


class Place(namedtuple("Place", "path status links")):
    """Where a path leads: `path` from the root, without links and leading slash; `status` of what is there, as of
    lstat(2), None for nothing; `links`, the paths of the symbolic links on the way."""

    path: str
    status: os.stat_result | None
    links: tuple[str, ...]


MOST_LINKS = 40  # path_resolution(7)


def place(root: int, path: str) -> Place:
    """Where `path` leads a process chrooted to the open directory `root`, also if that, or what a link names, is not
    there yet. What is told may be old when somebody else is at work below `root`: open it with `beneath`.

    Raises NotADirectoryError for a way through something else, OSError (ELOOP).
    """
    left = path.split("/")[::-1]
    names: list[str] = []
    links: list[str] = []
    status: os.stat_result | None = os.fstat(root)
    while left:
        name = left.pop()
        if name in ("", "."):
            continue
        if name == "..":
            names = names[:-1]
            status = look(root, "/".join(names) or ".")
            continue
        if status is not None and not stat.S_ISDIR(status.st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), "/" + "/".join(names))
        names.append(name)
        status = look(root, "/".join(names)) if status is not None else None
        if status is not None and stat.S_ISLNK(status.st_mode):
            links.append("/".join(names))
            if len(links) > MOST_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
            target = os.readlink(links[-1], dir_fd=root)
            names = [] if target.startswith("/") else names[:-1]
            left += target.split("/")[::-1]
            status = look(root, "/".join(names) or ".")
    return Place("/".join(names), status, tuple(links))


def look(directory: int, name: str) -> os.stat_result | None:
    """lstat(2) below an open directory; None where nothing is."""
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None


def beneath(root: int, path: str, flags: int) -> int:
    """Open a path that has no links, as `place` gives it; one that has got them since is refused (ELOOP)."""
    resolve = syscalls.RESOLVE_BENEATH | syscalls.RESOLVE_NO_SYMLINKS
    return syscalls.openat2(root, path or ".", flags, resolve=resolve)


# Copying a tree

ENTER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
MAKE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def same_owner(info: os.stat_result) -> tuple[int, int]:
    """Who has the copy: who has it."""
    return info.st_uid, info.st_gid


def copy_tree(
    source: int,
    destination: int,
    owner: "Owner" = same_owner,
    nodes: bool = True,
    deepest: int = DEEPEST_PATH,
) -> None:
    """Copy an open directory's content with owners, modes, times and extended attributes, following no link.

    Either may be a volume that a container has, which puts links in the way: all is opened and made where its directory
    is open. Without `nodes`, devices, fifos and sockets are left out. Raises OSError: ELOOP, where somebody exchanges
    a file for something else meanwhile; ENAMETOOLONG, where directories lie in one another more than `deepest`.
    """
    for name in os.listdir(source):
        info = os.stat(name, dir_fd=source, follow_symlinks=False)
        if stat.S_ISDIR(info.st_mode):
            os.mkdir(name, 0o700, dir_fd=destination)
        elif not stat.S_ISREG(info.st_mode):
            if nodes or stat.S_ISLNK(info.st_mode):
                copy_node(source, destination, name, info, owner)
            continue
        directory = stat.S_ISDIR(info.st_mode)
        if directory and not deepest:
            raise OSError(errno.ENAMETOOLONG, "more directories lie in one another than an image may have", name)
        old = os.open(name, ENTER if directory else READ, dir_fd=source)
        try:
            if stat.S_IFMT(os.fstat(old).st_mode) != stat.S_IFMT(info.st_mode):
                raise OSError(errno.ELOOP, "exchanged for something else meanwhile", name)
            new = os.open(name, ENTER if directory else MAKE, 0o600, dir_fd=destination)
            try:
                if directory:
                    copy_tree(old, new, owner, nodes, deepest - 1)
                else:
                    copy_content(old, new)
                copy_status(old, new, owner)
            finally:
                os.close(new)
        finally:
            os.close(old)


def copy_content(old: int, new: int) -> None:
    """Copy one open file's bytes."""
    while os.sendfile(new, old, None, 1 << 30):
        pass


def copy_node(source: int, destination: int, name: str, info: os.stat_result, owner: "Owner") -> None:
    """A link, a device, a fifo."""
    if stat.S_ISLNK(info.st_mode):
        os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=destination)
    else:
        os.mknod(name, info.st_mode, info.st_rdev, dir_fd=destination)
    os.chown(name, *owner(info), dir_fd=destination, follow_symlinks=False)
    if not stat.S_ISLNK(info.st_mode):  # the umask has cut its mode
        made = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=destination)
        try:
            if stat.S_ISLNK(os.fstat(made).st_mode):
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), name)
            os.chmod(f"/proc/self/fd/{made}", stat.S_IMODE(info.st_mode))
        finally:
            os.close(made)
    os.utime(name, ns=(info.st_atime_ns, info.st_mtime_ns), dir_fd=destination, follow_symlinks=False)


def copy_status(old: int, new: int, owner: "Owner") -> None:
    """Owner, attributes, mode, times of what is open: in this order, for a change of owner takes back set-id bits and
    capabilities."""
    info = os.fstat(old)
    os.fchown(new, *owner(info))
    try:
        names = os.listxattr(old)
    except OSError as error:
        if error.errno not in LACKING:
            raise
        names = []
    for attribute in names:
        try:
            os.setxattr(new, attribute, os.getxattr(old, attribute))
        except OSError as error:
            if error.errno not in LACKING:
                raise
    os.fchmod(new, stat.S_IMODE(info.st_mode))
    os.utime(new, ns=(info.st_atime_ns, info.st_mtime_ns))


# What a file system has no place for, or an ordinary user may not set: left out, as shutil.copystat does.
LACKING = (errno.ENOTSUP, errno.EPERM, errno.ENODATA, errno.EINVAL, errno.EACCES)
