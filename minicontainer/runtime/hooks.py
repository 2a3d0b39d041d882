"""Hooks: programs of the caller's, at fixed points of a container's life (config.md, POSIX-platform Hooks).

    prestart, createRuntime    the host's namespaces, once the container's are there: docker plugs in its network so
    createContainer            the container's namespaces, the host's files
    startContainer             the container's namespaces and files, just before its command
    poststart, poststop        the host's, after `start` and after `delete`

Each gets the container's state (runtime.md, State) on its standard input. What those of the first four kinds
refuse, by any exit code but 0, the container cannot be.
"""

from __future__ import annotations

import os
import select

from .. import errors
from .. import quickjson as json
from .. import signals as signal

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing: 4 ms of every start
    from typing import Any

    Hook = dict[str, Any]  # {path, args?, env?, timeout?}

KINDS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")


def numbered(state: dict[str, Any]) -> dict[str, Any]:
    """The state with this very process's pid, as the /proc that is mounted here numbers it: the host's, so far."""
    return {**state, "pid": int(os.readlink("/proc/self"))}


def run(hooks: list[Hook], state: dict[str, Any]) -> None:
    """Run them, one after the other. Raises MiniContainerError for the first that fails, or takes too long."""
    said = json.dumps(state).encode()
    for hook in hooks:
        code = call(hook, said)
        if code:
            ended = f"signal {-code}" if code < 0 else f"exit code {code}"
            raise errors.MiniContainerError(f"hook {hook['path']} failed: {ended}")


def call(hook: Hook, said: bytes) -> int:
    """Run one hook with `said` on its standard input. Its exit code, or minus the signal that ended it.

    Its output goes where ours goes, to standard error. Raises KernelError if it cannot be executed, MiniContainerError
    if it lives longer than its `timeout` (seconds).
    """
    variables = dict(line.split("=", 1) for line in hook.get("env") or [] if "=" in line)
    state = os.memfd_create("state")  # it is there as a whole, whether or not the hook reads it
    try:
        os.pwrite(state, said, 0)
        actions = [(os.POSIX_SPAWN_DUP2, state, 0), (os.POSIX_SPAWN_DUP2, 2, 1)]
        pid = os.posix_spawn(hook["path"], hook.get("args") or [hook["path"]], variables, file_actions=actions)
    except OSError as error:
        hint = "a hook of config.json must be there, and executable"
        raise errors.KernelError(error.errno or 0, "execve", (hook["path"],), hint) from None
    finally:
        os.close(state)
    handle = os.pidfd_open(pid)
    timeout = hook.get("timeout")
    ended, _, _ = select.select([handle], [], [], timeout)
    os.close(handle)
    if not ended:
        os.kill(pid, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if not ended:
        raise errors.MiniContainerError(f"hook {hook['path']} was killed: it took longer than {timeout} s")
    return code
