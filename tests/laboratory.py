"""Machines made of nothing but a network namespace, for tests of the network.

    from tests.laboratory import Laboratory, fresh_laboratory  # noqa: F401

The test itself moves into a namespace of its own, which is "the host": bridges, tables and ip_forward in it are
nobody else's. `laboratory.machine()` is another one: a container's stand-in, a LAN's computer, the internet.
"""

import concurrent.futures
import contextlib
import ctypes
import json
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from minicontainer import host, netlink, syscalls

PAUSE = 0.4  # seconds to wait for an answer that should not come


class Machine:
    """A process that sleeps in a network namespace. `pid` names it."""

    def __init__(self) -> None:
        ready, told = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                be_alone(told)
                syscalls.unshare(syscalls.CLONE_NEWNET)
                os.write(told, b".")
                signal.pause()
            finally:
                os._exit(1)
        os.close(told)
        assert os.read(ready, 1) == b"."
        os.close(ready)
        self.children = [self.pid]

    def end(self) -> None:
        """Its processes are gone afterwards; its namespace goes when the kernel gets to it."""
        for pid in reversed(self.children):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        self.children = []

    def ip(self, *words: str) -> str:
        """`ip` inside."""
        return command("nsenter", "-t", str(self.pid), "-n", "ip", *words)

    def put(self, path: str, value: str) -> None:
        """Write into a file below /proc/sys/net, inside."""
        self.call(lambda: write(path, value))

    def call(self, function: Callable[[], Any]) -> Any:
        """What `function` returns (anything JSON) in a process of its own in there."""
        return self.begin(function)()

    def begin(self, function: Callable[[], Any]) -> Callable[[], Any]:
        """The same, begun: what is returned waits for it. So several machines are at work at once."""
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                be_alone(writer)
                syscalls.enter_namespace(f"/proc/{self.pid}/ns/net", syscalls.CLONE_NEWNET)
                os.write(writer, json.dumps(function()).encode())
            finally:
                os._exit(0)
        os.close(writer)

        def finish() -> Any:
            with os.fdopen(reader) as pipe:
                said = pipe.read()
            os.waitpid(pid, 0)
            assert said, "the function raised"
            return json.loads(said)

        return finish

    def serve(self, protocol: str, port: int, name: str) -> None:
        """Answer whoever asks on the port with `name` and the address that he seems to have."""
        ready, told = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                be_alone(told)
                syscalls.enter_namespace(f"/proc/{self.pid}/ns/net", syscalls.CLONE_NEWNET)
                answer_all(protocol, port, name, lambda: os.write(told, b"."))
            finally:
                os._exit(1)
        os.close(told)
        assert os.read(ready, 1) == b".", "the server did not start"
        os.close(ready)
        self.children.append(pid)

    def ask(self, protocol: str, address: str, port: int) -> str | None:
        """Ask a server: "name address-of-the-client", or None if no answer comes."""
        answer = self.call(lambda: ask(protocol, address, port))
        return str(answer) if answer else None


class Inside(Machine):
    """A machine that is there already: the network namespace of a process, as a container's."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.children = []


class Laboratory:
    """The test's own host, and the machines around it."""

    def __init__(self) -> None:
        self.machines: list[Machine] = []

    def machine(self) -> Machine:
        """One more, connected to nothing yet."""
        made = Machine()
        self.machines.append(made)
        return made

    def neighbour(self, device: str, ours: str, theirs: str) -> Machine:
        """A machine at the other end of a cable: `ours` and `theirs` are addresses in one /24."""
        made = self.machine()
        command("ip", "link", "add", device, "type", "veth", "peer", "name", "eth0", "netns", str(made.pid))
        command("ip", "address", "add", f"{ours}/24", "dev", device)
        command("ip", "link", "set", device, "up")
        made.ip("link", "set", "lo", "up")
        made.ip("address", "add", f"{theirs}/24", "dev", "eth0")
        made.ip("link", "set", "eth0", "up")
        return made


def answer_all(protocol: str, port: int, name: str, ready: Callable[[], Any]) -> None:
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    both = socket.has_dualstack_ipv6()
    with socket.socket(socket.AF_INET6 if both else socket.AF_INET, kind) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if both:
            server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, int(protocol == "udp"))
        server.bind(("::" if both else "0.0.0.0", port))
        if protocol == "tcp":
            server.listen()
        ready()
        while True:
            if protocol == "tcp":
                client, (address, *_) = server.accept()
                client.sendall(f"{name} {address.removeprefix('::ffff:')}".encode())
                client.close()
            else:
                # From the address that was asked, whatever the route back would choose: struct in6_pktinfo, ipv6(7).
                _, notes, _, sender = server.recvmsg(100, socket.CMSG_SPACE(20))
                back = [(level, kind, note[:16] + bytes(4)) for level, kind, note in notes]
                with contextlib.suppress(OSError):  # there may be no way back
                    server.sendmsg([f"{name} {sender[0].removeprefix('::ffff:')}".encode()], back, 0, sender)


def ask(protocol: str, address: str, port: int) -> str | None:
    """As Machine.ask, from where we are."""
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind) as client:
        client.settimeout(PAUSE)
        try:
            client.connect((address, port))
            if protocol == "udp":
                client.send(b"?")
            else:
                client.settimeout(10 * PAUSE)  # somebody is there: he may have much to do
            return client.recv(100).decode() or None
        except OSError:
            return None


def ask_all(questions: list[tuple[str, str, int]]) -> list[str | None]:
    """Many at once, so that those without an answer wait together."""
    with concurrent.futures.ThreadPoolExecutor(len(questions) or 1) as pool:
        return list(pool.map(lambda question: ask(*question), questions))


def write(path: str, value: str) -> None:
    with open(path, "w") as file:
        file.write(value)


def command(*words: str) -> str:
    """The output of a command that must succeed."""
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}"
    return done.stdout


def be_alone(descriptor: int) -> None:
    """In a child: die with the parent, and hold nothing of it open (a socket keeps its port) but one descriptor."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    os.closerange(3, descriptor)
    os.closerange(descriptor + 1, 1 << 16)


@pytest.fixture(name="laboratory")
def fresh_laboratory(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Laboratory]:
    """A host of the test's own, with a store of its own, for as long as the test runs."""
    monkeypatch.setenv("MINICONTAINER_ROOT", str(tmp_path / "store"))
    monkeypatch.setattr(host, "run_root", lambda: str(tmp_path / "run"))
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    syscalls.unshare(syscalls.CLONE_NEWNET)
    made = Laboratory()
    try:
        command("ip", "link", "set", "lo", "up")
        yield made
    finally:
        for machine in made.machines:
            machine.end()
        for opened in netlink.codec.sockets.values():
            opened.close()  # a namespace lives as long as a socket in it
        netlink.codec.sockets.clear()
        syscalls.setns(home, syscalls.CLONE_NEWNET)
        os.close(home)
