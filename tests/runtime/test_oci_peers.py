"""docker (with containerd) and podman (with conmon) run their containers through our runtime, and notice nothing.

Each line is typed twice, with runc and with ours: the same output, the same exit code.
"""

import re
import shlex
import subprocess
import sys
import time
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


@pytest.mark.parametrize("name", ["docker", "podman"])
def test_a_published_port_leads_in(name: str, docker: list[str], podman: list[str], tmp_path: Path) -> None:
    archive = tmp_path / "images.tar"
    archive.write_bytes(engine_fixtures.archive(engine_fixtures.images()))
    engine = docker if name == "docker" else peers.podman(str(peers.RUNTIME))
    subprocess.run([*engine, "load", "-i", archive], capture_output=True, check=True)
    run = ["run", "--runtime", "mini"] if name == "docker" else ["run"]
    serve = "mkdir /www && echo from inside >/www/index.html && exec busybox httpd -f -p 80 -h /www"
    started = [*engine, *run, "-d", "--name", "web", "-p", "127.0.0.1:8080:80", "demo", "sh", "-c", serve]
    subprocess.run(started, capture_output=True, check=True)
    fetch = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:8080/', timeout=2).read().decode(), end='')"
    ask = [*peers.own_network(), sys.executable, "-c", fetch]
    try:
        for _ in range(50):
            answer = subprocess.run(ask, capture_output=True, text=True)
            if answer.returncode == 0:
                break
            time.sleep(0.2)
        assert answer.stdout == "from inside\n", answer.stderr
    finally:
        subprocess.run([*engine, "rm", "-f", "web"], capture_output=True, check=True)
    assert subprocess.run(ask, capture_output=True).returncode == 1, "nobody listens any more"
