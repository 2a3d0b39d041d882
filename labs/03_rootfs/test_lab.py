"""Lab 03, graded by what the kernel shows: /proc/PID/root and cwd, mountinfo, and who can write where."""

import os

import pytest

WORDS = ("ash", "birch", "cedar", "elm", "fir", "hazel", "larch", "maple", "oak", "pine", "rowan", "willow")


def make(root, word, mounts, shared):
    """In the room: a directory with a file of that name in it, and file systems mounted below it, each with a file.

    With `shared`, mounts travel between namespaces, as they do on most machines. Device and inode of the directory.
    """
    import os

    from minicontainer import syscalls

    if shared:
        syscalls.mount("none", "/", "", syscalls.MS_REC | syscalls.MS_SHARED)
    for directory in ("proc", "tmp", "etc"):
        os.makedirs(f"{root}/{directory}")
    with open(f"{root}/{word}", "w") as file:
        file.write(word)
    for point in mounts:
        os.makedirs(f"{root}{point}")
        syscalls.mount("more", f"{root}{point}", "tmpfs")
        with open(f"{root}{point}/{word}", "w") as file:
            file.write(point)
    found = os.stat(root)
    return [found.st_dev, found.st_ino]


def spot(room, link):
    """Device and inode of the process's `root` or `cwd`, by /proc/PID."""
    found = os.stat(f"/proc/{room.pid}/{link}")
    return [found.st_dev, found.st_ino]


def draw(rng):
    """Where the new root lies, and the name of the file in it."""
    depth = rng.randrange(1, 9)
    return "/tmp/" + "/".join(rng.choices(WORDS, k=depth)) + "/root", rng.choice(WORDS)


@pytest.mark.points(2)
def test_a_jail(room, rng):
    """After jail, the process's root is the directory, and its working directory too."""
    root, word = draw(rng)
    wanted = room.prepare(make, root, word, [], False)
    room.call("jail", root)
    assert spot(room, "root") == wanted, f"/proc/PID/root is not {root}"
    place = os.readlink(f"/proc/{room.pid}/cwd")
    assert spot(room, "cwd") == wanted, f"its working directory is {place}, from where `..` leads anywhere"


@pytest.mark.points(3)
def test_the_way_out(room, rng):
    """escape leads from the jail to the top of all, without a door that was left open."""
    root, word = draw(rng)
    wanted = room.prepare(make, root, word, [], False)
    before = spot(room, "root")
    room.call("jail", root)
    assert spot(room, "root") == wanted, f"jail has not led into {root}, so there is nothing to escape from"
    doors = [name for name in os.listdir(f"/proc/{room.pid}/fd") if os.path.isdir(f"/proc/{room.pid}/fd/{name}")]
    assert not doors, f"descriptor {doors[0] if doors else ''} is an open directory: leave by the moves, not by a door"
    room.call("escape")
    place = os.readlink(f"/proc/{room.pid}/root")
    assert spot(room, "root") == before, f"/proc/PID/root is {place} by now, and not yet the top"
    assert spot(room, "cwd") == before, "its root is the top, but its working directory is not"


@pytest.mark.points(3)
def test_a_root_of_its_own(room, rng):
    """After pivot, the directory is the only root mount, the old root is gone, and other namespaces saw nothing of it."""
    root, word = draw(rng)
    wanted = room.prepare(make, root, word, [], True)
    before = {mount.number for mount in room.mounts()}
    room.call("pivot", root, [])
    assert spot(room, "root") == wanted, f"/proc/PID/root is not {root}"
    assert spot(room, "cwd") == wanted, "its working directory is not the top of the new root"
    points = [mount.point for mount in room.mounts()]
    assert points == ["/"], (
        f"mountinfo lists {len(points)} mounts, {points[:4]}…; of the old root nothing should be left"
    )
    assert not before & {mount.number for mount in room.mounts()}, "the mount at / is the old one"


@pytest.mark.points(2)
def test_no_way_out(room, rng):
    """The same escape, after pivot, leads nowhere."""
    root, word = draw(rng)
    wanted = room.prepare(make, root, word, [], True)
    room.call("pivot", root, ["/tmp"])
    outcome = room.attempt("escape")
    assert outcome.raised != "NotImplementedError", "escape() is still the stub: it raises NotImplementedError"
    place = os.readlink(f"/proc/{room.pid}/root")
    room.reopen()
    assert word in room.names("/") or outcome.raised, f"the escape has led to {place}, where {room.names('/')[:5]} are"
    points = [mount.point for mount in room.mounts()]
    assert spot(room, "cwd") == wanted or outcome.raised, f"it stands outside of its root; its mounts are {points}"
    assert len(points) == 2, f"its mounts are {points}; there should be its root and /tmp"


@pytest.mark.points(3)
def test_who_can_write_where(room, rng):
    """The new root cannot be written (EROFS), but for an empty tmpfs at each place that was asked for."""
    root, word = draw(rng)
    room.prepare(make, root, word, [], True)
    places = ["/tmp", f"/{rng.choice(WORDS)}-new/{rng.choice(WORDS)}"]
    rng.shuffle(places)
    room.call("pivot", root, places)
    room.reopen()
    assert room.read(f"/{word}").decode() == word, f"/{word} is not to be read in the new root"
    for path in (f"/{word}", "/new", "/etc/new"):
        said = room.write(path, "written")
        options = room.mount("/").options
        assert said == "EROFS", f"a write to {path} ended with {said or 'success'}; mountinfo says of /: {options}"
    for point in places:
        mount = room.mount(point)
        assert mount and mount.kind == "tmpfs", f"there is no tmpfs at {point}, but {mount}"
        said = room.write(f"{point}/new", "written")
        assert not said, f"a write to {point}/new ended with {said}; mountinfo says of {point}: {mount.options}"


@pytest.mark.points(3)
def test_what_is_mounted_below(room, rng):
    """Mounts below the directory come along, and cannot be written either."""
    root, word = draw(rng)
    mounts = [f"/{name}" for name in rng.sample(WORDS, 2)] + ["/deep/er/data"]
    room.prepare(make, root, f"f-{word}", mounts, True)
    room.call("pivot", root, ["/tmp"])
    room.reopen()
    points = sorted(mount.point for mount in room.mounts())
    assert points == sorted(["/", "/tmp", *mounts]), f"mountinfo lists {points}; below the directory were {mounts}"
    for point in mounts:
        text = room.read(f"{point}/f-{word}").decode()
        assert text == point, f"{point}/f-{word} says {text!r}"
        said = room.write(f"{point}/f-{word}", "written")
        options = room.mount(point).options
        assert said == "EROFS", f"a write below {point} ended with {said or 'success'}; its options are {options}"
