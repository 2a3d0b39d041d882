"""The keeper of rooms: a learner's code runs in one, and this is the door between it and the tests.

    tests      outside, trusted: they ask, and look at the kernel's state for themselves
      keeper   trusted: makes a room for each test, passes questions and answers on, ends whatever is left
        room   one process that makes the namespaces and waits
          1    the worker, process 1 of the room: the learner's module is loaded and called here

A room is a user namespace with mounts, processes, network, host name and message queues of its own. Inside, the
learner's code is root; outside it is an ordinary user, who can write nothing but the room's own /tmp, /var/tmp, /run,
in memory and bounded. With the worker all of it ends: no test can leave anything to the next.

The tests write a line of JSON to the keeper's standard input, and read one from its standard output:

    {"open": {"uid": 65534, "disk": 67108864}}                  {"opened": ""}
    {"do": {"source", "function", "arguments"}, "within": 5}    a function of the tests, run inside as preparation
    {"load": source, "file": "lab.py", "within": 5}             the learner's module
    {"call": "mount", "arguments": […], "within": 5}            one of its functions
                                                {"returned": …} {"raised": "OSError", "text", "where"}
                                                {"late": 5} {"ended": 137} {"became": true}
    {"close": true}                                             {"printed": what it wrote to stdout and stderr}

What comes from the worker is a stranger's word: the tests believe what the kernel says instead.

Where nobody may make namespaces (Gradescope's containers), {"open": {"plain": true, …}} makes a plain room: root's
worker is another user there, with bounds, and a directory of its own, named by the answer: {"opened": "/tmp/room-x"}.
A file's size is bounded there, the disk is not: a tmpfs with a size is a mount. It is Gradescope's own disk, and goes
with its container after each submission.
"""

from __future__ import annotations

import json
import linecache
import os
import resource
import select
import signal
import sys
import tempfile
import time
import types
from collections.abc import Iterator, Sequence
from typing import Any

from ... import errors, files, steps, syscalls
from ...kernel import idmap
from .. import child, sandbox

NAMESPACES = sandbox.NAMESPACES | syscalls.CLONE_NEWCGROUP
OWN = ("/tmp", "/var/tmp", "/run", "/dev/shm")  # empty, in memory, the room's own
HIDDEN = ("/root", "/home")  # nobody's business
LONGEST = 1 << 20  # bytes of an answer, and of what is kept of the worker's output
PR_SET_DUMPABLE, PR_SET_CHILD_SUBREAPER = 4, 36  # linux/prctl.h


# ------------------------------------------------------------------------------------------------------------- the plan


def outside(maps: idmap.Maps, turn: Turn) -> Iterator[steps.Step]:
    """What the room's first process does: the namespaces. The keeper, who has stayed outside, writes the maps."""
    yield steps.unshare(syscalls.CLONE_NEWUSER, why="root in here, an ordinary user out there")
    yield steps.call(turn.hand_over, why="ids are mapped by the keeper, who stays outside")
    yield steps.call(become_root, why="the only user that this namespace knows")
    yield steps.unshare(NAMESPACES, why="own processes, network, host name, message queues")


def inside(wanted: dict[str, Any]) -> Iterator[steps.Step]:
    """What the worker does before a learner's code is loaded."""
    writable = tuple(wanted.get("writable", ()))
    kept = tuple(path for path in (child_path(), sys.prefix, sys.base_prefix) if path != "/usr")
    yield steps.unshare(syscalls.CLONE_NEWNS, why="its own list of mounts")
    yield steps.mount(
        "", "/", "", syscalls.MS_REC | syscalls.MS_PRIVATE, why="mounts made from here on stay in this namespace"
    )
    yield steps.call(sandbox.hold, (*kept, *writable), why="hold on to what the next steps hide", result="held")
    yield steps.call(set_readonly, "/", why="nothing of the machine's can be written")
    for path in filter(os.path.isdir, OWN + HIDDEN):
        yield steps.mount(
            "tmpfs", path, "tmpfs", 0, f"mode=1777,size={wanted['disk']}", why="empty, bounded, gone with the room"
        )
    held = steps.Symbol("held")
    for path in kept:
        yield steps.call(sandbox.show_again, held, path, path, why="Python and this package must be seen")
        yield steps.call(set_readonly, path, why="and only seen")
    for path in writable:
        yield steps.call(sandbox.show_again, held, path, path, why="lent to this room: a cgroup")
        yield steps.call(sandbox.set_readonly, path, False, why="writable")
    yield steps.call(let_go, held, why="a descriptor of the machine's directories would be a way back to them")
    yield steps.mount("proc", "/proc", "proc", why="it shows this pid namespace, and nothing is masked")
    yield steps.sethostname("room", why="a name of its own")
    yield steps.link_set("lo", up=True, why="127.0.0.1 answers")
    yield steps.put("/proc/self/oom_score_adj", "1000", why="where memory runs out, this one goes and not the keeper")
    yield steps.call(sandbox.limit, why="code that forks or allocates without end ends itself, not the machine")
    yield steps.chdir("/tmp", why="where it may write")


def inside_plain(wanted: dict[str, Any]) -> Iterator[steps.Step]:
    """What the worker of a plain room does instead."""
    yield steps.put("/proc/self/oom_score_adj", "1000", why="where memory runs out, this one goes and not the keeper")
    if os.geteuid() == 0:
        yield steps.call(become_nobody, wanted["uid"], why="an ordinary user: no file here is his, no process is")
    yield steps.call(sandbox.limit, why="code that forks or allocates without end ends itself, not the machine")
    yield steps.call(limit_files, wanted["disk"], why="nor fills the disk with one file")
    yield steps.chdir(f"{wanted['directory']}/tmp", why="where it may write")


def become_nobody(uid: int) -> None:
    """setgroups(2), setresgid(2), setresuid(2). A change of user makes us forget whose end is ours (prctl(2))."""
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    syscalls.prctl(sandbox.PR_SET_PDEATHSIG, signal.SIGKILL)


def limit_files(size: int) -> None:
    """setrlimit(2): bytes of a file."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def child_path() -> str:
    """The directory that the package `minicontainer` lies in."""
    return os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))


def let_go(held: dict[str, int]) -> None:
    """Close what sandbox.hold has opened."""
    for descriptor in held.values():
        os.close(descriptor)


def set_readonly(path: str) -> None:
    """mount_setattr(2): this mount and all below it."""
    attributes = b"".join(word.to_bytes(8, "little") for word in (sandbox.MOUNT_ATTR_RDONLY, 0, 0, 0))
    arguments = (sandbox.AT_FDCWD, os.fsencode(path), sandbox.AT_RECURSIVE, attributes, len(attributes))
    syscalls.syscall("mount_setattr", *arguments)


def become_root() -> None:
    """setresgid(2), setresuid(2): root of the machine has left its groups before, and becomes the mapped user here.

    A change of user makes the process's /proc files root's (prctl(2), PR_SET_DUMPABLE); they are to be the user's.
    """
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    syscalls.prctl(PR_SET_DUMPABLE, 1)


class Turn:
    """Two processes by turns: one does its part, says so, and waits until the other has done its own."""

    def __init__(self) -> None:
        self.ready, self.say_ready = os.pipe()
        self.go, self.say_go = os.pipe()

    def hand_over(self) -> None:
        """The room: I am in my user namespace; go on when I am mapped. An end without a word is the keeper's end."""
        os.write(self.say_ready, b"\n")
        os.close(self.say_go)
        if not os.read(self.go, 1):
            raise errors.MiniContainerError("the keeper has ended, or could not map this user namespace")

    def take_over(self, maps: idmap.Maps, pid: int) -> None:
        """The keeper: map the room when it is ready; if it has ended instead, it has said why."""
        os.close(self.say_ready)
        try:
            if os.read(self.ready, 1):
                steps.execute(idmap.plan(maps, pid), {})
                os.write(self.say_go, b"\n")
        finally:
            for end in (self.ready, self.go, self.say_go):
                os.close(end)


# ------------------------------------------------------------------------------------------------------------- the room


class Room:
    """A room as the keeper holds it: the pipes to its worker, and the descriptors of its processes."""

    def __init__(self, wanted: dict[str, Any]) -> None:
        self.count = 0
        self.waiting = b""
        self.printed = b""
        questions, self.questions = os.pipe()
        self.answers, answers = os.pipe()
        self.output, output = os.pipe()
        turn = Turn()
        self.plain = bool(wanted.get("plain"))
        self.uid = int(wanted["uid"])
        if self.plain:
            wanted["directory"] = own_directory(self.uid)
        self.directory = wanted.get("directory", "")
        uid = owner(self.uid)
        gid = uid if uid == self.uid else os.getegid()
        maps = idmap.Maps((idmap.Range(0, uid, 1),), (idmap.Range(0, gid, 1),), False)
        self.keeper_of_room = os.fork()
        if self.keeper_of_room == 0:
            be_room(wanted, maps, turn, questions, answers, output)
        self.ended = os.pidfd_open(self.keeper_of_room)
        for end in (questions, answers, output):
            os.close(end)
        if not self.plain:
            turn.take_over(maps, self.keeper_of_room)

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        """Put a question to the worker; its answer, or what happened instead."""
        self.count += 1
        try:
            files.write_all(self.questions, json.dumps({**question, "number": self.count}).encode() + b"\n")
        except BrokenPipeError:
            return self.end()
        return self.answer(float(question["within"]))

    def answer(self, within: float) -> dict[str, Any]:
        """Wait for the answer to the last question: {"late": …} when the time is over, {"ended": …} if it has ended."""
        deadline = time.monotonic() + within
        sources = [self.answers, self.output, self.ended]
        while True:
            line, found, rest = self.waiting.partition(b"\n")
            if found:
                self.waiting = rest
                try:
                    told = json.loads(line)
                    if isinstance(told, dict) and told.pop("number", None) == self.count:
                        return told
                except (ValueError, RecursionError):
                    pass  # not ours: the learner's code has found the pipe
                continue
            left = deadline - time.monotonic()
            ready = select.select(sources, [], [], left)[0] if left > 0 else []
            if not ready:
                return {"late": within}
            if self.output in ready and not self.keep_output():
                sources.remove(self.output)
            elif self.answers in ready:
                data = os.read(self.answers, 1 << 16)
                self.waiting += data
                if len(self.waiting) > LONGEST:
                    return {"raised": "ValueError", "text": f"an answer of over {LONGEST} bytes", "where": ""}
                if not data:  # execve closes the pipe, and so does the end
                    return {"became": True} if not select.select([self.ended], [], [], 2)[0] else self.end()
            elif self.ended in ready and self.answers not in ready:
                return self.end()

    def keep_output(self) -> bool:
        """Read what the worker has printed, keep the last of it; False at its end."""
        data = os.read(self.output, 1 << 16)
        self.printed = (self.printed + data)[-LONGEST:]
        return bool(data)

    def end(self) -> dict[str, Any]:
        """The worker has ended by itself."""
        status = os.waitid(os.P_PIDFD, self.ended, os.WEXITED | os.WNOWAIT)
        return {"ended": status.si_status if status else 0}

    def close(self) -> str:
        """End the worker, and with it all in its pid namespace. Returns what it has printed."""
        if self.plain:
            end_all(self.keeper_of_room, self.uid)
        kill(child.children(self.keeper_of_room))
        os.waitpid(self.keeper_of_room, 0)
        if self.plain:
            files.remove_tree(self.directory)
        while select.select([self.output], [], [], 0)[0] and self.keep_output():
            pass
        for end in (self.questions, self.answers, self.output, self.ended):
            os.close(end)
        return self.printed.decode(errors="replace")


def owner(uid: int) -> int:
    """Whose a room's processes are out here: `uid` for who is root and has such a user, else one's own.

    Root of a user namespace may have a single user: user_namespaces(7), "/proc/pid/uid_map".
    """
    if os.geteuid() != 0:
        return os.geteuid()
    for name in ("uid_map", "gid_map"):
        lines = files.read(f"/proc/self/{name}").decode().splitlines()
        ranges = [(int(line.split()[0]), int(line.split()[2])) for line in lines]
        if not any(first <= uid < first + count for first, count in ranges):
            return 0
    return uid


def own_directory(uid: int) -> str:
    """A plain room's own /tmp, /var/tmp and /run, below the directory that is returned."""
    made = tempfile.mkdtemp(prefix="room-")
    os.chmod(made, 0o755)
    for path in ("tmp", "var/tmp", "run"):
        os.makedirs(f"{made}/{path}")
        if os.geteuid() == 0:
            os.chown(f"{made}/{path}", uid, uid)
    return made


def end_all(room: int, uid: int) -> None:
    """End what a plain room has started. As another user: everything of his, at one blow (kill(2), -1)."""
    if os.geteuid() == 0:
        pid = os.fork()
        if pid == 0:
            become_nobody(uid)
            os.kill(-1, signal.SIGKILL)
            os._exit(0)
        os.waitpid(pid, 0)
        return
    # Our own user's: all that descends from the room, whose first process adopts orphans.
    below = list(child.children(room))
    for pid in below:
        below += child.children(pid)
    kill(below)


def kill(pids: Sequence[int]) -> None:
    """SIGKILL for each; one that has ended meanwhile, and was waited for by its parent, is no error."""
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def be_room(wanted: dict[str, Any], maps: idmap.Maps, turn: Turn, questions: int, answers: int, output: int) -> None:
    """The process between the keeper and the worker: it makes the namespaces, forks process 1, waits for its end."""
    code = 1
    try:
        syscalls.prctl(sandbox.PR_SET_PDEATHSIG, signal.SIGKILL)
        if wanted.get("plain"):
            syscalls.prctl(PR_SET_CHILD_SUBREAPER, 1)
        else:
            if owner(wanted["uid"]) != os.geteuid():
                os.setgroups([])
            steps.execute(outside(maps, turn), {})
        worker = os.fork()
        if worker == 0:
            be_worker(wanted, questions, answers, output)
        for end in (questions, answers, output):
            os.close(end)
        status = os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1])
        code = status if status >= 0 else 128 - status
    except BaseException as error:
        say(answers, {"broken": described(error), "number": 1})
    finally:
        os._exit(code)


def be_worker(wanted: dict[str, Any], questions: int, answers: int, output: int) -> None:
    """Process 1 of the room: mounts, then question after question."""
    try:
        syscalls.prctl(sandbox.PR_SET_PDEATHSIG, signal.SIGKILL)
        os.setsid()
        null = os.open("/dev/null", os.O_RDONLY)
        for source, target in ((null, 0), (output, 1), (output, 2)):
            os.dup2(source, target)
        first, second = sorted((questions, answers))
        os.closerange(3, first)
        os.closerange(first + 1, second)
        syscalls.close_range(second + 1)
        steps.execute(inside_plain(wanted) if wanted.get("plain") else inside(wanted), {})
    except BaseException as error:
        say(answers, {"broken": described(error), "number": 1})
        os._exit(1)
    space: dict[str, Any] = {}
    with open(questions, "rb", buffering=0) as lines:
        for line in iter(lines.readline, b""):
            question = json.loads(line)
            try:
                told = {"returned": perform(question, space)}
                text = json.dumps(told)
            except BaseException as error:
                told = {"raised": type(error).__name__, "text": str(error)[:4096], "where": where(error)}
                text = json.dumps(told)
            sys.stdout.flush()
            say(answers, {**json.loads(text), "number": question["number"]})
    os._exit(0)


def perform(question: dict[str, Any], space: dict[str, Any]) -> Any:
    """Do what a question asks for; returns what the function returned."""
    if "do" in question:
        return child.call({**question["do"], "names": {}})
    if "load" in question:
        module = types.ModuleType("lab")
        source, name = question["load"], question["file"]
        linecache.cache[name] = (len(source), None, source.splitlines(True), name)
        sys.modules["lab"] = module
        exec(compile(source, name, "exec"), module.__dict__)
        space["lab"] = module
        return None
    if "call" in question:
        function = getattr(space["lab"], question["call"])
        return function(*question["arguments"])
    return None


def where(error: BaseException) -> str:
    """The last line of the learner's file that the error came through: "line 12"."""
    place, found = error.__traceback__, ""
    while place is not None:
        if place.tb_frame.f_code.co_filename == "lab.py":
            found = f"line {place.tb_lineno}"
        place = place.tb_next
    return found


def described(error: BaseException) -> str:
    """An error of ours, with the step that it came from."""
    return ", ".join([f"{type(error).__name__}: {error}", *getattr(error, "__notes__", ())])


def say(end: int, message: dict[str, Any]) -> None:
    """A line of JSON; nobody may be left to read it."""
    try:
        files.write_all(end, json.dumps(message).encode() + b"\n")
    except BrokenPipeError:
        pass


# ----------------------------------------------------------------------------------------------------------- the keeper


def main() -> int:
    """Question after question, until standard input ends; then nothing is left."""
    room: Room | None = None
    for line in sys.stdin.buffer:
        question = json.loads(line)
        if "open" in question:
            room = Room(question["open"])
            told = room.ask({"nothing": True, "within": 30})
            say(1, {"opened": room.directory} if "returned" in told else {"broken": told.get("broken", str(told))})
        elif room is None:
            say(1, {"broken": "no room is open"})
        elif "close" in question:
            say(1, {"printed": room.close()})
            room = None
        else:
            say(1, room.ask(question))
    if room:
        room.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
