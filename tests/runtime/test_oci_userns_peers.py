"""podman's and docker's user namespaces through our runtime: new ones, those of other containers, those of pods.

Each line is typed twice, with runc and with ours: the same output, the same exit code. The engines look up ids in
/etc/subuid and /etc/subgid, which are the test's own here, in a mount namespace.
"""

import contextlib
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import engine_fixtures, peers

pytestmark = [
    pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.needs("runc", "busybox", "unshare"),
]  # fmt: skip

IDS = "nobody:100000:65536\nnogroup:100000:65536\ncontainers:200000:1000000\n"
SERVE = """'mkdir /www; echo from inside >/www/index.html; busybox httpd -p 80 -h /www; trap "exit 7" TERM
while :; do sleep 0.1; done'"""
WHO = "'cat /proc/self/uid_map /proc/self/gid_map; id; touch /new; stat -c %u:%g /new'"
# Each engine has its own words for a new namespace, and for those of the container web.
COMMON = f"""
RUN --rm NEW demo sh -c {WHO}
RUN --rm NEW -u 7 -w /tmp --cap-drop all demo sh -c 'id; pwd; grep ^Cap /proc/self/status'
RUN --rm NEW -v data:/v --read-only --tmpfs /srv demo sh -c 'touch /v/a /srv/a /a; stat -c %u:%g /v /v/a'
volume rm data
RUN --rm NEW -v FOLDER/files:/v demo sh -c 'stat -c %u:%g /v/root /v/mapped; touch /v/mapped && ! touch /v/root'
RUN --rm NEW --device /dev/fuse --sysctl net.core.somaxconn=77 demo sh -c 'ls /dev; cat /proc/sys/net/core/somaxconn'
RUN --rm NEW -t demo tty
RUN -d --name web NEW -p PORT:80 -m 64m --pids-limit 50 --cpus 0.5 demo sh -c {SERVE}
FETCH
exec web cat /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/memory/memory.limit_in_bytes /proc/self/uid_map
exec -u 7 -w /etc -e A=b web sh -c 'echo $A $(id -u) $(pwd)'
exec -t web tty
exec web sh -c 'kill -0 1 && echo its own'
RUN --rm WEB demo sh -c {WHO}
RUN --rm WEB -u 7 -t demo sh -c 'id -u; tty'
RUN --rm WEB -m 32m demo cat /sys/fs/cgroup/memory/memory.limit_in_bytes
RUN -d --name two WEB demo sleep 1000
exec -u 9 two sh -c 'id -u; cat /proc/self/uid_map'
GONE two
pause web
unpause web
stop -t 5 web
inspect -f {{{{.State.ExitCode}}}} web
start web
exec web cat /proc/self/uid_map
GONE web
"""
PODMAN = f"""{COMMON}
RUN -d --name web NEW demo sleep 1000
RUN --rm WEB --network=container:web --pid=container:web --ipc=container:web demo sh -c 'tr "\\0" " " </proc/1/cmdline'
GONE web
RUN --rm --uidmap 0:300000:65536 --gidmap 0:400000:65536 demo sh -c {WHO}
RUN --rm NEW -v FOLDER/given:/v:U demo stat -c %u:%g /v
RUN --rm NEW --network=host demo true
RUN --rm NEW --privileged demo sh -c {WHO}
RUN --rm NEW --cgroupns=host demo sh -c {WHO}
pod create --name pod NEW --infra-image demo --infra-command "sleep 1000" -p 8081:81
RUN -d --pod pod --name one demo sleep 1000
RUN --rm --pod pod demo sh -c {WHO}
RUN --rm --pod pod -m 32m demo cat /sys/fs/cgroup/memory/memory.limit_in_bytes
exec one cat /proc/self/uid_map
pod stop -t 0 pod
pod start pod
exec one cat /proc/self/uid_map
GONE pod
"""
DOCKER = f"""{COMMON}
RUN -d --name web --ipc shareable demo sleep 1000
RUN --rm --pid container:web demo sh -c 'tr "\\0" " " </proc/1/cmdline'
RUN --rm --ipc container:web demo sh -c {WHO}
GONE web
RUN --rm --userns host demo cat /proc/self/uid_map
RUN --rm --network host demo true
"""


class Apart:
    """A folder, a network, and /etc/subuid and /etc/subgid for the peers alone."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.chmod(0o711)  # root of a user namespace walks through
        (folder / "ids").write_text(IDS)
        for name, owner in (("files", 0), ("files/root", 0), ("files/mapped", 100000), ("given", 0)):
            if name.startswith("files/"):
                (folder / name).touch()
            else:
                (folder / name).mkdir()
            subprocess.run(["chown", f"{owner}:{owner}", folder / name], check=True)
        script = f"for x in subuid subgid; do mount --bind {folder}/ids /etc/$x; done; ip link set lo up; "
        # podman 4.3 forgets the network of a container with a user namespace: names here, and the rules of its port.
        script += "mkdir -p /run/netns; mount -t tmpfs none /run/netns; echo"
        words = ["unshare", "--net", "--mount", "sh", "-c", f"{script}; exec sleep infinity"]
        self.holder = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        assert self.holder.stdout is not None
        self.holder.stdout.readline()
        here = f"/proc/{self.holder.pid}/ns"
        self.words: list[str | Path] = ["nsenter", f"--net={here}/net", f"--mount={here}/mnt"]
        self.podmans: list[list[str | Path]] = []
        self.archive = folder / "images.tar"
        self.archive.write_bytes(engine_fixtures.archive(engine_fixtures.images()))

    def podman(self, runtime: str) -> list[str | Path]:
        """The words that a podman command begins with, whose images are loaded."""
        words = peers.podman(runtime)[len(peers.own_network()) :]
        engine = [*self.words, *words, "--root", self.folder / "podman", "--runroot", self.folder / "run"]
        subprocess.run([*engine, "load", "-i", self.archive], capture_output=True, check=True)
        self.podmans.append(engine)
        return engine

    @contextlib.contextmanager
    def docker(self) -> Iterator[list[str | Path]]:
        """A daemon that maps all containers; the words that its commands begin with."""
        engine: list[str | Path] = ["docker", "-H", f"unix://{self.folder}/socket"]
        words = ["dockerd", *engine[1:], "-p", self.folder / "pid", "--data-root", self.folder / "docker"]
        words += ["--exec-root", self.folder / "exec", "--userns-remap", "nobody:nogroup", "--bip", "172.31.12.1/24"]
        words += ["--default-ulimit", f"nofile=1024:{peers.hard_limit()}", "--add-runtime", f"mini={peers.RUNTIME}"]
        with (self.folder / "log").open("wb") as log:
            daemon = subprocess.Popen([*self.words, *words], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            end = time.monotonic() + 100
            while subprocess.run([*engine, "version"], capture_output=True).returncode:
                assert daemon.poll() is None and time.monotonic() < end, (self.folder / "log").read_text()[-1500:]
                time.sleep(0.1)
            subprocess.run([*engine, "load", "-i", self.archive], capture_output=True, check=True)
            yield engine
        finally:
            daemon.terminate()
            daemon.wait(60)

    def told(
        self, transcript: str, engine: list[str | Path], run: list[str], **meant: str
    ) -> list[tuple[str, int, str]]:
        """What the engine prints, and its exit code, for each line; ids are left out."""
        result = []
        for line in re.split(r"\n(?=[A-Za-z])(?!while)", transcript.strip()):
            said = line.replace("FOLDER", str(self.folder))
            for name, flags in meant.items():
                said = re.sub(rf"\b{name}\b", flags, said)
            words = shlex.split(said)
            if words == ["FETCH"]:
                result.append((line, 0, self.fetch(meant["PORT"])))
                continue
            if words[0] == "GONE":
                self.remove(engine, words[1])
                continue
            words = [*run, *words[1:]] if words[0] == "RUN" else words
            done = subprocess.run(
                [*engine, *words], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60
            )
            result.append((line, done.returncode, re.sub(r"[0-9a-f]{64}", "ID", done.stdout)))
        return result

    def remove(self, engine: list[str | Path], name: str) -> None:
        """A container or a pod. podman's own clean-up, beside it, may hold up its files for a moment (EBUSY)."""
        words = ["pod", "rm"] if name == "pod" else ["rm"]
        words += ["-f", name] if engine[0] == "docker" else ["-f", "-t", "0", name]
        for _ in range(50):
            done = subprocess.run([*engine, *words], capture_output=True, text=True)
            if done.returncode == 0:
                return
            time.sleep(0.2)
        raise AssertionError(done.stderr)

    def fetch(self, port: str) -> str:
        """What answers at the published port, once somebody does."""
        address = f"http://127.0.0.1:{port}/"
        ask = f"import urllib.request as u; print(u.urlopen('{address}', timeout=2).read().decode(), end='')"
        for _ in range(50):
            answer = subprocess.run([*self.words[:2], sys.executable, "-c", ask], capture_output=True, text=True)
            if answer.returncode == 0:
                return answer.stdout
            time.sleep(0.2)
        return answer.stderr.splitlines()[-1]


@pytest.fixture
def apart(_peers: None) -> Iterator[Apart]:
    with tempfile.TemporaryDirectory(prefix="mc-ids-", dir="/var/tmp", ignore_cleanup_errors=True) as folder:
        made = Apart(Path(folder))
        try:
            yield made
        finally:
            for engine in made.podmans:
                for words in (["pod", "rm"], ["rm"]):
                    subprocess.run([*engine, *words, "-a", "-f", "-t", "0"], capture_output=True)
            made.holder.kill()
            made.holder.wait()


@pytest.mark.needs("podman")
def test_podman_notices_nothing(apart: Apart) -> None:
    meant = {"NEW": "--userns=auto", "WEB": "--userns=container:web"}
    theirs = apart.told(PODMAN, apart.podman("runc"), ["run"], **meant, PORT="8080")
    ours = apart.told(PODMAN, apart.podman(str(peers.RUNTIME)), ["run"], **meant, PORT="8090")
    assert ours == theirs
    assert {code for _, code, _ in ours} == {0, 1, 126}
    assert sum(bool(re.search(r"^ +0 +200000 +\d+$", printed, re.MULTILINE)) for _, _, printed in ours) > 8


@pytest.mark.needs("docker", "dockerd")
def test_docker_notices_nothing(apart: Apart) -> None:
    meant = {"NEW": "", "WEB": "--network container:web", "PORT": "8080"}
    with apart.docker() as docker:
        theirs = apart.told(DOCKER, docker, ["run", "--runtime", "runc"], **meant)
        ours = apart.told(DOCKER, docker, ["run", "--runtime", "mini"], **meant)
    assert ours == theirs
    assert {code for _, code, _ in ours} == {0, 125}
    assert sum(bool(re.search(r"^ +0 +100000 +65536$", printed, re.MULTILINE)) for _, _, printed in ours) > 5


@pytest.mark.needs("podman", "idmapped-overlay")
def test_a_volume_of_podmans_that_translates_ids(apart: Apart) -> None:
    """Which runc 1.1 ignores: in a namespace of its own, and in that of another container."""
    podman = apart.podman(str(peers.RUNTIME))
    volume = ["-v", f"{apart.folder}/given:/v:idmap"]
    subprocess.run([*podman, "run", "-d", "--name", "web", "--userns=auto", "demo", "sleep", "1000"], check=True)
    try:
        for name, space in (("new", "auto"), ("joined", "container:web")):
            words = ["run", "--rm", f"--userns={space}", *volume, "demo", "touch", f"/v/{name}"]
            subprocess.run([*podman, *words], check=True)
            assert (apart.folder / "given" / name).stat().st_uid == 0
    finally:
        subprocess.run([*podman, "rm", "-f", "-t", "0", "web"], check=True)
