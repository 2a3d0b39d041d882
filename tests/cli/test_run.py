"""`run`, flag by flag. What the kernel shows from outside is asserted wherever it shows it."""

import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import leftovers
from tests.conftest import CHECKOUT
from tests.engine_fixtures import Shop, fresh_shop  # noqa: F401

pytestmark = pytest.mark.root

SLEEP = ("sh", "-c", "echo ready; sleep 60")
FOURTEEN = 0xA80425FB  # docker's default capabilities as /proc/PID/status shows them


# --------------------------------------------------------------------------------------------- the command and its end


def test_the_images_command_and_ours(shop: Shop) -> None:
    assert shop.out("demo") == "the default command\n"
    assert shop.out("demo", "echo", "ours") == "ours\n"
    assert shop.out("--entrypoint", "echo", "demo") == "\n"
    assert shop.out("--entrypoint", "echo", "demo", "a b", "c") == "a b c\n"
    assert shop.out("--entrypoint", "", "demo", "echo", "none") == "none\n"


@pytest.mark.parametrize("code", [0, 1, 7, 125, 126, 127, 255])
def test_its_exit_code_is_ours(shop: Shop, code: int) -> None:
    assert shop.run("demo", "sh", "-c", f"exit {code}", check=False).returncode == code


def test_a_signal_is_128_and_its_number(shop: Shop) -> None:
    done = shop.run("--init", "demo", "sh", "-c", "kill -SEGV $$", check=False)
    assert done.returncode == 128 + signal.SIGSEGV
    with shop.start("demo", *SLEEP) as container:
        os.kill(container.pid, signal.SIGKILL)
        assert container.wait() == 128 + signal.SIGKILL


def test_process_1_ignores_what_it_has_no_handler_for(shop: Shop) -> None:
    assert shop.out("demo", "sh", "-c", "kill -TERM $$; kill -9 $$; echo $$ survived") == "1 survived\n"


@pytest.mark.needs("tini")
def test_an_init_of_its_own(shop: Shop) -> None:
    assert "docker-init" in shop.out("--init", "demo", "cat", "/proc/1/cmdline")
    assert shop.run("--init", "demo", "sh", "-c", "exit 9", check=False).returncode == 9
    assert shop.run("--init", "demo", "sh", "-c", "kill -TERM $$", check=False).returncode == 143


# ------------------------------------------------------------------------------------------------------------- signals


@pytest.mark.parametrize("name", ["TERM", "INT", "USR1", "USR2", "HUP", "QUIT", "ALRM", "CONT"])
def test_signals_reach_the_containers_init(shop: Shop, name: str) -> None:
    script = f"trap 'echo got {name}; exit 33' {name}; echo ready; while :; do sleep 0.05; done"
    with shop.start("demo", "sh", "-c", script) as container:
        container.client.send_signal(getattr(signal, f"SIG{name}"))
        assert container.wait() == 33
        assert container.rest == f"got {name}\n"


def test_a_signal_without_a_handler_does_nothing_to_either(shop: Shop) -> None:
    script = "trap 'exit 5' USR1; echo ready; while :; do sleep 0.05; done"
    with shop.start("demo", "sh", "-c", script) as container:
        container.client.send_signal(signal.SIGTERM)
        container.client.send_signal(signal.SIGUSR1)
        assert container.wait() == 5


@pytest.mark.needs("tini")
def test_with_init_a_signal_ends_it(shop: Shop) -> None:
    with shop.start("--init", "demo", *SLEEP) as container:
        container.client.send_signal(signal.SIGTERM)
        assert container.wait() == 128 + signal.SIGTERM


def test_a_killed_client_kills_no_container(shop: Shop) -> None:
    """The monitor stays, and cleans up when the container ends."""
    with shop.start("demo", *SLEEP) as container:
        container.client.kill()
        assert container.client.wait(30) == -signal.SIGKILL
        assert Path(f"/proc/{container.pid}/root/srv").is_dir()
        assert os.path.isdir(shop.root / "containers" / container.id)


# ---------------------------------------------------------------------------------------------------- stdin and stdout


def test_with_i_stdin_is_piped(shop: Shop) -> None:
    assert shop.out("-i", "demo", "cat", stdin="a line\n") == "a line\n"
    assert shop.out("-i", "demo", "wc", "-c", stdin="x" * 3_000_000).strip() == "3000000"


def test_who_writes_much_before_it_reads_waits_for_nobody(shop: Shop) -> None:
    """Its input is more than a pipe and the monitor hold, its output more than waits for a client."""
    done = shop.run("-i", "demo", "sh", "-c", "seq 1000000; wc -c >&2", stdin="x" * 3_000_000)
    assert done.stderr == "3000000\n"
    assert done.stdout == "".join(f"{number}\n" for number in range(1, 1_000_001))


def test_without_i_stdin_is_empty(shop: Shop) -> None:
    assert shop.out("demo", "cat", stdin="a line\n") == ""
    assert shop.out("demo", "readlink", "/proc/self/fd/0") == "/dev/null\n"


def test_a_command_that_ends_early_need_not_read_all(shop: Shop) -> None:
    assert shop.out("-i", "demo", "sh", "-c", "read line; echo $line", stdin="first\n" + "x" * 3_000_000) == "first\n"


def test_much_output_arrives_whole_and_in_its_own_stream(shop: Shop) -> None:
    done = shop.run("demo", "sh", "-c", "seq 300000; seq 200000 >&2")
    assert done.stdout == "".join(f"{number}\n" for number in range(1, 300001))
    assert done.stderr == "".join(f"{number}\n" for number in range(1, 200001))


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_closed_descriptor_is_dev_null(shop: Shop, closed: str) -> None:
    """And not, in the container, the engine's next socket."""
    script = f'"$@" {closed}'
    command = [sys.executable, "-m", "minicontainer", "run", "--rm", "--network", "none", "-i", "demo"]
    command += ["sh", "-c", "echo out; echo err >&2; cat; exit 3"]
    done = subprocess.run(
        ["sh", "-c", script, "sh", *command], stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    assert done.returncode == 3, done.stderr
    assert done.stdout == ("" if ">&-" in closed.replace("2>&-", "") else "out\n")
    assert done.stderr == ("" if "2>&-" in closed else "err\n")


def test_a_reader_that_leaves_ends_the_writer(shop: Shop) -> None:
    """Process 1 gets EPIPE, any other SIGPIPE: Python's own habit of ignoring it is not handed down."""
    command = f"{sys.executable} -m minicontainer run --rm --network none demo sh -c 'yes; echo $? >&2' | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert done.stdout == "y\n"
    assert done.stderr == "141\n"


def test_the_monitor_holds_no_output_open(shop: Shop) -> None:
    """Who reads our output sees its end when the container has closed it."""
    with shop.start("demo", "sh", "-c", "echo ready; exec >/dev/null 2>&1; sleep 60") as container:
        reader = container.client.stdout
        assert reader is not None
        while holders(reader.fileno()) - {
            os.getpid(),
            container.client.pid,
        }:  # if it did, this test would run into its limit
            time.sleep(0.005)


def holders(descriptor: int) -> set[int]:
    """The processes that have this pipe open."""
    pids = [pid for pid in os.listdir("/proc") if pid.isdigit()]
    return {
        int(pid) for pid in pids
        if any(same_pipe(f"/proc/{pid}/fd/{fd}", descriptor) for fd in list_directory(f"/proc/{pid}/fd"))
    }  # fmt: skip


def list_directory(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except OSError:
        return []


def same_pipe(path: str, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except OSError:
        return False


# ------------------------------------------------------------------------------------------------- identity and places


def test_environment_in_dockers_order(shop: Shop) -> None:
    lines = shop.out("-e", "SHAPE=square", "-e", "NEW=1", "--hostname", "h", "demo", "env").splitlines()
    assert lines == [
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/opt",
        "HOSTNAME=h", "HOME=/root", "COLOUR=blue", "SHAPE=square", "NEW=1",
    ]  # fmt: skip


def test_a_variable_of_the_client(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OURS", "passed on")
    monkeypatch.delenv("SHAPE", raising=False)
    text = shop.out("-e", "OURS", "-e", "SHAPE", "demo", "env")
    assert "OURS=passed on\n" in text and "SHAPE" not in text


def test_an_environment_file(shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "env").write_text("A=file\nB=file\n")
    text = shop.out("--env-file", str(tmp_path / "env"), "-e", "A=flag", "demo", "env")
    assert "A=flag\n" in text and "B=file\n" in text


@pytest.mark.parametrize(
    ("user", "uid", "gid", "groups", "home"),
    [
        ("", 0, 0, [0, 10], "/root"),
        ("alice", 1000, 1001, [1001, 10, 50], "/home/alice"),
        ("1000", 1000, 1001, [1001, 10, 50], "/home/alice"),
        ("alice:staff", 1000, 50, [50], "/home/alice"),
        ("alice:7", 1000, 7, [7], "/home/alice"),
        ("1234", 1234, 0, [0], "/"),
        ("1234:5678", 1234, 5678, [5678], "/"),
        (":50", 0, 50, [50], "/root"),
    ],
)
def test_users(shop: Shop, user: str, uid: int, gid: int, groups: list[int], home: str) -> None:
    """The groups include the first one: a file that shuts that out must shut its members out (CVE-2022-36109)."""
    flags = ["-u", user] if user else []
    with shop.start(*flags, "demo", "sh", "-c", "echo $HOME; sleep 60") as container:
        assert container.ready == home
        assert container.status("Uid").split() == [str(uid)] * 4
        assert container.status("Gid").split() == [str(gid)] * 4
        assert sorted(map(int, container.status("Groups").split())) == sorted(groups)


def test_group_add(shop: Shop) -> None:
    with shop.start("-u", "1234", "--group-add", "staff", "--group-add", "77", "demo", *SLEEP) as container:
        assert sorted(map(int, container.status("Groups").split())) == [0, 50, 77]


def test_working_directory(shop: Shop) -> None:
    assert shop.out("demo", "pwd") == "/srv\n"
    assert shop.out("-w", "/etc/../tmp", "demo", "pwd") == "/tmp\n"
    text = shop.out(
        "-u", "alice", "-w", "/made/for/you", "demo", "sh", "-c", "pwd; stat -c '%u %a' /made /made/for/you"
    )
    assert text == "/made/for/you\n0 755\n0 755\n"


def test_hostname(shop: Shop) -> None:
    with shop.start(
        "--hostname", "box.example", "demo", "sh", "-c", "hostname; cat /etc/hostname; sleep 60"
    ) as container:
        assert container.ready == container.line() == "box.example"
        assert container.namespace("uts") != os.readlink("/proc/self/ns/uts")
    with shop.start("demo", "sh", "-c", "hostname; echo $HOSTNAME; sleep 60") as container:
        assert container.ready == container.line() == container.id[:12]


def test_name_label_and_id(shop: Shop, tmp_path: Path) -> None:
    file = tmp_path / "cid"
    with shop.start(
        "--cidfile", str(file), "--label", "a=1", "-l", "b", "demo", *SLEEP, name="well_named"
    ) as container:
        assert file.read_text() == container.id
        assert len(container.id) == 64 and not container.id[:12].isdecimal()
        record = json.loads((shop.root / "containers" / container.id / "record.json").read_text())
        assert record["name"] == "well_named" and record["labels"] == {"a": "1", "b": "", "made": "by hand"}
    assert not (shop.root / "containers/names/well_named").is_symlink()


# ---------------------------------------------------------------------------------------------------------- namespaces


def test_six_namespaces_of_its_own(shop: Shop) -> None:
    with shop.start("demo", "sh", "-c", "echo $$; sleep 60") as container:
        assert container.ready == "1"
        for kind in ("pid", "mnt", "uts", "ipc", "net", "cgroup"):
            assert container.namespace(kind) != os.readlink(f"/proc/self/ns/{kind}"), kind
        assert container.status("NSpid").split() == [str(container.pid), "1"]


@pytest.mark.parametrize(("flag", "kind"), [("--network", "net"), ("--pid", "pid"), ("--ipc", "ipc"), ("--uts", "uts")])
def test_the_hosts_namespaces(shop: Shop, flag: str, kind: str) -> None:
    with shop.start(flag, "host", "demo", "sh", "-c", "hostname; sleep 60") as container:
        assert container.namespace(kind) == os.readlink(f"/proc/self/ns/{kind}")
        for other in {"net", "pid", "ipc", "uts", "mnt"} - {kind}:
            assert container.namespace(other) != os.readlink(f"/proc/self/ns/{other}")
        if kind in ("net", "uts"):
            assert container.ready == os.uname().nodename


def test_the_hosts_shared_memory_and_none(shop: Shop) -> None:
    with shop.start("--ipc", "host", "demo", *SLEEP) as container:
        there, here = os.stat(f"/proc/{container.pid}/root/dev/shm"), os.stat("/dev/shm")
        assert (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)
    with shop.start("--ipc", "none", "demo", *SLEEP) as container:
        assert "/dev/shm" not in container.mounts()


@pytest.mark.parametrize(("flag", "kind"), [("--network", "net"), ("--pid", "pid"), ("--ipc", "ipc")])
def test_another_containers_namespace(shop: Shop, flag: str, kind: str) -> None:
    with (
        shop.start("demo", *SLEEP) as first,
        shop.start(flag, "container:beside", "demo", *SLEEP, name="second") as second,
    ):
        assert second.namespace(kind) == first.namespace(kind)
        assert second.namespace("mnt") != first.namespace("mnt")


@pytest.mark.needs("bridge", "veth", "nftables")
def test_another_containers_network_comes_with_its_names(shop: Shop) -> None:
    with shop.start("--network", "bridge", "--hostname", "first", "demo", "sh", "-c", "hostname -i; sleep 60") as first:
        text = shop.out("--network", "container:beside", "demo", "sh", "-c", "hostname; cat /etc/hosts /etc/hostname")
        assert text.splitlines()[0] == text.splitlines()[-1] == "first"
        assert f"{first.ready}\tfirst\n" in text


def test_without_a_network_there_is_loopback(shop: Shop) -> None:
    text = shop.out("demo", "sh", "-c", "ip -o -4 address; ip route")
    assert "127.0.0.1/8" in text and len(text.splitlines()) == 1


# -------------------------------------------------------------------------------------------------------------- limits


def v1_or_v2(container: "object", controller: str, one: str, two: str) -> str:
    directory: Path = container.cgroup(controller)  # type: ignore[attr-defined]
    path = directory / one
    return (path if path.exists() else directory / two).read_text().strip()


def test_limits_are_in_the_kernels_files(shop: Shop) -> None:
    flags = ["--cpus", "0.5", "--memory", "64m", "--pids-limit", "50", "--cpuset-cpus", "0", "--oom-score-adj", "300"]
    with shop.start(*flags, "demo", *SLEEP) as container:
        assert v1_or_v2(container, "memory", "memory.limit_in_bytes", "memory.max") == str(64 << 20)
        assert v1_or_v2(container, "pids", "pids.max", "pids.max") == "50"
        assert v1_or_v2(container, "cpu", "cpu.cfs_quota_us", "cpu.max").split()[0] == "50000"
        assert container.status("Cpus_allowed_list") == "0"
        assert Path(f"/proc/{container.pid}/oom_score_adj").read_text() == "300\n"


def test_a_fork_bomb_stays_inside(shop: Shop) -> None:
    script = "for i in $(seq 30); do sleep 9 & done; wait"
    done = shop.run("--pids-limit", "10", "demo", "sh", "-c", script, check=False)
    assert done.returncode != 0 and "fork" in done.stderr


def test_more_memory_than_allowed_is_killed(shop: Shop) -> None:
    done = shop.run("--memory", "16m", "demo", "tail", "/dev/zero", check=False)
    assert done.returncode == 128 + signal.SIGKILL


def test_ulimits(shop: Shop) -> None:
    with shop.start("--ulimit", "nofile=100:200", "--ulimit", "core=0", "demo", *SLEEP) as container:
        text = Path(f"/proc/{container.pid}/limits").read_text()
        found = {line[:26].strip(): line[26:].split()[:2] for line in text.splitlines()}
        assert found["Max open files"] == ["100", "200"]
        assert found["Max core file size"] == ["0", "0"]


def test_sysctls(shop: Shop) -> None:
    before = Path("/proc/sys/kernel/msgmax").read_text()
    flags = [
        "--sysctl",
        "net.ipv4.ip_forward=1",
        "--sysctl",
        "kernel.msgmax=12345",
        "--sysctl",
        "net.core.somaxconn=99",
    ]
    files = "cd /proc/sys; cat net/ipv4/ip_forward kernel/msgmax net/core/somaxconn"
    assert shop.out(*flags, "demo", "sh", "-c", files) == "1\n12345\n99\n"
    assert Path("/proc/sys/kernel/msgmax").read_text() == before


# --------------------------------------------------------------------------------------------------------------- files


def test_dev_has_what_docker_has(shop: Shop) -> None:
    names = "fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero"
    with shop.start("demo", *SLEEP) as container:
        root = f"/proc/{container.pid}/root/dev"
        assert sorted(os.listdir(root)) == names.split()
        for name, *number in (("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("tty", 5, 0)):
            info = os.stat(f"{root}/{name}")
            assert stat.S_ISCHR(info.st_mode) and stat.S_IMODE(info.st_mode) == 0o666
            assert [os.major(info.st_rdev), os.minor(info.st_rdev)] == number
        assert os.readlink(f"{root}/ptmx") == "pts/ptmx" and os.readlink(f"{root}/fd") == "/proc/self/fd"


def test_shared_memory_has_its_size(shop: Shop) -> None:
    with shop.start("demo", *SLEEP) as container:
        found = os.statvfs(f"/proc/{container.pid}/root/dev/shm")
        assert found.f_blocks * found.f_frsize == 64 << 20
    with shop.start("--shm-size", "1m", "demo", *SLEEP) as container:
        found = os.statvfs(f"/proc/{container.pid}/root/dev/shm")
        assert found.f_blocks * found.f_frsize == 1 << 20


MASKED = ("/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
          "/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats",
          "/sys/devices/virtual/powercap", "/sys/firmware")  # fmt: skip


def test_masked_paths_show_nothing(shop: Shop) -> None:
    script = (
        "for path; do if [ -d $path ]; then ls -A $path; elif [ -e $path ]; then cat $path; fi; done; "
        "touch /sys/firmware/x /proc/acpi/x 2>/dev/null && echo written"
    )
    done = shop.run("demo", "sh", "-c", script, "sh", *MASKED, check=False)
    assert done.stdout == "" and done.stderr == ""
    assert [path for path in MASKED if os.path.exists(path)], "the host has none of them: nothing was tested"


def test_what_is_read_only_stays_so(shop: Shop) -> None:
    with shop.start("demo", *SLEEP) as container:
        mounts = container.mounts()
        for path in ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/sys"):
            if os.path.exists(path):
                assert "ro" in mounts[path][5].split(","), path
        assert mounts["/proc"][5].split(",")[:4] == ["rw", "nosuid", "nodev", "noexec"]
    done = shop.run("demo", "sh", "-c", "echo 1 >/proc/sys/kernel/panic || mount -o remount,rw /proc/sys", check=False)
    assert done.returncode != 0


def test_nothing_of_the_host_is_mounted_inside(shop: Shop) -> None:
    with shop.start("demo", *SLEEP) as container:
        binds = {point for point, fields in container.mounts().items() if fields[3] not in ("/", "/null")
                 and not point.startswith(("/proc", "/sys"))}  # fmt: skip
        assert binds == {"/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/srv/data"}
        assert all("shared:" not in word for fields in container.mounts().values() for word in fields)


def test_a_read_only_root(shop: Shop) -> None:
    with shop.start("--read-only", "--tmpfs", "/scratch", "demo", *SLEEP) as container:
        assert "ro" in container.mounts()["/"][5].split(",")
    script = "touch /x; touch /etc/x; touch /scratch/ok /dev/shm/ok /srv/data/ok && echo ok"
    done = shop.run("--read-only", "--tmpfs", "/scratch", "demo", "sh", "-c", script)
    assert done.stdout == "ok\n" and done.stderr.count("Read-only file system") == 2


def test_with_a_read_only_root_our_three_files_are_too(shop: Shop) -> None:
    """They lie outside of the root; docker binds them read-only then."""
    done = shop.run(
        "--read-only", "demo", "sh", "-c", "for f in hosts hostname resolv.conf; do echo x >/etc/$f; done", check=False
    )
    assert done.stderr.count("Read-only file system") == 3


def test_devices(shop: Shop) -> None:
    assert shop.run("demo", "sh", "-c", "mknod /tmp/d c 10 229 && cat /tmp/d", check=False).returncode != 0
    flags = ["--device", "/dev/full:/dev/brimming:r", "--device", "/dev/loop-control"]
    with shop.start(*flags, "demo", *SLEEP) as container:
        info = os.stat(f"/proc/{container.pid}/root/dev/brimming")
        assert (os.major(info.st_rdev), os.minor(info.st_rdev)) == (1, 7)
        ours, theirs = os.stat("/dev/loop-control"), os.stat(f"/proc/{container.pid}/root/dev/loop-control")
        assert (ours.st_rdev, ours.st_mode) == (theirs.st_rdev, theirs.st_mode)


# ------------------------------------------------------------------------------------------------------------ security


@pytest.mark.parametrize(
    ("flags", "wanted"),
    [
        ([], FOURTEEN),
        (["--cap-drop", "ALL"], 0),
        (["--cap-drop", "ALL", "--cap-add", "chown"], 1),
        (["--cap-add", "NET_ADMIN"], FOURTEEN | 1 << 12),
        (["--cap-add", "CAP_SYS_ADMIN", "--cap-drop", "mknod"], FOURTEEN & ~(1 << 27) | 1 << 21),
    ],
)
def test_capabilities(shop: Shop, flags: list[str], wanted: int) -> None:
    with shop.start(*flags, "demo", *SLEEP) as container:
        for name in ("CapEff", "CapPrm", "CapBnd"):
            assert int(container.status(name), 16) == wanted, name
        assert int(container.status("CapInh"), 16) == int(container.status("CapAmb"), 16) == 0


def test_a_user_has_none_but_could_have_them(shop: Shop) -> None:
    with shop.start("-u", "alice", "demo", *SLEEP) as container:
        assert int(container.status("CapEff"), 16) == int(container.status("CapPrm"), 16) == 0
        assert int(container.status("CapBnd"), 16) == FOURTEEN


def test_seccomp_and_no_new_privileges(shop: Shop) -> None:
    with shop.start("demo", *SLEEP) as container:
        assert (container.status("Seccomp"), container.status("NoNewPrivs")) == ("2", "0")
    with shop.start("--security-opt", "no-new-privileges", "-u", "alice", "demo", *SLEEP) as container:
        assert (container.status("Seccomp"), container.status("NoNewPrivs")) == ("2", "1")
    with shop.start("--security-opt", "seccomp=unconfined", "demo", *SLEEP) as container:
        assert container.status("Seccomp") == "0"


def test_a_seccomp_profile_of_ones_own(shop: Shop, tmp_path: Path) -> None:
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}],
    }
    (tmp_path / "profile.json").write_text(json.dumps(profile))
    done = shop.run("--security-opt", f"seccomp={tmp_path}/profile.json", "demo", "mkdir", "/tmp/x", check=False)
    assert done.returncode == 1 and "not permitted" in done.stderr


def test_privileged(shop: Shop) -> None:
    with shop.start("--privileged", "demo", *SLEEP) as container:
        ours = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapEff"))
        assert int(container.status("CapEff"), 16) == int(ours.split()[1], 16)
        assert container.status("Seccomp") == "0"
        mounts = container.mounts()
        assert "rw" in mounts["/sys"][5].split(",") and "/proc/sys" not in mounts and "/sys/firmware" not in mounts
        assert os.path.exists(f"/proc/{container.pid}/root/dev/loop-control") == os.path.exists("/dev/loop-control")


def test_it_runs_in_no_more_descriptors_than_three(shop: Shop) -> None:
    with shop.start("demo", *SLEEP) as container:
        assert sorted(os.listdir(f"/proc/{container.pid}/fd")) == ["0", "1", "2"]


def test_it_inherits_no_signal_that_is_ignored_or_blocked(shop: Shop) -> None:
    """Though its client, here, ignores two: what nohup(1) does."""
    command = [sys.executable, "-m", "minicontainer", "run", "--rm", "--network", "none", "demo"]
    words = [
        "sh",
        "-c",
        'trap "" HUP QUIT; exec "$@"',
        "sh",
        *command,
        "grep",
        "-E",
        "Sig(Ign|Blk)",
        "/proc/self/status",
    ]
    text = subprocess.run(words, capture_output=True, text=True).stdout
    assert text == "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n"


# --------------------------------------------------------------------------------------------------------- the network


@pytest.mark.needs("bridge", "veth", "nftables")
def test_the_bridge_and_the_names_on_it(shop: Shop) -> None:
    script = "hostname -i; tail -n 1 /etc/hosts; ip -o link show eth0; ip route; sleep 60"
    with shop.start("--network", "bridge", "--hostname", "h", "demo", "sh", "-c", script) as container:
        address = container.ready
        assert container.line() == f"{address}\th"
        assert "UP" in container.line()
        assert container.line().startswith("default via ")
        cable = leftovers.cables(f"mc0{shop.suffix}")
        assert len(cable) == 1
    servers = shop.out("--network", "bridge", "demo", "cat", "/etc/resolv.conf")
    assert [line for line in servers.splitlines() if line.startswith("nameserver")] == ["nameserver 127.0.0.11"]
    assert "nameserver 127." not in shop.out("--network", "none", "demo", "cat", "/etc/resolv.conf")


@pytest.mark.needs("bridge", "veth", "nftables")
@pytest.mark.parametrize("flag", ["-p", "--publish"])
def test_a_published_port_answers(shop: Shop, flag: str) -> None:
    command = ["nc", "-l", "-p", "80", "-e", "echo", "answer"]
    with shop.start(
        "--network", "bridge", flag, "127.0.0.1:18082:80", "demo", "sh", "-c", f"echo ready; exec {' '.join(command)}"
    ):
        for _ in range(400):
            done = subprocess.run(
                ["busybox", "nc", "-w", "5", "127.0.0.1", "18082"], stdin=subprocess.DEVNULL, capture_output=True
            )
            if done.stdout:
                break
            time.sleep(0.05)  # it does not listen yet
        assert done.stdout == b"answer\n"


def test_no_device_is_made_in_the_hosts_own_dev(shop: Shop) -> None:
    """`-v /dev:/dev` binds the host's directory: what we would make there, the host would have."""
    before = sorted(os.listdir("/dev"))
    done = shop.run("-v", "/dev:/dev/", "--device", "/dev/null:/dev/one-more", "demo", "ls", "/dev", check=False)
    assert "one-more" not in done.stdout
    assert sorted(os.listdir("/dev")) == before


def test_attached_to_what_was_named_alone(shop: Shop) -> None:
    done = shop.run("-i", "-a", "stdin", "-a", "stdout", "plain", "sh", "-c", "cat; echo oops >&2", stdin="typed\n")
    assert (done.stdout, done.stderr) == ("typed\n", "")
    assert "valid streams" in shop.refused(125, "-a", "nosuch", "plain", "true")
    assert "--attach and --detach" in shop.refused(125, "-d", "-a", "stdout", "plain", "true")


def test_the_hosts_network_without_its_hosts(shop: Shop, tmp_path: Path) -> None:
    """A machine without /etc/hosts: here, under an overlay of this command's own that takes it away."""
    (tmp_path / "upper").mkdir()
    (tmp_path / "work").mkdir()
    os.mknod(tmp_path / "upper/hosts", 0o020000, 0)  # a whiteout
    script = 'mount -t overlay -o "lowerdir=/etc,upperdir=$0/upper,workdir=$0/work" overlay /etc; exec "$@"'
    command = [sys.executable, "-m", "minicontainer", "run", "--rm", "--network", "host", "plain", "cat", "/etc/hosts"]
    done = subprocess.run(
        ["unshare", "-m", "sh", "-ec", script, tmp_path, *command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.stdout.startswith("127.0.0.1\tlocalhost\n"), done.stderr


@pytest.mark.parametrize(
    "own", [(), pytest.param(("--userns", "auto"), marks=pytest.mark.needs("idmapped-overlay"))], ids=["plain", "auto"]
)
def test_where_all_mounts_are_shared_as_under_systemd(shop: Shop, tmp_path: Path, own: tuple[str, ...]) -> None:
    """A container starts, has its files, and leaves no mount; in a list of mounts that is the test's own."""
    script = (
        "mount --make-rshared / && cut -d' ' -f5 /proc/self/mountinfo >before && "
        '"$@" && cut -d" " -f5 /proc/self/mountinfo | diff before -'
    )
    words = [sys.executable, "-m", "minicontainer", "run", "--rm", "--network", "none", *own, "-v", "/here", "plain"]
    done = subprocess.run(
        ["unshare", "-m", "sh", "-euc", script, "sh", *words, "sh", "-c", "touch /new /here/new && echo here"],
        cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "here\n"), done.stdout + done.stderr
