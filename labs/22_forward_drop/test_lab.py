"""Lab 22, graded by packets that arrive, and by everything that was to stay as it was."""

import json
import subprocess

import pytest

pytestmark = pytest.mark.needs("network")


def world(plan):
    """In the room, which is a machine with two switches, a third one that is closed, and a cable to somebody outside.

    Containers 0 and 2 are at the first switch, 1 at the second; 3 is the guest outside, who knows no way back. Each
    echoes what comes to UDP port 7. The machine has tables of somebody's. `plan` has names, addresses, and what is to be
    broken. Returns the pids.
    """
    import os
    import socket
    import subprocess

    from minicontainer import netlink, syscalls

    def put(device, text):
        with open(f"/proc/sys/net/ipv4/conf/{device}/forwarding", "w") as file:
            file.write(text)

    def inside(pid, *words):
        subprocess.run(["/usr/bin/nsenter", f"--net=/proc/{pid}/ns/net", "/usr/sbin/ip", "route", *words], check=True)

    pids = []
    for _ in range(4):
        ready, tell = os.pipe()
        pid = os.fork()
        if pid == 0:
            syscalls.unshare(syscalls.CLONE_NEWNET)
            server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            server.bind(("0.0.0.0", 7))
            os.write(tell, b"\n")
            while True:
                try:
                    server.sendto(*server.recvfrom(64))
                except OSError:
                    continue  # no way back to who has asked
        os.read(ready, 1)
        pids.append(pid)
    put("all", "1")
    for device in (plan["first"], plan["second"], plan["closed"]):
        netlink.link_add(device, "bridge")
        netlink.address_add(device, f"{plan['subnets'][device]}.1/24")
        netlink.link_set(device, up=True)
    for number, device in ((0, plan["first"]), (2, plan["first"]), (1, plan["second"])):
        netlink.link_add(f"to{number}", "veth", peer="eth0", namespace=pids[number], master=device, up=True)
        netlink.address_add("eth0", f"{plan['addresses'][number]}/24", namespace=pids[number])
        netlink.link_set("eth0", up=True, namespace=pids[number])
        netlink.route_add("default", f"{plan['subnets'][device]}.1", namespace=pids[number])
    netlink.link_add(plan["wan"], "veth", peer="eth0", namespace=pids[3], up=True)
    netlink.address_add(plan["wan"], f"{plan['machine']}/24")
    netlink.address_add("eth0", f"{plan['addresses'][3]}/24", namespace=pids[3])
    netlink.link_set("eth0", up=True, namespace=pids[3])
    for name in ("to0", "to1", "to2", plan["wan"]):
        netlink.link_wait(name)
    inside(pids[0], "add", "198.51.100.0/24", "via", plan["addresses"][2])
    put(plan["closed"], "0")

    broken = plan["broken"]
    for device in broken.get("forwarding", []):
        put(device, "0")
    if "route" in broken:
        kind, gateway, target = broken["route"]
        if kind != "specific":
            inside(pids[0], "delete", "default")
        if kind != "none":
            inside(pids[0], "add", target if kind == "specific" else "default", "via", gateway)
    subprocess.run(["/usr/sbin/nft", "-f", "-"], input=plan["rules"].encode(), check=True)
    return pids


WORDS = ("fence", "hedge", "moat", "wall", "gate", "ditch")
COLOURS = ("red", "blue", "green", "grey", "white")


class World:
    """A machine, and what is broken of it: "route", "forwarding-in", "forwarding-out", "policy", "masquerade"."""

    def __init__(self, room, rng, outward, *broken):
        self.room = room
        first, second, closed = rng.sample(COLOURS, 3)
        subnets = dict(zip((first, second, closed), rng.sample(range(1, 255), 3), strict=True))
        subnets = {device: f"10.{number}.{rng.randrange(256)}" for device, number in subnets.items()}
        hosts = rng.sample(range(2, 250), 5)
        self.machine = f"192.0.2.{rng.randrange(2, 100)}"
        self.addresses = [
            f"{subnets[device]}.{host}" for device, host in zip((first, second, first), hosts, strict=False)
        ]
        self.addresses.append(f"192.0.2.{rng.randrange(100, 250)}")
        self.first, self.second, self.wan, self.closed = first, second, rng.choice(("wan0", "uplink", "eth7")), closed
        self.target = self.addresses[3 if outward else 1]
        out = self.wan if outward else second
        self.forbidden = rng.randrange(2000, 30000)
        self.wall = [rng.choice(("ip", "inet")), *rng.sample(WORDS, 2)]
        nobody = f"{subnets[first]}.{hosts[4]}"
        kind = rng.choice(("none", "default", "specific"))
        self.truths = {
            "route": ["route", None if kind == "none" else nobody],
            "forwarding-in": ["forwarding", first],
            "forwarding-out": ["forwarding", out],
            "policy": ["policy", " ".join(self.wall)],
            "masquerade": ["masquerade", self.wan],
        }
        damage = {"forwarding": []}
        if "route" in broken:
            damage["route"] = [kind, nobody, self.target]
        damage["forwarding"] += [first] if "forwarding-in" in broken else []
        damage["forwarding"] += [out] if "forwarding-out" in broken else []
        plan = {
            "first": first, "second": second, "closed": closed, "wan": self.wan, "subnets": subnets,
            "addresses": self.addresses, "machine": self.machine, "broken": damage,
            "rules": self.rules("policy" in broken, "masquerade" not in broken, subnets),
        }  # fmt: skip
        self.pids = room.prepare(world, plan)
        self.outside = [room.outside(pid) for pid in self.pids]

    def rules(self, drop, masquerade, subnets):
        """Somebody's tables: a wall that lets something through or not, and others that look like one and are none."""
        wall, table = " ".join(self.wall), " ".join(self.wall[:2])
        whom = subnets[self.first] if masquerade else subnets[self.closed]
        return f"""
            add table ip6 {self.wall[1]}
            add chain ip6 {self.wall[1]} {self.wall[2]} {{ type filter hook forward priority 0; policy drop; }}
            add table ip guard
            add chain ip guard in {{ type filter hook input priority 0; policy drop; }}
            add chain ip guard on {{ type filter hook forward priority 5; policy accept; }}
            add rule ip guard on tcp dport {self.forbidden} drop
            add table {table}
            add chain {wall} {{ type filter hook forward priority 0; policy {"drop" if drop else "accept"}; }}
            add rule {wall} udp dport {self.forbidden} drop
            add rule {wall} ip daddr {subnets[self.closed]}.0/24 accept comment "somebody's"
            add table ip nat
            add chain ip nat out {{ type nat hook postrouting priority 100; }}
            add rule ip nat out ip saddr {whom}.0/24 oifname {self.wan} masquerade
            """

    def truth(self, *broken):
        """What diagnose should say: the first of these on a question's way."""
        return self.truths[broken[0]] if broken else None

    def asks(self, sender, receiver, seconds=2):
        """Whether somebody's datagram is echoed: it arrives, and the answer comes back."""
        with self.room.socket(pid=self.outside[sender]) as here:
            here.settimeout(seconds)
            try:
                here.sendto(b"hello", (self.addresses[receiver], 7))
                return here.recv(64) == b"hello"
            except OSError:
                return False

    def heard(self, sender, receiver, port):
        """From whom a datagram arrives at somebody's port; "" if it does not."""
        with self.room.socket(pid=self.outside[receiver]) as there, self.room.socket(pid=self.outside[sender]) as here:
            there.bind(("0.0.0.0", port))
            there.settimeout(0.5)
            try:
                here.sendto(b"hello", (self.addresses[receiver], port))
                return there.recvfrom(64)[1][0]
            except OSError:
                return ""

    def tables(self):
        """Everybody's tables but the learner's: chains by name, and each chain's rules in their order."""
        return self.room.look(ruleset, [*self.wall[1:2], "guard", "nat"])

    def switches(self):
        """Which devices forward."""
        return self.room.look(forwarding, [self.first, self.second, self.wan, self.closed])

    def routes(self, number):
        """A container's routes."""
        return self.room.look(routes, pid=self.outside[number])


def ruleset(tables):
    """In a network namespace: (chains, rules) of these tables, as nft tells them."""
    listed = subprocess.run(["/usr/sbin/nft", "-j", "list", "ruleset"], capture_output=True, check=True)
    entries = json.loads(listed.stdout)["nftables"]
    chains = [entry["chain"] for entry in entries if entry.get("chain", {}).get("table") in tables]
    return chains, [entry["rule"] for entry in entries if entry.get("rule", {}).get("table") in tables]


def forwarding(devices):
    """In a network namespace: whether each device forwards, by the kernel (RTM_GETNETCONF)."""
    listed = subprocess.run(["/usr/sbin/ip", "-j", "-4", "netconf"], capture_output=True, check=True)
    said = {entry["interface"]: entry["forwarding"] for entry in json.loads(listed.stdout) if "interface" in entry}
    return {device: said[device] for device in devices}


def routes():
    """In a network namespace: what `ip route` shows."""
    return subprocess.run(["/usr/sbin/ip", "route"], capture_output=True, text=True, check=True).stdout.splitlines()


def diagnosed(make_room, rng, cases):
    """Let diagnose look at each case, in some order."""
    for outward, *broken in rng.sample(cases, len(cases)):
        there = World(make_room(), rng, outward, *broken)
        wanted = there.truth(*broken)
        before = there.tables(), there.switches(), there.routes(0)
        told = there.room.call("diagnose", there.pids[0], there.target)
        assert told == wanted, f"broken was {wanted}; diagnose says {told}"
        after = there.tables(), there.switches(), there.routes(0)
        assert json.dumps(after) == json.dumps(before), "who diagnoses changes nothing"


@pytest.mark.points(3)
def test_no_way_to_the_machine(make_room, rng):
    """diagnose: a container's route, and None where nothing is wrong."""
    diagnosed(make_room, rng, [(True, "route"), (False, "route"), (rng.random() < 0.5,)])


@pytest.mark.points(3)
def test_not_passed_on(make_room, rng):
    """diagnose: a device of the machine's that does not forward, on the way there or on the way back."""
    diagnosed(make_room, rng, [(rng.random() < 0.5, "forwarding-in"), (rng.random() < 0.5, "forwarding-out")])


@pytest.mark.points(3)
def test_dropped_or_not_answered(make_room, rng):
    """diagnose: a chain's policy among others that look like it; an address that nobody out there can answer."""
    diagnosed(make_room, rng, [(False, "policy"), (True, "masquerade"), (True, "policy", "masquerade")])


def mended(room, rng, outward, *broken):
    """Let mend mend a world; it must work afterwards, and whatever was not broken be as it was."""
    there = World(room, rng, outward, *broken)
    chains, rules = there.tables()
    switches, others = there.switches(), [there.routes(number) for number in (1, 2, 3)]
    kept = [line for line in there.routes(0) if "198.51.100.0/24" in line]
    target = 3 if outward else 1
    assert not there.asks(0, target, 0.3)
    there.room.call("mend", there.pids[0], there.target, within=15)
    assert there.asks(0, target), f"{there.target} still does not answer {there.addresses[0]}; broken was {broken}"
    chains_after, rules_after = there.tables()
    lost = [chain["name"] for chain in chains if chain not in chains_after]
    assert not lost, f"chains of somebody's are gone, or have another policy: {lost}"
    assert [rule for rule in rules_after if rule in rules] == rules, "rules of somebody's are gone, or in another order"
    wanted = dict(switches)
    for kind in broken:
        if kind.startswith("forwarding"):
            wanted[there.truths[kind][1]] = True
    found = there.switches()
    assert found == wanted, f"which devices forward: {found}; it should be {wanted}"
    assert [there.routes(number) for number in (1, 2, 3)] == others, "the routes of another container have changed"
    assert [line for line in there.routes(0) if "198.51.100.0/24" in line] == kept, (
        "the container's other route is gone"
    )
    assert not there.heard(0, target, there.forbidden), (
        f"a rule forbids UDP port {there.forbidden}; it gets through now"
    )
    return there


@pytest.mark.points(3)
def test_mend_the_way(make_room, rng):
    """mend: a route, and no other one; a device, and no other one."""
    mended(make_room(), rng, False, "route")
    mended(make_room(), rng, rng.random() < 0.5, "forwarding-in", "forwarding-out")


@pytest.mark.points(4)
def test_mend_the_wall(room, rng):
    """mend: a policy stays, and one container's questions to one address get through."""
    there = mended(room, rng, False, "policy")
    assert not there.heard(2, 1, 4444), "another container gets through now, whom nobody has asked for"
    assert not there.heard(1, 0, 4444), "questions get through the other way round; only answers were asked for"


@pytest.mark.points(4)
def test_mend_two_at_once(make_room, rng):
    """mend: several causes, masquerading among them; who is inside still sees the container's own address."""
    first = rng.choice(("route", "forwarding-in"))
    there = mended(make_room(), rng, True, first, "masquerade")
    seen = there.heard(0, 3, 4444)
    assert seen == there.machine, f"outside, the container bears {seen}; the machine is {there.machine}"
    if first != "route":
        seen = there.heard(0, 1, 4444)
        assert seen == there.addresses[0], f"inside, the container bears {seen}, and is {there.addresses[0]}"
    mended(make_room(), rng, True, "policy", "masquerade")
