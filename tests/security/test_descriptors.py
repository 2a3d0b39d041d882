"""Ways out by what was left open, or is shared without a word: descriptors, memory, queues, sockets, the terminal."""

import ctypes
import json
import os
import pty
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from minicontainer import syscalls
from tests.engine_fixtures import Shop, fresh_shop  # noqa: F401
from tests.security.prisoners import PYTHON, arguments, attack, python, stranger  # noqa: F401

pytestmark = [pytest.mark.root, pytest.mark.needs("busybox")]


def test_leaked_descriptors_and_cve_2022_24769(shop: Shop, stranger: int) -> None:  # noqa: F811
    """Whoever calls us has a directory open and inheritable capabilities: neither comes through, in `run` nor `exec`.

    The control is the same attacker as the caller's own child, who finds both.
    """

    held = int(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("CapPrm")), 16)

    def careless() -> None:
        syscalls.capset(held, held, held & 0xFF)

    words = [PYTHON, *arguments(stranger)]
    directory = os.open("/", os.O_PATH | os.O_DIRECTORY)
    engine = [sys.executable, "-m", "minicontainer"]
    run = [*engine, "run", "--rm", "--network", "none", *python(), "plain", *words]
    try:
        with shop.start(*python(), "plain", "sh", "-c", "echo ready; sleep 1000") as container:
            found = [
                json.loads(subprocess.run(command, pass_fds=[directory], preexec_fn=careless, stdin=subprocess.DEVNULL,
                                          stdout=subprocess.PIPE, check=True, timeout=60).stdout)
                for command in (words, run, [*engine, "exec", container.name, *words])
            ]  # fmt: skip
    finally:
        os.close(directory)
    control, ran, executed = found
    assert str(directory) in control["descriptors"].split() and int(control["inheritable"], 16)
    for inside in (ran, executed):
        assert inside["descriptors"] == "0 1 2 3", "the three, and the directory that lists them"
        assert not int(inside["inheritable"], 16)


@pytest.fixture
def shared_things() -> Iterator[str]:
    """Memory, a queue and an abstract socket of the host's, by one name."""
    name = f"minicontainer-secret-{os.getpid()}"
    librt = ctypes.CDLL(None, use_errno=True)
    queue = librt.mq_open(f"/{name}".encode(), os.O_CREAT | os.O_RDWR, 0o600, None)
    assert queue >= 0, os.strerror(ctypes.get_errno())
    with open(f"/dev/shm/{name}", "w") as memory, socket.socket(socket.AF_UNIX) as door:
        memory.write("secret")
        door.bind(f"\0{name}")
        door.listen()
        yield name
    os.unlink(f"/dev/shm/{name}")
    librt.mq_unlink(f"/{name}".encode())
    os.close(queue)


def test_shared_memory_and_message_queues_are_not_the_hosts(
    shop: Shop,
    stranger: int,  # noqa: F811
    shared_things: str,
) -> None:
    look = ["plain", "sh", "-c", "ls /dev/shm /dev/mqueue"]
    assert shared_things not in shop.out(*look)
    assert shop.out("--ipc", "host", *look).count(shared_things) == 2, "the control: where they are asked for"


def test_cve_2020_15257_no_door_of_ours_is_an_abstract_socket(
    shop: Shop,
    stranger: int,  # noqa: F811
    shared_things: str,
) -> None:
    """In the host's network an abstract socket is anybody's; containerd's shim listened at one. Ours have a path."""
    with shop.start("plain", "sh", "-c", "echo ready; sleep 1000"):
        seen = attack(shop, stranger, "--network", "host")["abstract"]
    assert f"@{shared_things}" in seen, "the control: it does see those that there are"
    assert "minicontainer" not in seen.replace(f"@{shared_things}", "")
    assert shared_things not in attack(shop, stranger)["abstract"]


CALLER = """
import ctypes, os, sys
libc, (keyctl, add_key) = ctypes.CDLL(None), {"x86_64": (250, 248), "aarch64": (219, 217)}[os.uname().machine]
assert libc.syscall(keyctl, 1, None) > 0  # a session keyring of its own, with a secret in it
assert libc.syscall(add_key, b"user", b"minicontainer-secret", b"x", 1, -3) > 0
os.execv(sys.argv[1], sys.argv[1:])
"""
SEARCH = """
import ctypes, json, os
libc = ctypes.CDLL(None, use_errno=True)
number = {"x86_64": 250, "aarch64": 219}[os.uname().machine]
buffer = ctypes.create_string_buffer(200)
ring = libc.syscall(number, 0, -3, 0)
libc.syscall(number, 6, ring, buffer, 200)  # KEYCTL_DESCRIBE
print(json.dumps([ring, buffer.value.decode(), libc.syscall(number, 10, -3, b"user", b"minicontainer-secret", 0)]))
"""


def test_the_callers_keys_are_not_the_containers(shop: Shop) -> None:
    """The control is the same search as the caller's own child."""
    engine = [sys.executable, "-m", "minicontainer"]
    look = [PYTHON, "-I", "-S", "-c", SEARCH]
    free = ["--security-opt", "seccomp=unconfined", "--network", "none", *python()]

    def seen(command: list[str]) -> list[Any]:
        words = [sys.executable, "-c", CALLER, *command]
        done = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=True, timeout=60)
        found: list[Any] = json.loads(done.stdout)
        return found

    assert seen(look)[2] > 0
    ring, described, found = seen([*engine, "run", "--rm", *free, "plain", *look])
    assert described.startswith("keyring;0;0;3f1b0000;_ses.") and found < 0
    with shop.start(*free, "plain", "sh", "-c", "echo ready; sleep 1000") as container:
        first, second = (seen([*engine, "exec", container.name, *look]) for _ in range(2))
        assert first == second and first[0] != ring and first[1].endswith(f"_ses.{container.id}") and first[2] < 0


def test_tiocsti_the_callers_terminal_is_not_the_containers(shop: Shop, stranger: int) -> None:  # noqa: F811
    """Who holds a terminal can type into it (TIOCSTI), and the shell reads that when the container has gone.

    A command on a terminal of the test's tells whether /dev/tty opens: as the caller's child, and as our container.
    """

    def on_terminal(command: list[str]) -> dict[str, str]:
        receive, send = os.pipe()
        pid, master = pty.fork()
        if pid == 0:
            os.dup2(send, 1)
            os.execv(command[0], command)
        os.close(send)
        with open(receive) as answer:
            told: dict[str, str] = json.loads(answer.read())
        os.waitpid(pid, 0)
        os.close(master)
        return told

    words = [PYTHON, *arguments(stranger)]
    engine = [sys.executable, "-m", "minicontainer", "run", "--rm", "-i", "--network", "none", *python(), "plain"]
    assert on_terminal(words)["tty"] == "done"
    assert on_terminal([*engine, *words])["tty"] == "ENXIO"
