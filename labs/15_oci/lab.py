"""Lab 15: a runtime for bundles, and the process that stays beside a container.

The README tells the job. Yours to write is what raises NotImplementedError; add functions and imports as you need.
"""

import json
import os
import pathlib
import select
import shutil
import signal
import subprocess

from minicontainer import syscalls

# A bundle is a directory with config.json and a root directory. `home` is a directory of yours, made at need: what you
# keep of a container lies below it, and of what you have kept nothing there is no container.

# What this runtime does. A path is as in `jq`: an element of a list has its number in brackets.
KNOWN = {
    "ociVersion": {}, "hostname": {}, "root": {"path": {}},
    "process": {"args": {}, "cwd": {}, "env": {}},
    "mounts": [{"destination": {}, "type": {}, "source": {}}],
    "linux": {"namespaces": [{"type": {}, "path": {}}]},
}  # fmt: skip

# What config.json calls a kind of namespace: its flag for unshare and setns.
KINDS = {
    "cgroup": syscalls.CLONE_NEWCGROUP, "ipc": syscalls.CLONE_NEWIPC, "mount": syscalls.CLONE_NEWNS,
    "network": syscalls.CLONE_NEWNET, "pid": syscalls.CLONE_NEWPID, "uts": syscalls.CLONE_NEWUTS,
}  # fmt: skip

PR_SET_CHILD_SUBREAPER = 36  # prctl(2): orphans among my descendants become my children, as if I were process 1


def refused(config):
    """The paths of all that a config asks for and KNOWN has not, sorted: ["linux.seccomp", "mounts[2].options"].

    What asks for nothing (null, false, 0, "", [], {}) is not refused. Where a whole part is unknown, its own path is
    told, and none of those in it. A list of one element in KNOWN stands for any number of such.
    """
    raise NotImplementedError


def create(home, name, bundle):
    """Make the container `name` from a bundle; its command waits for `start`. Returns the pid of its process 1.

    It has new namespaces of the kinds that linux.namespaces names; where one has a path, it enters that one. mount and
    pid are always among them, and new. Its root is the bundle's; the mounts are made in their order, and no symbolic
    link in the root directory leads one of them out of it. It gets process.env and nothing else, and no descriptor
    beyond 2. If something keeps it from being ready, OSError says what, and nothing is left: FileExistsError where the
    name is taken, FileNotFoundError where process.args names no program. ValueError names all that is refused.
    """
    raise NotImplementedError


def start(home, names):
    """Let the commands of these containers begin: of all, or, if one of them is not created any more, of none.

    RuntimeError then. When it returns, each process 1 has become its command.
    """
    raise NotImplementedError


def state(home, name):
    """What a container is by now: {"status": "created", "running" or "stopped", "pid": …}.

    A process that has ended and was not waited for is stopped; so is one whose pid somebody else has by now. The pid is
    0 then. LookupError if there is no such container.
    """
    raise NotImplementedError


def remove(home, name, seconds):
    """End a container, whatever it does, and forget it. Returns its exit code as a shell shows it (143, 137).

    It gets SIGTERM, and SIGKILL after so many `seconds`. It is called by the process to which orphans come. Where the
    exit code has been told to somebody before, it returns None; and who merely has the pid by now is left alone.
    """
    raise NotImplementedError


def watch(runtime, bundle, name, folder):
    """Be the engine of a container in some other runtime; `runtime` are the words that its command begins with.

    A process of its own has the runtime create the container and start it, stays until its command has ended, and has
    it deleted. It returns that process's pid when the container has started. In `folder`, which is there, `output` gets
    what the container writes to its two outputs, and `exit`, when all is over, the exit code as a shell shows it.
    RuntimeError with the runtime's own words if it cannot create or start the container: then that is deleted by force.
    """
    raise NotImplementedError
