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


def diagnose(pid, address):
    """Why a container gets no answer from `address`: [cause, where], or None if it gets one.

        ["route", gateway]              it sends its question there, and not to this machine; None if it knows no way
        ["forwarding", device]          this machine does not pass on what comes in by that device
        ["policy", "inet table chain"]  a chain drops whatever none of its rules lets through
        ["masquerade", device]          the question leaves by that device, and nobody out there knows the way back

    If there is more than one, it is the one that the question meets first; what only an answer meets comes last.
    """
    raise NotImplementedError


def mend(pid, address):
    """Afterwards `address` answers the container; and nothing else has changed. Returns nothing.

    Other routes stay, other devices forward or not as before. A table that is there is somebody's: it stays, so do its
    chains, their policies, its rules; and what one of its rules forbids remains forbidden. Of what a policy has dropped,
    only the container's questions to `address` and the answers to them get through from now on. Who is in this machine's
    own networks sees the container's address, as before.
    """
    raise NotImplementedError
