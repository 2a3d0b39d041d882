"""Lab 16, graded by what was run in which order, and by probabilities counted one by one."""

import itertools
import math

import pytest

pytestmark = pytest.mark.pure

NAMES = ("ours", "docker", "podman", "runc", "crun", "native")


@pytest.mark.points(2)
def test_each_round_has_everybody(room, rng):
    """Each round has every contestant once; the same seed gives the same order, another one another."""
    names, rounds, seed = rng.sample(NAMES, 4), rng.randrange(9, 15), rng.randrange(10**6)
    told = room.call("order", names, rounds, seed)
    assert len(told) == rounds, f"{rounds} rounds were asked for, and there are {len(told)}"
    for number, who in enumerate(told):
        assert sorted(who) == sorted(names), f"round {number} has {who} of {names}"
    assert room.call("order", names, rounds, seed) == told, "the same seed gave another order"
    others = [room.call("order", names, rounds, seed + more) for more in range(1, 4)]
    assert any(other != told for other in others), f"four seeds, one order: {told}"


@pytest.mark.points(3)
def test_each_place_is_everybodys(room, rng):
    """In each block of as many rounds as there are contestants, everybody stands once in each place."""
    names = rng.sample(NAMES, rng.randrange(3, 6))
    told = room.call("order", names, 3 * len(names), rng.randrange(10**6))
    for block in range(3):
        rounds = told[block * len(names) : (block + 1) * len(names)]
        for place, who in enumerate(zip(*rounds, strict=True)):
            assert sorted(who) == sorted(names), f"block {block}: place {place} was taken by {', '.join(who)}"


@pytest.mark.points(3)
def test_programs_are_timed_in_that_order(room, rng):
    """Every program runs in every round, the warm-up's included, whose times are left out."""
    names, rounds, warm_up, seed = rng.sample(NAMES, 3), rng.randrange(3, 5), rng.randrange(1, 3), rng.randrange(10**6)
    nap = rng.choice((0.04, 0.05, 0.06))
    commands = {
        name: ["sh", "-c", f'echo {name} >>"$0"; sleep {nap if name == names[0] else 0}', "/tmp/log"] for name in names
    }
    found = room.call("measure", commands, rounds, warm_up, seed, within=30)
    lines = room.read("/tmp/log").decode().split()
    expected = list(itertools.chain(*room.call("order", names, warm_up + rounds, seed)))
    assert lines == expected, f"run were {lines}, and order() says {expected}"
    for name in names:
        times = found.get(name, [])
        assert len(times) == rounds, f"{name}: {rounds} rounds count, and there are {len(times)} times"
        least = nap if name == names[0] else 0
        assert all(least <= seconds < 10 for seconds in times), (
            f"{name} slept {least} s each time; its times are {times}"
        )


@pytest.mark.points(2)
def test_a_program_that_fails_is_no_figure(room, rng):
    """RuntimeError, with the name of who failed."""
    names = rng.sample(NAMES, 3)
    commands = {name: ["sh", "-c", f"exit {7 if name == names[1] else 0}"] for name in names}
    outcome = room.attempt("measure", commands, 2, 1, 1, within=30)
    assert outcome.raised == "RuntimeError", f"{names[1]} exits with 7: {outcome.raised or outcome.returned}"
    assert names[1] in outcome.text, f"who failed? {outcome.text!r}"


def covered(count, rank):
    """How probable it is that the median lies between the rank-th smallest and the rank-th largest of `count` values."""
    return sum(math.comb(count, below) for below in range(rank, count - rank + 1)) / 2**count


@pytest.mark.points(3)
def test_where_the_median_lies(room, rng):
    """The two values as far from either end as the confidence allows, and how sure that is."""
    for count in rng.sample(range(8, 60), 4):
        confidence = rng.choice((0.9, 0.95, 0.98))
        values = [rng.expovariate(1) + rng.random() ** 9 * 40 for _ in range(count)]
        ranks = [rank for rank in range(1, count // 2 + 1) if covered(count, rank) >= confidence]
        ordered, rank = sorted(values), ranks[-1]
        told = room.call("interval", values, confidence)
        wanted = [ordered[rank - 1], ordered[-rank], covered(count, rank)]
        assert told == pytest.approx(wanted), f"{count} values, {confidence:.0%}: {told}, and it is {wanted}"


@pytest.mark.points(2)
def test_too_few_to_be_sure(room, rng):
    """With so few values that even the outermost two are not sure enough: ValueError."""
    confidence, enough = rng.choice(((0.95, 6), (0.99, 8), (0.9, 5)))
    values = [rng.random() for _ in range(enough)]
    told = room.call("interval", values, confidence)
    assert told[:2] == [min(values), max(values)], f"{enough} values at {confidence:.0%}: {told}"
    outcome = room.attempt("interval", values[1:], confidence)
    assert outcome.raised == "ValueError", (
        f"{enough - 1} values enclose the median with {covered(enough - 1, 1):.1%}; asked for were {confidence:.0%}, and "
        f"the answer was {outcome.raised or outcome.returned}"
    )


@pytest.mark.points(4)
def test_what_to_say(room, rng):
    """The ratio is taken round by round, and its interval decides what may be said."""
    for word, factor in (("faster", 0.8), ("slower", 1.2), ("cannot tell", 1.0)):
        # The machine has slow seconds, ten times as slow, which hit both; what differs is hidden under them.
        machine = [rng.choice((1.0, 1.0, 3.0, 10.0)) * (1 + rng.random() / 4) for _ in range(25)]
        wobble = [1 + (rng.random() - 0.5) / 5 for _ in machine]
        if word == "cannot tell":
            wobble = [0.9, 1.1] * 12 + [1.0]
        ours = [second * factor * more for second, more in zip(machine, wobble, strict=True)]
        told = room.call("compare", ours, machine)
        ratios = sorted(one / other for one, other in zip(ours, machine, strict=True))
        rank = max(rank for rank in range(1, 13) if covered(25, rank) >= 0.95)
        wanted = [ratios[12], ratios[rank - 1], ratios[-rank]]
        assert told[:3] == pytest.approx(wanted), f"ratios round by round: {wanted}; compare says {told}"
        assert told[3] == word, f"the ratio lies between {wanted[1]:.3f} and {wanted[2]:.3f}: {told[3]!r} was said"
    assert room.attempt("compare", [1.0] * 9, [1.0] * 8).raised == "ValueError", "columns of 9 and 8 rounds"
