"""Lab 17, graded from outside the container: its namespaces, its mounts, its capabilities, its packets, its end."""

import os
import shutil
import signal
import time

import pytest

from minicontainer import netlink
from minicontainer.kernel.capabilities import NUMBERS

pytestmark = pytest.mark.needs("overlay", "network")

KINDS = ("cgroup", "ipc", "mount", "network", "pid", "uts")
WORDS = ("ash", "birch", "cedar", "elm", "fir", "hazel", "larch", "maple", "oak", "pine", "rowan", "willow")


def layers(program, wanted):
    """In the room: a layer with busybox in /bin, and others with the files that are wanted; and empty directories. All
    mounts are shared, as systemd has them."""
    import os
    import shutil

    from minicontainer import syscalls

    syscalls.mount("", "/", "", syscalls.MS_REC | syscalls.MS_SHARED)

    os.makedirs("/tmp/base/bin")
    shutil.copy(program, "/tmp/base/bin/busybox")
    for name in ("sh", "sleep", "cat", "ls", "kill", "nc"):
        os.symlink("busybox", f"/tmp/base/bin/{name}")
    open("/tmp/base/bin/plain", "w").close()
    for layer, files in wanted:
        os.makedirs(layer)
        for name, content in files.items():
            with open(f"{layer}/{name}", "w") as file:
                file.write(content)
    for name in ("top", "other"):
        os.mkdir(f"/tmp/{name}")


class Container:
    """What a container is made of, drawn; and, once it is started, its process 1 as our /proc numbers it."""

    def __init__(self, room, rng):
        program = shutil.which("busybox", path="/usr/bin:/bin")
        if not program:
            pytest.skip("there is no busybox here; to have it: apt-get install busybox-static")
        self.room = room
        self.words = rng.sample(WORDS, 3)
        self.over = [(f"/tmp/{word}", {word: word, "shared": f"from {word}"}) for word in self.words]
        room.prepare(layers, program, self.over)
        self.layers = ["/tmp/base", *[layer for layer, _ in self.over]]
        self.hostname = f"{rng.choice(WORDS)}{rng.randrange(1000)}"
        subnet = f"10.{rng.randrange(1, 255)}.{rng.randrange(256)}"
        self.address, self.gateway = f"{subnet}.{rng.randrange(2, 250)}", f"{subnet}.{rng.choice((1, 254))}"
        self.keep = rng.sample(sorted(NUMBERS), rng.randrange(3, 8))

    def start(self, *command, top="/tmp/top"):
        """Let the learner start it."""
        nets = f"{self.address}/24", f"{self.gateway}/24"
        arguments = self.layers, top, command, self.hostname, *nets, self.keep
        self.number = self.room.call("start", *arguments, within=15)
        assert isinstance(self.number, int), f"start returned {self.number!r}, which is no pid"

    def run(self, script=""):
        """Start it with `sleep`, or with a shell that runs a script before; returns when it sleeps."""
        self.start(*(["sh", "-c", f"{script}\nexec sleep 1000"] if script else ["sleep", "1000"]))
        self.pid = self.room.outside(self.number)
        assert b"keeper" not in self.read("cmdline"), f"start has returned, and process {self.number} is still Python"
        deadline = time.monotonic() + 5
        while not (line := self.read("cmdline")).startswith(b"sleep") and time.monotonic() < deadline:
            time.sleep(0.01)
        assert line.startswith(b"sleep"), f"process {self.number} is {line!r}; it should be the command"

    def read(self, name):
        """/proc/PID/name of its process 1."""
        with open(f"/proc/{self.pid}/{name}", "rb") as file:
            return file.read()


@pytest.fixture
def container(room, rng):
    """A container that is not started yet."""
    return Container(room, rng)


@pytest.mark.points(2)
def test_a_commands_last_word(make_room, rng):
    """finish returns the exit code, as a shell shows it: the command's own, 126, 127."""
    code = rng.randrange(1, 120)
    cases = [(code, ["sh", "-c", f"exit {code}"]), (127, ["no-such-program"]), (126, ["/bin/plain"])]
    for wanted, command in cases:
        container = Container(make_room(), rng)
        container.start(*command)
        told = container.room.call("finish", container.number, within=15)
        assert told == wanted, f"{command}: a shell shows {wanted}, finish returned {told}"


@pytest.mark.points(3)
def test_namespaces_of_its_own(container):
    """All six kinds differ from ours; the command is process 1; we have stayed where we were."""
    room = container.room
    before = {kind: room.namespace(kind) for kind in (*KINDS, "user")}
    container.run()
    theirs = {kind: room.look(os.readlink, f"/proc/{container.pid}/ns/{name(kind)}", kinds=()) for kind in before}
    same = [kind for kind in KINDS if theirs[kind] == before[kind]]
    assert not same, f"the container shares these namespaces with you: {same}"
    assert theirs["user"] == before["user"], "a user namespace was not asked for"
    numbers = room.status(container.pid)["NSpid"].split()
    assert numbers[-1] == "1", f"in its own pid namespace the command is process {numbers[-1]}, not 1"
    moved = [kind for kind in before if room.namespace(kind) != before[kind]]
    assert not moved, f"you have not stayed where you were: {moved}"
    assert not room.mount("/tmp/top/merged"), "the container's root is mounted in your namespace, too"


def name(kind):
    """What /proc/PID/ns calls it."""
    return {"mount": "mnt", "network": "net"}.get(kind, kind)


@pytest.mark.points(4)
def test_a_root_of_its_own(container):
    """`/` is an overlay of the layers, /proc its own, nothing else is mounted; what it writes lands in upper."""
    room = container.room
    first = container.words[0]
    container.run(f"cat /shared >/seen; echo changed >/{first}; echo /proc/[0-9]* >/processes; ls / >/names")
    mounts = [(mount.point, mount.kind) for mount in room.mounts(container.pid)]
    assert sorted(mounts) == [("/", "overlay"), ("/proc", "proc")], f"the container's mountinfo shows {mounts}"
    top = next(mount for mount in room.mounts(container.pid) if mount.point == "/")
    assert not top.propagation, f"its root is {top.propagation}: mounts go on to others"
    assert os.readlink(f"/proc/{container.pid}/cwd") == "/", "it does not stand at its root"
    seen = {
        name: room.read(f"/tmp/top/upper/{name}").decode().strip() for name in ("seen", first, "processes", "names")
    }
    assert seen["seen"] == f"from {container.words[-1]}", f"all layers have `shared`; it sees the one {seen['seen']!r}"
    assert seen[first] == "changed" and room.read(f"/tmp/{first}/{first}").decode() == first, "a layer was changed"
    assert seen["processes"].split()[0] == "/proc/1", f"its /proc shows {seen['processes']}"
    assert len(seen["processes"].split()) < 4, f"its /proc shows others' processes: {seen['processes']}"
    missing = {*container.words, "bin", "proc"} - set(seen["names"].split())
    assert not missing, f"it does not see {missing} in /"


@pytest.mark.points(3)
def test_what_it_may(container):
    """Capabilities as asked for, in all sets; signals, environment and descriptors as for a fresh program."""
    container.run()
    status = container.room.status(container.pid)
    wanted = sum(1 << NUMBERS[name] for name in container.keep)
    for word in ("CapBnd", "CapPrm", "CapEff"):
        assert int(status[word], 16) == wanted, f"{word} is {status[word]}; asked for was {wanted:016x}"
    assert not int(status["CapInh"], 16) and not int(status["CapAmb"], 16), "capabilities are inheritable, or ambient"
    assert not int(status["SigIgn"], 16), f"it ignores signals: SigIgn is {status['SigIgn']}"
    assert container.read("environ") == b"PATH=/bin\0", f"its environment is {container.read('environ')}"
    opened = sorted(os.listdir(f"/proc/{container.pid}/fd"), key=int)
    assert opened == ["0", "1", "2"], f"it has descriptors of ours: {opened}"


def arrives(sender, address, receiver, port=4444):
    """Send a datagram; who sent it, as the receiver sees it: (address, port), or None if it does not arrive."""
    try:
        sender.sendto(b"hello", (address, port))
        return receiver.recvfrom(16)[1]
    except OSError:
        return None


def nodename():
    """In a uts namespace: its host name."""
    return os.uname().nodename


@pytest.mark.points(3)
def test_a_name_and_a_cable(container):
    """Its host name; packets from us to its address and back; its own 127.0.0.1; a way to everywhere by the gateway."""
    room = container.room
    before = room.look(nodename, kinds=("uts",))
    container.run("cat /proc/net/route >/routes")
    told = room.look(nodename, kinds=("uts",), pid=container.pid)
    assert told == container.hostname, f"its host name is {told}, and should be {container.hostname}"
    assert room.look(nodename, kinds=("uts",)) == before, "your own host name has changed"
    seen = room.read("/tmp/top/upper/routes").decode()
    assert "eth0" in seen, f"the command began before its cable was there: /proc/net/route said {seen!r}"
    with room.socket(pid=container.pid) as there, room.socket() as here:
        there.bind(("0.0.0.0", 4444))
        whose = arrives(here, container.address, there)
        assert whose and whose[0] == container.gateway, f"a packet of ours to {container.address} came from {whose}"
        assert arrives(there, whose[0], here, whose[1]), "its answer does not come back to us"
        assert arrives(there, "127.0.0.1", there), "its own 127.0.0.1 does not answer"
        with room.socket(pid=container.pid) as other:
            try:
                other.connect(("192.0.2.1", 1))
            except OSError as error:
                raise AssertionError(f"it has no way to 192.0.2.1, which is anywhere: {error.strerror}") from None
            assert other.getsockname()[0] == container.address


def devices():
    """In a network namespace: the devices' names."""
    return sorted(link.name for link in netlink.links())


@pytest.mark.points(4)
def test_nothing_is_left(container):
    """After a container that was killed with all it had started: no process, no mount, no device; and one more runs."""
    room = container.room
    before = room.mounts(), room.processes(), room.look(devices)
    opened = os.listdir(f"/proc/{room.pid}/fd")
    container.run("sleep 1000 & sleep 1000 &")
    assert len(room.processes()) == len(before[1]), "another process of yours goes on beside the container"
    os.kill(container.pid, signal.SIGKILL)
    told = room.call("finish", container.number)
    assert told == 137, f"it was killed by signal 9; finish returned {told}"
    left = [mount.point for mount in room.mounts() if mount not in before[0]]
    assert not left, f"mounts are left: {left}"
    assert room.processes() == before[1], "a process is left, or a child that nobody has waited for"
    deadline = time.monotonic() + 5  # the kernel ends a network namespace in its own time
    while room.look(devices) != before[2] and time.monotonic() < deadline:
        time.sleep(0.02)
    assert room.look(devices) == before[2], f"devices are left: {set(room.look(devices)) - set(before[2])}"
    assert room.look(os.listdir, f"/proc/{room.pid}/fd", kinds=()) == opened, (
        "descriptors are left open in your process"
    )
    container.start("sh", "-c", "exit 3", top="/tmp/other")
    assert room.call("finish", container.number) == 3, "a second container with the same names does not run"
