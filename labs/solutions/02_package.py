"""The package's own functions behind this lab's door: what they score shows how far copying gets."""

import os
import signal

from minicontainer import steps
from minicontainer.kernel import namespaces


def isolate(kinds):
    steps.execute(namespaces.of_kinds([{"type": kind} for kind in kinds], tuple(kinds)), {})


def start(kinds, name):
    isolate(kinds)
    pid = os.fork()
    if pid == 0:
        signal.pause()
    return pid


def enter(pid, kinds, command):
    entered = os.fork()
    if entered == 0:
        doors = [{"type": kind, "path": namespaces.path(pid, kind)} for kind in kinds]
        steps.execute(namespaces.of_kinds(doors, tuple(kinds)), {})
        os.execv(command[0], command)
    return entered
