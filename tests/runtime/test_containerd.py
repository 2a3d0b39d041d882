"""containerd runs its containers through our runtime by its shim for runc, as `ctr run --runc-binary` asks it to.

Each line is typed twice, with runc and with ours: the same output, the same exit code.
"""

import re
import shlex
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import engine_fixtures, peers

pytestmark = [
    pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(300),
    pytest.mark.needs("containerd", "ctr", "runc", "busybox", "script"),
]  # fmt: skip

IMAGE = "docker.io/library/demo:latest"
TRANSCRIPT = """
RUN --rm IMAGE one sh -c 'echo hello; ls /dev; hostname; grep -E "^(Cap|NoNew|Seccomp:)" /proc/self/status; exit 3'
RUN --rm IMAGE one nosuch
RUN --rm --read-only --cap-drop CAP_CHOWN IMAGE one sh -c 'touch /x; grep ^CapEff /proc/self/status'
RUN --rm --uidmap 0:100000:65536 --gidmap 0:200000:65536 IMAGE one sh -c 'cat /proc/self/uid_map /proc/self/gid_map; touch /x; stat -c %u:%g /x; ls /dev'
RUN -d --uidmap 0:100000:65536 --gidmap 0:100000:65536 IMAGE one sleep 1000
TTY task exec -t --exec-id first one sh -c 'tty; id -u; cat /proc/self/uid_map'
task kill -s KILL one
UNTIL STOPPED
task rm one
container rm one
RUN -d --memory-limit 67108864 --cpus 0.5 --mount type=bind,src=/etc,dst=/x,options=rbind:ro IMAGE web sh -c 'trap "exit 7" TERM; while :; do sleep 0.1; done'
task exec --exec-id first web sh -c 'touch /x/y; echo $(id -u) $(pwd)'
task exec --exec-id second web nosuch
TTY task exec -t --exec-id third web tty
task exec -d --exec-id fourth web sleep 999
task ls
task pause web
task ls
task resume web
task ps web
task kill -s TERM web
UNTIL STOPPED
task rm web
container rm web
container ls
""".strip().splitlines()  # noqa: E501


@pytest.fixture
def containerd(_peers: None) -> Iterator[list[str]]:
    """A daemon of its own, in the peers' network namespace: the words that its `ctr` commands begin with."""
    with tempfile.TemporaryDirectory(prefix="mc-ctd-", dir="/var/tmp") as folder:  # a socket's path is short
        Path(folder).chmod(0o711)  # root of a user namespace walks through
        Path(folder, "config.toml").write_text(
            f'version = 2\nroot = "{folder}/root"\nstate = "{folder}/state"\n'
            f'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n[grpc]\n  address = "{folder}/socket"\n'
        )
        ctr = ["ctr", "--address", f"{folder}/socket"]
        with open(f"{folder}/log", "wb") as log:
            daemon = subprocess.Popen(
                [*peers.own_network(), "containerd", "-c", f"{folder}/config.toml"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        try:
            end = time.monotonic() + 60
            while subprocess.run([*ctr, "version"], capture_output=True).returncode:
                assert daemon.poll() is None and time.monotonic() < end, Path(folder, "log").read_text()[-1500:]
                time.sleep(0.1)
            yield ctr
        finally:
            daemon.send_signal(signal.SIGTERM)
            daemon.wait(60)


def told(ctr: list[str], runtime: str) -> list[tuple[str, int, str]]:
    """What each line prints on standard output, and its exit code. Pids are left out."""
    result = []
    for line in TRANSCRIPT:
        words = shlex.split(line.replace("IMAGE", IMAGE))
        if words[0] == "UNTIL":
            await_status(ctr, words[1])
            continue
        if words[0] == "RUN":
            words = ["run", "--runc-binary", runtime, *words[1:]]
        command = [*ctr, *words]
        if words[0] == "TTY":
            command = ["script", "-qec", shlex.join([*ctr, *words[1:]]), "/dev/null"]
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60)
        printed = [row for row in done.stdout.splitlines() if "resize pty" not in row]  # a race within ctr
        # script(1) types the end of its own input, which the terminal may echo before ctr has made it raw.
        printed = [re.sub(r"\^[@D]\x08*", "", row) for row in printed]
        # A column is as wide as the longest pid, and pids begin anew some time.
        printed = [re.sub(r" {2,}", "  ", re.sub(r"\b\d{3,}\b *", "PID  ", row)) for row in printed]
        if words[:2] == ["task", "ps"]:
            printed.sort()  # by pid it came, and pids begin anew some time
        result.append((line, done.returncode, "\n".join(printed)))
    return result


def await_status(ctr: list[str], status: str) -> None:
    """Until the container's task is so."""
    end = time.monotonic() + 60
    while status not in (found := subprocess.run([*ctr, "task", "ls"], capture_output=True, text=True).stdout):
        assert time.monotonic() < end, found
        time.sleep(0.05)


def test_containerd_notices_nothing(containerd: list[str], tmp_path: Path) -> None:
    archive = tmp_path / "images.tar"
    archive.write_bytes(engine_fixtures.archive({"demo:latest": engine_fixtures.images()["demo:latest"]}))
    subprocess.run([*containerd, "image", "import", archive], capture_output=True, check=True)
    theirs = told(containerd, "runc")
    ours = told(containerd, str(peers.RUNTIME))
    assert ours == theirs
    assert {code for _, code, _ in ours} == {0, 1, 3}
    assert any("PAUSED" in printed for _, _, printed in ours)
