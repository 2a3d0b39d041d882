"""The package's own functions behind this lab's door: what they score shows how far copying gets."""

import os

from minicontainer import errors
from minicontainer.runtime import channel, init, monitor


def launch(command, variables):
    _, end = channel.pair()
    pid = os.fork()
    if pid == 0:
        try:
            init.begin(False)
            init.execute(command, [f"{key}={value}" for key, value in variables.items()], end)
        except errors.CommandNotExecutable:
            os._exit(126)
        finally:
            os._exit(127)
    return monitor.exit_code(os.waitpid(pid, 0)[1])


def adopt(command, variables):
    return launch(command, variables)


def bounded(command, variables, seconds):
    return launch(command, variables)
