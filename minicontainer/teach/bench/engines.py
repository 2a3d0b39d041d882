"""The contestants: this engine, docker, podman, and the bare OCI runtimes runc and crun, behind one small door.

Each is asked for the same container, is shown to give the same container, and only then timed. Who is not installed or
does not work here says so in one line, and the others go on without it.

`$DOCKER_HOST` reaches docker as always; `$PODMAN` may name a wrapper around podman that knows where its storage is.
"""

from __future__ import annotations

import copy
import functools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ... import errors, steps, syscalls
from ...image import archive, store
from ...kernel import capabilities, cgroups, seccomp
from ...runtime import spec
from .. import measure
from . import Workshop

NETWORKS = ("bridge", "none", "host")

# What a container shows before it is timed. ARP tells of a gateway where there is no right to ping.
SHOW = """\
cat /proc/self/status
gateway=$(ip route | sed -n 's/^default via \\([0-9.]*\\).*/\\1/p')
[ "$gateway" ] || exit 0
ping -c 1 -W 2 $gateway >/dev/null 2>&1 && echo "Gateway: answers ping" && exit 0
nc -w 1 $gateway 9 </dev/null >/dev/null 2>&1
grep "^$gateway .* 0x2 " /proc/net/arp >/dev/null && echo "Gateway: answers ARP"
exit 0
"""


class Unfit(errors.MiniContainerError):
    """An engine that cannot take part; the message says why."""


def said(command: Sequence[str], environment: dict[str, str] | None = None) -> str:
    """A command's output. Raises Unfit with the last line it complained in."""
    try:
        done = subprocess.run(
            command, check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
            timeout=300, env=environment,
        )  # fmt: skip
    except FileNotFoundError:
        raise Unfit(f"{command[0]} is not installed") from None
    except subprocess.TimeoutExpired:
        raise Unfit(f"`{' '.join(command[:3])}` did not end within 300 s") from None
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise Unfit(lines[-1] if lines else f"`{' '.join(command[:3])}` ended with {done.returncode}")
    return done.stdout


class Engine:
    """What a bench asks of a contestant."""

    name = ""
    networks: tuple[str, ...] = NETWORKS
    typed: list[str]  # the words that its commands begin with

    def prepare(self, workshop: Workshop, path: str, image: str) -> str:
        """Have the docker-archive at `path` ready to run as `image`. Returns the version. Raises Unfit."""
        raise NotImplementedError

    def command(self, network: str, words: Sequence[str], flags: Sequence[str] = ()) -> list[str]:
        """What is typed to run `words` in a container that is gone afterwards; `flags` are docker-run(1)'s."""
        raise NotImplementedError

    def timed(self, network: str, words: Sequence[str]) -> measure.Timed:
        """A function that runs it once and returns the seconds."""
        command = self.command(network, words)
        return lambda: measure.spent(command)

    def output(self, network: str, words: Sequence[str]) -> str:
        """What it prints."""
        return said(self.command(network, words))


class Minicontainer(Engine):
    """This engine, by the command that a user types."""

    name = "minicontainer"

    def __init__(self) -> None:
        self.typed = command_line()

    def prepare(self, workshop: Workshop, path: str, image: str) -> str:
        """Into the workshop's store, which goes with the workshop."""
        archive.load(store.Store(workshop.root), path)
        self.image = image
        return " ".join(self.typed)

    def command(self, network: str, words: Sequence[str], flags: Sequence[str] = ()) -> list[str]:
        """minicontainer run --rm"""
        return [*self.typed, "run", "--rm", "--network", network, *flags, self.image, *words]


def command_line() -> list[str]:
    """The command in /usr/local/bin, if it leads to this very package; else Python with -m."""
    link = "/usr/local/bin/minicontainer"
    checkout = os.path.dirname(os.path.dirname(os.path.abspath(spec.__file__))).removesuffix("/minicontainer")
    try:
        with open(link, errors="replace") as file:
            if f'"{checkout}"' in file.read() and os.access(link, os.X_OK):
                return [link]
    except OSError:
        pass
    return [sys.executable, "-m", "minicontainer"]


class Docker(Engine):
    """docker, or what has its command line."""

    name = "docker"

    def __init__(self) -> None:
        self.program = self.find()
        self.typed = [self.program]

    def find(self) -> str:
        """The program to call."""
        return "docker"

    def version(self) -> str:
        """The server's: it does the work. Raises Unfit where none answers."""
        return "docker " + said([self.program, "version", "--format", "{{.Server.Version}}"]).strip()

    def prepare(self, workshop: Workshop, path: str, image: str) -> str:
        """Loaded under a name of the bench's own, removed when the workshop closes."""
        version = self.version()
        self.image = image
        workshop.at_end(f"remove {image} from {self.name}", self.remove)
        said([self.program, "load", "-q", "-i", path])
        return version

    def remove(self) -> None:
        """The image, and containers of it that an interrupted run has left."""
        left = said([self.program, "ps", "-aq", "--filter", f"ancestor={self.image}"]).split()
        if left:
            said([self.program, "rm", "-f", *left])
        if said([self.program, "images", "-q", self.image]).strip():
            said([self.program, "rmi", "-f", self.image])

    def command(self, network: str, words: Sequence[str], flags: Sequence[str] = ()) -> list[str]:
        """docker run --rm"""
        return [self.program, "run", "--rm", "--network", network, *flags, self.image, *words]


class Podman(Docker):
    """podman: docker's command line without a daemon."""

    name = "podman"

    def find(self) -> str:
        """$PODMAN, or the one on the path."""
        return os.environ.get("PODMAN") or "podman"

    def version(self) -> str:
        """`podman version 4.3.1`, and the runtime that it calls."""
        number = said([self.program, "--version"]).split()[-1]
        runtime = said([self.program, "info", "--format", "{{.Host.OCIRuntime.Name}}"]).strip()
        return f"podman {number} ({runtime})"


class Runtime(Engine):
    """runc, crun, or ours as one: what docker and podman call in the end. A bundle in, a process out.

    There is no image, network or lease. The bundle asks for what our containers have by default, so the difference is
    the programs'.
    """

    networks = ("none", "host")

    def __init__(self, name: str, typed: Sequence[str] = ()) -> None:
        self.name = name
        self.typed = list(typed) or [name]
        self.hidden = -1  # a mount namespace to run it in

    def prepare(self, workshop: Workshop, path: str, image: str) -> str:
        """A bundle for each network, from the tree that the archive was made of."""
        if not shutil.which(self.typed[0]):
            raise Unfit(f"{self.name} is not installed")
        self.id = f"{workshop.tag}-{self.name.replace(' ', '-')}"
        self.folder = f"{workshop.folder}/{self.id}"
        self.typed += ["--root", f"{self.folder}/state"]
        for network in self.networks:
            os.makedirs(f"{self.folder}/{network}")
        version = said([*self.typed, "--version"]).splitlines()[0].replace("version ", "")
        workshop.at_end(f"remove {self.name}'s container", self.remove)
        try:
            self.output("none", ["true"])
        except Unfit as refusal:
            if not os.path.ismount("/sys/fs/cgroup/unified"):
                raise
            # crun wants pure v2 or pure v1; most hosts in between are v1 with an empty v2 beside it.
            self.hidden = namespace_without("/sys/fs/cgroup/unified")
            try:
                self.output("none", ["true"])
            except Unfit:
                raise refusal from None
            version += ", in a mount namespace without /sys/fs/cgroup/unified, which it refuses to see"
        return version

    def remove(self) -> None:
        """A container that an interrupted run has left."""
        with self.where():
            if self.id in said([*self.typed, "list", "-q"]).split():
                said([*self.typed, "delete", "--force", self.id])
        steps.execute(cgroups.remove(f"/{self.id}"), {})  # one that refuses a config leaves the cgroup behind
        if self.hidden >= 0:
            os.close(self.hidden)

    def command(self, network: str, words: Sequence[str], flags: Sequence[str] = ()) -> list[str]:
        """runc run, of a bundle whose config.json says what to run."""
        return [*self.typed, "run", "--bundle", self.bundle(network, words), self.id]

    def bundle(self, network: str, words: Sequence[str]) -> str:
        """A directory whose config.json says what to run; it has no root file system of its own, but names the tree."""
        path = f"{self.folder}/{network}"
        with open(f"{path}/config.json", "w") as file:
            json.dump(self.config(network, words), file)
        return path

    def in_steps(self, words: Sequence[str]) -> measure.Timed:
        """The same by create, start and delete, as engines call a runtime: the three commands' seconds."""
        commands = (
            [*self.typed, "create", "--bundle", self.bundle("none", words), self.id],
            [*self.typed, "start", self.id],
            [*self.typed, "delete", "--force", self.id],
        )

        def once() -> float:
            with self.where():
                return sum(measure.spent(command) for command in commands)

        return once

    def config(self, network: str, words: Sequence[str]) -> dict[str, Any]:
        """Our default container, as the OCI has it."""
        config = copy.deepcopy(spec.default())
        granted = capabilities.resolve([], [], False)
        config["root"]["path"] = os.path.join(os.path.dirname(self.folder), "tree")
        config["process"]["args"] = list(words)
        config["process"]["capabilities"] = dict.fromkeys(("bounding", "effective", "permitted"), granted)
        linux = config["linux"]
        linux["seccomp"] = seccomp.default(granted)
        linux["cgroupsPath"] = f"/{self.id}"
        rules = cgroups.default_devices()
        # "Any number" is a number left out, for the specification and for crun; runc takes -1, too.
        linux["resources"] = {"devices": [{key: value for key, value in rule.items() if value != -1} for rule in rules]}
        if network == "host":
            linux["namespaces"] = [space for space in linux["namespaces"] if space["type"] != "network"]
        else:
            config["hostname"] = "bench"
        return config

    def timed(self, network: str, words: Sequence[str]) -> measure.Timed:
        """In its own mount namespace, if it needs one; going there is not timed."""
        command = self.command(network, words)

        def once() -> float:
            with self.where():
                return measure.spent(command)

        return once

    def output(self, network: str, words: Sequence[str]) -> str:
        """In its own mount namespace, if it needs one."""
        command = self.command(network, words)
        with self.where():
            return said(command)

    @contextmanager
    def where(self) -> Iterator[None]:
        """This process in the mount namespace that the runtime needs, and back. (It lands in `/`: setns(2).)"""
        if self.hidden < 0:
            yield
            return
        home = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        directory = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            syscalls.setns(self.hidden, syscalls.CLONE_NEWNS)
            yield
        finally:
            syscalls.setns(home, syscalls.CLONE_NEWNS)
            os.fchdir(directory)
            os.close(home)
            os.close(directory)


def namespace_without(path: str) -> int:
    """A descriptor of a mount namespace like ours, in which nothing is mounted at `path`. Made by a child."""
    ready, told = os.pipe()
    done, leave = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(leave)
            syscalls.unshare(syscalls.CLONE_NEWNS)
            syscalls.mount(
                "none", "/", "", syscalls.MS_REC | syscalls.MS_PRIVATE
            )  # what is unmounted here is so only here
            syscalls.umount(path)
            os.write(told, b".")
            os.read(done, 1)
        finally:
            os._exit(0)
    try:
        os.close(told)
        os.close(done)
        if not os.read(ready, 1):
            raise Unfit(f"no mount namespace without {path} could be made")
        return os.open(f"/proc/{child}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(ready)
        os.close(leave)
        os.waitpid(child, 0)


def shown(engine: Engine, network: str) -> dict[str, str]:
    """What the engine's container says of itself: the lines of /proc/self/status, and `Gateway`."""
    fields = {}
    for line in engine.output(network, ["sh", "-c", SHOW]).splitlines():
        key, _, value = line.partition(":")
        fields[key] = value.strip()
    return fields


def everyone() -> list[Callable[[], Engine]]:
    """All contestants, ours first."""
    return [Minicontainer, Docker, Podman, *(functools.partial(Runtime, *each) for each in runtimes())]


def runtimes() -> list[tuple[str, list[str]]]:
    """The OCI runtimes, ours first: what they are called, and the words that their commands begin with."""
    return [("minicontainer oci", [*command_line(), "oci"]), ("runc", ["runc"]), ("crun", ["crun"])]
