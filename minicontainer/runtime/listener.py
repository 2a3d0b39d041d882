"""A seccomp listener: somebody outside who answers for system calls that a filter leaves to him (seccomp_unotify(2)).

the process                               its parent                         the listener, at listenerPath
load the filter: a descriptor
     ── "listening", its number ────────▶ take it (pidfd_getfd(2))
                                          send it, and the state ──────────▶ answers from now on
     ◀─────────────────────── "heard" ──
whatever calls the filter names wait for the answer

What the process calls in between must not wait: `write`, by which it says so, may not be left to the listener (as with
runc). The message is the specification's ContainerProcessState (config-linux.md, Seccomp), the descriptor beside it.
"""

from __future__ import annotations

import os

from .. import errors, steps, syscalls
from .. import quickjson as json
from . import channel

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing: 4 ms of every start
    import _socket as socket
    from collections.abc import Iterator
    from typing import Any

SECCOMP_FILTER_FLAG_TSYNC, SECCOMP_FILTER_FLAG_NEW_LISTENER, SECCOMP_FILTER_FLAG_TSYNC_ESRCH = 1, 8, 16


def load(end: socket.socket, program: bytes, flags: int) -> None:
    """The process: load the filter, have its descriptor taken, go on."""
    flags |= SECCOMP_FILTER_FLAG_NEW_LISTENER
    flags |= SECCOMP_FILTER_FLAG_TSYNC_ESRCH if flags & SECCOMP_FILTER_FLAG_TSYNC else 0
    descriptor = syscalls.seccomp_load(program, flags)
    os.write(end.fileno(), channel.packet({"reached": "listening", "descriptor": descriptor}))
    channel.wait(end, "heard", {})
    os.close(descriptor)


def plan(
    end: steps.Symbol, values: steps.Symbol, seccomp: dict[str, Any], state: dict[str, Any]
) -> Iterator[steps.Step]:
    """The parent's steps, for a filter that has a listener. `state`: the container's, as the OCI has it."""
    yield steps.call(channel.wait, end, "listening", values, why="until the filter is there")
    yield steps.call(hand_over, end, steps.PID, values, seccomp, state, why="who answers for the calls it names")


def hand_over(end: socket.socket, pid: int, values: dict[str, Any], seccomp: dict[str, Any], state: Any) -> None:
    """Take the descriptor out of the process, and send it to the listener. Raises KernelError."""
    import _socket as socket

    process = os.pidfd_open(pid)
    try:
        descriptor = syscalls.syscall("pidfd_getfd", process, values["descriptor"], 0)
    except errors.KernelError as error:
        error.hint = "a listener needs CAP_SYS_PTRACE of who makes the container"
        raise
    finally:
        os.close(process)
    said = {
        "ociVersion": state["ociVersion"], "fds": ["seccompFd"], "pid": pid,
        "metadata": seccomp.get("listenerMetadata", ""), "state": {**state, "pid": state.get("pid") or pid},
    }  # fmt: skip
    door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        door.connect(seccomp["listenerPath"])
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, channel.rights(descriptor))]
        door.sendmsg([json.dumps(said).encode()], rights)
    except OSError as error:
        hint = "linux.seccomp.listenerPath: a socket at which somebody listens"
        raise errors.KernelError(error.errno or 0, "connect", (seccomp["listenerPath"],), hint) from None
    finally:
        door.close()
        os.close(descriptor)
    channel.tell(end, "heard")
