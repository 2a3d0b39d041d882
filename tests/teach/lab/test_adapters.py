"""Each lab's adapter.py: the reference solution behind `run --lab`, and a trace of it in the container."""

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
