"""kernel/seccomp: profiles are resolved and compiled here, interpreted by a small BPF machine, and loaded for real."""

import ctypes
import errno
import json
import mmap
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from minicontainer import errors, steps, syscalls
from minicontainer.kernel import capabilities, seccomp

X86_64, I386, AARCH64, ARM = 0xC000003E, 0x40000003, 0xC00000B7, 0x40000028  # linux/audit.h
ALLOW = 0x7FFF0000
X86 = syscalls.MACHINE == "x86_64"
only_x86 = pytest.mark.skipif(not X86, reason="missing: x86_64 (its numbers are meant)")


def errno_of(name: str) -> int:
    return 0x00050000 | getattr(errno, name)


def interpret(program: bytes, architecture: int, number: int, *arguments: int) -> int:
    """What the kernel's classic BPF (linux/filter.h) returns for a call."""
    data = struct.pack("<IIQ6Q", number, architecture, 0, *(*arguments, 0, 0, 0, 0, 0, 0)[:6])
    accumulator, at, memory = 0, 0, [0] * 16
    while True:
        code, if_true, if_false, value = struct.unpack_from("<HBBI", program, at * 8)
        at += 1
        if code == 0x20:
            (accumulator,) = struct.unpack_from("<I", data, value)
        elif code == 0x06:
            return int(value)
        elif code == 0x05:
            at += value
        elif code in (0x15, 0x25, 0x35, 0x45):
            holds = {
                0x15: accumulator == value,
                0x25: accumulator > value,
                0x35: accumulator >= value,
                0x45: bool(accumulator & value),
            }
            at += if_true if holds[code] else if_false
        elif code == 0x54:
            accumulator &= value
        elif code == 0x02:
            memory[value] = accumulator
        elif code == 0x60:
            accumulator = memory[value]
        else:
            raise AssertionError(f"instruction {code:#x}")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The default filter with the default capabilities."""
    return seccomp.program(seccomp.default(capabilities.DEFAULT), str(tmp_path_factory.mktemp("store")))


def rules(profile: dict[str, Any], name: str) -> list[dict[str, Any]]:
    return [rule for rule in profile["syscalls"] if name in rule["names"]]


# ------------------------------------------------------------------------------------------------------------- profiles


def test_the_default_follows_the_capabilities() -> None:
    plain = seccomp.default(capabilities.DEFAULT)
    assert not rules(plain, "mount") and not rules(plain, "bpf") and not rules(plain, "keyctl")
    assert [rule["args"][0]["value"] for rule in rules(plain, "clone")] == [0x7E020000]  # no namespaces
    assert rules(plain, "chroot") and not rules(seccomp.default([]), "chroot")
    mighty = seccomp.default(["CAP_SYS_ADMIN", "CAP_BPF"])
    assert rules(mighty, "mount") and rules(mighty, "bpf")
    assert any("args" not in rule for rule in rules(mighty, "clone"))


def test_clone3_is_always_enosys() -> None:
    for granted in ((), capabilities.DEFAULT, capabilities.NAMES):
        (rule,) = rules(seccomp.default(granted), "clone3")
        assert (rule["action"], rule["errnoRet"]) == ("SCMP_ACT_ERRNO", errno.ENOSYS)


def test_the_default_of_each_machine() -> None:
    arm = seccomp.default(capabilities.DEFAULT, "aarch64")
    assert arm["architectures"] == ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]
    assert rules(arm, "set_tls") and not rules(arm, "arch_prctl")
    intel = seccomp.default(capabilities.DEFAULT, "x86_64")
    assert intel["architectures"] == ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]
    assert rules(intel, "arch_prctl") and not rules(intel, "set_tls")


DOCKER = {
    "defaultAction": "SCMP_ACT_ERRNO",
    "defaultErrnoRet": 1,
    "archMap": [
        {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]},
        {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": None},
    ],
    "syscalls": [
        {"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": None, "includes": {}, "excludes": {}},
        {"names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
        {"names": ["unshare"], "action": "SCMP_ACT_ALLOW", "excludes": {"caps": ["CAP_SYS_ADMIN"]}},
        {"names": ["arch_prctl"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["amd64"]}},
        {"names": ["ptrace"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
        {"names": ["tee"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "99.1"}},
        {"name": "write", "action": "SCMP_ACT_ALLOW"},
    ],
}


@pytest.mark.parametrize(
    ("granted", "machine", "names"),
    [
        ([], "x86_64", ["read", "unshare", "arch_prctl", "ptrace", "write"]),
        (["CAP_SYS_ADMIN"], "aarch64", ["read", "mount", "ptrace", "write"]),
    ],
)
def test_dockers_form(tmp_path: Path, granted: list[str], machine: str, names: list[str]) -> None:
    file = tmp_path / "profile.json"
    file.write_text(json.dumps(DOCKER))
    resolved = seccomp.from_file(str(file), granted, machine)
    assert [name for rule in resolved["syscalls"] for name in rule["names"]] == names
    assert resolved["architectures"][0] == f"SCMP_ARCH_{machine.upper()}"
    assert seccomp.resolve(resolved, granted, machine) == resolved  # the spec's form stays what it is


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "cannot be read"),
        ("[]", "not a JSON object"),
        ('{"syscalls": [3]}', "form"),
        ('{"defaultAction": "SCMP_ACT_MAYBE"}', "SCMP_ACT_MAYBE"),
        ('{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"action": "SCMP_ACT_KILL"}]}', "names no system call"),
        (
            '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_KILL", '
            '"args": [{"index": 0, "op": "SCMP_CMP_LIKE"}]}]}',
            "SCMP_CMP_LIKE",
        ),
    ],
)
def test_malformed_profiles_are_refused(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "profile.json"
    file.write_text(text)
    with pytest.raises(errors.InvalidArgument, match=said):
        seccomp.from_file(str(file), [])
    with pytest.raises(errors.InvalidArgument, match="no seccomp profile"):
        seccomp.from_file(str(file) + "x", [])
    file.write_text('{"defaultAction": "SCMP_ACT_NOTIFY"}')
    with pytest.raises(errors.Unsupported, match="NOTIFY"):
        seccomp.from_file(str(file), [])


def rule(**more: Any) -> dict[str, Any]:
    """What denies read(2)."""
    return {"syscalls": [{"names": ["read"], "action": "SCMP_ACT_ERRNO", **more}]}


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ({"syscalls": 5}, "form"),
        ({"flags": 5}, "form"),
        ({"architectures": 5}, "list of words"),
        (rule(names=[5]), "list of words"),
        (rule(args=5), "form"),
        (rule(errnoRet="x"), "errnoRet 'x'"),
        (rule(errnoRet=1 << 16), "errnoRet 65536"),  # which would be 0, and the call would seem to go well
        (rule(args=[{"index": 0, "op": "SCMP_CMP_EQ", "value": 1 << 64}]), "value 18446744073709551616"),
        (rule(args=[{"index": 0, "op": "SCMP_CMP_EQ", "valueTwo": -1}]), "valueTwo -1"),
    ],
)
def test_a_bundles_profile_that_has_not_its_form(part: dict[str, Any], said: str, tmp_path: Path) -> None:
    """Said in a sentence; a number is not cut off, for then the rule would be another."""
    with pytest.raises(errors.InvalidArgument, match=said):
        seccomp.program({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [], **part}, str(tmp_path))


# ------------------------------------------------------------------------------------------------------------- programs


@pytest.mark.needs("libseccomp")
@only_x86
def test_verdicts_on_x86_64(program: bytes) -> None:
    def verdict(number: int, *arguments: int) -> int:
        return interpret(program, X86_64, number, *arguments)

    assert verdict(0) == ALLOW  # read
    assert verdict(165) == errno_of("EPERM")  # mount
    assert verdict(246) == verdict(248) == verdict(250) == errno_of("EPERM")  # kexec_load, add_key, keyctl
    assert verdict(435) == errno_of("ENOSYS")  # clone3
    assert verdict(350) == verdict(9999) == verdict(0x7FFFFFFF) == errno_of("ENOSYS")  # nobody's
    assert verdict(56, 17) == ALLOW  # fork is clone(SIGCHLD)
    assert verdict(56, 0x10000000) == errno_of("EPERM")  # clone(CLONE_NEWUSER)
    assert verdict(135, 0) == ALLOW and verdict(135, 1) == errno_of("EPERM")  # personality
    assert verdict(41, 2) == ALLOW and verdict(41, 40) == errno_of("EPERM")  # socket: AF_INET; AF_VSOCK


@pytest.mark.needs("libseccomp")
@only_x86
def test_verdicts_on_the_32_bit_sides(program: bytes) -> None:
    assert interpret(program, I386, 3) == ALLOW  # read
    assert interpret(program, I386, 21) == errno_of("EPERM")  # mount
    assert interpret(program, I386, 435) == interpret(program, I386, 9999) == errno_of("ENOSYS")
    x32 = 0x40000000
    assert interpret(program, X86_64, x32 + 0) == ALLOW
    assert interpret(program, X86_64, x32 + 165) == errno_of("EPERM")
    assert interpret(program, X86_64, x32 + 435) == interpret(program, X86_64, x32 + 9999) == errno_of("ENOSYS")
    assert interpret(program, ARM, 3) not in (ALLOW, errno_of("ENOSYS"))  # not this machine's: killed


@pytest.mark.needs("libseccomp")
def test_every_allowed_name_passes_and_no_other(program: bytes) -> None:
    """All numbers of the native architecture, against the profile read as plain data."""
    import pyseccomp

    profile = seccomp.default(capabilities.DEFAULT)
    free = {name for rule in profile["syscalls"] if "args" not in rule for name in rule["names"]} - {"clone3"}
    depends = {name for rule in profile["syscalls"] if "args" in rule for name in rule["names"]}
    native = X86_64 if X86 else AARCH64
    for number in range(600):
        verdict = interpret(program, native, number)
        try:
            name = pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, number).decode()
        except ValueError:
            assert verdict in (errno_of("ENOSYS"), errno_of("EPERM"))
            continue
        if name == "clone3":
            assert verdict == errno_of("ENOSYS")
        elif name not in depends:
            assert verdict == (ALLOW if name in free else errno_of("EPERM")), name


@pytest.mark.needs("libseccomp")
def test_actions_and_comparisons() -> None:
    """Each action's word, and a default that permits: no test for unknown numbers then."""
    for action, word in seccomp.ACTIONS.items():
        profile = {
            "defaultAction": "SCMP_ACT_ALLOW" if action != "SCMP_ACT_ALLOW" else "SCMP_ACT_LOG",
            "syscalls": [{"names": ["getpid"], "action": action, "errnoRet": 7}],
            "listenerPath": "/door" if action == "SCMP_ACT_NOTIFY" else "",
        }
        made = seccomp.compile(profile)
        number = 39 if X86 else 172
        wanted = word | 7 if action in ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE") else word
        native = X86_64 if X86 else AARCH64
        assert interpret(made, native, number) == wanted
        assert interpret(made, native, 9999) in (ALLOW, seccomp.ACTIONS["SCMP_ACT_LOG"])


@pytest.mark.needs("libseccomp")
@pytest.mark.parametrize(
    ("operator", "second", "passes"),
    [
        ("NE", 0, {4, 6}), ("LT", 0, {4}), ("LE", 0, {4, 5}), ("EQ", 0, {5}), ("GE", 0, {5, 6}), ("GT", 0, {6}),
        ("MASKED_EQ", 4, {4, 6}),
    ],
)  # fmt: skip
def test_comparisons(operator: str, second: int, passes: set[int]) -> None:
    argument = {"index": 1, "op": f"SCMP_CMP_{operator}", "value": 5, "valueTwo": second}
    made = seccomp.compile(
        {
            "defaultAction": "SCMP_ACT_ERRNO",
            "syscalls": [{"names": ["close"], "action": "SCMP_ACT_ALLOW", "args": [argument]}],
        }
    )
    native, close = (X86_64, 3) if X86 else (AARCH64, 57)
    assert {value for value in (4, 5, 6) if interpret(made, native, close, 0, value) == ALLOW} == passes


@pytest.mark.needs("libseccomp")
def test_a_name_that_libseccomp_lacks() -> None:
    denying = {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["fly"], "action": "SCMP_ACT_ALLOW"}]}
    assert seccomp.compile(denying)  # denied as before
    permitting = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["fly"], "action": "SCMP_ACT_KILL"}]}
    with pytest.raises(errors.Unsupported, match="fly"):
        seccomp.compile(permitting)


@pytest.mark.needs("libseccomp")
def test_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    profile = seccomp.default(capabilities.DEFAULT)
    first = seccomp.program(profile, str(tmp_path))
    (file,) = (tmp_path / "cache" / "seccomp").iterdir()
    monkeypatch.setattr(seccomp, "compile", lambda _: pytest.fail("compiled again"))
    assert seccomp.program(profile, str(tmp_path)) == first
    other = seccomp.default([])
    monkeypatch.setattr(seccomp.zlib, "crc32", lambda _: int(file.stem, 16))
    monkeypatch.setattr(seccomp, "compile", lambda _: seccomp.Program(bytes(8)))
    assert seccomp.program(other, str(tmp_path)) == bytes(8)  # the same name, and not the same filter


# --------------------------------------------------------------------------------------------------------------- loaded


def filtered(body: Callable[[], object], store: Path, granted: tuple[str, ...] = capabilities.DEFAULT) -> str:
    """What `body` returns in a process under the default filter, loaded with no_new_privs."""
    plan = [*capabilities.no_new_privileges(), *seccomp.load(seccomp.default(granted), str(store))]
    reader, writer = os.pipe()
    if not (pid := os.fork()):
        try:
            steps.execute(plan, {})
            said = str(body())
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        os.write(writer, said.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        said = pipe.read()
    os.waitpid(pid, 0)
    return said


def attempt(number: int, *arguments: int) -> str:
    """syscall(2): the name of the error, or "done"."""
    words = [ctypes.c_long(word) for word in (number, *arguments)]
    if syscalls.libc.syscall(*words) >= 0:
        return "done"
    return errno.errorcode[ctypes.get_errno()]


@pytest.mark.needs("libseccomp")
def test_the_kernel_says_so(tmp_path: Path) -> None:
    def mode() -> str:
        return next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("Seccomp:"))

    assert filtered(mode, tmp_path).split() == ["Seccomp:", "2"]


@pytest.mark.needs("libseccomp")
@only_x86
def test_calls_of_a_filtered_process(tmp_path: Path) -> None:
    def body() -> object:
        return [attempt(435), attempt(9999), attempt(246), attempt(250), attempt(39), attempt(272, 0x10000000)]

    # clone3, unknown, kexec_load, keyctl, getpid, unshare(CLONE_NEWUSER)
    assert eval(filtered(body, tmp_path)) == ["ENOSYS", "ENOSYS", "EPERM", "EPERM", "done", "EPERM"]


@pytest.mark.needs("libseccomp")
@only_x86
def test_the_32_bit_door_is_watched_too(tmp_path: Path) -> None:
    """`int 0x80` enters with i386 numbers from a 64-bit program: mov eax, edi; int 0x80; ret."""
    page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(b"\x89\xf8\xcd\x80\xc3")
    enter = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
    if enter(20) != os.getpid():
        pytest.skip("missing: the kernel's 32-bit calls (CONFIG_IA32_EMULATION)")
    said = filtered(lambda: [enter(20) > 0, -enter(21), -enter(9999), -enter(435)], tmp_path)
    assert eval(said) == [True, errno.EPERM, errno.ENOSYS, errno.ENOSYS]  # getpid, mount, unknown, clone3


@pytest.mark.needs("libseccomp")
def test_threads_and_children_still_start(tmp_path: Path) -> None:
    def body() -> object:
        import subprocess
        import threading

        thread = threading.Thread(target=lambda: None)
        thread.start()
        thread.join()
        return subprocess.run(["true"]).returncode

    assert filtered(body, tmp_path) == "0"
