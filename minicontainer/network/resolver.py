"""The resolver of a network: one process, which answers its containers' questions about names (RFC 1034, RFC 1035).

It begins with the first question that a container of the network asks, and ends with the last container that has asked.
A monitor comes by the door (dns.door) and gives the two sockets that its container asks at; as long as that connection
stands, they are ours. If it breaks, the container has ended: the sockets are closed at once, for they would keep its
network namespace alive. If we are killed, the monitor sees it break, and keeps the sockets for our successor.

Names are looked up in dns.announced, with each question anew; whatever is not known there is passed on, as it came, to
the servers of --dns or of the host's resolv.conf, from the host's network namespace: by UDP what came by UDP, by TCP
what came by TCP, which is what a client does whose answer was cut off. What comes from a container may be anything,
and so may what comes from a server: neither ends this process, and there is a bound to all that it keeps.

dnslib does the protocol. This is a process of its own: nothing here is imported by a start.
"""

from __future__ import annotations

import array
import errno
import functools
import os
import select
import socket
import time
from collections.abc import Callable

import dnslib

from .. import files, syscalls
from . import dns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Reply = Callable[[bytes], None]
    Entry = tuple[str, list[str], list[str], str]  # one of dns.announced

PATIENCE = 2.0  # seconds that a server has to answer
IDLE = 10.0  # … and that a connection may be silent
WAITING = 1000  # questions that wait for servers' answers, of all containers
SHARE = 200  # … and of one
CALLERS = 50  # connections of one container
ROUND = 64  # questions of one container before the others have their turn
LARGEST = 65535  # bytes of a message by TCP; by UDP 512, or what the question says (EDNS, RFC 6891)
RESOLV_CONF = "/etc/resolv.conf"
FORMERR, SERVFAIL, NXDOMAIN, REFUSED = 1, 2, 3, 5
RCODE = 15  # the bits of the header's fourth byte


class Names:
    """What dns.announced says, read again only when a network's directory has changed."""

    def __init__(self) -> None:
        self.seen: dict[str, tuple[int, float, Any]] = {}

    def of(self, network: str) -> dict[str, Entry]:
        """Container id → (address, names, servers, address of IPv6)."""
        try:
            changed = os.stat(dns.place(network)).st_mtime_ns
        except FileNotFoundError:
            return {}
        before, read, entries = self.seen.get(network, (0, 0.0, {}))
        # The clock of file times moves in steps: what was read so soon after a change may lack another one.
        if changed != before or read - changed / 1e9 < 0.1:
            read = time.time()
            entries = dns.announced(network)
            self.seen[network] = changed, read, entries
        found: dict[str, Entry] = entries
        return found

    def around(self, container_id: str) -> dict[str, dict[str, Entry]]:
        """The same for each network that the container is in."""
        every = {network: self.of(network) for network in dns.networks()}
        return {network: entries for network, entries in every.items() if container_id in entries}

    def addresses(self, container_id: str, name: str) -> list[tuple[str, str]]:
        """Where the name leads to, as that container sees it: `web`, or `web.backend` for that network's alone.

        An address, and that of IPv6 or nothing, for each whose name it is.
        """
        networks = self.around(container_id)
        found = [entry for entries in networks.values() for entry in entries.values() if name in entry[1]]
        first, _, network = name.rpartition(".")
        if not found and network in networks:
            found = [entry for entry in networks[network].values() if first in entry[1]]
        return sorted({(address, address6) for address, _, _, address6 in found})

    def name_at(self, container_id: str, address: str) -> str:
        """Who has the address: `web.backend`; or the empty string."""
        for network, entries in self.around(container_id).items():
            for found, names, _, found6 in entries.values():
                if address in (found, found6) and names:
                    return f"{names[0]}.{network}"
        return ""

    def servers(self, container_id: str) -> list[str] | None:
        """Whom to ask for what is not known here: those of --dns, or the host's. None: nobody, it may not go out."""
        chosen = [entries[container_id][2] for entries in self.around(container_id).values()]
        if chosen and all(servers == [dns.NOBODY] for servers in chosen):
            return None
        return next((servers for servers in chosen if servers and servers != [dns.NOBODY]), None) or host_servers()


def host_servers() -> list[str]:
    """The servers of the host's resolv.conf(5), which are asked from where it asks them, so its loopback's too."""
    return dns.servers(RESOLV_CONF)[:3]


class Guest:
    """One container: the connection to its monitor, and the sockets that it asks at."""

    def __init__(self, house: Resolver, end: socket.socket) -> None:
        self.house, self.end = house, end
        self.container_id = ""
        self.sockets: list[socket.socket] = []
        self.callers: set[Caller] = set()
        self.waiting = 0  # questions of it that have been passed on
        end.setblocking(False)
        house.watch(end, self.listen, self.close)
        house.guests.add(self)

    def listen(self) -> None:
        """What comes from the monitor: the sockets; or, from one who was to be a resolver, another such connection."""
        data, beside, flags, _ = self.end.recvmsg(100, socket.CMSG_SPACE(8), socket.MSG_CMSG_CLOEXEC)
        descriptors = array.array("i")
        for _, _, content in beside:
            descriptors.frombytes(content)
        came = [socket.socket(fileno=descriptor) for descriptor in descriptors]
        if flags & socket.MSG_CTRUNC:  # there were more than we can have: those that came are closed with their objects
            self.close()
        elif len(came) == 1:
            Guest(self.house, came[0])
        elif len(came) == 2 and not self.sockets:
            self.container_id, self.sockets = data.decode(), came
            self.house.watch(came[0], self.questions, self.close)
            self.house.watch(came[1], self.welcome, self.close)
        if not data or len(came) == 1:
            self.close()

    def close(self) -> None:
        """It has ended: let go of its network namespace."""
        for opened in (self.end, *self.sockets):
            self.house.drop(opened)
        for caller in list(self.callers):
            caller.close()
        self.house.guests.discard(self)

    def questions(self) -> None:
        """Questions by UDP."""
        for _ in range(ROUND):
            try:
                question, asker = self.sockets[0].recvfrom(LARGEST)
            except BlockingIOError:
                return
            self.house.ask(self, question, functools.partial(self.answer, asker))

    def answer(self, asker: Any, answer: bytes) -> None:
        """An answer by UDP. Whoever does not read them does without."""
        try:
            self.sockets[0].sendto(answer, asker)
        except OSError:
            pass

    def welcome(self) -> None:
        """Somebody who asks by TCP."""
        end, _ = self.sockets[1].accept()
        if len(self.callers) < CALLERS:
            self.callers.add(Caller(self, end))
        else:
            end.close()


class Caller:
    """A connection of a container's program: each message is its length in two bytes, and itself (RFC 7766)."""

    def __init__(self, guest: Guest, end: socket.socket) -> None:
        self.guest, self.end, self.data = guest, end, b""
        self.open = True
        end.setblocking(False)
        guest.house.watch(end, self.listen, self.close)
        guest.house.wait(self, IDLE)

    def listen(self) -> None:
        """Questions, or parts of one."""
        data = self.end.recv(LARGEST)
        if not data:
            self.close()
            return
        self.guest.house.wait(self, IDLE)
        self.data += data
        while self.open and len(self.data) >= 2 + int.from_bytes(self.data[:2], "big"):
            length = 2 + int.from_bytes(self.data[:2], "big")
            question, self.data = self.data[2:length], self.data[length:]
            self.guest.house.ask(self.guest, question, self.answer, LARGEST)

    def answer(self, answer: bytes) -> None:
        """Whoever does not read answers is not waited for."""
        if self.open:
            message = len(answer).to_bytes(2, "big") + answer
            try:
                whole = self.end.send(message) == len(message)
            except OSError:
                whole = False
            if not whole:
                self.close()

    def late(self) -> None:
        """It has been silent for too long."""
        self.close()

    def close(self) -> None:
        """Hang up."""
        self.open = False
        self.guest.callers.discard(self)
        self.guest.house.drop(self.end, self)


class Passed:
    """A question that has been passed on, to one server after the other until one has an answer.

    Each time from a port that the kernel has drawn, with an id that we have: who cannot see our packets must guess both
    (RFC 5452). What does not fit the question is not its answer.
    """

    def __init__(self, guest: Guest, question: bytes, end: int, reply: Reply, stream: bool, servers: list[str]) -> None:
        self.guest, self.question, self.reply, self.stream = guest, question, reply, stream
        self.asked = question[12:end]
        self.servers = (servers * 2)[:4]  # once more, for packets get lost
        self.socket: socket.socket | None = None
        self.data = b""
        self.refusal = b""  # an answer that says that there is none
        guest.waiting += 1
        guest.house.passed += 1
        self.next()

    def next(self) -> None:
        """Ask the next server; where there is none any more, say so."""
        house = self.guest.house
        self.let_go()
        while self.servers:
            server = self.servers.pop(0)
            family = socket.AF_INET6 if ":" in server else socket.AF_INET
            kind = socket.SOCK_STREAM if self.stream else socket.SOCK_DGRAM
            self.id, self.data = os.urandom(2), b""
            message = self.id + self.question[2:]
            try:
                self.socket = socket.socket(family, kind | socket.SOCK_NONBLOCK)
                if self.socket.connect_ex((server, dns.PORT)) not in (0, errno.EINPROGRESS):
                    raise OSError
                if self.stream:
                    self.unsent = len(message).to_bytes(2, "big") + message
                    house.watch(self.socket, self.send, self.next, select.EPOLLOUT)
                else:
                    self.socket.send(message)
                    house.watch(self.socket, self.listen, self.next)
            except Exception:  # no IPv6 here, no descriptor to be had, no way there
                self.let_go()
                continue
            house.wait(self, PATIENCE)
            return
        self.close()

    def send(self) -> None:
        """The server has taken our call: ask."""
        assert self.socket
        self.socket.send(self.unsent)  # a first packet, which an empty buffer has room for
        self.guest.house.watch(self.socket, self.listen, self.next)

    def listen(self) -> None:
        """What may be the answer, or a part of it."""
        assert self.socket
        data = self.socket.recv(LARGEST)
        if self.stream:
            self.data += data
            if not data:
                self.next()
                return
            if len(self.data) < 2 or len(self.data) < 2 + int.from_bytes(self.data[:2], "big"):
                return
            data = self.data[2:]
        fits = data[:2] == self.id and len(data) >= 12 and data[2] & 0x80
        if not fits or data[12 : 12 + len(self.asked)].lower() != self.asked.lower():
            if self.stream:
                self.next()
            return
        answer = self.question[:2] + data[2:]
        if data[3] & RCODE in (SERVFAIL, REFUSED):
            self.refusal = answer
            self.next()
        else:
            self.end(answer)

    def late(self) -> None:
        """This server does not answer."""
        self.next()

    def close(self) -> None:
        """Nobody has an answer."""
        self.end(self.refusal or refusal(self.question, SERVFAIL, 12 + len(self.asked)))

    def end(self, answer: bytes) -> None:
        """Pass the answer on."""
        self.let_go()
        self.guest.waiting -= 1
        self.guest.house.passed -= 1
        self.reply(answer)

    def let_go(self) -> None:
        """This server is asked no more."""
        if self.socket:
            self.guest.house.drop(self.socket, self)
            self.socket = None


class Resolver:
    """The process: who is watched, and what is to be done when something comes."""

    def __init__(self, network: str) -> None:
        self.network = network
        self.names = Names()
        self.poll = select.epoll()
        self.calls: dict[int, tuple[Callable[[], None], Callable[[], None]]] = {}
        self.deadlines: dict[Any, float] = {}
        self.guests: set[Guest] = set()
        self.passed = 0
        self.turn = 0  # which of several addresses comes first
        self.door = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    # What is watched

    def watch(
        self, end: socket.socket, call: Callable[[], None], close: Callable[[], None], event: int = select.EPOLLIN
    ) -> None:
        """Call `call` when something comes; `close` where that fails."""
        known = end.fileno() in self.calls
        (self.poll.modify if known else self.poll.register)(end.fileno(), event)
        self.calls[end.fileno()] = call, close

    def drop(self, end: socket.socket, waiting: Any = None) -> None:
        """Close it; nobody waits for it any more."""
        self.deadlines.pop(waiting, None)
        if self.calls.pop(end.fileno(), None):
            self.poll.unregister(end.fileno())
        end.close()

    def wait(self, waiting: Any, seconds: float) -> None:
        """Call `waiting.late` after so many seconds."""
        self.deadlines[waiting] = time.monotonic() + seconds

    def serve(self) -> None:
        """Until the last container has gone."""
        while self.guests or not self.leave():
            until = min(self.deadlines.values(), default=None)
            left = None if until is None else max(0.0, until - time.monotonic())
            for descriptor, _ in self.poll.poll(left):
                call, close = self.calls.get(descriptor, (None, None))
                if call is None or close is None:  # closed in this very round
                    continue
                guarded(call, close)
            now = time.monotonic()
            for waiting in [waiting for waiting, until in self.deadlines.items() if until <= now]:
                if self.deadlines.pop(waiting, None):
                    guarded(waiting.late, waiting.close)

    # The door

    def open(self) -> None:
        """Open the door, in place of what a killed one has left. Owed: the lock of the network's names."""
        path = dns.door(self.network)
        files.unlink(path)
        self.door = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        self.door.bind(within(path))
        self.door.listen(256)
        self.watch(self.door, self.welcome, self.welcome)

    def welcome(self) -> None:
        """Let in who waits at the door."""
        while True:
            try:
                end, _ = self.door.accept()
            except OSError:  # nobody; or no descriptor for who is there, who waits until there is one
                return
            Guest(self, end)

    def leave(self) -> bool:
        """Close the door; but for one who came in time, who is let in. Whether that is the end."""
        try:
            lock = files.lock(dns.place(self.network), make=False)
        except FileNotFoundError:  # the whole store has gone
            return True
        try:
            files.unlink(dns.door(self.network))
            self.welcome()
            self.drop(self.door)
            if self.guests:
                self.open()
            return not self.guests
        finally:
            os.close(lock)

    # Questions

    def ask(self, guest: Guest, question: bytes, reply: Reply, most: int = 0) -> None:
        """Answer one, now or when a server has; `most` bytes, or what it says itself."""
        if len(question) < 12 or question[2] & 0x80:  # no header, or itself an answer: silence, or two would talk on
            return
        try:
            buffer = dnslib.DNSBuffer(question)
            header = dnslib.DNSHeader.parse(buffer)
            if header.q != 1 or header.opcode != 0:
                raise ValueError
            asked = dnslib.DNSQuestion.parse(buffer)
            end = buffer.offset
        except Exception:
            reply(refusal(question, FORMERR))
            return
        records = self.known(guest.container_id, asked) if asked.qclass == dnslib.CLASS.IN else None
        if records is not None:
            reply(self.answer(question, header, asked, records, most))
            return
        servers = self.names.servers(guest.container_id)
        if servers is None:
            reply(refusal(question, NXDOMAIN, end))
        elif self.passed >= WAITING or guest.waiting >= SHARE:
            reply(refusal(question, SERVFAIL, end))
        else:
            Passed(guest, question, end, reply, most == LARGEST, servers)

    def known(self, container_id: str, asked: dnslib.DNSQuestion) -> list[Any] | None:
        """What the network's names say, perhaps nothing of that type; None for what it does not know."""
        name = b".".join(asked.qname.label).decode(errors="replace").lower()
        address = reverse(name)
        if address:
            whose = self.names.name_at(container_id, address)
            if not whose:
                return None
            return [dnslib.PTR(whose)] if asked.qtype in (dnslib.QTYPE.PTR, dnslib.QTYPE.ANY) else []
        addresses = self.names.addresses(container_id, name)
        if not addresses:
            return None
        self.turn += 1
        first = self.turn % len(addresses)
        records: list[Any] = []  # none, if it is there and has none of that type
        for four, six in addresses[first:] + addresses[:first]:
            if asked.qtype in (dnslib.QTYPE.A, dnslib.QTYPE.ANY):
                records.append(dnslib.A(four))
            if six and asked.qtype in (dnslib.QTYPE.AAAA, dnslib.QTYPE.ANY):
                records.append(dnslib.AAAA(six))
        return records

    def answer(
        self, question: bytes, header: dnslib.DNSHeader, asked: dnslib.DNSQuestion, records: list[Any], most: int
    ) -> bytes:
        """The message. Its records hold for this moment: a name may lead elsewhere after the next start."""
        message = dnslib.DNSRecord(dnslib.DNSHeader(id=header.id, qr=1, rd=header.rd, ra=1), q=asked)
        for record in records:
            kind = getattr(dnslib.QTYPE, type(record).__name__)
            message.add_answer(dnslib.RR(asked.qname, kind, rdata=record, ttl=0))
        room = 512
        try:
            for extra in dnslib.DNSRecord.parse(question).ar:
                if extra.rtype == dnslib.QTYPE.OPT:
                    room = max(room, extra.edns_len)
                    message.add_ar(dnslib.EDNS0(udp_len=1232))
        except Exception:  # what is there beside the question does not matter to its answer
            pass
        packed = bytes(message.pack())
        if len(packed) > (most or room):
            message.rr, message.header.tc = [], 1  # TC: ask again by TCP
            packed = bytes(message.pack())
        return packed


def guarded(call: Callable[[], None], close: Callable[[], None]) -> None:
    """Call it. Whatever it was that came, it ends at who sent it."""
    try:
        call()
    except BlockingIOError:
        pass
    except Exception:
        close()


def reverse(name: str) -> str:
    """The address that a name of in-addr.arpa (RFC 1035) or ip6.arpa (RFC 3596) asks for; nothing if it is none."""
    if name.endswith(".in-addr.arpa"):
        return ".".join(reversed(name.removesuffix(".in-addr.arpa").split(".")))
    digits = "".join(reversed(name.removesuffix(".ip6.arpa").split(".")))
    if not name.endswith(".ip6.arpa") or len(digits) != 32:
        return ""
    try:
        return socket.inet_ntop(socket.AF_INET6, bytes.fromhex(digits))
    except ValueError:
        return ""


def refusal(question: bytes, code: int, end: int = 12) -> bytes:
    """An answer that says no more than why there is none: the question's id, QR, opcode, RD; RA; and the question.

    `end` is where its section of questions ends, where that could be read: a client looks for what it has asked.
    """
    header = question[:2] + bytes((0x80 | question[2] & 0x79, 0x80 | code, 0, int(end > 12))) + bytes(6)
    return header + question[12:end]


def within(path: str) -> str:
    """The same path, short enough for sun_path whatever it is (unix(7)); the directory stays open."""
    directory = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    return f"/proc/self/fd/{directory}/{os.path.basename(path)}"


def main(network: str, descriptor: str) -> None:
    """Be the resolver of a network, with the sockets that come by the descriptor; or hand it to the one there is."""
    import resource

    os.chdir("/")
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    end = socket.socket(fileno=int(descriptor))
    syscalls.close_range(int(descriptor), int(descriptor), syscalls.CLOSE_RANGE_CLOEXEC)
    resolver = Resolver(network)
    lock = files.lock(dns.place(network), make=False)
    try:
        try:
            resolver.door.connect(within(dns.door(network)))
        except (FileNotFoundError, ConnectionRefusedError):
            resolver.open()
        else:
            socket.send_fds(resolver.door, [b"-"], [end.fileno()])
            return
    finally:
        os.close(lock)
    Guest(resolver, end)
    resolver.serve()
