"""Lab 22: a container asks, and nobody answers: what stands in the way, and how little has to change.

The README tells the job. Yours to write is what raises NotImplementedError; add functions and imports as you need.
"""

import json
import os
import socket
import subprocess

from minicontainer import syscalls

PLACES = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}  # where ip, nft and nsenter are


def say(*words, pid=None):
    """What a program prints, in the network of a container if a pid is given; JSON if you ask it for that (-j).

    say("ip", "-j", "route", "get", "10.1.0.2", pid=7) is a list of dictionaries. CalledProcessError if it refuses.
    """
    door = ["nsenter", f"--net=/proc/{pid}/ns/net"] if pid else []
    done = subprocess.run([*door, *words], check=True, capture_output=True, text=True, env=PLACES)
    return json.loads(done.stdout) if "-j" in words else done.stdout


def answers(pid, address):
    """Whether `address` answers a container within half a second. Whoever lives here echoes what comes to UDP port 7."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            syscalls.enter_namespace(f"/proc/{pid}/ns/net", syscalls.CLONE_NEWNET)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
                asking.settimeout(0.5)
                asking.sendto(b"hello", (address, 7))
                code = int(asking.recv(8) != b"hello")
        finally:
            os._exit(code)
    return os.waitpid(child, 0)[1] == 0


### BEGIN SOLUTION
MARK = "let through by lab 22"


def own(pid):
    """A container's address."""
    return say("ip", "-j", "-4", "address", "show", "eth0", pid=pid)[0]["addr_info"][0]["local"]


def way(address, pid=None):
    """The route to an address: {"dev": …, "gateway": …, "prefsrc": …}; an empty one where there is none."""
    try:
        return say("ip", "-j", "route", "get", address, pid=pid)[0]
    except subprocess.CalledProcessError:
        return {}


def switch(device):
    """The file that says whether what comes in by a device may go on."""
    return f"/proc/sys/net/ipv4/conf/{device}/forwarding"


def forwards(device):
    """Whether it may."""
    with open(switch(device)) as file:
        return file.read() == "1\n"


def closed():
    """The chains that drop what they forward, unless a rule says otherwise; but for those that have a rule of ours."""
    listed = say("nft", "-j", "list", "ruleset")["nftables"]
    ours = [entry["rule"] for entry in listed if entry.get("rule", {}).get("comment") == MARK]
    known = {(rule["family"], rule["table"], rule["chain"]) for rule in ours}
    found = []
    for chain in [entry["chain"] for entry in listed if "chain" in entry]:
        name = chain["family"], chain["table"], chain["name"]
        if chain.get("hook") == "forward" and chain["policy"] == "drop" and chain["family"] in ("ip", "inet"):
            found += [name] if name not in known else []
    return found


### END SOLUTION
def diagnose(pid, address):
    """Why a container gets no answer from `address`: [cause, where], or None if it gets one.

        ["route", gateway]              it sends its question there, and not to this machine; None if it knows no way
        ["forwarding", device]          this machine does not pass on what comes in by that device
        ["policy", "inet table chain"]  a chain drops whatever none of its rules lets through
        ["masquerade", device]          the question leaves by that device, and nobody out there knows the way back

    If there is more than one, it is the one that the question meets first; what only an answer meets comes last.
    """
    ### BEGIN SOLUTION
    if answers(pid, address):
        return None
    sent, back, out = way(address, pid).get("gateway"), way(own(pid)), way(address)
    if sent != back["prefsrc"]:
        return ["route", sent]
    if not forwards(back["dev"]):
        return ["forwarding", back["dev"]]
    for chain in closed():
        return ["policy", " ".join(chain)]
    if not forwards(out["dev"]):
        return ["forwarding", out["dev"]]
    return ["masquerade", out["dev"]]
    ### END SOLUTION


def mend(pid, address):
    """Afterwards `address` answers the container; and nothing else has changed. Returns nothing.

    Other routes stay, other devices forward or not as before. A table that is there is somebody's: it stays, so do its
    chains, their policies, its rules; and what one of its rules forbids remains forbidden. Of what a policy has dropped,
    only the container's questions to `address` and the answers to them get through from now on. Who is in this machine's
    own networks sees the container's address, as before.
    """
    ### BEGIN SOLUTION
    mine = own(pid)
    while found := diagnose(pid, address):
        cause, where = found
        if cause == "route":
            say("ip", "route", "replace", address, "via", way(mine)["prefsrc"], pid=pid)
        if cause == "forwarding":
            with open(switch(where), "w") as file:
                file.write("1")
        if cause == "policy":
            rule = f'add rule {where} ip saddr %s ip daddr %s %s accept comment "{MARK}"\n'
            say("nft", rule % (mine, address, "") + rule % (address, mine, "ct state established"))
        if cause == "masquerade":
            text = "add table ip lab22\nadd chain ip lab22 out { type nat hook postrouting priority 100; }\n"
            say("nft", f"{text}add rule ip lab22 out ip saddr {mine} oifname {where} masquerade")
    ### END SOLUTION
