"""The notebooks' kernel, seen from its cells and from outside: what it is, what it cannot touch, how it ends."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from minicontainer.kernel import idmap
from minicontainer.teach import sandbox

pytestmark = pytest.mark.needs("overlay")
KINDS = ("mnt", "pid", "net", "uts", "ipc")


class Sandbox:
    """The launcher around a Python that is no kernel: it prints what a cell would see."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="mc-sandbox-", dir="/var/tmp"))
        self.course = self.folder / "course"
        self.connections = self.folder / "run"
        self.course.mkdir()
        self.connections.mkdir()
        (self.connections / "kernel.json").write_text(json.dumps({"transport": "ipc"}))

    def start(self, code: str) -> subprocess.Popen[str]:
        file = str(self.connections / "kernel.json")
        words = [sys.executable, "-m", "minicontainer.teach.sandbox", file, sys.executable, "-c", code]
        environment = {**os.environ, "MINICONTAINER_COURSE": str(self.course)}
        return subprocess.Popen(
            words, env=environment, cwd=self.course, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip

    def __call__(self, code: str) -> str:
        done = self.start(code)
        out, said = done.communicate(timeout=30)
        assert (done.returncode, said) == (0, ""), said
        return out

    def scratch(self) -> list[str]:
        return os.listdir(self.course / ".scratch")


@pytest.fixture
def inside() -> Iterator[Sandbox]:
    made = Sandbox()
    yield made
    subprocess.run(["rm", "-rf", made.folder], check=True)


LOOK = """
import json, os, resource
said = {kind: os.readlink(f"/proc/self/ns/{kind}") for kind in ("mnt", "pid", "net", "uts", "ipc", "user")}
said["uid"], said["parent"] = os.getuid(), os.getppid()
said["nproc"] = resource.getrlimit(resource.RLIMIT_NPROC)[0]
said["links"] = os.listdir("/sys/class/net")
said["processes"] = [name for name in os.listdir("/proc") if name.isdigit()]
refused = []
for path in ("~/x", "/x", "/etc/x", "/srv/x", "/usr/x"):
    try:
        open(os.path.expanduser(path), "w")
    except OSError:
        refused.append(path)
said["refused"] = refused
for path in ("here", "/tmp/x", "/run/x", "/var/tmp/x", os.environ["MINICONTAINER_SCRATCH"] + "/x"):
    open(path, "w").close()
print(json.dumps(said))
"""


def holds(inside: Sandbox) -> None:
    said = json.loads(inside(LOOK))
    for kind in KINDS:
        assert said[kind] != os.readlink(f"/proc/self/ns/{kind}"), kind
    assert (said["user"] == os.readlink("/proc/self/ns/user")) == (os.geteuid() == 0)
    assert (said["uid"], said["parent"]) == (0, 1)
    assert len(said["processes"]) == 2
    assert said["links"] == ["lo"]
    assert said["nproc"] <= sandbox.PROCESSES
    assert said["refused"] == ["~/x", "/x", "/etc/x", "/srv/x", "/usr/x"]
    assert (inside.course / "here").exists()
    assert inside.scratch() == []


def ends_with_jupyter(inside: Sandbox) -> None:
    """Killed as Jupyter kills, by SIGKILL to the group: the cells' processes end, disk and cgroups are cleaned."""
    front = inside.start("import os, time; os.fork() or os.setsid(); print(os.getpid(), flush=True); time.sleep(60)")
    assert front.stdout is not None
    front.stdout.readline()
    assert len(inside.scratch()) == 1
    os.killpg(front.pid, signal.SIGKILL)
    front.communicate(timeout=60)  # the end of the pipes: nobody holds them any more
    deadline = time.monotonic() + 60
    while inside.scratch() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert inside.scratch() == []


@pytest.mark.root
def test_root_holds(inside: Sandbox) -> None:
    holds(inside)


@pytest.mark.root
def test_root_ends_with_jupyter(inside: Sandbox) -> None:
    ends_with_jupyter(inside)


@pytest.mark.userns
@pytest.mark.needs("user-namespace")
def test_user_holds(inside: Sandbox) -> None:
    holds(inside)


@pytest.mark.userns
@pytest.mark.needs("user-namespace")
def test_user_ends_with_jupyter(inside: Sandbox) -> None:
    ends_with_jupyter(inside)


@pytest.mark.root
def test_the_exit_code_is_the_kernels(inside: Sandbox) -> None:
    done = inside.start("raise SystemExit(7)")
    done.communicate(timeout=30)
    assert done.returncode == 7


def test_a_kernel_on_tcp_is_refused_with_the_flag_that_helps(inside: Sandbox) -> None:
    (inside.connections / "kernel.json").write_text(json.dumps({"transport": "tcp"}))
    done = inside.start("")
    _, said = done.communicate(timeout=30)
    assert done.returncode == 1 and "--KernelManager.transport=ipc" in said


# ------------------------------------------------------------------------------------------------------------------ ids


def test_several_ids_where_subuid_allows() -> None:
    maps = idmap.choose(1000, 100, "anna", "bert:1:2\nanna:100000:65536\n1000:300000:10\n", "anna:200000:65536\n")
    assert maps.helped
    assert maps.uids == ((0, 1000, 1), (1, 100000, 65536), (65537, 300000, 10))
    assert maps.gids == ((0, 100, 1), (1, 200000, 65536))
    verbs = [(step.verb, step.arguments[1]) for step in idmap.plan(maps, 7)]
    assert verbs == [("call", "newuidmap"), ("call", "newgidmap")]


def test_one_id_without() -> None:
    for subuid, programs in (("", True), ("anna:100000:65536\n", False)):
        maps = idmap.choose(1000, 100, "anna", subuid, subuid, programs)
        assert maps == (((0, 1000, 1),), ((0, 100, 1),), False)
    written = [(str(step.arguments[0]), step.arguments[1]) for step in idmap.plan(maps, 7)]
    assert written == [
        ("/proc/7/setgroups", "deny"),
        ("/proc/7/uid_map", "0 1000 1\n"),
        ("/proc/7/gid_map", "0 100 1\n"),
    ]
