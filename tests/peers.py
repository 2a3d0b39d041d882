"""Real docker and podman beside us, for interoperability and for figures side by side.

Offers: `docker()` and `podman()`, the words that a command for each begins with, and `stop()`. Nothing of the machine's
own docker or podman is touched: other directories, another socket, and a network namespace of their own. Without it, a
second dockerd gives the first one's docker0 another address, and sets the host's FORWARD policy to DROP.

Callers owe it: root, and the packages of `./dev setup --peers`.

Two facts about small virtual machines that this copes with: without CAP_SYS_RESOURCE an engine that raises
RLIMIT_NOFILE fails with EPERM; and crun refuses hybrid cgroups (v1 with the unified hierarchy beside it), where runc
does not.
"""

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RUNTIME = Path(sys.executable).with_name("minicontainer-runtime")  # docker knows it by the name `mini`

_daemon: subprocess.Popen[bytes] | None = None
_network: subprocess.Popen[bytes] | None = None
_directory: tempfile.TemporaryDirectory[str] | None = None


def directory() -> Path:
    """Where the peers keep what is theirs; goes with `stop()`. Not below a test's tmp_path: socket paths are short."""
    global _directory
    if _directory is None:
        _directory = tempfile.TemporaryDirectory(prefix="mc-peers-", dir="/var/tmp", ignore_cleanup_errors=True)
    return Path(_directory.name)


def hard_limit() -> int:
    """The most open files that a process here may have."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[1]


def docker(*options: str) -> list[str]:
    """The words that a docker command begins with. RuntimeError, with the daemon's last words, where it won't start.

    `options`: the daemon's, in place of those for its bridge; they count for the call that starts it.
    """
    global _daemon
    socket = directory() / "docker.sock"
    command = ["docker", "-H", f"unix://{socket}"]
    if _daemon is not None:
        return command
    log = directory() / "dockerd.log"
    with log.open("wb") as output:
        _daemon = subprocess.Popen(
            [*own_network(), "dockerd", "-H", f"unix://{socket}", "-p", f"{directory()}/docker.pid",
             "--data-root", f"{directory()}/docker", "--exec-root", f"{directory()}/docker-exec",
             *(options or ("--bip", "172.31.11.1/24")), "--default-ulimit", f"nofile=1024:{hard_limit()}",
             "--add-runtime", f"mini={RUNTIME}"],
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    for _ in range(400):
        if answers(command):
            return command
        if _daemon.poll() is not None:
            break
        time.sleep(0.25)
    words = log.read_text(errors="replace")[-1500:]
    stop()
    raise RuntimeError(f"dockerd did not start:\n{words}")


def own_network() -> list[str]:
    """Words before a command: it runs in the peers' network namespace, which is made by the first call."""
    global _network
    if _network is None:
        _network = subprocess.Popen(["unshare", "-n", "sh", "-c", "ip link set lo up; echo; exec sleep infinity"],
                                    stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)  # fmt: skip
        assert _network.stdout is not None
        _network.stdout.readline()
    return ["nsenter", f"--net=/proc/{_network.pid}/ns/net"]


def answers(command: list[str]) -> bool:
    """Whether a daemon is there."""
    return subprocess.run([*command, "version"], capture_output=True).returncode == 0


def podman(runtime: str = "", manager: str = "cgroupfs") -> list[str]:
    """The words that a podman command begins with; with another OCI runtime than its own, if one is named.

    `manager`: who makes cgroups, `cgroupfs` or `systemd`.
    """
    configuration = directory() / "containers.conf"
    configuration.write_text(f'[containers]\ndefault_ulimits=["nofile=1024:{hard_limit()}","nproc=4096:4096"]\n')
    runtime = runtime or ("crun" if Path("/sys/fs/cgroup/cgroup.controllers").exists() else "runc")
    return [
        *own_network(), "env", f"CONTAINERS_CONF={configuration}",
        "podman", "--runtime", runtime, "--root", f"{directory()}/podman",
        "--runroot", f"{directory()}/podman-run", f"--cgroup-manager={manager}", "--events-backend=file",
    ]  # fmt: skip


def stop() -> None:
    """End the daemon that `docker()` started, unmount what is left below, and remove it all."""
    global _daemon, _network, _directory
    if _daemon is not None:
        _daemon.terminate()
        try:
            _daemon.wait(60)
        except subprocess.TimeoutExpired:
            _daemon.kill()
            _daemon.wait()
        _daemon = None
    if _network is not None:
        _network.kill()
        _network.wait()
        _network = None
    if _directory is not None:
        below = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        for point in sorted((point for point in below if point.startswith(_directory.name)), reverse=True):
            subprocess.run(["umount", "-l", point], capture_output=True)
        _directory.cleanup()
        _directory = None
