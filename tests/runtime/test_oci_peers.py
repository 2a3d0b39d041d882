"""docker (with containerd) and podman (with conmon) run their containers through our runtime, and notice nothing.

Each line is typed twice, with runc and with ours: the same output, the same exit code.
"""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from tests import engine_fixtures, peers

pytestmark = [
    pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(300),
    pytest.mark.needs("docker", "dockerd", "podman", "runc", "busybox"),
]  # fmt: skip

TRANSCRIPT = """
RUN --rm demo sh -c 'echo hello; exit 3'
RUN --rm demo nosuch
RUN --rm demo /etc
RUN --rm -u 1000:1000 -h here --read-only -v /etc:/x:ro --tmpfs /srv demo sh -c 'id; hostname; umask; touch /x/y /y; ls'
RUN --rm --cap-drop all --security-opt no-new-privileges demo grep -E '^(Cap|NoNew|Seccomp:)' /proc/self/status
RUN --rm --ulimit nofile=100:200 --sysctl net.core.somaxconn=77 demo sh -c 'ulimit -n; cat /proc/sys/net/core/somaxconn'
RUN --rm demo sh -c 'ls /dev; readlink /dev/fd; grep -c . /proc/net/dev; cat /proc/keys'
RUN -d --name web -m 64m --pids-limit 50 --cpus 0.5 demo sh -c 'trap "exit 7" TERM; while :; do sleep 0.1; done'
exec web cat /sys/fs/cgroup/pids/pids.max
exec -u 7 -w /etc -e A=b web sh -c 'echo $A $(id -u) $(pwd)'
exec web nosuch
exec -t web tty
exec -d web sleep 999
pause web
inspect -f {{.State.Status}} web
unpause web
update -m 32m --memory-swap 64m web
exec web cat /sys/fs/cgroup/memory/memory.limit_in_bytes
stop -t 5 web
inspect -f {{.State.ExitCode}} web
start web
kill web
wait web
rm -f web
""".strip().splitlines()


def told(engine: list[str], run: list[str], archive: Path) -> list[tuple[str, int, str]]:
    """What the engine prints, and its exit code, for each line; ids and what a runtime says of itself are left out."""
    subprocess.run([*engine, "load", "-i", archive], capture_output=True, check=True)
    result = []
    for line in TRANSCRIPT:
        words = shlex.split(line)
        words = [*run, *words[1:]] if words[0] == "RUN" else words
        done = subprocess.run([*engine, *words], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60)
        result.append((line, done.returncode, re.sub(r"[0-9a-f]{64}|(?<=exec failed: ).*", "ID", done.stdout)))
    return result


@pytest.mark.parametrize("name", ["docker", "podman"])
def test_an_engine_notices_nothing(name: str, docker: list[str], podman: list[str], tmp_path: Path) -> None:
    archive = tmp_path / "images.tar"
    archive.write_bytes(engine_fixtures.archive(engine_fixtures.images()))
    if name == "docker":
        theirs = told(docker, ["run", "--runtime", "runc"], archive)
        ours = told(docker, ["run", "--runtime", "mini"], archive)
    else:
        theirs = told(podman, ["run"], archive)
        ours = told(peers.podman(str(peers.RUNTIME)), ["run"], archive)
    assert ours == theirs
    assert {code for _, code, _ in ours} == {0, 3, 126, 127}
