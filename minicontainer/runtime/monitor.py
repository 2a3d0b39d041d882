"""The monitor: the process that stays beside a container. It is init's parent and outlives whoever asked for it.

The client (`run` in a terminal, a library user) forks it first and talks to it over a channel. The monitor performs the
start, waits for the container's command, takes everything down and says so. Killing the client never kills a container;
if the monitor is killed, the kernel kills the container (PR_SET_PDEATHSIG), and the journal on disk says what to mend.
"""

from __future__ import annotations

import os
import signal

from .. import errors, steps
from ..kernel import terminal
from . import channel, launch

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing: 4 ms of every start
    import _socket as socket
    from collections.abc import Callable
    from typing import Any


class Client:
    """The client's end: what happens to the container, as it happens."""

    def __init__(self, end: socket.socket, monitor: int, pipes: dict[int, int]) -> None:
        self.end = end
        self.monitor = monitor
        self.pipes = pipes  # our ends of its standard descriptors, by their numbers
        self.process = -1  # a pidfd of the container's init
        self.master: int | None = None  # its terminal, if it has one

    def wait_started(self, report: Callable[[dict[str, Any]], None] | None = None) -> int:
        """Wait until the command runs; returns its pid. Raises what went wrong. `report` gets a message per step."""
        while True:
            message, descriptors = channel.receive(self.end)
            if message is None:
                os.waitpid(self.monitor, 0)
                raise channel.Gone("the monitor was killed: `minicontainer system check --repair` cleans up after it")
            if "error" in message:
                os.waitpid(self.monitor, 0)
                raise channel.revive(message["error"])
            if "started" in message:
                self.process, *master = descriptors
                self.master = master[0] if master else None
                return int(message["started"])
            if report:
                report(message)

    def send_signal(self, number: int) -> None:
        """Signal the container's init; nothing happens if it has ended."""
        try:
            signal.pidfd_send_signal(self.process, number)
        except ProcessLookupError:
            pass

    def wait_exited(self, report: Callable[[dict[str, Any]], None] | None = None) -> int:
        """Wait until the container has ended and all is taken down; returns its exit code (128+n for a signal)."""
        while True:
            message, _ = channel.receive(self.end)
            if message is None:
                raise channel.Gone("the monitor was killed: `minicontainer system check --repair` cleans up after it")
            if "error" in message:
                raise channel.revive(message["error"])
            if "exited" in message:
                os.waitpid(self.monitor, 0)
                return int(message["exited"])
            if report:
                report(message)

    def relay(self, stdin: bool, report: Callable[[dict[str, Any]], None] | None = None) -> int:
        """Relay between our terminal and the container's, or its pipes, until it has ended; returns its exit code."""
        outputs: dict[int, int] = {self.pipes[number]: number for number in (1, 2) if number in self.pipes}
        inputs: dict[int, int] = {0: self.pipes[0]} if 0 in self.pipes else {}
        if self.master is not None:
            outputs[self.master] = 1
            inputs |= {0: self.master} if stdin else {}
        code: list[int] = []

        def ended() -> bool:
            code.append(self.wait_exited(report))
            return True

        terminal.relay(outputs, inputs, self.end.fileno(), ended)
        return code[0]


def start(work: Callable[[socket.socket], None], apart: tuple[int, ...] = ()) -> Client:
    """Fork a monitor that performs `work(its end of the channel)`; returns the client's end.

    The monitor has a session of its own, so that no key typed in our terminal reaches the container twice. The standard
    descriptors in `apart` become pipes: a terminal of ours can be read by whoever holds it, even as output. Raises
    Unsupported in a process with several threads: of a lock that another thread holds, a fork copies only the lock.
    """
    if len(os.listdir("/proc/self/task")) > 1:
        raise errors.Unsupported("a process with threads cannot fork a container: run `minicontainer run` from it")
    ours, theirs = channel.pair()
    pipes = {number: os.pipe() for number in apart}  # (to read from, to write to)
    pid = os.fork()
    if pid:
        theirs.close()
        for number, ends in pipes.items():
            os.close(ends[number != 0])
        return Client(ours, pid, {number: ends[number == 0] for number, ends in pipes.items()})
    try:
        ours.close()
        for number, ends in pipes.items():
            os.dup2(ends[number != 0], number)
            os.close(ends[0])
            os.close(ends[1])
        os.setsid()
        for number in signal.valid_signals():
            if callable(signal.getsignal(number)):  # a handler of the client's, which is not ours to run
                signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        try:
            work(theirs)
        except BaseException as error:
            say(theirs, {"error": channel.describe(error)})
    finally:
        os._exit(0)


def say(end: socket.socket, message: dict[str, Any], *descriptors: int) -> None:
    """Tell the client, if there is one still: a container does not depend on who started it."""
    try:
        channel.send(end, message, *descriptors)
    except BrokenPipeError:
        pass


def run(
    plan: steps.Plan,
    started: Callable[[dict[str, Any]], None],
    teardown: Callable[[int | None], steps.Plan],
    end: socket.socket,
    report: bool,
) -> None:
    """The monitor's life: perform `plan`, wait for the container's end, perform `teardown(exit code)`.

    `started(values)` is called when the command runs. If the start fails, `teardown(None)` is performed before the
    client is told. With `report`, the client gets a message per step: which one, in which process, when.
    """
    count = left = 0

    def parent_step(step: steps.Step, began: float, ended: float) -> None:
        nonlocal count
        say(end, {"step": count, "by": "parent", "began": began, "ended": ended})
        count += 1

    def child_step(message: dict[str, Any]) -> None:
        say(end, {**message, "by": "child"})

    def teardown_step(step: steps.Step, began: float, ended: float) -> None:
        nonlocal left
        left -= 1
        told: dict[str, Any] = {"verb": step.verb, "arguments": [sayable(word) for word in step.arguments]}
        told |= {"why": step.why, "concept": step.concept, "left": left}
        say(end, {**told, "by": "teardown", "began": began, "ended": ended})

    values = launch.values(child_step if report else None)
    try:
        steps.execute(plan, values, parent_step if report else None)
    except BaseException as error:
        kill(values.get("pid"))
        steps.execute(teardown(None), values)
        # A step of ours may have failed because the child was gone: then its last words are the reason.
        raise channel.last_words(values["channel"]) or error from None
    started(values)
    descriptors = [os.pidfd_open(values["pid"])]  # ours to open: until we reap it, the pid is nobody else's
    if "master" in values:
        descriptors.append(values["master"])
    say(end, {"started": values["pid"]}, *descriptors)
    leave_stdio(descriptors)

    _, status = os.waitpid(values["pid"], 0)
    code = exit_code(status)
    down = list(teardown(code))
    left = len(down)
    steps.execute(down, values, teardown_step if report else None)
    say(end, {"exited": code})


def sayable(word: Any) -> Any:
    """A step's argument as a message can carry it: a function goes by its name, "cgroups.empty"."""
    return f"{word.__module__.rpartition('.')[2]}.{word.__qualname__}" if callable(word) else word


def kill(pid: int | None) -> None:
    """End a child that has not started its command, and reap it."""
    if pid is not None:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def exit_code(status: int) -> int:
    """A wait status as a shell shows it: 128+n for a signal."""
    code = os.waitstatus_to_exitcode(status)
    return 128 - code if code < 0 else code


def leave_stdio(also: list[int]) -> None:
    """Let go of the client's descriptors: their reader must see the end as soon as the container has ended."""
    null = os.open("/dev/null", os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    for descriptor in (null, *also):
        os.close(descriptor)
