"""The child: from a fresh fork to the container's command, step by step, in its own namespaces.

`plan` is made before the fork from the OCI config alone. It runs in the child, which tells its parent where it stands
and waits for what only the parent can do (the cgroup, the network). An error travels up the channel; if the parent is
gone, the child ends. Nothing is imported once the root has changed: it would be code from the image.
"""

from __future__ import annotations

import errno
import os
import resource
import stat

import _prctl  # type: ignore[import-not-found]  # the C half of python-prctl: 0.3 ms, not 3

from .. import errors, files, steps, syscalls
from .. import signals as signal
from ..kernel import capabilities, cgroups, keyring, mounts, namespaces, rootfs, seccomp, terminal
from . import channel, hooks, threshold, waiting

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing: 4 ms of every start
    import _socket as socket
    from collections.abc import Iterator
    from typing import Any, NoReturn

    from ..kernel.idmap import Maps

CHANNEL = steps.Symbol("channel")

# The annotation that an image's architecture becomes (OCI image specification, conversion.md).
ARCHITECTURE = "org.opencontainers.image.architecture"

THRESHOLD = steps.Symbol("threshold")
DIRECTORY = steps.Symbol("directory")


def plan(config: dict[str, Any], root: str, stdin: bool, held: waiting.Held | None = None) -> Iterator[steps.Step]:
    """Every step of the child. `root` is the directory that becomes `/`; with `stdin`, it keeps its standard input.

    A command that is `held` waits to be started (waiting.py).
    """
    process, linux = config["process"], config["linux"]
    spaces = linux["namespaces"]
    hooked = config.get("hooks") or {}

    mapped = namespaces.has(spaces, "user")
    before = namespaces.BEFORE if namespaces.go_between(spaces) else ()
    propagation = linux.get("rootfsPropagation") or "private"
    own = range(threshold.CHANNEL, threshold.CHANNEL + held.kept) if held else ()
    trees = mounts.taken(config["mounts"], linux)
    if held:
        yield from waiting.prepare(held)
    yield steps.call(
        begin,
        CHANNEL,
        stdin,
        *([waiting.FIFO] if held else []),
        *own,
        *trees.values(),
        why="a session of its own, with nothing open but what it is given; if the parent dies, so does it",
    )
    if mapped:
        yield steps.call(channel.wait, CHANNEL, "mapped", {}, why="until our ids mean something outside")
    else:
        yield from expose(process)
    if linux.get("scope"):
        yield steps.call(channel.wait, CHANNEL, "cgroup", {}, why="until systemd has put us into our cgroup")
    else:
        yield from steps.about("cgroups", cgroups.enter(linux["cgroupsPath"], linux.get("resources", {})))
    theirs = ("mount",) if not namespaces.new(spaces, "mount") else ()  # where /proc is may not be the same in there
    kinds = tuple(kind for kind in ("mount", "uts", "ipc", "network", "cgroup") if kind not in theirs)
    yield from steps.about("namespaces", namespaces.of_kinds(spaces, kinds, inside=before))
    yield from steps.about("namespaces", namespaces.of_kinds(spaces, ("time",), new_ones=False, inside=before))
    yield from steps.about("namespaces", namespaces.clocks(spaces, linux.get("timeOffsets") or {}))
    yield from steps.about("namespaces", namespaces.of_kinds(spaces, theirs))
    if namespaces.new(spaces, "network"):
        from .. import netlink  # noqa: F401 -- now, not in the child's other root

        lo = steps.link_set("lo", up=True, why="the loopback of a new network namespace is down")
        yield lo._replace(concept="namespaces")
    yield steps.call(channel.tell, CHANNEL, "namespaces", why="the parent can now plug in the network")

    connected = mounts.connected(config["mounts"], trees)
    yield from steps.about("mounts", mounts.connect(config["mounts"], connected))
    lent = linux.get("lent")  # it lives among our own mounts
    yield from steps.about("rootfs", (rootfs.lend if lent else rootfs.private)(root, propagation))
    if mapped:
        yield steps.chdir(root, why="hold on to it: who we become may not be allowed to walk there")
        root = "."
        yield from become_root()
        process = {**process, **RANKED}
    yield from steps.about("mounts", mounts.all_of(root, config["mounts"], {**trees, **connected}))
    if not any(os.path.normpath(m["destination"]) == "/dev" and m["type"] == "bind" for m in config["mounts"]):
        yield from steps.about(
            "rootfs", rootfs.devices(root, linux.get("devices", []), bound=mapped)
        )  # never in the host's own /dev

    if config.get("hostname"):
        yield steps.sethostname(config["hostname"], why="the name that its prompt shows")._replace(concept="namespaces")
    if config.get("domainname"):
        yield steps.call(
            syscalls.setdomainname, config["domainname"], why="what uname(2) calls its domain (NIS, not DNS)"
        )._replace(concept="namespaces")

    networked = steps.call(channel.wait, CHANNEL, "network", {}, why="its interface is up before its command runs")
    if hooked.get("createContainer"):  # after those that the parent runs, and with the host's files still in sight
        yield networked
        yield steps.call(
            hooks.run, hooked["createContainer"], waiting.STATE, why="the caller's own programs, in its namespaces"
        )
    yield from steps.about("rootfs", (rootfs.enter if lent else rootfs.pivot)(root))
    if not hooked.get("createContainer"):
        yield networked
    for key, value in linux.get("sysctl", {}).items():
        yield steps.put(f"/proc/sys/{key.replace('.', '/')}", value, why="a kernel parameter of its own namespaces")
    if process.get("terminal"):
        size = process.get("consoleSize") or {}
        yield steps.call(
            give_terminal,
            CHANNEL,
            process["user"].get("uid", 0),
            size.get("height", 0),
            size.get("width", 0),
            why="a terminal of its own, relayed to ours",
        )._replace(concept="terminal")
    yield from steps.about("rootfs", rootfs.hide(linux.get("maskedPaths", []), linux.get("readonlyPaths", [])))
    yield steps.call(
        make_directory, process["cwd"], why="a working directory that the image lacks is made, as docker does"
    )
    if config["root"].get("readonly"):
        yield from steps.about("rootfs", rootfs.readonly())
    yield from steps.about("rootfs", rootfs.propagate(propagation))
    yield from pose(linux)
    yield from keyring.plan(linux, made=True)
    last = waiting.command(held, process, hooked.get("startContainer") or [], CHANNEL, THRESHOLD) if held else ()
    architecture = config.get("annotations", {}).get(ARCHITECTURE, "")
    yield from command(process, linux.get("seccomp"), architecture, last, len(own))


def become_root() -> Iterator[steps.Step]:
    """In a user namespace: from the machine's root, who is nobody in there, to its own."""
    from ..kernel import idmap

    yield steps.call(idmap.become_root, why="whose files its files are")._replace(concept="namespaces")
    yield steps.call(live_with_parent, why="a change of user takes that back (prctl(2))")


def pipes(maps: Maps | steps.Symbol, process: dict[str, Any]) -> Iterator[steps.Step]:
    """Before the fork of a process for a user namespace with these maps: what root in there could not do."""
    from ..kernel import idmap

    ids = process["user"]["uid"], process["user"]["gid"]
    yield steps.call(idmap.give_pipes, maps, *ids, why="its /dev/stdout is for its user to open")._replace(
        concept="namespaces"
    )


def live_with_parent() -> None:
    """prctl(PR_SET_PDEATHSIG): we end when our parent does."""
    _prctl.prctl(_prctl.PR_SET_PDEATHSIG, signal.SIGKILL)


RANKED = {"scheduler": None, "ioPriority": None}  # of a process that was ranked from outside


def expose(process: dict[str, Any], pid: int | steps.Symbol = 0) -> Iterator[steps.Step]:
    """The spec's process.oomScoreAdj, of this process or the one with that `pid`.

    While /proc is still ours: that of a container may lead a write elsewhere. And from outside of a user namespace:
    in there, nobody may be spared more than others.
    """
    if process.get("oomScoreAdj") is not None:
        path = steps.Text(("/proc/", pid, "/oom_score_adj")) if pid else "/proc/self/oom_score_adj"
        yield steps.put(path, str(process["oomScoreAdj"]), why="whom the kernel kills first")


def rank(process: dict[str, Any], pid: int | steps.Symbol = 0) -> Iterator[steps.Step]:
    """The spec's process.scheduler and ioPriority, of this process or the one with that `pid`: as with `expose`."""
    if process.get("scheduler") or process.get("ioPriority"):
        from ..kernel import priorities

        yield from steps.about("cgroups", priorities.plan(process, pid))


def pose(linux: dict[str, Any]) -> Iterator[steps.Step]:
    """The spec's linux.personality."""
    if linux.get("personality"):
        from ..kernel import priorities

        yield from priorities.pose(linux["personality"])


def command(
    process: dict[str, Any],
    profile: dict[str, Any] | None,
    architecture: str,
    last: steps.Plan = (),
    kept: int = 0,
) -> Iterator[steps.Step]:
    """From a process inside to the command, for `run` and `exec` alike; `last`: what comes right before it.

    `kept`: how many descriptors from 3 on are its own.
    """
    yield steps.call(
        threshold.prepare,
        *([kept] if kept else []),
        why="what /proc/self/exe will lead to, should the command ask: not our Python",
        result="threshold",
    )
    if process.get("apparmorProfile"):
        from ..kernel import apparmor

        yield from steps.about("apparmor", apparmor.plan(process))
    yield from identity(process, profile)
    yield from last
    yield steps.call(
        execute,
        process["args"],
        process["env"],
        CHANNEL,
        THRESHOLD,
        architecture,
        *([kept] if kept else []),
        why="become the command: same process, new program",
    )


def identity(process: dict[str, Any], profile: dict[str, Any] | None) -> Iterator[steps.Step]:
    """Who the command is and what it may do: the order is the whole point.

    Loading a filter needs CAP_SYS_ADMIN or no_new_privs (seccomp(2)), so without the latter it comes before the
    capabilities go, and else last, where it need not allow what init itself still calls.
    """
    user = process["user"]
    yield steps.call(
        find_directory,
        process["cwd"],
        why="which directory that is, as the root has it: a filter may forbid to ask that way",
        result="directory",
    )
    filter_early = profile is not None and not process.get("noNewPrivileges")
    for limit in process.get("rlimits", []):
        yield steps.call(
            set_limit, limit["type"], limit["soft"], limit["hard"], why="a bound on what one process may use"
        )
    yield from rank(process)
    if process.get("noNewPrivileges"):
        yield from steps.about("capabilities", capabilities.no_new_privileges())
    yield from steps.about("capabilities", capabilities.bound(process.get("capabilities", {})))
    if filter_early:
        yield from steps.about("seccomp", filtered(profile))
    masked = [user["umask"]] if user.get("umask") is not None else []
    yield steps.call(
        become, user["uid"], user["gid"], user.get("additionalGids") or [], *masked, why="the user that was asked for"
    )
    yield from steps.about("capabilities", capabilities.apply(process.get("capabilities", {}), user["uid"]))
    yield steps.call(
        enter_directory, process["cwd"], DIRECTORY, why="the working directory, with the command's own rights"
    )
    if profile is not None and not filter_early:
        yield from steps.about("seccomp", filtered(profile))


def filtered(profile: dict[str, Any] | None) -> Iterator[steps.Step]:
    """The filter, of which somebody outside may hear (listener.py)."""
    if profile and profile.get("listenerPath"):
        from . import listener

        words = CHANNEL, seccomp.program(profile), seccomp.flags(profile)
        yield steps.call(listener.load, *words, why="the kernel asks somebody outside what it is to do")
    else:
        yield from seccomp.load(profile)


def fork(
    child_plan: list[steps.Step], ours: socket.socket, theirs: socket.socket, report: bool, kinds: int = 0,
    given: tuple[tuple[str, int], ...] = (),
) -> int:  # fmt: skip
    """fork(2), into new namespaces of these `kinds`. The child performs its plan and never returns. Its pid.

    Descriptors that are `given` to the child, by the names of their symbols, are no longer ours.
    """
    pid = syscalls.fork(kinds) if kinds else os.fork()
    if pid:
        theirs.close()
        for _, descriptor in given:
            os.close(descriptor)
        return pid
    try:
        ours.close()
        perform(child_plan, theirs, report, **dict(given))
    finally:
        os._exit(127)  # whatever happens: a child never goes on as if it were its parent


def perform(child_plan: list[steps.Step], end: socket.socket, report: bool, **bound: Any) -> None:
    """Execute the plan in the child, its symbols `bound`; any error goes up the channel."""
    count = 0

    def observe(step: steps.Step, began: float, ended: float) -> None:
        nonlocal count
        channel.send(end, {"step": count, "began": began, "ended": ended})
        count += 1

    try:
        steps.execute(child_plan, {CHANNEL.name: end, **bound}, observe if report else None)
    except BaseException as error:
        channel.send(end, {"error": channel.describe(error)})


def begin(end: socket.socket, stdin: bool, *kept: int) -> None:
    """A new session, a parent whose death is ours, the signals as a fresh program expects them.

    What our parent has open is closed: a directory of the host's that is open here is a way out of the new root
    (CVE-2024-21626: a working directory of /proc/self/fd/N).
    """
    keep_open(end.fileno(), *kept)
    live_with_parent()
    os.setsid()
    os.umask(0o022)
    for number in signal.valid_signals():  # execve keeps what is ignored: by Python, the monitor, or a nohup before us
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    if not stdin:
        null = os.open("/dev/null", os.O_RDONLY)
        os.dup2(null, 0)
        os.close(null)


def keep_open(*descriptors: int) -> None:
    """Close all descriptors but the standard ones and these."""
    first = 3
    for descriptor in sorted(descriptors):
        if descriptor > first:
            syscalls.close_range(first, descriptor - 1)
        first = descriptor + 1
    syscalls.close_range(first)


def make_directory(path: str) -> None:
    """The directory and its parents, below our root whatever links are on the way, those of /proc included."""
    root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.close(files.make_inside(root, path, directory=True))
    except OSError as error:
        raise errors.KernelError(
            error.errno or 0, "mkdir", (path,), MAGIC if error.errno == errno.ELOOP else ""
        ) from None
    finally:
        os.close(root)


MAGIC = "it leads through a magic link of /proc, which may lead out of the container"


def give_terminal(end: socket.socket, uid: int, rows: int, columns: int) -> None:
    """Open the pseudo-terminal and send its master up the channel."""
    master = terminal.open_pty(uid, rows, columns)
    channel.send(end, {"terminal": True}, master)
    os.close(master)


def set_limit(kind: str, soft: int, hard: int) -> None:
    """setrlimit(2) by name (RLIMIT_NOFILE ...); -1 is no limit, and so is 2**64 - 1, as engines in Go write it."""
    bounds = [value if value < 1 << 63 else resource.RLIM_INFINITY for value in (soft, hard)]
    try:
        resource.setrlimit(getattr(resource, kind), (bounds[0], bounds[1]))
    except (ValueError, OSError) as error:
        number = error.errno if isinstance(error, OSError) and error.errno else 1
        hint = "raising a hard limit needs CAP_SYS_RESOURCE, which this process lacks"
        raise errors.KernelError(number, "setrlimit", (kind, soft, hard), hint) from None


def become(uid: int, gid: int, groups: list[int], umask: int = 0o022) -> None:
    """setgroups(2), setresgid(2), setresuid(2), in this order: afterwards none of them would be allowed."""
    os.umask(umask)
    try:
        capabilities.set_groups(groups, gid)
        for descriptor in (0, 1, 2):  # /dev/stdout can be opened by who owns the pipe behind it, as with runc
            found = os.fstat(descriptor)
            if stat.S_ISFIFO(found.st_mode) and found.st_uid != uid:
                try:
                    os.fchown(descriptor, uid, -1)
                except PermissionError:
                    pass  # its owner has no number in this user namespace: runc goes on, too
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    except OSError as error:
        hint = f"is user {uid}:{gid} mapped in this user namespace? see /proc/self/uid_map"
        raise errors.KernelError(error.errno or 0, "setresuid", (uid, gid), hint) from None
    live_with_parent()  # a change of user clears it (prctl(2))


def find_directory(path: str) -> int:
    """The working directory, open: one of the container's own, whatever links are on the way (CVE-2024-21626)."""
    root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return files.inside(root, path, os.O_PATH | os.O_DIRECTORY)
    except OSError as error:
        hint = MAGIC if error.errno == errno.ELOOP else NO_DIRECTORY
        raise errors.KernelError(error.errno or 0, "chdir", (path,), hint) from None
    finally:
        os.close(root)


def enter_directory(path: str, found: int) -> None:
    """chdir(2), which asks whether the user may walk there, and fchdir(2) to what was `found` there, and is closed.

    With the oldest system calls there are: the container's own filter may be loaded by now, and know no others.
    """
    try:
        os.chdir(path)
        os.fchdir(found)
    except OSError as error:
        raise errors.KernelError(error.errno or 0, "chdir", (path,), NO_DIRECTORY) from None
    os.close(found)


NO_DIRECTORY = "is it a directory that the user may enter?"


def execute(
    arguments: list[str],
    environment: list[str],
    end: socket.socket,
    sealed: int,
    architecture: str = "",
    kept: int = 0,
) -> NoReturn:
    """execve(2), looking the command up in the container's PATH, by way of threshold.py's program.

    Raises CommandNotFound (exit code 127) or CommandNotExecutable (126), worded as runc words it: other engines read
    that text. So does the other side of the channel, for what the kernel refuses last.
    """
    variables = dict(line.split("=", 1) for line in environment if "=" in line)
    path = threshold.find(arguments[0], variables)
    channel.tell(end, "command", name=arguments[0], architecture=architecture)
    end.setblocking(False)
    try:
        if end.recv(1) == b"":
            os._exit(127)  # the parent died while no signal was set to tell
    except BlockingIOError:
        pass
    threshold.cross(sealed, end.fileno(), path, arguments, variables, kept)
