"""The threshold: what stands between Python and a container's own program, and why nobody gets hold of Python there."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from minicontainer import errors
from minicontainer.runtime import threshold

# A child that becomes a script whose interpreter is /proc/self/exe: by execve, and by way of the threshold.
ATTACK = """
import os, socket, sys
from minicontainer.runtime import threshold
ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
if sys.argv[1] == "straight":
    os.execve(sys.argv[2], [sys.argv[2]], {})
threshold.cross(threshold.prepare(), theirs.fileno(), sys.argv[2], [sys.argv[2]], {"A": "1"})
"""


def become(how: str, path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", ATTACK, how, str(path)], capture_output=True, text=True, timeout=20)


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "script"
    path.write_text("#!/proc/self/exe\nprint('I am the Python of the host')\n")
    path.chmod(0o755)
    return path


def test_a_script_can_be_run_by_whoever_executes_it(script: Path) -> None:
    """The attack of CVE-2019-5736 works on who executes the script straight; else the next test would show nothing."""
    assert become("straight", script).stdout == "I am the Python of the host\n"


def test_but_not_through_the_threshold(script: Path) -> None:
    done = become("crossed", script)
    assert (done.returncode, done.stdout, done.stderr) == (127, "", "")


def test_the_program_executes_with_arguments_and_environment(tmp_path: Path) -> None:
    path = tmp_path / "script"
    path.write_text('#!/bin/sh\necho "$A"; ls /proc/self/fd | wc -l\nexit 5\n')
    path.chmod(0o755)
    done = become("crossed", path)
    assert (done.returncode, done.stdout) == (5, "1\n4\n")  # 0, 1, 2, and the directory that ls reads


@pytest.mark.parametrize("machine", threshold.PROGRAMS)
def test_the_channels_number_is_loaded_twice(machine: str) -> None:
    usual, other = threshold.program(machine), threshold.program(machine, 3 + 250)
    assert usual.count(threshold.loading(machine, 3)) == other.count(threshold.loading(machine, 253)) == 2
    assert usual == other.replace(threshold.loading(machine, 253), threshold.loading(machine, 3)) != other


def test_nobody_can_write_to_it() -> None:
    descriptor = threshold.prepare()
    try:
        with pytest.raises(PermissionError):
            os.pwrite(descriptor, b"x", 0)
        with pytest.raises(PermissionError):
            os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def test_what_the_kernel_refuses_is_told_by_one_byte(tmp_path: Path) -> None:
    import socket

    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    path = tmp_path / "noise"
    path.write_bytes(b"\x7fELF and nothing else")
    path.chmod(0o755)
    pid = os.fork()
    if pid == 0:
        try:
            threshold.cross(threshold.prepare(), theirs.fileno(), str(path), ["noise"], {})
        finally:
            os._exit(1)
    theirs.close()
    assert ours.recv(100) == bytes([errno.ENOEXEC])
    assert ours.recv(100) == b""
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 127


@pytest.mark.parametrize("machine", sorted(threshold.PROGRAMS))
def test_it_is_an_elf_file(machine: str, tmp_path: Path) -> None:
    content = threshold.program(machine)
    assert content[:4] == b"\x7fELF" and int.from_bytes(content[18:20], "little") == threshold.PROGRAMS[machine][0]
    assert int.from_bytes(content[24:32], "little") == threshold.BASE + threshold.HEADERS
    if machine == "aarch64":
        assert len(content[threshold.HEADERS :]) % 4 == 0


def test_magic_links_are_refused_in_words(script: Path, tmp_path: Path) -> None:
    link, second = tmp_path / "link", tmp_path / "second"
    link.symlink_to("/proc/self/exe")
    second.write_text(f"#!{script}\n")
    second.chmod(0o755)
    for path in (script, link, second, Path("/proc/self/exe"), Path("/dev/stdin")):
        with pytest.raises(errors.CommandNotExecutable, match="magic link"):
            threshold.check(str(path))
    for path in (Path("/bin/sh"), tmp_path, tmp_path / "nosuch"):
        threshold.check(str(path))
