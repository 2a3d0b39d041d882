"""`oci`, the runtime's own command line, as an engine types it; the kernel says whether it is true."""

import array
import contextlib
import ctypes
import fcntl
import json
import os
import pty
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from minicontainer import errors, host, syscalls
from minicontainer.kernel import capabilities, cgroups
from minicontainer.runtime import init, lifecycle, spec, state
from tests.conftest import CHECKOUT, is_systemd

pytestmark = [pytest.mark.root, pytest.mark.needs("busybox")]


# oom_score_adj: better than ours, which only CAP_SYS_RESOURCE of the machine may give; where we lack that, worse.
BETTER = -500 if capabilities.bounding_set() & capabilities.mask(["CAP_SYS_RESOURCE"]) else 500

libc = ctypes.CDLL(None, use_errno=True)


class Engine:
    """Whoever drives a runtime: a folder for its state, and a bundle."""

    def __init__(self, folder: Path) -> None:
        self.state, self.bundle, self.log = folder / "state", folder / "bundle", folder / "log.json"
        (self.bundle / "rootfs/bin").mkdir(parents=True)
        shutil.copy(shutil.which("busybox") or "", self.bundle / "rootfs/bin/busybox")
        for name in ("sh", "sleep", "cat", "readlink", "touch", "tty"):
            (self.bundle / "rootfs/bin" / name).symlink_to("busybox")
        self.config = spec.default()
        self.config["linux"]["cgroupsPath"] = f"/minicontainer-test-{os.getpid()}/c"
        self.command("sleep", "1000")

    def command(self, *words: str, **process: Any) -> None:
        """What it shall run, and how."""
        self.config["process"] |= {"args": list(words), **process}
        self.write()

    def write(self) -> None:
        """Write config.json as it is now."""
        (self.bundle / "config.json").write_text(json.dumps(self.config))

    def words(self, *words: str) -> list[str]:
        """A command line of the runtime."""
        log = ["--log", str(self.log), "--log-format", "json"]
        return [sys.executable, "-m", "minicontainer", "oci", "--root", str(self.state), *log, *words]

    def __call__(self, *words: str, **more: Any) -> subprocess.CompletedProcess[str]:
        more = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **more}
        return subprocess.run(self.words(*words), text=True, timeout=60, cwd=CHECKOUT, **more)

    def create(self, *words: str, **more: Any) -> subprocess.CompletedProcess[str]:
        """`create c`, which must go well. Its command's output goes nowhere."""
        quiet = {"stdout": subprocess.DEVNULL, "stderr": None}
        return self("create", "--bundle", str(self.bundle), *words, "c", check=True, **{**quiet, **more})

    def begin(self) -> tuple[int, bytes]:
        """Create and start it: its pid, and what it writes first."""
        reader, writer = os.pipe()
        self.create(stdout=writer)
        os.close(writer)
        pid = self.status()["pid"]
        self("start", "c", check=True)
        said = os.read(reader, 100)
        os.close(reader)
        return pid, said

    def status(self, name: str = "c") -> dict[str, Any]:
        """What `state` says."""
        told: dict[str, Any] = json.loads(self("state", name, check=True).stdout)
        return told

    def until(self, status: str) -> dict[str, Any]:
        """Wait for it to be so."""
        for _ in range(1500):
            told = self.status()
            if told["status"] == status:
                return told
            time.sleep(0.02)
        raise AssertionError(f"still {told['status']}")

    def until_true(self, so: Callable[[], bool]) -> None:
        """Wait for it."""
        for _ in range(500):
            if so():
                return
            time.sleep(0.02)
        raise AssertionError("it never was")

    def cgroups(self) -> list[str]:
        """The directories of its cgroup that there are."""
        mounts = cgroups.detect().mounts.values()
        return [f"{mount}{self.config['linux']['cgroupsPath']}" for mount in mounts if os.path.isdir(
            f"{mount}{self.config['linux']['cgroupsPath']}")]  # fmt: skip

    def left(self) -> list[str]:
        """Every trace of it."""
        return [*self.cgroups(), *(map(str, self.state.iterdir()) if self.state.exists() else ())]


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = Engine(tmp_path)
    yield engine
    engine("delete", "--force", "c")
    assert engine.left() == []
    for mount in cgroups.detect().mounts.values():
        with contextlib.suppress(OSError):
            os.rmdir(os.path.dirname(f"{mount}{engine.config['linux']['cgroupsPath']}"))


def program(pid: int) -> str:
    """Which program a process is."""
    return os.readlink(f"/proc/{pid}/exe")


def test_created_it_waits_in_its_namespaces_and_started_it_is_its_command(engine: Engine, tmp_path: Path) -> None:
    engine.create("--pid-file", str(tmp_path / "pid"))
    told = engine.status()
    pid = told["pid"]
    assert told["status"] == "created" and told["bundle"] == str(engine.bundle) and told["id"] == "c"
    assert (tmp_path / "pid").read_text() == str(pid)
    ours = {kind: os.readlink(f"/proc/self/ns/{kind}") for kind in ("pid", "mnt", "uts", "ipc", "net")}
    assert [kind for kind, here in ours.items() if os.readlink(f"/proc/{pid}/ns/{kind}") == here] == []
    assert os.stat(f"/proc/{pid}/root").st_ino == os.stat(engine.bundle / "rootfs").st_ino
    assert pid in cgroups.processes(engine.config["linux"]["cgroupsPath"])
    assert program(pid) != "/bin/busybox"
    assert engine("delete", "c").returncode == 1, "it has not stopped"
    engine("start", "c", check=True)
    assert engine.until("running")["pid"] == pid
    while program(pid) != "/bin/busybox":  # as its own root has it
        assert state.start_time(pid)
    assert engine("start", "c").returncode == 1
    engine("kill", "c", "KILL", check=True)
    assert engine.until("stopped")["pid"] == 0
    assert engine("kill", "c").returncode == 1
    engine("delete", "c", check=True)
    assert engine.left() == []
    for words, code in ((["state"], 1), (["delete"], 1), (["kill"], 1), (["ps"], 1), (["exec"], 255)):
        done = engine(*words, "c", *(["sh"] if words == ["exec"] else []))
        assert done.returncode == code and "container does not exist" in done.stderr
    assert engine("delete", "--force", "c").returncode == 0


def hook(log: Path, name: str, *more: str) -> dict[str, Any]:
    """One that notes its name, its mount namespace, and the state that it got. Of the host's programs."""
    script = f"{{ echo {name}; readlink /proc/self/ns/mnt; cat; echo; }} >> {log}; {' '.join(more)}"
    return {"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"]}


def test_hooks_in_their_order_and_namespaces(engine: Engine, tmp_path: Path) -> None:
    log = tmp_path / "hooks"
    engine.config["hooks"] = {
        kind: [hook(log, kind)] for kind in ("prestart", "createRuntime", "createContainer", "poststart", "poststop")
    } | {"startContainer": [hook(Path("/inside"), "startContainer")]}
    engine.config["annotations"] = {"a": "b"}
    engine.write()
    engine.create()
    pid = engine.status()["pid"]
    inside = os.readlink(f"/proc/{pid}/ns/mnt")
    assert not (engine.bundle / "rootfs/inside").exists()
    engine("start", "c", check=True)
    engine("kill", "c", "9", check=True)
    engine.until("stopped")
    engine("delete", "c", check=True)
    lines = log.read_text().splitlines()
    here = os.readlink("/proc/self/ns/mnt")
    assert lines[0::3] == ["prestart", "createRuntime", "createContainer", "poststart", "poststop"]
    assert lines[1::3] == [here, here, inside, here, here]
    told = [json.loads(line) for line in lines[2::3]]
    assert [one["pid"] for one in told] == [pid, pid, pid, pid, 0]
    assert [one["status"] for one in told] == ["created", "creating", "creating", "running", "stopped"]
    assert all(one["annotations"] == {"a": "b"} and one["id"] == "c" for one in told)
    name, where, said = (engine.bundle / "rootfs/inside").read_text().splitlines()
    assert (name, where, json.loads(said)["pid"]) == ("startContainer", inside, pid)


@pytest.mark.parametrize("kind", ["new", "joined"])
def test_hooks_of_the_hosts_are_in_its_pid_namespace(engine: Engine, tmp_path: Path, kind: str) -> None:
    """Whether the container's is made, or another's that is entered."""
    log = tmp_path / "hooks"
    note = {"path": "/bin/sh", "args": ["sh", "-c", f"readlink /proc/self/ns/pid >> {log}"]}
    engine.config["hooks"] = {name: [note] for name in ("prestart", "createRuntime", "poststart", "poststop")}
    engine.command("readlink", "/proc/self/ns/pid")
    other = subprocess.Popen(["unshare", "--pid", "--fork", "sleep", "1000"])
    try:
        theirs = os.readlink("/proc/self/ns/pid")
        while theirs == os.readlink("/proc/self/ns/pid"):
            with contextlib.suppress(FileNotFoundError):  # it is there once somebody is in it
                theirs = os.readlink(f"/proc/{other.pid}/ns/pid_for_children")
        if kind == "joined":
            [space] = [entry for entry in engine.config["linux"]["namespaces"] if entry["type"] == "pid"]
            space["path"] = f"/proc/{other.pid}/ns/pid_for_children"
            engine.write()
        done = engine("run", "--bundle", str(engine.bundle), "c", check=True)
        assert (done.stdout.strip() == theirs) == (kind == "joined")
        assert log.read_text().split() == [os.readlink("/proc/self/ns/pid")] * 4
    finally:
        for child in Path(f"/proc/{other.pid}/task/{other.pid}/children").read_text().split():
            os.kill(int(child), signal.SIGKILL)
        other.wait()


def test_poststart_hooks_come_when_the_command_has_begun(engine: Engine) -> None:
    inside = {"path": "/bin/sh", "args": ["sh", "-c", "sleep 0.3; echo startContainer >> /order"], "env": ["PATH=/bin"]}
    order = engine.bundle / "rootfs/order"
    outside = {"path": "/bin/sh", "args": ["sh", "-c", f"echo poststart >> {order}"]}
    engine.config["hooks"] = {"startContainer": [inside], "poststart": [outside]}
    engine.write()
    engine.create()
    engine("start", "c", check=True)
    assert order.read_text().split() == ["startContainer", "poststart"]


def test_a_capability_that_we_have_not_got_is_left_out_and_said(engine: Engine) -> None:
    granted = ["CAP_KILL", "CAP_SYS_NICE"]
    kinds = ("bounding", "effective", "permitted")
    engine.command("cat", "/proc/self/status", capabilities=dict.fromkeys(kinds, granted))
    drop = ["setpriv", "--bounding-set", "-sys_nice"]
    words = engine.words("run", "--bundle", str(engine.bundle), "c")
    done = subprocess.run([*drop, *words], cwd=CHECKOUT, timeout=60, capture_output=True, text=True)
    found = dict(line.split(":\t", 1) for line in done.stdout.splitlines())
    assert [int(found[name], 16) for name in ("CapBnd", "CapEff", "CapPrm")] == [1 << 5] * 3
    assert "CAP_SYS_NICE cannot be granted" in done.stderr


def test_a_capability_that_nobody_knows_is_left_out_and_said(engine: Engine) -> None:
    """As one that is younger than we are (config.md)."""
    sets = {kind: ["CAP_KILL", "CAP_OF_TOMORROW"] for kind in ("bounding", "effective", "permitted")}
    engine.command("cat", "/proc/self/status", capabilities=sets)
    done = engine("run", "--bundle", str(engine.bundle), "c", check=True)
    assert f"CapEff:\t{1 << 5:016x}\n" in done.stdout and "CAP_OF_TOMORROW cannot be granted" in done.stderr


def test_one_whose_start_was_killed_before_it_was_done_runs(engine: Engine) -> None:
    """It has had its word, and only the fifo is still there."""
    engine.create()
    fifo = os.open(engine.state / "c/fifo", os.O_WRONLY)
    os.write(fifo, b"!")
    os.close(fifo)
    engine.until("running")
    assert engine("start", "c").returncode == 1
    engine("exec", "c", "sh", "-c", ":", check=True)


def test_what_may_be_null_is_nothing(engine: Engine) -> None:
    engine.config["mounts"].append({"destination": "/mnt", "type": "tmpfs", "source": "tmpfs", "options": None})
    engine.config["linux"] |= dict.fromkeys(("seccomp", "devices", "resources", "sysctl", "maskedPaths"))
    engine.config["hooks"] = None
    engine.command("sh", "-c", ":", rlimits=None, capabilities=None, env=None)
    assert engine("run", "--bundle", str(engine.bundle), "c").returncode == 0


def test_an_ambient_capability_that_is_not_inheritable_is_left_out_and_said(engine: Engine) -> None:
    both = ["CAP_KILL", "CAP_CHOWN"]
    sets = dict.fromkeys(("bounding", "effective", "permitted", "ambient"), both) | {"inheritable": ["CAP_CHOWN"]}
    engine.command("cat", "/proc/self/status", capabilities=sets)
    done = engine("run", "--bundle", str(engine.bundle), "c")
    found = dict(line.split(":\t", 1) for line in done.stdout.splitlines())
    assert [int(found[name], 16) for name in ("CapEff", "CapInh", "CapAmb")] == [1 << 5 | 1, 1, 1]
    assert "CAP_KILL cannot be ambient" in done.stderr


@pytest.mark.parametrize("kind", ["prestart", "createRuntime", "createContainer"])
def test_a_hook_that_fails_leaves_nothing(engine: Engine, tmp_path: Path, kind: str) -> None:
    engine.config["hooks"] = {kind: [hook(tmp_path / "hooks", kind, "exit 3")]}
    engine.write()
    done = engine("create", "--bundle", str(engine.bundle), "c")
    assert done.returncode == 1 and "/bin/sh failed: exit code 3" in done.stderr
    assert engine.left() == []
    pid = json.loads((tmp_path / "hooks").read_text().splitlines()[2])["pid"]
    assert not state.alive(pid, state.start_time(pid) or 0)


def test_what_python_ignores_is_not_ignored_in_a_hook(engine: Engine, tmp_path: Path) -> None:
    """Python ignores two, and what is ignored goes through execve."""
    script = f"grep SigIgn: /proc/self/status >> {tmp_path}/hooks"
    kinds = ("prestart", "createContainer", "startContainer", "poststart", "poststop")
    inside = {"path": "/bin/sh", "args": ["sh", "-c", "cat /proc/self/status > /status"]}
    note = {"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"]}
    engine.config["hooks"] = {kind: [inside if kind == "startContainer" else note] for kind in kinds}
    engine.command("cat")
    engine("run", "--bundle", str(engine.bundle), "c", check=True)
    said = (tmp_path / "hooks").read_text() + (engine.bundle / "rootfs/status").read_text()
    found = [int(line.split()[1], 16) for line in said.splitlines() if line.startswith("SigIgn:")]
    pythons = 1 << signal.SIGPIPE - 1 | 1 << signal.SIGXFSZ - 1
    assert [each & pythons for each in found] == [0] * len(kinds)


def test_a_hook_has_its_time(engine: Engine) -> None:
    engine.config["hooks"] = {"createRuntime": [{"path": "/bin/sleep", "args": ["sleep", "1000"], "timeout": 1}]}
    engine.write()
    done = engine("create", "--bundle", str(engine.bundle), "c")
    assert done.returncode == 1 and "longer than 1 s" in done.stderr


def test_poststop_hooks_keep_nothing_from_being_deleted(engine: Engine) -> None:
    engine.config["hooks"] = {"poststop": [{"path": "/nosuch"}, {"path": "/bin/false"}]}
    engine.write()
    engine.create()
    done = engine("delete", "--force", "c")
    assert done.returncode == 0 and "/nosuch" in done.stderr and "/bin/false failed" in done.stderr
    assert engine.left() == []


def test_killed_in_the_middle_it_takes_its_child_along_and_is_deleted(engine: Engine, tmp_path: Path) -> None:
    log = tmp_path / "hooks"
    engine.config["hooks"] = {"createRuntime": [hook(log, "createRuntime", "exec sleep 1000")]}
    engine.write()
    creating = subprocess.Popen(engine.words("create", "--bundle", str(engine.bundle), "c"), cwd=CHECKOUT)
    while not log.exists() or len(log.read_text().splitlines()) < 3:
        assert creating.poll() is None
        time.sleep(0.01)
    child = json.loads(log.read_text().splitlines()[2])["pid"]
    assert engine.status()["status"] == "creating"
    [sleeper] = [int(pid) for pid in Path(f"/proc/{creating.pid}/task/{creating.pid}/children").read_text().split()
                 if int(pid) != child]  # fmt: skip
    creating.kill()
    creating.wait()
    os.kill(sleeper, signal.SIGKILL)
    while state.alive(child, state.start_time(child) or 0):
        time.sleep(0.01)
    assert engine("delete", "--force", "c").returncode == 0


def mounts(bundle: Path) -> list[str]:
    """The host's root, with its propagation, and what is mounted in the bundle."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line for line in lines if line.split()[4] == "/" or line.split()[4].startswith(str(bundle))]


def without(*path: str, **more: Any) -> Callable[[dict[str, Any]], None]:
    """Change a config: set what is at `path` to `value`."""

    def change(config: dict[str, Any]) -> None:
        for name in path[:-1]:
            config = config[name]
        config[path[-1]] = more["value"]

    return change


def rule(**said: Any) -> Callable[[dict[str, Any]], None]:
    """Change a config: one rule about devices, which allows."""
    return without("linux", "resources", value={"devices": [{"allow": True, **said}]})


IPV4 = {"net.ipv4.ip_default_ttl": Path("/proc/sys/net/ipv4/ip_default_ttl").read_text().strip()}


def shared(kind: str, config: dict[str, Any]) -> dict[str, Any]:
    """The part of a config that has no namespace of this kind."""
    spaces = [entry for entry in config["linux"]["namespaces"] if entry["type"] != kind]
    return {"linux": {**config["linux"], "namespaces": spaces}}


def ours(kind: str, config: dict[str, Any]) -> dict[str, Any]:
    """The same, with the host's own by its path."""
    linux = shared(kind, config)["linux"]
    path = f"/proc/self/ns/{'net' if kind == 'network' else kind}"
    return {"linux": {**linux, "namespaces": [*linux["namespaces"], {"type": kind, "path": path}]}}


def idmapped(destination: str, source: str, options: list[str], first: int = 5000) -> dict[str, Any]:
    """A mount in which the ids of the disk, from 1000 on, are those from `first` on."""
    maps = [{"containerID": 1000, "hostID": first, "size": 10}]
    return spec.mount(destination, "bind", source, options) | {"uidMappings": maps, "gidMappings": maps}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (without("ociVersion", value="2.0.0"), "2.0.0"),
        (without("process", value=None), "has no process"),
        (without("process", "args", value=[]), "process.args is empty"),
        (without("process", "cwd", value="tmp"), "not an absolute path"),
        (without("process", "terminal", value=True), "--console-socket"),
        (without("process", "selinuxLabel", value="x"), "process.selinuxLabel"),
        (without("linux", "intelRdt", value={"closID": "x"}), "linux.intelRdt"),
        (without("linux", "namespaces", value=[{"type": "mount"}, {"type": "space"}]), "'space'"),
        (without("linux", "timeOffsets", value={"boottime": {"secs": 1}}), "no new namespace 'time'"),
        (without("linux", "namespaces", value=[{"type": "pid"}, {"type": "user"}]), "no mount namespace"),
        (without("linux", "namespaces", value=[{"type": "mount", "path": "/proc/1/ns/mnt"}]), "mount namespace"),
        (without("linux", "namespaces", value=[{"type": "mount"}, {"type": "user"}]), "linux.uidMappings"),
        (without("linux", "namespaces", value=[{"type": "mount"}, {"type": "mount"}]), "more than one namespace"),
        (without("linux", "gidMappings", value=[{"containerID": 0, "hostID": 1, "size": 1}]), "no namespace 'user'"),
        (without("linux", "rootfsPropagation", value="public"), "'public' is no propagation"),
        (
            without("mounts", value=[spec.mount("/sys", "bind", "/sys", ["rbind", "rshared"])]),
            "the mount at /sys is shared with the host, which would get what is mounted at /sys/",
        ),
        (without("mounts", value=[spec.mount("/x", "bind", "/", ["rbind", "nosiud"])]), "no option 'nosiud'"),
        (without("mounts", value=[spec.mount("/x", "none", "/", ["bind", "uid=7"])]), "no option 'uid=7'"),
        (
            without("mounts", value=[
                spec.mount("/x", "bind", "/var/empty", ["rbind", "shared"]), spec.mount("/x/y", "tmpfs", "tmpfs", []),
            ]),
            "mounted at /x/y",
        ),
        (without("process", "user", value={"uid": -1, "gid": 0}), "-1 is no number"),
        (without("process", "user", value={"uid": 0, "gid": 2**32 - 1}), "4294967295 is no number"),
        (without("process", "user", value={"uid": "0", "gid": 0}), "'0' is no number"),
        (without("process", "user", value={"uid": 1, "gid": 1, "additionalGids": [-1]}), "-1 is no number"),
        (without("process", "env", value=["A"]), "'A' is not NAME=VALUE"),
        (without("linux", "devices", value=[{"path": "/dev/x", "type": "z"}]), "linux.devices"),
        (rule(type="p", access="rwm"), "its type is a, b or c"),
        (rule(type="char", access="rwm"), "its type is a, b or c"),
        (rule(access=""), "its access is some of r, w and m"),
        (rule(type="c"), "its access is some of r, w and m"),
        (rule(access="rx"), "its access is some of r, w and m"),
        (rule(access="r", minor="229"), "major and minor are numbers"),
        (rule(access="r", major=(1 << 32) + 1), "major and minor are numbers"),
        (rule(access="r", allow="no"), "allow is true or false"),
        (without("mounts", value={"a": 1}), "not the form"),
        (without("mounts", value=[{"type": "tmpfs"}]), "not the form"),
        (without("process", "rlimits", value=[{"type": "RLIMIT_X", "soft": 1, "hard": 1}]), "no limit 'RLIMIT_X'"),
        (without("process", "rlimits", value=[{"type": "RLIMIT_AS", "soft": 1}]), "soft and hard are numbers"),
        (without("process", "rlimits", value=[{"type": "RLIMIT_AS", "soft": 0, "hard": 2**64}]), "RLIMIT_AS"),
        (without("linux", "resources", value={"memory": {"kernel": 1 << 24}}), "memory.kernel is less"),
        (without("linux", "resources", value={"memory": {"kernel": 9, "limit": 1 << 25}}), "memory.kernel is less"),
        (without("linux", "cgroupsPath", value="/"), "cgroupsPath"),
        (without("linux", "cgroupsPath", value="/a/../.."), "cgroupsPath"),
        (without("linux", "cgroupsPath", value="system.slice:docker:x"), "cgroupsPath"),
        (lambda config: config.update(domainname="x", **shared("uts", config)), "domainname"),
        (lambda config: config.update(hostname=os.uname().nodename, **shared("uts", config)), "hostname"),
        (lambda config: config.update(hostname=os.uname().nodename, **ours("uts", config)), "hostname"),
        (lambda config: config["linux"].update({**ours("network", config)["linux"], "sysctl": IPV4}), "own to set"),
        (without("process", "execCPUAffinity", value={"initial": "x"}), "execCPUAffinity.initial"),
        (without("process", "execCPUAffinity", value={"first": "0"}), "execCPUAffinity.first"),
        (without("linux", "resources", value={"rdma": {"mlx5_0": {"hcaHandles": 2}}}), "controller `rdma`"),
        (without("linux", "resources", value={"blockIO": {"leafWeight": 10}}), "blockIO.leafWeight"),
        (without("linux", "resources", value={"hugepageLimits": [{"pageSize": "2MB"}]}), "not the form"),
        (without("linux", "resources", value={"blockIO": {"weightDevice": [{}]}}), "blockIO.weightDevice"),
        (without("linux", "resources", value={"cpu": {"realtimeRuntime": 9}}), "cpu.realtimeRuntime"),
        (without("process", "ioPriority", value={"class": "IDLE"}), "process.ioPriority.class"),
        (without("process", "ioPriority", value={"class": "IOPRIO_CLASS_BE", "priority": 8}), "0 to 7"),
        (without("process", "scheduler", value={"policy": "SCHED_FAST"}), "process.scheduler.policy"),
        (without("process", "scheduler", value={"policy": "SCHED_OTHER", "flags": ["x"]}), "process.scheduler.flags"),
        (without("process", "scheduler", value={"policy": "SCHED_FIFO", "priority": 100}), "sched_setattr"),
        (without("linux", "personality", value={"domain": "WINDOWS"}), "linux.personality.domain"),
        (without("mounts", value=[{"destination": "/x", "uidMappings": [{}]}]), "uidMappings and gidMappings: both"),
        (without("mounts", value=[{"destination": "/x", "options": ["bind", "idmap"]}]), "neither it nor linux has"),
        (without("mounts", value=[idmapped("/x", "/proc", ["idmap"])]), "no bind mount"),
        (without("mounts", value=[spec.mount("/x", "bind", "/", ["bind", "idmap=uids=0-1-2"])]), "idmap=uids=0-1-2"),
        (without("mounts", value=[idmapped("/x", "/proc", ["bind", "idmap"])]), "ids cannot be translated"),
        (without("mounts", value=[idmapped("/x", "/nowhere", ["bind", "idmap"])]), "/nowhere"),
        (without("root", "path", value="nosuch"), "nosuch"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_by_name(engine: Engine, change: Callable[[Any], None], said: str) -> None:
    cgroup = engine.config["linux"]["cgroupsPath"]
    before = mounts(engine.bundle)
    change(engine.config)
    engine.write()
    done = engine("create", "--bundle", str(engine.bundle), "c")
    assert done.returncode == 1 and said in done.stderr, done.stderr
    assert json.loads(engine.log.read_text().splitlines()[-1])["msg"] in done.stderr
    assert mounts(engine.bundle) == before
    engine.config["linux"]["cgroupsPath"] = cgroup
    assert engine.left() == []


def test_a_mount_namespace_by_its_path(engine: Engine) -> None:
    """One that somebody has made for it; the host's own mounts stay as they are, and all is gone with who holds it."""
    before = mounts(engine.bundle)
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", "echo up; exec sleep 60"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as maker:
        assert maker.stdout and maker.stdout.readline() == "up\n"
        spaces = engine.config["linux"]["namespaces"]
        next(entry for entry in spaces if entry["type"] == "mount")["path"] = f"/proc/{maker.pid}/ns/mnt"
        spaces.reverse()  # in whatever order
        engine.write()
        engine.create()
        pid = engine.status()["pid"]
        assert os.readlink(f"/proc/{pid}/ns/mnt") == os.readlink(f"/proc/{maker.pid}/ns/mnt")
        assert sorted(os.listdir(f"/proc/{pid}/root/bin")) == sorted(os.listdir(engine.bundle / "rootfs/bin"))
        assert Path(f"/proc/{pid}/mountinfo").read_text().split()[4] == "/"
        engine("start", "c", check=True)
        engine("delete", "--force", "c", check=True)
        maker.kill()
    assert mounts(engine.bundle) == before


def test_without_a_mount_namespace_it_lives_among_our_mounts_until_it_is_deleted(engine: Engine) -> None:
    """Whatever was mounted at its root before stays; nothing of the machine's own is touched."""
    root = engine.bundle / "rootfs"
    syscalls.mount(str(root), str(root), "", syscalls.MS_BIND)
    syscalls.mount("", str(root), "", syscalls.MS_PRIVATE)  # else, where / is shared, it is beneath, too
    try:
        before = mounts(engine.bundle)
        engine.config["linux"]["namespaces"] = []
        engine.config["linux"]["cgroupsPath"] += "-among-us"
        engine.config["root"]["readonly"] = True
        engine.write()
        engine.create()
        pid = engine.status()["pid"]
        for kind in ("pid", "mnt", "uts", "ipc", "net", "cgroup", "user", "time"):
            assert os.readlink(f"/proc/{pid}/ns/{kind}") == os.readlink(f"/proc/self/ns/{kind}"), kind
        assert os.stat(f"/proc/{pid}/root").st_ino == root.stat().st_ino
        assert [line for line in mounts(engine.bundle) if line in before] == before, "as they were: / not read-only"
        assert {f"{root}/{name}" for name in ("proc", "proc/sys", "dev")} <= {line.split()[4] for line in mounts(root)}
        engine("start", "c", check=True)
        inside = engine("exec", "c", "sh", "-c", "echo $(readlink /proc/self/ns/mnt) /bin/*", check=False)
        assert inside.stdout, inside.stderr
        assert inside.stdout.split()[0] == os.readlink("/proc/self/ns/mnt")
        assert inside.stdout.split()[1:] == [f"/bin/{name}" for name in sorted(os.listdir(root / "bin"))]
        assert os.statvfs(root).f_flag & os.ST_RDONLY and not os.statvfs("/").f_flag & os.ST_RDONLY
        engine("delete", "--force", "c", check=True)
        assert mounts(engine.bundle) == before and sorted(os.listdir(root)) == ["bin", "dev", "proc", "sys"]
        engine.config["root"]["path"] = "/"
        engine.write()
        done = engine("create", "--bundle", str(engine.bundle), "c")
        assert done.returncode == 1 and "the host's root" in done.stderr
    finally:
        engine("delete", "--force", "c")
        syscalls.umount(str(root))


def test_where_no_device_rules_can_be_had_who_asks_for_none_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    runtime = lifecycle.Runtime(str(tmp_path))
    monkeypatch.setattr(cgroups, "_layout", cgroups.Layout(1, {"memory": str(tmp_path)}, "/"))
    given: dict[str, Any] = {}
    runtime.guard(given)
    assert given == {} and "no v1 hierarchy of the cgroup controller `devices`" in runtime.warnings.pop()
    given = {"devices": [{"allow": False, "access": "rwm"}]}
    runtime.guard(given)  # refused by name, then
    with pytest.raises(errors.Unsupported, match="controller `devices`"):
        list(cgroups.create("/a/b", given))
    monkeypatch.setattr(cgroups, "_layout", cgroups.Layout(0, {}, "/"))
    runtime.guard(given := {})
    assert given["devices"] == cgroups.default_devices() and list(cgroups.create("/a/b", given)) == []
    assert runtime.warnings == []


@pytest.mark.skipif(is_systemd(), reason="tests/vm/test_systemd.py has scopes")
def test_without_systemd_nobody_makes_a_scope(engine: Engine) -> None:
    assert engine("--systemd-cgroup", "list").returncode == 0
    done = engine("--systemd-cgroup", "create", "--bundle", str(engine.bundle), "c")
    assert done.returncode == 1
    assert "--systemd-cgroup: systemd is not process 1 here; leave --systemd-cgroup out" in done.stderr
    assert engine.left() == []


def test_flags_that_are_not_supported_are_refused(engine: Engine) -> None:
    for words in (["create", "--no-pivot"], ["create", "--keyring"]):
        assert engine(*words, "--bundle", str(engine.bundle), "c").returncode != 0
    assert engine("create", "--bundle", str(engine.bundle), "../c").returncode == 1
    assert engine("create", "--bundle", str(engine.bundle / "rootfs"), "c").returncode == 1
    assert engine.left() == []


def scheduling(pid: int) -> tuple[int, ...]:
    """policy, flags, nice, priority, runtime, deadline, period: sched_getattr(2)."""
    buffer = ctypes.create_string_buffer(48)
    number = {"x86_64": 315, "aarch64": 275}[os.uname().machine]
    assert libc.syscall(number, pid, buffer, 48, 0) == 0, os.strerror(ctypes.get_errno())
    return struct.unpack("=IQiIQQQ", buffer.raw[4:])


def disk_priority(pid: int) -> tuple[int, int]:
    """Class and level: ioprio_get(2)."""
    value = libc.syscall({"x86_64": 252, "aarch64": 31}[os.uname().machine], 1, pid)
    return value >> 13, value & 7


@pytest.mark.parametrize(
    ("scheduler", "found"),
    [
        ({"policy": "SCHED_BATCH", "nice": 7}, (3, 0, 7, 0, 0, 0, 0)),
        ({"policy": "SCHED_OTHER", "nice": -3, "flags": ["SCHED_FLAG_RESET_ON_FORK"]}, (0, 1, -3, 0, 0, 0, 0)),
        ({"policy": "SCHED_IDLE"}, (5, 0, 0, 0, 0, 0, 0)),
        (
            {"policy": "SCHED_DEADLINE", "flags": ["SCHED_FLAG_RESET_ON_FORK"],
             "runtime": 1_000_000, "deadline": 5_000_000, "period": 10_000_000},
            (6, 1, 0, 0, 1_000_000, 5_000_000, 10_000_000),
        ),
    ],
)  # fmt: skip
def test_when_it_gets_a_processor(engine: Engine, scheduler: dict[str, Any], found: tuple[int, ...]) -> None:
    engine.command("sleep", "1000", scheduler=scheduler)
    engine.create()
    engine("start", "c", check=True)
    values = list(scheduling(engine.status()["pid"]))
    if scheduler["policy"] != "SCHED_DEADLINE":
        values[4] = 0  # Linux 6.12 tells a time slice there
    assert tuple(values) == found


def test_no_limit_as_engines_in_go_write_it(engine: Engine) -> None:
    endless = {"type": "RLIMIT_CORE", "soft": 2**63, "hard": 2**64 - 1}
    engine.command("sh", "-c", "echo $(ulimit -Sc) $(ulimit -Hc); exec sleep 1000", rlimits=[endless])
    assert engine.begin()[1].split() == [b"unlimited"] * 2
    assert engine("exec", "c", "sh", "-c", "ulimit -Hc", check=True).stdout == "unlimited\n"


def test_when_it_gets_the_disk_and_which_machine_it_is_on(engine: Engine, tmp_path: Path) -> None:
    (engine.bundle / "rootfs/bin/uname").symlink_to("busybox")
    engine.config["linux"]["personality"] = {"domain": "LINUX32"}
    engine.command("sleep", "1000", ioPriority={"class": "IOPRIO_CLASS_BE", "priority": 6})
    engine.create()
    engine("start", "c", check=True)
    pid = engine.status()["pid"]
    assert disk_priority(pid) == (2, 6)
    assert Path(f"/proc/{pid}/personality").read_text().strip() == "00000008"
    process = {**engine.config["process"], "ioPriority": {"class": "IOPRIO_CLASS_IDLE"}}
    (tmp_path / "process").write_text(json.dumps(process))
    words = ["--process", str(tmp_path / "process"), "--detach", "--pid-file", str(tmp_path / "pid")]
    engine("exec", *words, "c", check=True, stdout=subprocess.DEVNULL, stderr=None)
    assert disk_priority(int((tmp_path / "pid").read_text())) == (3, 0)
    assert engine("exec", "c", "uname", "-m").stdout != f"{os.uname().machine}\n"


@pytest.mark.parametrize("mapped", [False, True])
def test_clocks_of_its_own(engine: Engine, tmp_path: Path, mapped: bool) -> None:
    engine.config["linux"]["namespaces"].append({"type": "time"})
    day = 86400
    offsets = {"boottime": {"secs": 1000 * day, "nanosecs": 5}, "monotonic": {"secs": 2000 * day}}
    engine.config["linux"]["timeOffsets"] = offsets
    if mapped:
        maps = [{"containerID": 0, "hostID": 100000, "size": 1000}]
        engine.config["linux"] |= {"uidMappings": maps, "gidMappings": maps}
        engine.config["linux"]["namespaces"].append({"type": "user"})
        for path in (engine.bundle / "rootfs", *(engine.bundle / "rootfs").rglob("*")):
            os.lchown(path, 100000, 100000)
    engine.write()
    engine.create()
    engine("start", "c", check=True)
    pid = engine.status()["pid"]
    lines = [line.split() for line in Path(f"/proc/{pid}/timens_offsets").read_text().splitlines()]
    assert lines == [["monotonic", str(2000 * day), "0"], ["boottime", str(1000 * day), "5"]]
    assert os.readlink(f"/proc/{pid}/ns/time") == os.readlink(f"/proc/{pid}/ns/time_for_children")
    assert os.readlink(f"/proc/{pid}/ns/time") != os.readlink("/proc/self/ns/time")
    up = engine("exec", "c", "cat", "/proc/uptime").stdout.split()[0]
    assert 0 <= float(up) - 1000 * day - float(Path("/proc/uptime").read_text().split()[0]) + 60 < 120
    assert engine.status()["status"] == "running", "its start time is the host's clock's"
    if mapped:
        return
    other = Engine(tmp_path / "other")
    other.config["linux"]["namespaces"].append({"type": "time", "path": f"/proc/{pid}/ns/time"})
    other.config["linux"]["cgroupsPath"] += "-other"
    other.command("readlink", "/proc/self/ns/time")
    done = other("run", "--bundle", str(other.bundle), "c")
    assert done.stdout.strip() == os.readlink(f"/proc/{pid}/ns/time"), done.stderr


def test_its_names(engine: Engine) -> None:
    before = os.uname().nodename, Path("/proc/sys/kernel/domainname").read_text()
    engine.config |= {"hostname": "inside", "domainname": "example.org"}
    names = [f"/proc/sys/kernel/{name}" for name in ("hostname", "domainname")]
    engine.command("cat", *names)
    assert engine("run", "--bundle", str(engine.bundle), "c", check=True).stdout.split() == ["inside", "example.org"]
    assert (os.uname().nodename, Path("/proc/sys/kernel/domainname").read_text()) == before


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one processor leaves no choice")
def test_on_which_processors_exec_runs(engine: Engine, tmp_path: Path) -> None:
    engine.create()
    engine("start", "c", check=True)
    first, *_, last = sorted(os.sched_getaffinity(0))
    for affinity, found in (({"initial": str(first)}, first), ({"initial": str(first), "final": str(last)}, last)):
        process = {**engine.config["process"], "args": ["cat", "/proc/self/status"], "execCPUAffinity": affinity}
        (tmp_path / "process").write_text(json.dumps(process))
        said = engine("exec", "--process", str(tmp_path / "process"), "c", check=True).stdout
        assert f"Cpus_allowed_list:\t{found}\n" in said
    process["execCPUAffinity"] = {"final": "60000"}
    (tmp_path / "process").write_text(json.dumps(process))
    done = engine("exec", "--process", str(tmp_path / "process"), "c")
    assert done.returncode == 255 and "execCPUAffinity" in done.stderr


@pytest.mark.skipif(cgroups.version() == 2, reason="with io.max, tests/kernel/test_cgroups.py")
def test_how_much_of_the_disk_it_has(engine: Engine) -> None:
    disk = os.stat(engine.bundle).st_dev
    [number] = {Path(path).read_text().strip() for path in Path("/sys/dev/block").glob("*/dev")} & {
        f"{os.major(disk)}:{os.minor(disk)}"
    } or [None]
    if number is None:
        pytest.skip("the tests lie on no disk")
    one = {"major": os.major(disk), "minor": os.minor(disk), "rate": 1 << 20}
    engine.config["linux"]["resources"] = {"blockIO": {"throttleReadBpsDevice": [one]}}
    engine.write()
    engine.create()
    [file] = [path for path in (Path(directory, "blkio.throttle.read_bps_device") for directory in engine.cgroups())
              if path.exists()]  # fmt: skip
    assert file.read_text() == f"{number} {1 << 20}\n"
    text = json.dumps({"blockIO": {"throttleReadBpsDevice": [{**one, "rate": 2 << 20}]}})
    engine("update", "-r", "-", "c", stdin=None, input=text, check=True)
    assert file.read_text() == f"{number} {2 << 20}\n"


RECEIVE, ANSWER = 0xC0502100, 0xC0182101  # SECCOMP_IOCTL_NOTIF_RECV, _SEND: linux/seccomp.h
ENOMEDIUM = 123


class Listener(threading.Thread):
    """Whoever is asked: it hears of one filter, and answers each call with one error."""

    def __init__(self, path: str) -> None:
        super().__init__(daemon=True)
        self.door = socket.socket(socket.AF_UNIX)
        self.door.bind(path)
        self.door.listen()
        self.said: dict[str, Any] = {}
        self.asked: list[int] = []

    def run(self) -> None:
        end, _ = self.door.accept()
        text, beside, _, _ = end.recvmsg(1 << 16, socket.CMSG_SPACE(4))
        self.said = json.loads(text)
        [descriptor] = array.array("i", beside[0][2])
        waiting = select.poll()
        waiting.register(descriptor, select.POLLIN)
        while any(event & select.POLLIN for _, event in waiting.poll(30_000)):  # POLLHUP: nobody is filtered any more
            asked = bytearray(80)  # struct seccomp_notif: id, pid, flags, and the call: number …
            fcntl.ioctl(descriptor, RECEIVE, asked)
            self.asked.append(struct.unpack_from("=i", asked, 16)[0])
            fcntl.ioctl(descriptor, ANSWER, asked[:8] + struct.pack("=qiI", 0, -ENOMEDIUM, 0))
        os.close(descriptor)
        end.close()
        self.door.close()


@pytest.mark.parametrize("private", [False, True])
def test_who_is_asked_about_a_system_call(engine: Engine, tmp_path: Path, private: bool) -> None:
    (engine.bundle / "rootfs/bin/mkdir").symlink_to("busybox")
    os.symlink(tmp_path, short := f"/tmp/minicontainer-test-{os.getpid()}")  # a socket's path is short (unix(7))
    rule = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY"}
    seccomp = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule], "listenerPath": f"{short}/door",
               "listenerMetadata": "what one likes"}  # fmt: skip
    engine.config["linux"]["seccomp"] = seccomp
    engine.command("sh", "-c", "mkdir /made; exec sleep 1000", noNewPrivileges=private)
    try:
        first = Listener(f"{short}/door")
        first.start()
        engine.create()
        pid = engine.status()["pid"]
        assert (first.said["pid"], first.said["fds"], first.said["metadata"]) == (pid, ["seccompFd"], "what one likes")
        assert (first.said["state"]["id"], first.said["state"]["status"]) == ("c", "creating")
        engine("start", "c", check=True)
        engine.until_true(lambda: bool(first.asked))
        assert not (engine.bundle / "rootfs/made").exists()
        os.unlink(f"{short}/door")
        second = Listener(f"{short}/door")
        second.start()
        done = engine("exec", "c", "mkdir", "/other")
        assert "No medium found" in done.stderr and second.said["state"]["status"] == "running"
        os.unlink(f"{short}/door")
        done = engine("exec", "c", "mkdir", "/other")
        assert done.returncode == 255 and "listenerPath" in done.stderr
        engine("delete", "--force", "c", check=True)
        for thread in (first, second):
            thread.join(30)
            assert not thread.is_alive()
        done = engine("create", "--bundle", str(engine.bundle), "c")
        assert done.returncode == 1 and "listenerPath" in done.stderr
        for change, text in (({"defaultAction": "SCMP_ACT_NOTIFY"}, "for all"), ({"listenerPath": ""}, "listenerPath")):
            engine.config["linux"]["seccomp"] = {**seccomp, **change}
            engine.write()
            done = engine("create", "--bundle", str(engine.bundle), "c")
            assert done.returncode == 1 and text in done.stderr
    finally:
        os.unlink(short)


@pytest.mark.parametrize("own", [True, False])
def test_a_session_keyring_of_its_own_or_not(engine: Engine, own: bool) -> None:
    name = f"keys-{own}-{os.getpid()}"
    words = ["--bundle", str(engine.bundle), *([] if own else ["--no-new-keyring"]), name]
    engine("create", *words, check=True, stdout=subprocess.DEVNULL, stderr=None)
    listed = [line.split()[-2] for line in Path("/proc/keys").read_text().splitlines()]
    engine("delete", "--force", name, check=True)
    assert (f"_ses.{name}:" in listed) == own


def test_mount_options_of_one_mount_and_of_all_below_it(engine: Engine, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "below").mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", tree / "below"], check=True)
    try:
        engine.config["mounts"] += [
            spec.mount("/one", "bind", str(tree), ["rbind", "ro", "nodiratime"]),
            spec.mount("/all", "bind", str(tree), ["rbind", "rro", "rnosuid", "rnodev", "rnoexec", "rnoatime"]),
            spec.mount(
                "/files", "tmpfs", "tmpfs", ["nosymfollow", "nodiratime", "sync", "size=1m", "rnoexec", "rexec"]
            ),
        ]
        engine.write()
        engine.create()
        lines = Path(f"/proc/{engine.status()['pid']}/mountinfo").read_text().splitlines()
        found = {line.split()[4]: set(line.split()[5].split(",")) for line in lines}
        assert {"ro", "nodiratime"} <= found["/one"] and "rw" in found["/one/below"]
        for path in ("/all", "/all/below"):
            assert {"ro", "nosuid", "nodev", "noexec", "noatime"} <= found[path] and "relatime" not in found[path]
        assert {"rw", "nosymfollow", "nodiratime"} <= found["/files"] and "noexec" not in found["/files"]
        assert "sync" in next(line for line in lines if line.split()[4] == "/files").split(" - ")[1]
    finally:
        engine("delete", "--force", "c")
        subprocess.run(["umount", tree / "below"], check=True)


@pytest.mark.needs("idmapped-tmpfs")
@pytest.mark.parametrize("mapped", [False, True])
def test_a_mount_in_which_ids_are_translated(engine: Engine, tmp_path: Path, mapped: bool) -> None:
    """On ext4 or what the tests lie on, and on a tmpfs below it, for which ridmap asks, too; in a user namespace the
    mount's own maps lead to the ids that the container's know."""
    tree = tmp_path / "tree"
    (tree / "below").mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", tree / "below"], check=True)
    try:
        for path in (tree, tree / "below", tree / "file", tree / "below/file"):
            path.touch()
            os.chown(path, 1000, 1001)
        first = 5000
        if mapped:
            first = 105000
            maps = [{"containerID": 0, "hostID": 100000, "size": 10000}]
            engine.config["linux"] |= {"uidMappings": maps, "gidMappings": maps}
            engine.config["linux"]["namespaces"].append({"type": "user"})
            for path in (engine.bundle / "rootfs", *(engine.bundle / "rootfs").rglob("*")):
                os.lchown(path, 100000, 100000)
        engine.config["mounts"] += [
            idmapped("/one", str(tree), ["rbind", "idmap"], first),
            idmapped("/all", str(tree), ["rbind", "ridmap"], first),
            idmapped("/read", str(tree), ["rbind", "ro"], first),
            idmapped("/file", str(tree / "file"), ["bind", "idmap", "rw"], first),
        ]
        shown = ("/one/file", "/one/below/file", "/all/file", "/all/below/file", "/read/file", "/file")
        made = "umask 022; touch /all/new /all/below/new && mkdir /one/made && ! touch /read/new"
        script = f"stat -c '%n %u:%g' {' '.join(shown)} && {made} 2> /dev/null"
        user = {"uid": 5000, "gid": 5001}
        (engine.bundle / "rootfs/bin/stat").symlink_to("busybox")
        (engine.bundle / "rootfs/bin/mkdir").symlink_to("busybox")
        engine.command("sh", "-c", script, user=user)
        done = engine("run", "--bundle", str(engine.bundle), "c")
        assert done.returncode == 0, done.stderr
        nobody = "65534:65534" if mapped else "1000:1001"
        owner = {"/one/below/file": nobody}
        assert done.stdout.splitlines() == [f"{name} {owner.get(name, '5000:5001')}" for name in shown]
        for path in (tree / "new", tree / "made", tree / "below/new"):
            info = path.stat()
            assert (info.st_uid, info.st_gid) == (1000, 1001), path
    finally:
        engine("delete", "--force", "c")
        subprocess.run(["umount", tree / "below"], check=True)


@pytest.mark.needs("idmapped-overlay")
def test_a_mount_that_translates_ids_as_the_container_does(engine: Engine, tmp_path: Path) -> None:
    """`idmap` without maps of its own: what is root's on disk is that of the container's root."""
    tree, root = tmp_path / "tree", engine.bundle / "rootfs"
    tree.mkdir()
    maps = [{"containerID": 0, "hostID": 100000, "size": 1000}]
    engine.config["linux"] |= {"uidMappings": maps, "gidMappings": maps}
    engine.config["linux"]["namespaces"].append({"type": "user"})
    for path in (root, *root.rglob("*")):
        os.lchown(path, 100000, 100000)
    engine.config["mounts"].append(spec.mount("/tree", "bind", str(tree), ["bind", "idmap"]))
    engine.command("sh", "-c", "touch /tree/new; exec sleep 1000")
    engine.create("--pid-file", str(tmp_path / "pid"))
    pid = engine.status()["pid"]
    assert opened(pid).get("3") != str(engine.state / "c/fifo"), "the channel comes to lie there before execve"
    engine("start", "c", check=True)
    assert opened(pid) == {}
    engine.until_true((tree / "new").exists)
    assert (tree / "new").stat().st_uid == 0
    assert os.stat(f"/proc/{pid}/root/tree/new").st_uid == 100000
    [line] = [line for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines() if line.split()[4] == "/tree"]
    assert "idmapped" in line.split()[5].split(",")


def with_files(words: list[str], *files: Path) -> list[str]:
    """The same command line, with these open from descriptor 3 on."""
    opened = " ".join(f"{number}>{path}" for number, path in enumerate(files, 3))
    return ["sh", "-c", f'exec "$@" {opened}', "sh", *words]


def opened(pid: int) -> dict[str, str]:
    """What a process has open beyond the standard ones."""
    entries = {path.name: os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir()}
    return {number: path for number, path in entries.items() if int(number) > 2}


def test_descriptors_of_the_callers_that_its_command_keeps_and_hooks_do_not(engine: Engine, tmp_path: Path) -> None:
    three, four, listed = tmp_path / "three", tmp_path / "four", tmp_path / "listed"
    look = "for x in /proc/$$/fd/*; do readlink $x; done >>"
    listing = {"path": "/bin/sh", "args": ["sh", "-c", f"{look} {listed}; true"]}
    inside = {"path": "/bin/sh", "args": ["sh", "-c", f"{look} /listed; true"], "env": ["PATH=/bin"]}
    engine.config["hooks"] = {"createRuntime": [listing], "createContainer": [listing], "startContainer": [inside]}
    engine.command("sh", "-c", "echo hello >&4; exec sleep 1000")
    quiet: dict[str, Any] = {"cwd": CHECKOUT, "timeout": 60, "stdout": subprocess.DEVNULL, "text": True}
    create = engine.words("create", "--bundle", str(engine.bundle), "--preserve-fds", "2", "c")
    refused = subprocess.run(with_files(create, three), **quiet, stderr=subprocess.PIPE)
    assert refused.returncode == 1 and "descriptor 4 is not open" in refused.stderr
    subprocess.run(with_files(create, three, four, tmp_path / "five"), **quiet, check=True)
    engine("start", "c", check=True)
    while not four.read_text():
        time.sleep(0.01)
    assert opened(engine.status()["pid"]) == {"3": str(three), "4": str(four)}
    seen = listed.read_text() + (engine.bundle / "rootfs/listed").read_text()
    assert str(three) not in seen and str(four) not in seen
    process = {**engine.config["process"], "args": ["sleep", "1000"]}
    (tmp_path / "process").write_text(json.dumps(process))
    words = ["--process", str(tmp_path / "process"), "--detach", "--pid-file", str(tmp_path / "pid")]
    execute = engine.words("exec", *words, "--preserve-fds", "1", "c")
    subprocess.run(with_files(execute, four, three), **quiet, check=True)
    assert opened(int((tmp_path / "pid").read_text())) == {"3": str(four)}


def test_a_pipe_that_the_command_closes_is_closed(engine: Engine, tmp_path: Path) -> None:
    engine.command("sh", "-c", "exec 3>&-; exec sleep 1000")
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    words = engine.words("run", "--bundle", str(engine.bundle), "--preserve-fds", "1", "c")
    running = subprocess.Popen(with_files(words, tmp_path / "pipe"), cwd=CHECKOUT)
    try:
        closed = select.poll()
        closed.register(reader, select.POLLHUP)
        assert closed.poll(30_000), "somebody holds its other end"
        assert running.poll() is None
    finally:
        os.close(reader)
        running.kill()
        running.wait()


def test_features_are_what_is_taken_and_nothing_else(engine: Engine) -> None:
    told = json.loads(engine("features", check=True).stdout)
    assert set(told["linux"]["namespaces"]) == {"pid", "mount", "uts", "ipc", "network", "cgroup", "user", "time"}
    engine.config["hooks"] = {kind: [{"path": "/bin/true"}] for kind in told["hooks"] if kind != "startContainer"}
    engine.config["mounts"].append(
        {"destination": "/mnt", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev", "tmpcopyup"]}
    )
    engine.config["ociVersion"] = told["ociVersionMax"]
    rule = {"names": ["swapon"], "action": "SCMP_ACT_ERRNO"}
    engine.config["linux"]["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW", "architectures": told["linux"]["seccomp"]["archs"], "syscalls": [rule],
    }  # fmt: skip
    engine.write()
    engine.create()
    assert {"nosuid", "nodev", "tmpcopyup"} <= set(told["mountOptions"])
    lines = Path(f"/proc/{engine.status()['pid']}/mountinfo").read_text().splitlines()
    assert [line.split()[5] for line in lines if line.split()[4] == "/mnt"] == ["rw,nosuid,nodev,relatime"]


def test_help_names_each_command(engine: Engine) -> None:
    done = engine("--help")
    assert done.returncode == 0 and done.stderr == ""
    [commands] = [line for line in done.stdout.splitlines() if line.startswith("commands: ")]
    for name in commands.removeprefix("commands: ").split(", "):
        assert f"oci {name}" in engine(name, "--help", check=True).stdout


@pytest.mark.skipif(host.has_selinux(), reason="a label is refused where SELinux reads it")
def test_what_nobody_reads_is_said(engine: Engine, tmp_path: Path) -> None:
    engine.config["linux"]["mountLabel"] = "system_u:object_r:container_file_t:s0"
    engine.config |= {"unknown": 1, "hooks": {"before": [{"path": "/bin/false"}]}}
    engine.write()
    with open(tmp_path / "said", "w") as said:
        engine.create(stderr=said)
    for name in ("linux.mountLabel", "unknown", "hooks.before"):
        assert f"warning: {name} has no effect" in (tmp_path / "said").read_text()


def test_a_cgroup_that_another_has_taken_over_goes_with_the_last(engine: Engine) -> None:
    try:
        engine.create()
        engine("kill", "c", "KILL", check=True)
        engine.until("stopped")
        quiet = {"stdout": subprocess.DEVNULL, "stderr": None}
        engine("create", "--bundle", str(engine.bundle), "other", check=True, **quiet)
        engine("start", "other", check=True)
        pid = engine.status("other")["pid"]
        engine("kill", "--all", "c", "KILL", check=True)
        engine("delete", "c", check=True)
        assert engine.status("other")["pid"] == pid and cgroups.processes(engine.config["linux"]["cgroupsPath"])
    finally:
        engine("delete", "--force", "other", check=True)


def test_a_cgroup_that_others_are_in_is_not_taken(engine: Engine) -> None:
    engine.create()
    other = engine("create", "--bundle", str(engine.bundle), "other")
    assert other.returncode == 1 and "processes are in it already" in other.stderr
    again = engine("create", "--bundle", str(engine.bundle), "c")
    assert again.returncode == 1 and "exists already" in again.stderr
    assert engine.status()["status"] == "created"


@pytest.mark.parametrize(("command", "said"), [
    ("nosuch", "no such file or directory"), ("/nosuch", "no such file or directory"), ("/bin", "permission denied"),
])  # fmt: skip
def test_a_command_that_cannot_be_is_said_at_once_in_the_engines_words(engine: Engine, command: str, said: str) -> None:
    engine.command(command)
    assert engine("create", "--bundle", str(engine.bundle), "c").returncode == 1
    entry = json.loads(engine.log.read_text())
    assert entry["level"] == "error" and said in entry["msg"]
    assert engine.left() == []


def test_exec_goes_inside_and_one_that_is_left_alone_outlives_us(engine: Engine, tmp_path: Path) -> None:
    engine.create()
    assert "it is created" in engine("exec", "c", "true").stderr
    engine("start", "c", check=True)
    pid = engine.status()["pid"]
    assert engine("exec", "c", "readlink", "/proc/self/ns/net").stdout.strip() == os.readlink(f"/proc/{pid}/ns/net")
    assert engine("exec", "c", "sh", "-c", "exit 3").returncode == 3
    process = {**engine.config["process"], "args": ["sleep", "1000"], "user": {"uid": 7, "gid": 8}}
    (tmp_path / "process").write_text(json.dumps(process))
    words = ["--process", str(tmp_path / "process"), "--detach", "--pid-file", str(tmp_path / "pid")]
    engine("exec", *words, "c", check=True, stdout=subprocess.DEVNULL, stderr=None)
    other = int((tmp_path / "pid").read_text())
    assert os.stat(f"/proc/{other}").st_uid == 7
    assert os.readlink(f"/proc/{other}/ns/pid") == os.readlink(f"/proc/{pid}/ns/pid")
    assert set(json.loads(engine("ps", "--format", "json", "c").stdout)) == {pid, other}
    assert engine("exec", "c", "nosuch").returncode == 255


WITHOUT_CGROUPS = """
import sys
from minicontainer import cli
from minicontainer.kernel import cgroups
cgroups.obstacle = lambda: "this is a test"
sys.exit(cli.main(sys.argv[1:]))
"""


def without_cgroups(engine: Engine, *words: str) -> int:
    """The exit code of the runtime where nobody may make a cgroup."""
    quiet: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
    command = [sys.executable, "-c", WITHOUT_CGROUPS, *engine.words(*words)[3:]]
    return subprocess.run(command, cwd=CHECKOUT, **quiet).returncode


def inside(root: Path) -> list[int]:
    """Whose root this is."""
    found, meant = [], os.stat(root)
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if os.path.samestat(os.stat(f"/proc/{name}/root"), meant):
                found.append(int(name))
    return found


@pytest.mark.parametrize("wrong", ["--console-socket", "--pid-file"])
def test_who_is_not_handed_over_is_left_nowhere(engine: Engine, tmp_path: Path, wrong: str) -> None:
    """Its process has let go of its parent by then, and where there is no cgroup nobody else would find it."""
    engine.command("sleep", "1000", terminal=wrong == "--console-socket")
    code = without_cgroups(engine, "create", "--bundle", str(engine.bundle), wrong, str(tmp_path / "no/such"), "c")
    left = inside(engine.bundle / "rootfs")
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert code == 1 and left == [] and engine.left() == []


def test_all_of_one_without_a_cgroup_is_its_first_process(engine: Engine) -> None:
    """Slurm's srun calls it so."""
    assert without_cgroups(engine, "create", "--bundle", str(engine.bundle), "c") == 0
    assert without_cgroups(engine, "kill", "--all", "c", "KILL") == 0
    engine.until("stopped")
    assert engine("kill", "--all", "c", "KILL").returncode == 0, "there is nobody left"


@pytest.mark.parametrize("words", [["c", "KILL"], ["--all", "c", "9"]])
def test_one_that_is_held_still_can_be_killed(engine: Engine, words: list[str]) -> None:
    engine.create()
    engine("start", "c", check=True)
    engine("pause", "c", check=True)
    engine("kill", *words, check=True)
    engine.until("stopped")


def test_exec_that_fails_leaves_no_process(engine: Engine, tmp_path: Path) -> None:
    engine.create()
    engine("start", "c", check=True)
    pid = engine.status()["pid"]
    process = {**engine.config["process"], "args": ["sleep", "1000"], "terminal": True}
    (tmp_path / "process").write_text(json.dumps(process))
    for words in (
        ("--pid-file", str(tmp_path / "no/such"), "c", "sleep", "1000"),
        ("--process", str(tmp_path / "process"), "--console-socket", str(tmp_path / "no/such"), "c"),
    ):
        done = engine("exec", "--detach", *words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        assert done.returncode == 255 and "no such file" in engine.log.read_text().splitlines()[-1]
        assert inside(engine.bundle / "rootfs") == [pid]


@pytest.mark.vm
@pytest.mark.needs("cgroup2")
def test_exec_goes_where_the_first_process_has_moved_to_make_room(engine: Engine) -> None:
    """As systemd does in its own cgroup, which may hold no process then: they are in the leaves."""
    [mount] = [entry for entry in engine.config["mounts"] if entry["type"] == "cgroup"]
    mount["options"] = ["rw", "nosuid", "noexec", "nodev"]
    (engine.bundle / "rootfs/bin/mkdir").symlink_to("busybox")
    top = "/sys/fs/cgroup"
    moved = f"mkdir {top}/first && echo 0 >{top}/first/cgroup.procs && echo +memory >{top}/cgroup.subtree_control"
    engine.command("sh", "-c", f"{moved} && echo ready; sleep 1000")
    pid, said = engine.begin()
    assert said == b"ready\n"
    path = engine.config["linux"]["cgroupsPath"]
    assert Path(f"/proc/{pid}/cgroup").read_text() == f"0::{path}/first\n"
    assert engine("exec", "c", "cat", "/proc/self/cgroup", check=True).stdout == "0::/first\n"


def test_execs_flags_say_what_process_would(engine: Engine) -> None:
    """CVE-2022-29162 among them: a capability that is added is not inheritable."""
    (engine.bundle / "rootfs/dir").mkdir()
    (engine.bundle / "rootfs/bin/env").symlink_to("busybox")
    (engine.bundle / "rootfs/bin/pwd").symlink_to("busybox")
    sets = {kind: ["CAP_KILL"] for kind in ("bounding", "effective", "permitted")}
    engine.command("sleep", "1000", capabilities=sets)
    engine.create()
    engine("start", "c", check=True)
    flags = ["--cwd", "/dir", "--env", "A=1", "-e", "B=2", "--user", "7:8", "-g", "9", "--no-new-privs"]
    done = engine("exec", *flags, "c", "sh", "-c", "pwd; env; cat /proc/self/status", check=True).stdout
    lines = done.splitlines()
    assert lines[0] == "/dir" and {"A=1", "B=2"} <= set(lines)
    found = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    assert (found["Uid"].split()[0], found["Gid"].split()[0], found["Groups"].split()) == ("7", "8", ["9"])
    assert found["NoNewPrivs"] == "1" and found["CapBnd"] == f"{1 << 5:016x}"
    status = engine("exec", "--cap", "CAP_CHOWN", "c", "cat", "/proc/self/status", check=True).stdout
    found = dict(line.split(":\t", 1) for line in status.splitlines())
    assert [int(found[name], 16) for name in ("CapEff", "CapPrm", "CapBnd", "CapInh", "CapAmb")] == [33, 33, 33, 0, 0]
    assert found["NoNewPrivs"] == "0"
    for words, said in {
        ("--user", "root"): "UID or UID:GID", ("--user", "7:"): "UID or UID:GID", ("-g", "wheel"): "numbers",
        ("--user", str(2**32 - 1)): "no number", ("--process-label", "x"): "selinuxLabel", ("--cwd", "dir"): "absolute",
        ("--process", "p", "--cwd", "/"): "one of them says", ("--cgroup", "x"): "--cgroup",
    }.items():  # fmt: skip
        done = engine("exec", *words, "c", "sh", "-c", ":")
        assert done.returncode != 0 and said in done.stderr, words


def test_ps_by_pids_or_as_a_table(engine: Engine) -> None:
    engine.create()
    engine("start", "c", check=True)
    pid = engine.status()["pid"]
    assert json.loads(engine("ps", "-f", "json", "c").stdout) == [pid]
    first, second = engine("ps", "c").stdout.splitlines()
    assert first.split()[:3] == ["UID", "PID", "PPID"] and second.split()[1] == str(pid)
    assert engine("ps", "c", "-o", "pid,comm").stdout.split() == ["PID", "COMMAND", str(pid), "sleep"]
    assert "table or json" in engine("ps", "-f", "yaml", "c").stderr
    assert engine("list", "-q").stdout == "c\n"
    [listed] = json.loads(engine("list", "-f", "json").stdout)
    assert (listed["id"], listed["pid"], listed["status"]) == ("c", pid, "running")


def test_limits_change_by_flags_alone(engine: Engine) -> None:
    engine.create()
    engine("update", "--pids-limit", "12", "--memory", "64m", "--cpu-share", "512", "c", check=True)
    names = ("pids.max", "memory.limit_in_bytes", "memory.max", "cpu.shares", "cpu.weight")
    paths = [Path(directory, name) for directory in engine.cgroups() for name in names]
    found = {path.name: path.read_text().strip() for path in paths if path.exists()}
    assert found.pop("pids.max") == "12"
    assert found in (
        {"memory.limit_in_bytes": str(64 << 20), "cpu.shares": "512"},
        {"memory.max": str(64 << 20), "cpu.weight": "59"},
    )
    for words, said in {
        (): "--resources", ("--memory", "lots"): "a size like 64m", ("--l3-cache-schema", "x"): "--l3-cache-schema",
        ("--cpu-rt-runtime", "1"): "cpu.realtimeRuntime", ("-r", "/dev/null"): "is no JSON",
    }.items():  # fmt: skip
        done = engine("update", *words, "c")
        assert done.returncode != 0 and said in done.stderr, (words, done.stderr)


MISSHAPEN = ["", "{", "[1]", "5", '{"args": 5}', '{"user": 5}', '{"args": ["true"], "env": [5]}',
             '{"args": ["true"], "capabilities": [1]}', '{"args": ["true"], "rlimits": [1]}']  # fmt: skip


def test_a_process_and_limits_that_have_not_their_form(engine: Engine, tmp_path: Path) -> None:
    """A sentence, in the caller's log, too; as of a process that cannot be, and of limits that cannot be set."""
    engine.create()
    engine("start", "c", check=True)
    for text in MISSHAPEN:
        (tmp_path / "process").write_text(text)
        engine.log.unlink(missing_ok=True)
        done = engine("exec", "--process", str(tmp_path / "process"), "c")
        assert done.returncode == 255 and "Traceback" not in done.stderr, (text, done.stderr)
        assert json.loads(engine.log.read_text())["level"] == "error", text
    for text in ("[1]", "5", '{"pids": 5}', '{"pids": {"limit": "x"}}', '{"memory": {"limit": [1]}}', '{"cpu": [1]}'):
        done = engine("update", "--resources", "-", "c", stdin=None, input=text)
        assert done.returncode == 1 and "Traceback" not in done.stderr, (text, done.stderr)
    engine("update", "--resources", "-", "c", stdin=None, input="{}", check=True)


def test_other_limits_that_cannot_be_had_are_refused_by_name(engine: Engine) -> None:
    """And are not said to be there. What is used already is looked at only where that was asked for."""
    engine.create()
    before = (engine.state / "c/config.json").read_bytes()
    little = {"limit": 1 << 12, "checkBeforeUpdate": True}
    for resources, said in (
        ({"misc": {"x": 10}}, "resources.misc"),
        ({"memory": {"limit": 1 << 26, "odd": 1}}, "memory.odd"),
        ({"memory": 5}, "not the form"),
        ({"unified": {"no.such": "1"}}, "unified" if cgroups.version() == 1 else "no.such"),
        ({"memory": little}, "4096 is less than the"),
    ):
        done = engine("update", "-r", "-", "c", stdin=None, input=json.dumps(resources))
        assert done.returncode == 1 and said in done.stderr, done.stderr
        assert (engine.state / "c/config.json").read_bytes() == before
    enough = {"limit": 1 << 26, "checkBeforeUpdate": True}
    engine("update", "-r", "-", "c", stdin=None, input=json.dumps({"memory": enough}), check=True)
    assert cgroups.stats(engine.config["linux"]["cgroupsPath"])["memory_limit"] == 1 << 26


@pytest.mark.vm
@pytest.mark.needs("cgroup2")
def test_limits_by_the_names_of_files_change(engine: Engine) -> None:
    engine.create()
    text = json.dumps({"unified": {"memory.high": str(1 << 26), "pids.max": "17"}})
    engine("update", "-r", "-", "c", stdin=None, input=text, check=True)
    [directory] = engine.cgroups()
    assert [Path(directory, name).read_text() for name in ("memory.high", "pids.max")] == ["67108864\n", "17\n"]


def test_limits_change_and_it_is_held_still(engine: Engine) -> None:
    engine.config["linux"]["resources"] = {"pids": {"limit": 20}, "cpu": {"shares": 0}}
    engine.create()
    engine("start", "c", check=True)
    engine("update", "--resources", "-", "c", stdin=None, input='{"pids": {"limit": 10}}', check=True)
    [limit] = [path for path in (Path(directory, "pids.max") for directory in engine.cgroups()) if path.exists()]
    assert limit.read_text() == "10\n"
    engine("pause", "c", check=True)
    assert engine.status()["status"] == "paused" and cgroups.is_frozen(engine.config["linux"]["cgroupsPath"])
    engine("resume", "c", check=True)
    assert engine.status()["status"] == "running"
    engine("kill", "--all", "c", "KILL", check=True)
    engine.until("stopped")


@pytest.mark.parametrize(
    ("asked", "found"), [("shared", "shared:"), ("slave", "master:"), ("unbindable", "unbindable"), ("private", "-")]
)
def test_the_roots_propagation(engine: Engine, tmp_path: Path, asked: str, found: str) -> None:
    engine.config["linux"]["rootfsPropagation"] = asked
    engine.write()
    words = engine.words("create", "--bundle", str(engine.bundle), "--pid-file", str(tmp_path / "pid"), "c")
    host = ["unshare", "--mount", "--propagation", "shared"]  # one whose mounts are shared, as systemd makes them
    script = f'"$@" > /dev/null && cat /proc/$(cat {tmp_path}/pid)/mountinfo'  # a master that has gone has no slaves
    command = [*host, "sh", "-c", script, "sh", *words]
    done = subprocess.run(command, cwd=CHECKOUT, check=True, timeout=60, stdout=subprocess.PIPE, text=True)
    lines = done.stdout.splitlines()
    [root] = [line.split()[6] for line in lines if line.split()[4] == "/"]
    assert root.startswith(found)


def test_what_a_bundle_binds_by_a_relative_path_lies_in_it(engine: Engine) -> None:
    """Wherever its caller stands, and whatever words an engine leaves among the options: podman its `nocopy`."""
    (engine.bundle / "files").mkdir()
    (engine.bundle / "files/one").write_text("the bundle's\n")
    engine.config["mounts"].append(spec.mount("/x", "bind", "files", ["bind"]))
    engine.config["mounts"].append(spec.mount("/one", "bind", "./files/one", ["bind", "ro", "nocopy", "x-mine=1"]))
    engine.command("cat", "/x/one", "/one")
    words = ["--bundle", os.path.relpath(engine.bundle, CHECKOUT)]
    assert engine("run", *words, "c").stdout == "the bundle's\n" * 2


def test_what_is_no_bind_mount_has_its_propagation_and_its_options_for_all_below(engine: Engine) -> None:
    config = engine.config
    config["mounts"] = [entry for entry in config["mounts"] if entry["destination"] != "/sys/fs/cgroup"] + [
        spec.mount("/sys/fs/cgroup", "cgroup", "cgroup", ["nosuid", "rro", "rnoexec", "shared"]),
        spec.mount("/a", "tmpfs", "tmpfs", ["shared"]),
        spec.mount("/b", "tmpfs", "tmpfs", ["tmpcopyup", "runbindable"]),
        spec.mount("/c", "tmpfs", "tmpfs", ["rprivate"]),
    ]
    engine.write()
    engine.create()
    lines = Path(f"/proc/{engine.status()['pid']}/mountinfo").read_text().splitlines()
    found = {line.split()[4]: line.split() for line in lines}
    tags = [found[path][6].partition(":")[0] for path in ("/sys/fs/cgroup", "/a", "/b", "/c")]
    assert tags == ["shared", "shared", "unbindable", "-"]
    trees = [path for path in found if f"{path}/".startswith("/sys/fs/cgroup/")]
    assert trees and all({"ro", "noexec"} <= set(found[path][5].split(",")) for path in trees)


TREE = """
set -e
folder=$1; shift
mount -t tmpfs tmpfs "$folder"
mkdir "$folder/deep"
mount -t tmpfs deep "$folder/deep"
"""

PEERS = f"""{TREE}
mkdir "$folder/late" "$folder/inner" "$folder/deep/late" "$folder/deep/inner"
mount --make-rshared "$folder"
"$@" > /dev/null
pid=$(cat "$folder/../pid")
for below in '' deep/; do
    mount -t tmpfs late "$folder/${{below}}late"
    nsenter --target "$pid" --mount busybox mount -t tmpfs inner "/x/${{below}}inner"
done
cat "/proc/$pid/mountinfo"
cat /proc/self/mountinfo
"""


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize(
    ("words", "heard", "told"),
    [
        (["rbind"], False, False),
        (["rbind", "rprivate"], False, False),
        (["rbind", "rslave", "ro"], True, False),
        (["rbind", "slave"], True, False),
        (["rbind", "rshared"], True, True),
        (["rbind", "shared"], True, True),
    ],
)
def test_who_hears_of_what_is_mounted_below_a_bind_mount(
    engine: Engine, tmp_path: Path, words: list[str], heard: bool, told: bool, mapped: bool
) -> None:
    """In a mount namespace whose mounts are nobody else's: the host's below its source, and the container's."""
    source = tmp_path / "x"
    source.mkdir()
    if mapped:
        told = False
        own_users(engine)
    engine.config["mounts"].append(spec.mount("/x", "bind", str(source), words))
    engine.write()
    create = engine.words("create", "--bundle", str(engine.bundle), "--pid-file", str(tmp_path / "pid"), "c")
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", PEERS, "sh", str(source), *create]
    done = subprocess.run(command, cwd=CHECKOUT, check=True, timeout=60, stdout=subprocess.PIPE, text=True)
    points = [line.split()[4] for line in done.stdout.splitlines()]
    for below in ("", "deep/"):
        assert (f"/x/{below}late" in points) == heard
        assert (f"{source}/{below}inner" in points) == told
        assert f"/x/{below}inner" in points and f"{source}/{below}late" in points, "each has its own"
    [options] = [line.split()[5] for line in done.stdout.splitlines() if line.split()[4] == "/x"]
    assert ("ro" in options.split(",")) == ("ro" in words)


LENT = f"""{TREE}
mount --make-rshared "$folder"
"$@" create --bundle "$folder/../bundle" c > /dev/null
grep -c -e " $folder/../bundle/rootfs/x/deep " /proc/self/mountinfo
"$@" delete --force c
cat /proc/self/mountinfo
"""


def test_what_a_shared_bind_mount_shows_stays_when_it_is_deleted(engine: Engine, tmp_path: Path) -> None:
    """Also where its mounts are among ours, and are unmounted."""
    source = tmp_path / "x"
    source.mkdir()
    engine.config["mounts"] = [spec.mount("/x", "bind", str(source), ["rbind", "rshared"])]
    engine.config["linux"] |= {"namespaces": [], "maskedPaths": [], "readonlyPaths": []}
    engine.write()
    script = LENT.replace("$folder/../bundle", str(engine.bundle))
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", str(source)]
    done = subprocess.run(
        [*command, *engine.words()], cwd=CHECKOUT, check=True, timeout=60, stdout=subprocess.PIPE, text=True
    )
    was, *lines = done.stdout.splitlines()
    points = [line.split()[4] for line in lines]
    assert was == "1" and f"{source}/deep" in points
    assert [point for point in points if point.startswith(str(engine.bundle))] == []


def own_users(engine: Engine) -> None:
    """Give it a user namespace of its own, in which its root is 100000."""
    maps = [{"containerID": 0, "hostID": 100000, "size": 1000}]
    engine.config["linux"] |= {"uidMappings": maps, "gidMappings": maps}
    engine.config["linux"]["namespaces"].append({"type": "user"})
    for path in (engine.bundle / "rootfs", *(engine.bundle / "rootfs").rglob("*")):
        os.lchown(path, 100000, 100000)


def test_a_user_namespace_whose_root_is_nobody_outside(engine: Engine, tmp_path: Path) -> None:
    own_users(engine)
    engine.command("sh", "-c", "touch /here; echo hello > /dev/stdout; exec sleep 1000", oomScoreAdj=BETTER)
    pid, said = engine.begin()
    assert said == b"hello\n"
    assert Path(f"/proc/{pid}/uid_map").read_text().split() == ["0", "100000", "1000"]
    assert Path(f"/proc/{pid}/gid_map").read_text().split() == ["0", "100000", "1000"]
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    assert (status["Uid"], status["Gid"]) == ("\t".join(["100000"] * 4), "\t".join(["100000"] * 4))
    assert Path(f"/proc/{pid}/oom_score_adj").read_text() == f"{BETTER}\n"
    assert (engine.bundle / "rootfs/here").stat().st_uid == 100000
    kinds = ("user", "pid", "mnt", "uts", "ipc", "net")
    assert [
        kind for kind in kinds if os.readlink(f"/proc/self/ns/{kind}") == os.readlink(f"/proc/{pid}/ns/{kind}")
    ] == []
    read_back = f"{READ_BACK}cat /proc/self/oom_score_adj"
    process = {**engine.config["process"], "user": {"uid": 7, "gid": 8}, "args": ["sh", "-c", read_back]}
    (tmp_path / "process").write_text(json.dumps(process))
    done = engine("exec", "--process", str(tmp_path / "process"), "c")
    lines = ["0 100000 1000", "Uid: 7 7 7 7", str(BETTER)]
    assert (done.stdout.splitlines(), done.returncode) == (lines, 0), done.stderr


def test_root_of_a_user_namespace_has_all_capabilities(engine: Engine) -> None:
    """In there, also those that were taken from us; its set-up keeps what is asked for."""
    own_users(engine)
    every = list(capabilities.NAMES[: int(Path("/proc/sys/kernel/cap_last_cap").read_text()) + 1])
    engine.command("cat", "/proc/self/status", capabilities={"bounding": every, "effective": every, "permitted": every})
    words = [sys.executable, "-c", DROPPED, *engine.words("run", "--bundle", str(engine.bundle), "c")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, cwd=CHECKOUT, stdin=subprocess.DEVNULL)
    status = dict(line.split(":\t", 1) for line in done.stdout.splitlines())
    assert int(status["CapEff"], 16) == (1 << len(every)) - 1, done.stderr
    assert done.stderr == ""


DROPPED = "import os, sys, prctl; prctl.capbset.drop(prctl.CAP_SYS_BOOT); os.execv(sys.argv[1], sys.argv[1:])"


READ_BACK = """exec > /dev/stdout
set -- $(cat /proc/self/uid_map)
echo $*
while read line; do set -- $line; [ $1 != Uid: ] || echo $*; done < /proc/self/status
"""


def test_an_output_whose_owner_has_no_number_is_left_alone() -> None:
    """In a user namespace of somebody else's: his pipe is nobody's there, and cannot be given away (as with runc)."""
    reader, writer = os.pipe()  # root's
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.dup2(writer, 1)
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
            syscalls.prctl(4, 1)  # PR_SET_DUMPABLE: its /proc files are its own again
            syscalls.unshare(syscalls.CLONE_NEWUSER)
            for name, text in (("setgroups", "deny"), ("uid_map", "0 65534 1"), ("gid_map", "0 65534 1")):
                Path(f"/proc/self/{name}").write_text(text)
            init.become(0, 0, [])
            code = 0
        finally:
            os._exit(code)
    for end in (reader, writer):
        os.close(end)
    assert os.waitpid(child, 0)[1] == 0


def test_a_filter_without_rules(engine: Engine) -> None:
    engine.config["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW"}
    engine.command("cat", "/proc/self/status")
    assert "Seccomp:\t2" in engine("run", "--bundle", str(engine.bundle), "c", check=True).stdout


@pytest.mark.parametrize("user", [{"uid": 0, "gid": 0}, {"uid": 7, "gid": 8}])
def test_a_filter_that_knows_no_young_calls_lets_its_container_start(engine: Engine, user: dict[str, int]) -> None:
    refused = ["openat2", "close_range", "faccessat2", "statx", "getcwd", "memfd_create"]
    rule = {"names": refused, "action": "SCMP_ACT_ERRNO"}
    engine.config["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}
    (engine.bundle / "rootfs/work").mkdir()
    engine.command("sh", "-c", "cd -P .; readlink /proc/self/cwd; ls -l /proc/self/fd | wc -l", user=user, cwd="/work")
    (engine.bundle / "rootfs/bin/ls").symlink_to("busybox")
    (engine.bundle / "rootfs/bin/wc").symlink_to("busybox")
    done = engine("run", "--bundle", str(engine.bundle), "c")
    assert (done.stdout.splitlines(), done.returncode) == (["/work", "5"], 0), done.stderr  # total, 0, 1, 2, its own


def test_the_terminal_is_handed_over(engine: Engine, tmp_path: Path) -> None:
    engine.command("tty", terminal=True)
    os.symlink(tmp_path, short := f"/tmp/minicontainer-test-{os.getpid()}")  # a socket's path is short (unix(7))
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(f"{short}/console")
        listener.listen()
        engine.create("--console-socket", f"{short}/console")
    finally:
        os.unlink(short)
    end, _ = listener.accept()
    _, beside, _, _ = end.recvmsg(100, socket.CMSG_SPACE(4))
    [master] = array.array("i", beside[0][2])
    engine("start", "c", check=True)
    said = b""
    while not said.endswith(b"\n"):  # the end of the line may come by itself
        said += os.read(master, 100)
    assert said == b"/dev/pts/0\r\n"
    for descriptor in (end, listener):
        descriptor.close()
    os.close(master)


def typed(words: list[str], keys: bytes) -> tuple[str, int]:
    """What a command shows on a terminal of 7 lines and 40 columns, on which this is typed; its exit code."""
    pid, master = pty.fork()
    if pid == 0:
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 7, 40, 0, 0))
        os.chdir(CHECKOUT)
        os.execv(words[0], words)
    before = termios.tcgetattr(master)
    shown = b""
    try:
        while b"ready" not in shown:
            shown += os.read(master, 1000)
        os.write(master, keys)
        while part := os.read(master, 1000):
            shown += part
    except OSError:  # EIO: the last who had it open has ended
        pass
    assert termios.tcgetattr(master) == before, "it is left as it was found"
    os.close(master)
    return shown.decode(), os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_in_the_foreground_the_callers_terminal_and_its_own_are_one(engine: Engine) -> None:
    (engine.bundle / "rootfs/bin/stty").symlink_to("busybox")
    script = "echo ready; read line; stty size; tty; echo got $line; exit 5"
    engine.command("sh", "-c", script, terminal=True)
    shown, code = typed(engine.words("run", "--bundle", str(engine.bundle), "c"), b"hello\r")
    assert code == 5 and "7 40\r\n/dev/pts/0\r\ngot hello\r\n" in shown
    engine.command("sleep", "1000", terminal=False)
    engine.create()
    engine("start", "c", check=True)
    shown, code = typed(engine.words("exec", "--tty", "c", "sh", "-c", script), b"hel\x7flo\r")
    assert code == 5 and "7 40\r\n/dev/pts/0\r\ngot helo\r\n" in shown
    count = "stty -echo; while read line; do n=$((n+1)); done; echo counted $n"
    done = engine("exec", "--tty", "c", "sh", "-c", count, stdin=None, input="a line\n" * 5000 + "\x04")
    assert done.stdout.endswith("counted 5000\n") and done.returncode == 0


def test_in_the_foreground_a_terminal_that_nobody_has_open_for_a_while_is_not_lost(engine: Engine) -> None:
    script = "trap '' HUP; exec </dev/null >/dev/null 2>&1; sleep 0.3; echo again >/dev/console"
    engine.command("sh", "-c", script, terminal=True)
    done = engine("run", "--bundle", str(engine.bundle), "c", stdin=None, input="")
    assert (done.stdout, done.returncode) == ("again\n", 0)


def test_run_waits_and_killed_it_takes_its_container_along(engine: Engine) -> None:
    engine.command("sh", "-c", "echo hello; exit 5")
    done = engine("run", "--bundle", str(engine.bundle), "c")
    assert (done.stdout, done.returncode) == ("hello\n", 5)
    assert engine.left() == []
    engine.command("sleep", "1000")
    running = subprocess.Popen(engine.words("run", "--bundle", str(engine.bundle), "c"), cwd=CHECKOUT)
    while not (engine.state / "c/state.json").exists() or engine.status()["status"] != "running":
        assert running.poll() is None
        time.sleep(0.02)
    running.kill()
    running.wait()
    engine.until("stopped")
    engine("delete", "c", check=True)


def test_a_signal_that_comes_when_it_has_ended_disturbs_nothing(engine: Engine) -> None:
    """A second Ctrl-C, while what is left of the container is taken down."""
    engine.config["hooks"] = {"poststop": [{"path": "/bin/sh", "args": ["sh", "-c", "kill -TERM $PPID; kill $PPID"]}]}
    engine.command("sh", "-c", "exit 5")
    done = engine("run", "--bundle", str(engine.bundle), "c")
    assert (done.returncode, done.stderr) == (5, "")
    assert engine.left() == []


@pytest.mark.parametrize(("lent", "cgroup"), [(False, ""), (True, ""), (False, "none")], ids=["", "lent", "no-cgroup"])
@pytest.mark.parametrize(("verb", "who"), [("create", "parent"), ("create", "child"), ("start", "parent"),
                                           ("delete", "parent")])  # fmt: skip
def test_killed_at_each_point_it_can_be_deleted(engine: Engine, verb: str, who: str, lent: bool, cgroup: str) -> None:
    if lent:  # its mounts are among ours
        engine.config["linux"]["namespaces"] = [{"type": "pid"}]
        engine.write()
    script = Path(__file__).with_name("oci_killed_at.py")
    words = [verb, who, str(engine.bundle), str(engine.state), engine.config["linux"]["cgroupsPath"]]
    engine.state.mkdir()
    if cgroup == "none":
        words[-1] = cgroup
    done = subprocess.run([sys.executable, script, *words], cwd=CHECKOUT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) >= {"create": 16, "start": 2, "delete": 3 if cgroup else 10}[verb]
