"""Lab 05, graded by the tree that was written, and by a model of what layers mean. Needs no namespaces, no mounts."""

import io
import os
import stat
import tarfile

import pytest

pytestmark = pytest.mark.pure

WORDS = ("ash", "birch", "cedar", "elm", "fir", "hazel", "larch", "maple", "oak", "pine", "rowan", "willow")

# A layer is a list of [name, kind, what]: a "directory", a "file" with its content, a "symlink" with its target; "gone"
# and "opaque" are the two marks, with the name that they speak of.


def write(layers):
    """In the room: /tmp/0.tar and so on, and an empty /tmp/tree."""
    import io
    import os
    import tarfile

    kinds = {"directory": tarfile.DIRTYPE, "file": tarfile.REGTYPE, "symlink": tarfile.SYMTYPE}
    for index, layer in enumerate(layers):
        with tarfile.open(f"/tmp/{index}.tar", "w") as tar:
            for name, kind, what in layer:
                data = what.encode() if kind == "file" else b""
                if kind == "gone":
                    directory, _, last = name.rpartition("/")
                    name, kind = f"{directory}/.wh.{last}".lstrip("/"), "file"
                if kind == "opaque":
                    name, kind = f"{name}/.wh..wh..opq", "file"
                entry = tarfile.TarInfo(name)
                entry.type, entry.size, entry.mode = kinds[kind], len(data), 0o750 if kind == "directory" else 0o640
                entry.linkname = what if kind == "symlink" else ""
                tar.addfile(entry, io.BytesIO(data))
    os.mkdir("/tmp/tree")


def archives(layers):
    """The paths of what `write` has written."""
    return [f"/tmp/{number}.tar" for number in range(len(layers))]


def meant(layers):
    """The tree that a stack stands for: name → (kind, what)."""
    tree = {}

    def cut(path, also):
        for name in [name for name in tree if f"{name}/".startswith(f"{path}/")]:
            if also or name != path:
                tree.pop(name)

    for entries in layers:
        for name, kind, _ in entries:
            if kind in ("gone", "opaque"):
                cut(name, kind == "gone")
        for name, kind, what in entries:
            if kind in ("gone", "opaque") or (kind == "directory" and tree.get(name, ("",))[0] == "directory"):
                continue
            cut(name, True)
            tree[name] = (kind, what)
    return tree


def seen(room, top, path=""):
    """The tree that lies in the room's directory `top`, as `meant` tells it."""
    tree = {}
    for name in room.names(f"{top}/{path}"):
        below = f"{path}/{name}".lstrip("/")
        mode = room.stat(f"{top}/{below}").st_mode
        if stat.S_ISDIR(mode):
            tree[below] = ("directory", "")
            tree |= seen(room, top, below)
        elif stat.S_ISLNK(mode):
            link = room.open(f"{top}/{below}", os.O_PATH | os.O_NOFOLLOW)
            tree[below] = ("symlink", os.readlink("", dir_fd=link))
            os.close(link)
        else:
            tree[below] = ("file", room.read(f"{top}/{below}").decode(errors="replace"))
    return tree


def differ(found, wanted, layers):
    """A sentence about the first name on which two trees differ, and what the layers say of it; "" if none does."""
    for name in sorted({*found, *wanted}):
        if found.get(name) != wanted.get(name):
            shown, should = (" ".join(tree.get(name, ("nothing",))).strip() for tree in (found, wanted))
            said = [f"layer {number}: {entry[1]}" for number, layer in enumerate(layers) for entry in layer
                    if entry[0] == name or (f"{name}/".startswith(f"{entry[0]}/") and entry[1] != "directory")]  # fmt: skip
            return f"{name} is {shown!r}, and should be {should!r} ({'; '.join(said) or 'no layer has it'})"
    return ""


def parents(name):
    """Every directory on the way to a name, the outermost first."""
    parts = name.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]


def draw(rng, count):
    """A stack at random, over few names, so that layers meet: what was a file becomes a directory, and so on."""
    words = rng.sample(WORDS, 3)
    names = list(words) + [f"{a}/{b}" for a in words for b in words] + [f"{words[0]}/{a}/{a}" for a in words]
    layers = []
    for _ in range(count):
        tree, layer, marks = meant(layers), {}, []
        for name in rng.sample(names, rng.randrange(4, 8)):
            kind = rng.choice(("directory", "file", "file", "symlink", "gone", "gone", "opaque"))
            way = parents(name) + ([name] if kind == "opaque" else [])
            if any(layer.get(step, ("directory",))[0] != "directory" for step in way):
                continue
            if kind in ("gone", "opaque"):
                if name in tree or rng.random() < 0.2:
                    marks.append([name, kind, ""])
            elif name in layer:
                continue
            else:
                layer[name] = (kind, f"{name} {rng.random()}" if kind != "directory" else "")
            layer |= {step: layer.get(step, ("directory", "")) for step in way}
        entries = [[name, *layer[name]] for name in sorted(layer)]
        for mark in marks:
            entries.insert(rng.randrange(len(entries) + 1), mark)
        layers.append(entries)
    return layers


@pytest.mark.points(2)
def test_layers_lie_upon_each_other(room, rng):
    """apply writes every layer's entries, with their modes; of two with one name, the upper one."""
    words = rng.sample(WORDS, 5)
    layers = [[[words[0], "directory", ""], [words[1], "file", "below"], [f"{words[0]}/{words[2]}", "file", words[2]]]]
    layers.append([[words[0], "directory", ""], [f"{words[0]}/{words[3]}", "symlink", f"../{words[1]}"]])
    layers.append([[words[1], "file", "above"], [words[4], "directory", ""]])
    room.prepare(write, layers)
    room.call("apply", archives(layers), "/tmp/tree")
    wrong = differ(seen(room, "/tmp/tree"), meant(layers), layers)
    assert not wrong, wrong
    for name, mode in ((words[0], 0o750), (words[1], 0o640)):
        found = stat.S_IMODE(room.stat(f"/tmp/tree/{name}").st_mode)
        assert found == mode, f"{name} has the mode {found:o}, and in its layer {mode:o}"


@pytest.mark.points(2)
def test_what_is_gone(room, rng):
    """A whiteout takes one name away, an opaque directory all that was in it; neither is left as a file."""
    a, b, c, d = rng.sample(WORDS, 4)
    layers = [[[a, "directory", ""], [f"{a}/{b}", "file", "old"], [f"{a}/{c}", "file", "stays"],
               [d, "directory", ""], [f"{d}/{a}", "directory", ""], [f"{d}/{a}/{b}", "file", "old"]]]  # fmt: skip
    layers.append([[a, "directory", ""], [f"{a}/{b}", "gone", ""],
                   [d, "directory", ""], [f"{d}/{c}", "file", "new"], [d, "opaque", ""]])  # fmt: skip
    layers.append([[c, "gone", ""]])
    room.prepare(write, layers)
    room.call("apply", archives(layers), "/tmp/tree")
    wrong = differ(seen(room, "/tmp/tree"), meant(layers), layers)
    assert not wrong, wrong


@pytest.mark.points(2)
def test_any_stack(make_room, rng):
    """Stacks at random: marks before and after what they do not mean, files that become directories, links that end."""
    for _ in range(6):
        layers, room = draw(rng, 4), make_room()
        room.prepare(write, layers)
        room.call("apply", archives(layers), "/tmp/tree")
        wrong = differ(seen(room, "/tmp/tree"), meant(layers), layers)
        assert not wrong, wrong


def beside(name, content):
    """In the room: a directory that is none of the image's business."""
    import os

    os.mkdir("/tmp/outside")
    with open(f"/tmp/outside/{name}", "w") as file:
        file.write(content)


@pytest.mark.points(2)
def test_nothing_outside_is_touched(make_room, rng):
    """A link in one layer is no way for another layer, or for its own, to write or remove anything outside."""
    a, b, c = rng.sample(WORDS, 3)
    link, content = [a, "symlink", "/tmp/outside"], f"a secret {rng.random()}"
    replaced = [[a, "directory", ""], [f"{a}/{c}", "file", "new"]]
    cases = [
        [[link], replaced],
        [[link], [*replaced, [f"{a}/{b}", "gone", ""]]],
        [[link], [*replaced, [a, "opaque", ""]]],
        [[link, [f"{a}/{c}", "file", "written through the link"]]],
    ]
    for layers in cases:
        room = make_room()
        room.prepare(beside, b, content)
        room.prepare(write, layers)
        outcome = room.attempt("apply", archives(layers), "/tmp/tree")
        assert outcome.raised != "NotImplementedError", "apply() is still the stub: it raises NotImplementedError"
        found = seen(room, "/tmp/outside")
        assert found == {b: ("file", content)}, f"the layers {layers}: outside of the tree there is now {found}"
        if not layers[1:]:
            assert outcome.raised == "ValueError", f"{a} is a link in the layer that has {a}/{c}: {outcome}"
            continue
        assert not outcome.raised, f"the layers {layers}: {outcome.raised}: {outcome.text}"
        wrong = differ(seen(room, "/tmp/tree"), meant(layers), layers)
        assert not wrong, wrong


@pytest.mark.points(3)
def test_whose_file_it_is(make_room, rng):
    """owner tells the layer that a file of the tree comes from, and None for what the tree does not have."""
    for _ in range(4):
        layers, room = draw(rng, 5), make_room()
        room.prepare(write, layers)
        tree = meant(layers)
        for name in sorted({entry[0] for layer in layers for entry in layer}):
            kind, what = tree.get(name, ("nothing", ""))
            having = [number for number, layer in enumerate(layers) if [name, kind, what] in layer]
            expected = having[-1] if kind in ("file", "symlink") else None
            told = room.call("owner", archives(layers), name)
            said = [f"layer {number}: {entry[1]} {entry[0]}" for number, layer in enumerate(layers) for entry in layer
                    if f"{name}/".startswith(f"{entry[0]}/")]  # fmt: skip
            assert told == expected, f"owner says {told} of {name}, and it is {expected} ({'; '.join(said)})"


def squashed(room, top):
    """The layer that squash has written, as the tests tell layers; and how often each name is in the archive."""
    content = room.read(f"/tmp/{top}.tar")
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as tar:
            entries = [(member, tar.extractfile(member).read().decode() if member.isreg() else "") for member in tar]
    except tarfile.TarError as error:
        raise AssertionError(f"what squash has written is no plain tar file: {error}") from None
    layer = []
    for member, data in entries:
        directory, _, last = member.name.rpartition("/")
        if last == ".wh..wh..opq":
            layer.append([directory, "opaque", ""])
        elif last.startswith(".wh."):
            layer.append([f"{directory}/{last[4:]}".lstrip("/"), "gone", ""])
        elif member.isdir():
            layer.append([member.name, "directory", ""])
        else:
            layer.append([member.name, "symlink" if member.issym() else "file", member.linkname or data])
    return layer, [member.name for member, _ in entries], content


@pytest.mark.points(3)
def test_one_layer_that_does_the_same(make_room, rng):
    """What squash writes does to any layers below what all of them did."""
    for _ in range(6):
        layers, room = draw(rng, 3), make_room()
        room.prepare(write, layers)
        room.call("squash", archives(layers), "/tmp/squashed.tar")
        layer, _, _ = squashed(room, "squashed")
        both = [name for name, kind, _ in layer if kind != "gone" and [name, "gone", ""] in layer]
        assert not both, f"the squashed layer has a whiteout of {both}, and these names as well: one mark says both"
        everything = sorted({entry[0] for other in layers for entry in other})
        full = [[name, "directory", ""] for name in everything] + [[f"{name}/deep", "file", "x"] for name in everything]
        files = [[name, "file", "old"] for name in everything if "/" not in name]
        for base in ([], [sorted(full)], [files], draw(rng, 2)):
            wrong = differ(meant([*base, layer]), meant([*base, *layers]), [*base, *layers])
            assert not wrong, f"on a base of {len(base)} layers, squashed: {wrong}"


@pytest.mark.points(2)
def test_what_was_deleted_is_really_gone(room, rng):
    """The squashed layer has no name twice, and nothing of what a later layer has removed or replaced."""
    a, b, c = rng.sample(WORDS, 3)
    secret = f"secret {rng.random()}"
    layers = [
        [[a, "directory", ""], [f"{a}/{b}", "file", secret], [c, "file", f"first {secret}"], [b, "file", "stays"]]
    ]
    layers.append([[a, "directory", ""], [f"{a}/{b}", "gone", ""], [c, "file", f"second {secret}"]])
    layers.append([[c, "file", "third"]])
    room.prepare(write, layers)
    room.call("squash", archives(layers), "/tmp/squashed.tar")
    layer, names, content = squashed(room, "squashed")
    twice = [name for name in names if names.count(name) > 1]
    assert not twice, f"the squashed layer has more than once: {twice}"
    assert [b, "file", "stays"] in layer, f"the squashed layer lacks {b}: {layer}"
    assert secret.encode() not in content, f"a file that was removed, or replaced, is still in the archive: {names}"
