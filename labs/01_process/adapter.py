"""Lab 01 behind the real tool: the learner's `adopt` is process 1 of the container, and runs the command."""

import os

from minicontainer import steps, syscalls
from minicontainer.runtime import channel, init


def install(lab):
    """From now on the child's last step does not become the command: it is the command's parent to the end."""
    adopt = getattr(lab.adopt, "__wrapped__", lab.adopt)  # a container may take longer than a function of a lab

    def identity(process, profile):
        yield from package(process, profile)
        yield steps.call(run, adopt, process["args"], process["env"], init.CHANNEL, why="the learner's adopt()")

    package, init.identity = init.identity, identity


def run(adopt, command, environment, end):
    """Tell the monitor that the command runs (the end of the channel says so); the exit code is the container's."""
    channel.tell(end, "command")
    end.close()
    syscalls.close_range(3)
    os._exit(adopt(command, dict(line.split("=", 1) for line in environment)))
