"""Lab 15, graded by what /proc shows of containers that wait, run and end, and by the diary of another runtime."""

import os
import shutil
import signal
import time

import pytest

from minicontainer.teach import child

WORDS = ("ash", "birch", "cedar", "elm", "fir", "hazel", "larch", "maple", "oak", "pine", "rowan", "willow")
LINKS = {"cgroup": "cgroup", "ipc": "ipc", "mount": "mnt", "network": "net", "pid": "pid", "uts": "uts"}


# ------------------------------------------------------------------------------------------------------------- refused


def understood(rng):
    """A config of which everything is understood."""
    return {
        "ociVersion": "1.0.2",
        "root": {"path": "rootfs"},
        "process": {"args": [rng.choice(WORDS)], "cwd": "/", "env": ["PATH=/bin"]},
        "mounts": [{"destination": f"/{word}", "type": "tmpfs", "source": word} for word in rng.sample(WORDS, 3)],
        "linux": {"namespaces": [{"type": kind} for kind in rng.sample(sorted(LINKS), 4)]},
    }


def places(config):
    """Where something may be added: the path of each object, and the object."""
    yield "", config
    for name in ("root", "process", "linux"):
        yield f"{name}.", config[name]
    for number, entry in enumerate(config["mounts"]):
        yield f"mounts[{number}].", entry
    for number, entry in enumerate(config["linux"]["namespaces"]):
        yield f"linux.namespaces[{number}].", entry


@pytest.mark.points(2)
@pytest.mark.pure
def test_what_is_not_understood(room, rng):
    """refused names all that a config asks for and the runtime does not do, and nothing else."""
    assert room.call("refused", understood(rng)) == [], "of this config, everything is in KNOWN"
    for _ in range(6):
        config, wanted = understood(rng), []
        for path, part in rng.sample(list(places(config)), 4):
            name = rng.choice(WORDS)
            part[name] = rng.choice([True, 7, "x", ["y"], {"inner": {"more": 1}}])
            wanted.append(path + name)
        told = room.call("refused", config)
        assert told == sorted(wanted), f"of {config} not understood: {sorted(wanted)}, and refused says {told}"


@pytest.mark.points(2)
@pytest.mark.pure
def test_what_asks_for_nothing(room, rng):
    """What is there and asks for nothing is not refused; nor does a part that is null or missing stop the search."""
    config = understood(rng)
    for _, part in places(config):
        for number, nothing in enumerate([None, False, 0, "", [], {}]):
            part[f"{rng.choice(WORDS)}{number}"] = nothing
    rest = {"mounts": None, "annotations": {"a": "b"}, "process": {**config["process"], "user": {"uid": 7}}}
    told = room.call("refused", {**config, **rest})
    assert told == ["annotations", "process.user"], f"refused says {told}, not ['annotations', 'process.user']"
    told = room.call("refused", {"root": None, "linux": {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW"}}})
    assert told == ["linux.seccomp"], f"refused says {told}, not ['linux.seccomp']"


# -------------------------------------------------------------------------------------------------------------- bundles


def bundle(program, path, config, links):
    """In the room: a bundle with busybox in its root directory, and symbolic links."""
    import json
    import os
    import shutil

    root = f"{path}/{config['root']['path']}"
    for directory in ("bin", "proc", "etc", "work"):
        os.makedirs(f"{root}/{directory}")
    shutil.copy(program, f"{root}/bin/busybox")
    for name in ("sh", "sleep", "cat"):
        os.symlink("busybox", f"{root}/bin/{name}")
    for name, target in links.items():
        os.symlink(target, f"{root}/{name}")
    with open(f"{path}/config.json", "w") as file:
        json.dump(config, file)


class Bundles:
    """Bundles in a room, and the containers that the learner makes of them."""

    def __init__(self, room, rng):
        self.program = shutil.which("busybox", path="/usr/bin:/bin")
        if not self.program:
            pytest.skip("there is no busybox here; to have it: apt-get install busybox-static")
        self.room, self.rng = room, rng
        self.home = f"/tmp/{rng.choice(WORDS)}/containers"
        self.word = f"{rng.choice(WORDS)}{rng.randrange(1000)}"

    def make(self, *args, spaces=(), mounts=(), links=None, **more):
        """A bundle for this command; its path."""
        path = f"/run/{self.rng.choice(WORDS)}-{self.rng.randrange(10**6)}"
        config = {
            "ociVersion": "1.0.2",
            "hostname": self.word,
            "root": {"path": self.rng.choice(("rootfs", "root/fs"))},
            "process": {"args": list(args), "cwd": "/work", "env": ["PATH=/bin", f"WORD={self.word}"]},
            "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}, *mounts],
            "linux": {"namespaces": [{"type": kind} for kind in ("mount", "pid", "uts")] + list(spaces)},
            **more,
        }
        self.root = f"{path}/{config['root']['path']}"
        self.room.prepare(bundle, self.program, path, config, links or {})
        return path

    def create(self, name, path):
        """Let the learner create it: its pid as our /proc numbers it."""
        number = self.room.call("create", self.home, name, path)
        assert isinstance(number, int), f"create returned {number!r}, which is no pid"
        return self.room.outside(number)

    def state(self, name):
        """What the learner's state says."""
        return self.room.call("state", self.home, name)

    def look(self, pid, what):
        """/proc/PID/what, as text."""
        with open(f"/proc/{pid}/{what}") as file:
            return file.read()

    def command(self, pid):
        """The words of a process's command line."""
        return self.look(pid, "cmdline").split("\0")[:-1]

    def ended(self, pid):
        """Wait until a process is a zombie, or gone."""
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            try:
                if self.look(pid, "stat").rpartition(")")[2].split()[0] in "ZX":
                    return
            except (FileNotFoundError, ProcessLookupError):
                return
            time.sleep(0.01)
        raise AssertionError(f"process {pid} should have ended: it is {self.command(pid)}")


@pytest.fixture
def bundles(room, rng):
    """Bundles of the test's own."""
    return Bundles(room, rng)


def descriptors(room):
    """How many descriptors the learner's process has."""
    return len(os.listdir(f"/proc/{room.pid}/fd"))


def namespaces(pid):
    """Which namespaces a process is in."""
    return {kind: os.readlink(f"/proc/{pid}/ns/{link}") for kind, link in LINKS.items()}


# --------------------------------------------------------------------------------------------------------------- create


@pytest.mark.points(2)
def test_it_is_there_and_waits(bundles):
    """After create, process 1 is in its namespaces, has its root and its host name, and is not its command."""
    room, path = bundles.room, bundles.make("sleep", "1000", spaces=[{"type": "ipc"}])
    ours = namespaces(room.pid)
    pid = bundles.create("one", path)
    theirs = namespaces(pid)
    new = sorted(kind for kind in LINKS if theirs[kind] != ours[kind])
    assert new == ["ipc", "mount", "pid", "uts"], f"new are {new}; the config names ipc, mount, pid and uts"
    assert namespaces(room.pid) == ours, "you have changed your own namespaces: fork first"
    number = room.status(pid)["NSpid"].split()[-1]
    assert number == "1", f"in its own pid namespace it is process {number}"
    roots = [mount for mount in room.mounts(pid) if mount.point == "/"]
    assert len(roots) == 1, f"{len(roots)} mounts are at its /: the old root is one of them"
    assert roots[0].root == bundles.root.removeprefix("/run"), f"its root is {roots[0].root} of the room's /run"
    said = room.look(lambda: os.uname().nodename, kinds=("uts",), pid=pid)
    assert said == bundles.word, f"its host name is {said}, and {bundles.word} is what the config says"
    assert bundles.command(pid)[0] != "sleep", "the command runs already: it is to wait for start"


@pytest.mark.points(2)
def test_a_namespace_by_its_path(bundles):
    """A namespace that has a path is entered, and no new one made."""
    room = bundles.room
    other = room.prepare(elsewhere)
    spaces = [{"type": "network", "path": f"/proc/{other}/ns/net"}, {"type": "ipc", "path": f"/proc/{other}/ns/ipc"}]
    path = bundles.make("sleep", "1000", spaces=spaces)
    theirs = namespaces(bundles.create("one", path))
    wanted = namespaces(room.outside(other))
    for kind in ("network", "ipc"):
        assert theirs[kind] == wanted[kind], f"it is in {theirs[kind]}; the path leads to {wanted[kind]}"
    assert theirs["cgroup"] == room.namespace("cgroup"), "a cgroup namespace was not asked for"


def elsewhere():
    """In the room: a process in a network and an ipc namespace of its own. Its pid."""
    import os
    import signal

    from minicontainer import syscalls as calls

    ready, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        calls.unshare(calls.CLONE_NEWNET | calls.CLONE_NEWIPC)
        os.write(tell, b"!")
        signal.pause()
    os.read(ready, 1)
    return pid


@pytest.mark.points(3)
def test_mounts_stay_in_the_root(bundles):
    """Mounts are made in their order; no symbolic link in the root directory leads one out; nobody else sees them."""
    room, rng = bundles.room, bundles.rng
    first, second = rng.sample(WORDS, 2)
    mounts = [
        {"destination": "/etc", "type": "tmpfs", "source": first},
        {"destination": "/way/out", "type": "tmpfs", "source": second},
    ]
    room.prepare(shared)
    before = [mount.number for mount in room.mounts()]
    path = bundles.make("sleep", "1000", mounts=mounts, links={"way": "/work", "work/out": "/etc"})
    pid = bundles.create("one", path)
    found = {mount.source: mount for mount in room.mounts(pid)}
    for word in (first, second):
        point = found[word].point if word in found else None
        assert point == "/etc", f"{word} is at {point}, not at /etc; /way/out is a link that ends there, in the image"
    assert found[second].parent == found[first].number, f"{second} is to lie over {first}, as the config has them"
    assert found["proc"].point == "/proc" and found["proc"].kind == "proc", "there is no proc at /proc"
    seen = [mount.point for mount in room.mounts() if mount.number not in before]
    assert not seen, f"the mount at {seen[0] if seen else ''} is yours now, too"


def shared():
    """In the room: mounts travel, as on most machines; and `/etc` is a place that a link could lead to."""
    from minicontainer import syscalls as calls

    calls.mount("none", "/", "", calls.MS_SHARED | calls.MS_REC)


@pytest.mark.points(3)
def test_what_cannot_be_leaves_nothing(bundles):
    """create says what is wrong before anything waits, and leaves nothing: no process, no zombie, no name taken."""
    room = bundles.room
    lacking = bundles.make(bundles.word)
    unknown = bundles.make("sleep", "1000", annotations={"a": "b"}, hooks={"poststop": [{"path": "/x"}]})
    nowhere = bundles.make("sleep", "1000", mounts=[{"destination": "/nowhere", "type": "tmpfs", "source": "x"}])
    gone = bundles.make("sleep", "1000", spaces=[{"type": "network", "path": "/proc/1/ns/nothing"}])
    good = bundles.make("sleep", "1000")
    for path, raised, word in (
        (lacking, "FileNotFoundError", bundles.word),
        (unknown, "ValueError", "hooks"),
        (unknown, "ValueError", "annotations"),
        (nowhere, "FileNotFoundError", ""),
        (gone, "FileNotFoundError", ""),
    ):
        outcome = room.attempt("create", bundles.home, "one", path)
        assert outcome.raised == raised, f"create of what cannot be: {outcome}, not {raised}"
        assert word in outcome.text, f"create says {outcome.text!r}, without a word of {word}"
        left = child.children(room.pid)
        assert not left, f"{len(left)} processes are left, dead or alive, after create failed: {outcome.text}"
    outcome = room.attempt("state", bundles.home, "one")
    assert outcome.raised in ("LookupError", "KeyError"), f"nothing could be created, and state says {outcome}"
    bundles.create("one", good)
    outcome = room.attempt("create", bundles.home, "one", good)
    assert outcome.raised == "FileExistsError", f"the name is taken, and create: {outcome}"
    assert bundles.state("one")["status"] == "created", "the container that had the name before is still there"


# ---------------------------------------------------------------------------------------------------------------- start


@pytest.mark.points(3)
def test_the_same_process_becomes_the_command(bundles):
    """After start, process 1 is its command, with its environment, its directory and three descriptors."""
    rng = bundles.rng
    seconds = str(rng.randrange(500, 900))
    pid = bundles.create("one", bundles.make("sleep", seconds))
    number = bundles.room.status(pid)["NSpid"].split()[-2]
    told = bundles.state("one")
    assert told == {"status": "created", "pid": int(number)}, f"it waits, its pid is {number}, and state says {told}"
    bundles.room.call("start", bundles.home, ["one"])
    line, told = bundles.command(pid), bundles.state("one")
    assert line == ["sleep", seconds], f"start has returned, and its command line is {line}"
    assert told == {"status": "running", "pid": int(number)}, f"it runs, its pid is {number}, and state says {told}"
    found = sorted(bundles.look(pid, "environ").split("\0")[:-1])
    assert found == ["PATH=/bin", f"WORD={bundles.word}"], f"its environment is {found}"
    assert os.readlink(f"/proc/{pid}/cwd") == "/work", f"its directory is {os.readlink(f'/proc/{pid}/cwd')}"
    opened = [name for name in os.listdir(f"/proc/{pid}/fd") if int(name) > 2]
    assert not opened, f"descriptor {opened[0] if opened else ''} of the runtime's is open in the container"
    outcome = bundles.room.attempt("start", bundles.home, ["one"])
    assert outcome.raised == "RuntimeError", f"it runs already, and start: {outcome}"


@pytest.mark.points(4)
def test_all_or_none(bundles):
    """start lets several containers begin, or none of them if one cannot."""
    room, rng = bundles.room, bundles.rng
    names = rng.sample(WORDS, 4)
    paths = {name: bundles.make("sleep", "1000") for name in names}
    pids = {name: bundles.create(name, paths[name]) for name in names}
    victim = names[rng.randrange(1, 4)]
    os.kill(pids[victim], signal.SIGKILL)
    bundles.ended(pids[victim])
    outcome = room.attempt("start", bundles.home, names)
    assert outcome.raised == "RuntimeError", f"{victim} has ended, and start of {names}: {outcome}"
    rest = [name for name in names if name != victim]
    for name in rest:
        assert bundles.command(pids[name])[0] != "sleep", f"{victim} could not begin, and {name} has begun"
        assert bundles.state(name)["status"] == "created", f"{name} waits, and state says {bundles.state(name)}"
    before = descriptors(room)
    room.call("start", bundles.home, rest)
    assert descriptors(room) == before, f"start leaves {descriptors(room) - before} descriptors open"
    for name in rest:
        assert bundles.command(pids[name])[0] == "sleep", (
            f"after start of {rest}, {name} is {bundles.command(pids[name])}"
        )


# ---------------------------------------------------------------------------------------------------------------- state


def impostor():
    """In the room: at SIGUSR1, the process whose pid stands in /tmp/reap is waited for, and another one gets its pid."""
    import os
    import signal
    import time

    def exchange(*_):
        with open("/tmp/reap") as file:
            number = int(file.read())
        os.waitpid(number, 0)
        while True:
            with open("/proc/sys/kernel/ns_last_pid", "w") as file:
                file.write(str(number - 1))
            fork = os.fork()
            if fork == 0:
                while True:
                    time.sleep(1000)
            if fork == number:
                break
        with open("/tmp/reaped", "w") as file:
            file.write("done")

    signal.signal(signal.SIGUSR1, exchange)


@pytest.mark.points(4)
def test_who_has_the_pid_by_now(bundles):
    """A container that has ended is stopped: as a zombie, and when its pid belongs to somebody else."""
    if not os.path.exists("/proc/sys/kernel/ns_last_pid"):
        pytest.skip("this kernel gives nobody the pid of his choice (CONFIG_CHECKPOINT_RESTORE)")
    room = bundles.room
    room.prepare(impostor)
    path = bundles.make("sleep", "1000")
    pid = bundles.create("one", path)
    number = bundles.state("one")["pid"]
    room.call("start", bundles.home, ["one"])
    time.sleep(0.05)  # a pid's start time has a resolution of 10 ms
    os.kill(pid, 9)
    bundles.ended(pid)
    assert bundles.state("one") == {"status": "stopped", "pid": 0}, f"it is a zombie, and state: {bundles.state('one')}"
    room.write("/tmp/reap", str(number))
    os.kill(room.pid, signal.SIGUSR1)
    deadline = time.monotonic() + 5
    while room.stat("/tmp/reaped") is None and time.monotonic() < deadline:
        time.sleep(0.01)
    other = room.outside(number)
    told = bundles.state("one")
    assert told == {"status": "stopped", "pid": 0}, f"process {number} is another one by now, and state says {told}"
    told = room.call("remove", bundles.home, "one", 0.2)
    assert told is None, f"its exit code went to somebody else, and remove returned {told!r}"
    assert bundles.look(other, "stat").rpartition(")")[2].split()[0] == "S", f"process {number} was not the container"
    outcome = room.attempt("state", bundles.home, "one")
    assert outcome.raised in ("LookupError", "KeyError"), f"it is removed, and state: {outcome}"


# --------------------------------------------------------------------------------------------------------------- remove


@pytest.mark.points(4)
def test_to_its_end(bundles):
    """remove gives it time to end by itself, kills what does not, and tells the exit code, also of who ended before."""
    room, rng = bundles.room, bundles.rng
    code, other = rng.sample(range(1, 120), 2)
    scripts = {
        "polite": (f"trap 'exit {code}' TERM; echo >/work/ready; while :; do sleep 0.05; done", code),
        "deaf": ("trap '' TERM; echo >/work/ready; exec sleep 1000", 137),
        "ended": (f"echo >/work/ready; exit {other}", other),
        "waiting": ("echo >/work/ready", 137),
    }
    paths, roots = {}, {}
    for name, (words, _) in scripts.items():
        paths[name], roots[name] = bundles.make("sh", "-c", words), bundles.root
    pids = {name: bundles.create(name, path) for name, path in paths.items()}
    begun = [name for name in scripts if name != "waiting"]
    room.call("start", bundles.home, begun)
    deadline = time.monotonic() + 5
    while any(room.stat(f"{roots[name]}/work/ready") is None for name in begun) and time.monotonic() < deadline:
        time.sleep(0.01)
    bundles.ended(pids["ended"])
    before = descriptors(room)
    for name, (_, wanted) in scripts.items():
        since = time.monotonic()
        told = room.call("remove", bundles.home, name, 0.3 if wanted == 137 else 3)
        took = time.monotonic() - since
        assert told == wanted, f"{name}, {scripts[name][0]!r}: remove says {told}, and {wanted} is right"
        assert took < 2.5, f"{name} has ended by itself, and remove took {took:.1f} s"
        assert name != "deaf" or took >= 0.3, f"it had 0.3 s to end by itself, and remove took {took:.2f} s"
        outcome = room.attempt("state", bundles.home, name)
        assert outcome.raised in ("LookupError", "KeyError"), f"{name} is removed, and state: {outcome}"
    assert descriptors(room) == before, f"remove leaves {descriptors(room) - before} descriptors open"
    left = child.children(room.pid)
    assert not left, f"{len(left)} processes are left after all are removed"
    assert room.names(bundles.home) == [], f"in {bundles.home} there is still {room.names(bundles.home)}"


# ---------------------------------------------------------------------------------------------------------------- watch

RUNTIME = r"""#!/bin/sh
# A runtime that keeps a diary. Its containers are shells, with nothing around them.
case "$1" in --root=/tmp/s*) root=$1; shift;; *) echo "which --root?" >&2; exit 1;; esac
echo "$*" >>/tmp/diary
verb=$1; shift
while :; do
    case "$1" in
        --bundle) bundle=$2; shift 2;;
        --pid-file) file=$2; shift 2;;
        --force) force=1; shift;;
        *) break;;
    esac
done
name=$1
case $verb in
create)
    if [ -e "$bundle/create" ]; then cat "$bundle/create" >&2; exit 1; fi
    mkfifo "/tmp/gate-$name"
    setsid sh -c 'read go <"$1"; exec sh "$2/command"' sh "/tmp/gate-$name" "$bundle" &
    echo $! >"/tmp/pid-$name"
    printf %s $! >"$file";;
start)
    read pid <"/tmp/pid-$name"
    if [ -e /tmp/start ]; then cat /tmp/start >&2; exit 1; fi
    echo go >"/tmp/gate-$name";;
delete)
    [ -e "/tmp/pid-$name" ] || exit 0
    read pid <"/tmp/pid-$name"
    if [ "$force" ]; then kill -9 $pid; elif [ -d "/proc/$pid" ]; then echo "it is not stopped" >&2; exit 1; fi
    rm "/tmp/pid-$name";;
esac
"""


def engine(runtime, script, refusals):
    """In the room: that runtime, a bundle of its kind, and where an engine keeps what it hears."""
    import os

    os.makedirs("/tmp/bundle")
    os.makedirs("/tmp/out")
    for path, text in {"/tmp/runtime": runtime, "/tmp/bundle/command": script, **refusals}.items():
        with open(path, "w") as file:
            file.write(text)
    os.chmod("/tmp/runtime", 0o755)


COMMAND = ["/tmp/runtime", "--root=/tmp/state"]


def exit_code(room):
    """What stands in the engine's file, as soon as it is there."""
    deadline = time.monotonic() + 10
    while room.stat("/tmp/out/exit") is None:
        assert time.monotonic() < deadline, f"the command has ended, and there is no file exit: {diary(room)}"
        time.sleep(0.02)
    return room.read("/tmp/out/exit").decode()


def diary(room):
    """What the runtime was asked, a verb each."""
    return room.read("/tmp/diary").decode().splitlines()


def alive(room):
    """Who is in the room beside the learner's process, and lives."""
    found = []
    for pid in room.processes():
        try:
            if pid != room.pid and room.status(pid)["State"][0] not in "ZX":
                found.append(pid)
        except (FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            continue
    return found


@pytest.mark.points(3)
def test_an_engine_hears_the_exit_code(make_room, rng):
    """watch has another runtime create and start a container, and hears how it ended, though it is not its parent."""
    name, word = rng.choice(WORDS), f"{rng.random()}"
    code, number = rng.randrange(1, 120), rng.choice((1, 6, 9, 15))
    for last, wanted in ((f"exit {code}", code), (f"kill -{number} $$", 128 + number)):
        room = make_room()
        room.prepare(engine, RUNTIME, f"echo {word}; echo and {word} >&2; {last}", {})
        room.call("watch", COMMAND, "/tmp/bundle", name, "/tmp/out")
        told = exit_code(room)
        assert told == str(wanted), f"`{last}`: exit says {told!r}, and a shell {wanted}"
        said = room.read("/tmp/out/output").decode()
        assert said == f"{word}\nand {word}\n", (
            f"the container wrote {word} to both of its outputs; output has {said!r}"
        )
        verbs = diary(room)
        assert [line.split()[0] for line in verbs] == ["create", "start", "delete"], f"the runtime was asked {verbs}"
        assert room.stat(f"/tmp/pid-{name}") is None, f"it is deleted before it has ended: {verbs}"
        deadline = time.monotonic() + 5
        while left := alive(room):
            assert time.monotonic() < deadline, f"all is over, and {room.status(left[0])['Name']} is still there"
            time.sleep(0.02)


@pytest.mark.points(3)
def test_who_is_its_parent(room, rng):
    """While it runs, watch has returned, and the process that stays is the container's parent."""
    name = rng.choice(WORDS)
    room.prepare(engine, RUNTIME, "exec sleep 1000", {})
    number = room.call("watch", COMMAND, "/tmp/bundle", name, "/tmp/out")
    container, beside = room.outside(int(room.read(f"/tmp/pid-{name}"))), room.outside(number)
    parent = int(room.status(container)["PPid"])
    assert parent == beside, f"the parent of the container's process is {room.status(parent)['Name']}, process {parent}"
    assert int(room.status(beside)["PPid"]) == room.pid, "the process that stays is not a child of yours"
    assert room.stat("/tmp/out/exit") is None, "the container runs, and there is an exit code"
    assert not [line for line in diary(room) if "delete" in line], f"the container runs, and is deleted: {diary(room)}"
    os.kill(container, signal.SIGTERM)
    assert exit_code(room) == "143", f"it got SIGTERM, and exit says {exit_code(room)}"


@pytest.mark.points(3)
def test_a_runtime_that_refuses(make_room, rng):
    """Where create or start fails, watch raises with the runtime's words, and has the container deleted by force."""
    word = f"out of {rng.choice(WORDS)} {rng.randrange(1000)}"
    for refusing, verbs in (
        ("/tmp/bundle/create", ["create", "delete"]),
        ("/tmp/start", ["create", "start", "delete"]),
    ):
        room = make_room()
        room.prepare(engine, RUNTIME, "exec sleep 1000", {refusing: word})
        outcome = room.attempt("watch", COMMAND, "/tmp/bundle", "one", "/tmp/out")
        assert outcome.raised == "RuntimeError", f"{verbs[-2]} has failed, and watch: {outcome}"
        assert word in outcome.text, f"the runtime said {word!r}, and watch {outcome.text!r}"
        told = [line.split() for line in diary(room)]
        assert [line[0] for line in told] == verbs and "--force" in told[-1], f"the runtime was asked {diary(room)}"
        left = alive(room)
        assert not left, f"still there is {room.status(left[0])['Name'] if left else ''}"
        assert room.stat("/tmp/out/exit") is None, "it never ran, and there is an exit code"
