"""Lab 01, graded by what the kernel shows: exit codes, /proc/PID of what runs, and who is left."""

import os

import pytest

from minicontainer.teach import child

PATH = "/usr/bin:/bin"


def sh(script):
    """A command: a shell with this script."""
    return ["sh", "-c", script]


@pytest.mark.points(2)
@pytest.mark.pure
def test_a_programs_own_word(room, rng):
    """launch returns the exit code that the program chose."""
    for wanted in [0, *rng.sample(range(1, 126), 3)]:
        code = room.call("launch", sh(f"exit {wanted}"), {"PATH": PATH})
        assert code == wanted, f"`exit {wanted}` in a shell: launch returned {code}"


@pytest.mark.points(2)
@pytest.mark.pure
def test_what_a_shell_says_for_it(room, rng):
    """127 for what is not there, 126 for what cannot be executed, 128+n for signal n."""
    number = rng.choice((1, 2, 9, 14, 15))
    name = f"no-such-{rng.randrange(10**6)}"
    cases = [
        (127, [name]),
        (127, [f"/tmp/{name}"]),
        (126, ["/usr/lib/os-release"]),
        (126, ["/etc"]),
        (128 + number, sh(f"kill -{number} $$")),
    ]
    for wanted, command in cases:
        code = room.call("launch", command, {"PATH": f"/nowhere:{PATH}"})
        assert code == wanted, f"{command}: a shell shows {wanted}, launch returned {code}"


def tools(name, content):
    """In the room: two directories with a program of that name; the first one's may not be executed."""
    import os

    for number, mode in ((1, 0o644), (2, 0o755)):
        os.mkdir(f"/tmp/{number}")
        with open(f"/tmp/{number}/{name}", "w") as file:
            file.write(f"#!/bin/sh\n{content}\n")
        os.chmod(f"/tmp/{number}/{name}", mode)


@pytest.mark.points(3)
def test_what_a_program_is_given(room, rng):
    """Its arguments, its environment and nothing else, a search along PATH, and no signal that is ignored."""
    code, word, fruit = rng.randrange(1, 126), f"a word {rng.random()}", rng.choice(("pear", "quince", "plum"))
    name = f"tool{rng.randrange(10**6)}"
    room.prepare(
        tools,
        name,
        f'cat /proc/$$/environ >/tmp/environ; cat /proc/$$/status >/tmp/status; echo "$1" >/tmp/word; exit {code}',
    )
    variables = {"PATH": f"/tmp/1:/tmp/2:{PATH}", "FRUIT": fruit}
    returned = room.call("launch", [name, word], variables)
    assert returned == code, (
        f"PATH has two files {name}; the first may not be executed, the second ends with {code}: launch returned {returned}"
    )
    said = room.read("/tmp/word").decode()
    assert said == f"{word}\n", f"the program's first argument was {said!r}"
    given = dict(line.split("=", 1) for line in room.read("/tmp/environ").decode().split("\0") if line)
    assert given == variables, f"/proc/PID/environ of the program has {given}"
    ignored = next(line.split()[1] for line in room.read("/tmp/status").decode().splitlines() if "SigIgn" in line)
    assert int(ignored, 16) == 0, (
        f"SigIgn in its /proc/PID/status is {ignored}: bit {int(ignored, 16).bit_length() - 1} means that signal "
        f"{int(ignored, 16).bit_length()} is ignored; who did that, and does execve undo it?"
    )


@pytest.mark.points(3)
def test_orphans_are_waited_for(room, rng):
    """adopt returns when the last orphan has ended, with the code of the program; no zombie is left."""
    code, other = rng.sample(range(1, 126), 2)
    orphan = f"sleep 0.3; echo done >/tmp/orphan; exit {other}"
    returned = room.call("adopt", sh(f"(setsid sh -c '{orphan}' &); exit {code}"), {"PATH": PATH})
    assert "orphan" in room.names("/tmp"), "adopt returned, and the orphan was still at work"
    left = child.children(room.pid)
    assert not left, f"{len(left)} children of the caller are left; State: {room.status(left[0])['State']}"
    assert returned == code, f"the program ended with {code}, its orphan with {other}; adopt returned {returned}"


@pytest.mark.points(2)
def test_who_is_quick_enough(room, rng):
    """bounded passes on the exit code of a program that ends in time, and tidies up after it."""
    code, number = rng.randrange(1, 124), rng.choice((1, 2, 15))
    returned = room.call("bounded", sh(f"sleep 600 & exit {code}"), {"PATH": PATH}, 30)
    assert returned == code, f"the program ended with {code} at once; bounded returned {returned}"
    left = names(room)
    assert not left, f"bounded has returned, and what the program left in the background still runs: {left}"
    returned = room.call("bounded", sh(f"kill -{number} $$"), {"PATH": PATH}, 30)
    assert returned == 128 + number, f"signal {number} ended the program; bounded returned {returned}"


def bystander():
    """In the room: a child of the learner's process that has nothing to do with the command. Its pid."""
    import os
    import signal

    pid = os.fork()
    if pid == 0:
        signal.pause()
        os._exit(0)
    return pid


@pytest.mark.points(3)
def test_the_whole_tree_is_ended(room, rng):
    """When the time is over, bounded ends the program and all that it started; others live on."""
    stranger = room.outside(room.prepare(bystander))
    breadth = rng.randrange(2, 5)
    below = "trap '' TERM HUP; setsid sh -c 'sleep 600; true' & sleep 600 & sleep 600; true"
    returned = room.call(
        "bounded", sh(f"for n in $(seq {breadth}); do ({below}) & done; sleep 600; true"), {"PATH": PATH}, 0.5
    )
    assert returned == 124, f"the time was over, which timeout(1) shows as 124; bounded returned {returned}"
    left = [name for pid, name in alive(room) if pid != stranger]
    assert not left, f"these are left of the command's tree: {left}"
    assert os.path.exists(f"/proc/{stranger}") and room.status(stranger)["State"].startswith("S"), (
        "a child of the caller that had nothing to do with the command is gone"
    )


def alive(room):
    """(pid, name) of each process below the learner's."""
    waiting = child.children(room.pid)
    for pid in waiting:
        waiting += child.children(pid)
    return [(pid, room.status(pid)["Name"]) for pid in waiting]


def names(room):
    """The names of the processes below the learner's."""
    return sorted(name for _, name in alive(room))
