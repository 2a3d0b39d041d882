"""cgroup v2 where systemd is process 1, as on most hosts: it owns the tree, and delegates a part of it to us.

Runs in `./dev vm --systemd`, and on any host that is like that. Asks systemd and the kernel, not us.
"""

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from minicontainer import errors, host, steps
from minicontainer.kernel import cgroups
from minicontainer.runtime import spec
from minicontainer.teach import lab as labs
from minicontainer.teach.grade import records
from tests.conftest import minicontainer, need

pytestmark = pytest.mark.root
MOUNT = Path("/sys/fs/cgroup")
COMMAND = (sys.executable, "-m", "minicontainer")


def show(unit: str) -> dict[str, str]:
    """What systemd knows of a unit."""
    names = "LoadState,ActiveState,Delegate,ControlGroup,TasksMax,OOMPolicy,TimeoutStopUSec,MainPID"
    done = subprocess.run(["systemctl", "show", "-p", names, unit], capture_output=True, text=True, check=True)
    return dict(line.split("=", 1) for line in done.stdout.splitlines())


def systemctl(*arguments: str) -> None:
    subprocess.run(["systemctl", *arguments], check=True, timeout=60)


@pytest.fixture(scope="module")
def unit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The service of a store of this file's own, which has the image busybox; `system reset` takes it away."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINICONTAINER_ROOT", str(tmp_path_factory.mktemp("store")))
        minicontainer("bootstrap", "busybox")
        name = f"minicontainer{host.suffix()}-containers.service"
        assert show(name)["LoadState"] == "not-found"
        yield name
        minicontainer("system", "reset", "--force")
        assert show(name)["LoadState"] == "not-found"
        assert not (MOUNT / "system.slice" / name).exists()


@pytest.fixture(scope="module")
def sleeper(unit: str) -> Iterator[Path]:
    """The cgroup of a container that sleeps under three limits, until one of the tests ends it."""
    process = subprocess.Popen(
        [*COMMAND, "run", "--rm", "--network", "none", "--cpus", "0.5", "--memory", "64m", "--pids-limit", "20",
         "busybox", "sh", "-c", "trap exit TERM; echo up; sleep 300 & wait"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    [cgroup] = [path for path in (MOUNT / "system.slice" / unit).iterdir() if len(path.name) == 64]
    yield cgroup
    process.terminate()
    process.wait(30)
    process.stdout.close()


def limits(cgroup: Path) -> list[str]:
    return [(cgroup / file).read_text().strip() for file in ("cpu.max", "memory.max", "pids.max")]


WANTED = ["50000 100000", str(64 << 20), "20"]


def test_five_first_starts_at_once_make_one_service(unit: str) -> None:
    """Nobody is refused, whoever is first; and none has seen systemd's cgroup half made."""
    script = "cat /sys/fs/cgroup/pids.max"
    begun = [
        subprocess.Popen(
            [*COMMAND, "run", "--rm", "--network", "none", "--pids-limit", str(20 + n), "busybox", "sh", "-c", script],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for n in range(5)
    ]  # fmt: skip
    said = [process.communicate(timeout=100) for process in begun]
    assert said == [(f"{20 + n}\n", "") for n in range(5)]
    assert show(unit)["ActiveState"] == "active"
    assert [path.name for path in (MOUNT / "system.slice" / unit).iterdir() if path.is_dir()] == [cgroups.LEAF]


def test_systemd_knows_whose_it_is(unit: str, sleeper: Path) -> None:
    known = show(unit)
    assert known["Delegate"] == "yes"
    assert known["ControlGroup"] == f"/system.slice/{unit}"
    assert known["TasksMax"] == "infinity"  # the default is 15 % of the machine's, for all containers together
    assert known["OOMPolicy"] == "continue"
    assert known["TimeoutStopUSec"] == "10s"  # a container's process 1 hears SIGTERM only if it wants to
    assert (sleeper.parent / cgroups.LEAF / "cgroup.procs").read_text().split() == [known["MainPID"]]


def test_the_container_lies_below_with_its_limits(sleeper: Path) -> None:
    for level in (sleeper.parent.parent, sleeper.parent):
        assert {"cpu", "memory", "pids"} <= set((level / "cgroup.subtree_control").read_text().split())
    pids = (sleeper / "cgroup.procs").read_text().split()
    assert b"sleep\x00300\x00" in [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in pids]
    assert {Path(f"/proc/{pid}/cgroup").read_text() for pid in pids} == {f"0::/{sleeper.relative_to(MOUNT)}\n"}
    assert limits(sleeper) == WANTED


def test_reloads_take_nothing_away(sleeper: Path) -> None:
    """Where nothing was delegated, a reload may write systemd's own idea of a limit, or take a controller back."""
    handed_down = (sleeper.parent / "cgroup.subtree_control").read_text()
    systemctl("daemon-reload")
    systemctl("daemon-reexec")
    subprocess.run(["systemd-run", "--quiet", "--wait", "true"], check=True)  # the slice is gone over once more
    assert limits(sleeper) == WANTED
    assert (sleeper.parent / "cgroup.subtree_control").read_text() == handed_down
    assert (sleeper / "cgroup.procs").read_text().split()


def test_the_limits_hold(unit: str, sleeper: Path) -> None:
    """And who is killed for memory is one container; systemd would by default stop all that is in the service."""
    done = minicontainer("run", "--rm", "--network", "none", "-m", "24m", "busybox", "tail", "/dev/zero", check=False)
    assert done.returncode == 128 + signal.SIGKILL, done.stderr
    script = "for i in $(seq 30); do sleep 5 & done"
    done = minicontainer(
        "run", "--rm", "--network", "none", "--pids-limit", "10", "busybox", "sh", "-c", script, check=False
    )
    assert "can't fork" in done.stderr
    script = (
        "while :; do :; done & sleep 3; kill $!; "
        "sed -n 's/^nr_throttled //p' /sys/fs/cgroup/cpu.stat; sed -n 's/^usage_usec //p' /sys/fs/cgroup/cpu.stat"
    )
    done = minicontainer("run", "--rm", "--network", "none", "--cpus", "0.2", "busybox", "sh", "-c", script)
    throttled, used = map(int, done.stdout.split())
    assert throttled > 5
    assert used < 1.2e6  # in three seconds and a little more
    assert show(unit)["ActiveState"] == "active"
    assert (sleeper / "cgroup.procs").read_text().split()


def test_a_second_start_asks_systemd_nothing(unit: str, sleeper: Path) -> None:
    """The plan of a start whose service is there: a directory, the values, the device program."""
    plan = list(cgroups.create(f"/system.slice/{unit}/one", {"pids": {"limit": 5}}))
    assert [step.verb for step in plan] == ["mkdir", "put"]


def test_stopped_by_systemctl_and_made_anew_by_the_next_start(unit: str, sleeper: Path) -> None:
    systemctl("stop", unit)
    assert not sleeper.parent.exists()
    assert show(unit)["LoadState"] == "not-found"
    done = minicontainer("run", "--rm", "--network", "none", "-m", "48m", "busybox", "cat", "/sys/fs/cgroup/memory.max")
    assert done.stdout == f"{48 << 20}\n"
    assert show(unit)["ActiveState"] == "active"


def test_a_killed_service_is_made_anew(unit: str) -> None:
    """Whatever happened to it: its process killed, and systemd not yet done with the rest."""
    minicontainer("run", "--rm", "--network", "none", "busybox", "true")
    os.kill(int(show(unit)["MainPID"]), signal.SIGKILL)
    deadline = time.monotonic() + 60
    while (MOUNT / "system.slice" / unit).exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    minicontainer("run", "--rm", "--network", "none", "-m", "48m", "busybox", "true")
    assert show(unit)["ActiveState"] == "active"


def test_what_comes_back_after_a_boot(unit: str) -> None:
    """`system enable` has systemd start what is to come back. The boot, here: its processes and /run have gone."""
    again = f"minicontainer{host.suffix()}.service"
    run = ["run", "-d", "--network", "none", "--name"]
    minicontainer(*run, "back", "--restart", "always", "busybox", "sh", "-c", "trap exit TERM; sleep 600 & wait")
    minicontainer(*run, "gone", "busybox", "sleep", "600")
    assert again in minicontainer("system", "enable").stdout
    try:
        asked = subprocess.run(["systemctl", "is-enabled", again], capture_output=True, text=True)
        assert asked.stdout == "enabled\n"
        for identifier in os.listdir(Path(os.environ["MINICONTAINER_ROOT"], "containers")):
            record = Path(os.environ["MINICONTAINER_ROOT"], "containers", identifier, "record.json")
            if record.exists():
                descriptor = os.pidfd_open(json.loads(record.read_text())["monitor"][0])
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                select.select([descriptor], [], [])
                os.close(descriptor)
                shutil.rmtree(f"/run/minicontainer{host.suffix()}/{identifier}")
        shown = minicontainer("ps", "-a", "--format", "{{.Names}} {{.State}}").stdout.splitlines()
        assert sorted(shown) == ["back exited", "gone exited"]
        systemctl("start", again)
        assert minicontainer("ps", "--format", "{{.Names}}").stdout == "back\n"
        pid = int(minicontainer("inspect", "-f", "{{.State.Pid}}", "back").stdout)
        parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]
        assert Path(f"/proc/{parent}/cgroup").read_text() == f"0::/system.slice/{again}\n"  # its monitor is the service
        assert Path(f"/proc/{pid}/cgroup").read_text().startswith(f"0::/system.slice/{unit}/")
        systemctl("stop", again)  # as at a shutdown: it ends, and is to come back
        assert not Path(f"/proc/{pid}").exists()
        systemctl("start", again)
        assert minicontainer("ps", "--format", "{{.Names}}").stdout == "back\n"
    finally:
        minicontainer("system", "disable")
        minicontainer("rm", "-f", "back", "gone")
    assert subprocess.run(["systemctl", "is-enabled", again], capture_output=True).returncode


def test_reset_takes_the_unit_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINICONTAINER_ROOT", str(tmp_path / "store"))
    again = f"minicontainer{host.suffix()}.service"
    minicontainer("bootstrap", "busybox")
    assert again in minicontainer("system", "enable").stdout
    minicontainer("system", "reset", "--force")
    assert not Path(f"/etc/systemd/system/{again}").exists()
    assert subprocess.run(["systemctl", "is-enabled", again], capture_output=True).returncode


def test_a_refusal_says_what_systemd_said(unit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = "systemd-journald.service"
    with pytest.raises(errors.Unsupported, match=f"did not make {taken}: .*already loaded"):
        cgroups.delegate(taken, "/nowhere")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(errors.Unsupported, match="systemd-run is not installed"):
        cgroups.delegate("x.service", "/nowhere")


def test_removal_is_idempotent(unit: str) -> None:
    parent = f"/system.slice/{unit}"
    for _ in range(2):
        steps.execute(cgroups.remove_parent(parent), {})
        assert not (MOUNT / parent[1:]).exists()
        assert show(unit)["LoadState"] == "not-found"


# ------------------------------------------------------------------------------- scopes: what podman and docker ask for

SLICE = "/machine.slice/machine-test.slice"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle whose command sleeps under three limits, in a scope."""
    (tmp_path / "rootfs/bin").mkdir(parents=True)
    shutil.copy(shutil.which("busybox") or "", tmp_path / "rootfs/bin/busybox")
    config = spec.default()
    config["process"]["args"] = ["busybox", "sleep", "600"]
    config["linux"]["cgroupsPath"] = "machine-test.slice:test:one"
    config["linux"]["resources"] = {
        "cpu": {"quota": 50000, "period": 100000}, "memory": {"limit": 64 << 20}, "pids": {"limit": 20},
        "blockIO": {"weight": 500}, "unified": {"memory.oom.group": "1"},
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path


def oci(bundle: Path, *words: str, code: int = 0, text: str = "") -> str:
    """The runtime as an engine calls it; what it says. Nobody waits for the container to close its output."""
    with open(bundle / "said", "w+") as said:
        command = [*COMMAND, "oci", "--root", str(bundle / "state"), "--systemd-cgroup", *words]
        done = subprocess.run(command, input=text, stdout=said, stderr=said, text=True, timeout=60)
        said.seek(0)
        told = said.read()
    assert done.returncode == code, told
    return told


def test_a_scope_for_each_container(bundle: Path) -> None:
    unit, cgroup = "test-one.scope", MOUNT / SLICE[1:] / "test-one.scope"
    oci(bundle, "create", "--bundle", str(bundle), "c")
    try:
        pid = json.loads(oci(bundle, "state", "c"))["pid"]
        known = show(unit)
        assert (known["ActiveState"], known["Delegate"], known["TasksMax"]) == ("active", "yes", "20")
        assert known["ControlGroup"] == f"{SLICE}/{unit}"
        assert Path(f"/proc/{pid}/cgroup").read_text() == f"0::{SLICE}/{unit}\n"
        assert (cgroup / "cgroup.procs").read_text().split() == [str(pid)]
        # Its own cgroup is the top of what it sees: it was in there before it had a cgroup namespace.
        seen = Path(f"/proc/{pid}/root/sys/fs/cgroup/cgroup.procs").stat()
        assert seen.st_ino == (cgroup / "cgroup.procs").stat().st_ino
        assert limits(cgroup) == WANTED
        systemctl("daemon-reload")
        assert limits(cgroup) == WANTED
        oci(bundle, "update", "--resources", "-", "c", text=json.dumps({"memory": {"limit": 48 << 20}}))
        systemctl("daemon-reload")
        assert limits(cgroup) == [WANTED[0], str(48 << 20), WANTED[2]]
        assert (cgroup / "memory.oom.group").read_text() == "1\n"
        assert (cgroup / "io.weight").read_text() == "default 4950\n"
        # Another one of that name, in another slice: systemd has one of a name, and the first lives on.
        config = json.loads((bundle / "config.json").read_text())
        config["linux"]["cgroupsPath"] = "system.slice:test:one"
        (bundle / "config.json").write_text(json.dumps(config))
        assert "systemd refuses test-one.scope: " in oci(bundle, "create", "--bundle", str(bundle), "d", code=1)
        assert "does not exist" in oci(bundle, "state", "d", code=1)
        assert (cgroup / "cgroup.procs").read_text().split() == [str(pid)]
    finally:
        oci(bundle, "delete", "--force", "c")
    assert show(unit)["LoadState"] == "not-found"
    assert not cgroup.exists()
    assert not Path(f"/proc/{pid}").exists()


def test_a_scope_goes_with_what_failed_or_ended(bundle: Path) -> None:
    """A command that is not there; one that is killed for memory, which systemd counts as a failure of the scope."""
    config = json.loads((bundle / "config.json").read_text())
    config["linux"]["cgroupsPath"] = ""
    for words in (["nosuch"], ["busybox", "tail", "/dev/zero"]):
        config["process"]["args"] = words
        (bundle / "config.json").write_text(json.dumps(config))
        said = oci(bundle, "run", "--bundle", str(bundle), "c", code=1 if words == ["nosuch"] else 128 + signal.SIGKILL)
        assert ("no such file" in said) == (words == ["nosuch"])
        assert show("minicontainer-c.scope")["LoadState"] == "not-found"
        assert not (MOUNT / "system.slice/minicontainer-c.scope").exists()


def test_without_a_cgroup_namespace_the_tree_is_the_machines(bundle: Path) -> None:
    """As runc and crun have it. But the machine's own mount keeps its options: a second one would set them anew."""
    options = [line.split()[3] for line in Path("/proc/mounts").read_text().splitlines() if " cgroup2 " in line]
    assert "nsdelegate" in options[0].split(",")
    config = json.loads((bundle / "config.json").read_text())
    config["linux"]["namespaces"] = [one for one in config["linux"]["namespaces"] if one["type"] != "cgroup"]
    script = (
        "cat /proc/self/cgroup; cat /sys/fs/cgroup$(cut -d: -f3 /proc/self/cgroup)/pids.max; mkdir /sys/fs/cgroup/x"
    )
    config["process"]["args"] = ["busybox", "sh", "-c", script]
    (bundle / "config.json").write_text(json.dumps(config))
    told = oci(bundle, "run", "--bundle", str(bundle), "c", code=1).splitlines()
    assert told[:2] == [f"0::{SLICE}/test-one.scope", "20"] and "Read-only file system" in told[2]
    assert options == [line.split()[3] for line in Path("/proc/mounts").read_text().splitlines() if " cgroup2 " in line]


def test_what_systemd_refuses_leaves_nothing(bundle: Path) -> None:
    """Names that are no unit's, and a value that it has no number for. What it says is passed on."""
    config = json.loads((bundle / "config.json").read_text())
    for path, unified, words in (
        ("machine-test.slice:test:a b", {}, "systemd refuses test-a b.scope: Invalid unit name"),
        (f"machine-test.slice:test:{'x' * 300}", {}, "Invalid unit name"),
        ("machine-test.slice:test:a@b", {}, "systemd refuses test-a@b.scope: Invalid argument"),
        ("machine-test.slice:test:one", {"memory.high": "64M"}, "memory.high: '64M' cannot be said to systemd"),
    ):
        config["linux"]["cgroupsPath"], config["linux"]["resources"]["unified"] = path, unified
        (bundle / "config.json").write_text(json.dumps(config))
        assert words in oci(bundle, "create", "--bundle", str(bundle), "c", code=1)
        assert "does not exist" in oci(bundle, "state", "c", code=1)
        assert not list((MOUNT / SLICE[1:]).glob("*.scope"))


def test_a_scope_outlives_systemds_own_restart(bundle: Path) -> None:
    """Also while it is paused; and it is taken away afterwards as if nothing had happened."""
    cgroup = MOUNT / SLICE[1:] / "test-one.scope"
    oci(bundle, "run", "--detach", "--bundle", str(bundle), "c")
    try:
        oci(bundle, "pause", "c")
        systemctl("daemon-reexec")
        assert (cgroup / "cgroup.freeze").read_text() == "1\n"
        assert limits(cgroup) == WANTED
        assert json.loads(oci(bundle, "state", "c"))["status"] == "paused"
        oci(bundle, "resume", "c")
    finally:
        oci(bundle, "delete", "--force", "c")
    assert show("test-one.scope")["LoadState"] == "not-found" and not cgroup.exists()


@pytest.mark.parametrize("verb", ["create", "delete"])
@pytest.mark.timeout(300)
def test_killed_at_each_point_no_scope_is_left(bundle: Path, verb: str) -> None:
    """Before each step, and before and after each question to systemd."""
    script = Path(__file__).parents[1] / "runtime" / "oci_killed_at.py"
    (bundle / "state").mkdir()
    words = [verb, "parent", str(bundle), str(bundle / "state"), "machine-test.slice:test:one"]
    done = subprocess.run([sys.executable, script, *words], capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) >= {"create": 25, "delete": 10}[verb]


# ----------------------------------------------------------------------------------------------------- an ordinary user


@pytest.fixture(scope="module")
def student() -> Iterator[dict[str, str]]:
    """A user with a systemd of its own, as who has logged in: the environment. In the virtual machine alone."""
    if "MINICONTAINER_VM" not in os.environ:
        pytest.skip("makes a user: only in ./dev vm --systemd")
    need("systemd-run", "useradd", "setpriv")
    home = "/var/tmp/student"
    subprocess.run(["useradd", "-m", "-d", home, "-u", "1234", "student"], check=True)
    systemctl("start", "user@1234.service")
    yield {"PATH": os.environ["PATH"], "HOME": home, "XDG_RUNTIME_DIR": "/run/user/1234"}
    systemctl("stop", "user@1234.service", "user-runtime-dir@1234.service")
    shutil.rmtree(home)


ROOT = ("unshare", "-Ur")  # of a user namespace that has this one user


def as_student(
    student: dict[str, str], *command: str, delegate: bool = True, be: tuple[str, ...] = ROOT
) -> subprocess.CompletedProcess[str]:
    """A command as root of a user namespace of the student's own; with `delegate`, in a cgroup of the student's own."""
    scope = ("systemd-run", "--user", "--quiet", "--scope", "-p", "Delegate=yes") if delegate else ()
    return subprocess.run(
        ["setpriv", "--reuid", "1234", "--regid", "1234", "--init-groups", *scope, *be, *command],
        env=student, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=250,
    )  # fmt: skip


def test_a_user_limits_what_systemd_delegates(student: dict[str, str]) -> None:
    """One scope, two containers in it, the second when the first has moved everyone to a leaf."""
    read = "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max /sys/fs/cgroup/cpu.max"
    run = f"{' '.join(COMMAND)} run --rm --network none -m 48m --pids-limit 30 --cpus 0.5 busybox sh -c '{read}'"
    done = as_student(
        student, "sh", "-ec", f"{' '.join(COMMAND)} bootstrap busybox >&2; {run}; cat /proc/self/cgroup; {run}"
    )
    assert done.returncode == 0, done.stderr
    values = [str(48 << 20), "30", "50000 100000"]
    lines = done.stdout.splitlines()
    assert lines[:3] == lines[4:] == values
    own = lines[3]
    assert own.startswith("0::/user.slice/user-1234.slice/user@1234.service/") and own.endswith(".scope/processes")


def test_a_user_is_told_which_controller_was_not_delegated(student: dict[str, str]) -> None:
    """systemd hands users cpu, memory and pids, neither io nor cpuset; only what was asked for is missed."""
    done = as_student(student, *COMMAND, "run", "--rm", "--network", "none", "--cpuset-cpus", "0", "busybox", "true")
    assert done.returncode == 125
    assert "controller `cpuset`" in done.stderr and "Delegate=cpu cpuset io memory pids" in done.stderr


def test_a_user_without_delegation_is_refused_by_name(student: dict[str, str]) -> None:
    run = (*COMMAND, "run", "--rm", "--network", "none")
    done = as_student(student, *run, "-m", "48m", "busybox", "true", delegate=False)
    assert done.returncode == 125
    assert "controller `memory`" in done.stderr and "systemd-run --user --scope -p Delegate=yes" in done.stderr
    done = as_student(student, *run, "busybox", "echo", "without a limit", delegate=False)
    assert done.stdout == "without a limit\n", done.stderr


IN_A_CELL = """
import os
from minicontainer import files, steps
from minicontainer.kernel import cgroups

path = os.path.dirname(cgroups.parent("lesson")) + "/lesson"
steps.execute(cgroups.create(path, {"pids": {"limit": 10}}), {})
print(files.read(f"/sys/fs/cgroup{path}/pids.max").decode(), path)
steps.execute(cgroups.remove(path), {})
"""


def test_a_notebooks_cells_limit_what_systemd_delegates(student: dict[str, str]) -> None:
    """The cells have a pid namespace, out of which nobody is moved to a leaf: who is outside must have gone before."""
    home = Path(student["HOME"])
    launch = (
        'mkdir -p course run; echo \'{"transport": "ipc"}\' >run/kernel.json; '
        f'exec {COMMAND[0]} -m minicontainer.teach.sandbox run/kernel.json {COMMAND[0]} -c "$0"'
    )
    done = subprocess.run(
        ["setpriv", "--reuid", "1234", "--regid", "1234", "--init-groups", "sh", "-euc", launch, IN_A_CELL],
        env={**student, "MINICONTAINER_COURSE": str(home / "course"), "PYTHONPATH": os.getcwd()}, cwd=home,
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    limit, path = done.stdout.split()
    assert limit == "10"
    assert path.startswith("/user.slice/user-1234.slice/user@1234.service/") and path.endswith(".scope/lesson")


# ----------------------------------------------------------------------------------------------------------- the labs

REFERENCE = "labs/solutions/09_cgroups.py"


def test_lab_09_is_checked_by_root() -> None:
    """Root's own cgroup is its session's, the lent one lies below system.slice: nsdelegate lets nobody go there."""
    done = minicontainer("lab", "check", "09", REFERENCE, check=False, timeout=115)
    assert "18 of 18 points" in done.stdout, done.stdout


@pytest.mark.timeout(250)
def test_lab_09_is_checked_by_a_user(student: dict[str, str]) -> None:
    """In a delegated scope it has all its points; without one none is lost, and it is said what is missing."""
    check = (*COMMAND, "lab", "check", "09", REFERENCE)
    done = as_student(student, *check, be=())
    assert "18 of 18 points" in done.stdout, done.stdout
    done = as_student(student, *check, be=(), delegate=False)
    assert "0 of 0 points" in done.stdout
    assert "not gradable here: no cgroup has been delegated to this user" in done.stdout


def perfect(home: Path, numbers: str, run: Callable[..., subprocess.CompletedProcess[str]]) -> dict[str, list[str]]:
    """Grade the references of these labs; the hints of the tests that did not give all their points, by lab."""
    for lab in map(labs.get, numbers.split(",")):
        (home / "in" / "perfect" / lab.name).mkdir(parents=True)
        shutil.copy(lab.solution, home / "in" / "perfect" / lab.name / "lab.py")
    done = run("grade", str(home / "in"), "--labs", numbers, "--out", str(home / "out"))
    assert done.returncode == 0, done.stderr
    found = records.Records(str(home / "out")).all()
    assert len(found) == len(numbers.split(","))
    lost = {one.lab: [test["hint"] for test in one.tests if test["points"] < test["of"]] for one in found}
    return {lab: hints for lab, hints in lost.items() if hints}


@pytest.mark.timeout(300)
def test_root_grades_for_marks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cells in a cgroup that systemd has delegated; what is lent to their rooms lies in another one."""
    monkeypatch.setenv("MINICONTAINER_ROOT", str(tmp_path / "root"))
    assert perfect(tmp_path, "09", lambda *command: minicontainer(*command, timeout=250)) == {}


@pytest.mark.timeout(300)
def test_a_user_grades_for_marks(student: dict[str, str]) -> None:
    """As root of a user namespace with many users, in a delegated scope: a submission has limits, and its points."""
    home = Path(student["HOME"])
    refused = as_student(student, *COMMAND, "grade", str(home), "--labs", "09,12", "--out", str(home / "out"))
    assert refused.returncode == 1
    assert "another user" in refused.stderr and "unshare --map-auto -Ur" in refused.stderr
    assert not (home / "out").exists(), "nobody has got a zero for it"
    many = ("unshare", "--map-auto", "-Ur")
    assert perfect(home, "09,12", lambda *words: as_student(student, *COMMAND, *words, be=many)) == {}
