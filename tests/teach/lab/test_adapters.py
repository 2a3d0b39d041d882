"""Each lab's adapter.py: the reference solution behind `run --lab`, and a trace of it in the container."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

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
