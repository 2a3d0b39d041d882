"""Lab 16: figures that one may show to others.

The README tells the job. Yours to write is what raises NotImplementedError; add functions and imports as you need.
"""

import math
import random
import statistics
import subprocess
import time


def order(names, rounds, seed):
    """In which order to run the contestants: a list for each round, each with every name once.

    Drawn from `seed`, so that the same seed gives the same order. Fair: in each block of len(names) rounds, each name
    stands once in each place. (Somebody who always runs last finds the caches warm.)
    """
    ### BEGIN SOLUTION
    dice = random.Random(seed)
    result = []
    while len(result) < rounds:
        first = dice.sample(names, len(names))
        result += [first[shift:] + first[:shift] for shift in range(len(names))]
    return result[:rounds]
    ### END SOLUTION


def measure(commands, rounds, warm_up, seed):
    """Time programs against one another: {name: seconds of each round}.

    `commands` is {name: argv}. First `warm_up` rounds that do not count, then `rounds` that do, all in the order that
    `order(names, warm_up + rounds, seed)` gives. A time goes from just before the start of a program to its end, by
    a clock that nobody can set. A program that fails is no figure: RuntimeError with its name.
    """
    ### BEGIN SOLUTION
    found = {name: [] for name in commands}
    for number, names in enumerate(order(list(commands), warm_up + rounds, seed)):
        for name in names:
            began = time.monotonic()
            done = subprocess.run(commands[name], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=False)
            seconds = time.monotonic() - began
            if done.returncode:
                raise RuntimeError(f"{name} ended with {done.returncode}")
            if number >= warm_up:
                found[name].append(seconds)
    return found
    ### END SOLUTION


def interval(values, confidence):
    """Where the true median lies: [low, high, how sure], for values of any distribution.

    `low` and `high` are two of the values, as far from either end as the confidence allows (0.95 is 95 %). `how sure`
    is the probability that the true median lies between them: at least `confidence`. ValueError where there are
    too few values to be so sure of anything.
    """
    ### BEGIN SOLUTION
    ordered, count = sorted(values), len(values)
    best = None
    for rank in range(count // 2):
        outside = 2 * sum(math.comb(count, below) for below in range(rank + 1)) / 2**count
        if 1 - outside < confidence:
            break
        best = [ordered[rank], ordered[count - 1 - rank], 1 - outside]
    if best is None:
        raise ValueError(f"{count} values are too few to be sure to {confidence:.0%}")
    return best
    ### END SOLUTION


def compare(ours, theirs):
    """What to say about two columns of seconds from the same rounds: [ratio, low, high, word].

    A slow second of the machine hits both in one round, so the ratio is taken within each round: `ratio` is the median of
    ours/theirs, `low` and `high` its interval at 95 %. `word` is "faster" or "slower" (ours than theirs) where the
    whole interval lies on that side of 1, and else "cannot tell". ValueError for columns of different length.
    """
    ### BEGIN SOLUTION
    ratios = [one / other for one, other in zip(ours, theirs, strict=True)]
    low, high, _ = interval(ratios, 0.95)
    word = "cannot tell"
    if high < 1:
        word = "faster"
    if low > 1:
        word = "slower"
    return [statistics.median(ratios), low, high, word]
    ### END SOLUTION
