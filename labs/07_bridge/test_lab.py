"""Lab 07, graded by the devices that are there, and by packets that arrive or do not."""

import socket

import pytest
from dnslib import EDNS0, QTYPE, RCODE, DNSHeader, DNSQuestion, DNSRecord

from minicontainer import netlink

network = pytest.mark.needs("network")


def containers(count):
    """In the room, which is no router yet: processes, each in a network namespace of its own; their pids."""
    import os
    import signal

    from minicontainer import syscalls

    pids = []
    with open("/proc/sys/net/ipv4/ip_forward", "w") as file:
        file.write("0")
    for _ in range(count):
        ready, say = os.pipe()
        pid = os.fork()
        if pid == 0:
            syscalls.unshare(syscalls.CLONE_NEWNET)
            os.write(say, b"\n")
            while True:
                signal.pause()
        os.read(ready, 1)
        pids.append(pid)
    return pids


def subnet(rng, taken=()):
    """Two numbers of a subnet 10.A.B.0/24 that is none of those."""
    while True:
        found = f"10.{rng.randrange(1, 255)}.{rng.randrange(256)}"
        if found not in taken:
            return found


def draw(rng, room, sizes, gateways=True):
    """Segments with so many containers each; with or without gateways."""
    pids, segments, taken = room.prepare(containers, sum(sizes)), [], []
    for number, size in enumerate(sizes):
        taken.append(subnet(rng, taken))
        hosts = rng.sample(range(2, 250), size)
        wanted = [[pids.pop(), f"{taken[-1]}.{host}/24"] for host in hosts]
        gateway = f"{taken[-1]}.{rng.choice((1, 254))}/24"
        name = f"{rng.choice(('red', 'blue', 'green'))}{number}"
        segments.append({"switch": name, "gateway": gateway if gateways else None, "containers": wanted})
    return segments


def devices():
    """In a network namespace: its devices."""
    return [link._asdict() for link in netlink.links()]


def arrives(room, sender, receiver, back=False):
    """Whether a datagram gets from one container to another one; with `back`, also its answer."""
    (one, _), (other, address) = sender, receiver
    with room.socket(pid=room.outside(other)) as there, room.socket(pid=room.outside(one)) as here:
        there.bind(("0.0.0.0", 4444))
        there.settimeout(0.6 if back is None else 2)
        try:
            here.sendto(b"hello", (address.partition("/")[0], 4444))
            _, where = there.recvfrom(16)
            if back:
                there.sendto(b"answer", where)
                return here.recv(16) == b"answer"
            return True
        except (TimeoutError, OSError):
            return False


@network
@pytest.mark.points(2)
def test_a_cable(room, rng):
    """A container has an eth0 with its address, which is plugged into the switch."""
    (segment,) = draw(rng, room, [1])
    room.call("wire", [segment])
    pid, address = segment["containers"][0]
    inside = {link["name"]: link for link in room.look(devices, pid=room.outside(pid))}
    assert "eth0" in inside, f"the container has the devices {sorted(inside)}"
    assert inside["eth0"]["up"], "the container's eth0 is down"
    outside = {link["name"]: link for link in room.look(devices)}
    switch = outside.get(segment["switch"])
    assert switch and switch["kind"] == "bridge", f"there is no bridge {segment['switch']}, but {sorted(outside)}"
    ports = [link["name"] for link in outside.values() if link["master"] == switch["ifindex"]]
    assert len(ports) == 1, f"one container, and the switch has the ports {ports}"
    with room.socket(pid=room.outside(pid)) as there:
        there.bind((address.partition("/")[0], 1))  # EADDRNOTAVAIL if it has another address


@network
@pytest.mark.points(3)
def test_neighbours(room, rng):
    """Containers at one switch hear each other, and each hears itself at 127.0.0.1."""
    (segment,) = draw(rng, room, [3])
    room.call("wire", [segment])
    one, two, three = segment["containers"]
    for sender, receiver in ((one, two), (two, three), (three, one)):
        assert arrives(room, sender, receiver, back=True), f"{sender} and {receiver} do not hear each other"
    assert arrives(room, one, [one[0], "127.0.0.1"]), "a container's own 127.0.0.1 does not answer: is lo up?"


@network
@pytest.mark.points(2)
def test_the_gateway(room, rng):
    """The switch has the gateway's address, and the containers send there what is not in their subnet."""
    (segment,) = draw(rng, room, [1])
    room.call("wire", [segment])
    gateway = segment["gateway"].partition("/")[0]
    with room.socket() as here, room.socket(pid=room.outside(segment["containers"][0][0])) as there:
        here.bind((gateway, 5555))
        there.sendto(b"hello", (gateway, 5555))
        assert here.recv(16) == b"hello", f"nothing arrives at the gateway {gateway}"
        there.connect(("192.0.2.1", 1))  # ENETUNREACH without a default route
        assert there.getsockname()[0] == segment["containers"][0][1].partition("/")[0]


@network
@pytest.mark.points(4)
def test_a_router_between_two(room, rng):
    """Containers of two segments with gateways reach each other, there and back."""
    first, second = draw(rng, room, [1, 2])
    room.call("wire", [first, second])
    for receiver in second["containers"]:
        sender = first["containers"][0]
        assert arrives(room, sender, receiver, back=True), f"{sender} and {receiver} do not reach each other"


@network
@pytest.mark.points(4)
def test_a_segment_of_its_own(room, rng):
    """Without a gateway: neighbours hear each other, and nobody else is heard or reached."""
    alone, other = draw(rng, room, [2, 1])
    alone["gateway"] = None
    room.call("wire", rng.sample([alone, other], 2))
    one, two = alone["containers"]
    assert arrives(room, one, two, back=True), f"{one} and {two} are at one switch and do not hear each other"
    assert not arrives(room, one, other["containers"][0], back=None), f"{one} got out to {other['containers'][0]}"
    assert not arrives(room, other["containers"][0], two, back=None), f"{other['containers'][0]} got in to {two}"
    with room.socket(socket.SOCK_DGRAM, room.outside(one[0])) as there:
        try:
            there.connect(("192.0.2.1", 1))
        except OSError:
            return
    raise AssertionError("a container of a segment without a gateway has a route to everywhere")


def cables(names, pids):
    """In the room: for each container a cable whose end here has a name that says nothing."""
    from minicontainer import netlink

    for name, pid in zip(names, pids, strict=True):
        netlink.link_add(name, "veth", peer="eth0", namespace=pid)


@network
@pytest.mark.points(3)
def test_the_other_end(room, rng):
    """Which device here is the other end of a container's eth0; in several containers eth0 has the same number."""
    pids = room.prepare(containers, 4)
    names = [f"dev{number}" for number in rng.sample(range(10**6), 3)]
    order = rng.sample(pids, 3)
    room.prepare(cables, names, order)
    before = room.mounts(), room.processes()
    for name, pid in zip(names, order, strict=True):
        told = room.call("port_of", pid)
        assert told == name, f"container {pid}: port_of says {told}, and the cable's end here is {name}"
    (bare,) = set(pids) - set(order)
    assert room.call("port_of", bare) is None, "a container without eth0 has no other end"
    after = room.mounts(), room.processes()
    left = [mount.point for mount in after[0] if mount not in before[0]]  # the machine's own may go meanwhile
    assert left == [], f"port_of left a mount: {left}"
    assert after[1] == before[1], "port_of left a process, or a child that nobody has waited for"


def ask(room, name, asker, known, kind="A", extended=False):
    """Put a question to the learner's resolver; the answer as dnslib reads it, and the question."""
    asked = DNSRecord.question(name, kind)
    if extended:  # as dig does: what follows the question is no part of it
        asked.add_ar(EDNS0(udp_len=1232))
    told = room.call("answer", asked.pack().hex(), asker, known)
    try:
        return DNSRecord.parse(bytes.fromhex(told)), asked
    except Exception as error:
        pytest.fail(f"that is no message of DNS: {told!r}: {error}")


def addresses(message):
    """The IPv4 addresses in an answer."""
    return sorted(str(record.rdata) for record in message.rr if record.rtype == QTYPE.A)


@pytest.mark.pure
@pytest.mark.points(2)
def test_a_name(room, rng):
    """A neighbour's address; the answer repeats the question's number and its text, and says that it is an answer."""
    net = subnet(rng)
    name, address = f"{rng.choice(('db', 'web', 'cache'))}{rng.randrange(100)}", f"{net}.{rng.randrange(2, 250)}"
    told, asked = ask(room, name, f"{net}.1/24", {"other": [f"{net}.251"], name: [address]})
    assert addresses(told) == [address], f"{name} is at {address}, and the answer says {addresses(told) or 'nothing'}"
    assert told.header.id == asked.header.id, "the answer has another number than the question"
    assert told.header.qr == 1, "the message says that it is a question (QR)"
    assert told.header.rd == 1 and told.header.ra == 1, "RD is repeated from the question; RA says that you can"
    assert told.header.rcode == RCODE.NOERROR and str(told.q.qname) == f"{name}."
    assert told.rr[0].rclass == 1, f"the record's class is {told.rr[0].rclass}, and the internet's is 1"
    assert str(told.rr[0].rname) == f"{name}.", f"the record is of {told.rr[0].rname}, and {name} was asked for"


@pytest.mark.pure
@pytest.mark.points(3)
def test_names_are_as_isolated_as_networks(room, rng):
    """Of a name, all addresses in the asker's own network and no other; who has none there does not exist for it."""
    first = subnet(rng)
    second = subnet(rng, [first])
    known = {
        "Shop": [f"{first}.{host}" for host in rng.sample(range(2, 60), 2)] + [f"{second}.9", f"{first}.130"],
        "db.back": [f"{second}.5"],
    }
    for asker, name, right in (
        (f"{first}.61/24", "shop", [known["Shop"][0], known["Shop"][1], f"{first}.130"]),
        (f"{first}.61/26", "SHOP", known["Shop"][:2]),
        (f"{second}.7/24", "sHoP", [f"{second}.9"]),
        (f"{second}.7/24", "DB.back", [f"{second}.5"]),
        (f"{first}.61/24", "db.back", []),
        (f"{first}.61/24", "back", []),
    ):
        told, _ = ask(room, name, asker, known)
        assert addresses(told) == sorted(right), f"{asker} asks for {name}: {addresses(told)}, and should hear {right}"
        code = RCODE.NOERROR if right else RCODE.NXDOMAIN
        assert told.header.rcode == code, f"{asker} asks for {name}: {RCODE[told.header.rcode]}, not {RCODE[code]}"


@pytest.mark.pure
@pytest.mark.points(2)
def test_what_is_not_an_address(room, rng):
    """A neighbour exists, though it has no IPv6 address: no error, no record. What follows a question is no part of it."""
    net = subnet(rng)
    known = {"web": [f"{net}.2"]}
    told, _ = ask(room, "web", f"{net}.3/24", known, kind=rng.choice(("AAAA", "CAA", "TXT")))
    assert told.header.rcode == RCODE.NOERROR, (
        f"{RCODE[told.header.rcode]}: who is told so believes that there is no web"
    )
    assert not told.rr, f"it was not asked for {told.rr}"
    told, _ = ask(room, "nobody", f"{net}.3/24", known, kind="AAAA")
    assert told.header.rcode == RCODE.NXDOMAIN
    told, _ = ask(room, "web", f"{net}.3/24", known, extended=True)
    assert addresses(told) == [f"{net}.2"] and not told.ar, f"dig would not understand {told}"
    plain = DNSRecord(DNSHeader(id=rng.randrange(1 << 16), rd=0), q=DNSQuestion("web", QTYPE.A))
    said = DNSRecord.parse(bytes.fromhex(room.call("answer", plain.pack().hex(), f"{net}.3/24", known)))
    assert said.header.rd == 0, "RD is the asker's: it is repeated as it came"
