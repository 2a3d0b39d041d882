"""The notebooks' kernel: a container of ours around Jupyter's, in which cells are root and hurt nobody.

Jupyter starts `python -m minicontainer.teach.sandbox CONNECTION_FILE COMMAND…` and believes it to be the kernel:

    front       what Jupyter started, and what it kills; waits
      keeper    in a session of its own, so that no signal to the front ends it: makes the namespaces, and when the
        │       front or the kernel has ended, takes away all that is left
        1       process 1 of the new pid namespace: mounts, then reaps orphans; ended, it takes everyone along
          kernel  python -m ipykernel_launcher: where the cells run

The steps are printed by `python -m minicontainer.teach.sandbox --explain`. What a cell cannot do in here: write a file
outside of the course's folder and the scratch (/tmp and /run are its own; root leases ids where all of the machine do),
see or end a process outside, reach a network, start processes without end. As root of the machine there is no user
namespace, so this is a guard rail rather than a wall: root can still mount the disk.
"""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import sys
from collections.abc import Iterator
from typing import Any

from .. import errors, files, host, steps, syscalls
from ..engine import userns
from ..kernel import cgroups, idmap

NAMESPACES = syscalls.CLONE_NEWPID | syscalls.CLONE_NEWNET | syscalls.CLONE_NEWUTS | syscalls.CLONE_NEWIPC
OWN = ("/tmp", "/run", "/dev/shm")  # these are empty, in memory, and the sandbox's own
PROCESSES = 1024
PR_SET_PDEATHSIG = 1  # linux/prctl.h
AT_FDCWD, AT_RECURSIVE = -100, 0x8000  # linux/fcntl.h
MOUNT_ATTR_RDONLY = 1  # linux/mount.h
KEEPER = steps.Symbol("keeper")


class Places:
    """Which directories a kernel needs, and may write to."""

    def __init__(self, connection_file: str) -> None:
        self.here = os.getcwd()
        self.connections = os.path.dirname(os.path.abspath(connection_file))
        if self.connections in OWN:  # where everybody's files are: not to be shown in here
            raise errors.InvalidArgument(f"set JUPYTER_RUNTIME_DIR to a directory other than {self.connections}")
        self.course = os.path.abspath(os.environ.get("MINICONTAINER_COURSE") or self.here)
        home = os.path.expanduser("~")
        if os.path.commonpath([self.course, home]) == self.course:  # the home itself, or what it lies in: too much
            raise errors.InvalidArgument(f"a notebook in {self.course} could write to all of it: put it in a folder")
        self.scratch = os.path.join(scratch_base(self.course), ".scratch", str(os.getpid()))
        self.cache = os.path.join(self.course, ".cache")
        checkout = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        self.written = [self.course, self.connections, os.path.dirname(self.scratch)]
        if host.is_root():  # all stores of the machine say there who has which ids (`run --userns auto`)
            self.written.append(userns.PLACE)
        self.read = [path for path in (checkout, sys.prefix, sys.base_prefix) if path != "/usr"]
        if not host.is_root() or os.path.isdir(cgroups.SYSTEMD):
            self.read += ["/run/systemd", "/run/dbus"]  # whoever limits processes there asks systemd
        self.read = [path for path in self.read if os.path.isdir(path)]


def scratch_base(course: str) -> str:
    """A directory on a file system that overlays can write to: the course's, or another one."""
    for base in (course, "/var/tmp", "/tmp"):
        if host.mount_of(base)[1] not in host.NOT_FOR_LAYERS and os.access(base, os.W_OK):
            return base if base == course else f"{base}/minicontainer-{os.getuid()}"
    raise errors.Unsupported(f"{course} is on no file system for layers, nor is /var/tmp: set MINICONTAINER_COURSE")


# ------------------------------------------------------------------------------------------------------------- the plan


def outside(maps: idmap.Maps | None) -> Iterator[steps.Step]:
    """What the keeper does: the namespaces. Without a map, it is root of the machine and stays that."""
    if maps:
        yield steps.unshare(syscalls.CLONE_NEWUSER, why="root in here, an ordinary user out there: no sudo")
        yield steps.call(map_from_outside, maps, why="ids are mapped by a process that stays outside")
    yield steps.unshare(NAMESPACES, why="own processes, network, host name, message queues")


def inside(places: Places) -> Iterator[steps.Step]:
    """What process 1 does before it starts the kernel. The keeper keeps its mounts: it must see /proc to the end."""
    yield steps.unshare(syscalls.CLONE_NEWNS, why="its own list of mounts")
    yield steps.mount(
        "", "/", "", syscalls.MS_REC | syscalls.MS_PRIVATE, why="mounts made from here on stay in this namespace"
    )
    yield steps.mount("proc", "/proc", "proc", why="ps reads it; it shows this pid namespace, and nothing is masked")
    kept = places.written + places.read
    temporary = f"{places.scratch}/var-tmp"
    yield steps.call(hold, (*kept, temporary), why="hold on to what the next steps hide", result="held")
    yield steps.call(set_readonly, "/", True, why="nothing of the machine's can be written")
    for path in OWN:
        yield steps.mount("tmpfs", path, "tmpfs", 0, "mode=1777", why="empty, in memory, nobody else's")
    yield steps.call(
        show_again,
        steps.Symbol("held"),
        temporary,
        "/var/tmp",
        why="the same on disk: an overlay keeps no upper in memory",
    )
    yield steps.call(set_readonly, "/var/tmp", False, why="writable")
    for path in kept:
        writable = path in places.written
        why = "the notebooks, the sockets to Jupyter, the scratch" if writable else "what runs here must be seen"
        yield steps.call(show_again, steps.Symbol("held"), path, path, why=why)
        yield steps.call(set_readonly, path, not writable, why="writable" if writable else "and only seen")
    yield steps.chdir(places.here, why="we still stand below what was just mounted: walk in once more, by name")
    yield steps.call(own_sysfs, why="/sys/class/net shows the network namespace of who mounted it")
    yield steps.sethostname("notebook", why="a name of its own")
    yield steps.link_set("lo", up=True, why="127.0.0.1 answers")
    yield steps.call(limit, why="a cell that forks or allocates without end ends itself, not the machine")


# What the steps call.


def map_from_outside(maps: idmap.Maps) -> None:
    """Give this process, which has just made its user namespace, its ids.

    One id it may map itself. More are newuidmap's business, which must be called from the namespace that this process
    has left: by `helper`, who has waited there since before the unshare.
    """
    if helper is None:
        steps.execute(idmap.plan(maps, os.getpid()), {})
        return
    os.write(helper.go, b"\n")
    os.close(helper.go)
    _, status = os.waitpid(helper.pid, 0)
    if status:
        raise errors.Unsupported("newuidmap refused; /etc/subuid and /etc/subgid must keep the same ids for you")


class Helper:
    """A child that stays in the old user namespace and maps ids when told to."""

    def __init__(self, maps: idmap.Maps) -> None:
        parent = os.getpid()
        come, self.go = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self.go)
            code = 1
            try:
                if os.read(come, 1):
                    steps.execute(idmap.plan(maps, parent), {})
                    code = 0
            finally:
                os._exit(code)
        os.close(come)


helper: Helper | None = None


def hold(paths: tuple[str, ...]) -> dict[str, int]:
    """A descriptor for each path: it stays what it is, whatever is mounted over the name."""
    return {path: os.open(path, os.O_PATH | os.O_CLOEXEC) for path in paths}


def show_again(held: dict[str, int], path: str, at: str) -> None:
    """Bind a held directory, mostly at its own name, which may have been hidden."""
    os.makedirs(at, exist_ok=True)
    syscalls.mount(f"/proc/self/fd/{held[path]}", at, "", syscalls.MS_BIND | syscalls.MS_REC)


def set_readonly(path: str, readonly: bool) -> None:
    """mount_setattr(2), for the mount and all below it; cgroups stay writable to whom they belong."""
    on, off = (MOUNT_ATTR_RDONLY, 0) if readonly else (0, MOUNT_ATTR_RDONLY)
    attributes = b"".join(word.to_bytes(8, "little") for word in (on, off, 0, 0))
    syscalls.syscall("mount_setattr", AT_FDCWD, os.fsencode(path), AT_RECURSIVE, attributes, len(attributes))
    if path == "/":
        for kept in ("/proc", "/dev/pts", "/sys/fs/cgroup"):
            set_readonly(kept, False)


def own_sysfs() -> None:
    """A new sysfs over the machine's, with the machine's cgroups in it."""
    groups = os.open("/sys/fs/cgroup", os.O_PATH | os.O_CLOEXEC)
    syscalls.mount("sysfs", "/sys", "sysfs", syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC)
    syscalls.mount(f"/proc/self/fd/{groups}", "/sys/fs/cgroup", "", syscalls.MS_BIND | syscalls.MS_REC)
    os.close(groups)


def limit() -> None:
    """setrlimit(2): processes in this user namespace; memory of each, three quarters of the machine's."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * 3 // 4
    for kind, wanted in ((resource.RLIMIT_NPROC, PROCESSES), (resource.RLIMIT_DATA, memory), (resource.RLIMIT_CORE, 0)):
        hard = resource.getrlimit(kind)[1]
        if hard == resource.RLIM_INFINITY or hard > wanted:
            resource.setrlimit(kind, (wanted, wanted))


# -------------------------------------------------------------------------------------------------------- the processes


def main(words: list[str]) -> int:
    """CONNECTION_FILE COMMAND…, or --explain."""
    if words[:1] == ["--explain"]:
        from . import explain

        maps = None if host.is_root() else idmap.here()
        os.environ.setdefault("MINICONTAINER_COURSE", os.path.expanduser("~/minicontainer-course"))
        print(explain.text(steps.about("namespaces", outside(maps)), "keeper"))
        print(explain.text(steps.about("mounts", inside(Places("/run/jupyter/kernel.json"))), "process 1"))
        return 0
    connection_file, *command = words
    try:
        with open(connection_file) as file:
            if json.load(file).get("transport") != "ipc":
                raise errors.Unsupported(
                    "this kernel has a network of its own, so Jupyter must talk to it by unix sockets: start it with "
                    "--KernelManager.transport=ipc, or by ./dev notebooks"
                )
        mend = obstacle()
        if mend:
            raise errors.Unsupported(mend)
        if wants_scope():
            return scope()
        make_room()
        places = Places(connection_file)
        if host.is_root():
            userns.keep(places.scratch)
        return front(places, command)
    except (errors.MiniContainerError, OSError) as error:
        print(f"minicontainer: the notebooks' kernel: {error}", file=sys.stderr)
        return 1


def obstacle() -> str:
    """Why this user can have no sandbox, with the command that mends it; empty if he can."""
    if os.geteuid() == 0:
        return ""
    fact = host.user_namespaces_fact()
    if fact.state == "ok":
        return ""
    return f"{fact.said}. Allow it:  {fact.mend}   or run the notebooks as root:  sudo ./dev notebooks"


def wants_scope() -> bool:
    """Whether systemd could lend this user a cgroup, and has not yet: with it, limits work in notebooks, too."""
    return (
        os.geteuid() != 0
        and cgroups.version() == 2
        and os.path.exists(f"{os.environ.get('XDG_RUNTIME_DIR', '')}/systemd/private")
        and "MINICONTAINER_SCOPE" not in os.environ
    )


def scope() -> int:
    """Become `systemd-run --user --scope`, which becomes us again, in a cgroup that is ours."""
    os.environ["MINICONTAINER_SCOPE"] = "1"
    words = ["systemd-run", "--user", "--scope", "--quiet", "-p", "Delegate=yes", "-p", f"TasksMax={PROCESSES}"]
    again = [sys.executable, "-m", "minicontainer.teach.sandbox", *sys.argv[1:]]
    try:
        os.execvp(words[0], [*words, "--", *again])
    except FileNotFoundError:
        os.execv(sys.executable, again)


def make_room() -> None:
    """In a cgroup that is delegated to us, go one level down: a cgroup with processes of its own hands no controllers
    to its children (v2), and the cells, which see only their own pid namespace, could not move us out of their way."""
    if not host.is_root() and cgroups.version() == 2 and cgroups.usable():
        layout = cgroups.detect()
        cgroups.move_to_leaf(layout.mounts[""] + layout.own.removesuffix(f"/{cgroups.LEAF}"))


def front(places: Places, command: list[str]) -> int:
    """Fork the keeper and wait, for it or for Jupyter to end. Our end, however it comes, closes the pipe that the
    keeper listens to."""
    theirs, ours = os.pipe()
    keeper = os.fork()
    if keeper == 0:
        os.close(ours)
        os.setsid()
        code = 1
        try:
            code = keep(places, command, theirs)
        except (errors.MiniContainerError, OSError) as error:
            notes = "".join(f", {note}" for note in getattr(error, "__notes__", ()))
            print(f"minicontainer: the notebooks' kernel: {error}{notes}", file=sys.stderr)
        finally:
            os._exit(code)
    os.close(theirs)
    # Jupyter's SIGTERM ends us, and so the pipe; an interrupt comes as a message (kernel.json, interrupt_mode).
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    jupyter = os.pidfd_open(int(os.environ.get("JPY_PARENT_PID") or os.getppid()))
    ready, _, _ = select.select([os.pidfd_open(keeper), jupyter], [], [])
    if jupyter in ready:
        return 1
    return os.waitstatus_to_exitcode(os.waitpid(keeper, 0)[1]) % 256


def keep(places: Places, command: list[str], alive: int) -> int:
    """The keeper: namespaces, process 1, the wait for its end or the front's, and the cleaning."""
    global helper
    for path in (*places.written, places.scratch, places.cache):
        files.make_directory(path, 0o755)
    files.make_directory(f"{places.scratch}/var-tmp", 0o1777)
    maps = None if host.is_root() else idmap.here()
    if maps and maps.helped:
        helper = Helper(maps)
    bound: steps.Values = {}
    steps.execute(outside(maps), bound)
    one = os.fork()
    if one == 0:
        be_process_one(places, command)
    ended = os.pidfd_open(one)
    select.select([alive, ended], [], [])  # the front writes nothing: readable means that it is gone
    try:
        signal.pidfd_send_signal(ended, signal.SIGKILL)
    except ProcessLookupError:
        pass
    code = os.waitstatus_to_exitcode(os.waitpid(one, 0)[1])
    clean(places)
    return code % 256


def clean(places: Places) -> None:
    """Nobody runs any more. What lessons kept on disk and in cgroups goes; all else went with the namespaces."""
    from ..engine import system
    from . import lesson

    for name in os.listdir(places.scratch):
        if name.startswith("lesson"):
            for path in lesson.cgroups_by_hand(name):
                steps.execute(cgroups.remove(path), {})
        store = f"{places.scratch}/{name}/store"
        if os.path.isdir(store):
            os.environ["MINICONTAINER_ROOT"] = store
            system.System(store).reset()
    files.remove_tree(places.scratch)


def be_process_one(places: Places, command: list[str]) -> None:
    """Process 1: mounts, then the kernel as a child, then nothing but reaping until that has ended."""
    code = 1
    try:
        syscalls.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        steps.execute(inside(places), {})
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        kernel = os.fork()
        if kernel == 0:
            become_kernel(places, command)
        while True:
            pid, status = os.wait()
            if pid == kernel:
                code = os.waitstatus_to_exitcode(status) % 256
                break
    except (errors.MiniContainerError, OSError) as error:
        notes = "".join(f", {note}" for note in getattr(error, "__notes__", ()))
        print(f"minicontainer: the notebooks' kernel: {error}{notes}", file=sys.stderr)
    finally:
        os._exit(code)


def become_kernel(places: Places, command: list[str]) -> None:
    """execve(2) the kernel, with an environment in which everything is written where it may be."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    os.setsid()  # an interrupt goes to a whole process group: the cell's programs, not process 1
    environment: dict[str, Any] = dict(os.environ)
    environment.pop("XDG_RUNTIME_DIR", None)
    environment |= {
        "MINICONTAINER_SANDBOX": "1",
        "JPY_PARENT_PID": "1",  # else ipykernel believes that it was started by hand
        "MINICONTAINER_SCRATCH": places.scratch,
        "MPLCONFIGDIR": f"{places.cache}/matplotlib",
        "IPYTHONDIR": f"{places.cache}/ipython",
        "XDG_CACHE_HOME": places.cache,
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    os.execvpe(command[0], command, environment)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
