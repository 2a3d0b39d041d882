"""Rooms: what a learner's code can do in there, what the tests see of it, and what it cannot do to anybody."""

import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from minicontainer import errors, host
from minicontainer.teach.grade import cell
from minicontainer.teach.lab import rooms
from tests.conftest import CHECKOUT

pytestmark = [pytest.mark.needs("user-namespace")]

Make = Callable[[str], rooms.Room]


@pytest.fixture
def make() -> Iterator[Make]:
    """A room with this code in it; the keeper, and with it every room, ends with the test."""
    keeper = rooms.local()
    yield lambda source: rooms.Room(keeper, textwrap.dedent(source))
    pid = keeper.find()
    keeper.close()
    assert not os.path.exists(f"/proc/{pid}"), "the keeper is still there"


def test_a_function_is_called_in_namespaces_of_its_own(make: Make) -> None:
    room = make("def add(a, b): return a + b")
    assert room.call("add", 2, 3) == 5
    for kind in ("user", "mount", "pid", "network", "uts", "ipc", "cgroup"):
        name = {"mount": "mnt", "network": "net"}.get(kind, kind)
        assert room.namespace(kind) != os.readlink(f"/proc/self/ns/{name}"), kind
    assert room.status()["NSpid"].split()[-1] == "1"
    room.close()


def test_it_is_root_inside_and_an_ordinary_user_outside(make: Make) -> None:
    room = make("import os\ndef who(): return [os.getuid(), os.getgid(), os.getgroups()]")
    uid, gid, groups = room.call("who")
    assert (uid, gid) == (0, 0)
    assert set(groups) <= {0, 65534}
    outside = 65534 if os.geteuid() == 0 else os.geteuid()
    assert room.status()["Uid"].split() == [str(outside)] * 4


def test_preparation_comes_first_and_the_tests_look_from_outside(make: Make) -> None:
    def prepare(text: str) -> None:
        with open("/tmp/given", "w") as file:
            file.write(text)

    room = make("def copy():\n    open('/tmp/made', 'w').write(open('/tmp/given').read() * 2)")
    room.prepare(prepare, "ab")
    room.call("copy")
    assert room.read("/tmp/made") == b"abab"
    assert {"given", "made"} <= set(room.names("/tmp"))  # beside them may be a checkout that lies in /tmp
    assert not Path("/tmp/made").exists()
    assert room.write("/tmp/new", "by the test") == ""
    assert room.read("/tmp/new") == b"by the test"
    assert room.remove("/tmp/given") == ""
    assert room.stat("/tmp/given") is None


def test_nothing_of_the_machine_can_be_written(make: Make, tmp_path: Path) -> None:
    """Not even what belongs to the user outside, who the room's root is."""
    tmp_path.chmod(0o777)
    source = """
        import os
        def write(path):
            try:
                open(path, "w").close()
            except OSError as error:
                return error.errno
        """
    room = make(source)
    for path in ("/etc/passwd", f"{Path.home()}/x", str(Path(__file__).parent / "x"), "/var/x"):
        assert room.call("write", path) is not None or not Path(path).exists(), path
        assert not os.path.exists(path) or path == "/etc/passwd"


def test_a_link_does_not_lead_the_tests_out(make: Make) -> None:
    room = make("import os\ndef lay(): os.symlink('/etc/hostname', '/tmp/x'); os.mkfifo('/tmp/pipe')")
    room.call("lay")
    room.write("/tmp/y", "")
    with pytest.raises(rooms.Failed, match="no regular file"):
        room.read("/tmp/pipe")
    # It names the room's own /etc/hostname, which happens to be the machine's; /proc/self/root would be a way out.
    room.close()
    room = make("import os\ndef lay(): os.symlink(f'/proc/{os.getpid()}/root/etc', '/tmp/x')")
    room.call("lay")
    with pytest.raises(rooms.Failed, match="cannot be read"):
        room.read("/tmp/x/hostname")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("raise NotImplementedError", "still the stub"),
        ("raise OSError(1, 'no')", "raised PermissionError"),
        ("import os; os._exit(3)", "ended the process, with exit code 3"),
        ("import sys; sys.exit(0)", "raised SystemExit"),
        ("while True: pass", "did not come back within 1 second"),
        ("import os; os.execv('/bin/true', ['true'])", "another program|ended the process"),
        ("return object()", "raised TypeError"),
        ("return 'x' * (2 << 20)", "over 1048576 bytes"),
        ("l = []; l.append(l); return l", "raised ValueError"),
    ],
)
def test_what_is_no_answer_is_a_hint(make: Make, body: str, said: str) -> None:
    room = make(f"def f():\n    {body}")
    with pytest.raises(rooms.Failed, match=said):
        room.call("f", within=1 if "while" in body else 30)
    room.close()
    assert make("def f(): return 1").call("f") == 1, "the keeper makes a new room afterwards"


def test_a_module_that_cannot_be_loaded_is_a_hint(make: Make) -> None:
    with pytest.raises(rooms.Failed, match=r"SyntaxError.*line 1"):
        make("def f(:").call("f")


def test_answers_cannot_be_forged_for_later_questions(make: Make) -> None:
    source = """
        import json, os
        def forge():
            for descriptor in range(3, 64):
                try:
                    for number in range(100):
                        os.write(descriptor, json.dumps({"returned": "forged", "number": number}).encode() + b"\\n")
                except OSError:
                    pass
        def honest(): return "honest"
        """
    room = make(source)
    room.attempt("forge")
    room.attempt("honest")
    # A forged value is possible, as any wrong return value is; what the kernel shows is not the worker's to say.
    assert room.namespace("pid") != os.readlink("/proc/self/ns/pid")


def test_children_end_with_the_room(make: Make) -> None:
    source = """
        import os, time
        def spawn():
            for _ in range(5):
                if os.fork() == 0:
                    os.setsid()
                    time.sleep(600)
        """
    room = make(source)
    room.call("spawn")
    inside = room.processes()
    assert len(inside) == 6
    room.close()
    deadline = time.monotonic() + 30
    while left := [pid for pid in inside if os.path.exists(f"/proc/{pid}")]:
        assert time.monotonic() < deadline, left


def test_what_is_printed_is_kept(make: Make) -> None:
    room = make("import os\ndef shout(): print('hello'); os.system('echo from a program')")
    room.call("shout")
    room.close()
    assert room.printed == "hello\nfrom a program\n"


def test_a_look_into_the_network_namespace(make: Make) -> None:
    room = make("from minicontainer import netlink\ndef wire(): netlink.link_add('mine', 'bridge')")

    def devices() -> list[str]:
        with open("/proc/self/net/dev") as file:
            return [line.split(":")[0].strip() for line in file if ":" in line]

    room.call("wire")
    assert "mine" in room.look(devices)
    assert "mine" not in devices()


def test_a_process_in_there_has_another_number_out_here(make: Make) -> None:
    """Also if it is in a pid namespace below the room's; and its host name can be looked at."""
    source = """
        import os, signal
        from minicontainer import syscalls
        def start():
            ready, tell = os.pipe()
            middle = os.fork()
            if middle == 0:
                syscalls.unshare(syscalls.CLONE_NEWPID | syscalls.CLONE_NEWUTS)
                syscalls.sethostname("below")
                pid = os.fork()
                if pid == 0:
                    signal.pause()
                os.write(tell, str(pid).encode())
                os._exit(0)
            return int(os.read(ready, 16))
        """
    room = make(source)
    number = room.call("start")
    pid = room.outside(number)
    assert room.status(pid)["NSpid"].split()[-2:] == [str(number), "1"]
    assert room.look(lambda: os.uname().nodename, kinds=("uts",), pid=pid) == "below"
    assert room.look(lambda: os.uname().nodename, kinds=("uts",)) == "room"
    with pytest.raises(rooms.Failed, match="no process 4711"):
        room.outside(4711)


def test_a_root_that_has_changed_is_looked_at_anew(make: Make) -> None:
    room = make("import os\ndef move(): os.mkdir('/tmp/x'); open('/tmp/x/here', 'w').close(); os.chroot('/tmp/x')")
    room.call("move")
    assert "x" in room.names("/tmp")
    room.reopen()
    assert room.names("/") == ["here"]


# -------------------------------------------------------------------------------------- plain rooms: without namespaces


@pytest.fixture
def plain() -> Iterator[Make]:
    """A plain room with this code in it."""
    keeper = rooms.local()
    yield lambda source: rooms.Room(keeper, textwrap.dedent(source), plain=True)
    keeper.close()


def test_a_plain_room_is_another_user_with_a_directory_of_its_own(plain: Make) -> None:
    def prepare(text: str) -> str:
        with open("/tmp/given", "w") as file:
            file.write(text)
        return "/tmp/given"

    source = """
        import os
        def double(path):
            open("made", "w").write(open(path).read() * 2)
            return [os.getcwd(), os.getuid(), os.getgroups(), os.readlink("/proc/self/ns/user")]
        """
    room = plain(source)
    assert room.prepare(prepare, "ab") == "/tmp/given"
    where, uid, groups, namespace = room.call("double", "/tmp/given")
    assert room.read("/tmp/made") == b"abab"
    assert (where, namespace) == ("/tmp", os.readlink("/proc/self/ns/user"))
    if os.geteuid() == 0:
        assert (uid, groups) == (room.uid, [])
        assert os.stat(f"{room.directory}/tmp/made").st_uid == room.uid >= rooms.PLAIN_UID
    assert room.write("/tmp/new", "by the test") == ""
    assert room.names("/tmp") == ["given", "made", "new"]
    assert not Path("/tmp/made").exists() and not Path("/tmp/given").exists()
    room.close()
    assert not os.path.exists(room.directory)


def test_what_a_plain_room_has_started_ends_with_it(plain: Make) -> None:
    source = """
        import os, time
        def spawn():
            pids = []
            for _ in range(5):
                pid = os.fork()
                if pid == 0:
                    os.setsid()
                    if os.fork():
                        os._exit(0)
                    open(f"pid-{os.getpid()}", "w").close()
                    time.sleep(600)
                os.waitpid(pid, 0)
            while len(os.listdir(".")) < 5:
                time.sleep(0.01)
        """
    room = plain(source)
    room.call("spawn")
    orphans = [int(name.removeprefix("pid-")) for name in room.names("/tmp")]
    assert len(orphans) == 5 and all(os.path.exists(f"/proc/{pid}") for pid in orphans)
    room.close()
    deadline = time.monotonic() + 30
    while left := [pid for pid in orphans if os.path.exists(f"/proc/{pid}")]:
        assert time.monotonic() < deadline, left


def test_what_is_no_answer_in_a_plain_room(plain: Make) -> None:
    room = plain("def f(): open('big', 'wb').write(b'x' * (100 << 20))")
    assert "File too large" in room.attempt("f").text
    room.close()
    room = plain("def f():\n    while True: pass")
    with pytest.raises(rooms.Failed, match="did not come back"):
        room.call("f", within=1)
    room.close()
    if os.geteuid() == 0:
        room = plain("def f(): return open('/etc/shadow').read()")
        assert room.attempt("f").raised == "PermissionError"


def test_what_a_learner_prints_is_shown_below_the_hint(tmp_path: Path) -> None:
    lab = tmp_path / "lab.py"
    lab.write_text("import os\ndef stack(layers, top): print('I was here'); os.system('echo and a program')\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "labs/06_overlay", f"--lab-file={lab}"]
    done = subprocess.run([*command, "-k", "seen_as_one"], capture_output=True, text=True, cwd=CHECKOUT)
    assert "printed: I was here" in done.stdout
    assert "printed: and a program" in done.stdout


# -------------------------------------------------------------------------------- where nobody may have user namespaces


def test_a_room_that_is_forbidden_names_doctors_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ubuntu's kernel gives the namespace, and no capability in it: so the keeper's next step is what fails."""

    class Stuck(rooms.Keeper):
        def __init__(self) -> None:
            pass

        def ask(self, question: dict[str, Any], within: float) -> dict[str, Any]:
            return {"broken": "KernelError: unshare: Operation not permitted"}

    switch = "kernel.apparmor_restrict_unprivileged_userns"
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(host, "sysctl", lambda name: "1" if name == switch else "")
    for mend in (f"sudo sysctl -w {switch}=0", "sudo minicontainer lab check NN lab.py"):
        with pytest.raises(errors.Unsupported, match=mend):
            rooms.Room(Stuck(), "")
        with pytest.raises(errors.Unsupported, match="Operation not permitted"), monkeypatch.context() as patch:
            patch.setattr(os, "geteuid", lambda: 0)
            rooms.Room(Stuck(), "")
    monkeypatch.setattr(host, "privileged", lambda: False)
    assert f"first sudo sysctl -w {switch}=0" in cell.obstacle()


# Who is not root of the outer namespace, which has one more namespace to give, and none below that.
NONE_LEFT = """
echo 1 >/proc/sys/user/max_user_namespaces
exec unshare -U --map-user=1000 --map-group=1000 "$@"
"""


def test_a_lab_without_rooms_costs_no_points(tmp_path: Path) -> None:
    """Refused by the kernel for good: each test is not gradable here, and none has failed."""
    words = [sys.executable, "-m", "minicontainer", "lab", "check", "06", f"{CHECKOUT}/labs/06_overlay/lab.py"]
    done = subprocess.run(
        ["unshare", "-Ur", "sh", "-c", NONE_LEFT, "sh", *words],
        capture_output=True, text=True, timeout=60, env={**os.environ, "HOME": str(tmp_path)},
    )  # fmt: skip
    assert "0 of 0 points" in done.stdout, done.stdout + done.stderr
    assert "not gradable here: no room can be made here: refused" in done.stdout
