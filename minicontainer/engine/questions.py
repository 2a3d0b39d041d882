"""A container's questions about names, as its monitor sees them: it answers none, and knows who does.

    nobody has asked ── a question ──▶ the sockets are the resolver's, too ── it has gone ──▶ what waits is thrown away,
         ▲                                                                                    for it may be the reason
         └────────────────────────────────────────────────────────────────────────────────────────────────┘

The sockets are network/dns.py's. An idle monitor imports this, so it is small; ctypes comes in where a resolver has to
be started.
"""

from __future__ import annotations

import _socket as socket
import os

from .. import host
from ..runtime import monitor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Guests = dict[int, Callable[[], None]]

MOST = 500  # questions thrown away at once: what a socket usually has room for, and no more to who asks without end


class Questions:
    """The two sockets, and `end`, the connection to the resolver that has them, -1 while none does."""

    def __init__(self, identifier: str, guests: Guests, udp: int, tcp: int, end: int = -1) -> None:
        self.identifier, self.guests = identifier, guests
        self.udp, self.tcp, self.end = udp, tcp, end
        self.watch()

    def descriptors(self) -> list[int]:
        """All of them, as `__init__` takes them."""
        return [self.udp, self.tcp] + ([self.end] if self.end >= 0 else [])

    def watch(self) -> None:
        """Look for a question, or for the resolver's end."""
        self.unwatch()
        if self.end >= 0:
            self.guests[self.end] = self.lost
        else:
            self.guests[self.udp] = self.guests[self.tcp] = self.asked

    def unwatch(self) -> None:
        """Look no more."""
        for descriptor in self.descriptors():
            self.guests.pop(descriptor, None)

    def asked(self) -> None:
        """The first question: give the sockets to the network's resolver."""
        self.unwatch()
        try:
            self.end = self.introduced()
            self.watch()
        except OSError:  # no process, no descriptor, no memory to be had: perhaps with the next question
            self.lost()

    def lost(self) -> None:
        """The resolver has gone. Who has asked it will ask again; what has killed it shall not kill the next one."""
        self.unwatch()
        if self.end >= 0:
            os.close(self.end)
        self.end = -1
        for descriptor in (self.udp, self.tcp):
            opened = socket.socket(fileno=descriptor)
            try:
                for _ in range(MOST):
                    if descriptor == self.udp:
                        opened.recv(1, socket.MSG_DONTWAIT)
                    else:
                        os.close(opened._accept()[0])  # type: ignore[attr-defined]
            except OSError:  # no more are there
                pass
            finally:
                opened.detach()
        self.watch()

    def introduced(self) -> int:
        """Connect to the resolver of a network that the container is in, and give it the sockets."""
        place = f"{host.run_root()}/names"
        known = sorted(name for name in os.listdir(place) if os.path.exists(f"{place}/{name}/{self.identifier}"))
        if not known:  # it is in none any more
            raise OSError
        directory = os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        end = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        theirs = None
        try:
            end.connect(f"/proc/self/fd/{directory}/.{known[0]}")
        except (FileNotFoundError, ConnectionRefusedError):
            end, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        finally:
            os.close(directory)
        import struct  # an idle monitor does without; without channel and what that imports, too

        both = struct.pack("2i", self.udp, self.tcp)
        end.sendmsg([self.identifier.encode()], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, both)])
        if theirs:
            begin(known[0], theirs.fileno())
            theirs.close()
        return int(end.detach())

    def close(self) -> None:
        """The container has ended; so has its network namespace, once the resolver sees this."""
        self.unwatch()
        for descriptor in self.descriptors():
            os.close(descriptor)


def begin(network: str, end: int) -> None:
    """Start the resolver of a network: nobody's child, in a session of its own, with nothing of ours but `end`."""
    from .. import syscalls

    syscalls.enter_namespace("/proc/self/ns/pid", syscalls.CLONE_NEWPID)  # else it would be born in the container
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    try:
        os.setsid()
        memory = f"{host.root()}/build/memory"
        if syscalls.is_mounted(memory):  # a build's secrets (building.py): it ends with the build, and we go on
            syscalls.unshare(syscalls.CLONE_NEWNS)
            syscalls.umount(memory, syscalls.MNT_DETACH)
        if os.fork() == 0:
            os.set_inheritable(end, True)
            command = monitor.interpreter("minicontainer.network.resolver", "main", network, str(end))
            os.execv(command[0], command)
    finally:
        os._exit(0)
