"""Rooms as a lab's tests see them: ask the learner's code in there, look at the kernel's state from out here.

    room.prepare(function, …)      a function of the test's runs inside first: files, mounts, devices to work on
    room.call("stack", …)          call the learner's function; its value. A raise, a hang, an end fail the test
    room.attempt("stack", …)       the same, for tests that expect an error
    room.namespace("uts")          "uts:[4026532281]", by /proc
    room.mounts()                  its mounts, by /proc/PID/mountinfo
    room.read("/tmp/x")            a file in there; no link of the learner's leads out of the room
    room.write("/tmp/x", "text")   done by root of the room, without the learner's process; "" or "EROFS"
    room.look(function, …)         a function of the test's, run in its network namespace
    room.socket(kind, pid)         a socket in its network, or in that of a process in there
    room.outside(7)                our pid of the process that is 7 in there
    room.reopen()                  its root has changed: look at the new one

Nothing here believes the worker: process ids, namespaces, mounts, files come from the kernel.
"""

from __future__ import annotations

import errno
import inspect
import json
import os
import re
import select
import socket
import stat
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from ... import errors, files, host, syscalls
from ...kernel import namespaces
from .. import child
from . import keeper as keeping

PATIENCE = 5.0  # seconds that a learner's function may take
NOBODY = 65534
PLAIN_UID = 60600  # and 499 more: nobody's, neither by Debian's policy nor by systemd's table of users
OWN = r"/(?:tmp|var/tmp|run)"  # what a room has of its own
READ_AT_MOST = 1 << 24  # bytes of a learner's file
DISK = 64 << 20  # bytes of each writable directory of a room


class Failed(AssertionError):
    """What the learner's code did instead of its job: a raise, a hang, an end. The text is the hint."""


class Outcome(NamedTuple):
    """How a call ended: with a value, or with the name and the text of an exception."""

    returned: Any
    raised: str
    text: str


class Mount(NamedTuple):
    """A line of /proc/PID/mountinfo (proc_pid_mountinfo(5)), as far as tests ask for it."""

    number: int
    parent: int
    device: str
    root: str
    point: str
    options: Sequence[str]
    propagation: Sequence[str]
    kind: str
    source: str
    data: Sequence[str]


class Keeper:
    """The trusted process that keeps rooms (keeper.py), and the pipes to it. `pid` finds it in our pid namespace."""

    def __init__(self, command: Sequence[str], pid: Callable[[], int] | None = None) -> None:
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
        self.find = pid or (lambda: self.process.pid)
        self.waiting = b""
        self.returned: tuple[str, Any] | None = None  # what the learner's function has returned last, for hints

    def ask(self, question: dict[str, Any], within: float) -> dict[str, Any]:
        """One question, one answer; Failed where the keeper itself has ended or is stuck."""
        assert self.process.stdin and self.process.stdout
        try:
            self.process.stdin.write(json.dumps(question).encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise Failed(self.gone()) from None
        deadline = time.monotonic() + within
        while b"\n" not in self.waiting:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.process.stdout], [], [], left)[0]:
                raise Failed("no answer from the room in time: it is stuck, or starved of processor or memory")
            data = os.read(self.process.stdout.fileno(), 1 << 16)
            if not data:
                raise Failed(self.gone())
            self.waiting += data
        line, _, self.waiting = self.waiting.partition(b"\n")
        told = json.loads(line)
        assert isinstance(told, dict)
        return told

    def gone(self) -> str:
        """How the keeper ended."""
        return f"the room's keeper has ended with exit code {self.process.wait()}: out of memory, or killed"

    def close(self) -> None:
        """End it, and with it every room."""
        assert self.process.stdin and self.process.stdout
        try:
            self.process.stdin.close()
        except BrokenPipeError:
            pass
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


def forbidden() -> str:
    """What keeps an ordinary user from having rooms, with doctor's mend; empty where nothing does."""
    fact = host.user_namespaces_fact()
    if os.geteuid() == 0 or fact.state == "ok":
        return ""
    return f"{fact.said}; to have it: {fact.mend}   or, in the lab's folder: sudo minicontainer lab check NN lab.py"


def local() -> Keeper:
    """A keeper right here, for a learner's own checks: no container around it."""
    return Keeper([sys.executable, "-m", "minicontainer.teach.lab.keeper"])


class Room:
    """A room with a learner's code in it. The code is loaded by the first call, after all preparations."""

    def __init__(
        self, keeper: Keeper, source: str, uid: int = NOBODY, writable: Sequence[str] = (), plain: bool = False
    ) -> None:
        self.keeper = keeper
        self.source = source
        self.loaded = False
        self.printed = ""
        self.plain = plain
        self.uid = PLAIN_UID + os.getpid() % 500 if plain else uid
        wanted = {"uid": self.uid, "disk": DISK, "writable": list(writable), "plain": plain}
        keeper.returned = None
        told = keeper.ask({"open": wanted}, within=60)
        if "opened" not in told:
            raise errors.Unsupported(f"no room can be made here: {forbidden() or told['broken']}")
        self.directory = str(told["opened"])
        self.root = os.open(self.directory or f"/proc/{self.pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    @property
    def pid(self) -> int:
        """The learner's process, as our pid namespace numbers it; found from the keeper down, not asked for."""
        (room,) = child.children(self.keeper.find())
        (worker,) = child.children(room)
        return worker

    def close(self) -> None:
        """All that is in there ends."""
        os.close(self.root)
        self.printed = str(self.keeper.ask({"close": True}, within=30).get("printed", ""))

    # Asking

    def prepare(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Run a function of the test's in there, before the learner's module is loaded. It travels as source, so it
        imports what it needs in its own first lines; arguments and value are JSON."""
        assert not self.loaded, "prepare before the first call: afterwards the process is the learner's"
        source = textwrap.dedent(inspect.getsource(function))
        if self.plain:
            source = re.sub(rf"([\"'])(?={OWN}\b)", rf"\g<1>{self.directory}", source)
        described = {"source": source, "function": function.__name__, "arguments": self.moved(arguments)}
        told = self.keeper.ask({"do": described, "within": 30}, within=60)
        assert "returned" in told, f"the test's own preparation failed: {told}"
        return self.moved(told["returned"], back=True)

    def call(self, name: str, *arguments: Any, within: float = PATIENCE) -> Any:
        """The learner's function: its value. Failed, with a hint, if it raised instead."""
        outcome = self.attempt(name, *arguments, within=within)
        if outcome.raised == "NotImplementedError":
            raise Failed(f"{name}() is still the stub: it raises NotImplementedError")
        if outcome.raised:
            raise Failed(f"{name}() raised {outcome.raised}: {outcome.text}")
        self.keeper.returned = name, outcome.returned
        return outcome.returned

    def attempt(self, name: str, *arguments: Any, within: float = PATIENCE) -> Outcome:
        """The learner's function, which may raise. Failed if it hung, ended the process, or became another program."""
        if not self.loaded:
            told = self.keeper.ask({"load": self.source, "file": "lab.py", "within": within}, within + 30)
            outcome = self.understood(told, "lab.py", within)
            if outcome.raised:
                raise Failed(f"lab.py cannot be loaded: {outcome.raised}: {outcome.text}")
            self.loaded = True
        question = {"call": name, "arguments": self.moved(arguments), "within": within}
        told = self.moved(self.keeper.ask(question, within + 30), back=True)
        return self.understood(told, f"{name}()", within)

    def understood(self, told: dict[str, Any], what: str, within: float) -> Outcome:
        """An answer of the keeper's as an outcome, or Failed."""
        if "late" in told:
            raise Failed(f"{what} did not come back within {within:g} seconds")
        if "ended" in told:
            raise Failed(f"{what} ended the process, with exit code {told['ended']}: it should return")
        if "became" in told:
            raise Failed(f"{what} became another program (execve): it should return")
        if "raised" in told:
            place = f" ({told['where']})" if told.get("where") else ""
            return Outcome(None, str(told["raised"]), f"{told.get('text', '')}{place}")
        return Outcome(told.get("returned"), "", "")

    def moved(self, value: Any, back: bool = False) -> Any:
        """A plain room has no /tmp of its own; a directory stands for it: the value with its paths, and back."""
        if not self.plain:
            return value
        if isinstance(value, dict):
            return {key: self.moved(inner, back) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [self.moved(inner, back) for inner in value]
        if isinstance(value, str):
            return value.replace(self.directory, "") if back else re.sub(rf"^(?={OWN}(/|$))", self.directory, value)
        return value

    # Looking

    def namespace(self, kind: str) -> str:
        """Which namespace it is in, of an OCI kind ("mount", "network", "pid" …): "mnt:[4026531841]" by readlink(2)."""
        return os.readlink(namespaces.path(self.pid, kind))

    def status(self, pid: int | None = None) -> dict[str, str]:
        """/proc/PID/status (proc_pid_status(5)) of the learner's process, or of another one in there."""
        text = files.read(f"/proc/{pid or self.pid}/status").decode()
        return {name: value.strip() for name, _, value in (line.partition(":") for line in text.splitlines())}

    def mounts(self, pid: int | None = None) -> list[Mount]:
        """Its mounts, in the order in which the kernel lists them. Points are seen from its own root."""
        text = files.read(f"/proc/{pid or self.pid}/mountinfo").decode(errors="replace")
        return [parsed(line) for line in text.splitlines()]

    def mount(self, point: str) -> Mount | None:
        """The topmost mount at `point`; None if nothing is mounted there."""
        return next((mount for mount in reversed(self.mounts()) if mount.point == point), None)

    def processes(self) -> list[int]:
        """Every process in its pid namespace, as ours numbers them."""
        mine = self.namespace("pid")
        found = []
        for name in filter(str.isdigit, os.listdir("/proc")):
            try:
                if os.readlink(f"/proc/{name}/ns/pid") == mine:
                    found.append(int(name))
            except OSError:  # it has ended, or is not ours to look at, and so not in there
                continue
        return sorted(found)

    def outside(self, number: int) -> int:
        """The pid, as ours, of the process that the learner's code calls `number`. Failed if there is none in there."""
        depth = len(self.status()["NSpid"].split())  # each pid namespace on the way in adds one (proc_pid_status(5))
        waiting = [self.pid]
        for pid in waiting:
            waiting += child.children(pid)
            try:
                numbers = self.status(pid)["NSpid"].split()
            except (FileNotFoundError, ProcessLookupError):
                continue  # it has ended
            if numbers[depth - 1 : depth] == [str(number)]:
                return pid
        raise Failed(f"there is no process {number} in the room")

    def reopen(self) -> None:
        """Look from the root that the learner's process has by now; until then, from the one it began with."""
        os.close(self.root)
        self.root = os.open(f"/proc/{self.pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def open(self, path: str, flags: int) -> int:
        """openat2(2) below its root: a symbolic link of the learner's stays in there, a FIFO does not hold us up."""
        beside = 0 if flags & os.O_PATH else os.O_NONBLOCK | os.O_NOCTTY  # openat2(2) takes nothing beside O_PATH
        return files.inside(self.root, path, flags | beside)

    def read(self, path: str) -> bytes:
        """A regular file in there, READ_AT_MOST bytes of it at most. Failed where there is none."""
        try:
            descriptor = self.open(path, os.O_RDONLY)
        except OSError as error:
            raise Failed(f"{path} cannot be read: {os.strerror(error.errno or 0)}") from None
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise Failed(f"{path} is no regular file")
            return file.read(READ_AT_MOST)

    def stat(self, path: str) -> os.stat_result | None:
        """lstat(2) in there; None if nothing has that name."""
        parent, name = os.path.split(path.rstrip("/"))
        try:
            directory = self.open(parent or "/", os.O_PATH)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR):
                return None
            raise
        try:
            return os.stat(name or ".", dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            return None
        finally:
            os.close(directory)

    def names(self, path: str) -> list[str]:
        """What a directory in there holds, sorted. Failed where there is none."""
        try:
            directory = self.open(path, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise Failed(f"the directory {path} cannot be read: {os.strerror(error.errno or 0)}") from None
        try:
            return sorted(os.listdir(directory))
        finally:
            os.close(directory)

    def attribute(self, path: str, name: str) -> bytes | None:
        """An extended attribute of a file in there (getxattr(2)); None if it has none of that name."""
        descriptor = self.open(path, os.O_RDONLY)
        try:
            return os.getxattr(descriptor, name)
        except OSError as error:
            if error.errno in (errno.ENODATA, errno.ENOTSUP):
                return None
            raise
        finally:
            os.close(descriptor)

    # Doing: as root of the room, without the learner's process

    def write(self, path: str, text: str, append: bool = False) -> str:
        """Write a file in there. Returns "" or what the kernel said instead: "EROFS"."""

        def write() -> str:
            flags = os.O_WRONLY | (os.O_APPEND if append else os.O_TRUNC)
            try:
                descriptor = self.open(path, flags)
            except OSError as error:
                if error.errno != errno.ENOENT:
                    raise
                descriptor = self.beside(path, lambda name, parent: os.open(name, flags | MAKE, 0o644, dir_fd=parent))
            files.write_all(descriptor, text.encode())
            os.close(descriptor)
            return ""

        return str(self.look(write, kinds=()))

    def mkdir(self, path: str) -> str:
        """mkdir(2) in there. Returns "" or the kernel's refusal."""
        return str(self.look(lambda: self.beside(path, lambda name, at: os.mkdir(name, 0o755, dir_fd=at)), kinds=()))

    def remove(self, path: str) -> str:
        """rm -r in there. Returns "" or the kernel's refusal."""
        return str(self.look(lambda: self.beside(path, remove), kinds=()))

    def beside(self, path: str, act: Callable[[str, int], Any]) -> Any:
        """`act(name, descriptor of its directory)`: what it returns, or "" for nothing."""
        parent, name = os.path.split(path.rstrip("/"))
        directory = self.open(parent or "/", os.O_RDONLY | os.O_DIRECTORY)
        try:
            done = act(name, directory)
            return "" if done is None else done
        finally:
            os.close(directory)

    def look(
        self, function: Callable[..., Any], *arguments: Any, kinds: Sequence[str] = ("network",), pid: int | None = None
    ) -> Any:
        """Run a function of the test's as root of the room, in its namespaces of these kinds; its value, as JSON. An
        OSError comes back as its name, "EPERM". With `pid`, in those of that process in there, as ours numbers it.

        It runs in a fork of ours: no file of the learner's is loaded, for the mount namespace is never entered, and
        no process in there can see it, for the pid namespace is not entered either.
        """
        assert not {"mount", "pid"} & set(kinds), "Python would import from the learner's files, or be traced"
        assert not (self.plain and kinds), "a plain room has no namespaces of its own: the test is not pure"
        reader, writer = os.pipe()
        fork = os.fork()
        if fork == 0:
            try:
                self.enter(kinds, pid)
                try:
                    told = {"value": function(*arguments)}
                except OSError as error:
                    told = {"value": errno.errorcode.get(error.errno or 0, str(error))}
                files.write_all(writer, json.dumps(told).encode())
            except BaseException as error:
                files.write_all(writer, json.dumps({"error": f"{type(error).__name__}: {error}"}).encode())
            finally:
                os._exit(0)
        os.close(writer)
        with open(reader, "rb") as pipe:
            told = json.loads(pipe.read() or b'{"error": "it ended without a word"}')
        os.waitpid(fork, 0)
        if "error" in told:
            raise Failed(f"looking into the room failed: {told['error']}")
        return told["value"]

    def enter(self, kinds: Sequence[str], pid: int | None) -> None:
        """In a fork: become root of the room, or of the process `pid` in there, in its namespaces of these kinds."""
        pid = pid or (0 if self.plain else self.pid)
        if keeping.owner(self.uid) != os.geteuid():
            os.setgroups([])
        for kind in () if self.plain else ("user", *kinds):
            syscalls.enter_namespace(namespaces.path(pid, kind), namespaces.FLAGS[kind])
        if not self.plain or os.geteuid() == 0:
            who = self.uid if self.plain else 0
            os.setresgid(who, who, who)
            os.setresuid(who, who, who)

    def socket(self, kind: int = socket.SOCK_DGRAM, pid: int | None = None) -> socket.socket:
        """A socket of AF_INET that belongs to the room's network, or to that of the process `pid` in there: what it
        sends and receives are real packets. A fork of ours goes in, opens it and hands it out (SCM_RIGHTS, unix(7)).
        Whoever waits on it waits two seconds at most."""
        ours, theirs = socket.socketpair()
        fork = os.fork()
        if fork == 0:
            try:
                self.enter(("network",), pid)
                with socket.socket(socket.AF_INET, kind) as made:
                    socket.send_fds(theirs, [b"here"], [made.fileno()])
            finally:
                os._exit(0)
        theirs.close()
        with ours:
            _, descriptors, _, _ = socket.recv_fds(ours, 16, 1)
        os.waitpid(fork, 0)
        if not descriptors:
            raise Failed("no socket could be opened in the room's network")
        opened = socket.socket(fileno=descriptors[0])
        opened.settimeout(2)
        return opened


MAKE = os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


def remove(name: str, parent: int) -> None:
    """rm -r, below a descriptor; no symbolic link is followed."""
    if not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
        os.unlink(name, dir_fd=parent)
        return
    directory = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    for below in os.listdir(directory):
        remove(below, directory)
    os.close(directory)
    os.rmdir(name, dir_fd=parent)


def parsed(line: str) -> Mount:
    """A line of mountinfo; spaces in names are written \\040."""
    left, _, right = line.partition(" - ")
    number, parent, device, root, point, options, *propagation = left.split()
    kind, source, *data = right.split()
    point, root = (word.replace("\\040", " ").replace("\\134", "\\") for word in (point, root))
    return Mount(
        int(number), int(parent), device, root, point, options.split(","), propagation, kind, source,
        data[0].split(",") if data else [],
    )  # fmt: skip


def rooms(keeper: Keeper, source: str, printed: list[str], **wanted: Any) -> Iterator[Callable[[], Room]]:
    """Make rooms on demand, one at a time, and close the last one: for a fixture. What was printed in each is kept."""
    current: list[Room] = []

    def close() -> None:
        if current:
            room = current.pop()
            room.close()
            printed.append(room.printed)

    def make() -> Room:
        close()
        current.append(Room(keeper, source, **wanted))
        return current[0]

    yield make
    close()
