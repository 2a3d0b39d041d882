"""Lab 10, graded by mountinfo, by what can be read where, and by what cannot be written."""

import stat

import pytest

WORDS = ("amber", "basalt", "chalk", "flint", "gneiss", "jade", "marble", "onyx", "quartz", "slate")
ROOT = "/tmp/root"


def make(directories, files, links, filesystems):
    """In the room: file systems in memory at these spots, (spot, flags); directories, files, links."""
    import os

    from minicontainer import syscalls

    for spot, flags in filesystems:
        os.makedirs(spot, exist_ok=True)
        syscalls.mount("tmpfs", spot, "tmpfs", flags)
    for path in directories:
        os.makedirs(path, exist_ok=True)
    for path, content in files.items():
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as file:
            file.write(content)
    for path, target in links.items():
        os.makedirs(os.path.dirname(path), exist_ok=True)
        os.symlink(target, path)


def one(source, target, *options):
    """A line of `wanted`."""
    return {"source": source, "target": target, "options": options}


@pytest.mark.points(2)
def test_a_directory_appears_in_the_root(room, rng):
    """A directory of ours is seen at its target, and what is written there lands in ours."""
    name, text = rng.choice(WORDS), f"content {rng.random()}"
    room.prepare(make, [f"{ROOT}/data"], {f"/tmp/src/{name}": text}, {}, [])
    room.call("arrange", ROOT, [one("/tmp/src", "/data")])
    mount = room.mount(f"{ROOT}/data")
    assert mount, f"nothing is mounted at {ROOT}/data"
    seen = room.names(f"{ROOT}/data")
    assert seen == [name], f"the source holds {name}, and at the target is {seen}"
    room.write(f"{ROOT}/data/new", text)
    assert room.read("/tmp/src/new").decode() == text


@pytest.mark.points(3)
def test_options_hold_for_all_of_it(room, rng):
    """What is mounted below the source comes along, and the options hold there, too."""
    options = ["ro", *rng.sample(("nosuid", "nodev", "noexec"), 2)]
    inner = rng.choice(WORDS)
    room.prepare(make, [ROOT], {f"/tmp/src/{inner}/file": "x"}, {}, [("/tmp/src", 0), (f"/tmp/src/{inner}", 0)])
    room.call("arrange", ROOT, [one("/tmp/src", "/data", *options)])
    for point in (f"{ROOT}/data", f"{ROOT}/data/{inner}"):
        mount = room.mount(point)
        assert mount, f"/tmp/src/{inner} is a mount of its own, and nothing is mounted at {point}"
        lacking = set(options) - set(mount.options)
        assert not lacking, f"mountinfo says {','.join(mount.options)} for {point}: {', '.join(lacking)} is missing"
    said = room.write(f"{ROOT}/data/{inner}/file", "written")
    assert said == "EROFS", f"a write below the read-only mount ended with {said or 'success'}"
    said = room.write("/tmp/src/file", "written")
    assert said == "", f"the source itself can no longer be written: {said}"


@pytest.mark.points(3)
def test_in_any_order(room, rng):
    """A mount inside of another one's target is not hidden by it, in whatever order they were asked for."""
    outer, middle, inner = rng.sample(WORDS, 3)
    spots = [f"/{outer}", f"/{outer}/{middle}", f"/{outer}/{middle}/{inner}"]
    sources = [f"/tmp/src{number}" for number in range(3)]
    files = {f"{source}/file": f"from {source}" for source in sources}
    room.prepare(make, [ROOT], files, {}, [])
    wanted = [one(source, spot) for source, spot in zip(sources, spots, strict=True)]
    wanted = [wanted[2], *rng.sample(wanted[:2], 2)]
    room.call("arrange", ROOT, wanted)
    for source, spot in zip(sources, spots, strict=True):
        said = room.read(f"{ROOT}{spot}/file").decode()
        assert said == f"from {source}", f"{spot} shows the file {said}; asked for in the order {wanted}"


@pytest.mark.points(2)
def test_nothing_is_loosened_and_nothing_comes_later(room, rng):
    """What the source's mount forbids stays forbidden; mounts made at a shared source later do not come over."""
    from minicontainer import syscalls

    forbidden = {"nosuid": syscalls.MS_NOSUID, "nodev": syscalls.MS_NODEV, "noexec": syscalls.MS_NOEXEC}
    word = rng.choice(list(forbidden))
    room.prepare(make, [ROOT], {}, {}, [("/tmp/src", forbidden[word])])
    room.prepare(share, "/tmp/src")
    room.call("arrange", ROOT, [one("/tmp/src", "/data", "ro")])
    mount = room.mount(f"{ROOT}/data")
    assert mount, f"nothing is mounted at {ROOT}/data"
    assert {word, "ro"} <= set(mount.options), f"the source is {word}, asked for was ro; the target has {mount.options}"
    assert not any(tag.startswith("shared") for tag in mount.propagation), f"the mount is {mount.propagation}"


def share(path):
    """In the room: mounts made at this path from now on appear in every copy of it."""
    from minicontainer import syscalls

    syscalls.mount("", path, "", syscalls.MS_SHARED)


@pytest.mark.points(4)
def test_links_do_not_lead_out(room, rng):
    """A link in the tree is the container's: it ends inside. What is missing is made; a file can be a source, too."""
    name, victim, deep = rng.sample(WORDS, 3)
    links = {
        f"{ROOT}/absolute": f"/tmp/{victim}",
        f"{ROOT}/a/b/relative": f"../../../../../tmp/{victim}",
        f"{ROOT}/chain": "a/b/relative/more",
    }
    files = {f"/tmp/src/{name}": "from the source", f"/tmp/{victim}/file": "the machine's own", "/tmp/alone": "a file"}
    room.prepare(make, [], files, links, [])
    targets = {
        "/absolute": f"{ROOT}/tmp/{victim}",
        "/chain": f"{ROOT}/tmp/{victim}/more",
        f"/missing/{deep}": f"{ROOT}/missing/{deep}",
    }
    wanted = [one("/tmp/src", target) for target in targets] + [one("/tmp/alone", "/etc/alone", "ro")]
    before = {mount.number for mount in room.mounts()}  # the machine's own, perhaps below a /tmp that is hidden by now
    room.call("arrange", ROOT, wanted)
    points = [mount.point for mount in room.mounts() if mount.number not in before]
    outside = [point for point in points if not point.startswith(f"{ROOT}/")]
    assert not outside, f"mounted outside of the root: {outside}"
    for target, spot in targets.items():
        assert spot in points, f"{target} is {spot} for the container; mounts are at {points}"
    assert name in room.names(f"{ROOT}/missing/{deep}")
    assert room.read(f"{ROOT}/etc/alone").decode() == "a file", "the source that is a file is not at its target"


@pytest.mark.points(2)
def test_two_at_one_place(room, rng):
    """ValueError where two targets are the same spot, under whatever names; and then nothing is mounted."""
    name = rng.choice(WORDS)
    room.prepare(make, [f"{ROOT}/run", "/tmp/one", "/tmp/two", "/tmp/three"], {}, {f"{ROOT}/var/run": "/run"}, [])
    wanted = [one("/tmp/three", "/other"), one("/tmp/one", f"/var/run/{name}"), one("/tmp/two", f"//run/./{name}")]
    outcome = room.attempt("arrange", ROOT, wanted)
    assert outcome.raised == "ValueError", (
        f"/var/run is a link to /run; arrange ended with {outcome.raised or 'success'}"
    )
    points = [mount.point for mount in room.mounts() if mount.point.startswith(ROOT)]
    assert not points, f"it was refused, and yet mounted is {points}"


@pytest.mark.points(3)
def test_an_empty_volume_is_filled_once(room, rng):
    """fill copies what the image has there, into an empty volume only, and says whether it did."""
    first, second = rng.sample(WORDS, 2)
    files = {f"/tmp/image/{first}": f"{rng.random()}", f"/tmp/image/below/{second}": f"{rng.random()}"}
    room.prepare(make, ["/tmp/volume"], files, {}, [])
    assert room.call("fill", "/tmp/volume", "/tmp/image") is True, "the volume was empty, and fill did not return True"
    for path, content in files.items():
        copied = path.replace("/tmp/image", "/tmp/volume")
        assert room.read(copied).decode() == content, f"{copied} is not what the image has"
    room.write(f"/tmp/volume/{first}", "mine now")
    assert room.call("fill", "/tmp/volume", "/tmp/image") is False, (
        "the volume held files, and fill did not return False"
    )
    said = room.read(f"/tmp/volume/{first}").decode()
    assert said == "mine now", f"a volume that held files was filled again: {said!r}"


def details(names, mode, seconds):
    """In the room: an image with a program, a link, two names of one file, a file of long ago."""
    import os

    os.makedirs("/tmp/image/sub")
    os.makedirs("/tmp/volume")
    one, other = names
    with open(f"/tmp/image/{one}", "w") as file:
        file.write("content")
    os.chmod(f"/tmp/image/{one}", mode)
    os.utime(f"/tmp/image/{one}", (seconds, seconds))
    os.link(f"/tmp/image/{one}", f"/tmp/image/sub/{other}")
    os.symlink("/etc/hostname", "/tmp/image/link")
    os.chmod("/tmp/image/sub", 0o750)


@pytest.mark.points(3)
def test_details_of_a_copy(room, rng):
    """Modes, times, links as links, and two names of one file."""
    one, other = rng.sample(WORDS, 2)
    mode, seconds = rng.choice((0o750, 0o711, 0o640)), rng.randrange(10**9)
    room.prepare(details, [one, other], mode, seconds)
    room.call("fill", "/tmp/volume", "/tmp/image")
    copy, twin = room.stat(f"/tmp/volume/{one}"), room.stat(f"/tmp/volume/sub/{other}")
    assert copy and twin, f"the volume holds {room.names('/tmp/volume')}"
    assert copy.st_mode & 0o7777 == mode, f"the mode was {mode:o} and is {copy.st_mode & 0o7777:o}"
    assert int(copy.st_mtime) == seconds, f"changed at {seconds} in the image, at {copy.st_mtime} in the volume"
    link = room.stat("/tmp/volume/link")
    assert link and stat.S_ISLNK(link.st_mode), "a symbolic link of the image is none in the volume"
    directory = room.stat("/tmp/volume/sub")
    assert directory and directory.st_mode & 0o7777 == 0o750, "a directory's mode was not kept"
    assert copy.st_ino == twin.st_ino, "two names of one file became two files"
    image = room.stat(f"/tmp/image/{one}")
    assert image and image.st_ino != copy.st_ino, "the volume shares a file with the image: a write would change both"
