"""Lab 23: processes that have ended, and nobody wants to know.

The README tells the job. Yours to write is what raises NotImplementedError; add functions and imports as you need.
"""

import os
import select
import signal
import time


### BEGIN SOLUTION
def status(pid):
    """(state, parent) of a process; ("", 0) if there is none. Its name may hold anything, even a parenthesis."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            state, parent = file.read().rpartition(")")[2].split()[:2]
    except OSError:
        return "", 0
    return state, int(parent)


def zombies(parent):
    """The zombies that a process has left."""
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    return [pid for pid in pids if status(pid) == ("Z", parent)]


def fewer(parent, count, seconds=0.5):
    """Wait until `parent` has fewer zombies than `count`; whether it has."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if len(zombies(parent)) < count:
            return True
        time.sleep(0.01)
    return False


def reap():
    """As process 1, wait for whoever has ended, and for nobody else."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def end(parent):
    """End a process for good; its children are ours afterwards, or gone with their namespace."""
    gone = os.pidfd_open(parent)
    os.kill(parent, signal.SIGKILL)
    select.select([gone], [], [])


### END SOLUTION
def diagnose():
    """Every zombie of this machine, by who has not waited for it: a list of [parent, [zombie, …]], both sorted.

    All are pids as our /proc has them, those in other pid namespaces, too.
    """
    ### BEGIN SOLUTION
    found = {}
    for pid in sorted(int(name) for name in os.listdir("/proc") if name.isdigit()):
        state, parent = status(pid)
        if state == "Z":
            found.setdefault(parent, []).append(pid)
    return sorted([parent, pids] for parent, pids in found.items())
    ### END SOLUTION


def mend(parent):
    """Make the zombies of `parent` go away, with as little harm as possible. Returns nothing.

    It may be you, process 1. It may be stopped. It may wait for one child each time that it hears of one. Only if it
    never waits, whatever one does, it has to end, and with it goes all that it leaves.
    """
    ### BEGIN SOLUTION
    if parent == os.getpid():
        reap()
        return
    count = len(zombies(parent))
    if status(parent)[0] == "T":
        os.kill(parent, signal.SIGCONT)
    while (left := len(zombies(parent))) and left <= count:
        os.kill(parent, signal.SIGCHLD)
        if not fewer(parent, left):
            end(parent)
            break
    reap()
    ### END SOLUTION
