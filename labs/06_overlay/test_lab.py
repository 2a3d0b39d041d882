"""Lab 06, graded by what the kernel shows: mountinfo, the upper directory, whiteouts."""

import pytest

pytestmark = pytest.mark.needs("overlay")

WORDS = ("ash", "birch", "cedar", "elm", "fir", "hazel", "larch", "maple", "oak", "pine", "rowan", "willow")


def make(layers, more):
    """In the room: each layer's files, {path: content}, in /tmp; and an empty directory /tmp/top."""
    import os

    for layer, files in layers:
        os.makedirs(layer)
        for path, content in files.items():
            os.makedirs(os.path.dirname(f"{layer}/{path}"), exist_ok=True)
            with open(f"{layer}/{path}", "w") as file:
                file.write(content)
    for directory in more:
        os.makedirs(directory)


def draw(rng, count, names=None):
    """Layers with a file of their own each, and one name that all of them have."""
    words = rng.sample(WORDS, count + 1)
    shared = words.pop()
    names = names or [f"/tmp/layers/{word}" for word in words]
    layers = [
        (name, {word: f"{word} {rng.random()}", shared: f"from {word}"})
        for name, word in zip(names, words, strict=True)
    ]
    return layers, words, shared


@pytest.mark.points(2)
def test_layers_are_seen_as_one_tree(room, rng):
    """merged shows the files of every layer; of two with one name, the upper one."""
    layers, words, shared = draw(rng, 3)
    room.prepare(make, layers, ["/tmp/top"])
    room.call("stack", [name for name, _ in layers], "/tmp/top")
    mount = room.mount("/tmp/top/merged")
    assert mount and mount.kind == "overlay", f"the kernel has no overlay at /tmp/top/merged, but {mount}"
    seen = room.names("/tmp/top/merged")
    assert seen == sorted([*words, shared]), f"merged shows {seen}, and the layers hold {sorted([*words, shared])}"
    content = room.read(f"/tmp/top/merged/{shared}").decode()
    assert content == f"from {words[-1]}", f"all layers have {shared}; seen is the one {content!r}, not the topmost"


@pytest.mark.points(2)
def test_a_write_lands_in_upper(room, rng):
    """What is written through merged is copied up; the layer below stays as it was."""
    layers, words, _ = draw(rng, 2)
    room.prepare(make, layers, ["/tmp/top"])
    room.call("stack", [name for name, _ in layers], "/tmp/top")
    text = f"written {rng.random()}"
    room.write(f"/tmp/top/merged/{words[0]}", text)
    assert room.stat(f"/tmp/top/upper/{words[0]}"), f"upper holds {room.names('/tmp/top/upper')}: no copy of the file"
    assert room.read(f"/tmp/top/upper/{words[0]}").decode() == text, "the copy in upper is not what was written"
    below = room.read(f"{layers[0][0]}/{words[0]}").decode()
    assert below == layers[0][1][words[0]], f"the layer itself was changed: it says {below!r} now"


@pytest.mark.points(2)
def test_layers_with_awkward_names(room, rng):
    """A layer's name may hold a colon, a comma, a backslash."""
    characters = rng.sample(":,\\", 3)
    names = [f"/tmp/layers/{number}{character}x" for number, character in enumerate(characters)]
    layers, words, shared = draw(rng, 3, names)
    room.prepare(make, layers, ["/tmp/top"])
    room.call("stack", names, "/tmp/top")
    seen = room.names("/tmp/top/merged")
    assert seen == sorted([*words, shared]), f"layers called {names}: merged shows {seen}"


@pytest.mark.points(3)
def test_a_frozen_tree(make_room, rng):
    """freeze mounts a tree without an upper directory, of one layer as of several; writing to it is refused (EROFS)."""
    for count in (3, 1):
        room = make_room()
        layers, words, shared = draw(rng, count)
        room.prepare(make, layers, ["/tmp/view"])
        room.call("freeze", [name for name, _ in layers], "/tmp/view")
        mount = room.mount("/tmp/view")
        assert mount, f"{count} layers: nothing is mounted at /tmp/view"
        assert not any(word.startswith("upperdir") for word in mount.data), f"there is an upper directory: {mount.data}"
        seen = room.names("/tmp/view")
        assert seen == sorted([*words, shared]), f"{count} layers: the view shows {seen}"
        assert room.read(f"/tmp/view/{shared}").decode() == f"from {words[-1]}", (
            f"{count} layers: the wrong one is on top"
        )
        said = room.write(f"/tmp/view/{words[0]}", "written")
        assert said == "EROFS", (
            f"{count} layers: a write to the view ended with {said}, and mountinfo says {mount.options}"
        )


@pytest.mark.points(4)
def test_what_was_done(room, rng):
    """changes tells what was added, changed and deleted, from upper and its whiteouts."""
    layers, words, _ = draw(rng, 3)
    layers[0][1]["etc/motd"] = "welcome"
    layers[0][1]["etc/issue"] = "an issue"
    names = [name for name, _ in layers]
    # Empty: to delete a full one, overlay notes in user.* attributes, which a tmpfs keeps from Linux 6.6 on only.
    room.prepare(make, layers, ["/tmp/top", f"{names[1]}/old"])
    room.call("stack", names, "/tmp/top")
    new = rng.choice(("fresh", "novel", "recent"))
    merged = "/tmp/top/merged"
    room.write(f"{merged}/etc/motd", "changed")
    room.write(f"{merged}/{new}", "added")
    room.remove(f"{merged}/{words[1]}")
    room.remove(f"{merged}/old")
    room.mkdir(f"{merged}/dir-{new}")
    expected = [
        ["D", f"/{words[1]}"],
        ["D", "/old"],
        ["A", f"/{new}"],
        ["A", f"/dir-{new}"],
        ["C", "/etc"],
        ["C", "/etc/motd"],
    ]
    told = room.call("changes", names, "/tmp/top")
    assert sorted(told) == sorted(expected), f"changes says {told}; upper holds {room.names('/tmp/top/upper')}"
    assert told == sorted(told, key=lambda change: change[1]), "the list is not sorted by path"
