"""Lab 23: processes that have ended, and nobody wants to know.

The README tells the job. Yours to write is what raises NotImplementedError; add functions and imports as you need.
"""

import os
import select
import signal
import time


def diagnose():
    """Every zombie of this machine, by who has not waited for it: a list of [parent, [zombie, …]], both sorted.

    All are pids as our /proc has them, those in other pid namespaces, too.
    """
    raise NotImplementedError


def mend(parent):
    """Make the zombies of `parent` go away, with as little harm as possible. Returns nothing.

    It may be you, process 1. It may be stopped. It may wait for one child each time that it hears of one. Only if it
    never waits, whatever one does, it has to end, and with it goes all that it leaves.
    """
    raise NotImplementedError
