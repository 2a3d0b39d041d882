"""What containers leave on a machine, seen from outside: by the kernel's own files, `ip` and `nft`, not by our code."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import minicontainer

# What a store keeps there for all of its containers; and how names begin of what was before the first one.
SHARED = ("names", "leases")
BEFORE = ("ip_forward-", "ip6_forward-")
HIERARCHIES = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines() if " - cgroup" in line]


@contextlib.contextmanager
def store_with_busybox(root: Path) -> Iterator[Path]:
    """A store with the image `busybox`, named by MINICONTAINER_ROOT meanwhile; its bridge and table go with it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINICONTAINER_ROOT", str(root))
        minicontainer("bootstrap", "busybox")
        yield root
        minicontainer("system", "reset", "--force")


def suffix(root: Path) -> str:
    """What the names of that store's shared objects end with."""
    command = [sys.executable, "-c", "from minicontainer import host; print(host.suffix())"]
    environment = {**os.environ, "MINICONTAINER_ROOT": str(root)}
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout.strip()


def find(root: Path, suffix: str) -> list[str]:
    """Every trace of a container of the store at `root`, whose shared objects' names end in `suffix`."""
    found = [f"mount {line.split()[4]}" for line in mounts() if line.split()[4].startswith(f"{root}/")]
    found += [f"link {name}" for name in cables(f"mc0{suffix}")]
    for point in HIERARCHIES:
        for parent in (f"minicontainer{suffix}", f"system.slice/minicontainer{suffix}-containers.service"):
            found += [f"cgroup {path}" for path in Path(point, parent).glob("?" * 64) if path.is_dir()]
    for directory in (root / "containers", root / "containers/names", Path(f"/run/minicontainer{suffix}")):
        if directory.is_dir():
            names = [name for name in os.listdir(directory) if name not in SHARED and not name.startswith(BEFORE)]
            found += [f"{directory}/{name}" for name in names]
    found += [f"lease {path}" for path in Path(f"/run/minicontainer{suffix}").glob("leases/**/*") if is_lease(path)]
    table = subprocess.run(["nft", "list", "table", "inet", f"minicontainer{suffix}"], capture_output=True, text=True)
    table = table if table.returncode == 0 else subprocess.run(
        ["nft", "list", "table", "ip", f"minicontainer{suffix}"], capture_output=True, text=True
    )  # fmt: skip
    found += [f"rule {line.strip()}" for line in table.stdout.splitlines() if " : 1" in line or " : f" in line]
    table = subprocess.run(["nft", "list", "table", "bridge", f"minicontainer{suffix}"], capture_output=True, text=True)
    found += [f"sender {line.strip()}" for line in table.stdout.splitlines() if "comment" in line]
    return found


def none_within(root: Path, suffix: str, seconds: float = 10) -> list[str]:
    """The traces still there after that time: the kernel removes a dead namespace's devices on its own time."""
    deadline = time.monotonic() + seconds
    while True:
        found = find(root, suffix)
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.05)


def resolvers(root: Path) -> list[int]:
    """The pids of that store's resolvers, by the kernel's own list."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if b"minicontainer.network.resolver" in Path(f"/proc/{pid}/cmdline").read_bytes():
                if f"MINICONTAINER_ROOT={root}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                    found.append(int(pid))
        except (FileNotFoundError, ProcessLookupError):
            pass
    return found


def mounts() -> list[str]:
    """The lines of /proc/self/mountinfo."""
    return Path("/proc/self/mountinfo").read_text().splitlines()


def is_lease(path: Path) -> bool:
    """Leases are links or files; the pool's own book-keeping has no container's id in it."""
    with contextlib.suppress(OSError):
        text = os.readlink(path) if path.is_symlink() else path.read_text() if path.is_file() else ""
        return len(text.strip()) == 64
    return False


def cables(bridge: str) -> list[str]:
    """The devices plugged into a bridge."""
    done = subprocess.run(["ip", "-o", "link", "show", "master", bridge], capture_output=True, text=True)
    return [line.split()[1] for line in done.stdout.splitlines()]
