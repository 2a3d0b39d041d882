"""The child: from a fresh fork to the container's command, step by step, in its own namespaces.

`plan` is made before the fork from the OCI config alone. It runs in the child, which tells its parent where it stands
and waits for what only the parent can do (the cgroup, the network). An error travels up the channel; if the parent is
gone, the child ends. Nothing is imported once the root has changed: it would be code from the image.
"""

from __future__ import annotations

import errno
import os
import resource
import signal
import stat

import _prctl  # type: ignore[import-not-found]  # the C half of python-prctl: 0.3 ms, not 3

from .. import errors, steps, syscalls
from ..kernel import capabilities, cgroups, mounts, namespaces, rootfs, seccomp, terminal
from . import channel

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing: 4 ms of every start
    import _socket as socket
    from collections.abc import Iterator
    from typing import Any, NoReturn

CHANNEL = steps.Symbol("channel")

# The annotation that an image's architecture becomes (OCI image specification, conversion.md).
ARCHITECTURE = "org.opencontainers.image.architecture"

CLOSE_RANGE_CLOEXEC = 4  # close_range(2)


def plan(config: dict[str, Any], root: str, stdin: bool) -> Iterator[steps.Step]:
    """Every step of the child. `root` is the directory that becomes `/`; with `stdin`, it keeps its standard input."""
    process, linux = config["process"], config["linux"]
    spaces = linux["namespaces"]

    yield steps.call(begin, stdin, why="a session of its own; if the parent dies, so does it")
    yield from steps.about("cgroups", cgroups.enter(linux["cgroupsPath"], linux.get("resources", {})))
    yield from steps.about("namespaces", namespaces.of_kinds(spaces, ("mount", "uts", "ipc", "network", "cgroup")))
    if namespaces.new(spaces, "network"):
        lo = steps.link_set("lo", up=True, why="the loopback of a new network namespace is down")
        yield lo._replace(concept="namespaces")
    yield steps.call(channel.tell, CHANNEL, "namespaces", why="the parent can now plug in the network")

    yield from steps.about("rootfs", rootfs.private(root))
    yield from steps.about("mounts", mounts.all_of(root, config["mounts"]))
    if not any(os.path.normpath(m["destination"]) == "/dev" and m["type"] == "bind" for m in config["mounts"]):
        yield from steps.about("rootfs", rootfs.devices(root, linux.get("devices", [])))  # never in the host's own /dev

    if config.get("hostname"):
        yield steps.sethostname(config["hostname"], why="the name that its prompt shows")._replace(concept="namespaces")

    yield from steps.about("rootfs", rootfs.pivot(root))
    yield steps.call(channel.wait, CHANNEL, "network", {}, why="its interface is up before its command runs")
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
    yield steps.mkdir(process["cwd"], why="a working directory that the image lacks is made, as docker does")
    if config["root"].get("readonly"):
        yield from steps.about("rootfs", rootfs.readonly())
    yield from identity(process, linux.get("seccomp"))
    yield steps.call(
        execute,
        process["args"],
        process["env"],
        CHANNEL,
        config.get("annotations", {}).get(ARCHITECTURE, ""),
        why="become the command: same process, new program",
    )


def identity(process: dict[str, Any], profile: dict[str, Any] | None) -> Iterator[steps.Step]:
    """Who the command is and what it may do: the order is the whole point.

    Loading a filter needs CAP_SYS_ADMIN or no_new_privs (seccomp(2)), so without the latter it comes before the
    capabilities go, and else last, where it need not allow what init itself still calls.
    """
    user = process["user"]
    filter_early = profile is not None and not process.get("noNewPrivileges")
    for limit in process.get("rlimits", []):
        yield steps.call(
            set_limit, limit["type"], limit["soft"], limit["hard"], why="a bound on what one process may use"
        )
    if process.get("oomScoreAdj") is not None:
        yield steps.put("/proc/self/oom_score_adj", str(process["oomScoreAdj"]), why="whom the kernel kills first")
    if process.get("noNewPrivileges"):
        yield from steps.about("capabilities", capabilities.no_new_privileges())
    yield from steps.about("capabilities", capabilities.bound(process.get("capabilities", {})))
    if filter_early:
        yield from steps.about("seccomp", seccomp.load(profile))
    yield steps.call(
        become, user["uid"], user["gid"], user.get("additionalGids", []), why="the user that was asked for"
    )
    yield from steps.about("capabilities", capabilities.apply(process.get("capabilities", {}), user["uid"]))
    yield steps.call(enter_directory, process["cwd"], why="the working directory, with the command's own rights")
    if profile is not None and not filter_early:
        yield from steps.about("seccomp", seccomp.load(profile))


def fork(child_plan: list[steps.Step], ours: socket.socket, theirs: socket.socket, report: bool) -> int:
    """fork(2). The child performs its plan and never returns; the parent gets its pid."""
    pid = os.fork()
    if pid:
        theirs.close()
        return pid
    try:
        ours.close()
        perform(child_plan, theirs, report)
    finally:
        os._exit(127)  # whatever happens: a child never goes on as if it were its parent


def perform(child_plan: list[steps.Step], end: socket.socket, report: bool) -> None:
    """Execute the plan in the child; any error goes up the channel."""
    count = 0

    def observe(step: steps.Step, began: float, ended: float) -> None:
        nonlocal count
        channel.send(end, {"step": count, "began": began, "ended": ended})
        count += 1

    try:
        steps.execute(child_plan, {CHANNEL.name: end}, observe if report else None)
    except BaseException as error:
        channel.send(end, {"error": channel.describe(error)})


def begin(stdin: bool) -> None:
    """A new session, a parent whose death is ours, the signals as a fresh program expects them."""
    _prctl.prctl(_prctl.PR_SET_PDEATHSIG, signal.SIGKILL)
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


def give_terminal(end: socket.socket, uid: int, rows: int, columns: int) -> None:
    """Open the pseudo-terminal and send its master up the channel."""
    master = terminal.open_pty(uid, rows, columns)
    channel.send(end, {"terminal": True}, master)
    os.close(master)


def set_limit(kind: str, soft: int, hard: int) -> None:
    """setrlimit(2) by name (RLIMIT_NOFILE ...); -1 is no limit."""
    try:
        resource.setrlimit(getattr(resource, kind), (soft, hard))
    except (ValueError, OSError) as error:
        number = error.errno if isinstance(error, OSError) and error.errno else 1
        hint = "raising a hard limit needs CAP_SYS_RESOURCE, which this process lacks"
        raise errors.KernelError(number, "setrlimit", (kind, soft, hard), hint) from None


def become(uid: int, gid: int, groups: list[int]) -> None:
    """setgroups(2), setresgid(2), setresuid(2), in this order: afterwards none of them would be allowed."""
    try:
        with open("/proc/self/setgroups") as file:
            allowed = file.read().strip() == "allow"
        if allowed:
            os.setgroups(groups)
        elif set(groups) - {gid}:
            raise errors.Unsupported("this user namespace forbids setgroups(2): run without --group-add")
        for descriptor in (0, 1, 2):  # /dev/stdout can be opened by who owns the pipe behind it, as with runc
            if stat.S_ISFIFO(os.fstat(descriptor).st_mode):
                os.fchown(descriptor, uid, -1)
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    except OSError as error:
        hint = f"is user {uid}:{gid} mapped in this user namespace? see /proc/self/uid_map"
        raise errors.KernelError(error.errno or 0, "setresuid", (uid, gid), hint) from None
    _prctl.prctl(_prctl.PR_SET_PDEATHSIG, signal.SIGKILL)  # a change of user clears it (prctl(2))


def enter_directory(path: str) -> None:
    """chdir(2) to the working directory, which was made with the mounts if the image lacked it."""
    try:
        os.chdir(path)
    except OSError as error:
        raise errors.KernelError(
            error.errno or 0, "chdir", (path,), "is it a directory that the user may enter?"
        ) from None


def execute(arguments: list[str], environment: list[str], end: socket.socket, architecture: str = "") -> NoReturn:
    """execve(2), looking the command up in the container's PATH.

    Raises CommandNotFound (exit code 127) or CommandNotExecutable (126), worded as runc words it: other engines read
    that text.
    """
    channel.tell(end, "command")
    end.setblocking(False)
    try:
        if end.recv(1) == b"":
            os._exit(127)  # the parent died while no signal was set to tell
    except BlockingIOError:
        pass
    syscalls.close_range(3, flags=CLOSE_RANGE_CLOEXEC)
    variables = dict(line.split("=", 1) for line in environment if "=" in line)
    name = arguments[0]
    if "/" in name:
        candidates = [name]
    else:
        candidates = [f"{directory or '.'}/{name}" for directory in variables.get("PATH", os.defpath).split(":")]
    refusal: OSError | None = None
    for path in candidates:
        try:
            os.execve(path, arguments, variables)
        except OSError as error:
            if not isinstance(error, FileNotFoundError | NotADirectoryError):
                refusal = error
                break
    if refusal is not None:
        hint = "is it a directory, or a file without permission to execute (chmod +x)?"
        if refusal.errno == errno.ENOEXEC:
            hint = not_for_this_machine(architecture)
        raise errors.CommandNotExecutable(refusal.errno or 0, "execve", (name,), hint)
    hint = "name a file that the image has; for a script, its interpreter (`#!`) must be there, too"
    if "/" not in name:
        hint = f"executable file not found in $PATH ({variables.get('PATH', os.defpath)})"
    raise errors.CommandNotFound(errno.ENOENT, "execve", (name,), hint)


def not_for_this_machine(architecture: str) -> str:
    """What to do about ENOEXEC; `architecture` is the image's, as the OCI writes it."""
    here = {"x86_64": "amd64", "aarch64": "arm64"}.get(syscalls.MACHINE, syscalls.MACHINE)
    if architecture in ("", here):
        return f"it is no program for this machine ({here}), nor a script that begins with `#!`"
    return f"the image is made for {architecture} and this machine is {here}: load the image's variant for {here}"
