"""podman and docker run their containers through our runtime on cgroup v2; under systemd, it makes a scope for each.

Each of podman's lines is typed twice, with runc and with ours: the same output, the same exit code, the same in the
kernel's files and in what systemd knows. docker's are typed once, for its daemon alone takes a quarter of a minute to
start here; what they have to say was compared with runc's by hand.

In the virtual machine alone, in `./dev vm --systemd`, the lane of `./dev test --all`: 130 s, measured on two processors
at a load of 3, and 245 s at one of 10. Without systemd the same by cgroupfs:
`./dev vm .venv/bin/python -m pytest --all tests/vm/test_engines.py`.
"""

import re
import shlex
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import engine_fixtures, peers
from tests.conftest import is_systemd

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.needs("podman", "runc")]
MOUNT = Path("/sys/fs/cgroup")
MANAGER = "systemd" if is_systemd() else "cgroupfs"

# LIMITS: what the kernel and systemd have. RELOAD: systemd reads its units anew. PARENT: a slice, where it is asked.
TRANSCRIPT = r"""
run --rm demo nosuch
run -d --name web -m 64m --memory-reservation 32m --memory-swap 96m --pids-limit 50 --cpus 0.5 --cpuset-cpus 0 demo \
 sh -c 'trap "exit 7" TERM; while :; do sleep 0.1; done'
LIMITS web
exec web sh -c 'cat /proc/self/cgroup /sys/fs/cgroup/memory.max; ls /sys/fs/cgroup; echo 1 >/sys/fs/cgroup/pids.max'
stats --no-stream --format '{{.Name}} {{.MemLimit}}' web
pause web
LIMITS web
inspect -f {{.State.Status}} web
unpause web
update -m 32m --memory-swap 64m --cpus 0.25 web
RELOAD
LIMITS web
stop -t 5 web
inspect -f {{.State.ExitCode}} web
start web
rm -f -t 0 web
run --rm -m 16m --cgroupns host PARENT --device /dev/vda:/dev/disk:r demo \
 sh -c 'cat /proc/self/cgroup; ls /sys/fs/cgroup; head -c1 /dev/disk | wc -c; echo >/dev/disk; \
 mknod /tmp/x c 1 11; head -c1 /tmp/x; tail /dev/zero'
"""
FILES = (
    "memory.max memory.low memory.high memory.swap.max pids.max cpu.max cpuset.cpus cgroup.freeze cgroup.controllers"
).split()
PROPERTIES = (
    "LoadState,ActiveState,Slice,Delegate,TasksMax,MemoryMax,MemoryLow,MemorySwapMax,CPUQuotaPerSecUSec,AllowedCPUs,"
    "CPUAccounting,MemoryAccounting,TasksAccounting,IOAccounting,KillMode,OOMPolicy,TimeoutStopUSec,Transient"
)
Told = list[tuple[str, int, str]]


def said(*command: str) -> str:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 0, (command, done.stderr)
    return done.stdout


def limits(engine: list[str], name: str) -> str:
    """Where a container is, what the kernel's files say there, and what systemd knows of it."""
    pid = said(*engine, "inspect", "-f", "{{.State.Pid}}", name).strip()
    path = Path(f"/proc/{pid}/cgroup").read_text().removeprefix("0::").strip()
    lines = [path, *(f"{file}={(MOUNT / path[1:] / file).read_text().strip()}" for file in FILES)]
    if MANAGER == "systemd":
        lines += said("systemctl", "show", "-p", PROPERTIES, path.rpartition("/")[2]).splitlines()
    return "\n".join(lines)


def told(engine: list[str]) -> Told:
    """What the engine prints, and its exit code, for each line; without ids."""
    result = []
    for line in TRANSCRIPT.strip().replace("\\\n", "").splitlines():
        code, output = 0, ""
        if line.startswith("LIMITS"):
            output = limits(engine, line.split()[1])
        elif line == "RELOAD":
            if MANAGER == "systemd":
                said("systemctl", "daemon-reload")
        else:
            words = shlex.split(line.replace("PARENT", "--cgroup-parent a-b-c.slice" if MANAGER == "systemd" else ""))
            if words[0] == "run":
                words[1:1] = ["--network", "none"]
            done = subprocess.run(
                [*engine, *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=100
            )
            code, output = done.returncode, done.stdout
        result.append((line, code, re.sub(r"\b[0-9a-f]{64}\b", "ID", output)))
    return result


def left() -> set[str]:
    """The scopes that systemd knows, and every cgroup that an engine has made for a container."""
    made = {str(path) for path in MOUNT.glob("**/*") if path.is_dir() and re.search(r"[0-9a-f]{64}", path.name)}
    if MANAGER == "systemd":
        listed = said("systemctl", "list-units", "--all", "--type=scope", "--plain", "--no-legend")
        made |= {line.split()[0] for line in listed.splitlines()}
    return made


@pytest.fixture
def nothing_is_left() -> Iterator[None]:
    """After a test. conmon and containerd's shim end a little later than what they watched."""
    before = left()
    yield
    end = time.monotonic() + 30
    while left() - before and time.monotonic() < end:
        time.sleep(0.2)
    assert left() <= before


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("images") / "images.tar"
    path.write_bytes(engine_fixtures.archive(engine_fixtures.images()))
    return path


def expected(quota: int, memory: int, freeze: int) -> set[str]:
    """What is to be in `limits` for the transcript's container."""
    found = {f"cpu.max={quota} 100000", f"memory.max={memory << 20}", "memory.swap.max=33554432", "pids.max=50",
             "memory.low=33554432", "cpuset.cpus=0", f"cgroup.freeze={freeze}"}  # fmt: skip
    if MANAGER == "systemd":
        found |= {"LoadState=loaded", "ActiveState=active", "Slice=machine.slice", "Delegate=yes", "TasksMax=50",
                  f"MemoryMax={memory << 20}", f"CPUQuotaPerSecUSec={quota // 100}ms"}  # fmt: skip
    return found


def test_podman_notices_nothing(images: Path, nothing_is_left: None) -> None:
    said(*peers.podman("runc", MANAGER), "load", "-i", str(images))
    theirs = told(peers.podman("runc", MANAGER))
    ours = told(peers.podman(str(peers.RUNTIME), MANAGER))
    assert ours == theirs
    assert [code for line, code, _ in ours if line.startswith(("run", "exec"))] == [127, 0, 1, 137]
    shown = [set(output.splitlines()) for line, _, output in ours if line.startswith("LIMITS")]
    wanted = [expected(50000, 64, 0), expected(50000, 64, 1), expected(25000, 32, 0)]
    assert [one - found for one, found in zip(wanted, shown, strict=True)] == [set(), set(), set()]
    path, *seen = ours[-1][2].splitlines()
    assert re.fullmatch(r"0::/a.slice/a-b.slice/a-b-c.slice/libpod-ID.scope|0::/libpod_parent/libpod-ID", path)
    assert seen[-1] == "1" and path.split("/")[1] in seen  # the device can be read; the tree is the machine's
    assert ("inspect -f {{.State.ExitCode}} web", 0, "7\n") in ours


@pytest.mark.needs("docker", "dockerd")
def test_docker_notices_nothing(images: Path, nothing_is_left: None) -> None:
    driver = f"native.cgroupdriver={MANAGER}"
    engine = peers.docker("--bridge=none", "--iptables=false", "--exec-opt", driver)
    try:
        said(*engine, "load", "-i", str(images))
        run = [*engine, "run", "--network", "none", "--runtime", "mini", "--name", "web"]
        script = 'trap "exit 7" TERM; while :; do sleep 0.1; done'
        said(*run, "-d", "-m", "64m", "--pids-limit", "50", "--cpus", "0.5", "demo", "sh", "-c", script)
        path, *found = limits(engine, "web").splitlines()
        unit = r"/system.slice/docker-[0-9a-f]{64}.scope" if MANAGER == "systemd" else r"/docker/[0-9a-f]{64}"
        assert re.fullmatch(unit, path)
        assert {"cpu.max=50000 100000", f"memory.max={64 << 20}", "pids.max=50"} <= set(found)
        assert said(*engine, "exec", "web", "cat", "/proc/self/cgroup", "/sys/fs/cgroup/pids.max") == "0::/\n50\n"
        assert said(*engine, "pause", "web") and (MOUNT / path[1:] / "cgroup.freeze").read_text() == "1\n"
        said(*engine, "unpause", "web")
        said(*engine, "update", "-m", "32m", "--memory-swap", "64m", "--pids-limit", "40", "web")
        if MANAGER == "systemd":
            said("systemctl", "daemon-reload")
            assert {"TasksMax=40", f"MemoryMax={32 << 20}"} <= set(limits(engine, "web").splitlines())
        files = [(MOUNT / path[1:] / name).read_text() for name in ("memory.max", "pids.max")]
        assert files == [f"{32 << 20}\n", "40\n"]
        said(*engine, "stop", "web")
        assert said(*engine, "inspect", "-f", "{{.State.ExitCode}}", "web") == "7\n"
        said(*engine, "rm", "web")
        done = subprocess.run([*run, "-m", "16m", "demo", "tail", "/dev/zero"], stdin=subprocess.DEVNULL)
        assert done.returncode == 137  # its OOMKilled has been true and false, and is not asked
    finally:
        subprocess.run([*engine, "rm", "-f", "web"], capture_output=True)
