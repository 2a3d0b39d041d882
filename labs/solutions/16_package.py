"""The package's own functions behind this lab's door: what they score shows how far copying gets."""

import random

from minicontainer.teach import measure as package


def order(names, rounds, seed):
    return [random.Random(f"{seed} {number}").sample(names, len(names)) for number in range(rounds)]


def measure(commands, rounds, warm_up, seed):
    timed = {name: lambda argv=argv: package.spent(argv) for name, argv in commands.items()}
    return package.interleave(timed, rounds, warm_up)


def interval(values, confidence):
    return [*package.median_interval(values, confidence), package.sureness(len(values), confidence)]


def compare(ours, theirs):
    found = package.ratio(ours, theirs)
    return [*found, "faster" if found.high < 1 else "slower" if found.low > 1 else "cannot tell"]
