"""Lab 21, graded by what the kernel shows: the mountinfo of every process in the room."""

import os

import pytest

WORDS = ("amber", "basalt", "chalk", "flint", "garnet", "jade", "marble", "onyx", "opal", "quartz", "slate", "topaz")


def machine(volume, containers):
    """In the room: containers, each in a mount namespace of its own, which has kept the volume; and we have not.

    A container is (kind, points): it has the volume at these points as well. Kind "busy" has a file of it open, "twin"
    has a second process in its namespace, "clean" has let go of the volume. Returns the volume's device, and pids.
    """
    import os
    import signal

    from minicontainer import syscalls

    pids = []
    os.makedirs(volume)
    syscalls.mount("tmpfs", volume, "tmpfs", 0, "size=1m")
    with open(f"{volume}/data", "w") as file:
        file.write("data")
    number = os.stat(volume).st_dev
    for kind, points in containers:
        ready, say = os.pipe()
        pid = os.fork()
        if pid == 0:
            syscalls.unshare(syscalls.CLONE_NEWNS)
            for point in points:
                os.makedirs(point, exist_ok=True)
                syscalls.mount(volume, point, "", syscalls.MS_BIND)
            if kind == "clean":
                syscalls.umount(volume)
            if kind == "busy":
                os.open(f"{volume}/data", os.O_RDONLY)
                os.chdir(volume)
            if kind != "twin" or os.fork():
                os.write(say, b"\n")
            while True:
                signal.pause()
        os.read(ready, 1)
        pids.append(pid)
    syscalls.umount(volume)
    return f"{os.major(number)}:{os.minor(number)}", pids


def draw(rng):
    """The volume's directory, whose name has a blank, and containers in an order of the seed's."""
    words = rng.sample(WORDS, 5)
    volume = f"/tmp/volumes/{words[0]} {words[1]}"
    containers = [["plain", []], ["busy", []], ["twin", [f"/tmp/{words[2]}", f"/tmp/{words[3]}"]], ["clean", []]]
    rng.shuffle(containers)
    return volume, containers


def expected(volume, containers, pids):
    """What holders should say."""
    return sorted(
        [pid, point]
        for pid, (kind, points) in zip(pids, containers, strict=True)
        for point in [*points, *([] if kind == "clean" else [volume])]
    )


# What every room has. Other mounts are the machine's: one whose directory is removed there is gone in here, too.
KEPT = ("/", "/dev", "/proc", "/run", "/sys", "/tmp", "/var/tmp")


def shown(room, device):
    """How many mounts of the device each process has, by the kernel; and those of each that are to stay."""
    having, others = {}, {}
    for pid in room.processes():
        mounts = room.mounts(pid)
        having[pid] = sum(mount.device == device for mount in mounts)
        others[pid] = [mount.point for mount in mounts if mount.device != device and mount.point in KEPT]
    return having, others


@pytest.mark.points(3)
def test_who_has_it(room, rng):
    """holders finds every mount of the file system, in every namespace, once."""
    volume, containers = draw(rng)
    device, pids = room.prepare(machine, volume, containers)
    told = room.call("holders", device)
    wanted = expected(volume, containers, pids)
    assert told == wanted, f"the kernel shows {device} at {wanted}; holders says {told}"


@pytest.mark.points(1)
def test_our_own_namespace_counts(room, rng):
    """holders names our own mount as well, and nobody where nobody has one."""
    volume, _ = draw(rng)
    device, _ = room.prepare(machine, volume, [["clean", []]])
    mine = next(mount for mount in room.mounts() if mount.point == "/tmp")
    told = room.call("holders", mine.device)
    assert [1, "/tmp"] in told, f"/tmp is mounted here, too; holders says {told}"
    assert room.call("holders", device) == [], "nobody has the volume any more"


@pytest.mark.points(3)
def test_it_is_let_go(room, rng):
    """release leaves the file system in no namespace, and all processes alive."""
    volume, containers = draw(rng)
    device, _ = room.prepare(machine, volume, containers)
    before, others = shown(room, device)
    assert sum(before.values()) > 3
    space = room.namespace("mount")
    room.call("release", device)
    after, rest = shown(room, device)
    assert set(before) <= set(after), f"{len(set(before) - set(after))} processes have ended"
    still = {pid: count for pid, count in after.items() if count}
    assert not still, f"{len(still)} processes still have {device} mounted"
    assert others == {pid: rest[pid] for pid in others}, "other mounts than those of the volume are gone"
    assert room.namespace("mount") == space, "you have not come back from another mount namespace"


def peers(point, kinds):
    """In the room: a shared mount, and a container for each kind: what happens to the mount's propagation there."""
    import os
    import signal

    from minicontainer import syscalls

    os.makedirs(point)
    syscalls.mount("tmpfs", point, "tmpfs")
    syscalls.mount("", point, "", syscalls.MS_SHARED)
    os.makedirs(f"{point}-other")
    syscalls.mount("tmpfs", f"{point}-other", "tmpfs")
    syscalls.mount("", f"{point}-other", "", syscalls.MS_SHARED)
    pids = []
    for kind in kinds:
        ready, say = os.pipe()
        pid = os.fork()
        if pid == 0:
            syscalls.unshare(syscalls.CLONE_NEWNS)
            if kind == "slave":
                syscalls.mount("", point, "", syscalls.MS_SLAVE)
            if kind == "private":
                syscalls.mount("", point, "", syscalls.MS_PRIVATE)
            os.write(say, b"\n")
            while True:
                signal.pause()
        os.read(ready, 1)
        pids.append(pid)
    return pids


def drawn_kinds(rng):
    kinds = ["shared", "slave", "private", *rng.sample(["shared", "slave", "private"], 2)]
    rng.shuffle(kinds)
    return f"/tmp/{rng.choice(WORDS)}", kinds


@pytest.mark.points(3)
def test_where_mounts_appear(room, rng):
    """listeners tells peers from slaves, and leaves out who hears nothing."""
    point, kinds = drawn_kinds(rng)
    pids = room.prepare(peers, point, kinds)
    wanted = sorted([pid, kind] for pid, kind in zip(pids, kinds, strict=True) if kind != "private")
    told = room.call("listeners", point)
    assert told == wanted, f"by their mountinfo it is {wanted}; listeners says {told}"


@pytest.mark.points(3)
def test_a_door_is_closed(room, rng):
    """seal makes one namespace's mount private; it stays mounted, and nobody else notices."""
    point, kinds = drawn_kinds(rng)
    pids = [room.outside(pid) for pid in room.prepare(peers, point, kinds)]

    def heard():
        """How the mounts propagate, by process and point."""
        return {
            (pid, mount.point): list(mount.propagation)
            for pid in [room.pid, *pids] for mount in room.mounts(pid) if mount.point in (point, f"{point}-other", *KEPT)
        }  # fmt: skip

    before, space = heard(), room.namespace("mount")
    for kind in ("shared", "slave"):
        chosen = pids[kinds.index(kind)]
        number = int(room.status(chosen)["NSpid"].split()[-1])
        room.call("seal", number, point)
        assert (chosen, point) in heard(), f"{point} is no longer mounted there"
        said = heard()[chosen, point]
        assert said == [], f"mountinfo of the {kind} one still says {said}"
        before[chosen, point] = []
    after = heard()
    changed = [place for place in before if before[place] != after.get(place)]
    assert not changed, f"somebody else's mount is not as it was: {[where for _, where in changed]}"
    assert room.namespace("mount") == space, "you have not come back from another mount namespace"
    assert all(os.path.exists(f"/proc/{pid}") for pid in pids), "a container has ended"
