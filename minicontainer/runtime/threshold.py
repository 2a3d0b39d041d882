"""The threshold: a program of a few instructions, which stands between Python and the container's own program.

Whatever a process executes inside a container is the container's choice, and it may choose `#!/proc/self/exe`: the very
file that the process was started from. Would that be Python, then root in the container held the host's interpreter,
and could write to it as soon as nobody runs it (CVE-2019-5736 did this to runc). So the process first becomes another
program, whose file is nobody's: it exists in memory alone, and is sealed, so that nobody can write to it
(memfd_create(2)). That program executes the container's, and if the kernel refuses, says so with one byte, the errno.

    prepare    the program, as a descriptor
    find       where the container's program lies; what leads through a magic link of /proc is refused here, with words
    cross      become the sealed program; it becomes the container's
    refusal    what its errno means

From `prepare` on nobody may look into the process, or take /proc/PID/exe of it, but the machine's root: the rights that
it is about to lose are what has kept others out who share its pid namespace (ptrace(2), access mode checking).

Callers owe it the channel's end, which the program finds as descriptor 3 and closes by becoming the container's. Where
descriptors are kept for the container, those from 3 on are its own, and the channel's is the one behind them.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time

from .. import errors, files, syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing: 4 ms of every start
    from typing import NoReturn

NAME = "threshold"  # of its file in memory
CHANNEL = 3  # the descriptor that the program reports through, where none is kept

# What the instructions do, in C, with argv = {path, argument 0, argument 1 …}:
#
#     if (fcntl(3, F_SETFD, FD_CLOEXEC) >= 0)
#         execve(argv[0], argv + 1, envp);
#     write(3, &errno, 1);
#     exit(127);
#
# argc lies where the stack pointer points to, argv behind it, and behind its NULL envp (System V ABI, Initial Stack).
X86_64 = (
    "bf03000000"  # mov edi, 3
    "be02000000"  # mov esi, 2         F_SETFD
    "ba01000000"  # mov edx, 1         FD_CLOEXEC
    "b848000000"  # mov eax, 72        fcntl
    "0f05"        # syscall
    "85c0"        # test eax, eax
    "781a"        # js fail
    "488b7c2408"  # mov rdi, [rsp+8]   argv[0]
    "488d742410"  # lea rsi, [rsp+16]  argv + 1
    "488b0c24"    # mov rcx, [rsp]     argc
    "488d54cc10"  # lea rdx, [rsp+rcx*8+16]
    "b83b000000"  # mov eax, 59        execve
    "0f05"        # syscall
    "f7d8"        # fail: neg eax
    "50"          # push rax
    "bf03000000"  # mov edi, 3
    "4889e6"      # mov rsi, rsp
    "ba01000000"  # mov edx, 1
    "b801000000"  # mov eax, 1         write
    "0f05"        # syscall
    "bf7f000000"  # mov edi, 127
    "b83c000000"  # mov eax, 60        exit
    "0f05"        # syscall
)  # fmt: skip
AARCH64 = (
    "600080d2"  # mov x0, #3
    "410080d2"  # mov x1, #2           F_SETFD
    "220080d2"  # mov x2, #1           FD_CLOEXEC
    "280380d2"  # mov x8, #25          fcntl
    "010000d4"  # svc #0
    "e000f8b7"  # tbnz x0, #63, fail
    "e90340f9"  # ldr x9, [sp]         argc
    "e00740f9"  # ldr x0, [sp, #8]     argv[0]
    "e1430091"  # add x1, sp, #16      argv + 1
    "220c098b"  # add x2, x1, x9, lsl #3
    "a81b80d2"  # mov x8, #221         execve
    "010000d4"  # svc #0
    "e00300cb"  # fail: neg x0, x0
    "e00f1ff8"  # str x0, [sp, #-16]!
    "600080d2"  # mov x0, #3
    "e1030091"  # mov x1, sp
    "220080d2"  # mov x2, #1
    "080880d2"  # mov x8, #64          write
    "010000d4"  # svc #0
    "e00f80d2"  # mov x0, #127
    "a80b80d2"  # mov x8, #93          exit
    "010000d4"  # svc #0
)  # fmt: skip
PROGRAMS = {"x86_64": (62, X86_64), "aarch64": (183, AARCH64)}  # e_machine of elf(5)

BASE = 0x400000  # where the program is mapped
HEADERS = 64 + 2 * 56  # bytes of the ELF header and of two program headers
MFD_CLOEXEC, MFD_ALLOW_SEALING, MFD_EXEC = 1, 2, 16  # memfd_create(2)
SEALS = 15  # F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE (fcntl(2))
F_ADD_SEALS = 1033
DEEPEST = 5  # interpreters of interpreters: the kernel's own bound (execve(2))


def loading(machine: str, channel: int) -> bytes:
    """The instruction that loads the channel's number: mov edi, n; mov x0, #n."""
    if machine == "x86_64":
        return b"\xbf" + channel.to_bytes(4, "little")
    return (0xD2800000 | channel << 5).to_bytes(4, "little")


def program(machine: str = syscalls.MACHINE, channel: int = CHANNEL) -> bytes:
    """The program as an ELF file (elf(5)): one segment to read and execute, and a stack that is not executed."""
    if machine not in PROGRAMS:
        raise errors.Unsupported(f"no program is known that runs on {machine}: x86_64 and aarch64 are supported")
    number, text = PROGRAMS[machine]
    code = bytes.fromhex(text).replace(loading(machine, CHANNEL), loading(machine, channel))
    size = HEADERS + len(code)

    def words(*pairs: tuple[int, int]) -> bytes:
        return b"".join(value.to_bytes(width, "little") for value, width in pairs)

    identity = b"\x7fELF" + bytes((2, 1, 1)) + bytes(9)  # 64 bits, little-endian, version 1
    header = words((2, 2), (number, 2), (1, 4), (BASE + HEADERS, 8), (64, 8), (0, 8), (0, 4), (64, 2), (56, 2), (2, 2))
    load = words((1, 4), (5, 4), (0, 8), (BASE, 8), (BASE, 8), (size, 8), (size, 8), (4096, 8))  # PT_LOAD, r-x
    stack = words((0x6474E551, 4), (6, 4), *[(0, 8)] * 5, (16, 8))  # PT_GNU_STACK, read and write
    return identity + header + bytes(6) + load + stack + code


def prepare(kept: int = 0) -> int:
    """The program in memory, sealed. Returns a descriptor that closes on exec, as all above 2 do from here on."""
    syscalls.hide()
    content = program(channel=CHANNEL + kept)
    flags = MFD_CLOEXEC | MFD_ALLOW_SEALING
    try:
        descriptor = os.memfd_create(NAME, flags | MFD_EXEC)  # Linux 6.3: without, a sysctl may forbid to execute
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise errors.KernelError(error.errno or 0, "memfd_create", (NAME,)) from None
        descriptor = os.memfd_create(NAME, flags)
    files.write_all(descriptor, content)
    fcntl.fcntl(descriptor, F_ADD_SEALS, SEALS)
    syscalls.close_range(CHANNEL, flags=syscalls.CLOSE_RANGE_CLOEXEC)  # now: a filter may forbid it later
    return descriptor


def cross(
    threshold: int,
    channel: int,
    path: str,
    arguments: list[str],
    variables: dict[str, str],
    kept: int = 0,
    hands_on: bool = True,
) -> NoReturn:
    """execve(2) `path` by way of the program in `threshold`, which was prepared for so many descriptors that are kept.

    It keeps `channel`, and those descriptors where it `hands_on` what the container's command is to have. Raises
    KernelError where the program itself cannot be executed; an error of the second execve is told through the channel,
    as one byte.
    """
    place = CHANNEL + kept
    if threshold == place:
        threshold = os.dup(threshold)
    os.dup2(channel, place)
    for descriptor in range(CHANNEL if hands_on else place, place + 1):
        os.set_inheritable(descriptor, True)
    try:
        os.execve(threshold, [path, *arguments], variables)
    except OSError as error:
        hint = (
            "a seccomp profile of one's own must allow execveat(2)"
            if error.errno in (errno.EPERM, errno.ENOSYS)
            else ""
        )
        raise errors.KernelError(error.errno or 0, "execveat", (path,), hint) from None


def wait_until_crossed(pid: int) -> None:
    """Return when a process that is at the threshold has become the container's program, or has ended.

    In a second at the latest: the container's own program may be called so, too.
    """
    deadline = time.monotonic() + 1
    try:
        while os.readlink(f"/proc/{pid}/exe").startswith(f"/memfd:{NAME}") and time.monotonic() < deadline:
            time.sleep(0.0005)
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return  # it has ended; or has become what we may not look into, which no longer is ours


def find(name: str, variables: dict[str, str]) -> str:
    """Where a command lies, by the container's PATH. Raises CommandNotFound, CommandNotExecutable."""
    if "/" in name:
        check(name)
        return name
    searched = variables.get("PATH", os.defpath)
    for directory in searched.split(":") if name else ():
        path = f"{directory or '.'}/{name}"
        try:
            os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise refusal(error.errno or 0, name) from None
        check(path)
        return path
    hint = f"executable file not found in $PATH ({searched})"
    raise errors.CommandNotFound(errno.ENOENT, "execve", (name,), hint)


def check(path: str) -> None:
    """Refuse a program that leads through a magic link (/proc/self/exe, /dev/stdin), or whose interpreter does.

    What it finds may be another file by the time of execve: the sealed program is what protects us, this says why.
    Raises CommandNotExecutable. All else that is wrong is for execve to refuse.
    """
    asked = path
    for _ in range(DEEPEST):
        try:
            regular = stat.S_ISREG(os.stat(path).st_mode)
            descriptor = syscalls.openat2(
                syscalls.AT_FDCWD, path, os.O_RDONLY | os.O_NONBLOCK, resolve=syscalls.RESOLVE_NO_MAGICLINKS
            )
        except OSError as error:
            if error.errno != errno.ELOOP:
                return
            through = "" if path == asked else f" by its interpreter {path}"
            hint = f"it leads{through} through a magic link of /proc, to a file that need not be the container's"
            raise errors.CommandNotExecutable(errno.ELOOP, "execve", (asked,), hint) from None
        try:
            line = os.read(descriptor, 256).partition(b"\n")[0] if regular else b""
        finally:
            os.close(descriptor)
        words = line.removeprefix(b"#!").split()
        if not line.startswith(b"#!") or not words:
            return
        path = os.fsdecode(words[0])


def refusal(number: int, name: str, architecture: str = "") -> errors.KernelError:
    """What the errno of an execve means. `architecture` is the image's, as the OCI writes it."""
    if number in (errno.ENOENT, errno.ENOTDIR):
        hint = "name a file that the image has; for a script, its interpreter (`#!`) must be there, too"
        return errors.CommandNotFound(errno.ENOENT, "execve", (name,), hint)
    hint = "is it a directory, or a file without permission to execute (chmod +x)?"
    if number == errno.ENOEXEC:
        hint = not_for_this_machine(architecture)
    return errors.CommandNotExecutable(number, "execve", (name,), hint)


def not_for_this_machine(architecture: str) -> str:
    """What to do about ENOEXEC."""
    here = {"x86_64": "amd64", "aarch64": "arm64"}.get(syscalls.MACHINE, syscalls.MACHINE)
    if architecture in ("", here):
        return f"it is no program for this machine ({here}), nor a script that begins with `#!`"
    return f"the image is made for {architecture} and this machine is {here}: load the image's variant for {here}"
