"""Lab 23, graded by what the kernel shows: which processes are in the room, in which state, and whose children."""

import os
import time

import pytest

from minicontainer.teach import child


def services(wanted):
    """In the room: a service for each (kind, count, name), with `count` children that have ended, or are alive.

        "stopped"     would wait for them, but is stopped (SIGSTOP)
        "single"      waits for one child at each SIGCHLD; several came as one
        "deaf"        never waits
        "container"   is a deaf process 1 of a pid namespace of its own
        "ourselves"   has ended before them, so they are the children of process 1, the learner's
        "healthy"     waits for its children, which are alive
        "resting"     is stopped, with children that are alive

    Returns for each its pid and its zombies'.
    """
    import os
    import signal
    import time

    from minicontainer import syscalls

    def be(kind, gate, count, say):
        """The service itself; `say` hears when all its children are there, and again when they have ended."""

        def one(number, frame):
            os.waitpid(-1, os.WNOHANG)

        def every(number, frame):
            try:
                while os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG):
                    pass
            except OSError:
                return  # it has no child left

        handlers = {"single": one, "stopped": every, "healthy": every, "resting": every}
        if kind in handlers:
            signal.signal(signal.SIGCHLD, handlers[kind])
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
        children = []
        for _ in range(count):
            pid = os.fork()
            if pid == 0:
                os.close(say)
                os.read(gate, 1)
                os._exit(0)
            children.append(pid)
        os.write(say, b"\n")
        if kind in ("stopped", "resting"):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
            os.kill(os.getpid(), signal.SIGSTOP)
        if kind in ("single", "deaf", "container"):
            for pid in children:
                os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        os.write(say, b"\n")
        while True:
            signal.pause()

    def state(pid):
        with open(f"/proc/{pid}/status") as lines:
            return next(line.split()[1] for line in lines if line.startswith("State:"))

    def children(pid):
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            return [int(word) for word in file.read().split()]

    def until(look, pid, wanted):
        end = time.monotonic() + 20
        while look(pid) != wanted:
            assert time.monotonic() < end, "a service did not come about"
            time.sleep(0.005)

    told = []
    for kind, count, name in wanted:
        gate, hold = os.pipe()
        ready, say = os.pipe()
        number, tell = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(hold)
            os.close(ready)
            with open("/proc/self/comm", "w") as comm:
                comm.write(name)
            if kind == "container":
                syscalls.unshare(syscalls.CLONE_NEWPID)
                inner = os.fork()
                if inner:
                    os.write(tell, str(inner).encode())
                    os._exit(0)
            be(kind, gate, count, say)
        os.close(gate)
        os.close(say)
        if kind == "container":
            os.waitpid(pid, 0)
            pid = int(os.read(number, 16))
        os.read(ready, 1)
        left = children(pid)
        if kind == "ourselves":
            os.kill(pid, 9)
            os.waitpid(pid, 0)
            pid = os.getpid()
        if kind in ("stopped", "resting"):
            until(state, pid, "T")
        if kind not in ("healthy", "resting"):
            os.close(hold)
        if kind == "single":
            os.read(ready, 1)
            until(lambda one: len(children(one)), pid, count - 1)
            left = children(pid)
        if kind in ("healthy", "resting"):
            left = []
        for zombie in left:
            until(state, zombie, "Z")
        told.append([pid, sorted(left)])
    return told


NAMES = ("web", "mail", "queue", "cache", "logger", "index")
INNOCENT = [("healthy", 2), ("resting", 1)]


def draw(rng, *kinds):
    """Services of these kinds, with a few zombies each, among innocent ones, in the seed's order."""
    wanted = [(kind, rng.randrange(2, 5)) for kind in kinds] + INNOCENT
    rng.shuffle(wanted)
    return [[kind, count, rng.choice(NAMES)] for kind, count in wanted]


def truth(told):
    """What diagnose should say: those services that have zombies."""
    return sorted([pid, zombies] for pid, zombies in told if zombies)


def of_kind(wanted, told, kind):
    """The pid and the zombies of the service of this kind."""
    return next(service for (which, _, _), service in zip(wanted, told, strict=True) if which == kind)


def state(room, pid):
    """The letter of /proc/PID/status; "" for none."""
    try:
        return room.status(pid)["State"][:1]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def census(room):
    """Every process of the room by our pid: its state."""
    pids = [room.pid]
    for pid in pids:
        if state(room, pid) not in ("", "Z"):
            pids += child.children(pid)
    return {pid: state(room, pid) for pid in pids}


def mended(room, rng, kind):
    """Let mend mend a service of this kind, and look whether all others are as they were. Its pid, as ours."""
    wanted = draw(rng, kind)
    told = room.prepare(services, wanted)
    parent, zombies = of_kind(wanted, told, kind)
    ours = room.outside(parent)
    theirs = {room.outside(pid) for pid in zombies}
    before = census(room)
    assert all(before[pid] == "Z" for pid in theirs)
    room.call("mend", parent)
    deadline = time.monotonic() + 2
    while (left := [pid for pid in theirs if state(room, pid) == "Z"]) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not left, f"{len(left)} of {len(theirs)} zombies are still there, and their parent is {state(room, ours)!r}"
    after = census(room)
    harmed = [pid for pid in before if pid not in theirs | {ours} and before[pid] != after.get(pid)]
    assert not harmed, f"{len(harmed)} processes that had nothing to do with it have ended, or been woken"
    return ours


@pytest.mark.points(3)
def test_who_has_left_zombies(room, rng):
    """diagnose names the parents, and their zombies; who waits for his children is not among them."""
    wanted = draw(rng, "deaf", "single", "stopped")
    told = room.prepare(services, wanted)
    said = room.call("diagnose")
    assert said == truth(told), f"by /proc it is {truth(told)}; diagnose says {said}"


@pytest.mark.points(2)
def test_in_every_disguise(room, rng):
    """diagnose is not misled by a process's name, sees into other pid namespaces, and does not spare itself."""
    wanted = draw(rng, "container", "ourselves", "deaf")
    for service in wanted:
        service[2] = rng.choice(("a) Z 1 (b", "x) S 7", "Z Z Z", ")"))
    told = room.prepare(services, wanted)
    said = room.call("diagnose")
    assert said == truth(told), f"by /proc it is {truth(told)}; diagnose says {said}"


@pytest.mark.points(2)
def test_our_own(room, rng):
    """mend(1): orphans that have come to process 1 are waited for; children that are alive stay alive."""
    mended(room, rng, "ourselves")


@pytest.mark.points(2)
def test_a_parent_that_is_stopped(room, rng):
    """A stopped parent goes on, and waits for its children itself."""
    ours = mended(room, rng, "stopped")
    assert state(room, ours) == "S", f"the parent need not end for it; its state is {state(room, ours)!r}"


@pytest.mark.points(3)
def test_a_parent_that_hears_once(room, rng):
    """A parent that waits for one child a signal needs some more of them, and lives."""
    ours = mended(room, rng, "single")
    assert state(room, ours) == "S", f"the parent need not end for it; its state is {state(room, ours)!r}"


@pytest.mark.points(3)
def test_a_parent_that_never_waits(make_room, rng):
    """Who never waits has to end, even as process 1 of a container; nothing is left of it."""
    for kind in ("deaf", "container"):
        ours = mended(make_room(), rng, kind)
        assert not os.path.exists(f"/proc/{ours}"), f"{kind}: the parent itself is left, as a zombie or alive"
