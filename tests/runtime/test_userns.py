"""An ordinary user, who is root of a user namespace only: what works as everywhere, and what is refused by name."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import engine_fixtures
from tests.conftest import need

pytestmark = [pytest.mark.userns, pytest.mark.needs("user-namespace", "user-overlay", "libseccomp", "unshare")]

COMMAND = [sys.executable, "-m", "minicontainer"]
FOURTEEN = 0xA80425FB


class Ordinary:
    """This user's store, and the command as it is typed: `unshare -Ur minicontainer …`."""

    def __init__(self, directory: Path) -> None:
        self.root = directory / "store"
        self.runtime = directory / "run"
        self.runtime.mkdir(mode=0o700)
        self.environment = {
            "PATH": os.environ["PATH"], "HOME": str(directory), "MINICONTAINER_ROOT": str(self.root),
            "XDG_RUNTIME_DIR": str(self.runtime), "PYTHONDONTWRITEBYTECODE": "1",
        }  # fmt: skip

    def __call__(self, *words: str, unshare: str = "-Ur", check: bool = True) -> subprocess.CompletedProcess[str]:
        before = ["unshare", unshare] if unshare else []
        done = subprocess.run(
            [*before, *COMMAND, *words], env=self.environment, capture_output=True, text=True, timeout=60,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert not check or done.returncode == 0, done.stderr
        return done

    def out(self, *words: str, network: str = "none", unshare: str = "-Ur") -> str:
        """What a container writes."""
        return self("run", "--rm", "--network", network, *words, unshare=unshare).stdout

    def refused(self, *words: str, code: int = 125, unshare: str = "-Ur") -> str:
        """The sentence with which a run is refused, which leaves nothing."""
        done = self("run", "--rm", *words, unshare=unshare, check=False)
        assert done.returncode == code, done.stderr
        assert len(done.stderr.splitlines()) == 1 and "Traceback" not in done.stderr
        assert self.left() == []
        return done.stderr

    def left(self) -> list[str]:
        """What containers have left in the store, beside it, or mounted."""
        found = [path for path in (self.root / "containers").glob("*") if path.name != "names"]
        found += (self.root / "containers/names").glob("*")
        found += [path for path in self.runtime.glob("minicontainer*/*") if len(path.name) == 64]
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
        return [*map(str, found), *[line for line in mounts if str(self.root) in line]]


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Ordinary:
    need("user-namespace", "user-overlay", "libseccomp")
    made = Ordinary(tmp_path_factory.mktemp("ordinary"))
    archive = made.root.parent / "images.tar"
    archive.write_bytes(engine_fixtures.archive(engine_fixtures.images()))
    made("load", "-i", str(archive))
    return made


@pytest.fixture
def user(filled: Ordinary) -> Iterator[Ordinary]:
    """Each test leaves nothing behind."""
    yield filled
    assert filled.left() == []


class Running:
    """A container beside the test; `pid` is its init as we, outside of it, number it."""

    def __init__(self, user: Ordinary, *flags: str, unshare: str = "-Ur") -> None:
        words = [*COMMAND, "run", "--rm", "--name", "beside", *flags, "demo", "sh", "-c", "echo ready; sleep 60"]
        self.client = subprocess.Popen(
            ["unshare", unshare, *words], env=user.environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.user = user

    def __enter__(self) -> "Running":
        assert self.client.stdout is not None
        assert self.client.stdout.readline() == "ready\n", self.client.communicate()[1]
        identifier = os.readlink(self.user.root / "containers/names/beside")
        while not (found := list(self.user.runtime.glob(f"minicontainer*/{identifier}/state.json"))):
            time.sleep(0.002)
        self.pid: int = json.loads(found[0].read_text())["pid"]
        self.status = dict(
            line.split(":\t", 1) for line in Path(f"/proc/{self.pid}/status").read_text().splitlines() if ":\t" in line
        )
        lines = Path(f"/proc/{self.pid}/mountinfo").read_text().splitlines()
        self.mounts = {line.split()[4]: line for line in lines}
        return self

    def __exit__(self, *_: object) -> None:
        os.kill(self.pid, 9)
        self.client.communicate(timeout=30)


def test_without_a_user_namespace_two_ways_are_named(user: Ordinary) -> None:
    said = user.refused("demo", "true", unshare="")
    assert "sudo" in said and "unshare -Ur" in said


def test_and_nothing_is_made_before(tmp_path: Path) -> None:
    nobody = Ordinary(tmp_path)
    nobody.refused("demo", "true", unshare="")
    assert not nobody.root.exists() and list(nobody.runtime.iterdir()) == []


def test_it_is_root_inside_and_we_outside(user: Ordinary) -> None:
    with Running(user, "--network", "none") as container:
        assert container.status["Uid"].split() == [str(os.getuid())] * 4
        assert Path(f"/proc/{container.pid}/uid_map").read_text().split() == ["0", str(os.getuid()), "1"]
        assert Path(f"/proc/{container.pid}/setgroups").read_text() == "deny\n"
        for kind in ("user", "pid", "mnt", "uts", "ipc", "net", "cgroup"):
            assert os.readlink(f"/proc/{container.pid}/ns/{kind}") != os.readlink(f"/proc/self/ns/{kind}"), kind
        assert container.status["Seccomp"] == "2"
        assert int(container.status["CapEff"], 16) == int(container.status["CapBnd"], 16) == FOURTEEN
    assert user.out("demo", "sh", "-c", "id -u; id -g; echo $$") == "0\n0\n1\n"


def test_devices_are_bound_not_made(user: Ordinary) -> None:
    with Running(user, "--network", "none") as container:
        for name, number in (("null", (1, 3)), ("zero", (1, 5)), ("urandom", (1, 9)), ("tty", (5, 0))):
            info = os.stat(f"/proc/{container.pid}/root/dev/{name}")
            assert (os.major(info.st_rdev), os.minor(info.st_rdev)) == number
            assert f" /{name} /dev/{name} " in container.mounts[f"/dev/{name}"]
    assert user.out("demo", "sh", "-c", "echo gone >/dev/null; head -c 3 /dev/zero | wc -c").strip() == "3"


def test_the_overlay_is_the_users_own(user: Ordinary) -> None:
    """Its attributes are user.overlay.*: whiteouts and opaque directories work."""
    with Running(user, "--network", "none") as container:
        assert "userxattr" in container.mounts["/"]
    script = (
        "rm /etc/passwd; [ -e /etc/passwd ] || echo gone; rm -r /opt; mkdir /opt; ls -A /opt; touch /opt/f; ls /opt"
    )
    assert user.out("demo", "sh", "-c", script) == "gone\nf\n"


def test_masked_and_read_only_paths_are_so_too(user: Ordinary) -> None:
    with Running(user, "--network", "none") as container:
        for path in ("/proc/sys", "/proc/bus", "/sys"):
            assert " ro," in container.mounts[path], path
        for path in ("/proc/keys", "/proc/timer_list"):
            assert not os.path.exists(path) or "/null" in container.mounts[path]


def test_exit_codes(user: Ordinary) -> None:
    assert user("run", "--rm", "--network", "none", "demo", "sh", "-c", "exit 7", check=False).returncode == 7
    assert "not found" in user.refused("--network", "none", "demo", "nosuch", code=127)
    assert "denied" in user.refused("--network", "none", "demo", "/etc", code=126)


def test_files_go_in_and_out(user: Ordinary, tmp_path: Path) -> None:
    """What root makes inside belongs to us outside."""
    flags = ["-v", f"{tmp_path}:/x", "-v", "kept:/data", "--tmpfs", "/t", "--read-only", "--shm-size", "1m"]
    user.out(*flags, "demo", "sh", "-c", "echo 1 >/x/one; echo 2 >/data/two; echo 3 >/t/three")
    assert (tmp_path / "one").read_text() == "1\n" and (tmp_path / "one").stat().st_uid == os.getuid()
    assert user.out("-v", "kept:/data:ro", "demo", "cat", "/data/two") == "2\n"
    user("volume", "rm", "kept")


def test_a_read_only_bind(user: Ordinary, tmp_path: Path) -> None:
    done = user("run", "--rm", "--network", "none", "-v", f"{tmp_path}:/x:ro", "demo", "touch", "/x/y", check=False)
    assert done.returncode == 1 and "Read-only" in done.stderr


def test_a_terminal(user: Ordinary) -> None:
    assert user.out("-t", "demo", "tty") == "/dev/pts/0\n"


def test_flags_that_need_nothing_of_the_machine(user: Ordinary) -> None:
    flags = ["--hostname", "h", "--sysctl", "net.core.somaxconn=77", "--ulimit", "nofile=99:99", "--cap-drop", "ALL"]
    script = "hostname; cat /proc/sys/net/core/somaxconn; ulimit -n; grep CapEff /proc/self/status"
    assert user.out(*flags, "demo", "sh", "-c", script).split() == ["h", "77", "99", "CapEff:", "0" * 16]


@pytest.mark.parametrize(
    ("flag", "what"), [("--memory=64m", "memory"), ("--cpus=0.5", "cpu"), ("--pids-limit=9", "pids")]
)
def test_a_limit_without_delegation_is_refused_by_name(user: Ordinary, flag: str, what: str) -> None:
    said = user.refused("--network", "none", flag, "demo", "true")
    assert what in said and "delegated" in said


def test_groups_and_users_that_are_not_mapped_are_refused_by_name(user: Ordinary) -> None:
    assert "--group-add" in user.refused("--network", "none", "--group-add", "staff", "demo", "true")
    assert "1000" in user.refused("--network", "none", "-u", "1000", "demo", "true")


def test_the_network_around_it_is_not_its_own(user: Ordinary) -> None:
    """Without -n it can be shared or left out, but no bridge can be put into it."""
    said = user.refused("demo", "true")
    assert "--network none" in said and "unshare -Urn" in said
    with Running(user, "--network", "host") as container:
        assert os.readlink(f"/proc/{container.pid}/ns/net") == os.readlink("/proc/self/ns/net")


def test_the_pid_namespace_of_the_host(user: Ordinary) -> None:
    with Running(user, "--network", "none", "--pid", "host") as container:
        assert os.readlink(f"/proc/{container.pid}/ns/pid") == os.readlink("/proc/self/ns/pid")
        assert container.status["NSpid"].split() == [str(container.pid)]


@pytest.mark.needs("bridge", "veth", "nftables")
def test_in_a_network_namespace_of_its_own_the_bridge_works(user: Ordinary) -> None:
    script = (
        "ip -o -4 address show eth0 >&2; gateway=$(ip route | sed -n 's/^default via \\([^ ]*\\).*/\\1/p'); "
        "busybox ping -c 1 -W 5 $gateway >/dev/null && echo reached"
    )
    done = user("run", "--rm", "-p", "8080:80", "demo", "sh", "-c", script, unshare="-Urn")
    assert done.stdout == "reached\n" and "inet " in done.stderr


@pytest.mark.needs("bridge", "veth", "nftables")
def test_two_containers_in_one_such_namespace_reach_one_another(user: Ordinary) -> None:
    """Both clients live in one `unshare -Urn`; the second asks the first."""
    run = f"{' '.join(COMMAND)} run --rm"
    script = (
        f"{run} --name server demo sh -c 'hostname -i; exec nc -l -p 7000 -e echo hello' >{user.root}/address & "
        f"until [ -s {user.root}/address ]; do sleep 0.05; done; read address <{user.root}/address; "
        f'{run} demo sh -c "until nc -w 5 $address 7000 </dev/null; do sleep 0.1; done"; wait'
    )
    done = subprocess.run(
        ["unshare", "-Urn", "sh", "-c", script], env=user.environment, capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "hello\n", done.stderr


def test_the_store_is_refused_under_another_id_map(user: Ordinary) -> None:
    """Its owners and attributes would mean something else there."""
    done = user("images", unshare="", check=False)
    assert done.returncode == 1
    assert "user namespace" in done.stderr and "MINICONTAINER_ROOT" in done.stderr
    assert "demo" not in done.stdout


def test_exec_from_inside_and_from_outside(user: Ordinary) -> None:
    """In the user namespace of the container, and as the ordinary user that made it, who enters that too."""
    script = (
        f"{' '.join(COMMAND)} run -d --name lives --network none demo sleep 1000 >/dev/null && "
        f"{' '.join(COMMAND)} exec lives sh -c 'id -u; echo $$ >/tmp/pid; cat /etc/hostname | wc -l; exit 7'"
    )
    done = subprocess.run(["unshare", "-Ur", "sh", "-c", script], env=user.environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (7, "0\n1\n"), done.stderr
    try:
        done = user(
            "exec",
            "-u",
            "0",
            "lives",
            "sh",
            "-c",
            "id -u; cat /proc/self/uid_map; tr '\\0' ' ' </proc/1/cmdline",
            unshare="",
        )
        assert done.stdout.split() == ["0", "0", str(os.getuid()), "1", "sleep", "1000"]
        refused = user("exec", "lives", "true", check=False)  # a user namespace beside it
        assert refused.returncode == 1 and "without unshare" in refused.stderr
    finally:
        user("rm", "-f", "lives")
