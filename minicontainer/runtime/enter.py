"""`exec`: one more process in a container that runs (setns(2), pid_namespaces(7)).

keeper (stays outside)                joiner (goes inside)              the process itself
hold the container by a pidfd
fork ───────────────────────────────▶ enter the cgroup
                                      join all namespaces at once
                                      fork ───────────────────────────▶ born inside: it has seen nothing else
     ◀──────────────────── "born" ──  end
reap the joiner, and be the parent
     ─────────────────────────────────────────────────────── "go" ────▶ terminal, identity
     ◀───────────────────────────────────────────────────── "command" ─ execve

A process never enters a pid namespace, only its children do, so somebody has to fork in there. Who did so stands with
one leg in the container: it is gone a moment later, and its child is handed to the keeper, who asked for orphans
(PR_SET_CHILD_SUBREAPER). The keeper stays out of the container's cgroup and namespaces, and tells the exit code.

Nothing of ours can be used from inside: until its execve the process may be neither traced nor looked at
(PR_SET_DUMPABLE; CVE-2016-9962), it holds no descriptor but the channel, and what it becomes is the business of
threshold.py.
"""

from __future__ import annotations

import os

from .. import errors, steps, syscalls
from ..kernel import cgroups, keyring, namespaces, rootfs, terminal
from . import between, channel, init, launch, state, threshold, waiting

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing: 4 ms of every start
    import _socket as socket
    from collections.abc import Iterator
    from typing import Any

PROCESS = steps.Symbol("process")  # a pidfd of the container's init

PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h; python-prctl has no name for it


def plan(
    config: dict[str, Any], process: dict[str, Any], pid: int, started: int, outlives: bool = False, kept: int = 0,
    known: dict[str, Any] | None = None,
) -> Iterator[steps.Step]:  # fmt: skip
    """Start `process` (as the spec has it) inside the container that runs by `config`; the keeper's steps.

    `pid` and `started` say which process its init is. Which namespaces it has of its own is looked up now. One that
    `outlives` its keeper goes on when that ends. `kept`: how many descriptors from 3 on are its own. `known`: the
    container's state, for a seccomp listener.
    """
    own = range(threshold.CHANNEL, threshold.CHANNEL + kept)
    inside = list(born(config, process, outlives, own))
    joiner = list(join(config, process, pid, inside, own))
    yield steps.call(
        state.hold, pid, started, why="a pid may come to mean another process; a pidfd cannot", result="process"
    )
    if namespaces.has(config["linux"]["namespaces"], "user"):
        from ..kernel import idmap

        yield steps.call(idmap.of_process, pid, why="which ids are which outside", result=idmap.MAPS.name)
        yield from init.pipes(idmap.MAPS, process)
    yield steps.call(expect_orphans, why="the child of a process that has ended becomes ours, not the machine's")
    yield steps.call(
        send, joiner, launch.OURS, launch.THEIRS, PROCESS, why="one that goes inside, so that we can stay", result="pid"
    )
    yield steps.call(
        between.adopt, launch.OURS, steps.PID, why="its child, which is inside, is ours from here on", result="pid"
    )
    if namespaces.has(config["linux"]["namespaces"], "user"):
        yield from init.rank(process, steps.PID)
    yield steps.call(channel.tell, launch.OURS, "go", why="whose child it is has been settled")
    if known:
        yield from launch.heard(config["linux"].get("seccomp"), known)
    yield steps.call(
        channel.wait,
        launch.OURS,
        "execve",
        launch.VALUES,
        why="the stream ends when execve closes the child's end of it",
    )


def join(
    config: dict[str, Any], process: dict[str, Any], pid: int, inside: list[steps.Step], own: range
) -> Iterator[steps.Step]:
    """The joiner's steps, which end in the fork of the `process` whose steps are `inside`."""
    linux, kinds = config["linux"], namespaces.foreign(pid)
    yield from init.expose(process)
    yield steps.call(
        hide, init.CHANNEL, PROCESS, *own, why="who is inside must not look into us, nor find anything open"
    )
    yield from affinity(process, "initial")
    yield from steps.about("cgroups", cgroups.follow(linux["cgroupsPath"], pid, linux.get("resources", {})))
    yield from affinity(process, "final")
    if kinds:
        yield steps.call(
            namespaces.join, PROCESS, kinds, why="all at once, so that none of the container's own rules holds half-way"
        )._replace(concept="namespaces")
    if linux.get("lent"):
        root, _ = linux["lent"]
        yield from steps.about("rootfs", rootfs.enter(root))
    yield steps.call(fork, inside, init.CHANNEL, why="the pid namespace takes in only children")


def affinity(process: dict[str, Any], moment: str) -> Iterator[steps.Step]:
    """The spec's process.execCPUAffinity: before it is in the container's cgroup, and after."""
    if process.get("execCPUAffinity"):
        from ..kernel import priorities

        yield from steps.about("cgroups", priorities.affinity(process, moment))


def born(config: dict[str, Any], process: dict[str, Any], outlives: bool, own: range) -> Iterator[steps.Step]:
    """The steps of the process itself, which has never seen anything but the container.

    Its standard descriptors are the keeper's: what /dev/null is in here, the container may have decided.
    """
    yield steps.call(channel.wait, init.CHANNEL, "go", {}, why="until its parent is the one that stays")
    yield steps.call(init.begin, init.CHANNEL, True, *own, why="a session of its own; if the keeper dies, so does it")
    if namespaces.has(config["linux"]["namespaces"], "user"):
        yield from init.become_root()
        process = {**process, **init.RANKED}
    if process.get("terminal"):
        size = process.get("consoleSize") or {}
        yield steps.call(
            give_terminal,
            init.CHANNEL,
            process["user"]["uid"],
            size.get("height", 0),
            size.get("width", 0),
            why="a terminal of the container's own /dev/pts, relayed to ours",
        )._replace(concept="terminal")
    architecture = config.get("annotations", {}).get(init.ARCHITECTURE, "")
    yield from init.pose(config["linux"])
    yield from keyring.plan(config["linux"], made=False)
    last = [waiting.outliving()] if outlives else []
    yield from init.command(process, config["linux"].get("seccomp"), architecture, last, len(own))


def expect_orphans() -> None:
    """prctl(PR_SET_CHILD_SUBREAPER)."""
    syscalls.prctl(PR_SET_CHILD_SUBREAPER, 1)


def send(joiner: list[steps.Step], ours: socket.socket, theirs: socket.socket, process: int) -> int:
    """fork(2) the joiner, which performs its plan and never returns. Its pid."""
    pid = os.fork()
    if pid:
        theirs.close()
        return pid
    try:
        ours.close()
        init.perform(joiner, theirs, False, process=process)
    finally:
        os._exit(127)


def hide(end: socket.socket, process: int, *own: int) -> None:
    """Be looked into by nobody until execve. Of all that is open, the channel, the pidfd and its `own` are kept."""
    syscalls.hide()
    init.keep_open(end.fileno(), process, *own)


def fork(inside: list[steps.Step], end: socket.socket) -> None:
    """fork(2) into the pid namespace, and tell the keeper which process that is, by its number out here."""
    try:
        pid = os.fork()
    except OSError as error:
        hint = "has the container just ended, or as many processes as its --pids-limit allows?"
        raise errors.KernelError(error.errno or 0, "fork", (), hint) from None
    if pid:
        channel.send(end, {"reached": "born", "pid": pid})
        os._exit(0)
    try:
        init.perform(inside, end, False)
    finally:
        os._exit(127)


def give_terminal(end: socket.socket, uid: int, rows: int, columns: int) -> None:
    """Open a pseudo-terminal of the container's and send its master up the channel. /dev/console is another's."""
    master = terminal.open_pty(uid, rows, columns, console=False)
    channel.send(end, {"terminal": True}, master)
    os.close(master)
