"""`oci create`, `start` and `delete`, killed at each point: `python oci_killed_at.py VERB WHO BUNDLE ROOT CGROUP`.

A point is before a step of a plan, or a call that changes the disk. WHO: `parent` dies by SIGKILL; `child`,
process 1 of its pid namespace, which cannot be killed from within, ends without a word. After each, what is there can
be listed, and `delete --force` leaves no directory, cgroup, mount or process. Prints how many points there were.

A CGROUP of the form slice:prefix:name is made by systemd. Then, a point is also before and after each question to it.
With "none", this machine lets nobody make one: what runs is found without.

All in one process, which forks: an interpreter's start for each point would take most of the time.
"""

import os
import signal
import sys
import time
from pathlib import Path

from minicontainer import cli, errors, steps, syscalls
from minicontainer.kernel import cgroups
from minicontainer.kernel.cgroups import scope
from minicontainer.runtime import lifecycle

verb, who, bundle, root, cgroup = sys.argv[1:]
runtime = lifecycle.Runtime(root)
systemd = ["--systemd-cgroup"] if ":" in cgroup else []
if cgroup == "none":
    cgroups.obstacle = lambda: "this is a test"
made = scope.meant(cgroup, "c") if systemd else scope.Scope("", "", cgroup)
perform = steps.execute
CHANGES = ("mkdir", "mkfifo", "rename", "unlink", "rmdir", "write")
ask = scope.Conversation.answer
originals = {name: getattr(os, name) for name in CHANGES}


def die_at(number: int) -> None:
    """From here on, this process (or its child, if that is meant) dies at the point of that number."""
    count, victim = 0, os.getpid()

    def point(whose: str) -> None:
        nonlocal count
        if whose == who and (who == "child" or os.getpid() == victim):
            if count == number:
                os._exit(137) if who == "child" else os.kill(victim, signal.SIGKILL)
            count += 1

    def execute(plan, values, observe=None):  # type: ignore[no-untyped-def]
        whose = "child" if "channel" in values and "child_channel" not in values else "parent"

        def counted():  # type: ignore[no-untyped-def]
            for step in plan:
                point(whose)
                yield step

        perform(counted(), values, observe)

    def before(name):  # type: ignore[no-untyped-def]
        def call(*words, **more):  # type: ignore[no-untyped-def]
            if os.getpid() == victim:
                point("parent")
            return originals[name](*words, **more)

        return call

    def answer(systemd, message):  # type: ignore[no-untyped-def]
        point("parent")
        said = ask(systemd, message)
        point("parent")
        return said

    steps.execute = execute
    scope.Conversation.answer = answer  # type: ignore[method-assign]
    for name in CHANGES:
        setattr(os, name, before(name))


def run(*words: str, number: int = -1) -> int:
    """The command line, in a process of its own. Its exit code; minus the signal."""
    pid = os.fork()
    if pid == 0:
        die_at(number)
        try:
            code = cli.main(["oci", "--root", root, *systemd, *words])
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def mounts() -> list[str]:
    """The machine's root, with its propagation, and what is mounted in the bundle or the runtime's directory."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line for line in lines if line.split()[4] == "/" or bundle in line or root in line]


def nobody_is_left() -> None:
    """Whoever was orphaned is ours (PR_SET_CHILD_SUBREAPER): wait until the last has ended."""
    deadline = time.monotonic() + 20
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0 and time.monotonic() > deadline:
            left = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
            for each in left:
                os.kill(int(each), signal.SIGKILL)
            raise AssertionError(left)
        if pid == 0:
            time.sleep(0.001)


def no_scope_is_left() -> None:
    """What was asked of systemd by who has died since, it does all the same, in its own time."""
    deadline = time.monotonic() + 20
    while systemd:
        with scope.Conversation() as conversation:
            left = conversation.cgroup(made.unit)
        if not left and not [path for path in directories if os.path.exists(path)]:
            return
        assert time.monotonic() < deadline, left
        time.sleep(0.01)


def status() -> str:
    """Its state, which `list` tells as well. Meanwhile a process that was killed may end."""
    try:
        before = runtime.state("c")["status"]
    except errors.ContainerNotFound:
        before = "none"
    listed = {one["id"]: one["status"] for one in runtime.all()}
    try:
        assert listed["c"] in (before, runtime.state("c")["status"])
    except (KeyError, errors.ContainerNotFound):
        assert "c" not in listed
        return "none"
    return listed["c"]


syscalls.prctl(36, 1)  # PR_SET_CHILD_SUBREAPER
before = mounts()
directories = [f"{mount}{made.path}" for mount in cgroups.detect().mounts.values()]
words = {"create": ["create", "--bundle", bundle, "c"], "start": ["start", "c"], "delete": ["delete", "--force", "c"]}
possible = {
    "create": {"none", "creating", "created"}, "start": {"created", "running"},
    "delete": {"created", "running", "stopped", "creating", "none"},
}  # fmt: skip
number = 0
sys.stdout.flush()
while True:
    if verb != "create":
        assert run(*words["create"]) == 0
    if verb == "delete":
        assert run(*words["start"]) == 0
    code = run(*words[verb], number=number)
    seen = status()
    assert seen in possible[verb], (number, seen)
    if who == "child" and code:
        assert seen == "none" and code == 1, (number, code, seen)
    runtime.delete("c", force=True)
    assert status() == "none" and os.listdir(root) == [], (number, os.listdir(root))
    nobody_is_left()
    no_scope_is_left()
    assert mounts() == before, number
    assert [path for path in directories if os.path.exists(path)] == [], number
    if code == 0:
        break
    number += 1
print(number)
