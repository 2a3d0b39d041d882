"""Lab 12, graded by what the kernel shows: maps as read from outside, parents of namespaces, who one is in there."""

import fcntl
import itertools
import os

import pytest

from minicontainer import syscalls

NS_GET_PARENT = 0xB702  # ioctl_ns(2): a descriptor of the user namespace around one

NAMES = ("ada", "bob", "eve", "mia", "noa", "tim", "zoe")


def lines(room, pid, name):
    """A map as the kernel tells it to us: a list of [inside, outside in our numbers, how many]."""
    with open(f"/proc/{pid}/{name}") as file:
        return [[int(word) for word in line.split()] for line in file]


def own(room, name):
    """Who the room's root is in our numbers, by the map of its user namespace; asked before anything is called."""
    return lines(room, room.pid, name)[0][1]


def chain(pid, count):
    """Descriptors of the user namespaces around a process: its own, the one around that, `count` in all."""
    descriptors = [os.open(f"/proc/{pid}/ns/user", os.O_RDONLY)]
    while len(descriptors) < count:
        descriptors.append(fcntl.ioctl(descriptors[-1], NS_GET_PARENT))
    return descriptors


@pytest.mark.points(2)
def test_a_user_namespace(room, rng):
    """enter makes a user namespace, and the kernel has the two maps that were asked for."""
    before, out = room.namespace("user"), (own(room, "uid_map"), own(room, "gid_map"))
    uid, gid = rng.sample((0, 1, 33, 1000, 4242, 65533), 2)
    room.call("enter", uid, gid)
    assert room.namespace("user") != before, f"its user namespace is still {before}"
    for name, number, outer in (("uid_map", uid, out[0]), ("gid_map", gid, out[1])):
        found = lines(room, room.pid, name)
        assert found == [[number, outer, 1]], f"enter({uid}, {gid}): from outside, {name} is {found}"


@pytest.mark.points(3)
def test_a_namespace_in_a_namespace(room, rng):
    """Called several times, enter nests; in each namespace the process is who was asked for."""
    before = os.stat(f"/proc/{room.pid}/ns/user").st_ino
    wanted = [(rng.randrange(1, 60000), rng.randrange(1, 60000)) for _ in range(3)]
    for uid, gid in wanted:
        room.call("enter", uid, gid)
    around = chain(room.pid, 4)
    found = [os.fstat(descriptor).st_ino for descriptor in around]
    assert found[3] == before, f"the fourth namespace from within is {found[3]}, and the room's is {before}"

    def who(descriptor):
        syscalls.setns(descriptor, syscalls.CLONE_NEWUSER)
        return [os.getuid(), os.getgid()]

    room_itself = int(room.status()["PPid"])  # it has stayed where all of this began
    for descriptor, (uid, gid) in zip(reversed(around[:3]), wanted, strict=True):
        seen = room.look(who, descriptor, kinds=(), pid=room_itself)
        assert seen == [uid, gid], f"in a namespace that was entered as {uid}:{gid}, who is mapped is {seen}"
    for opened in around:
        os.close(opened)


def waiting():
    """In the room: a process in a user namespace without a map. Its pid."""
    import os
    import signal

    from minicontainer.syscalls import CLONE_NEWUSER, unshare

    ready, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        unshare(CLONE_NEWUSER)
        os.write(tell, b"!")
        signal.pause()
    os.read(ready, 1)
    return pid


@pytest.mark.points(2)
def test_somebody_elses_map(room, rng):
    """give writes both maps of a process that waits for them."""
    out = own(room, "uid_map"), own(room, "gid_map")
    pid = room.prepare(waiting)
    uid, gid = rng.sample(range(70000), 2)
    room.call("give", pid, [[uid, 0, 1]], [[gid, 0, 1]])
    for name, number, outer in (("uid_map", uid, out[0]), ("gid_map", gid, out[1])):
        found = lines(room, room.outside(pid), name)
        assert found == [[number, outer, 1]], f"the waiting process's {name} is {found}, {number} 0 1 was to be written"


def subuid(rng, name, uid):
    """A text of /etc/subuid, and what is the user's of it: a list of (first, count), one of them after another."""
    kept, text, first = [], [], rng.randrange(100_000, 200_000)
    for _ in range(rng.randrange(2, 5)):
        stranger = rng.choice([other for other in NAMES if other != name])
        text.append(f"{stranger}:{first}:{1000}")
        first += rng.choice((1000, 2000))
        for _ in range(rng.randrange(1, 3)):
            count = rng.randrange(1, 3000)
            kept.append((first, count))
            text.append(f"{rng.choice((name, str(uid)))}:{first}:{count}")
            first += count
    return "\n".join(text) + "\n", kept


def every(kept, uid, wanted):
    """Id after id: who 0 to wanted - 1 are outside."""
    return [uid, *(number for first, count in kept for number in range(first, first + count))][:wanted]


@pytest.mark.points(3)
@pytest.mark.pure
def test_a_map_of_ones_own(room, rng):
    """choose maps just as many ids as are wanted, the user's own first, and in as few lines as can be."""
    for _ in range(8):
        name, uid = rng.choice(NAMES), rng.randrange(1000, 2000)
        text, kept = subuid(rng, name, uid)
        wanted = rng.randrange(1, sum(count for _, count in kept) + 2)
        told = room.call("choose", uid, name, text, wanted)
        ids = [(inside + n, outside + n) for inside, outside, count in told for n in range(count)]
        expected = list(enumerate(every(kept, uid, wanted)))
        asked = f"choose({uid}, {name!r}, {text!r}, {wanted}) says {told}"
        assert len(ids) == wanted, f"{asked}: these are {len(ids)} ids"
        wrong = next((pair for pair, right in zip(ids, expected, strict=True) if pair != right), None)
        assert ids == expected, f"{asked}: {wrong} is wrong; {expected[wrong[0]] if wrong else ''} would be right"
        jumps = sum(1 for one, other in itertools.pairwise(expected) if other[1] != one[1] + 1)
        assert len(told) == jumps + 1, f"{asked}: {jumps + 1} lines are enough"


@pytest.mark.points(2)
@pytest.mark.pure
def test_not_that_many(room, rng):
    """choose raises ValueError where the user has fewer ids, and takes nobody else's."""
    name, uid = rng.choice(NAMES), rng.randrange(1000, 2000)
    text, kept = subuid(rng, name, uid)
    have = sum(count for _, count in kept) + 1
    told = room.call("choose", uid, name, text, have)
    assert sum(count for _, _, count in told) == have, f"the user has {have} ids, and got {told}"
    for more in (1, rng.randrange(2, 10_000)):
        outcome = room.attempt("choose", uid, name, text, have + more)
        assert outcome.raised == "ValueError", f"the user has {have} ids, {have + more} were wanted: {outcome}"


def nested(rng):
    """Maps of three namespaces, the innermost first, as texts; and the pairs (number inside, user of the machine)."""
    texts, pairs = [], None
    for _ in range(3):  # the outermost comes first here
        known = sorted(range(100_000, 100_400) if pairs is None else [inside for inside, _ in pairs])
        table, inside = [], 0
        for _ in range(3):
            inside += rng.randrange(1, 50)
            start = rng.choice(known)
            count = rng.randrange(1, 40)
            if any(outer < start + count and start < outer + size for _, outer, size in table):
                continue  # no id outside may be there twice
            table.append((inside, start, count))
            inside += count
        shown = rng.sample(table, len(table))
        texts.insert(0, "".join(f"{inside:>10} {outer:>10} {count:>10}\n" for inside, outer, count in shown))
        mapped = [(inside + n, outer + n) for inside, outer, count in table for n in range(count)]
        if pairs is not None:  # what a map takes from the namespace around, and that does not know, is nobody
            around = dict(pairs)
            mapped = [(number, around[outer]) for number, outer in mapped if outer in around]
        pairs = mapped
    return texts, dict(pairs)


@pytest.mark.points(2)
@pytest.mark.pure
def test_from_inside_to_outside(room, rng):
    """outside follows a number through every map, and says None where it means nobody."""
    for _ in range(3):
        texts, pairs = nested(rng)
        for number in [*rng.sample(sorted(pairs), min(5, len(pairs))), *rng.sample(range(200), 5)]:
            told = room.call("outside", texts, number)
            assert told == pairs.get(number), (
                f"{number} through the maps {texts}: outside says {told}, not {pairs.get(number)}"
            )


@pytest.mark.points(2)
@pytest.mark.pure
def test_from_outside_to_inside(room, rng):
    """inside finds the number that a user of the machine has in there, and 65534 for whoever has none."""
    for _ in range(3):
        texts, pairs = nested(rng)
        back = {outer: number for number, outer in pairs.items()}
        for user in [*rng.sample(sorted(back), min(5, len(back))), *rng.sample(range(100_000, 100_400), 5), 0]:
            told, right = room.call("inside", texts, user), back.get(user, 65534)
            assert told == right, (
                f"user {user} of the machine through the maps {texts}: inside says {told}, not {right}"
            )
