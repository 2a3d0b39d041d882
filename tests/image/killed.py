"""Type a command and die at the n-th system call that changes a name: `python killed.py before|after N COMMAND …`.

Counted are rename, link, symlink, unlink, mkdir and rmdir, in this process alone. Exits with 3, after the command's
success, where there were fewer.
"""

import os
import signal
import sys

from minicontainer import cli

when, moment = sys.argv[1], int(sys.argv[2])
count = 0


def dying(real):  # type: ignore[no-untyped-def]
    def call(*arguments, **options):  # type: ignore[no-untyped-def]
        global count
        count += 1
        if count == moment and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        here = count
        try:
            return real(*arguments, **options)
        finally:
            if here == moment:
                os.kill(os.getpid(), signal.SIGKILL)

    return call


for name in ("rename", "link", "symlink", "unlink", "mkdir", "rmdir"):
    setattr(os, name, dying(getattr(os, name)))
code = cli.main(sys.argv[3:])
sys.exit(code or (3 if count < moment else 0))
