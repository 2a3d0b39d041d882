"""Containers that join a user namespace by its path: what is theirs belongs to it, and nobody in it sees into us."""

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from minicontainer import steps
from minicontainer.kernel import idmap, namespaces
from minicontainer.runtime import between, channel, init, launch, spec
from tests.conftest import CHECKOUT
from tests.runtime.test_oci import BETTER, READ_BACK, Engine, engine, opened  # noqa: F401

pytestmark = [pytest.mark.root, pytest.mark.needs("busybox")]

FIRST = 100000
NS_GET_USERNS = 0xB701
DUMMY = [{"containerID": 0, "hostID": 0, "size": 1}]  # as podman writes them


@contextlib.contextmanager
def space(*maps: tuple[int, int, int]) -> Iterator[str]:
    """The path of a user namespace with these maps, in which nobody is."""
    lines = tuple(idmap.Range(*line) for line in maps)
    descriptor = idmap.namespace(idmap.Maps(lines, lines, False))
    try:
        yield f"/proc/{os.getpid()}/fd/{descriptor}"
    finally:
        os.close(descriptor)


@pytest.fixture
def user() -> Iterator[str]:
    with space((0, FIRST, 1000)) as path:
        yield path


@pytest.fixture
def joined(engine: Engine, user: str) -> Engine:  # noqa: F811
    """One whose container joins that."""
    join(engine, user=user)
    return engine


def join(engine: Engine, **paths: str) -> None:  # noqa: F811
    """Join these, by their kinds, with files of a root for 100000."""
    spaces = [entry for entry in engine.config["linux"]["namespaces"] if entry["type"] not in paths]
    spaces += [{"type": kind, "path": path} for kind, path in paths.items()]
    engine.config["linux"] |= {"namespaces": spaces, "uidMappings": DUMMY, "gidMappings": DUMMY}
    for path in (engine.bundle / "rootfs", *(engine.bundle / "rootfs").rglob("*")):
        os.lchown(path, FIRST, FIRST)
    engine.write()


def owner(path: str) -> int:
    """Which user namespace another namespace belongs to."""
    descriptor = os.open(path, os.O_RDONLY)
    found = fcntl.ioctl(descriptor, NS_GET_USERNS)
    inode = os.fstat(found).st_ino
    os.close(found)
    os.close(descriptor)
    return inode


def test_its_namespaces_belong_to_the_one_that_it_joins(joined: Engine, user: str, tmp_path: Path) -> None:
    """Its root is that one's, by that one's maps, whatever its config says; for `exec`, too."""
    tree = tmp_path / "tree"
    tree.mkdir()
    joined.config["mounts"].append(spec.mount("/tree", "bind", str(tree), ["bind"]))
    joined.command("sh", "-c", "touch /here; echo hello > /dev/stdout; exec sleep 1000", oomScoreAdj=BETTER)
    pid, said = joined.begin()
    assert said == b"hello\n"
    assert os.stat(f"/proc/{pid}/ns/user").st_ino == os.stat(user).st_ino
    for kind in ("pid", "mnt", "uts", "ipc", "net", "cgroup"):
        assert owner(f"/proc/{pid}/ns/{kind}") == os.stat(user).st_ino, kind
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    assert (status["Uid"], status["Gid"]) == ("\t".join([f"{FIRST}"] * 4), "\t".join([f"{FIRST}"] * 4))
    assert status["NSpid"].split() == [str(pid), "1"]
    assert Path(f"/proc/{pid}/oom_score_adj").read_text() == f"{BETTER}\n"
    assert (joined.bundle / "rootfs/here").stat().st_uid == FIRST
    points = {line.split()[4] for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines()}
    assert {"/dev/null", "/dev/tty", "/tree"} <= points, "nodes are bound: nobody in there may make one"
    process = {**joined.config["process"], "user": {"uid": 7, "gid": 8}, "args": ["sh", "-c", READ_BACK]}
    (tmp_path / "process").write_text(json.dumps(process))
    done = joined("exec", "--process", str(tmp_path / "process"), "c")
    assert (done.stdout.splitlines(), done.returncode) == ([f"0 {FIRST} 1000", "Uid: 7 7 7 7"], 0), done.stderr


def test_one_goes_in_when_who_made_it_has_gone(joined: Engine) -> None:
    """The path leads nowhere by then."""
    with space((0, FIRST, 1000)) as path:
        join(joined, user=path)
        joined.create()
    joined("start", "c", check=True)
    assert not os.path.exists(path)
    done = joined("exec", "c", "cat", "/proc/self/uid_map")
    assert (done.stdout.split(), done.returncode) == (["0", f"{FIRST}", "1000"], 0), done.stderr


def test_its_user_is_one_that_it_knows(joined: Engine) -> None:
    joined.command("true", user={"uid": 1000, "gid": 0})
    done = joined("create", "--bundle", str(joined.bundle), "c")
    assert done.returncode == 1 and "id 1000 is not mapped" in done.stderr
    assert joined.left() == []


@pytest.mark.parametrize("kind", ["user", "net"])
def test_the_hosts_own_is_refused_and_what_is_none(joined: Engine, kind: str) -> None:
    """By another name than ours as well: it is the namespace that is known, not the path."""
    join(joined, user=f"/proc/{os.getpid()}/ns/{kind}")
    done = joined("create", "--bundle", str(joined.bundle), "c")
    said = "is the host's own user namespace" if kind == "user" else "is no user namespace"
    assert done.returncode == 1 and said in done.stderr
    assert joined.left() == []


def test_one_without_a_root_is_refused(joined: Engine) -> None:
    with space((1, FIRST, 1000)) as path:
        join(joined, user=path)
        done = joined("create", "--bundle", str(joined.bundle), "c")
        assert done.returncode == 1 and "does not map user 0" in done.stderr
        assert joined.left() == []


def test_none_is_asked_for_twice(joined: Engine) -> None:
    joined.config["linux"]["namespaces"].append({"type": "user"})
    joined.write()
    done = joined("create", "--bundle", str(joined.bundle), "c")
    assert done.returncode == 1 and "more than one namespace 'user'" in done.stderr


@pytest.mark.needs("idmapped-overlay")
def test_a_mount_that_translates_ids_as_the_namespace_does(joined: Engine, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    joined.config["mounts"].append(spec.mount("/tree", "bind", str(tree), ["bind", "idmap"]))
    joined.command("touch", "/tree/new")
    done = joined("run", "--bundle", str(joined.bundle), "c")
    assert done.returncode == 0, done.stderr
    assert (tree / "new").stat().st_uid == 0


def test_two_of_one_pod(joined: Engine, tmp_path: Path) -> None:
    """The second has all of the first's namespaces, but for its files."""
    joined.create()
    joined("start", "c", check=True)
    pid = joined.status()["pid"]
    assert opened(pid) == {}
    other = Engine(tmp_path / "other")
    other.config["linux"]["cgroupsPath"] += "-other"
    files = {"pid": "pid", "network": "net", "ipc": "ipc", "uts": "uts", "cgroup": "cgroup", "user": "user"}
    join(other, **{kind: f"/proc/{pid}/ns/{name}" for kind, name in files.items()})
    look = f"for x in {' '.join(files.values())}; do readlink /proc/self/ns/$x; done"
    other.command("sh", "-c", f"{look}; cat /proc/1/comm")
    done = other("run", "--bundle", str(other.bundle), "d")
    theirs = [os.readlink(f"/proc/{pid}/ns/{name}") for name in files.values()]
    assert (done.stdout.splitlines(), done.returncode) == ([*theirs, "sleep"], 0), done.stderr


@pytest.mark.parametrize("new", [False, True])
def test_what_is_not_the_user_namespaces_own_is_joined_before(joined: Engine, new: bool) -> None:
    """The host's network, as runc joins it; of such a network /sys shows nothing, so engines bind the host's."""
    join(joined, network=f"/proc/{os.getpid()}/ns/net")
    joined.config["mounts"] = [one for one in joined.config["mounts"] if not one["destination"].startswith("/sys")]
    if new:
        spaces = [entry for entry in joined.config["linux"]["namespaces"] if entry["type"] != "user"]
        joined.config["linux"]["namespaces"] = [*spaces, {"type": "user"}]
        joined.config["linux"]["uidMappings"] = [{"containerID": 0, "hostID": FIRST, "size": 1000}]
        joined.config["linux"]["gidMappings"] = joined.config["linux"]["uidMappings"]
    joined.command("sh", "-c", "cat /proc/self/uid_map; readlink /proc/self/ns/net; echo $$")
    done = joined("run", "--bundle", str(joined.bundle), "c")
    ids, net, pid = done.stdout.splitlines()
    assert (ids.split(), net, pid) == (["0", f"{FIRST}", "1000"], os.readlink("/proc/self/ns/net"), "1"), done.stderr


def test_nobody_in_there_sees_into_who_comes(user: str) -> None:
    """Root of that namespace, with all its capabilities, and the host's processes in sight."""
    waits = [steps.call(channel.wait, init.CHANNEL, "go", {}, why="stand still")]
    spaces = [{"type": "user", "path": user}, {"type": "pid"}]
    values = launch.values()
    given = ((namespaces.USER.name, namespaces.USER),)
    plan = [*idmap.join(user), *between.send(waits, spaces, launch.OURS, launch.THEIRS, False, given)]
    steps.execute(plan, values)
    pid = values["pid"]
    try:
        assert os.stat(f"/proc/{pid}/ns/user").st_ino == os.stat(user).st_ino
        look = ["nsenter", f"--user={user}", "-S", "0", "-G", "0", "ls", f"/proc/{pid}/root/"]
        done = subprocess.run(look, capture_output=True, text=True)
        assert done.returncode != 0 and "Permission denied" in done.stderr, done
    finally:
        values["channel"].close()
        os.waitpid(pid, 0)


def test_a_go_between_that_is_killed_keeps_nobody_waiting(user: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """After it has left a child, which has the other end of the channel, and before it has told of it."""
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    before = set(children.read_text().split())
    monkeypatch.setattr(channel, "send", lambda *words: os.kill(os.getpid(), signal.SIGKILL))
    waits = [steps.call(channel.wait, init.CHANNEL, "go", {}, why="stand still")]
    spaces = [{"type": "user", "path": user}]
    values = launch.values()
    given = ((namespaces.USER.name, namespaces.USER),)
    with pytest.raises(channel.Gone):
        plan = [*idmap.join(user), *between.send(waits, spaces, launch.OURS, launch.THEIRS, False, given)]
        steps.execute(plan, values)
    [child] = set(children.read_text().split()) - before
    values["channel"].close()
    os.waitpid(int(child), 0)  # it was ours, and ends


@pytest.mark.parametrize("who", ["parent", "child"])
def test_killed_at_each_point_it_can_be_deleted(joined: Engine, who: str) -> None:
    """The go-between's points are a child's, too."""
    script = Path(__file__).with_name("oci_killed_at.py")
    words = ["create", who, str(joined.bundle), str(joined.state), joined.config["linux"]["cgroupsPath"]]
    joined.state.mkdir()
    done = subprocess.run([sys.executable, script, *words], cwd=CHECKOUT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) >= 20
