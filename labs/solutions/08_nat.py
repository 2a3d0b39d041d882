"""Lab 08: out through one address, in through its ports.

The README tells the job. Yours to write is what raises NotImplementedError; add functions and imports as you need.
"""

import json
import subprocess

TABLE = "lab"  # your own, in the family ip; another one is somebody else's


def nft(text):
    """Give nft(8) some lines, as one transaction: all of them or none. CalledProcessError if it refuses."""
    subprocess.run(["/usr/sbin/nft", "-f", "-"], input=text.encode(), check=True)


### BEGIN SOLUTION
CHAINS = f"""
    add table ip {TABLE}
    add chain ip {TABLE} first
    add chain ip {TABLE} then
    add chain ip {TABLE} in {{ type nat hook prerouting priority -100; }}
    add chain ip {TABLE} local {{ type nat hook output priority -100; }}
    add chain ip {TABLE} out {{ type nat hook postrouting priority 100; }}
"""
JUMPS = f"""
    add rule ip {TABLE} in fib daddr type local jump first
    add rule ip {TABLE} in fib daddr type local jump then
    add rule ip {TABLE} local fib daddr type local jump first
    add rule ip {TABLE} local fib daddr type local jump then
"""


def rules():
    """Every rule of the table, as nft writes it in JSON."""
    words = ["/usr/sbin/nft", "-j", "list", "table", "ip", TABLE]
    listed = subprocess.run(words, capture_output=True, check=True)
    return [entry["rule"] for entry in json.loads(listed.stdout)["nftables"] if "rule" in entry]


def pairs(ports):
    """The ports of the machine and the container's, one by one: "8000-8001:80-81" is (8000, 80), (8001, 81)."""
    here, there = ([int(end) for end in side.split("-")] for side in ports.split(":"))
    return list(zip(range(here[0], here[-1] + 1), range(there[0], there[-1] + 1), strict=True))


### END SOLUTION
def masquerade(subnet, device):
    """What comes from `subnet` ("10.1.0.0/24") and leaves by `device` bears this machine's address there.

    Nothing else does, but for one case: a container that reaches another one, or itself, by a published port of this
    machine: its packets must come back the same way. To be called once, before any `publish`.
    """
    ### BEGIN SOLUTION
    nft(CHAINS)
    if not any(rule["chain"] == "in" for rule in rules()):
        nft(JUMPS)
    nft(f"add rule ip {TABLE} out ip saddr {subnet} oifname {device} masquerade")
    nft(f"add rule ip {TABLE} out ip saddr {subnet} ip daddr {subnet} ct status dnat masquerade")
    ### END SOLUTION


def publish(ports, to, protocol, source):
    """Ports of this machine lead to a container.

    `ports` is "8080:80", or "8000-8003:80-83": port by port in the same order. `to` is the container's address,
    `protocol` "tcp" or "udp". With a `source` ("192.0.2.0/25"; else None) it holds for packets from there, and goes before
    what was published without one, whichever was said first. It works from outside, from this machine by its own address,
    from the container itself; and the container sees who asks (but for the case that `masquerade` tells of).
    """
    ### BEGIN SOLUTION
    chain, only = ("first", f"ip saddr {source}") if source else ("then", "")
    for here, there in pairs(ports):
        rule = f'{only} {protocol} dport {here} dnat to {to}:{there} comment "{protocol} {ports}"'
        nft(f"add rule ip {TABLE} {chain} {rule}")
    ### END SOLUTION


def unpublish(ports, protocol):
    """What `publish` did for just these `ports` and this `protocol` is undone; everything else stays."""
    ### BEGIN SOLUTION
    for rule in rules():
        if rule.get("comment") == f"{protocol} {ports}":
            nft(f"delete rule ip {TABLE} {rule['chain']} handle {rule['handle']}")
    ### END SOLUTION


def isolate(subnets, allowed):
    """Containers of different `subnets` (a list) do not reach one another's addresses.

    Except: for a pair (from, to) of subnets in `allowed`, those of `from` may ask those of `to`, and are answered; not the
    other way round. What was published stays there for everybody, and the world outside is as it was. What an earlier call
    said holds no longer. With a thousand subnets there are as many rules as with two.
    """
    ### BEGIN SOLUTION
    within = [(subnet, subnet) for subnet in subnets]  # neighbours pass `forward`, too, where br_netfilter is
    pairs = ", ".join(f"{one} . {other}" for one, other in [*within, *allowed])
    nft(f"""
        add table ip {TABLE}
        add set ip {TABLE} inside {{ type ipv4_addr; flags interval; }}
        add set ip {TABLE} pairs {{ type ipv4_addr . ipv4_addr; flags interval; }}
        add chain ip {TABLE} apart {{ type filter hook forward priority 0; }}
        flush chain ip {TABLE} apart
        flush set ip {TABLE} inside
        flush set ip {TABLE} pairs
        add rule ip {TABLE} apart ct state established accept
        add rule ip {TABLE} apart ct status dnat accept
        add rule ip {TABLE} apart ip saddr . ip daddr @pairs accept
        add rule ip {TABLE} apart ip saddr @inside ip daddr @inside drop
        add element ip {TABLE} inside {{ {", ".join(subnets)} }}
        add element ip {TABLE} pairs {{ {pairs} }}
    """)
    ### END SOLUTION


def lead(published):
    """The table `plan`, in the family ip, anew: ports by look-up. What an earlier call put into it is gone.

    `published` has (device, protocol, port, address, its port): what comes in by `device`, and is for this machine and
    this port, goes to the container at `address`. So one port may lead elsewhere for each device, and nowhere for those
    that are not told of. Who asks is never in the network of the container that he is led to. The list may be empty, or
    have thousands: there are as many rules as for one.
    """
    ### BEGIN SOLUTION
    leads = [f"{device} . {protocol} . {port} : {to} . {its}" for device, protocol, port, to, its in published]
    nft(f"""
        add table ip plan
        delete table ip plan
        table ip plan {{
            map ports {{
                type ifname . inet_proto . inet_service : ipv4_addr . inet_service;
                {"elements = { " + ", ".join(leads) + " };" if leads else ""}
            }}
            chain in {{
                type nat hook prerouting priority -100;
                fib daddr type local dnat ip to iifname . meta l4proto . th dport map @ports
            }}
        }}
    """)
    ### END SOLUTION
