"""Lab 14, graded by the bytes in the folder, and by a diary outside of it in which every command that is really run writes."""

import os
import stat

import pytest

WORDS = ("ash", "birch", "cedar", "elm", "fir", "hazel", "larch", "maple", "oak", "pine", "rowan", "willow")
FOLDER, CACHE, DIARY = "/tmp/folder", "/tmp/cache", "/tmp/diary"

# A tree is {path: what}: a text is a file of that content; ["program", text], ["link", target], ["directory"] are those.


def lay(folder, tree, empty=()):
    """In the room: a folder with this tree in it, and other directories that are empty."""
    import os

    for path in (folder, *empty):
        os.makedirs(path)
    for path, what in tree.items():
        whole = f"{folder}/{path}"
        os.makedirs(whole if what == ["directory"] else os.path.dirname(whole), exist_ok=True)
        if what == ["directory"]:
            continue
        if what[:1] == ["link"]:
            os.symlink(what[1], whole)
            continue
        with open(whole, "w") as file:
            file.write(what if isinstance(what, str) else what[1])
        os.chmod(whole, 0o644 if isinstance(what, str) else 0o755)


def atimes(path):
    """In the room: whether the kernel notes there when a file is read, as it does unless a mount says noatime."""
    import os

    with open(path, "w") as file:
        file.write("x")
    os.utime(path, (0, os.stat(path).st_mtime))
    with open(path) as again:
        again.read()
    noted = os.stat(path).st_atime != 0
    os.unlink(path)
    return noted


@pytest.fixture
def build(room):
    """A way to use `step` in a folder."""
    return Build(room)


class Build:
    """The folder, the cache, and the diary of what has been run."""

    def __init__(self, room):
        self.room = room

    def begin(self, tree):
        if not self.room.prepare(atimes, "/tmp/probe"):
            pytest.skip("/tmp is mounted so that the kernel does not note when a file is read (noatime)")
        self.room.prepare(lay, FOLDER, tree, [CACHE])

    def command(self, name, text):
        """A command that notes its name in the diary, each time it is really run."""
        return f"echo {name} >>{DIARY}; {text}"

    def diary(self):
        """Who was run since the last time."""
        if not self.room.stat(DIARY):
            return []
        found = self.room.read(DIARY).decode().split()
        self.room.remove(DIARY)
        return found

    def step(self, command):
        return self.room.call("step", command, FOLDER, CACHE)

    def expect(self, verdict, command, why):
        """`step` says this of the command, and the diary knows it, too."""
        said, ran = self.step(command), len(self.diary())
        times = f"was run {ran} times" if ran else "was not run"
        assert ran == (verdict == "done"), f"{why}: {shown(command)} {times}"
        assert said == verdict, f"{why}: {shown(command)} is {verdict!r}, not {said!r}"

    def predict(self, *commands):
        """What is foretold; and nothing has been run for it, and nothing changed."""
        self.diary()
        before = self.everything(FOLDER), self.everything(CACHE)
        told = self.room.call("predict", commands, FOLDER, CACHE)
        assert self.diary() == [], "predict has run a command"
        assert (self.everything(FOLDER), self.everything(CACHE)) == before, (
            "predict has changed the folder or the cache"
        )
        assert isinstance(told, list) and [len(one) for one in told] == [2] * len(commands), (
            f"{told} is no list of pairs"
        )
        return [(verdict, list(behind)) for verdict, behind in told]

    def everything(self, top):
        """Each file below a directory, with its size and its time of modification."""
        found = {}
        for name in self.room.names(top):
            status = self.room.stat(f"{top}/{name}")
            found[name] = status.st_size, status.st_mtime_ns, status.st_ino
            if stat.S_ISDIR(status.st_mode):
                found |= {f"{name}/{below}": what for below, what in self.everything(f"{top}/{name}").items()}
        return found

    # What a person does in the folder, between two builds

    def write(self, path, text):
        assert self.room.write(f"{FOLDER}/{path}", text) == ""

    def remove(self, path):
        assert self.room.remove(f"{FOLDER}/{path}") == ""

    def change(self, path, act):
        """`act` of an open file."""

        def change():
            opened = self.room.open(f"{FOLDER}/{path}", os.O_RDONLY)
            act(opened)
            os.close(opened)
            return ""

        assert self.room.look(change, kinds=()) == ""

    def link(self, path, target):
        def link():
            return self.room.beside(f"{FOLDER}/{path}", lambda name, at: os.symlink(target, name, dir_fd=at))

        assert self.room.look(link, kinds=()) == ""

    def holds(self, path, text, why):
        there = self.room.stat(f"{FOLDER}/{path}")
        found = self.room.read(f"{FOLDER}/{path}").decode(errors="replace") if there else None
        assert found == text, f"{why}: {path} has {found!r} in it, and should have {text!r}"


def shown(command):
    """A command without its first part, which is the tests' own."""
    return repr(command.partition("; ")[2] or command)


def texts(rng, count):
    return [f"{word} {rng.randrange(1000)}\n" for word in rng.sample(WORDS, count)]


# ------------------------------------------------------------------------------------------------------------- digest


def some_tree(rng):
    one, two, three = rng.sample(WORDS, 3)
    return {
        f"{one}.txt": "".join(texts(rng, 2)), f"{two}/{one}.txt": f"{rng.random()}\n", f"{two}/run": ["program", "#!/bin/sh\n"],
        f"{three}": ["directory"], "current": ["link", f"{one}.txt"], f"{two}/.hidden": "",
    }  # fmt: skip


@pytest.mark.points(2)
@pytest.mark.pure
def test_two_folders_of_one_content_have_one_digest(room, rng):
    tree = some_tree(rng)
    backwards = dict(reversed(tree.items()))
    room.prepare(lay, "/tmp/one", tree)
    room.prepare(lay, "/tmp/deep/er/two", backwards)
    room.prepare(lay, "/tmp/three", {**tree, "added": "x"})
    one, two, three = (room.call("digest", f"/tmp/{name}") for name in ("one", "deep/er/two", "three"))
    assert isinstance(one, str) and len(one) >= 32 and not set(one) - set("0123456789abcdef"), f"{one!r} is no digest"
    assert one == two, "the same content in two folders has two digests; the second was filled in another order"
    assert one != three, "a file more, and the same digest"


@pytest.mark.points(2)
@pytest.mark.pure
def test_whatever_can_make_a_difference_changes_the_digest(room, rng):
    a, b, c = rng.sample(WORDS, 3)
    base = {a: "12", b: "3", f"{c}/{a}": "4", "tool": "5", "way": ["link", a], "void": ["directory"]}
    ways = {
        "another content": {**base, a: "21"},
        "a content that has moved on to the next file": {**base, a: "1", b: "23"},
        "another name": {**{name: what for name, what in base.items() if name != b}, b + "s": "3"},
        "a file in another directory": {**{name: what for name, what in base.items() if name != b}, f"{c}/{b}": "3"},
        "a program in place of a file": {**base, "tool": ["program", "5"]},
        "a link that leads elsewhere": {**base, "way": ["link", b]},
        "a file in place of a link": {**base, "way": "12"},
        "a directory without anything in it": {**base, f"{c}/empty": ["directory"]},
        "an empty file in place of an empty directory": {**base, "void": ""},
        "contents that have changed places": {**base, a: "3", b: "12"},
    }
    room.prepare(lay, "/tmp/base", base)
    for number, tree in enumerate(ways.values()):
        room.prepare(lay, f"/tmp/{number}", tree)
    known = {room.call("digest", "/tmp/base"): "the one before"}
    for number, way in enumerate(ways):
        digest = room.call("digest", f"/tmp/{number}")
        assert digest not in known, f"{way} has the same digest as {known[digest]}"
        known[digest] = way


def dress(folder, names):
    """In the room: other times, permissions that only concern others, a second name outside."""
    import os

    for name in names:
        os.utime(f"{folder}/{name}", (1, 2))
        os.chmod(f"{folder}/{name}", 0o600 if not os.access(f"{folder}/{name}", os.X_OK) else 0o700)
        os.link(f"{folder}/{name}", f"/tmp/second-{name.replace('/', '-')}")
    os.utime(folder, (3, 4))


@pytest.mark.points(1)
@pytest.mark.pure
def test_what_makes_no_difference_does_not_change_the_digest(room, rng):
    tree = some_tree(rng)
    room.prepare(lay, "/tmp/one", tree)
    room.prepare(lay, "/tmp/two", tree)
    room.prepare(dress, "/tmp/two", [name for name, what in tree.items() if what[:1] not in (["link"], ["directory"])])
    one, two = room.call("digest", "/tmp/one"), room.call("digest", "/tmp/two")
    assert one == two, "other times, permissions for others and a hard link elsewhere have changed the digest"
    assert one != room.call("digest", "/tmp"), "/tmp, which holds both of them, has the same digest"


# --------------------------------------------------------------------------------------------------------------- step


@pytest.mark.points(2)
def test_what_has_been_done_is_not_done_again(build, rng):
    first, second = texts(rng, 2)
    build.begin({"a": first, "b": second})
    command = build.command("join", "cat b a >out")
    build.expect("done", command, "for the first time")
    build.holds("out", second + first, "after the first time")
    build.expect("cached", command, "nothing has changed")
    build.remove("out")
    build.expect("cached", command, "out was removed, and nothing else")
    build.holds("out", second + first, "what was removed is put back from the cache")
    build.expect("done", build.command("turn", "cat a b >out"), "another command")
    build.holds("out", first + second, "after another command")


@pytest.mark.points(3)
def test_only_what_it_has_read_counts(build, rng):
    names = rng.sample(WORDS, 4)
    contents = dict(zip(names, texts(rng, 4), strict=True))
    build.begin(contents)
    one, two, *others = names
    command = build.command("join", f"cat {one} {two} >out")
    build.expect("done", command, "for the first time")
    for name in others:
        build.write(name, "something else\n")
        build.expect("cached", command, f"{name} has changed, which it does not read")
    build.write("new", "a new file\n")
    build.expect("cached", command, "there is a new file, which it does not read")
    build.write(two, "changed\n")
    build.expect("done", command, f"{two} has changed, which it reads")
    build.holds("out", contents[one] + "changed\n", "done again")
    build.expect("cached", command, "nothing has changed")
    build.remove(one)
    build.room.attempt("step", command, FOLDER, CACHE)
    assert build.diary() == ["join"], f"{one} has gone, which it reads, and yet it was not run"


@pytest.mark.points(1)
def test_times_do_not_count_and_are_left_alone(build, rng):
    (text,) = texts(rng, 1)
    long_ago = rng.randrange(10**8, 10**9)
    build.begin({"a": text, "sub/b": ""})
    build.change("a", lambda file: os.utime(file, (long_ago, long_ago)))
    build.change("sub", lambda file: os.utime(file, (long_ago, long_ago)))
    command = build.command("times", "cat a >/dev/null; stat -c %Y a sub >out")
    build.expect("done", command, "for the first time")
    build.holds("out", f"{long_ago}\n{long_ago}\n", "a command sees the times of modification as they are")
    build.change("a", lambda file: os.utime(file, (5, 5)))
    build.expect("cached", command, "a has another time of modification, and its old content")


@pytest.mark.points(2)
def test_of_a_directory_that_is_listed_the_names_count(build, rng):
    one, two, three = rng.sample(WORDS, 3)
    build.begin({f"src/{one}": "1\n", f"src/{two}": "2\n", "other/x": "3\n"})
    command = build.command("list", "ls src >names")
    build.expect("done", command, "for the first time")
    build.write(f"src/{one}", "another content\n")
    build.expect("cached", command, f"src/{one} has another content, and ls shows names")
    build.write("other/y", "")
    build.expect("cached", command, "there is a new file in a directory that it has not listed")
    build.write(f"src/{three}", "")
    build.expect("done", command, f"there is a new file in src, which it has listed: {three}")
    build.holds("names", "".join(f"{name}\n" for name in sorted((one, two, three))), "done again")
    here = build.command("here", "ls -a >names")
    build.expect("done", here, "for the first time")
    build.expect("cached", here, "nothing has changed but what it has made itself")
    build.write("new", "")
    build.expect("done", here, "there is a new file in the folder itself, which it has listed")


@pytest.mark.points(2)
def test_links_and_programs(build, rng):
    first, second = texts(rng, 2)
    tool = ["program", "#!/bin/sh\ncat current/text\n"]
    build.begin({"old/text": first, "young/text": second, "current": ["link", "old"], "tool": tool})
    command = build.command("tool", "./tool >out")
    build.expect("done", command, "for the first time")
    build.expect("cached", command, "nothing has changed")
    build.remove("current")
    build.link("current", "young")
    build.expect("done", command, "the link that it has followed leads elsewhere")
    build.holds("out", second, "done again")
    build.write("old/text", "changed\n")
    build.expect("cached", command, "what has changed is where the link used to lead")
    build.write("tool", "#!/bin/sh\necho new\n")
    build.expect("done", command, "the program that it runs has changed")
    build.change("tool", lambda file: os.fchmod(file, 0o644))
    build.room.attempt("step", command, FOLDER, CACHE)
    assert build.diary(), "what it runs is no program any more, and yet it was not run"


@pytest.mark.points(2)
def test_all_that_was_made_is_put_back(build, rng):
    first, second = texts(rng, 2)
    build.begin({"a": first, "old/file": "x", "b": "to be moved\n"})
    script = "mkdir -p out/deep; cp a out/deep/copy; chmod 755 out/deep/copy; ln -s deep/copy out/link; rm -r old; mv b c; mkdir void"
    command = build.command("make", f"{script}; echo {second.strip()} >out/said")
    build.expect("done", command, "for the first time")
    for name in ("out", "c", "void"):
        build.remove(name)
    assert build.room.mkdir(f"{FOLDER}/old") == ""
    build.write("old/file", "x")
    build.write("b", "to be moved\n")
    build.expect("cached", command, "everything is as it was before the first time")
    build.holds("out/deep/copy", first, "put back")
    build.holds("out/said", second, "put back")
    build.holds("c", "to be moved\n", "put back")
    for name in ("old", "b"):
        assert build.room.stat(f"{FOLDER}/{name}") is None, f"the command has removed {name}, and now it is there"
    assert build.room.stat(f"{FOLDER}/out/deep/copy").st_mode & 0o100, (
        "the command has made a program, and now it is none"
    )
    assert not build.room.stat(f"{FOLDER}/out/said").st_mode & 0o100, "out/said was no program, and now it is one"
    assert stat.S_ISLNK(build.room.stat(f"{FOLDER}/out/link").st_mode), (
        "the command has made a link, and now it is none"
    )
    assert build.room.names(f"{FOLDER}/void") == [], "the empty directory that it has made"


@pytest.mark.points(2)
def test_what_was_there_once_is_remembered(build, rng):
    contents = texts(rng, 3)
    build.begin({"a": contents[0]})
    command = build.command("double", "cat a a >out")
    for content in contents:
        build.write("a", content)
        build.expect("done", command, "a is as it never was before")
        build.holds("out", content * 2, "done")
    for content in rng.sample(contents, 3):
        build.write("a", content)
        build.expect("cached", command, "a is as it was some time ago")
        build.holds("out", content * 2, "cached")


@pytest.mark.points(2)
def test_what_it_has_changed_counts_as_read(build, rng):
    first, second, third = texts(rng, 3)
    build.begin({"log": first, "text": second})
    append = build.command("append", "echo more >>log")
    build.expect("done", append, "for the first time")
    build.expect("cached", append, "the log is as it has left it")
    build.holds("log", f"{first}more\n", "not appended once more")
    build.write("log", third)
    build.expect("done", append, "there is another log, and it needs what was there")
    build.holds("log", f"{third}more\n", "appended to another log")
    build.write("log", first)
    build.expect("cached", append, "the log is as it was before the first time")
    build.holds("log", f"{first}more\n", "from the cache")
    edit = build.command("edit", "sed -i s/^/x/ text")
    build.expect("done", edit, "for the first time")
    build.expect("cached", edit, "the text is as it has left it")
    build.write("text", third)
    build.expect("done", edit, "there is another text, and it needs what was there")
    build.holds("text", f"x{third}", "another text, edited")


@pytest.mark.points(1)
def test_what_has_failed_is_not_remembered(build):
    build.begin({"a": "1\n"})
    command = build.command("fail", "cat a >out; test -e /tmp/permit")
    for attempt in ("first", "second"):
        outcome = build.room.attempt("step", command, FOLDER, CACHE)
        assert outcome.raised != "NotImplementedError", "step() is still the stub"
        assert build.diary() == ["fail"], f"at its {attempt} time, it has failed before, and was not run"
        assert outcome.raised == "CalledProcessError", f"the command failed, and step() {outcome.raised or 'returned'}"
    build.room.write("/tmp/permit", "")
    build.expect("done", command, "it has failed twice")
    build.expect("cached", command, "now it has been done")


@pytest.mark.points(2)
def test_the_cache_is_safe_and_small(build):
    build.begin({"a": "seed\n", "b": "1\n"})
    size = 1 << 20
    large = "head -c 1048576 /dev/zero | tr '\\0' x"
    commands = [build.command(f"large{number}", f"cat a >/dev/null; {large} >out{number}") for number in range(4)]
    commands += [build.command("again", f"cat b; {large} >out0")]
    for command in commands:
        build.expect("done", command, "for the first time")
    build.write("b", "2\n")
    build.expect("done", commands[-1], "b has changed")
    used = sum(entry[0] for entry in build.everything(CACHE).values())
    assert used < 2 * size, f"five files of the same {size} bytes take {used} bytes in the cache: each content once"
    for _ in range(2):
        build.remove("out0")
        build.expect("cached", commands[0], "out0 was removed")
        build.room.write(f"{FOLDER}/out0", "spoilt", append=True)
    build.remove("out0")
    build.step(commands[0])
    build.holds("out0", "x" * size, "somebody wrote into what was put back, and this has spoilt the cache")


# ------------------------------------------------------------------------------------------------------------ predict


def chain(build):
    """Two objects, each of its source, and what is linked of them; of nothing but its own source, a manual."""
    return [
        build.command("one", "cat one.c >one.o"), build.command("two", "tr a-z A-Z <two.c >two.o"),
        build.command("link", "cat one.o two.o >app"), build.command("man", "cat manual >man"),
    ]  # fmt: skip


def sources(rng):
    return dict(zip(("one.c", "two.c", "manual"), texts(rng, 3), strict=True))


@pytest.mark.points(2)
def test_before_the_first_build_and_after_it(build, rng):
    build.begin(sources(rng))
    commands = chain(build)
    told = build.predict(*commands)
    for (verdict, behind), command in zip(told, commands, strict=True):
        assert verdict == "done", f"{shown(command)} was never done, and is {verdict!r}"
        assert command in behind, f"{shown(command)} is new, and nobody says that this is why"
    for command in commands:
        build.expect("done", command, "for the first time")
    assert build.predict(*commands) == [("cached", [])] * 4, "nothing has changed"
    build.write("one.o", "spoilt\n")
    for name in ("two.o", "app", "man"):
        build.remove(name)
    told = build.predict(*commands)
    assert told == [("cached", [])] * 4, "whatever was made has gone or is spoilt, and the cache would put it back"


@pytest.mark.points(3)
def test_causes_are_what_somebody_has_changed(build, rng):
    build.begin(sources(rng))
    commands = chain(build)
    for command in commands:
        build.step(command)
    build.write("one.c", "changed\n")
    told = build.predict(*commands)
    wanted = [("done", ["one.c"]), ("cached", []), ("maybe", ["one.c"]), ("cached", [])]
    for found, right, command in zip(told, wanted, commands, strict=True):
        assert found == right, f"one.c has changed; of {shown(command)} is foretold {found}, and it should be {right}"
    build.write("two.c", "changed, too\n")
    assert build.predict(*commands)[2] == ("maybe", ["one.c", "two.c"]), (
        "what is behind app is what is behind one.o and two.o"
    )
    far = build.command("pack", "cat app man >pack")
    assert build.predict(*commands, far)[4][0] == "done", "a command that is new"
    for command in (*commands, far):
        build.step(command)
    build.write("two.c", "changed once more\n")
    told = build.predict(*commands, far)
    assert told[2:] == [("maybe", ["two.c"]), ("cached", []), ("maybe", ["two.c"])], f"two.c has changed: {told}"
    build.write("man", "")
    build.write("manual", "changed\n")
    told = build.predict(*commands, far)
    assert told[4] == ("maybe", ["manual", "two.c"]), f"two.c and manual have changed: {told}"


@pytest.mark.points(2)
def test_what_comes_out_as_it_was_ends_the_chain(build, rng):
    build.begin(sources(rng))
    commands = chain(build)
    for command in commands:
        build.step(command)
    content = build.room.read(f"{FOLDER}/two.c").decode()
    build.write("two.c", content.upper())
    told = build.predict(*commands)
    assert told[1:3] == [("done", ["two.c"]), ("maybe", ["two.c"])], f"two.c has changed: {told}"
    build.diary()
    verdicts = [build.step(command) for command in commands]
    assert verdicts == ["cached", "done", "cached", "cached"], (
        f"two.o came out as it was, and the build says {verdicts}"
    )
    assert build.diary() == ["two"], "two.o came out as it was"
    build.write("two.c", content)
    assert build.predict(*commands) == [("cached", [])] * 4, "two.c is as it was at the first build"


@pytest.mark.points(2)
def test_a_new_command_leaves_nothing_certain(build, rng):
    build.begin({**sources(rng), "lib/x": ""})
    commands = [*chain(build), build.command("list", "ls lib >list"), build.command("hello", "echo hello >hello")]
    for command in commands:
        build.step(command)
    new = build.command("new", "echo 3 >lib/y")
    told = build.predict(commands[0], new, *commands[1:])
    assert told[:2] == [("cached", []), ("done", [new])], f"the command before a new one, and the new one: {told[:2]}"
    assert told[2:6] == [("maybe", [new])] * 4, f"those that read, behind a new command: {told[2:6]}"
    assert told[6] == ("cached", []), "it reads nothing: whatever the new command does, it need not be run"
    build.diary()
    for command in (commands[0], new, *commands[1:]):
        build.step(command)
    assert build.diary() == ["new", "list"], "the new command has put a file into a directory that one of them lists"
    build.write("lib/z", "")
    told = build.predict(commands[0], new, *commands[1:])
    assert told[5] == ("done", ["lib/"]), f"there is a new file in lib, which {shown(commands[4])} lists: {told[5]}"
    assert told[1] == ("cached", []), f"it does not list lib, though it writes there: {told[1]}"
