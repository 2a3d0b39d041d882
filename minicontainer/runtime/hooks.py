"""Hooks: programs of the caller's, at fixed points of a container's life (config.md, POSIX-platform Hooks).

    prestart, createRuntime    the host's namespaces, once the container's are there: docker plugs in its network so
    createContainer            the container's namespaces, the host's files
    startContainer             the container's namespaces and files, just before its command: by way of threshold.py
    poststart, poststop        the host's, after `start` and after `delete`

Each gets the container's state (runtime.md, State) on its standard input. What those of the first four kinds
refuse, by any exit code but 0, the container cannot be.
"""

from __future__ import annotations

import errno
import os
import select

from .. import errors
from .. import quickjson as json
from .. import signals as signal
from ..records import namedtuple
from . import threshold

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing: 4 ms of every start
    from typing import Any

    Hook = dict[str, Any]  # {path, args?, env?, timeout?}

KINDS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")


IGNORED = (signal.SIGPIPE, signal.SIGXFSZ)  # by Python, of all that it would pass on


def numbered(state: dict[str, Any]) -> dict[str, Any]:
    """The state with this very process's pid, as the /proc that is mounted here numbers it: the host's, so far."""
    return {**state, "pid": int(os.readlink("/proc/self"))}


class Inside(namedtuple("Inside", "sealed kept")):
    """Hooks inside: threshold.py's program, and for how many descriptors it was prepared."""

    sealed: int
    kept: int


def run(hooks: list[Hook], state: dict[str, Any], inside: Inside | None = None) -> None:
    """Run them, one after the other. Raises MiniContainerError for the first that fails, or takes too long."""
    said = json.dumps(state).encode()
    for hook in hooks:
        code = call(hook, said, inside)
        if code:
            ended = f"signal {-code}" if code < 0 else f"exit code {code}"
            raise errors.MiniContainerError(f"hook {hook['path']} failed: {ended}")


def call(hook: Hook, said: bytes, inside: Inside | None = None) -> int:
    """Run one hook with `said` on its standard input. Its exit code, or minus the signal that ended it.

    Its output goes where ours goes, to standard error. Raises KernelError if it cannot be executed, MiniContainerError
    if it lives longer than its `timeout` (seconds).
    """
    variables = dict(line.split("=", 1) for line in hook.get("env") or [] if "=" in line)
    words = hook.get("args") or [hook["path"]]
    state = os.memfd_create("state")  # it is there as a whole, whether or not the hook reads it
    try:
        os.pwrite(state, said, 0)
        if inside:
            pid = spawn(hook["path"], words, variables, state, inside)
        else:
            actions = [(os.POSIX_SPAWN_DUP2, state, 0), (os.POSIX_SPAWN_DUP2, 2, 1)]
            pid = os.posix_spawn(hook["path"], words, variables, file_actions=actions, setsigdef=IGNORED)
    except errors.KernelError:
        raise
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


def spawn(path: str, words: list[str], variables: dict[str, str], state: int, inside: Inside) -> int:
    """A child that becomes a program of the container's, which may be `#!/proc/self/exe`: not from ours (threshold.py).

    Its pid. Raises what keeps it from being executed.
    """
    threshold.check(path)
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.dup2(state, 0)
            os.dup2(2, 1)
            threshold.cross(inside.sealed, writer, path, words, variables, inside.kept, hands_on=False)
        except OSError as error:
            os.write(writer, bytes([error.errno or errno.EPERM]))
        finally:
            os._exit(127)
    os.close(writer)
    refused = os.read(reader, 1)
    os.close(reader)
    if refused:
        os.waitpid(pid, 0)
        raise OSError(refused[0], os.strerror(refused[0]))
    return pid
