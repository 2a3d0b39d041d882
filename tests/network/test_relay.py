"""The relay of IPv6 clients to an IPv4 address, over loopback; turned by hand, as the monitor's loop does."""

import marshal
import os
import resource
import select
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from minicontainer.network import relay


class Bench:
    """A relay from [::]:`port` to a server of the test's own, tcp and udp under one number each."""

    def __init__(self) -> None:
        self.servers, self.doors, listeners = {}, {}, []
        self.gate = select.epoll()
        for protocol, kind in (("tcp", socket.SOCK_STREAM), ("udp", socket.SOCK_DGRAM)):
            server = socket.socket(socket.AF_INET, kind)
            server.bind(("127.0.0.1", 0))
            server.settimeout(30)
            door = socket.socket(socket.AF_INET6, kind)
            door.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            door.bind(("::", 0))
            door.setblocking(False)
            if protocol == "tcp":
                server.listen()
                door.listen()
            else:
                door.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
            self.servers[protocol], self.doors[protocol] = server, door
            self.gate.register(door, select.EPOLLIN)
            listeners.append((door.fileno(), protocol, "127.0.0.1", server.getsockname()[1]))
        self.listeners = listeners
        self.relay = relay.Relay(self.gate.fileno(), listeners)
        self.opened: list[socket.socket] = []

    def client(self, protocol: str, address: str = "::1") -> socket.socket:
        """One who has come."""
        kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
        made = socket.socket(socket.AF_INET6, kind)
        made.settimeout(30)
        made.connect((address, self.doors[protocol].getsockname()[1]))
        self.opened.append(made)
        return made

    def meanwhile(self, function: Callable[[], object]) -> object:
        """What `function` returns, in a thread; here the relay is turned until it has ended."""
        result: list[object] = []
        thread = threading.Thread(target=lambda: result.append(function()))
        thread.start()
        while thread.is_alive():
            if self.gate.poll(0.01):
                self.relay.attend()
        thread.join()
        assert result, "it raised"
        return result[0]

    def meet(self) -> tuple[socket.socket, socket.socket]:
        """A client and the server's end of its connection."""
        client = self.client("tcp")
        server, _ = self.meanwhile(self.servers["tcp"].accept)  # type: ignore[misc]
        server.settimeout(30)
        self.opened.append(server)
        return client, server

    def settle(self) -> None:
        """Turn it until there is nothing left to do."""
        while self.gate.poll(0.05):
            self.relay.attend()

    def end(self) -> None:
        self.relay.end()
        for one in (*self.opened, *self.servers.values(), *self.doors.values(), self.gate):
            one.close()


@pytest.fixture
def bench() -> Iterator[Bench]:
    before = set(os.listdir("/proc/self/fd"))
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    made = Bench()
    yield made
    made.end()
    assert set(os.listdir("/proc/self/fd")) <= before  # another test's thread may have closed one of its own
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == limit


def everything(end: socket.socket) -> bytes:
    parts = []
    while part := end.recv(1 << 16):
        parts.append(part)
    return b"".join(parts)


def test_what_one_says_the_other_hears_and_that_it_has_said_all(bench: Bench) -> None:
    client, server = bench.meet()
    words, answer = os.urandom(3 << 20), os.urandom(3 << 20)

    def ask() -> bytes:
        client.sendall(words)
        client.shutdown(socket.SHUT_WR)
        return everything(client)

    def serve() -> None:
        assert everything(server) == words
        server.sendall(answer)  # it can still speak
        server.close()

    thread = threading.Thread(target=serve)
    thread.start()
    assert bench.meanwhile(ask) == answer
    thread.join()
    bench.settle()
    assert not bench.relay.ends


@pytest.mark.parametrize("enough", [relay.ENOUGH, 0])
def test_who_does_not_read_stops_the_other_and_costs_no_memory(
    bench: Bench, enough: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "ENOUGH", enough)
    client, server = bench.meet()
    client.setblocking(False)
    sent = 0
    while True:
        try:
            sent += client.send(bytes(1 << 16))
        except BlockingIOError:
            bench.settle()
            if not select.select([], [client], [], 0)[1]:
                break
    pending = [len(end.pending) for end in bench.relay.ends.values()]
    assert 0 < sum(pending) == bench.relay.waiting <= (relay.CHUNK if enough else relay.LITTLE)
    client.close()
    heard = bench.meanwhile(lambda: len(everything(server)))
    assert heard == sent
    bench.settle()
    assert bench.relay.waiting == 0


def test_where_nobody_listens_the_client_is_told(bench: Bench) -> None:
    bench.servers["tcp"].close()
    client = bench.client("tcp")
    bench.settle()
    with pytest.raises(ConnectionResetError):
        client.recv(1)


def test_a_broken_end_is_a_reset_for_the_other(bench: Bench) -> None:
    client, server = bench.meet()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    server.close()
    bench.settle()
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    assert not bench.relay.ends


def test_who_comes_when_all_places_are_taken_waits(bench: Bench) -> None:
    bench.relay.room = 1
    first, _ = bench.meet()
    second = bench.client("tcp")
    bench.settle()
    assert len(bench.relay.ends) == 2
    first.close()
    bench.opened[1].close()
    server, _ = bench.meanwhile(bench.servers["tcp"].accept)  # type: ignore[misc]
    second.send(b"a")
    server.settimeout(30)
    assert bench.meanwhile(lambda: server.recv(10)) == b"a"
    server.close()


def test_datagrams_go_to_and_fro_for_each_client_and_come_from_where_it_sent_to(bench: Bench) -> None:
    clients = [bench.client("udp"), bench.client("udp")]
    for client in clients:
        client.send(b"ask")
    seen = [bench.meanwhile(lambda: bench.servers["udp"].recvfrom(100)) for _ in clients]
    assert [data for data, _ in seen] == [b"ask", b"ask"]  # type: ignore[misc]
    addresses = [address for _, address in seen]  # type: ignore[misc]
    for number, address in reversed(list(enumerate(addresses))):
        bench.servers["udp"].sendto(b"%d" % number, address)
    bench.settle()
    assert {client.recv(100) for client in clients} == {b"0", b"1"}


def test_silent_clients_make_room(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.relay.room = 2
    for _ in range(4):
        bench.client("udp").send(b"a")
        bench.settle()
    assert len(bench.relay.sessions) == len(bench.relay.clients) == 2
    monkeypatch.setattr(relay, "QUIET", 0)
    bench.client("udp").send(b"a")
    bench.settle()
    assert len(bench.relay.sessions) == 1


def test_another_interpreter_goes_on_with_all_of_it(bench: Bench) -> None:
    client, server = bench.meet()
    client.send(b"before ")
    asker = bench.client("udp")
    asker.send(b"ask")
    _, address = bench.meanwhile(lambda: bench.servers["udp"].recvfrom(100))  # type: ignore[misc]
    bench.settle()
    old = bench.relay
    state = marshal.loads(marshal.dumps(old.state()))
    for end in old.ends.values():
        assert os.get_inheritable(end.number)
        end.socket.detach()
    for one in (*old.sessions.values(), *(door for door, _, _ in old.doors.values())):
        one.detach()
    old.gate.close()
    bench.relay = relay.Relay(bench.gate.fileno(), bench.listeners, state)
    client.send(b"and after")
    client.close()
    assert bench.meanwhile(lambda: everything(server)) == b"before and after"
    bench.servers["udp"].sendto(b"answer", address)
    bench.settle()
    assert asker.recv(100) == b"answer"
