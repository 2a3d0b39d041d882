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
    raise NotImplementedError


def measure(commands, rounds, warm_up, seed):
    """Time programs against one another: {name: seconds of each round}.

    `commands` is {name: argv}. First `warm_up` rounds that do not count, then `rounds` that do, all in the order that
    `order(names, warm_up + rounds, seed)` gives. A time goes from just before the start of a program to its end, by
    a clock that nobody can set. A program that fails is no figure: RuntimeError with its name.
    """
    raise NotImplementedError


def interval(values, confidence):
    """Where the true median lies: [low, high, how sure], for values of any distribution.

    `low` and `high` are two of the values, as far from either end as the confidence allows (0.95 is 95 %). `how sure`
    is the probability that the true median lies between them: at least `confidence`. ValueError where there are
    too few values to be so sure of anything.
    """
    raise NotImplementedError


def compare(ours, theirs):
    """What to say about two columns of seconds from the same rounds: [ratio, low, high, word].

    A slow second of the machine hits both in one round, so the ratio is taken within each round: `ratio` is the median of
    ours/theirs, `low` and `high` its interval at 95 %. `word` is "faster" or "slower" (ours than theirs) where the
    whole interval lies on that side of 1, and else "cannot tell". ValueError for columns of different length.
    """
    raise NotImplementedError
