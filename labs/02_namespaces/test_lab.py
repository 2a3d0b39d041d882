"""Lab 02, graded by what the kernel shows: the links in /proc/PID/ns, NSpid, host names, a /proc seen from outside."""

import os
import time

import pytest

from minicontainer import files
from minicontainer.kernel import namespaces
from minicontainer.teach import child

KINDS = ("cgroup", "ipc", "mount", "network", "pid", "uts")


def inodes(pid):
    """Kind → "uts:[4026531838]", for a process by our number."""
    return {kind: os.readlink(namespaces.path(pid, kind)) for kind in KINDS}


def own(room, pid):
    """The kinds of which that process is not where the learner's process is, sorted."""
    here, there = inodes(room.pid), inodes(pid)
    return [kind for kind in KINDS if here[kind] != there[kind]]


def cradle(pid):
    """The pid namespace in which its next child will be born."""
    try:
        return os.readlink(f"/proc/{pid}/ns/pid_for_children")
    except FileNotFoundError:
        return "a new one, which has no process yet"


def left_behind(room, before):
    """What a call has left in the learner's process: zombies, and descriptors more than the `before`."""
    zombies = [pid for pid in child.children(room.pid) if room.status(pid)["State"].startswith("Z")]
    said = [f"{len(zombies)} zombies, whom nobody has waited for"] if zombies else []
    more = descriptors(room) - before
    return " and ".join([*said, f"{more} open descriptors"] if more > 0 else said)


def descriptors(room):
    """How many files the learner's process has open."""
    return len(os.listdir(f"/proc/{room.pid}/fd"))


def draw(rng, *always):
    """Some kinds, in any order, these among them."""
    others = [kind for kind in KINDS if kind not in always]
    kinds = [*always, *rng.sample(others, rng.randrange(1, len(others)))]
    rng.shuffle(kinds)
    return kinds


@pytest.mark.points(2)
def test_new_namespaces(room, rng):
    """isolate puts the process into new namespaces of the kinds asked for, and no others."""
    kinds = draw(rng, "pid", rng.choice(("uts", "ipc", "network")))
    before = inodes(room.pid)
    room.call("isolate", kinds)
    after = inodes(room.pid)
    moved = [kind for kind in KINDS if before[kind] != after[kind]]
    expected = sorted(set(kinds) - {"pid"})
    assert moved == expected, f"isolate({kinds}): the kernel shows new namespaces of {moved} in /proc/PID/ns"
    children = cradle(room.pid)
    assert children != before["pid"], f"pid_for_children is {children}: its children would be born where it is itself"


def strangers(several):
    """In the room: a process for each list of flags, in new namespaces of these. Their pids."""
    import os
    import signal

    from minicontainer import syscalls

    pids = []
    for flags in several:
        ready, tell = os.pipe()
        pid = os.fork()
        if pid == 0:
            for flag in flags:
                syscalls.unshare(flag)
            os.write(tell, b"!")
            signal.pause()
        os.read(ready, 1)
        pids.append(pid)
    return pids


@pytest.mark.points(2)
def test_what_two_processes_share(room, rng):
    """shared tells which kinds of namespaces two processes have in common."""
    several = [rng.sample([kind for kind in KINDS if kind != "pid"], count) for count in (1, 2, 4)]
    pids = room.prepare(strangers, [[namespaces.FLAGS[kind] for kind in kinds] for kinds in several])
    for _ in range(4):
        one, other = rng.choice(pids), rng.choice(pids)
        told = room.call("shared", one, other)
        first, second = inodes(room.outside(one)), inodes(room.outside(other))
        expected = [kind for kind in KINDS if first[kind] == second[kind]]
        assert told == expected, f"shared({one}, {other}) says {told}; by /proc/PID/ns it is {expected}"


@pytest.mark.points(3)
def test_a_process_in_namespaces_of_its_own(make_room, rng):
    """start's process has new namespaces of the kinds asked for, shares the others, and has the host name."""
    for kinds in (draw(rng, "uts"), ["uts"]):
        room, name = make_room(), f"{rng.choice(('web', 'db', 'cache'))}{rng.randrange(100)}"
        pid = room.outside(room.call("start", kinds, name))
        assert own(room, pid) == sorted(kinds), f"start({kinds}): it has namespaces of its own of {own(room, pid)}"
        said = room.look(lambda: os.uname().nodename, kinds=("uts",), pid=pid)
        assert said == name, f"the host name in there is {said!r}, and {name!r} was asked for"
        said = room.look(lambda: os.uname().nodename, kinds=("uts",))
        assert said == "room", f"the caller's own host name has become {said!r}"


@pytest.mark.points(2)
def test_the_caller_stays_where_it_is(room, rng):
    """After start, the caller's namespaces and its children's are those of before, and nothing is left over."""
    before, opened = inodes(room.pid), descriptors(room)
    room.call("start", list(KINDS), "elsewhere")
    after = inodes(room.pid)
    moved = [kind for kind in KINDS if before[kind] != after[kind]]
    assert not moved, f"the caller itself has moved into new namespaces: {moved}"
    children = cradle(room.pid)
    assert children == before["pid"], f"the caller's next child would be born in {children}, not in {before['pid']}"
    left = left_behind(room, opened)
    assert not left, f"start has left in the caller: {left}"


@pytest.mark.points(3)
def test_process_1_and_its_proc(room, rng):
    """With "pid" it is process 1; with "mount" as well, its /proc shows nobody else, and the caller's stays."""
    kinds = draw(rng, "pid", "mount")
    mine = room.names("/proc")
    pid = room.outside(room.call("start", kinds, "first"))
    numbers = room.status(pid)["NSpid"].split()
    assert numbers[-1] == "1", f"NSpid in its /proc/PID/status is {numbers}: in its own namespace it is not 1"
    root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY)
    proc = files.inside(root, "/proc", os.O_RDONLY | os.O_DIRECTORY)
    seen = sorted(filter(str.isdigit, os.listdir(proc)))
    os.close(proc)
    os.close(root)
    assert seen == ["1"], f"its /proc shows the processes {seen}, and it is alone in there"
    assert "1" in mine and len([name for name in room.names("/proc") if name.isdigit()]) > 1, (
        f"the caller's own /proc shows {room.names('/proc')[:5]}… now: something was mounted over it"
    )


def place(wanted, shared):
    """In the room: a process in new namespaces; its list of mounts may have something over /proc. Its pid.

    With `shared`, mounts travel between the namespaces of the room, as they do on most machines.
    """
    import os
    import signal

    from minicontainer import syscalls

    if shared:
        syscalls.mount("", "/", "", syscalls.MS_REC | syscalls.MS_SHARED)
    ready, tell = os.pipe()
    between = os.fork()
    if between == 0:
        syscalls.unshare(wanted)
        pid = os.fork()
        if pid == 0:
            if wanted & syscalls.CLONE_NEWNS:
                syscalls.mount("none", "/", "", syscalls.MS_REC | syscalls.MS_PRIVATE)
                syscalls.mount("tmpfs", "/proc", "tmpfs")
            os.write(tell, b"!")
            signal.pause()
        os.read(ready, 1)
        os.write(tell, str(pid).encode())
        os._exit(0)
    os.waitpid(between, 0)
    return int(os.read(ready, 16))


@pytest.mark.points(2)
def test_mounts_do_not_travel(room, rng):
    """Also where mounts are shared between namespaces, as under systemd, start leaves the caller's mounts alone."""
    room.prepare(place, 0, True)
    before = {mount.number for mount in room.mounts()}
    room.call("start", draw(rng, "pid", "mount"), "first")
    # The machine's own may go meanwhile: with the directory that one is mounted on it goes everywhere (rmdir(2)).
    more = [(mount.point, mount.kind) for mount in room.mounts() if mount.number not in before]
    assert more == [], f"the caller's own list of mounts has grown by {more}"


def becomes(room, pid, name):
    """The name of what a process runs, once that is `name` or five seconds are over."""
    deadline = time.monotonic() + 5
    while (runs := room.status(pid)["Name"]) != name and time.monotonic() < deadline:
        time.sleep(0.01)
    return runs


@pytest.mark.points(3)
def test_a_program_in_anothers_namespaces(make_room, rng):
    """enter runs a program in the namespaces asked for, and in the caller's own of every other kind."""
    for always in (("pid", "uts"), ("network",)):
        room = make_room()
        every = sum(namespaces.FLAGS[kind] for kind in KINDS if kind != "mount")
        there = room.prepare(place, every, False)
        kinds = [kind for kind in draw(rng, *always) if kind != "mount"]
        before, opened = inodes(room.pid), descriptors(room)
        pid = room.outside(room.call("enter", there, kinds, ["/bin/sleep", f"{rng.randrange(600, 700)}"]))
        runs = becomes(room, pid, "sleep")
        assert runs == "sleep", f"{runs} runs there instead of sleep"
        found, host = inodes(pid), inodes(room.outside(there))
        for kind in KINDS:
            expected = host[kind] if kind in kinds else before[kind]
            assert found[kind] == expected, (
                f"enter(…, {kinds}, …): the program's {kind} namespace is {found[kind]}, and should be {expected}"
            )
        children = cradle(room.pid)
        assert inodes(room.pid) == before and children == before["pid"], "the caller itself has moved"
        left = left_behind(room, opened)
        assert not left, f"enter has left in the caller: {left}"


@pytest.mark.points(2)
def test_the_door_is_found_before_one_walks(room, rng):
    """enter works where the other process has something else at /proc, in whatever order the kinds are named."""
    there = room.prepare(place, namespaces.FLAGS["mount"] | namespaces.FLAGS["uts"] | namespaces.FLAGS["ipc"], False)
    kinds = ["mount", *rng.sample(("uts", "ipc"), 2)]
    pid = room.outside(room.call("enter", there, kinds, ["/bin/sleep", "600"]))
    found, host = inodes(pid), inodes(room.outside(there))
    missed = [kind for kind in kinds if found[kind] != host[kind]]
    assert not missed, f"enter(…, {kinds}, …): the program is not in the other's namespaces of {missed}"
