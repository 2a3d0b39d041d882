"""Lab 11, graded by /proc/PID/status, by a filter run on paper, and by the kernel that takes it."""

import errno
import os

import pytest

from minicontainer import syscalls
from minicontainer.kernel.capabilities import NUMBERS

SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
MACHINES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # linux/audit.h


def held(room):
    """The five sets of the learner's process, as the kernel has them."""
    status = room.status()
    return {name: int(status[name], 16) for name in SETS}


def words(mask):
    """A set in words, for a hint."""
    return [name for name, number in NUMBERS.items() if mask >> number & 1] or "nothing"


def drawn(rng):
    """Some capabilities, and their mask."""
    names = rng.sample(list(NUMBERS), rng.randrange(2, 7))
    return names, sum(1 << NUMBERS[name] for name in names)


@pytest.mark.points(2)
def test_what_the_process_may_do(room, rng):
    """Effective and permitted are exactly what was to be kept."""
    names, mask = drawn(rng)
    room.call("keep", names)
    has = held(room)
    for kind in ("CapEff", "CapPrm"):
        assert has[kind] == mask, f"to be kept: {names}; {kind} has {words(has[kind])}"


@pytest.mark.points(3)
def test_what_no_program_brings_back(room, rng):
    """The bounding set has no others, or the next program of root's would hold everything again."""
    names, mask = drawn(rng)
    names = [name for name in names if name != "CAP_SETPCAP"]
    mask &= ~(1 << NUMBERS["CAP_SETPCAP"])
    room.call("keep", names)
    has = held(room)
    assert has["CapBnd"] == mask, f"to be kept: {names}; the bounding set has {words(has['CapBnd'] & ~mask)} besides"
    assert has["CapEff"] == mask, f"to be kept: {names}; effective is {words(has['CapEff'])}"


def inherit(masks):
    """In the room: capabilities that would live on across execve, inheritable and ambient."""
    from minicontainer import syscalls

    everything = (1 << 41) - 1
    syscalls.capset(everything, everything, sum(1 << number for number in masks))
    for number in masks:
        syscalls.prctl(47, 2, number)  # PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE


@pytest.mark.points(2)
def test_what_is_handed_on(room, rng):
    """Nothing is inheritable or ambient; a wrong name takes nothing away."""
    names, _ = drawn(rng)
    room.prepare(inherit, [NUMBERS[name] for name in names])
    before = held(room)
    outcome = room.attempt("keep", [names[0], "CAP_OF_NOBODY"])
    assert outcome.raised == "KeyError", f"CAP_OF_NOBODY is no name; keep ended with {outcome.raised or 'success'}"
    assert held(room) == before, "it was refused, and yet something was given up"
    room.call("keep", names)
    has = held(room)
    for kind in ("CapInh", "CapAmb"):
        assert has[kind] == 0, f"{kind} still has {words(has[kind])}"


# A filter on paper: classic BPF, as far as filters of system calls need it.


def answer(code, number, architecture, arguments):
    """What the filter says of a call: run instruction by instruction (linux/filter.h)."""
    data = b"".join(value.to_bytes(4, "little") for value in (number, architecture, 0, 0))
    data += b"".join(value.to_bytes(8, "little") for value in arguments)
    at = accumulator = 0
    for _ in range(len(code)):
        assert at < len(code), f"a jump leads behind the last instruction, to {at}"
        operation, true, false, k = code[at]
        at += 1
        if operation == 0x20:
            accumulator = int.from_bytes(data[k : k + 4], "little")
        elif operation == 0x06:
            return k
        elif operation == 0x05:
            at += k
        elif operation in (0x15, 0x25, 0x35, 0x45):
            holds = {0x15: accumulator == k, 0x25: accumulator > k, 0x35: accumulator >= k, 0x45: accumulator & k}
            at += true if holds[operation] else false
        elif operation == 0x54:
            accumulator &= k
        else:
            raise AssertionError(f"instruction {at - 1} is {operation:#x}: use those that are named in lab.py")
    raise AssertionError("the filter ends without an answer")


def said(value):
    """An answer in words."""
    kind, data = value & 0xFFFF0000, value & 0xFFFF
    if kind == 0x00050000:
        return errno.errorcode.get(data, f"errno {data}")
    return {0x7FFF0000: "allow", 0x80000000: "kill the process", 0: "kill the thread"}.get(kind, f"{value:#x}")


def expected(rules, otherwise, number, arguments):
    """What the rules say of a call."""
    for rule in rules:
        if rule["call"] == number and ("argument" not in rule or arguments[rule["argument"][0]] == rule["argument"][1]):
            return errno.errorcode[rule["answer"]] if rule["answer"] else "allow"
    return errno.errorcode[otherwise] if otherwise else "allow"


@pytest.mark.pure
@pytest.mark.points(3)
def test_calls_by_their_numbers(room, rng):
    """The first rule for a number decides, and what no rule names gets the other answer."""
    for machine, architecture in MACHINES.items():
        for otherwise in (0, errno.EPERM):
            numbers = rng.sample(range(400), 12)
            rules = [{"call": number, "answer": rng.choice((0, 1, 13, 38))} for number in numbers]
            rules.append({"call": numbers[0], "answer": 5})
            code = room.call("program", machine, rules, otherwise)
            for number in [*numbers, *rng.sample(range(400), 20)]:
                found = said(answer(code, number, architecture, [0] * 6))
                wanted = expected(rules, otherwise, number, [0] * 6)
                assert found == wanted, (
                    f"rules {rules}, otherwise {otherwise}: call {number} gets {found}, not {wanted}"
                )


@pytest.mark.pure
@pytest.mark.points(4)
def test_calls_by_an_argument(room, rng):
    """A rule with an argument looks at all 64 bits of it, and lets the next rules have a say otherwise."""
    architecture = MACHINES["x86_64"]
    call = rng.randrange(300)
    which, low, high = rng.randrange(6), rng.randrange(1 << 32), rng.randrange(1, 1 << 32)
    value = high << 32 | low
    rules = [
        {"call": call, "answer": 13, "argument": [which, value]},
        {"call": call, "answer": 1, "argument": [(which + 1) % 6, low]},
        {"call": call, "answer": 0},
        {"call": call + 1, "answer": 38, "argument": [which, low]},
    ]
    code = room.call("program", "x86_64", rules, 22)
    for given in (value, low, high, high << 32, value ^ 1, value ^ (1 << 40), 0):
        for place in (which, (which + 1) % 6, (which + 2) % 6):
            for number in (call, call + 1, call + 2):
                arguments = [7] * 6
                arguments[place] = given
                found = said(answer(code, number, architecture, arguments))
                wanted = expected(rules, 22, number, arguments)
                hint = f"argument {place} of call {number} is {given:#x}: {found}, and the rules say {wanted}: {rules}"
                assert found == wanted, hint


@pytest.mark.pure
@pytest.mark.points(2)
def test_another_way_to_call(room, rng):
    """A number means something else on another architecture, and behind 0x40000000 on x86_64."""
    numbers = rng.sample(range(400), 3)
    rules = [{"call": number, "answer": 0} for number in numbers]
    for machine, architecture in MACHINES.items():
        code = room.call("program", machine, rules, 0)
        for foreign in (*MACHINES.values(), 0x40000003, 0):  # the last but one is 32-bit x86
            found = said(answer(code, numbers[0], foreign, [0] * 6))
            wanted = "allow" if foreign == architecture else "kill the process"
            assert found == wanted, f"{machine}: a call of architecture {foreign:#x} gets {found}"
    code = room.call("program", "x86_64", rules, 0)
    for number in (0x40000000, 0x40000000 + numbers[0], 0xFFFFFFFF):
        found = said(answer(code, number, MACHINES["x86_64"], [0] * 6))
        assert found == "ENOSYS", f"x32's number {number:#x} gets {found}"
    code = room.call("program", "aarch64", rules, errno.EPERM)
    found = said(answer(code, 0x40000000, MACHINES["aarch64"], [0] * 6))
    assert found == "EPERM", f"aarch64 has no x32: the number 0x40000000 gets {found}"


@pytest.mark.points(4)
def test_the_kernel_takes_it(room, rng):
    """A process without capabilities is put under the filter, and can gain nothing any more."""
    machine = os.uname().machine
    code, number = rng.choice((9, 22, 71)), {"x86_64": 110, "aarch64": 173}[machine]  # getppid
    filter = room.call("program", machine, [{"call": number, "answer": code}], 0)
    room.call("keep", [])
    room.call("confine", filter)
    status = room.status()
    assert status["Seccomp"] == "2", f"/proc/PID/status says Seccomp: {status['Seccomp']}, and 2 is a filter"
    assert status["NoNewPrivs"] == "1", "NoNewPrivs is 0: a setuid program could gain rights under this filter"
    answer = room.look(under, filter, number, kinds=())
    assert answer == code, f"getppid under the filter: errno {answer} where the rule says {code}"


def under(code, number):
    """A process of the test's puts itself under the learner's filter, and makes that call: the errno."""
    syscalls.prctl(38, 1)  # PR_SET_NO_NEW_PRIVS
    little = [(word.to_bytes(2, "little"), bytes(jumps), k.to_bytes(4, "little")) for word, *jumps, k in code]
    syscalls.seccomp_load(b"".join(b"".join(parts) for parts in little))
    outcome = syscalls.libc.syscall(number)
    return syscalls.ctypes.get_errno() if outcome == -1 else 0
