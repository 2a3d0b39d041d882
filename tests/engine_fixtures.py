"""One store with three small images for all tests of `run`, and containers that run beside a test.

    from tests.engine_fixtures import Shop, fresh_shop  # noqa: F401

    demo      busybox with users, an entrypoint's worth of defaults, a volume, files to read and not to execute
    plain     busybox and no defaults at all, not even a command
    foreign   said to be for s390x, and its program is for no machine at all

They are written here as `docker save` writes archives, so that no other engine and no network is needed.
"""

import contextlib
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from minicontainer import host
from tests import leftovers
from tests.conftest import minicontainer, need

PASSWD = """\
root:x:0:0:root:/root:/bin/sh
alice:x:1000:1001:Alice:/home/alice:/bin/sh
daemon:x:1:1:daemon:/:/bin/false
"""
GROUP = """\
root:x:0:
wheel:x:10:root,alice
staff:x:50:alice
alice:x:1001:
"""
APPLETS = (
    "cat chmod chown cut dd df echo env false grep head hostname id ip kill ln ls md5sum mkdir mknod mount nc ps pwd "
    "readlink rm sed seq sh sleep sort stat stty tail test touch tr true tty umask uname wc yes"
).split()
# Debian's static busybox: what must be in a test image is one file.
BUSYBOX = "/bin/busybox"


def layer(files: dict[str, bytes | str | int], owner: int = 0, modes: dict[str, int] | None = None) -> bytes:
    """A tar: bytes are a file, a string is a symbolic link's target, a number is a directory's mode."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.uid = entry.gid = owner
            entry.mode = (modes or {}).get(name, 0o644)
            if isinstance(content, int):
                entry.type, entry.mode = tarfile.DIRTYPE, content
            elif isinstance(content, str):
                entry.type, entry.linkname = tarfile.SYMTYPE, content
            else:
                entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content) if isinstance(content, bytes) else None)
    return buffer.getvalue()


def archive(images: dict[str, tuple[dict[str, Any], list[bytes]]]) -> bytes:
    """What `docker save` would write: a name's config (with what it says beside the layers) and its layers."""
    files: dict[str, bytes | str | int] = {}
    manifest = []
    for name, (config, layers) in images.items():
        whole = {"os": "linux", "architecture": "amd64" if os.uname().machine == "x86_64" else "arm64", **config}
        diff_ids = [f"sha256:{hashlib.sha256(tar).hexdigest()}" for tar in layers]
        whole["rootfs"] = {"type": "layers", "diff_ids": diff_ids}
        text = json.dumps(whole).encode()
        names = []
        for tar in layers:
            names.append(f"{hashlib.sha256(tar).hexdigest()}/layer.tar")
            files[names[-1]] = tar
        config_name = f"{hashlib.sha256(text).hexdigest()}.json"
        files[config_name] = text
        manifest.append({"Config": config_name, "RepoTags": [name], "Layers": names})
    return layer({**files, "manifest.json": json.dumps(manifest).encode()})


def base_layer() -> bytes:
    """busybox, its applets by name, the directories every image has."""
    files: dict[str, bytes | str | int] = {
        "bin": 0o755,
        "bin/busybox": Path(BUSYBOX).read_bytes(),
        **{f"bin/{name}": "busybox" for name in APPLETS},
        "etc": 0o755,
        "etc/passwd": PASSWD.encode(),
        "etc/group": GROUP.encode(),
        "root": 0o700,
        "tmp": 0o1777,
        "home": 0o755,
    }
    return layer(files, modes={"bin/busybox": 0o755})


def images() -> dict[str, tuple[dict[str, Any], list[bytes]]]:
    """The three."""
    content = layer(
        {
            "srv": 0o755,
            "srv/data": 0o750,
            "srv/data/one": b"1\n",
            "srv/data/sub": 0o2775,
            "srv/data/sub/two": b"22\n",
            "srv/data/link": "../../etc/passwd",
            "opt": 0o755,
            "opt/script": b"#!/nosuch/interpreter\n",
            "opt/noise": b"this is neither a program nor a script\n",
            "opt/plain": b"nobody may execute this\n",
        },
        owner=1000,
        modes={"opt/script": 0o755, "opt/noise": 0o755, "srv/data/one": 0o4755},
    )
    defaults = {
        "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/opt", "COLOUR=blue", "SHAPE=round"],
        "Cmd": ["echo", "the default command"],
        "WorkingDir": "/srv",
        "Volumes": {"/srv/data": {}},
        "Labels": {"made": "by hand"},
    }
    return {
        "demo:latest": ({"config": defaults}, [base_layer(), content]),
        "plain:latest": ({"config": {}}, [base_layer()]),
        "foreign:latest": (
            {"architecture": "s390x", "config": {"Cmd": ["/bin/prog"]}},
            # An ELF header for s390 (e_machine 22, big-endian), and nothing behind it.
            [layer({"bin": 0o755, "bin/prog": b"\x7fELF\x02\x02\x01" + bytes(9) + b"\0\2\0\x16" + bytes(44)},
                   modes={"bin/prog": 0o755})],
        ),
    }  # fmt: skip


class Shop:
    """The store `root`, and how to use it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.suffix = leftovers.suffix(root)

    def run(
        self, *arguments: str, check: bool = True, stdin: str | None = None, remove: bool = True, **more: Any
    ) -> subprocess.CompletedProcess[str]:
        """`run --rm --network none …`, unless a network is named."""
        own = ["--rm"] if remove else []
        if not any(word.startswith("--net") for word in arguments):
            own += ["--network", "none"]
        return minicontainer("run", *own, *arguments, check=check, stdin=stdin, **more)

    def out(self, *arguments: str, **more: Any) -> str:
        """What a container that must succeed writes."""
        return self.run(*arguments, **more).stdout

    def refused(self, code: int, *arguments: str, **more: Any) -> str:
        """The sentence on stderr of a `run` that must fail with that exit code, write nothing, and leave nothing."""
        done = self.run(*arguments, check=False, **more)
        assert done.returncode == code, f"{done.returncode}: {done.stderr}"
        assert done.stdout == ""
        lines = [line for line in done.stderr.splitlines() if "warning:" not in line]
        assert len(lines) == 1, done.stderr
        assert lines[0].startswith("minicontainer: ")
        assert "Errno" not in lines[0] and "Traceback" not in lines[0]
        assert leftovers.none_within(self.root, self.suffix) == []
        return lines[0]

    def end_all(self) -> None:
        """Kill every container: what a test that failed left running is not the next one's problem."""
        for path in Path(f"/run/minicontainer{self.suffix}").glob("*/state.json"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                os.kill(json.loads(path.read_text())["pid"], signal.SIGKILL)

    def start(self, *arguments: str, name: str = "beside") -> "Beside":
        """A container that goes on beside the test; its command must write a line once it is ready."""
        return Beside(self, name, arguments)


class Beside:
    """`with shop.start(…) as container:` its init's pid, as this machine numbers it; the client that waits for it."""

    def __init__(self, shop: Shop, name: str, arguments: tuple[str, ...]) -> None:
        self.shop = shop
        self.name = name
        network = [] if any(word.startswith("--net") for word in arguments) else ["--network", "none"]
        self.client = subprocess.Popen(
            [sys.executable, "-m", "minicontainer", "run", "--rm", "--name", name, *network, *arguments],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def __enter__(self) -> "Beside":
        self.ready = self.line()
        assert self.ready, self.client.communicate()[1]
        self.id = os.readlink(self.shop.root / "containers/names" / self.name)
        state = Path(f"/run/minicontainer{self.shop.suffix}/{self.id}/state.json")
        # The command may speak before the monitor has written this down, which it then does at once.
        while not state.exists() and self.client.poll() is None:
            time.sleep(0.002)
        self.pid: int = json.loads(state.read_text())["pid"]
        return self

    def __exit__(self, *_: object) -> None:
        # While its state is there, so is its monitor: the pid is nobody else's.
        if Path(f"/run/minicontainer{self.shop.suffix}/{self.id}/state.json").exists():
            with contextlib.suppress(ProcessLookupError):  # reaped, and being taken down
                os.kill(self.pid, signal.SIGKILL)
        self.client.communicate(timeout=30)

    def line(self) -> str:
        """The next line that it writes."""
        assert self.client.stdout is not None
        return self.client.stdout.readline().rstrip("\n")

    def wait(self) -> int:
        """The client's exit code."""
        self.rest, self.error = self.client.communicate(timeout=30)
        return self.client.returncode

    def namespace(self, kind: str) -> str:
        """The inode of one of its namespaces."""
        return os.readlink(f"/proc/{self.pid}/ns/{kind}")

    def status(self, field: str) -> str:
        """One line of /proc/PID/status."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(field + ":"):
                return line.partition(":")[2].strip()
        raise KeyError(field)

    def mounts(self) -> dict[str, list[str]]:
        """/proc/PID/mountinfo (proc(5)): by mount point, the fields; the last one mounted there wins."""
        lines = Path(f"/proc/{self.pid}/mountinfo").read_text().splitlines()
        return {line.split()[4]: line.split() for line in lines}

    def cgroup(self, controller: str) -> Path:
        """Its cgroup's directory in the hierarchy that has this controller."""
        for line in Path(f"/proc/{self.pid}/cgroup").read_text().splitlines():
            number, names, path = line.split(":", 2)
            if controller in names.split(","):
                return Path(f"/sys/fs/cgroup/{controller}{path}")
            if number == "0" and Path("/sys/fs/cgroup/cgroup.controllers").exists():
                return Path(f"/sys/fs/cgroup{path}")
        raise KeyError(controller)


@pytest.fixture(name="shop")
def fresh_shop(shared_store: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    """The shared store; afterwards, no test has left anything in it, but for volumes, which go before the next one: an
    anonymous one outlives `rm -f` without -v, as docker has it."""
    monkeypatch.setenv("MINICONTAINER_ROOT", str(shared_store))
    for volume in (shared_store / "volumes").glob("*"):
        shutil.rmtree(volume)
    made = Shop(shared_store)
    yield made
    left = leftovers.none_within(made.root, made.suffix)
    if left:
        made.end_all()
    assert left == []


def fill(root: Path) -> None:
    """Load the images into the store at `root`, which MINICONTAINER_ROOT names."""
    need("overlay" if host.is_root() else "user-overlay", "libseccomp")
    path = root.parent / "images.tar"
    path.write_bytes(archive(images()))
    minicontainer("load", "-i", str(path))
