"""Published ports that DNAT cannot serve: bytes from sockets of the host to the container's IPv4 address, and back.

The kernel translates an address only into one of the same family, and what is sent to ::1 never leaves loopback. So
what comes by IPv6 is accepted here and goes on by IPv4, as the host's own: the container sees the gateway's address.

    client ─ [::]:8080 ─▶ listener ┄ Relay ┄ 172.30.0.2:80 ▶ container

There is no process and no thread for it: all its descriptors are in one epoll(7), which the container's monitor watches
among others (runtime/attach.py), and nothing here ever waits. Imported when the first client comes.
"""

from __future__ import annotations

import _socket as socket
import errno
import os
import resource
import select
import struct
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Listener = tuple[int, str, str, int]  # descriptor, "tcp" or "udp", the container's address, its port
    Client = tuple[int, tuple[Any, ...], bytes]  # listener, the client's address, in6_pktinfo

CHUNK = 1 << 18  # bytes of one read
DATAGRAM = 1 << 16
ENOUGH, LITTLE = 1 << 25, 1 << 12  # where so much waits for slow readers, no more than so little is read at once
ROUNDS = 16  # of looking what is ready, before the monitor looks after others
QUIET = 90.0  # seconds after which a UDP client that is heard of no more may be forgotten; docker-proxy's
DESCRIPTORS = 1 << 16  # as many as we want at most: a connection takes two, a UDP client one
SPARE = 256  # those that are not ours
IN, OUT = select.EPOLLIN, select.EPOLLOUT
RESET = struct.pack("ii", 1, 0)  # SO_LINGER, socket(7): what close(2) sends


class End:
    """One end of a connection: what is still to be sent to it, and how far it has got."""

    def __init__(self, end: socket.socket, connecting: bool = False) -> None:
        self.socket = end
        self.number = end.fileno()
        self.connecting = connecting
        self.pending = b""
        self.ended = False  # it has said all
        self.told = False  # … and knows that the other has
        self.events = 0  # what epoll looks for
        self.peer = self


class Relay:
    """The connections of one container. `gate` is an epoll with all listeners in it, which are another's to close.

    A listener without an address leads nowhere: who comes by TCP meets a reset, and datagrams are dropped.
    With `before`, the `state` of an earlier one, it goes on where another interpreter of this process was.
    """

    def __init__(self, gate: int, listeners: list[Listener], before: dict[str, Any] | None = None) -> None:
        self.gate = select.epoll.fromfd(os.dup(gate))
        self.doors: dict[int, tuple[socket.socket, str, tuple[str, int]]] = {}
        for number, protocol, address, port in listeners:
            kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
            door = socket.socket(socket.AF_INET6, kind, 0, number)
            self.doors[number] = door, protocol, (address, port)
        self.ends: dict[int, End] = {}
        self.sessions: dict[Client, socket.socket] = {}  # the longest idle first
        self.used: dict[Client, float] = {}
        self.clients: dict[int, Client] = {}  # by the descriptor that leads to the container
        self.buffer = memoryview(bytearray(CHUNK))
        self.waiting = 0  # bytes of all that is pending
        self.open = True  # TCP listeners are in the epoll
        self.limit = resource.getrlimit(resource.RLIMIT_NOFILE)  # as it was
        soft, hard = self.limit
        most = soft if soft > DESCRIPTORS else min(hard, DESCRIPTORS)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        self.room = max((most - SPARE - 2 * len(self.doors)) // 3, 1)  # connections, and as many UDP clients
        if before:
            self.resume(before)

    def attend(self) -> None:
        """Do what can be done now; much of it, if there is much, but not for ever."""
        for _ in range(ROUNDS):
            ready = self.gate.poll(0)
            if not ready:
                return
            for number, event in ready:
                if number in self.ends:
                    self.go_on(self.ends[number], event)
                elif number in self.clients:
                    self.send_back(self.clients[number])
            # Last: who comes may get the number of a descriptor that was ready, and has been closed.
            for number, _ in ready:
                if number in self.doors:
                    if self.doors[number][1] == "tcp":
                        self.welcome(number)
                    else:
                        self.send_in(number)

    # TCP

    def welcome(self, number: int) -> None:
        """A client comes: connect to the container for it."""
        door, _, target = self.doors[number]
        try:
            descriptor, _ = door._accept()  # type: ignore[attr-defined]  # what socket.accept is made of
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM) and self.ends:
                self.admit(False)
            return
        client = End(socket.socket(socket.AF_INET6, socket.SOCK_STREAM, 0, descriptor))
        if not target[0]:
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            client.socket.close()
            return
        try:
            server = End(socket.socket(socket.AF_INET, socket.SOCK_STREAM), connecting=True)
        except OSError:
            client.socket.close()
            return
        client.peer, server.peer = server, client
        for end in (client, server):
            end.socket.setblocking(False)
            end.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # it is for the two to wait, not for us
            self.ends[end.number] = end
        code = server.socket.connect_ex(target)
        if code not in (0, errno.EINPROGRESS):
            self.drop(client)
            return
        self.look(client)
        self.look(server)
        if len(self.ends) >= 2 * self.room:
            self.admit(False)

    def admit(self, more: bool) -> None:
        """Let clients in, or let them wait in the kernel's queue."""
        if more != self.open:
            for number, (_, protocol, _) in self.doors.items():
                if protocol == "tcp":
                    self.gate.modify(number, IN if more else 0)
            self.open = more

    def go_on(self, end: End, event: int) -> None:
        """One end has something to say, or can hear more."""
        try:
            if end.connecting:
                code = end.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if code:
                    raise OSError(code, os.strerror(code))
                end.connecting = False
                self.flush(end)
            elif end.pending:
                self.flush(end)
            if event & ~OUT and not end.ended and not end.peer.pending:
                count = end.socket.recv_into(self.buffer, CHUNK if self.waiting < ENOUGH else LITTLE)
                end.ended = not count
                self.pass_on(end.peer, self.buffer[:count])
        except BlockingIOError:
            pass
        except OSError:
            self.drop(end)
            return
        if end.told and end.peer.told:
            self.close(end)
            return
        self.look(end)
        self.look(end.peer)

    def pass_on(self, end: End, data: memoryview) -> None:
        """Send it to this end; what it does not take now, later."""
        sent = 0
        if data and not end.connecting:
            try:
                sent = end.socket.send(data, socket.MSG_NOSIGNAL)
            except BlockingIOError:
                pass
        end.pending = bytes(data[sent:])
        self.waiting += len(end.pending)
        self.flush(end)

    def flush(self, end: End) -> None:
        """Send what waits for this end, and after it that the other has said all."""
        if end.connecting:
            return
        if end.pending:
            try:
                sent = end.socket.send(end.pending, socket.MSG_NOSIGNAL)
            except BlockingIOError:
                return
            end.pending = end.pending[sent:]
            self.waiting -= sent
        if end.peer.ended and not end.pending and not end.told:
            end.told = True
            end.socket.shutdown(socket.SHUT_WR)

    def look(self, end: End) -> None:
        """Have epoll look for what this end is waited for. Nothing is read that the other end has no room for."""
        wanted = 0 if end.ended or end.peer.pending or end.connecting else IN
        if end.pending or end.connecting:
            wanted |= OUT
        if wanted == end.events:
            return
        if not wanted:  # out of it altogether: with 0 it would tell of EPOLLHUP again and again
            self.gate.unregister(end.number)
        elif end.events:
            self.gate.modify(end.number, wanted)
        else:
            self.gate.register(end.number, wanted)
        end.events = wanted

    def drop(self, end: End) -> None:
        """One end is broken: let the other one see it, by a reset."""
        end.peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.close(end)

    def close(self, end: End) -> None:
        """Close both ends."""
        for one in (end, end.peer):
            del self.ends[one.number]
            self.waiting -= len(one.pending)
            one.socket.close()  # which takes it out of the epoll
        self.admit(True)

    # UDP

    def send_in(self, number: int) -> None:
        """A datagram to the container; from now on its answers go back to who sent it."""
        door, _, target = self.doors[number]
        try:
            data, notes, _, address = door.recvmsg(DATAGRAM, socket.CMSG_SPACE(20), socket.MSG_DONTWAIT)
        except OSError:
            return
        if not target[0]:
            return
        # struct in6_pktinfo (ipv6(7)): which of our addresses it was sent to. The answer must come from there.
        to = next((note[:16] for *_, note in notes), bytes(16))
        client = (number, address, to)
        try:
            server = self.sessions.pop(client, None) or self.introduce(client, target)
            self.sessions[client], self.used[client] = server, time.monotonic()
            server.send(data)
        except BlockingIOError:
            pass  # as any router does whose queue is full
        except OSError:
            self.forget(client)

    def introduce(self, client: Client, target: tuple[str, int]) -> socket.socket:
        """A client that is new; who has long been silent makes room."""
        now = time.monotonic()
        for other in list(self.sessions):
            if now - self.used[other] < QUIET and len(self.sessions) < self.room:
                break
            self.forget(other)
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        server.setblocking(False)
        server.connect(target)
        self.clients[server.fileno()] = client
        self.gate.register(server.fileno(), IN)
        return server

    def send_back(self, client: Client) -> None:
        """The container answers."""
        number, address, to = client
        try:
            data = self.sessions[client].recv(DATAGRAM)
            note = (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, to + bytes(4))
            self.doors[number][0].sendmsg([data], [note], socket.MSG_DONTWAIT, address)
        except BlockingIOError:
            pass
        except OSError:  # nobody listens there (ICMP)
            self.forget(client)
        else:
            self.sessions[client], self.used[client] = self.sessions.pop(client), time.monotonic()

    def forget(self, client: Client) -> None:
        """A UDP client less."""
        server = self.sessions.pop(client, None)
        self.used.pop(client, None)
        if server:
            self.clients.pop(server.fileno(), None)
            server.close()

    # The end, or another interpreter

    def end(self) -> None:
        """Close all connections. The listeners stay."""
        for end in list(self.ends.values()):
            if end.number in self.ends:
                self.close(end)
        for client in list(self.sessions):
            self.forget(client)
        for door, _, _ in self.doors.values():
            door.detach()
        self.gate.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, self.limit)

    def state(self) -> dict[str, Any]:
        """What another Relay goes on with; execve does not close these descriptors now."""
        pairs = []
        for end in self.ends.values():
            os.set_inheritable(end.number, True)
            if end.number < end.peer.number:
                pairs.append([(e.number, e.connecting, e.pending, e.ended, e.told, e.events) for e in (end, end.peer)])
        for server in self.sessions.values():
            os.set_inheritable(server.fileno(), True)
        sessions = [(client, server.fileno()) for client, server in self.sessions.items()]
        return {"pairs": pairs, "sessions": sessions, "open": self.open, "limit": self.limit}

    def resume(self, state: dict[str, Any]) -> None:
        """Take over what `state` said."""
        self.open, self.limit = state["open"], state["limit"]
        for pair in state["pairs"]:
            both = []
            for number, *fields in pair:
                end = End(socket.socket(fileno=number))
                end.connecting, end.pending, end.ended, end.told, end.events = fields
                os.set_inheritable(number, False)
                self.ends[number] = end
                self.waiting += len(end.pending)
                both.append(end)
            both[0].peer, both[1].peer = both[1], both[0]
        for client, number in state["sessions"]:
            os.set_inheritable(number, False)
            self.sessions[client] = socket.socket(fileno=number)
            self.used[client] = time.monotonic()
            self.clients[number] = client
