"""Each lab's adapter.py: the reference solution behind `run --lab`, and a trace of it in the container."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from minicontainer.kernel import cgroups
from minicontainer.teach import lab
from tests import leftovers
from tests.conftest import minicontainer

pytestmark = [pytest.mark.root, pytest.mark.needs("overlay", "busybox", "libseccomp")]


@pytest.fixture(scope="module", autouse=True)
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A store with busybox, and nothing left in it when all is done."""
    with leftovers.store_with_busybox(tmp_path_factory.mktemp("adapters") / "store") as made:
        yield made
        assert leftovers.none_within(made, leftovers.suffix(made)) == []


def run(topic: str, script: str, *flags: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """A container with the reference of this lab in the package's place."""
    word = f"{topic}={lab.get(topic).solution}"
    return minicontainer(
        "run", "--rm", "--network", "none", "--lab", word, *flags, "busybox", "sh", "-c", script, check=check
    )


def test_process_1_is_the_learners() -> None:
    script = "echo $$; (sleep 0.2; echo orphan) & exit 7"
    done = run("process", script, check=False)
    assert (done.returncode, done.stdout) == (7, "2\norphan\n"), done.stderr
    plain = minicontainer("run", "--rm", "--network", "none", "busybox", "sh", "-c", script, check=False)
    assert (plain.returncode, plain.stdout) == (7, "1\n"), "without the lab, the orphan ends with process 1"


def test_namespaces_are_made_by_the_learners() -> None:
    done = run("namespaces", "hostname; echo $$; ls /sys/class/net", "--hostname", "mine", "--explain")
    assert done.stdout == "mine\n1\nlo\n"
    assert done.stderr.count("lab.isolate(") == 2, "once by the parent, for pid, and once by the child"
    assert "unshare(" not in done.stderr


def test_the_root_is_the_learners_and_cannot_be_written() -> None:
    places = "for file in /tmp/x /run/x /dev/shm/x /etc/x /etc/hosts /x; do echo x >$file && echo $file; done"
    done = run("rootfs", f"({places}) 2>/dev/null; grep -c ' / / ' /proc/self/mountinfo")
    assert done.stdout == "/tmp/x\n/run/x\n/dev/shm/x\n1\n", done.stderr


def test_a_root_without_overlay() -> None:
    done = run("layers", "head -n 1 /proc/self/mountinfo; echo kept >/new; cat /new")
    assert " / / " not in done.stdout and " - overlay" not in done.stdout, done.stdout
    assert done.stdout.endswith("\nkept\n")


KINDS = ("cgroup", "ipc", "mnt", "net", "pid", "uts")
LIMITS = ("--cpus", "0.5", "--memory", "64m", "--pids-limit", "50")


def test_every_concept_at_once(root: Path, tmp_path: Path) -> None:
    """`--lab all=`: what the kernel says of a container that is the learner's in every respect, and of its end."""
    for one in lab.every():
        (tmp_path / one.name).mkdir()
        shutil.copy(one.solution, tmp_path / one.name / "lab.py")
    flags = ("--name", "whole", "--hostname", "mine", "--lab", f"all={tmp_path}", *LIMITS)
    script = "hostname >/tmp/name; sleep 1000 & wait"
    said = minicontainer("run", "-d", "--explain", *flags, "busybox", "sh", "-c", script).stderr
    try:
        for function in ("adopt", "isolate", "pivot", "stack", "wire", "limit", "arrange", "keep"):
            assert f"the learner's {function}()" in said, f"the learner's {function} was no part of it"
        (facts,) = json.loads(minicontainer("inspect", "whole").stdout)
        process = Path(f"/proc/{facts['State']['Pid']}")
        same = [kind for kind in KINDS if os.readlink(process / "ns" / kind) == os.readlink(f"/proc/self/ns/{kind}")]
        assert same == []
        (at_root,) = (line for line in (process / "mountinfo").read_text().splitlines() if line.split()[4] == "/")
        assert at_root.split()[5].startswith("ro") and " - overlay " in at_root and "userxattr" in at_root
        assert "CapBnd:\t00000000a80425fb" in (process / "status").read_text()
        done = minicontainer("exec", "whole", "sh", "-c", "until [ -s /tmp/name ]; do :; done; cat /tmp/name")
        assert done.stdout == "mine\n"
        address = facts["NetworkSettings"]["IPAddress"]
        assert subprocess.run(["ping", "-c", "1", "-W", "5", address], stdout=subprocess.DEVNULL).returncode == 0
        minicontainer("kill", "whole")
        assert minicontainer("wait", "whole").stdout == "137\n"
    finally:
        minicontainer("rm", "-f", "whole", check=False)
    assert leftovers.none_within(root, leftovers.suffix(root)) == []


def test_a_cable_is_the_learners_and_ports_lead_through_it() -> None:
    script = "ping -c 1 -q $(ip route | sed -n 's/default via \\([0-9.]*\\).*/\\1/p') && echo hello | nc -l -p 80"
    number = free_port()
    command = [sys.executable, "-m", "minicontainer", "run", "--rm", "--name", "wired", "-p", f"{number}:80"]
    command += ["--lab", f"bridge={lab.get('bridge').solution}", "busybox", "sh", "-c", script]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as started:
        try:
            assert ask(number, started) == b"hello\n"
        finally:
            started.terminate()
        assert started.stdout and " 0% packet loss" in started.stdout.read()


def free_port() -> int:
    """One that nobody has now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def ask(number: int, server: subprocess.Popen[str], seconds: float = 60) -> bytes:
    """What comes from that port of this machine, once somebody listens there."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and server.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", number), 20) as connection:
            if said := connection.recv(100):
                return said
        time.sleep(0.05)
    pytest.fail(f"nobody answers at port {number}; run has ended with {server.poll()}")


def test_limits_are_the_learners_and_other_limits_are_kept() -> None:
    files = {
        1: "pids/pids.max memory/memory.limit_in_bytes cpu/cpu.cfs_quota_us cpu/cpu.shares",
        2: "pids.max memory.max cpu.max cpu.weight",
    }[cgroups.version()]
    flags = ("--cpus", "0.5", "--memory", "64m", "--pids-limit", "20", "--cpu-shares", "2048")
    done = run("cgroups", f"cd /sys/fs/cgroup; cat {files}", *flags, "--explain")
    said = {1: ["20", str(64 << 20), "50000", "2048"], 2: ["20", str(64 << 20), "50000 100000", "174"]}
    assert done.stdout.splitlines() == said[cgroups.version()]
    performed = [line for line in done.stderr.splitlines() if " ms " in line]
    assert any("lab.limit(" in line for line in performed)
    assert [line for line in performed if "pids.max" in line] == [], "what the learner writes is written once"


def test_a_limit_alone_is_the_packages() -> None:
    done = run("cgroups", "true", "--pids-limit", "20", "--explain")
    assert "lab.limit(" not in done.stderr and "pids.max" in done.stderr


def test_mounts_are_the_learners_in_their_order(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("hello\n")
    (tmp_path / "inside").mkdir()
    flags = ("-v", f"{tmp_path}:/data:ro", "--tmpfs", "/data/inside", "-v", f"{tmp_path}:/slave:rslave", "--explain")
    script = "cat /data/file; touch /data/x || touch /data/inside/x; grep -o ' /[a-z/]* .*tmpfs' /proc/self/mountinfo"
    done = run("mounts", f"{script}; cat /etc/hostname", *flags, "--hostname", "mine")
    lines = done.stdout.splitlines()
    assert (lines[0], lines[-1]) == ("hello", "mine") and any(" /data/inside " in line for line in lines), done.stdout
    assert not (tmp_path / "x").exists() and not (tmp_path / "inside" / "x").exists()
    assert "lab.arrange(" in done.stderr
    assert "mounts.bind(" in done.stderr, "lab 10 knows no word for rslave: that one is the package's"


def test_capabilities_are_given_up_by_the_learners() -> None:
    done = run("security", "grep Cap /proc/self/status", "--cap-drop", "ALL", "--cap-add", "NET_RAW", "--explain")
    sets = dict(line.split() for line in done.stdout.splitlines())
    raw = 1 << 13
    assert {name: int(value, 16) for name, value in sets.items()} == {
        "CapInh:": 0, "CapPrm:": raw, "CapEff:": raw, "CapBnd:": raw, "CapAmb:": 0,
    }  # fmt: skip
    assert "lab.keep(" in done.stderr and "set_capabilities(" not in done.stderr
