"""Seccomp: which system calls a container may make (seccomp(2), linux.seccomp of the OCI runtime spec).

Three stages, each plain data for the next:

    profile     Docker's default (seccomp.json beside this file), or a user's file in Docker's or the spec's form
       │ resolve: by the capabilities granted and the machine
    linux.seccomp of the runtime spec
       │ program: compiled by libseccomp, once; kept under <root>/cache/seccomp
    Program, bytes of classic BPF
       │ load: the plan that init performs

What is not allowed is EPERM where libseccomp knows the call, so that a program learns that it may not; and ENOSYS where
it does not, and always for clone3, so that a program (and glibc above all) tries the older call instead. libseccomp 2.5
cannot say "unknown number": a few BPF instructions of ours, put first, do.

Callers owe `load` a place in the order: see capabilities.py. Without no_new_privs a filter is loaded before the
capabilities go and must allow what init still calls: prctl, capset, setgroups, setresgid, setresuid, chdir, execve.

Import cost: json is loaded by every start anyway; pyseccomp (35 ms) only where the cache has nothing.
"""

from __future__ import annotations

import os
import zlib

from .. import errors, files, host, steps, syscalls
from .. import quickjson as json

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing: 4 ms of every start
    from collections.abc import Iterable, Sequence
    from typing import Any

    Profile = dict[str, Any]  # linux.seccomp

FORMAT = 1  # of what `compile` makes: part of the cache's key

# uname's names in Go's words, which Docker's profiles use; and in libseccomp's, with what else the kernel runs there.
MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}
ARCHITECTURES = {
    "x86_64": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
    "aarch64": ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
}

# linux/seccomp.h, linux/audit.h
ERRNO, TRACE = 0x00050000, 0x7FF00000
ACTIONS = {
    "SCMP_ACT_KILL": 0,
    "SCMP_ACT_KILL_THREAD": 0,
    "SCMP_ACT_KILL_PROCESS": 0x80000000,
    "SCMP_ACT_TRAP": 0x00030000,
    "SCMP_ACT_ERRNO": ERRNO,
    "SCMP_ACT_TRACE": TRACE,
    "SCMP_ACT_NOTIFY": 0x7FC00000,
    "SCMP_ACT_LOG": 0x7FFC0000,
    "SCMP_ACT_ALLOW": 0x7FFF0000,
}
PERMITTING = ("SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE")
COMPARISONS = ("NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ")  # SCMP_CMP_*, numbered from 1 (seccomp.h)
FLAGS = {"SECCOMP_FILTER_FLAG_TSYNC": 1, "SECCOMP_FILTER_FLAG_LOG": 2, "SECCOMP_FILTER_FLAG_SPEC_ALLOW": 4}
ENOSYS, EPERM = 38, 1

LIBRARIES = ("/usr/lib/{}-linux-gnu", "/lib/{}-linux-gnu", "/usr/lib64", "/lib64", "/usr/lib")


class Program(bytes):
    """A filter: an array of struct sock_filter. Shown by its length, not its bytes."""

    def __str__(self) -> str:
        return f"<{len(self) // 8} BPF instructions>"

    __repr__ = __str__


# ------------------------------------------------------------------------------------------------------------- profiles


def default(granted: Iterable[str], machine: str = syscalls.MACHINE) -> Profile:
    """Docker's default profile for a container with these capabilities, as linux.seccomp."""
    held = set(granted)
    rules = []
    for group in json.loads(files.read(f"{os.path.dirname(__file__)}/seccomp.json"))["groups"]:
        if group.get("with", "") and not held.issuperset(group["with"].split()):
            continue
        if held.intersection(group.get("without", "").split()):
            continue
        if "on" in group and MACHINES.get(machine) not in group["on"].split():
            continue
        rule: Profile = {"names": " ".join(group.get("allow") or group["deny"]).split(), "action": "SCMP_ACT_ALLOW"}
        if "deny" in group:
            rule |= {"action": "SCMP_ACT_ERRNO", "errnoRet": group["errno"]}
        if "if" in group:
            rule["args"] = [
                {"index": index, "op": operator, "value": value, "valueTwo": second}
                for index, operator, value, second in group["if"]
            ]
        rules.append(rule)
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": EPERM,
        "architectures": ARCHITECTURES.get(machine, []),
        "syscalls": rules,
    }


def from_file(path: str, granted: Iterable[str], machine: str = syscalls.MACHINE) -> Profile:
    """A user's profile (`--security-opt seccomp=FILE`) in Docker's or the spec's form. InvalidArgument if malformed."""
    try:
        profile = json.loads(files.read(path))
    except FileNotFoundError:
        raise errors.InvalidArgument(f"there is no seccomp profile {path}") from None
    except (OSError, ValueError) as error:
        raise errors.InvalidArgument(f"the seccomp profile {path} cannot be read: {error}") from None
    if not isinstance(profile, dict):
        raise errors.InvalidArgument(f"the seccomp profile {path} is not a JSON object; see `default` in docker's docs")
    try:
        resolved = resolve(profile, granted, machine)
    except (TypeError, AttributeError, KeyError) as error:
        raise errors.InvalidArgument(f"the seccomp profile {path} has not the form of one: {error!r}") from None
    validate(resolved)
    return resolved


def resolve(profile: Profile, granted: Iterable[str], machine: str = syscalls.MACHINE) -> Profile:
    """A profile in Docker's form (archMap, includes, excludes: moby profiles/seccomp/seccomp.go) in the spec's form.

    One that is in the spec's form already comes back as it is.
    """
    held = set(granted)
    resolved = {
        key: profile[key] for key in ("defaultAction", "defaultErrnoRet", "flags") if profile.get(key) is not None
    }
    resolved["architectures"] = profile.get("architectures") or []
    if profile.get("archMap"):
        if resolved["architectures"]:
            raise errors.InvalidArgument("a seccomp profile has either architectures or archMap, not both")
        native = ARCHITECTURES.get(machine, [""])[0]
        for entry in profile["archMap"]:
            if entry["architecture"] == native:
                resolved["architectures"] = [native, *(entry.get("subArchitectures") or [])]
    resolved["syscalls"] = [
        {key: rule[key] for key in ("names", "action", "errnoRet", "args") if rule.get(key) is not None}
        | ({"names": [rule["name"]]} if rule.get("name") else {})
        for rule in profile.get("syscalls") or []
        if _applies(rule, held, machine)
    ]
    return resolved


def _applies(rule: Profile, held: set[str], machine: str) -> bool:
    included, excluded = rule.get("includes") or {}, rule.get("excludes") or {}
    go_name = MACHINES.get(machine, machine)
    return (
        held.issuperset(included.get("caps") or ())
        and held.isdisjoint(excluded.get("caps") or ())
        and (not included.get("arches") or go_name in included["arches"])
        and go_name not in (excluded.get("arches") or ())
        and _at_least(included.get("minKernel") or "0")
        and not (excluded.get("minKernel") and _at_least(excluded["minKernel"]))
    )


def _at_least(version: str) -> bool:
    """Whether this kernel is that version or newer: the first two numbers count, as in Docker."""
    have, want = os.uname().release.split(".")[:2], version.split(".")[:2]
    digits = ["".join(filter(str.isdigit, word.partition("-")[0])) or "0" for word in have]
    return [int(word) for word in digits] >= [int(word) for word in want]


def validate(profile: Profile) -> None:
    """InvalidArgument or Unsupported, naming the word that we do not understand."""
    try:
        examine(profile)
    except errors.MISFITS as error:
        raise errors.malformed("the seccomp profile", error) from None


def examine(profile: Profile) -> None:
    """The same; and whatever Python raises for a word where an object should be."""
    for action in (profile.get("defaultAction"), *(rule.get("action") for rule in profile["syscalls"])):
        if action == "SCMP_ACT_NOTIFY" and not profile.get("listenerPath"):
            raise errors.Unsupported(
                "SCMP_ACT_NOTIFY needs somebody who answers, at linux.seccomp.listenerPath of an OCI config"
            )
        if action not in ACTIONS:
            raise errors.InvalidArgument(f"{action!r} is no seccomp action: {', '.join(ACTIONS)}")
    asked = [rule["names"] for rule in profile["syscalls"] if rule.get("action") == "SCMP_ACT_NOTIFY"]
    if profile.get("defaultAction") == "SCMP_ACT_NOTIFY" or any("write" in (names or ()) for names in asked):
        raise errors.Unsupported(
            "SCMP_ACT_NOTIFY for write(2), or for all: by that call the process itself says that somebody may answer"
        )
    if profile.get("listenerPath") and not asked:
        raise errors.InvalidArgument("linux.seccomp.listenerPath: no rule has SCMP_ACT_NOTIFY, there is nothing to ask")
    for flag in profile.get("flags") or ():
        if flag not in FLAGS:
            raise errors.Unsupported(f"the seccomp flag {flag} is not supported: {', '.join(FLAGS)} are")
    check_number(profile.get("defaultErrnoRet"), 16, "defaultErrnoRet")
    check_words(profile.get("architectures") or [], "architectures")
    for rule in profile["syscalls"]:
        if not rule.get("names"):
            raise errors.InvalidArgument(f"a seccomp rule ({rule.get('action')}) names no system call")
        check_words(rule["names"], "names")
        check_number(rule.get("errnoRet"), 16, "errnoRet")
        for argument in rule.get("args") or ():
            if argument.get("op", "").removeprefix("SCMP_CMP_") not in COMPARISONS:
                raise errors.InvalidArgument(f"{argument.get('op')!r} is no seccomp comparison")
            if argument.get("index") not in range(6):
                raise errors.InvalidArgument(f"a system call has arguments 0 to 5, not {argument.get('index')!r}")
            for key in ("value", "valueTwo"):
                check_number(argument.get(key), 64, key)


def check_words(words: object, name: str) -> None:
    """Raise InvalidArgument for what is no list of words."""
    if not (isinstance(words, list) and all(isinstance(word, str) for word in words)):
        raise errors.InvalidArgument(f"the seccomp profile has {name} {words!r}: a list of words is asked for")


def check_number(number: object, bits: int, name: str) -> None:
    """Raise InvalidArgument for what is no number of so many bits: cut off, it would mean another."""
    if number is not None and not (type(number) is int and 0 <= number < 1 << bits):
        raise errors.InvalidArgument(f"the seccomp profile has {name} {number!r}: a number of {bits} bits is asked for")


# ------------------------------------------------------------------------------------------------------------- programs


def load(profile: Profile | None, root: str | None = None) -> steps.Plan:
    """From here on this thread, and all that it becomes, is filtered. Compiles, or reads the cache, while planning."""
    if profile:
        yield steps.call(
            syscalls.seccomp_load, program(profile, root), flags(profile),
            why="the kernel refuses what no container needs",
        )  # fmt: skip


def flags(profile: Profile) -> int:
    """Its flags for seccomp(2)."""
    return sum(FLAGS[flag] for flag in profile.get("flags") or ())


def program(profile: Profile, root: str | None = None) -> Program:
    """The filter for a resolved profile on this machine, from the cache under the store's root if it is there.

    A cache file begins with the very text that it was made from. The name is only a checksum of that, so two profiles
    may share a name, and never a filter.
    """
    text = json.dumps([FORMAT, syscalls.MACHINE, library(), profile], separators=(",", ":")).encode() + b"\n"
    directory = f"{root or host.root()}/cache/seccomp"
    path = f"{directory}/{zlib.crc32(text):08x}.bpf"
    try:
        kept = files.read(path)
        if kept.startswith(text) and len(kept) > len(text):
            return Program(kept[len(text) :])
    except FileNotFoundError:
        pass
    fresh = compile(profile)
    files.make_directory(directory, 0o700)
    files.write(path, text + fresh)
    return fresh


def library() -> str:
    """The installed libseccomp's version, without loading it: what libseccomp.so.2 links to. Empty if not found."""
    for directory in LIBRARIES:
        try:
            return os.path.basename(os.readlink(f"{directory.format(syscalls.MACHINE)}/libseccomp.so.2"))
        except OSError:
            continue
    return ""


def compile(profile: Profile) -> Program:
    """Compile through libseccomp; the test for unknown numbers goes first, unless unknown calls are let pass."""
    import tempfile

    validate(profile)
    try:
        import pyseccomp
    except (ImportError, RuntimeError):
        raise errors.Unsupported(
            "compiling a seccomp profile needs libseccomp: apt-get install libseccomp2 and pip install pyseccomp, "
            "or run with --security-opt seccomp=unconfined"
        ) from None

    otherwise = _action(profile["defaultAction"], profile.get("defaultErrnoRet"))
    strict = profile["defaultAction"] not in PERMITTING
    names = [name.removeprefix("SCMP_ARCH_") for name in profile.get("architectures") or []]
    for name in names:
        if not hasattr(pyseccomp.Arch, name):
            raise errors.InvalidArgument(f"libseccomp knows no architecture SCMP_ARCH_{name}")
    architectures = [getattr(pyseccomp.Arch, name) for name in names] or [pyseccomp.system_arch()]

    filter = pyseccomp.SyscallFilter(otherwise)
    for architecture in architectures:
        if architecture != pyseccomp.system_arch():
            filter.add_arch(architecture)
    if pyseccomp.system_arch() not in architectures:
        filter.remove_arch(pyseccomp.system_arch())
    filter.set_attr(pyseccomp.Attr.CTL_NNP, 0)  # that is init's business
    seen = set()
    for rule in profile["syscalls"]:
        action = _action(rule["action"], rule.get("errnoRet"))
        if action == otherwise:  # libseccomp refuses what says nothing new
            continue
        for name in rule["names"]:
            number = pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, name)
            if number == -1:
                # libseccomp does not know the name. With a default that denies, the call is denied, which is no less
                # strict. With one that permits, this rule is all that would have denied it.
                if strict:
                    continue
                raise errors.Unsupported(f"libseccomp here is too old to know {name}, which the profile restricts")
            for conditions in _alternatives(rule.get("args") or []):
                key = (name, action, tuple(conditions))
                if key in seen:
                    continue
                seen.add(key)
                try:
                    filter.add_rule(action, number, *(pyseccomp.Arg(*condition) for condition in conditions))
                except OSError as error:
                    raise errors.InvalidArgument(f"libseccomp refuses the rule for {name}: {error.strerror}") from None
    with tempfile.TemporaryFile() as file:
        filter.export_bpf(file)
        file.seek(0)
        body = file.read()
    return Program((unknown_numbers(pyseccomp, architectures) if strict else b"") + body)


def _action(name: str, number: int | None) -> int:
    """The kernel's word for an action; ERRNO and TRACE carry a number, EPERM unless told (config-linux.md)."""
    if name in ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE"):
        return ACTIONS[name] | (EPERM if number is None else number) & 0xFFFF
    return ACTIONS[name]


def _alternatives(arguments: Sequence[Profile]) -> list[list[tuple[int, int, int, int]]]:
    """The conditions of a rule as libseccomp takes them: all of a list must hold, and any of the lists.

    Two conditions on one argument are alternatives, since libseccomp cannot have both in one rule (runc
    libcontainer/seccomp/seccomp_linux.go, matchCall).
    """
    conditions = [
        (
            argument["index"],
            COMPARISONS.index(argument["op"].removeprefix("SCMP_CMP_")) + 1,
            argument.get("value") or 0,
            argument.get("valueTwo") or 0,
        )
        for argument in arguments
    ]
    if len({condition[0] for condition in conditions}) < len(conditions):
        return [[condition] for condition in conditions]
    return [conditions]


# Classic BPF (linux/filter.h): what our few instructions need. The filter sees struct seccomp_data: u32 nr, u32 arch.
LOAD, JUMP, EQUAL, GREATER, AT_LEAST, RETURN = 0x20, 0x05, 0x15, 0x25, 0x35, 0x06
NUMBER_AT, ARCHITECTURE_AT = 0, 4

X32 = 0x4000003E  # libseccomp's own token; the kernel calls it x86_64, with bit 30 of the number set
X86_64 = 0xC000003E
X32_BIT = 0x40000000
ARM_PRIVATE = 0xF0000


def instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    """One struct sock_filter."""
    return code.to_bytes(2, "little") + bytes((if_true, if_false)) + value.to_bytes(4, "little")


def unknown_numbers(pyseccomp: Any, architectures: Sequence[int]) -> bytes:
    """BPF that answers ENOSYS to numbers that libseccomp has no name for, and else falls out of its end."""
    known: dict[int, list[tuple[int, int]]] = {}
    for architecture in architectures:
        kernels = X86_64 if architecture == X32 else architecture
        known.setdefault(kernels, []).extend(ranges(known_numbers(pyseccomp, architecture)))
    if X86_64 in known and X32 not in architectures:
        known[X86_64].append((X32_BIT, 0xFFFFFFFF))  # not ours to judge: libseccomp's filter does
    blocks = []
    for architecture, spans in known.items():
        tests = []
        for first, last in sorted(spans):
            # below this range, and so in no range: to the ENOSYS at the end; in it: to the filter
            tests += [("below", first), ("beyond", last), ("known", 0)]
        blocks.append((architecture, tests))
    sizes = [1 + 1 + len(tests) + 1 for _, tests in blocks]  # is it this one? load, tests, ENOSYS
    total = 1 + sum(sizes)
    code = [instruction(LOAD, ARCHITECTURE_AT)]
    for (architecture, tests), size in zip(blocks, sizes, strict=True):
        code += [instruction(EQUAL, architecture, 0, size - 1), instruction(LOAD, NUMBER_AT)]
        for at, (test, number) in enumerate(tests):
            if test == "below":
                code.append(instruction(AT_LEAST, number, 0, len(tests) - at - 1))
            elif test == "beyond":
                code.append(instruction(GREATER, number, 1, 0))
            else:
                code.append(instruction(JUMP, total - len(code) - 1))
        code.append(instruction(RETURN, ERRNO | ENOSYS))
    return b"".join(code)


def known_numbers(pyseccomp: Any, architecture: int) -> list[int]:
    """Every number that libseccomp has a name for, as the kernel shows it to a filter; ascending."""
    starts = {X32: (X32_BIT,), pyseccomp.Arch.ARM: (0, ARM_PRIVATE)}.get(architecture, (0,))
    found = []
    for start in starts:
        for number in range(start, start + 1024):
            try:
                pyseccomp.resolve_syscall(architecture, number)
            except ValueError:
                continue
            found.append(number)
    return found


def ranges(numbers: Sequence[int], gap: int = 16) -> list[tuple[int, int]]:
    """The numbers as few ranges: small gaps are calls that were removed or never came, and EPERM will do for them."""
    spans: list[tuple[int, int]] = []
    for number in numbers:
        if spans and number - spans[-1][1] <= gap:
            spans[-1] = (spans[-1][0], number)
        else:
            spans.append((number, number))
    return spans
