"""Lab 07, graded by the devices that are there, and by packets that arrive or do not."""

import socket

import pytest

from minicontainer import netlink

pytestmark = pytest.mark.needs("network")


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


@pytest.mark.points(3)
def test_neighbours(room, rng):
    """Containers at one switch hear each other, and each hears itself at 127.0.0.1."""
    (segment,) = draw(rng, room, [3])
    room.call("wire", [segment])
    one, two, three = segment["containers"]
    for sender, receiver in ((one, two), (two, three), (three, one)):
        assert arrives(room, sender, receiver, back=True), f"{sender} and {receiver} do not hear each other"
    assert arrives(room, one, [one[0], "127.0.0.1"]), "a container's own 127.0.0.1 does not answer: is lo up?"


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


@pytest.mark.points(4)
def test_a_router_between_two(room, rng):
    """Containers of two segments with gateways reach each other, there and back."""
    first, second = draw(rng, room, [1, 2])
    room.call("wire", [first, second])
    for receiver in second["containers"]:
        sender = first["containers"][0]
        assert arrives(room, sender, receiver, back=True), f"{sender} and {receiver} do not reach each other"


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
    assert after[0] == before[0], f"port_of left a mount: {[m.point for m in after[0] if m not in before[0]]}"
    assert after[1] == before[1], "port_of left a process, or a child that nobody has waited for"
