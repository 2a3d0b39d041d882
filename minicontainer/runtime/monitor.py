"""The monitor: the process that stays beside a container. It is init's parent and outlives whoever asked for it.

The client (`run` in a terminal, a library user) makes it first and talks to it over a channel. The monitor performs the
start, tends the running container (attach.py), takes everything down, and starts it again where that was asked for: in
which order, the engine's keeper.py says. If it is killed, the kernel kills the container (PR_SET_PDEATHSIG), and the
journal on disk says what to mend.

Two ways to make one. `fork` is quick, for a process of one thread: the plan is there already. `spawn` begins a fresh
interpreter, for a process with threads: of a lock that another thread holds, a fork copies only the lock.

An interpreter that has started a container holds ten megabytes that it needs again only at the end. `renew` replaces it
by a fresh one that holds little but descriptors: same process, same parent for the container, another program.
"""

from __future__ import annotations

import marshal
import os
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing: 4 ms of every start
    import _socket as socket
    from collections.abc import Callable
    from typing import Any, NoReturn

    from .. import steps
    from . import session

CHANNEL = 3  # the descriptor of a new monitor that leads to its client


def fork(work: Callable[[socket.socket], None]) -> session.Session:
    """Fork a monitor that performs `work(its end of the channel)`, and ends; returns the client's end."""
    from ..netlink import codec
    from . import channel, session

    codec.close_sockets()  # at the end of all the kernel would have us wait at this for what the teardown has deleted
    ours, theirs = channel.pair()
    pid = os.fork()
    if pid:
        theirs.close()
        return session.Session(ours, pid)
    try:
        perform(work, theirs.detach())
    finally:
        os._exit(0)


def spawn(module: str, *arguments: str) -> session.Session:
    """The same as `module.main(*arguments, channel)` in a fresh interpreter; for a process with threads."""
    from . import channel, session

    ours, theirs = channel.pair()
    high = os.dup(theirs.fileno())  # not 3 itself: dup2(3, 3) would leave it to be closed
    while high == CHANNEL:
        high = os.dup(theirs.fileno())
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    actions = [(os.POSIX_SPAWN_DUP2, null, number) for number in (0, 1, 2)]
    actions.append((os.POSIX_SPAWN_DUP2, high, CHANNEL))
    command = interpreter(module, "main", *arguments)
    pid = os.posix_spawn(command[0], command, os.environ, file_actions=actions)
    for descriptor in (high, null):
        os.close(descriptor)
    theirs.close()
    return session.Session(ours, pid)


def threaded() -> bool:
    """Whether this process has several threads. One that was joined may need a moment until the kernel forgets it."""
    for _ in range(MOMENTS):
        if len(os.listdir("/proc/self/task")) == 1:
            return False
        if "threading" in sys.modules and sys.modules["threading"].active_count() > 1:
            break
        time.sleep(0.001)
    return True


MOMENTS = 50


def perform(work: Callable[[socket.socket], None], end: int) -> None:
    """Be a monitor: a session of our own, nothing of the client's but the channel; then `work`. Its error is told.

    No key typed in the client's terminal reaches the container twice, and no pipe of the client's stays open with us.
    """
    import _socket as socket
    import gc

    from .. import signals as signal
    from .. import syscalls
    from . import channel

    gc.freeze()  # what the client held is never collected here: it would close descriptors that are ours by now
    if end != CHANNEL:
        os.dup2(end, CHANNEL, inheritable=False)
    syscalls.close_range(CHANNEL + 1)
    theirs = socket.socket(fileno=CHANNEL)
    os.setsid()
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):  # a handler of the client's, which is not ours to run
            signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # who ignores it, as our client may, hears of no child's end
    try:
        work(theirs)
    except BaseException as error:
        say(theirs, {"error": channel.describe(error)})


def interpreter(module: str, function: str, *arguments: str) -> list[str]:
    """The command of a small interpreter (no site.py, our own path) that calls `module.function(*arguments)`."""
    code = f"import sys; sys.path[:] = {sys.path!r}; from {module} import {function}; {function}(*sys.argv[1:])"
    return [sys.executable, "-IS", "-c", code, *arguments]


def renew(module: str, function: str, identifier: str, state: dict[str, Any]) -> NoReturn:
    """execve(2) a small interpreter that goes on with `module.function(identifier, descriptor)`; see `handed`.

    The parent-death signal follows the thread that is the parent, which execve keeps (prctl(2)).
    """
    memory = os.memfd_create("state", 0)  # open across execve
    os.write(memory, marshal.dumps(state))
    command = interpreter(module, function, identifier, str(memory))
    os.execv(command[0], command)


def handed(descriptor: int) -> dict[str, Any]:
    """The state that `renew` was given."""
    with open(descriptor, "rb") as file:
        file.seek(0)
        state: dict[str, Any] = marshal.loads(file.read())
    return state


def say(end: socket.socket, message: dict[str, Any], *descriptors: int) -> None:
    """Tell the client, if there is one still: a container does not depend on who started it."""
    from . import channel

    try:
        channel.send(end, message, *descriptors)
    except (BrokenPipeError, ConnectionResetError):
        pass


def start(plan: steps.Plan, values: dict[str, Any], end: socket.socket | None) -> None:
    """Perform a start's plan. `values` is filled with what its symbols are bound to: `pid`, `master` with a terminal, …

    With `end`, its client gets a message per step: which one, in which process, when. Raises what went wrong, with the
    child reaped.
    """
    from .. import steps
    from . import channel, launch

    count = 0

    def parent_step(step: steps.Step, began: float, ended: float) -> None:
        nonlocal count
        assert end is not None
        say(end, {"step": count, "by": "parent", "began": began, "ended": ended})
        count += 1

    def child_step(message: dict[str, Any]) -> None:
        assert end is not None
        say(end, {**message, "by": "child"})

    values |= launch.values(child_step if end else None)
    values[launch.VALUES.name] = values
    try:
        steps.execute(plan, values, parent_step if end else None)
    except BaseException as error:
        kill(values.get("pid"))
        # A step of ours may have failed because the child was gone: then its last words are the reason.
        raise channel.last_words(values["channel"]) or error from None
    values["channel"].close()


def take_down(plan: steps.Plan, end: socket.socket | None) -> None:
    """Perform a teardown; with `end`, its client gets a message per step."""
    from .. import steps

    down = list(plan)
    left = len(down)

    def teardown_step(step: steps.Step, began: float, ended: float) -> None:
        nonlocal left
        assert end is not None
        left -= 1
        told: dict[str, Any] = {"verb": step.verb, "arguments": [sayable(word) for word in step.arguments]}
        told |= {"why": step.why, "concept": step.concept, "left": left}
        say(end, {**told, "by": "teardown", "began": began, "ended": ended})

    steps.execute(down, {}, teardown_step if end else None)


def sayable(word: Any) -> Any:
    """A step's argument as a message can carry it: a function goes by its name, "cgroups.empty"."""
    return f"{word.__module__.rpartition('.')[2]}.{word.__qualname__}" if callable(word) else word


def kill(pid: int | None) -> None:
    """End a child that has not started its command, and reap it."""
    if pid is not None:
        os.kill(pid, 9)
        os.waitpid(pid, 0)


def exit_code(status: int) -> int:
    """A wait status as a shell shows it: 128+n for a signal."""
    code = os.waitstatus_to_exitcode(status)
    return 128 - code if code < 0 else code


def signal_number(text: str) -> int:
    """A signal by its name, with or without SIG, or by its number, as signal(7) lists them."""
    from .. import errors
    from .. import signals as signal

    name = text.upper().removeprefix("SIG")
    number = int(text) if text.isdecimal() else getattr(signal, f"SIG{name}", None)
    if number is None or number not in signal.valid_signals():
        raise errors.InvalidArgument(f"invalid signal: {text}")
    return int(number)
