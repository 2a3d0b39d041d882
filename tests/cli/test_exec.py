"""`exec`: a process that the kernel shows to be inside in every respect, and attacks on who goes in."""

import contextlib
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from minicontainer import errors
from minicontainer.engine.client import Client
from tests.cli.test_life import monitor_of, run, until
from tests.cli.test_terminal import Screen
from tests.conftest import minicontainer
from tests.engine_fixtures import Shop, fresh_shop  # noqa: F401

pytestmark = pytest.mark.root

SLEEP = ("sleep", "1000")
KINDS = ("mnt", "uts", "ipc", "pid", "net", "cgroup", "user")


@pytest.fixture(autouse=True)
def nobody_stays(shop: Shop) -> Iterator[None]:
    """What a test has left is removed."""
    yield
    names = minicontainer("ps", "-aq").stdout.split()
    if names:
        minicontainer("rm", "-f", "-v", *names)


def execute(*words: str, check: bool = True, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    return minicontainer("exec", *words, check=check, stdin=stdin)


def init_of(name: str = "web") -> int:
    """The pid of a container's init."""
    pid: int = json.loads(minicontainer("inspect", name).stdout)[0]["State"]["Pid"]
    return pid


def inside(name: str, *words: str) -> int:
    """The pid, as the host numbers it, of a process that `exec -d` has started: the youngest in there."""
    execute("-d", name, *words)
    command = "\0".join(words).encode() + b"\0"
    init = init_of(name)
    for entry in sorted(Path("/proc").glob("[0-9]*"), key=lambda path: -int(path.name)):
        with contextlib.suppress(OSError):
            if (entry / "cmdline").read_bytes() == command and os.readlink(entry / "ns/mnt") == os.readlink(
                f"/proc/{init}/ns/mnt"
            ):
                return int(entry.name)
    raise AssertionError(f"no process {words} in {name}")


def running(command: bytes) -> int:
    """The pid of the process with that command line, 0 if there is none."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if path.read_bytes() == command:
                return int(path.parent.name)
    return 0


def status(pid: int, *fields: str) -> list[str]:
    lines = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return [lines[field].strip() for field in fields]


# --------------------------------------------------------------------------------------------------------- it is inside


@pytest.mark.parametrize(
    "flags",
    [(), ("--network", "host"), ("--pid", "host"), ("--ipc", "host", "--uts", "host"), ("--cap-drop", "ALL"),
     ("--privileged",), ("--security-opt", "no-new-privileges"), ("--security-opt", "seccomp=unconfined"),
     ("--read-only",)],
    ids=" ".join,
)  # fmt: skip
def test_it_has_what_the_containers_init_has(shop: Shop, flags: tuple[str, ...]) -> None:
    network = () if "--network" in flags else ("--network", "none")
    minicontainer("run", "-d", "--name", "web", *network, *flags, "demo", *SLEEP)
    init, pid = init_of(), inside("web", "sleep", "999")
    for kind in KINDS:
        assert os.readlink(f"/proc/{pid}/ns/{kind}") == os.readlink(f"/proc/{init}/ns/{kind}"), kind
    assert Path(f"/proc/{pid}/cgroup").read_text() == Path(f"/proc/{init}/cgroup").read_text()
    assert Path(f"/proc/{pid}/mountinfo").read_text() == Path(f"/proc/{init}/mountinfo").read_text()
    same = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Uid", "Gid", "Groups")
    assert status(pid, *same) == status(init, *same)
    assert os.path.samestat(os.stat(f"/proc/{pid}/root"), os.stat(f"/proc/{init}/root"))
    assert os.path.samestat(os.stat(f"/proc/{pid}/cwd"), os.stat(f"/proc/{init}/cwd"))
    assert Path(f"/proc/{pid}/limits").read_text() == Path(f"/proc/{init}/limits").read_text()
    assert sorted(os.listdir(f"/proc/{pid}/fd")) == ["0", "1", "2"]
    assert os.getsid(pid) == pid


def test_it_shares_what_its_container_shares(shop: Shop) -> None:
    run("demo", *SLEEP)
    minicontainer(
        "run", "-d", "--name", "second", "--network", "container:web", "--pid", "container:web", "demo", *SLEEP
    )
    first, pid = init_of("web"), inside("second", "sleep", "999")
    for kind, same in (("net", True), ("pid", True), ("mnt", False)):
        assert (os.readlink(f"/proc/{pid}/ns/{kind}") == os.readlink(f"/proc/{first}/ns/{kind}")) is same, kind


def test_users_directory_and_environment(shop: Shop) -> None:
    run("-e", "SIZE=big", "-w", "/tmp", "demo", *SLEEP)
    assert execute("web", "id").stdout == "uid=0(root) gid=0(root) groups=0(root),10(wheel)\n"
    assert (
        execute("-u", "alice", "web", "id").stdout
        == "uid=1000(alice) gid=1001(alice) groups=10(wheel),50(staff),1001(alice)\n"
    )
    assert execute("-u", "5:7", "web", "id").stdout == "uid=5 gid=7 groups=7\n"
    execute("web", "sh", "-c", "echo late:x:77:88::/late:/bin/sh >>/etc/passwd")
    assert execute("-u", "late", "-e", "A=1", "web", "env").stdout.splitlines() == [
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/opt",
        f"HOSTNAME={json.loads(minicontainer('inspect', 'web').stdout)[0]['Id'][:12]}",
        "HOME=/late", "COLOUR=blue", "SHAPE=round", "SIZE=big", "A=1",
    ]  # fmt: skip
    assert execute("web", "pwd").stdout == "/tmp\n"
    assert execute("-w", "/etc", "web", "pwd").stdout == "/etc\n"
    assert "TERM=xterm" in execute("-t", "web", "env").stdout


def test_passwd_is_read_as_the_container_sees_it(shop: Shop, tmp_path: Path) -> None:
    """A link to /etc/passwd leads to the container's, not the host's; one that is no file leads nowhere, at once."""
    run("demo", *SLEEP)
    secret = tmp_path / "passwd"
    secret.write_text("hostly:x:4242:4242::/:/bin/sh\n")
    execute("web", "ln", "-sf", str(secret), "/etc/passwd")
    assert execute("-u", "hostly", "web", "id", check=False).returncode == 126
    execute("web", "sh", "-c", "rm /etc/passwd; mkdir /etc/passwd")
    assert execute("-u", "12", "web", "id", "-u").stdout == "12\n"


def test_privileged_widens_one_process(shop: Shop) -> None:
    run("demo", *SLEEP)
    ours = status(os.getpid(), "CapBnd")[0]
    assert ours in execute("--privileged", "web", "cat", "/proc/self/status").stdout
    assert ours not in execute("web", "cat", "/proc/self/status").stdout


def test_input_output_and_terminal(shop: Shop) -> None:
    run("demo", *SLEEP)
    done = execute("-i", "web", "sh", "-c", "cat; echo err >&2", stdin="typed")
    assert (done.stdout, done.stderr) == ("typed", "err\n")
    assert execute("web", "cat", stdin="not for it").stdout == ""
    screen = Screen.typing("exec", "-it", "web", "sh", "-c", "tty; stty size; read x; echo got $x; exit 4")
    screen.until(r"/dev/pts/0\s+24 80|/dev/pts/0\s+\d+ \d+")
    screen.type("word\r")
    screen.until("got word")
    assert screen.wait() == 4
    screen = Screen.typing("exec", "-it", "web", "sh", "-c", "echo here; exec sleep 500")
    screen.until("here")
    screen.type("\x10\x11")
    assert screen.wait() == 0
    assert "sleep 500" in execute("web", "ps").stdout  # detached, and still there


# ----------------------------------------------------------------------------------------------------------- exit codes


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("web", "sh", "-c", "exit 3"), 3, ""),
        (("web", "sh", "-c", "kill -9 $$"), 137, ""),
        (("web", "nosuch"), 127, "executable file not found in $PATH"),
        (("web", "/no/such"), 127, "No such file"),
        (("web", ""), 127, "executable file not found"),
        (("web", "/etc"), 126, "Permission denied"),
        (("web", "/opt/plain"), 126, "Permission denied"),
        (("web", "/opt/noise"), 126, "no program for this machine"),
        (("web", "/opt/script"), 127, "its interpreter"),
        (("-w", "/no/such", "web", "true"), 126, "chdir('/no/such')"),
        (("-w", "relative", "web", "true"), 126, "absolute"),
        (("-u", "nobodyx", "web", "true"), 126, "nobodyx"),
        (("nosuch", "true"), 1, "No such container: nosuch"),
        (("web",), 1, "a command"),
        (("-it", "web", "true"), 1, "the input device is not a TTY"),
        (("-d", "web", "nosuch"), 1, "executable file not found"),
        (("-d", "web", "false"), 0, ""),
        (("--no-such-flag", "web", "true"), 125, "unknown flag: --no-such-flag"),
    ],
)
def test_exit_codes(shop: Shop, words: tuple[str, ...], code: int, says: str) -> None:
    run("demo", *SLEEP)
    done = execute(*words, check=False)
    assert done.returncode == code, done.stderr
    assert says in done.stderr and done.stdout == ""
    assert len(done.stderr.splitlines()) == (1 if says else 0)


def test_only_a_container_that_runs(shop: Shop) -> None:
    identifier = run("demo", *SLEEP)
    minicontainer("pause", "web")
    done = execute("web", "true", check=False)
    assert done.returncode == 1 and "Container web is paused, unpause the container before exec" in done.stderr
    minicontainer("unpause", "web")
    minicontainer("kill", "web")
    minicontainer("wait", "web")
    done = execute("web", "true", check=False)
    assert done.returncode == 1 and f"Container {identifier} is not running" in done.stderr


def test_explain_takes_no_step(shop: Shop) -> None:
    run("demo", *SLEEP)
    before = os.listdir(f"/proc/{init_of()}/root/tmp")
    said = execute("--explain", "web", "touch", "/tmp/x").stdout
    for words in ("state.hold", "enter.hide", "CLONE_NEWNS", "enter.fork", "threshold.prepare", "init.execute"):
        assert words in said
    assert os.listdir(f"/proc/{init_of()}/root/tmp") == before


@pytest.mark.parametrize("threads", [False, True], ids=["alone", "with threads"])
def test_the_library(shop: Shop, threads: bool) -> None:
    run("demo", *SLEEP)
    container = Client(str(shop.root)).containers.get("web")
    over = threading.Event()
    beside = threading.Thread(target=over.wait)
    if threads:
        beside.start()
    try:
        done = container.exec_run(["sh", "-c", "echo out; echo err >&2; exit 3"])
        assert done.exit_code == 3 and sorted(done.output.splitlines()) == [b"err", b"out"]
        assert container.exec_run("echo 'two words'", user="alice", environment={"A": "1"}).output == b"two words\n"
        assert container.exec_run(["sh", "-c", "echo out; echo err >&2"], demux=True) == (0, (b"out\n", b"err\n"))
        assert container.exec_run("pwd", workdir="/etc", stderr=False) == (0, b"/etc\n")
        streamed = container.exec_run("seq 3", stream=True)
        assert streamed.exit_code is None and b"".join(streamed.output) == b"1\n2\n3\n"
        assert container.exec_run("sleep 995", detach=True) == (None, b"")
        assert b"sleep 995" in container.exec_run("ps").output
        with pytest.raises(errors.CommandNotFound):
            container.exec_run("nosuch")
        with pytest.raises(errors.NotFound):
            container.exec_run("true", user="nobodyx")
    finally:
        over.set()
        if threads:
            beside.join()


# -------------------------------------------------------------------------------------------------------- who is killed


def test_it_outlives_its_client_and_not_its_keeper(shop: Shop) -> None:
    run("demo", *SLEEP)
    client = subprocess.Popen(
        [sys.executable, "-m", "minicontainer", "exec", "web", "sh", "-c", "echo $$; exec sleep 998"],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert client.stdout is not None
    client.stdout.readline()
    pid: int = until(lambda: running(b"sleep\x00998\x00"))
    client.kill()
    client.communicate()
    keeper = monitor_of(pid)
    assert status(pid, "State")[0].startswith("S")
    assert os.readlink(f"/proc/{keeper}/ns/pid") == os.readlink("/proc/self/ns/pid")
    assert init_of() != keeper and "minicontainer" not in Path(f"/proc/{keeper}/cgroup").read_text()
    os.kill(keeper, signal.SIGKILL)
    until(lambda: running(b"sleep\x00998\x00") == 0)


def test_it_ends_with_its_container(shop: Shop) -> None:
    run("demo", *SLEEP)
    client = subprocess.Popen(
        [sys.executable, "-m", "minicontainer", "exec", "web", "sh", "-c", "echo ready; sleep 997"],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert client.stdout is not None
    client.stdout.readline()
    minicontainer("kill", "web")
    client.communicate(timeout=30)
    assert client.returncode == 137


# -------------------------------------------------------------------------------------------------------------- attacks


def interpreter() -> str:
    """The digest of the Python that we are."""
    return hashlib.sha256(Path(os.path.realpath(sys.executable)).read_bytes()).hexdigest()


@pytest.mark.parametrize("how", ["exec", "run"])
def test_cve_2019_5736_the_entry_is_the_interpreter_itself(shop: Shop, tmp_path: Path, how: str) -> None:
    (tmp_path / "evil").write_text("#!/proc/self/exe\n")
    (tmp_path / "evil").chmod(0o755)
    (tmp_path / "link").symlink_to("/proc/self/exe")
    run("-v", f"{tmp_path}:/tmp", "demo", *SLEEP)
    for path in ("/tmp/evil", "/tmp/link", "/proc/self/exe", "/proc/1/exe"):
        if how == "run":
            done = shop.run("-v", f"{tmp_path}:/tmp", "demo", path, check=False)
        else:
            done = execute("web", path, check=False)
        assert done.returncode == 126 and "magic link" in done.stderr, path


def test_cve_2019_5736_a_racing_container_never_meets_the_interpreter(shop: Shop) -> None:
    """The entry changes between a shell's script and `#!/proc/self/exe` while we look at it, and somebody inside opens
    /proc/PID/exe of whatever comes by, to write to it later."""
    digest = interpreter()
    run("demo", "sh", "-c", r"""
        printf '#!/bin/sh\necho fine\n' >/tmp/good; printf '#!/proc/self/exe\n' >/tmp/bad; chmod +x /tmp/good /tmp/bad
        ln -s good /tmp/entry; echo x >/tmp/ready
        while :; do ln -sf bad /tmp/entry; ln -sf good /tmp/entry; done &
        while :; do for p in /proc/[2-9]* /proc/[1-9][0-9]*; do
            case "$(readlink $p/exe 2>/dev/null)" in *python*) echo $p >>/tmp/met; echo x >>$p/exe;; esac
        done; done""")  # fmt: skip
    until(lambda: Path(f"/proc/{init_of()}/root/tmp/ready").exists())
    codes = [execute("web", "/tmp/entry", check=False).returncode for _ in range(25)]
    assert set(codes) <= {0, 2, 126, 127}  # 2: the shell finds the link gone
    assert not Path(f"/proc/{init_of()}/root/tmp/met").exists()
    assert interpreter() == digest


HELD = """
import os, signal, sys
from minicontainer import steps
from minicontainer.engine import client, entering
from minicontainer.runtime import enter, init

def stop():
    os.kill(os.getpid(), signal.SIGSTOP)

born = enter.born
enter.born = lambda *a: [step for all in born(*a) for step in
                         ((steps.call(stop, why="held"), all) if all.arguments[0] is init.execute else (all,))]
entering.begin(client.Client().containers, "web", ["sleep", "996"], {}).wait_started()
"""


def test_cve_2016_9962_who_goes_in_cannot_be_looked_into(shop: Shop) -> None:
    """The process is stopped right before its execve, inside, and still ours; the container's root looks at it."""
    run("demo", *SLEEP)
    init = init_of()
    with subprocess.Popen([sys.executable, "-c", HELD]) as client:

        def held() -> int:
            for entry in Path("/proc").glob("[0-9]*"):
                with contextlib.suppress(OSError, ValueError):
                    pid = int(entry.name)
                    if pid != init and os.readlink(entry / "ns/pid") == os.readlink(f"/proc/{init}/ns/pid"):
                        return pid if status(pid, "State")[0].startswith("T") else 0
            return 0

        pid = until(held)
        number = status(pid, "NSpid")[0].split()[-1]
        for name in ("fd", "fd/3", "exe", "root", "cwd", "environ", "maps"):
            command = "ls -l" if name in ("fd", "exe", "root", "cwd") else "cat"
            done = execute("web", "sh", "-c", f"{command} /proc/{number}/{name}", check=False)
            assert "Permission denied" in done.stderr and not re.search("python|socket|->", done.stdout), name
        descriptors = {os.readlink(f"/proc/{pid}/fd/{n}") for n in os.listdir(f"/proc/{pid}/fd")}
        strange = {link for link in descriptors if not re.match(r"/dev/null|pipe:|socket:|/memfd:threshold", link)}
        assert strange == set()
        assert os.path.samestat(os.stat(f"/proc/{pid}/root"), os.stat(f"/proc/{init}/root"))
        os.kill(pid, signal.SIGCONT)
        assert client.wait(30) == 0
    until(lambda: b"996" in Path(f"/proc/{pid}/cmdline").read_bytes())
    assert "->" in execute("web", "ls", "-l", f"/proc/{number}/exe").stdout  # the same look, at a process of its own


def test_what_the_container_makes_of_its_devices_holds_nobody_up(shop: Shop) -> None:
    run("demo", *SLEEP)
    execute("web", "sh", "-c", "rm /dev/null; mknod /dev/null p; echo x >/dev/zero2")
    assert execute("web", "cat").stdout == ""
    execute("-d", "web", "sleep", "994")
    assert running(b"sleep\x00994\x00")


@pytest.mark.parametrize("what", ["c 1 5", "p"])
def test_a_multiplexer_of_terminals_that_is_none(shop: Shop, what: str) -> None:
    """Whoever may mount in there may make /dev/pts/ptmx anything: a device that is never done, a pipe."""
    run(
        "--privileged",
        "demo",
        "sh",
        "-c",
        f"busybox umount /dev/pts; mknod /dev/pts/ptmx {what}; echo x >/r; sleep 100",
    )
    until(lambda: Path(f"/proc/{init_of()}/root/r").exists())
    done = execute("-t", "web", "tty", check=False)
    assert done.returncode and "no multiplexer of terminals" in done.stderr + done.stdout


@pytest.mark.parametrize("how", ["exec", "run"])
def test_cve_2024_21626_the_working_directory_is_inside(shop: Shop, how: str) -> None:
    """Wherever a descriptor of ours may lead, no working directory leads there, nor is one made there."""
    run("demo", *SLEEP)
    before = sorted(os.listdir(shop.root / "containers"))
    refused = 0
    for number in range(2, 14):
        for path in (f"/proc/self/fd/{number}", f"/proc/self/fd/{number}/made"):
            if how == "run":
                done = shop.run("-w", path, "demo", "ls", check=False)
            else:
                done = execute("-w", path, "web", "ls", check=False)
            assert done.returncode in (125, 126) and done.stdout == "", path
            refused += "magic link" in done.stderr  # the others are not open
    assert refused >= 2
    assert sorted(os.listdir(shop.root / "containers")) == before


def test_cve_2024_21626_with_the_hosts_processes_in_sight(shop: Shop) -> None:
    """`--pid host`: /proc/PID/root of the host's processes is the host's."""
    name = f"made-{os.getpid()}"
    for path in (f"/proc/{os.getpid()}/root/tmp/{name}", f"/proc/{os.getpid()}/cwd"):
        done = shop.run("--pid", "host", "-w", path, "demo", "pwd", check=False)
        assert done.returncode == 125 and "magic link" in done.stderr, path
    assert not Path(f"/tmp/{name}").exists()
