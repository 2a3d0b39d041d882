"""Lab 08, graded by packets: which arrive, at whom, and whose address they bear."""

import socket
import subprocess

import pytest

pytestmark = pytest.mark.needs("network")


def world(subnet, machine, guests):
    """In the room, which is the machine: a switch br0 with two containers, and a cable wan0 to a guest outside, who has
    several addresses and knows no way back into the subnet. The pids of the three."""
    import os
    import signal

    from minicontainer import netlink, syscalls

    pids = []
    for _ in range(3):
        ready, say = os.pipe()
        pid = os.fork()
        if pid == 0:
            syscalls.unshare(syscalls.CLONE_NEWNET)
            os.write(say, b"\n")
            while True:
                signal.pause()
        os.read(ready, 1)
        pids.append(pid)
    with open("/proc/sys/net/ipv4/ip_forward", "w") as file:
        file.write("1")
    netlink.link_add("br0", "bridge")
    netlink.address_add("br0", f"{subnet}.1/24")
    netlink.link_set("br0", up=True)
    for number, pid in enumerate(pids[:2]):
        netlink.link_add(f"to{number}", "veth", peer="eth0", namespace=pid, master="br0", up=True)
        netlink.link_set(f"to{number}", hairpin=True)
        netlink.address_add("eth0", f"{subnet}.{number + 2}/24", namespace=pid)
        netlink.link_set(name="eth0", up=True, namespace=pid)
        netlink.route_add("default", f"{subnet}.1", namespace=pid)
    netlink.link_add("wan0", "veth", peer="eth0", namespace=pids[2], up=True)
    netlink.address_add("wan0", f"{machine}/24")
    for address in guests:
        netlink.address_add("eth0", f"{address}/24", namespace=pids[2])
    netlink.link_set("eth0", up=True, namespace=pids[2])
    for name in ("to0", "to1", "wan0"):
        netlink.link_wait(name)
    return pids


def wing(subnet):
    """In the room: one more switch, br1, with a container. Its pid."""
    import os
    import signal

    from minicontainer import netlink, syscalls

    ready, say = os.pipe()
    pid = os.fork()
    if pid == 0:
        syscalls.unshare(syscalls.CLONE_NEWNET)
        os.write(say, b"\n")
        while True:
            signal.pause()
    os.read(ready, 1)
    netlink.link_add("br1", "bridge")
    netlink.address_add("br1", f"{subnet}.1/24")
    netlink.link_set("br1", up=True)
    netlink.link_add("to2", "veth", peer="eth0", namespace=pid, master="br1", up=True)
    netlink.address_add("eth0", f"{subnet}.2/24", namespace=pid)
    netlink.link_set(name="eth0", up=True, namespace=pid)
    netlink.route_add("default", f"{subnet}.1", namespace=pid)
    netlink.link_wait("to2")
    return pid


class World:
    """The machine, its containers 0 and 1, the guest outside; and who hears whom."""

    def __init__(self, room, rng):
        self.room = room
        self.subnet = f"10.{rng.randrange(1, 255)}.{rng.randrange(256)}"
        self.machine = f"192.0.2.{rng.randrange(2, 100)}"
        self.near, self.far = f"192.0.2.{rng.randrange(100, 120)}", f"192.0.2.{rng.randrange(140, 250)}"
        pids = room.prepare(world, self.subnet, self.machine, [self.near, self.far])
        self.pids = {name: room.outside(pid) for name, pid in zip(("first", "second", "guest"), pids, strict=True)} | {
            "machine": None
        }
        self.addresses = {"first": f"{self.subnet}.2", "second": f"{self.subnet}.3", "guest": self.near}

    def build(self, rng):
        """One more switch, br1, with a container "third" in a subnet of its own: `other`."""
        self.other = f"172.{rng.randrange(16, 32)}.{rng.randrange(256)}"
        self.pids["third"] = self.room.outside(self.room.prepare(wing, self.other))
        self.addresses["third"] = f"{self.other}.2"
        return f"{self.subnet}.0/24", f"{self.other}.0/24"

    def open(self, who, port=0, address="0.0.0.0", kind=socket.SOCK_DGRAM):
        """A socket of somebody's, bound to a port."""
        opened = self.room.socket(kind, self.pids[who])
        opened.bind((address, port))
        return opened

    def asks(self, sender, address, port, address_of_sender="0.0.0.0"):
        """A datagram from somebody to an address; who hears it within a second: (who, at which port, from whom)."""
        with self.open(sender, 0, address_of_sender) as here:
            here.sendto(b"question", (address, port))
            for heard in self.ears:
                self.ears[heard].settimeout(0.15)
                try:
                    _, (whose, number) = self.ears[heard].recvfrom(64)
                except TimeoutError:
                    continue
                self.ears[heard].sendto(b"answer", (whose, number))
                here.settimeout(1)
                try:
                    answered = here.recv(64) == b"answer"
                except (TimeoutError, OSError):
                    answered = False
                return heard[0], heard[1], whose, answered
        return None

    def listen(self, *ears):
        """From now on these hear: (who, port)."""
        self.ears = {ear: self.open(*ear) for ear in ears}


@pytest.fixture
def there(room, rng):
    """A world of the test's own."""
    return World(room, rng)


def ports(rng, count):
    """Ports that nobody uses."""
    return rng.sample(range(2000, 30000), count)


@pytest.mark.points(2)
def test_out_by_masquerade(there, rng):
    """A container's packet arrives outside with the machine's address, and the answer comes back."""
    (port,) = ports(rng, 1)
    there.room.call("masquerade", f"{there.subnet}.0/24", "wan0")
    there.listen(("guest", port))
    heard = there.asks("first", there.near, port)
    assert heard, "the packet did not arrive outside"
    assert heard[2] == there.machine, f"outside it bears {heard[2]}; the machine is {there.machine}"
    assert heard[3], "the answer did not come back to the container"


@pytest.mark.points(2)
def test_what_stays_inside_keeps_its_address(there, rng):
    """Between containers, and from a container to the machine, nothing is rewritten."""
    (port,) = ports(rng, 1)
    there.room.call("masquerade", f"{there.subnet}.0/24", "wan0")
    there.listen(("second", port), ("machine", port), ("guest", port))
    heard = there.asks("first", there.addresses["second"], port)
    assert heard == ("second", port, there.addresses["first"], True), f"first to second: {heard}"
    heard = there.asks("first", there.machine, port)
    assert heard == ("machine", port, there.addresses["first"], True), f"first to the machine: {heard}"
    heard = there.asks("machine", there.near, port)
    assert heard == ("guest", port, there.machine, True), f"the machine to the guest: {heard}"


@pytest.mark.points(3)
def test_in_by_a_port(there, rng):
    """From outside and from the machine itself; the container sees who asks. TCP does not open UDP."""
    outer, inner, other = ports(rng, 3)
    there.room.call("masquerade", f"{there.subnet}.0/24", "wan0")
    there.room.call("publish", f"{outer}:{inner}", there.addresses["first"], "udp", None)
    there.room.call("publish", f"{other}:{inner}", there.addresses["first"], "tcp", None)
    there.listen(("first", inner), ("machine", other))
    heard = there.asks("guest", there.machine, outer)
    assert heard == ("first", inner, there.near, True), f"the guest ({there.near}) to port {outer}: {heard}"
    heard = there.asks("machine", there.machine, outer)
    assert heard and heard[:2] == ("first", inner) and heard[3], f"the machine to its own port {outer}: {heard}"
    heard = there.asks("guest", there.machine, other)
    assert heard and heard[0] == "machine", f"a UDP packet to the TCP port {other} was heard by {heard}"
    with there.open("first", inner, kind=socket.SOCK_STREAM) as server:
        server.listen()
        with there.room.socket(socket.SOCK_STREAM, there.pids["guest"]) as caller:
            try:
                caller.connect((there.machine, other))
            except OSError as error:
                raise AssertionError(f"TCP from the guest to port {other}: {error}") from None
            server.settimeout(2)
            peer, (whose, _) = server.accept()
            peer.close()
    assert whose == there.near, f"the container sees {whose}; the guest is {there.near}"


@pytest.mark.points(3)
def test_by_the_machines_address_from_inside(there, rng):
    """A neighbour, and the container itself, reach a published port at the machine's address, answers included."""
    outer, inner = ports(rng, 2)
    there.room.call("masquerade", f"{there.subnet}.0/24", "wan0")
    there.room.call("publish", f"{outer}:{inner}", there.addresses["first"], "udp", None)
    there.listen(("first", inner))
    for who in ("second", "first"):
        heard = there.asks(who, there.machine, outer)
        assert heard and heard[:2] == ("first", inner), f"{who} to {there.machine}:{outer}: {heard}"
        assert heard[3], f"{who} asked {there.machine}:{outer}, and no answer came from there: it came from elsewhere"


@pytest.mark.points(3)
def test_a_range(there, rng):
    """Each port of a range leads to the one in its place, and the next ones lead nowhere."""
    outer, inner = ports(rng, 2)
    count = rng.randrange(3, 6)
    there.room.call("masquerade", f"{there.subnet}.0/24", "wan0")
    words = f"{outer}-{outer + count - 1}:{inner}-{inner + count - 1}"
    there.room.call("publish", words, there.addresses["second"], "udp", None)
    there.listen(*[("second", inner + step) for step in range(-1, count + 1)])
    for step in range(-1, count + 1):
        heard = there.asks("guest", there.machine, outer + step)
        wanted = ("second", inner + step, there.near, True) if 0 <= step < count else None
        assert heard == wanted, f"{words}: port {outer + step} leads to {heard}, not to {wanted}"


@pytest.mark.points(5)
def test_by_who_asks(there, rng):
    """One port leads to one container for some, and to another one for the others, in whatever order it was said."""
    there.room.call("masquerade", f"{there.subnet}.0/24", "wan0")
    numbers = ports(rng, 4)
    there.listen(("first", numbers[0]), ("second", numbers[0]))
    for port, order in ((numbers[1], (0, 1)), (numbers[2], (1, 0))):
        said = [("second", "192.0.2.128/25"), ("first", None)]
        for place in order:
            who, source = said[place]
            there.room.call("publish", f"{port}:{numbers[0]}", there.addresses[who], "udp", source)
        for address, wanted in ((there.far, "second"), (there.near, "first")):
            heard = there.asks("guest", there.machine, port, address)
            assert heard == (wanted, numbers[0], address, True), f"{address} to port {port}: {heard}, not {wanted}"
    there.room.call("publish", f"{numbers[3]}:{numbers[0]}", there.addresses["first"], "udp", f"{there.far}/32")
    heard = there.asks("guest", there.machine, numbers[3], there.near)
    assert heard is None, f"published for {there.far} alone, and {there.near} got through to {heard}"


def foreign():
    """In the room: somebody else's firewall."""
    import subprocess

    text = "add table ip theirs; add chain ip theirs c { type filter hook forward priority 0; policy accept; }"
    subprocess.run(["/usr/sbin/nft", f"{text}; add rule ip theirs c tcp dport 1 drop"], check=True)


def ruleset():
    """In a network namespace: its tables."""
    return subprocess.run(
        ["/usr/sbin/nft", "list", "table", "ip", "theirs"], capture_output=True, text=True, check=True
    ).stdout


@pytest.mark.points(4)
def test_taken_back(there, rng):
    """unpublish undoes just one publish, and nobody else's table is touched."""
    there.room.prepare(foreign)
    before = there.room.look(ruleset)
    outer, inner, other, third = ports(rng, 4)
    there.room.call("masquerade", f"{there.subnet}.0/24", "wan0")
    there.room.call("publish", f"{outer}:{inner}", there.addresses["first"], "udp", None)
    there.room.call("publish", f"{outer}:{inner}", there.addresses["first"], "tcp", None)
    there.room.call("publish", f"{other}-{other + 1}:{third}-{third + 1}", there.addresses["first"], "udp", None)
    there.listen(("first", inner), ("first", third), ("guest", inner))
    there.room.call("unpublish", f"{outer}:{inner}", "udp")
    assert there.asks("guest", there.machine, outer) is None, f"port {outer} still leads to the container"
    assert there.asks("guest", there.machine, other), f"port {other} was published, too, and is gone"
    with there.open("first", inner, kind=socket.SOCK_STREAM) as server:
        server.listen()
        with there.room.socket(socket.SOCK_STREAM, there.pids["guest"]) as caller:
            try:
                caller.connect((there.machine, outer))
            except OSError:
                raise AssertionError(f"TCP's port {outer} was to stay; only UDP's was taken back") from None
    there.room.call("unpublish", f"{other}-{other + 1}:{third}-{third + 1}", "udp")
    assert there.asks("guest", there.machine, other) is None, f"port {other} still leads to the container"
    assert there.asks("first", there.near, inner), "the containers' way out is gone"
    after = there.room.look(ruleset)
    assert after == before, f"the table of somebody else was {before!r} and is {after!r}"


def elsewhere(rng, count):
    """Subnets of nobody here."""
    return [f"100.{64 + number // 256}.{number % 256}.0/24" for number in rng.sample(range(16000), count)]


@pytest.mark.points(4)
def test_apart(there, rng):
    """Other networks' addresses are out of reach; neighbours, the world outside and published ports are not."""
    here, other = there.build(rng)
    port, outer = ports(rng, 2)
    there.room.call("masquerade", here, "wan0")
    there.room.call("publish", f"{outer}:{port}", there.addresses["first"], "udp", None)
    there.listen(("first", port), ("second", port), ("third", port), ("guest", port))
    heard = there.asks("third", there.addresses["first"], port)
    assert heard and heard[0] == "first", f"before anything was said, the third asks the first: {heard}"
    there.room.call("isolate", [here, *elsewhere(rng, 2), other], [])
    for sender, receiver in (("first", "third"), ("third", "first"), ("third", "second")):
        heard = there.asks(sender, there.addresses[receiver], port)
        assert heard is None, f"the {sender} got through to the {receiver}, in another network: {heard}"
    heard = there.asks("first", there.addresses["second"], port)
    assert heard and heard[0] == "second" and heard[3], f"first to second, in one network: {heard}"
    heard = there.asks("first", there.near, port)
    assert heard and heard[0] == "guest" and heard[3], f"first to the guest outside: {heard}"
    for who in ("third", "guest"):
        heard = there.asks(who, there.machine, outer)
        assert heard and heard[0] == "first" and heard[3], f"{who} to the published port {outer}: {heard}"


@pytest.mark.points(4)
def test_apart_but_for_some(there, rng):
    """A pair that is allowed is so in one direction, answers included; and what is said anew replaces what was said."""
    here, other = there.build(rng)
    (port,) = ports(rng, 1)
    others = elsewhere(rng, 2)
    there.listen(("first", port), ("third", port))
    for sender, receiver, pair in (("first", "third", (here, other)), ("third", "first", (other, here))):
        there.room.call("isolate", [here, other, *others], [(others[0], others[1]), pair])
        heard = there.asks(sender, there.addresses[receiver], port)
        assert heard and heard[0] == receiver, f"{pair[0]} may ask {pair[1]}; {sender} to {receiver}: {heard}"
        assert heard[3], f"{sender} may ask {receiver}, and its answer did not come back"
        heard = there.asks(receiver, there.addresses[sender], port)
        assert heard is None, f"only {pair[0]} may ask {pair[1]}, and {receiver} got through to {sender}: {heard}"


def rules():
    """In a network namespace: how many rules there are."""
    import json
    import subprocess

    listed = subprocess.run(["/usr/sbin/nft", "-j", "list", "ruleset"], capture_output=True, check=True)
    return sum("rule" in entry for entry in json.loads(listed.stdout)["nftables"])


@pytest.mark.points(3)
def test_many_networks_are_few_rules(there, rng):
    """With a hundred networks there are as many rules as with two, and they hold."""
    here, other = there.build(rng)
    (port,) = ports(rng, 1)
    there.listen(("first", port), ("third", port))
    there.room.call("isolate", [here, other], [])
    two = there.room.look(rules)
    many = [here, *elsewhere(rng, 98), other]
    allowed = [(many[number], many[number + 1]) for number in range(0, 40, 3)]
    there.room.call("isolate", many, allowed)
    hundred = there.room.look(rules)
    assert hundred == two, f"{two} rules for two networks, and {hundred} for a hundred"
    assert two > 0, "no rule at all"
    heard = there.asks("third", there.addresses["first"], port)
    assert heard is None, f"third got through to first: {heard}"
    heard = there.asks("first", there.addresses["third"], port)
    assert heard is None, f"first got through to third: {heard}"


@pytest.mark.points(4)
def test_by_which_device(there, rng):
    """One port of the machine leads to one container from outside and to another one from a network, by one call."""
    here, _ = there.build(rng)
    port, hidden, inner, other, third = ports(rng, 5)
    there.room.call("masquerade", here, "wan0")  # else the guest knows no way back
    there.listen(("first", inner), ("third", inner), ("guest", port))
    published = [
        ("wan0", "udp", port, there.addresses["first"], inner),
        ("br0", "udp", port, there.addresses["third"], inner),
        ("wan0", "udp", other, there.addresses["third"], inner),
        ("wan0", "tcp", hidden, there.addresses["first"], inner),
    ]
    rng.shuffle(published)
    there.room.call("lead", published)
    for who, number, wanted in (
        ("guest", port, "first"), ("first", port, "third"), ("guest", other, "third"),
        ("third", port, None), ("first", other, None), ("guest", hidden, None), ("guest", third, None),
    ):  # fmt: skip
        heard = there.asks(who, there.machine, number)
        right = (wanted, inner, there.addresses[who], True) if wanted else None
        assert heard == right, f"{who} to the machine's port {number}: {heard}, not {right}"
    heard = there.asks("first", there.near, port)
    assert heard and heard[0] == "guest", f"first to port {port} of the guest, not of the machine: {heard}"
    there.room.call("lead", [("wan0", "udp", third, there.addresses["first"], inner)])
    heard = there.asks("guest", there.machine, other)
    assert heard is None, f"port {other} is not in what was said last, and still leads to {heard}"
    assert there.asks("guest", there.machine, third), f"port {third}, said last, leads nowhere"
    there.room.call("lead", [])
    assert there.asks("guest", there.machine, third) is None, f"nothing is published, and port {third} still leads in"


@pytest.mark.points(4)
def test_a_thousand_ports_are_one_map(there, rng):
    """With a thousand ports there are as many rules as with one, and each leads where it should."""
    there.build(rng)
    inner, further, hidden, *numbers = ports(rng, 1003)
    ears = [("first", inner), ("third", inner), ("third", further)]
    there.listen(*ears)
    led = {number: rng.choice(ears) for number in numbers}
    published = [("wan0", "udp", number, there.addresses[who], its) for number, (who, its) in led.items()]
    there.room.call("lead", published[:1])
    one = there.room.look(rules)
    there.room.call("lead", published)
    thousand = there.room.look(rules)
    for number in [*rng.sample(numbers, 5), numbers[-1]]:
        heard = there.asks("guest", there.machine, number)
        assert heard == (*led[number], there.near, True), f"port {number} leads to {heard}, not to {led[number]}"
    heard = there.asks("guest", there.machine, hidden)
    assert heard is None, f"port {hidden} is not published, and leads to {heard}"
    assert thousand == one, f"{one} rules for one port, and {thousand} for a thousand"
