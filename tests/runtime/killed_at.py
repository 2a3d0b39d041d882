"""Start a container and die at the n-th step: `python killed_at.py parent|child|teardown N IMAGE [FLAG …]`.

Exits with 3 when there was no such step: the start went through.
"""

import os
import signal
import sys

from minicontainer import cli, steps

who, number, arguments = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
perform = steps.execute
calls = {"parent": 0, "child": 0, "teardown": 0}


def execute(plan, values, observe=None):  # type: ignore[no-untyped-def]
    """What the engine calls; the plan tells whose it is."""
    whose = "parent" if "child_channel" in values else "child" if "channel" in values else "teardown"

    def counted():  # type: ignore[no-untyped-def]
        for step in plan:
            die_if_due()
            calls[whose] += 1
            yield step
        die_if_due()

    def die_if_due() -> None:
        if whose == who and calls[whose] == number:
            if who == "child":
                os._exit(137)  # process 1 of a pid namespace cannot kill itself, but end without a word it can
            os.kill(os.getpid(), signal.SIGKILL)

    perform(counted(), values, observe)


steps.execute = execute
sys.exit(cli.main(["run", "--rm", *arguments]))
