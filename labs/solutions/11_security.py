"""Lab 11: what root keeps, and which questions the kernel answers.

The README tells the job. Yours to write is what raises NotImplementedError; add functions and imports as you need.
"""

from minicontainer import syscalls
from minicontainer.kernel.capabilities import NUMBERS  # "CAP_CHOWN": 0, …

# linux/prctl.h
PR_CAPBSET_READ, PR_CAPBSET_DROP = 23, 24
PR_SET_NO_NEW_PRIVS = 38

# linux/filter.h: what an instruction does, [code, jump if true, jump if false, k]
LOAD = 0x20  # load the 32-bit word at offset k
EQUAL = 0x15  # is the word k? Then go on `jump if true` instructions further down, else `jump if false`
AT_LEAST = 0x35  # is it k or more?
RETURN = 0x06  # the answer is k

# linux/seccomp.h: the answers, and struct seccomp_data, by offsets
KILL_PROCESS, ERRNO, ALLOW = 0x80000000, 0x00050000, 0x7FFF0000
NUMBER, ARCHITECTURE, ARGUMENTS = 0, 4, 16  # an argument has 64 bits: its lower half comes first

# linux/audit.h
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
X32 = 0x40000000  # x86_64 only: from here on, the numbers of another way to call the same kernel
ENOSYS = 38


def keep(names):
    """Give up all capabilities but these, for good: no program that is executed later, whoever owns it, has more.

    Afterwards the process holds exactly these (permitted and effective), its bounding set has no others, and nothing
    is inheritable or ambient. KeyError for a name that is none, with nothing given up.
    """
    ### BEGIN SOLUTION
    numbers = {NUMBERS[name] for name in names}
    kept = sum(1 << number for number in numbers)
    number = 0
    while True:
        try:
            syscalls.prctl(PR_CAPBSET_READ, number)
        except OSError:
            break
        if number not in numbers:
            syscalls.prctl(PR_CAPBSET_DROP, number)
        number += 1
    syscalls.capset(kept, kept, 0)
    ### END SOLUTION


def program(machine, rules, otherwise):
    """A filter for seccomp(2), as a list of instructions [code, jump if true, jump if false, k].

    `rules` is a list of {"call": a number, "answer": an errno, or 0 to allow}, some with "argument": [which, value], and
    such a rule holds only where argument `which` (0 to 5) is exactly that 64-bit value. The first rule that holds
    decides; where none does, `otherwise` (an errno, or 0) is the answer. A call by the conventions of another
    architecture than `machine` ("x86_64", "aarch64") kills the process; one of x86_64's x32 numbers gets ENOSYS.
    """
    ### BEGIN SOLUTION
    code = [[LOAD, 0, 0, ARCHITECTURE], [EQUAL, 1, 0, ARCHITECTURES[machine]], [RETURN, 0, 0, KILL_PROCESS]]
    code.append([LOAD, 0, 0, NUMBER])
    if machine == "x86_64":
        code += [[AT_LEAST, 0, 1, X32], [RETURN, 0, 0, ERRNO | ENOSYS]]
    for rule in rules:
        checks = [[LOAD, 0, 0, NUMBER], rule["call"]]
        if "argument" in rule:
            which, value = rule["argument"]
            for half in (0, 1):
                checks += [[LOAD, 0, 0, ARGUMENTS + 8 * which + 4 * half], value >> 32 * half & 0xFFFFFFFF]
        for place in range(0, len(checks), 2):
            rest = len(checks) - place - 2 + 1
            code += [checks[place], [EQUAL, 0, rest, checks[place + 1]]]
        code.append([RETURN, 0, 0, ERRNO | rule["answer"] if rule["answer"] else ALLOW])
    code.append([RETURN, 0, 0, ERRNO | otherwise if otherwise else ALLOW])
    return code
    ### END SOLUTION


def confine(code):
    """Put this process and all its children under a filter that `program` made, without any capability to do so.

    Nothing that it executes may gain rights. `syscalls.seccomp_load` takes struct sock_filter's: 8 bytes for each
    instruction, in this machine's byte order: code (16 bits), both jumps (8 each), k (32).
    """
    ### BEGIN SOLUTION
    words = b"".join(
        c.to_bytes(2, "little") + bytes([true, false]) + k.to_bytes(4, "little") for c, true, false, k in code
    )
    syscalls.prctl(PR_SET_NO_NEW_PRIVS, 1)
    syscalls.seccomp_load(words)
    ### END SOLUTION
