"""Names of containers: asked for inside, by real packets; passed on to servers of the test's own, on loopback."""

import contextlib
import errno
import json
import os
import resource
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dnslib
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicontainer import host, syscalls
from minicontainer.engine import containers, questions
from minicontainer.network import dns, resolver
from tests import leftovers
from tests.conftest import minicontainer
from tests.engine_fixtures import Shop, fresh_shop  # noqa: F401

SERVER = "127.53.0.1"  # nobody else's


def kernel(test: Any) -> Any:
    """What a test of real containers needs."""
    return pytest.mark.root(pytest.mark.needs("bridge", "veth", "nftables")(test))


class End:
    """A container that sleeps, and questions from inside of its network namespace."""

    def __init__(self, name: str, *flags: str) -> None:
        self.name = name
        self.id = minicontainer("run", "-d", "--name", name, *flags, "plain", "sleep", "1000").stdout.strip()
        self.look()

    def look(self) -> None:
        """Its pid and its address, as they are now."""
        found = json.loads(minicontainer("inspect", self.name).stdout)[0]
        self.pid, self.address = found["State"]["Pid"], found["NetworkSettings"]["IPAddress"]

    def socket(self, kind: int) -> socket.socket:
        """A socket in there, connected to where resolv.conf says."""
        with syscalls.inside_network(self.pid):
            opened = socket.socket(socket.AF_INET, kind)
        opened.settimeout(10)
        opened.connect((dns.ADDRESS, 53))
        return opened

    def ask(self, name: str, kind: str = "A", tcp: bool = False, patience: float = 10) -> dnslib.DNSRecord:
        """The answer to a question."""
        question = dnslib.DNSRecord.question(name, kind)
        with self.socket(socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM) as opened:
            opened.settimeout(patience)
            packed = question.pack()
            opened.send(len(packed).to_bytes(2, "big") + packed if tcp else packed)
            data = opened.recv(65535)
            while tcp and len(data) < 2 + int.from_bytes(data[:2], "big"):
                data += opened.recv(65535)
        answer = dnslib.DNSRecord.parse(data[2:] if tcp else data)
        assert (answer.header.id, str(answer.q.qname)) == (question.header.id, str(question.q.qname))
        return answer

    def says(self, name: str, kind: str = "A", **more: Any) -> list[str]:
        """The data of the records in the answer; the code's name where there is an error."""
        answer = self.ask(name, kind, **more)
        if answer.header.rcode:
            return [str(dnslib.RCODE[answer.header.rcode])]
        return [str(record.rdata) for record in answer.rr]


@pytest.fixture
def net(shop: Shop) -> Iterator[Shop]:
    """The shop; afterwards its containers have gone, and with the last one the resolver."""
    until(lambda: not leftovers.resolvers(shop.root))  # another test's, which may still be ending
    yield shop
    names = minicontainer("ps", "-aq").stdout.split()
    if names:
        minicontainer("rm", "-f", *names)
    until(lambda: not leftovers.resolvers(shop.root))
    assert leftovers.none_within(shop.root, shop.suffix) == []
    place = Path(f"/run/minicontainer{shop.suffix}/names")
    assert [str(path) for path in place.rglob("*") if not path.is_dir()] == []


def until(condition: Callable[[], Any]) -> None:
    """Wait for it."""
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.01)


class Server:
    """A server of the world outside: what it was asked, and a function that makes the answer, or None."""

    def __init__(self, answer: Callable[[dnslib.DNSRecord, bool], bytes | None], address: str = SERVER) -> None:
        self.answer, self.asked = answer, []  # type: ignore[var-annotated]
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.tcp = socket.socket()
        self.tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        for opened in (self.udp, self.tcp):
            opened.bind((address, 53))
        self.tcp.listen()
        self.threads = [threading.Thread(target=work) for work in (self.datagrams, self.streams)]
        for thread in self.threads:
            thread.start()

    def datagrams(self) -> None:
        """UDP."""
        while True:
            data, sender = self.udp.recvfrom(65535)
            if not data:
                return
            self.asked.append(("udp", sender[1], data))
            answer = self.answer(dnslib.DNSRecord.parse(data), False)
            if answer:
                self.udp.sendto(answer, sender)

    def streams(self) -> None:
        """TCP."""
        while True:
            end, _ = self.tcp.accept()
            with end:
                data = end.recv(65535)
                if not data:
                    return
                self.asked.append(("tcp", 0, data[2:]))
                answer = self.answer(dnslib.DNSRecord.parse(data[2:]), True) or b""
                end.sendall(len(answer).to_bytes(2, "big") + answer)

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None:
        address = self.udp.getsockname()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", address)
        socket.create_connection(address).close()
        for thread in self.threads:
            thread.join()
        self.udp.close()
        self.tcp.close()


def address(question: dnslib.DNSRecord, tcp: bool) -> bytes:
    """An answer like most: one address."""
    answer = question.reply()
    answer.add_answer(dnslib.RR(question.q.qname, rdata=dnslib.A("192.0.2.80"), ttl=60))
    return bytes(answer.pack())


def nothing(question: dnslib.DNSRecord, tcp: bool) -> bytes:
    """There is nobody of that name."""
    return bytes(dnslib.DNSRecord(dnslib.DNSHeader(id=question.header.id, qr=1, rcode=3), q=question.q).pack())


# ------------------------------------------------------------------------------------------------------------- names


@kernel
def test_containers_find_one_another_by_name(net: Shop):
    web, db = End("Web"), End("db", "--hostname", "store")
    found = minicontainer("exec", "Web", "busybox", "nslookup", "db").stdout
    assert f"Address: {db.address}" in found
    for name in ("db", "DB", db.id[:12], "store", "db.bridge"):
        assert web.says(name) == [db.address], name
    assert db.says("web") == db.says("WEB", tcp=True) == [web.address]
    assert web.says("db", "AAAA") == [] and web.says("db", "MX") == []  # it is there, and has none
    assert web.says(".".join(reversed(db.address.split("."))) + ".in-addr.arpa", "PTR") == ["db.bridge."]
    assert db.ask("web").rr[0].ttl == 0


@kernel
def test_names_follow_restart_rename_and_end(net: Shop):
    web, db = End("web", "--dns", SERVER), End("db")
    with Server(nothing):
        assert web.says("db") == [db.address]
        minicontainer("restart", "-t", "0", "db")
        db.look()
        assert web.says("db") == [db.address] and db.says("web") == [web.address]
        minicontainer("rename", "db", "base")
        assert (web.says("base"), web.says("db")) == ([db.address], ["NXDOMAIN"])
        minicontainer("rm", "-f", "base")
        assert web.says("base") == ["NXDOMAIN"]
    assert os.listdir(f"/run/minicontainer{net.suffix}/names/bridge") == [web.id]


@kernel
def test_two_of_one_name_take_turns(net: Shop):
    web, one, two = End("web"), End("one", "--hostname", "both"), End("two", "--hostname", "both")
    answers = [web.says("both") for _ in range(4)]
    assert {tuple(sorted(answer)) for answer in answers} == {tuple(sorted((one.address, two.address)))}
    assert {answer[0] for answer in answers} == {one.address, two.address}


def test_more_addresses_than_a_packet_holds_come_by_tcp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(host, "run_root", lambda: str(tmp_path))
    for number in range(60):
        dns.announce("n", f"{number:064x}", f"192.0.2.{number}", ["many"], [])
    house = resolver.Resolver("n")
    question = dnslib.DNSRecord.question("many")
    guest = Nobody(house)
    guest.container_id = "0" * 64

    def heard(packet: bytes, most: int = 0) -> dnslib.DNSRecord:
        answers: list[bytes] = []
        house.ask(guest, packet, answers.append, most)  # type: ignore[arg-type]
        assert most or len(answers[0]) <= 1500
        return dnslib.DNSRecord.parse(answers[0])

    cut = heard(question.pack())
    assert (cut.header.tc, str(cut.q.qname), cut.rr) == (1, "many.", [])
    assert len(heard(question.pack(), resolver.LARGEST).rr) == 60
    question.add_ar(dnslib.EDNS0(udp_len=1232))
    assert len(heard(question.pack()).rr) == 60
    house.poll.close()
    house.door.close()


@kernel
def test_a_server_inside_may_have_port_53(net: Shop):
    web = End("web")
    with syscalls.inside_network(web.pid):
        udp, tcp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), socket.socket()
    udp.bind(("0.0.0.0", 53))
    tcp.bind(("0.0.0.0", 53))
    tcp.listen()
    assert web.says("web") == web.says("web", tcp=True) == [web.address]
    udp.close()
    tcp.close()


@kernel
def test_who_shares_a_network_asks_at_the_same_place(net: Shop):
    web = End("web")
    found = net.out("--network", "container:web", "plain", "busybox", "nslookup", "web")
    assert f"Address: {web.address}" in found


# ---------------------------------------------------------------------------------------------------- life and death


@kernel
def test_who_never_asks_starts_nobody(net: Shop):
    End("web")
    assert net.out("--network", "bridge", "plain", "true") == ""
    assert leftovers.resolvers(net.root) == []


@kernel
def test_there_is_one_resolver_and_it_ends_with_the_last_container(net: Shop):
    web, db = End("web"), End("db")
    assert (web.says("db"), db.says("web")) == ([db.address], [web.address])
    pid = the_resolver(net)
    assert os.readlink(f"/proc/{pid}/ns/net") == os.readlink("/proc/self/ns/net")
    assert os.readlink(f"/proc/{pid}/ns/pid") == os.readlink("/proc/self/ns/pid")
    assert os.getsid(pid) not in (os.getsid(0), os.getsid(web.pid))
    minicontainer("rm", "-f", "web")
    assert leftovers.resolvers(net.root) == [pid]
    minicontainer("rm", "-f", "db")
    until(lambda: not os.path.exists(f"/proc/{pid}"))
    assert leftovers.none_within(net.root, net.suffix) == []  # the namespaces have gone: their cables have


@kernel
def test_a_killed_monitor_leaves_no_namespace_behind(net: Shop):
    web, db = End("web"), End("db")
    assert (web.says("db"), db.says("web")) == ([db.address], [web.address])
    record = json.loads((net.root / "containers" / web.id / "record.json").read_text())
    os.kill(record["monitor"][0], signal.SIGKILL)
    until(lambda: not os.path.exists(f"/sys/class/net/veth{web.id[:11]}"))
    assert db.says("db") == [db.address]
    minicontainer("system", "check", "--repair")
    assert os.listdir(f"/run/minicontainer{net.suffix}/names/bridge") == [db.id]


@kernel
def test_a_killed_resolver_has_a_successor(net: Shop):
    web, db = End("web"), End("db")
    assert (web.says("db"), db.says("web")) == ([db.address], [web.address])
    for _ in range(3):
        pid = the_resolver(net)
        os.kill(pid, signal.SIGKILL)
        until(lambda pid=pid: not os.path.exists(f"/proc/{pid}"))
        for asking, name, wanted in ((web, "db", db), (db, "web", web)):
            until(lambda: says_soon(asking, name) == [wanted.address])  # noqa: B023
    late = End("late")
    assert late.says("web") == [web.address]
    the_resolver(net)


def the_resolver(net: Shop) -> int:
    """The pid of the only one. Where two monitors have started one each, the second ends once it has seen that."""
    until(lambda: len(leftovers.resolvers(net.root)) == 1)
    return leftovers.resolvers(net.root)[0]


def says_soon(end: End, name: str) -> list[str]:
    """What a client hears who asks again after a second."""
    try:
        return end.says(name, patience=1)
    except TimeoutError:
        return []


@kernel
def test_the_smaller_monitor_has_the_sockets_too(net: Shop):
    web = End("web")
    record = json.loads((net.root / "containers" / web.id / "record.json").read_text())
    own = Path(f"/proc/{record['monitor'][0]}/cmdline")
    until(lambda: b"go_on" in own.read_bytes())
    assert web.says("web") == [web.address]


@kernel
def test_many_questions_at_once(net: Shop):
    ends = [End("web"), End("db")]
    wrong: list[object] = []

    def ask(end: End, other: End) -> None:
        for tcp in (False, True) * 20:
            try:
                assert end.says(other.name, tcp=tcp) == [other.address]
            except Exception as error:
                wrong.append(error)

    threads = [threading.Thread(target=ask, args=pair) for pair in (ends, ends[::-1]) * 8]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    the_resolver(net)


@kernel
def test_junk_does_not_end_it(net: Shop):
    web, db = End("web"), End("db")
    assert web.says("db") == [db.address]
    before = leftovers.resolvers(net.root)
    whole = dnslib.DNSRecord.question("db").pack()
    junk = [
        b"",
        b"\0",
        os.urandom(12),
        os.urandom(500),
        whole[:-3],
        whole[:4] + b"\xff" * 200,
        whole[:12] + b"\xc0\x0c" * 9,
    ]
    with db.socket(socket.SOCK_DGRAM) as opened:
        for data in junk:
            opened.send(data)
    for data in junk:
        with db.socket(socket.SOCK_STREAM) as opened:
            opened.send(data)
    assert (web.says("db"), db.says("web")) == ([db.address], [web.address])
    assert leftovers.resolvers(net.root) == before


# ---------------------------------------------------------------------------------------------------- what it passes on


@kernel
def test_what_it_does_not_know_it_passes_on(net: Shop):
    web = End("web", "--dns", SERVER)
    with Server(address) as server:
        assert web.says("outside.example") == web.says("outside.example", tcp=True) == ["192.0.2.80"]
        assert web.says("web") == [web.address]
        assert {data[12:] for _, _, data in server.asked} == {
            bytes(dnslib.DNSRecord.question("outside.example").pack()[12:])
        }
        assert [kind for kind, _, _ in server.asked] == ["udp", "tcp"]
        for _ in range(5):
            web.says("outside.example")
        udp = [(port, data[:2]) for kind, port, data in server.asked if kind == "udp"]
        assert len({port for port, _ in udp}) > 1 and len({number for _, number in udp}) > 1
    assert web.says("outside.example") == ["SERVFAIL"]


@kernel
def test_a_long_answer_is_cut_off_and_comes_whole_by_tcp(net: Shop):
    def long(question: dnslib.DNSRecord, tcp: bool) -> bytes:
        answer = question.reply()
        for number in range(100 if tcp else 0):
            answer.add_answer(dnslib.RR(question.q.qname, rdata=dnslib.A(f"192.0.2.{number}"), ttl=60))
        answer.header.tc = int(not tcp)
        return bytes(answer.pack())

    web = End("web", "--dns", SERVER)
    with Server(long):
        assert web.ask("long.example").header.tc == 1
        assert len(web.says("long.example", tcp=True)) == 100


@kernel
def test_an_answer_to_another_question_is_none(net: Shop):
    def wrong(question: dnslib.DNSRecord, tcp: bool) -> bytes | None:
        """First two that do not fit, and the true one behind them."""
        id_of = question.header.id
        for number, name in ((id_of ^ 1, "bank.example"), (id_of, "evil.example")):
            false = dnslib.DNSRecord(dnslib.DNSHeader(id=number, qr=1), q=dnslib.DNSQuestion(name))
            false.add_answer(dnslib.RR(name, rdata=dnslib.A("203.0.113.66")))
            server.udp.sendto(false.pack(), ("127.0.0.1", server.asked[-1][1]))
        return address(question, tcp)

    web = End("web", "--dns", SERVER)
    with Server(wrong) as server:
        assert web.says("bank.example") == ["192.0.2.80"]


@kernel
def test_the_next_server_is_asked_where_one_refuses(net: Shop):
    def refuses(question: dnslib.DNSRecord, tcp: bool) -> bytes:
        return bytes(dnslib.DNSRecord(dnslib.DNSHeader(id=question.header.id, qr=1, rcode=5), q=question.q).pack())

    web = End("web", "--dns", "127.53.0.9", "--dns", "127.53.0.2", "--dns", SERVER)  # nobody is at the first
    with Server(refuses, "127.53.0.2"), Server(address):
        assert web.says("outside.example") == ["192.0.2.80"]
    with Server(refuses, "127.53.0.2"):
        assert web.says("outside.example") == ["REFUSED"]


@kernel
def test_one_container_cannot_use_up_the_servers_of_all(net: Shop):
    """A server that never answers: the one who asks too much is refused, the other one is heard."""
    web, db = End("web", "--dns", "127.53.0.2"), End("db", "--dns", SERVER)
    with Server(lambda *_: None, "127.53.0.2"), Server(address):
        with web.socket(socket.SOCK_DGRAM) as opened:
            for number in range(resolver.SHARE + 1):
                opened.send(dnslib.DNSRecord.question(f"n{number}.example").pack())
            assert dnslib.DNSRecord.parse(opened.recv(512)).header.rcode == resolver.SERVFAIL
        assert db.says("outside.example") == ["192.0.2.80"]


# -------------------------------------------------------------------------------------------------------------- flags


@kernel
def test_what_resolv_conf_and_hosts_say(net: Shop):
    flags = [
        "--network",
        "bridge",
        "--dns-search",
        "a.example",
        "--dns-search",
        "b.example",
        "--dns-option",
        "timeout:1",
    ]
    flags += ["--add-host", "one:192.0.2.1", "--add-host", "six=[2001:db8::1]", "--add-host", "us:host-gateway"]
    words = net.out(*flags, "plain", "cat", "/etc/resolv.conf", "/etc/hosts").splitlines()
    assert words[:3] == ["nameserver 127.0.0.11", "search a.example b.example", "options timeout:1 ndots:0"]
    gateway = json.loads((net.root / "networks/bridge.json").read_text())["gateway"]
    assert {"192.0.2.1\tone", "2001:db8::1\tsix", f"{gateway}\tus"} <= set(words)
    assert "search" not in net.out("--network", "bridge", "--dns-search", ".", "plain", "cat", "/etc/resolv.conf")
    found = net.out("--network", "none", "--dns", "192.0.2.53", "plain", "cat", "/etc/resolv.conf")
    assert "nameserver 192.0.2.53\n" in found


@kernel
def test_what_inspect_says(net: Shop):
    flags = [
        "--dns",
        "192.0.2.53",
        "--dns-search",
        "a.example",
        "--dns-option",
        "rotate",
        "--add-host",
        "one:192.0.2.1",
    ]
    minicontainer("create", "--name", "web", *flags, "plain", "true")
    found = json.loads(minicontainer("inspect", "web").stdout)[0]["HostConfig"]
    assert [found[name] for name in ("Dns", "DnsSearch", "DnsOptions", "ExtraHosts")] == [
        ["192.0.2.53"], ["a.example"], ["rotate"], ["one:192.0.2.1"],
    ]  # fmt: skip


@kernel
def test_what_is_refused(net: Shop):
    assert "not an IP address" in net.refused(125, "--dns", "example.com", "plain", "true")
    assert "NAME:ADDRESS" in net.refused(125, "--add-host", "one", "plain", "true")
    assert "NAME:ADDRESS" in net.refused(125, "--add-host", "one:two", "plain", "true")
    End("web")
    done = net.run("--network", "container:web", "--dns", "192.0.2.53", "plain", "true", check=False)
    assert done.returncode == 125 and "--dns conflicts" in done.stderr


@pytest.mark.parametrize(
    ("text", "wished", "asks_us", "lines"),
    [
        ("nameserver 192.0.2.1\nsearch x\n", {}, True, ["nameserver 127.0.0.11", "search x", "options ndots:0"]),
        ("nameserver 192.0.2.1\n", {"options": ["ndots:2"]}, True, ["nameserver 127.0.0.11", "options ndots:2"]),
        ("nameserver 192.0.2.1\noptions edns0\n", {}, False, ["nameserver 192.0.2.1", "options edns0"]),
        ("nameserver 192.0.2.1\n", {"servers": ["192.0.2.9"]}, False, ["nameserver 192.0.2.9"]),
        ("search x y\n", {"search": ["."]}, False, []),
    ],
)
def test_a_resolv_conf(text: str, wished: dict[str, list[str]], asks_us: bool, lines: list[str]):
    whole = {"servers": [], "search": [], "options": [], **wished}
    assert containers.resolver_settings(text, whole, asks_us).splitlines() == lines


# ------------------------------------------------------------------------------------------------- pure: any packet


class Nobody:
    """A container that is in no network."""

    container_id, waiting = "a" * 64, 0

    def __init__(self, house: resolver.Resolver) -> None:
        self.house = house


QUESTION = bytes(dnslib.DNSRecord.question("db").pack())


@given(st.one_of(st.binary(max_size=600), st.binary(max_size=100).map(lambda rest: QUESTION + rest)))
def test_any_packet_has_one_answer_or_none(packet: bytes):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(host, "run_root", lambda: "/nosuch")
        patch.setattr(resolver, "host_servers", list)
        asked = resolver.Resolver("bridge")
        heard: list[bytes] = []
        asked.ask(Nobody(asked), packet, heard.append)  # type: ignore[arg-type]
        asked.poll.close()
        asked.door.close()
    assert len(heard) <= 1
    for answer in heard:
        assert answer[:2] == packet[:2] and answer[2] & 0x80


@pytest.fixture
def house() -> Iterator[resolver.Resolver]:
    """A resolver that nobody has come to yet."""
    made = resolver.Resolver("bridge")
    yield made
    made.poll.close()
    made.door.close()


def pass_on(house: resolver.Resolver, servers: list[str], stream: bool) -> tuple[Nobody, list[int]]:
    """A question for these servers: who asks it, and the codes of the answers, to come."""
    guest, codes = Nobody(house), []  # type: ignore[var-annotated]
    end = len(QUESTION)
    resolver.Passed(guest, QUESTION, end, lambda answer: codes.append(answer[3] & 15), stream, servers)  # type: ignore[arg-type]
    return guest, codes


@pytest.mark.parametrize("stream", [False, True])
def test_without_a_socket_for_a_server_the_next_one_is_asked(
    house: resolver.Resolver, monkeypatch: pytest.MonkeyPatch, stream: bool
):
    """A host without IPv6, or a process without descriptors."""
    made, refused = socket.socket, [socket.AF_INET6]

    def some(family: int = socket.AF_INET, *words: Any, **more: Any) -> socket.socket:
        if family in refused:
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
        return made(family, *words, **more)

    monkeypatch.setattr(socket, "socket", some)
    guest, codes = pass_on(house, ["::1", SERVER], stream)
    assert (codes, guest.waiting, house.passed) == ([], 1, 1)
    for watched in [waiting.socket for waiting in house.deadlines]:
        assert watched.family == socket.AF_INET
    refused.append(socket.AF_INET)
    for waiting in list(house.deadlines):
        waiting.late()
    assert (codes, guest.waiting, house.passed, house.calls, house.deadlines) == ([resolver.SERVFAIL], 0, 0, {}, {})
    assert pass_on(house, ["::1", SERVER], stream)[1] == [resolver.SERVFAIL]
    assert house.passed == 0


def test_what_fails_late_ends_at_who_asked(house: resolver.Resolver, monkeypatch: pytest.MonkeyPatch):
    class Late:
        def late(self) -> None:
            raise OSError(errno.EMFILE, "Too many open files")

        def close(self) -> None:
            house.guests.clear()

    monkeypatch.setattr(house, "leave", lambda: True)
    house.guests.add("somebody")  # type: ignore[arg-type]
    house.wait(Late(), 0)
    house.serve()


def test_without_a_descriptor_for_who_comes_nobody_is_lost(
    house: resolver.Resolver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Who waits at the door goes on waiting; who brings what cannot be taken is sent away, and will come again."""
    monkeypatch.setattr(host, "run_root", lambda: str(tmp_path))
    os.makedirs(dns.place("bridge"))
    house.open()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    guest = resolver.Guest(house, theirs)
    two = socket.socket(), socket.socket()
    socket.send_fds(ours, [b"a" * 64], [opened.fileno() for opened in two])
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as late:
        late.connect(dns.door("bridge"))
        most = resource.getrlimit(resource.RLIMIT_NOFILE)
        spare = os.open("/", os.O_PATH)
        os.close(spare)
        resource.setrlimit(resource.RLIMIT_NOFILE, (spare, most[1]))
        try:
            house.welcome()
            assert house.guests == {guest}
            resource.setrlimit(resource.RLIMIT_NOFILE, (spare + 1, most[1]))
            guest.listen()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, most)
        assert house.guests == set() and ours.recv(1) == b""
        house.welcome()
        assert len(house.guests) == 1
        for each in list(house.guests):
            each.close()
    for opened in (ours, *two):
        opened.close()


def test_who_asks_without_end_does_not_hold_his_monitor(monkeypatch: pytest.MonkeyPatch):
    """Without a resolver to go to, some of the questions are thrown away, and then others have their turn."""
    monkeypatch.setattr(questions, "MOST", 3, raising=False)
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
        socket.create_server(("127.0.0.1", 0)) as tcp,
        contextlib.ExitStack() as callers,
    ):
        udp.bind(("127.0.0.1", 0))
        for opened in (udp, tcp):
            opened.setblocking(False)
        for number in range(5):
            udp.sendto(bytes((number,)), udp.getsockname())
            callers.enter_context(socket.create_connection(tcp.getsockname()))
        asked = questions.Questions("a" * 64, {}, udp.fileno(), tcp.fileno())
        asked.lost()
        assert [udp.recv(1) for _ in range(2)] == [b"\3", b"\4"]
        for _ in range(2):
            tcp.accept()[0].close()
        for call in (lambda: udp.recv(1), tcp.accept):
            with pytest.raises(BlockingIOError):
                call()


def test_a_name_that_cannot_be_asked_for_is_not_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(host, "run_root", lambda: str(tmp_path))
    dns.announce("n", "a" * 64, "192.0.2.1", ["ok", "a" * 64, "a..b", "OK"], ["192.0.2.53"])
    assert dns.announced("n") == {"a" * 64: ("192.0.2.1", ["ok"], ["192.0.2.53"], "")}
    dns.forget("n", "a" * 64)
    dns.forget("n", "a" * 64)
    assert dns.announced("n") == {}


def test_what_is_no_host_is_refused_by_name():
    for text in ("x", ":192.0.2.1", "a b:192.0.2.1"):
        name, found = containers.extra_host(text)
        assert not name or not found or " " in name
    assert containers.extra_host("six:2001:db8::1") == ("six", "2001:db8::1")
