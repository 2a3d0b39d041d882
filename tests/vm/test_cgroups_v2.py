"""What only cgroup v2 has, on a kernel that has nothing else: delegation, leaves, cgroup.kill, devices by BPF.

tests/kernel/test_cgroups.py runs here too, and asks the same of both versions.
"""

import errno
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from minicontainer import errors, steps
from minicontainer.kernel import cgroups
from tests.conftest import CHECKOUT, is_systemd

pytestmark = pytest.mark.root
MOUNT = Path("/sys/fs/cgroup")


@pytest.fixture
def path() -> Iterator[str]:
    parent = f"/minicontainer-test-{os.getpid()}"
    yield f"{parent}/one"
    steps.execute(cgroups.remove(parent), {})
    assert not (MOUNT / parent[1:]).exists()


def test_the_machine_is_version_2() -> None:
    assert cgroups.version() == 2
    assert cgroups.usable()
    below = "/system.slice/minicontainer-containers.service" if is_systemd() else "/minicontainer"
    assert cgroups.parent("minicontainer") == below


def test_controllers_are_handed_down(path: str) -> None:
    """subtree_control of each level above; and what was there before stays."""
    before = set((MOUNT / "cgroup.subtree_control").read_text().split())
    steps.execute(cgroups.create(path, {"cpu": {"cpus": "0"}}), {})
    for level in (MOUNT, MOUNT / path[1:].partition("/")[0]):
        assert {"cpu", "cpuset", "memory", "pids"} <= set((level / "cgroup.subtree_control").read_text().split())
    assert before <= set((MOUNT / "cgroup.subtree_control").read_text().split())
    assert {"cpu", "cpuset", "memory", "pids"} <= set((MOUNT / path[1:] / "cgroup.controllers").read_text().split())
    assert {step.verb for step in cgroups.create(path, {})} == {"mkdir"}  # the second time nothing is left to hand down


def test_files_read_back(path: str) -> None:
    resources = {
        "cpu": {"shares": 1024, "quota": 50000, "period": 100000},
        "memory": {"limit": 64 << 20, "swap": 64 << 20, "reservation": 32 << 20},
        "pids": {"limit": 50},
    }
    steps.execute(cgroups.create(path, resources), {})
    files = ("cpu.weight", "cpu.max", "memory.max", "memory.swap.max", "memory.low", "pids.max")
    assert [(MOUNT / path[1:] / file).read_text().strip() for file in files] == [
        "100", "50000 100000", "67108864", "0", "33554432", "50",
    ]  # fmt: skip


def test_disks_are_weighed_by_cost_where_bfq_is_not(path: str) -> None:
    """The same number as runc and crun write then; where the scheduler's module is, its own file has it as it is."""
    steps.execute(cgroups.create(path, {"blockIO": {"weight": 500}}), {})
    bfq = MOUNT / path[1:] / "io.bfq.weight"
    if bfq.exists():
        assert bfq.read_text() == "default 500\n"
    else:
        assert (MOUNT / path[1:] / "io.weight").read_text() == "default 4950\n"


def test_kill_reaches_everything_below(path: str) -> None:
    """A hundred processes at two depths, one of which forks without end; gone when `remove` returns."""
    steps.execute(cgroups.create(path, {"pids": {"limit": 200}}), {})
    below = MOUNT / path[1:] / "below"
    below.mkdir()
    script = f"import os, time; open('{below}/cgroup.procs', 'w').write('0'); print(flush=True)\n" + (
        "while True:\n try:\n  os.fork()\n except OSError: time.sleep(0.01)"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    end = time.monotonic() + 60
    while len(cgroups.processes(path)) <= 10:
        assert time.monotonic() < end
        time.sleep(0.05)
    steps.execute(cgroups.remove(path), {})
    assert not (MOUNT / path[1:]).exists()
    process.wait(60)
    process.stdout.close()


def test_an_inner_cgroup_is_emptied_into_a_leaf(path: str) -> None:
    """ "No internal processes": as in a delegated scope that our own shell sits in."""
    scope = MOUNT / path[1:]
    scope.mkdir(parents=True)
    process = subprocess.Popen(["sleep", "60"])
    (scope / "cgroup.procs").write_text(str(process.pid))
    cgroups.move_to_leaf(str(scope))
    assert (scope / "cgroup.procs").read_text() == ""
    assert (scope / cgroups.LEAF / "cgroup.procs").read_text().split() == [str(process.pid)]
    process.kill()
    process.wait()


def test_without_delegation_a_limit_is_refused_by_name() -> None:
    """`unshare -Ur`, as anybody: root of a user namespace, at the top of a hierarchy that nobody delegated."""
    script = (
        "from minicontainer.kernel import cgroups\n"
        "print(list(cgroups.create('/x/y', {'devices': cgroups.default_devices()})))\n"
        "try: list(cgroups.create('/x/y', {'memory': {'limit': 1 << 20}}))\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    shell = ["sh", "-c", 'echo $$ >/sys/fs/cgroup/cgroup.procs; exec unshare -Ur "$@"', "sh"]
    done = subprocess.run([*shell, sys.executable, "-c", script], capture_output=True, text=True, check=True)
    nothing, refusal = done.stdout.splitlines()
    assert nothing == "[]"
    assert refusal.startswith("Unsupported memory.max needs the cgroup controller `memory`") and "Delegate" in refusal


@pytest.fixture
def lent(path: str) -> Path:
    """A cgroup that belongs to an ordinary user, as `systemd-run --user --scope -p Delegate=yes` gives it."""
    scope = MOUNT / path[1:]
    steps.execute(cgroups.create(path, {}), {})
    for file in (scope, scope / "cgroup.procs", scope / "cgroup.subtree_control", scope / "cgroup.threads"):
        os.chown(file, 65534, 65534)
    return scope


def test_with_delegation_a_user_namespace_has_limits(path: str, lent: Path) -> None:
    script = (
        "from pathlib import Path\nfrom minicontainer import steps\nfrom minicontainer.kernel import cgroups\n"
        "p = cgroups.parent('mini') + '/inner'; r = {'pids': {'limit': 7}}\n"
        "steps.execute(cgroups.create(p, r), {}); steps.execute(cgroups.enter(p, r), {})\n"
        "print(p, Path('/sys/fs/cgroup' + p + '/pids.max').read_text().strip(), Path('/proc/self/cgroup').read_text())"
    )
    shell = f"echo $$ > {lent}/cgroup.procs && exec setpriv --reuid 65534 --regid 65534 --clear-groups unshare -Ur "
    done = subprocess.run(["sh", "-c", shell + '"$0" -c "$1"', sys.executable, script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [f"{path}/mini/inner", "7", f"0::{path}/mini/inner"]


@pytest.mark.needs("busybox")
def test_an_ordinary_users_bundle_lies_in_the_cgroup_that_was_lent_to_him(lent: Path) -> None:
    """Made, limited, changed from another cgroup of his, entered and removed there."""
    with tempfile.TemporaryDirectory() as place:
        os.makedirs(f"{place}/rootfs/bin")
        for name in ("sleep", "cat"):
            shutil.copy(shutil.which("busybox") or "", f"{place}/rootfs/bin/{name}")
        subprocess.run(["chown", "-R", "65534:65534", place], check=True)

        def oci(*words: str, inside: Path = lent) -> str:
            enter = f"cd {inside}; if [ -e processes ]; then cd processes; fi; echo $$ >cgroup.procs || exit 1"
            drop = "exec setpriv --reuid 65534 --regid 65534 --clear-groups"
            command = [sys.executable, "-m", "minicontainer", "oci", "--root", f"{place}/state", *words]
            shell = ["sh", "-c", f'{enter}; cd {CHECKOUT}; {drop} "$@"', "sh", *command]
            with open(f"{place}/said", "w+") as said:  # no pipe: the container keeps it open
                done = subprocess.run(shell, stdin=subprocess.DEVNULL, stdout=said, stderr=said, timeout=60)
                said.seek(0)
                told = said.read()
            assert done.returncode == 0, told
            return told

        oci("spec", "--rootless", "--bundle", place)
        config = json.loads(Path(place, "config.json").read_text())
        config["process"]["args"] = ["sleep", "1000"]
        config["linux"]["resources"] = {"pids": {"limit": 7}}
        Path(place, "config.json").write_text(json.dumps(config))
        oci("create", "--bundle", place, "one")
        oci("start", "one")
        pid = json.loads(oci("state", "one"))["pid"]
        where = f"0::/{lent.relative_to(MOUNT)}/one\n"
        assert Path(f"/proc/{pid}/cgroup").read_text() == where
        assert (lent / "one/pids.max").read_text() == "7\n"
        assert oci("exec", "one", "cat", "/proc/self/cgroup") == where
        (lent / "other").mkdir()
        os.chown(lent / "other", 65534, 65534)
        for file in ("cgroup.procs", "cgroup.subtree_control"):
            os.chown(lent / "other" / file, 65534, 65534)
        oci("update", "--pids-limit", "9", "one", inside=lent / "other")
        assert (lent / "one/pids.max").read_text() == "9\n"
        oci("delete", "--force", "one")
        assert not (lent / "one").exists() and not (lent / "sys").exists()


def test_the_last_device_program_decides_for_the_whole_cgroup(path: str, tmp_path: Path) -> None:
    """Attached with ALLOW_MULTI: a cgroup below may deny more, and cannot allow more."""
    steps.execute(cgroups.create(path, {"devices": cgroups.default_devices()}), {})
    below = MOUNT / path[1:] / "below"
    below.mkdir()
    cgroups.guard_devices(str(below), [{"allow": True, "access": "rwm"}])
    os.mknod(tmp_path / "kmsg", 0o020666, os.makedev(1, 11))
    script = (
        f"open('{below}/cgroup.procs', 'w').write('0'); open('/dev/null').close()\n"
        f"try: open('{tmp_path}/kmsg')\nexcept OSError as error: print(error.errno)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(errno.EPERM)]


def test_a_controller_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.setattr(cgroups, "_first_line", lambda file: "cpu pids" if file.endswith("cgroup.controllers") else "")
    with pytest.raises(errors.Unsupported, match=r"memory.max needs the cgroup controller `memory`"):
        list(cgroups.create(path, {"memory": {"limit": 1 << 20}}))
