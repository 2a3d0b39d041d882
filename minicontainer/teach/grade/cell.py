"""The container that a submission is graded in: the keeper of rooms (teach/lab/keeper.py) runs inside, pytest outside.

    with cell.Place():                   a store of its own: one image, made on the spot, and nothing else
        …  pytest … --cell 60601         its fixture `keeper` calls `cell.keeper(60601)`

    the machine     pytest, the tests, the results     root; no line of a student's is ever loaded here
      the cell      the keeper                         root of a container: no network, three capabilities, bounds
                                                       on memory, processes, processor; /usr and Python to read
        the room    the student's code                 another user of the machine, root of its own user namespace

A student who got out of the room would be an ordinary user of a container in which there is nothing: no test, no
solution, no other submission, no result, no secret of the grader's environment.

Marks need a cgroup that limits memory and processes: root, or root of a user namespace with a delegated one.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from types import TracebackType

from ... import errors, files, host
from ...engine import bootstrap, client, system
from ...image import making, reference
from ...kernel import cgroups, seccomp
from ..lab import keeper as keeping
from ..lab import rooms

IMAGE = "cell:latest"
LIMITS = {"--cpus": "1", "--memory": "512m", "--memory-swap": "512m", "--pids-limit": "256"}

# What the keeper does: maps ids of a room (SETUID, SETGID), ends what is another user's (KILL).
CAPABILITIES = ("SETUID", "SETGID", "KILL")
# Where ordinary users may make no user namespaces (Debian's and Ubuntu's switches), who may has CAP_SYS_ADMIN.
RESTRICTIONS = (("kernel.unprivileged_userns_clone", "0"), ("kernel.apparmor_restrict_unprivileged_userns", "1"))

# Docker's profile for who may mount, as a room's root does in its own namespaces; what no lab is about, left out.
WITH = ("CAP_SYS_ADMIN", "CAP_SYS_CHROOT")
MORE, LESS = ("pivot_root",), ("bpf", "fanotify_init", "lookup_dcookie", "perf_event_open", "quotactl", "syslog")

DIRECTORIES = ("dev", "etc", "home", "proc", "root", "run", "sys", "tmp", "usr", "var", "var/tmp")
MERGED = ("bin", "lib", "lib32", "lib64", "sbin")  # links into /usr, as this machine has them


def obstacle() -> str:
    """Why nobody can be graded for marks here, with the mend; empty if one can."""
    mend = (
        "sudo minicontainer grade …, or where systemd runs: systemd-run --user --scope -p Delegate=yes "
        "unshare --map-auto -Ur minicontainer grade …; `minicontainer lab check NN` needs neither"
    )
    if not host.privileged() or not cgroups.usable():
        fact = host.user_namespaces_fact()
        first = "" if fact.state == "ok" else f"; for the latter first {fact.mend}, for {fact.said}"
        return (
            "grading for marks holds each submission to limits of memory and processes, so it needs root, or a cgroup "
            f"of your own: {mend}{first}"
        )
    if keeping.owner(rooms.PLAIN_UID) != rooms.PLAIN_UID:
        return (
            "grading for marks runs each submission as another user, and this user namespace has none; they come from "
            f"/etc/subuid (subuid(5)), and newuidmap(1) gives them out: apt-get install uidmap; {mend}"
        )
    return ""


class Place:
    """A store for the cells of one grading run; nothing of it is left, and what a killed run left goes first.

    Used in a `with` statement; MINICONTAINER_ROOT names the store meanwhile. The folder's lock is inherited by every
    pytest (`lock`, for pass_fds): as long as one of them lives, nobody clears the store away.
    """

    def __init__(self, base: str = "") -> None:
        self.base = base or f"{host.root()}-grade"

    def __enter__(self) -> Place:
        if lacking := obstacle():
            raise errors.Unsupported(lacking)
        sweep(self.base)
        while True:
            files.make_directory(self.base, 0o711)
            try:
                with files.locked(self.base):
                    self.folder = tempfile.mkdtemp(prefix="run-", dir=self.base)
                    self.lock = files.lock(self.folder)
                break
            except FileNotFoundError:
                pass  # another grading run was the last one, and has just removed it
        os.chmod(self.folder, 0o711)
        self.before = os.environ.get("MINICONTAINER_ROOT")
        os.environ["MINICONTAINER_ROOT"] = f"{self.folder}/store"
        make_image(client.Client())
        files.write(profile_path(), json.dumps(profile()).encode())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        try:
            clear(self.folder)
            os.close(self.lock)
        finally:
            if self.before is None:
                del os.environ["MINICONTAINER_ROOT"]
            else:
                os.environ["MINICONTAINER_ROOT"] = self.before
        sweep(self.base)


def sweep(base: str) -> None:
    """Clear away every store whose grading run is no more; the folder of all of them goes with the last."""
    try:
        everybody = files.lock(base, make=False)
    except FileNotFoundError:
        return
    try:
        for name in os.listdir(base):
            try:
                lock = files.lock(f"{base}/{name}", wait=False, make=False)
            except (BlockingIOError, FileNotFoundError):
                continue  # somebody is grading, or has just finished
            clear(f"{base}/{name}")
            os.close(lock)
        if not os.listdir(base):
            os.rmdir(base)
    finally:
        os.close(everybody)


def clear(folder: str) -> None:
    """End the cells of a store and remove it. The names of what the kernel has of it depend on where it lies."""
    before = os.environ.get("MINICONTAINER_ROOT")
    os.environ["MINICONTAINER_ROOT"] = f"{folder}/store"
    try:
        for container in client.Client().containers.list(all=True):
            container.remove(force=True)
        system.System(f"{folder}/store").reset()
    finally:
        if before is None:
            del os.environ["MINICONTAINER_ROOT"]
        else:
            os.environ["MINICONTAINER_ROOT"] = before
    shutil.rmtree(folder)


def make_image(to: client.Client) -> None:
    """An image of empty directories, the links into /usr, and root and nobody in /etc; nothing else."""
    with to.images.store.job() as job:
        path = job.path("tar")
        with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
            for name in DIRECTORIES:
                entry = tarfile.TarInfo(name)
                entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if name.endswith("tmp") else 0o755
                tar.addfile(entry)
            for name in MERGED:
                if os.path.islink(f"/{name}"):
                    entry = tarfile.TarInfo(name)
                    entry.type, entry.linkname = tarfile.SYMTYPE, os.readlink(f"/{name}")
                    tar.addfile(entry)
            for name, text in (("passwd", bootstrap.PASSWD), ("group", bootstrap.GROUP)):
                entry = tarfile.TarInfo(f"etc/{name}")
                entry.size, entry.mode = len(text), 0o644
                tar.addfile(entry, io.BytesIO(text.encode()))
        config = {"architecture": reference.host_platform()[0], "os": "linux", "config": {"Env": [f"PATH={PATH}"]}}
        making.make(job, config, [path], IMAGE)


PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def profile() -> seccomp.Profile:
    """The cell's seccomp profile."""
    made = seccomp.default(WITH)
    for rule in made["syscalls"]:
        rule["names"] = [name for name in rule["names"] if name not in LESS]
    made["syscalls"] = [rule for rule in made["syscalls"] if rule["names"]]
    made["syscalls"].append({"names": list(MORE), "action": "SCMP_ACT_ALLOW"})
    return made


def profile_path() -> str:
    """Where the profile lies: beside the store."""
    return f"{os.path.dirname(host.root())}/seccomp.json"


def capabilities() -> list[str]:
    """What the keeper needs on this machine."""
    restricted = any(host.sysctl(name) == value for name, value in RESTRICTIONS)
    return [*CAPABILITIES, *(["SYS_ADMIN"] if restricted else [])]


def command(name: str, lent: Mapping[str, str]) -> list[str]:
    """The command line that runs a keeper in a cell of that name; `lent` are directories to write to: {ours: its}."""
    package = os.path.join(keeping.child_path(), "minicontainer")
    read = ["/usr", package, sys.prefix, sys.base_prefix]
    read += [f"/{name}" for name in MERGED if os.path.isdir(f"/{name}") and not os.path.islink(f"/{name}")]
    words = [sys.executable, "-m", "minicontainer", "run", "--rm", "-i", "--name", name, "--hostname", "cell"]
    words += ["--network", "none", "--read-only", "--log-driver", "none", "--cap-drop", "ALL"]
    words += [word for limit in LIMITS.items() for word in limit]
    words += [word for capability in capabilities() for word in ("--cap-add", capability)]
    for option in ("no-new-privileges", "systempaths=unconfined", f"seccomp={profile_path()}"):
        words += ["--security-opt", option]
    for path in outermost(read):
        words += ["-v", f"{path}:{path}:ro"]
    for path, inside in lent.items():
        words += ["-v", f"{path}:{inside}"]
    return [*words, IMAGE, sys.executable, "-I", "-m", "minicontainer.teach.lab.keeper"]


def outermost(paths: list[str]) -> list[str]:
    """Without what lies below another one of them."""
    unique = sorted({os.path.abspath(path) for path in paths})
    return [path for path in unique if not any(path.startswith(f"{other}/") for other in unique)]


def name(uid: int) -> str:
    """What the cell is called whose rooms belong to this user."""
    return f"cell-{uid}"


def keeper(uid: int, lent: Mapping[str, str]) -> rooms.Keeper:
    """A keeper in a cell, in the store of `Place`; its rooms are to be this user's. For `lent`, see `command`."""
    containers = client.Client().containers
    found: list[int] = []

    def pid() -> int:
        if not found:
            running = containers.running(containers.find(name(uid))["id"])
            if running is None:
                raise errors.MiniContainerError("the cell has ended")
            found.append(running["pid"])
        return found[0]

    return rooms.Keeper(command(name(uid), lent), pid)


def end(name: str) -> None:
    """End a cell, whatever it is doing; nothing happens if there is none."""
    try:
        client.Client().containers.get(name).remove(force=True)
    except errors.ContainerNotFound:
        pass
