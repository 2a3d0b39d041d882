"""`bench network`: TCP from the host to a server: native over loopback, and in containers, by each way in.

    host        the container shares the host's network: loopback, as native
    bridge      to the container's own address: a veth pair and the bridge
    published   to a port of the host's loopback, which is passed on to the container
    relayed     to a port of ::1: no packet of IPv6 reaches the container, a process passes on what it reads
    gateway     to a port of an address of the host's, that of the bridge

One server each, all running from the first round to the last; the client is this process. Throughput is one stream of
64 MiB from host to container, until the server has said that it has it; latency is a byte there and back, 300 times; a
connection is made and ended, 100 times. No packet leaves the machine.

And what a published port costs a start: the whole of `run --rm -p … true`, with one port, with 500, and with one while
another container has 500.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import time
from collections.abc import Callable

from ... import errors
from .. import measure as measuring
from . import Bar, Group, Report, Workshop, engines, inside

RUNS = 10
BYTES = 64 << 20
TURNS = 300
CONNECTIONS = 100
MANY = 500  # ports
PORT = 5201

SERVER = """\
import socket
server = socket.create_server((sys.argv[1], int(sys.argv[2])))
address = server.getsockname()[0]
if address == "0.0.0.0":
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # sends nothing; only asks for the route
        address = probe.getsockname()[0]
tell(address=address, port=server.getsockname()[1])
while True:
    client, _ = server.accept()
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    what = client.recv(1)
    if what == b"p":
        buffer = bytearray(1 << 20)  # anew: where its pages lie is luck, and a server would keep it to the last round
        while client.recv_into(buffer):
            pass
        client.sendall(b".")
    elif what == b"l":
        while byte := client.recv(1):
            client.sendall(byte)
    elif what == b"q":
        break
    client.close()
"""


class Server:
    """A server that runs until the bench is over. `address` is where the client finds it."""

    def __init__(self, workshop: Workshop, command: list[str], address: tuple[str, int] | None = None) -> None:
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        workshop.at_end("end a server", self.end)
        assert self.process.stdout is not None and self.process.stderr is not None
        line = self.process.stdout.readline()
        if not line:
            said = self.process.stderr.read().strip().splitlines()
            raise engines.Unfit(said[-1] if said else f"its server ended with {self.process.wait()}")
        told = json.loads(line)
        self.address = address or (told["address"], told["port"])

    def connect(self, what: bytes) -> socket.socket:
        """A connection on which `what` has been asked for."""
        client = socket.create_connection(self.address, timeout=10)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.sendall(what)
        return client

    def pump(self) -> float:
        """Bytes per second, of one stream."""
        block = memoryview(bytes(1 << 20))
        with self.connect(b"p") as client:
            began = time.perf_counter()
            for _ in range(BYTES >> 20):
                client.sendall(block)
            client.shutdown(socket.SHUT_WR)
            if client.recv(1) != b".":
                raise errors.MiniContainerError("the server did not take what it was sent")
            return BYTES / (time.perf_counter() - began)

    def bounce(self) -> float:
        """Seconds for a byte there and back."""
        with self.connect(b"l") as client:
            began = time.perf_counter()
            for _ in range(TURNS):
                client.sendall(b".")
                client.recv(1)
            return (time.perf_counter() - began) / TURNS

    def greet(self) -> float:
        """Seconds for a connection that is made and ended."""
        began = time.perf_counter()
        for _ in range(CONNECTIONS):
            with socket.create_connection(self.address, timeout=10) as client:
                client.shutdown(socket.SHUT_WR)
                client.recv(1)  # it has ended, too
        return (time.perf_counter() - began) / CONNECTIONS

    def end(self) -> None:
        """Ask it to; insist after two seconds."""
        if self.process.poll() is None:
            with contextlib.suppress(OSError, AttributeError):
                self.connect(b"q").close()
            try:
                self.process.wait(2)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for pipe in (self.process.stdout, self.process.stderr):
            if pipe:
                pipe.close()


def measure(workshop: Workshop, runs: int) -> Report:
    """See the module."""
    report = Report("network", "TCP from the host to a server, by each way into a container")
    servers = {"native": Server(workshop, inside.python(SERVER, "127.0.0.1", "0"))}
    starts: dict[str, measuring.Timed] = {}
    for engine in inside.prepare(workshop, report):
        for way in ("bridge", "published", "relayed", "gateway", "host"):
            if engine.name == "podman" and way != "bridge":
                continue
            network = "host" if way == "host" else "bridge"
            words = ["127.0.0.1", "0"] if way == "host" else ["0.0.0.0", str(PORT)]
            name = way if engine.name == "minicontainer" else f"{engine.name}, {way}"
            workshop.tell(f"{name}: does its server answer?")
            try:
                flags, address = published(engine, way)
                program = inside.python(SERVER, *words)
                server = Server(workshop, engine.command(network, program, [*inside.binds(), *flags]), address)
                server.bounce()
                servers[name] = server
            except (engines.Unfit, OSError) as reason:
                report.skipped.append((name, str(reason)))
        if engine.name != "podman":
            starts |= attached(workshop, engine, report)
    if len(servers) < 2:
        raise errors.MiniContainerError(f"no container can be reached: {report.skipped}")
    contestants: dict[str, measuring.Timed] = {}
    for name, server in servers.items():
        contestants[f"pump {name}"], contestants[f"bounce {name}"] = server.pump, server.bounce
        contestants[f"greet {name}"] = server.greet
    contestants |= starts
    runs = runs or RUNS
    workshop.tell(f"{len(contestants)} contestants, 2 rounds to warm up, {runs} that count")
    tell: Callable[[int, int], object] = lambda done, all_: workshop.tell(f"round {done} of {all_}")  # noqa: E731
    found = measuring.interleave(contestants, runs, tell=tell)
    ours = next(name for name in ("bridge", "published", "host") if name in servers)
    report.groups += [
        Group("throughput, one stream", ours, {n: found[f"pump {n}"] for n in servers}, "GB/s", 1e-9, "more"),
        Group("a byte there and back", ours, {n: found[f"bounce {n}"] for n in servers}, "µs", 1e6),
        Group("a connection", ours, {n: found[f"greet {n}"] for n in servers}, "µs", 1e6),
        Group(ATTACHED, "one port", {n: found[n] for n in starts}),
    ]
    report.bars += [
        Bar("a connection", "published", "docker, published", 1.0, 0.9),
        Bar(ATTACHED, f"one port beside {MANY}", "one port", 1.2, 1.1),
        Bar("a connection", "relayed", "docker, relayed", 1.0, 0.9),
        Bar(ATTACHED, "one port", "docker, one port", 0.3, 0.2),
    ]
    report.method = {"runs": runs, "warm_up": 2, "order": "rounds, shuffled", "seed": measuring.SEED, "bytes": BYTES}
    if shutil.which("iperf3"):
        report.facts.append("the pump is Python's on both ends, 1 MiB a call; iperf3 is here, if you want another's")
    report.facts.append(
        f"MTU of loopback: {mtu('lo')} bytes; of a bridge usually 1500: segments are larger on loopback"
    )
    return report


ATTACHED = "run --rm -p … true"


def published(engine: engines.Engine, way: str) -> tuple[list[str], tuple[str, int] | None]:
    """The flags of `run`, and where the client finds the server; None where the server itself knows best."""
    if way not in ("published", "relayed", "gateway"):
        return [], None
    address = "::1" if way == "relayed" else "127.0.0.1"
    if way == "gateway":  # an address of the host's that no other machine can reach
        asked = ["network", "inspect", "-f", "{{(index .IPAM.Config 0).Gateway}}", "bridge"]
        address = engines.said([*engine.typed, *asked]).strip()
    number = free_ports(1, address)
    return ["-p", f"{f'[{address}]' if ':' in address else address}:{number}:{PORT}"], (address, number)


def attached(workshop: Workshop, engine: engines.Engine, report: Report) -> dict[str, measuring.Timed]:
    """Starts with published ports, by name. docker gets one port alone: it begins a process for each."""
    words = ["true"]

    def start(count: int) -> measuring.Timed:
        first = free_ports(count)
        return lambda: measuring.spent(
            engine.command(
                "bridge", words, [*inside.binds(), "-p", f"127.0.0.1:{ports(first, count)}:{ports(80, count)}"]
            )
        )

    if engine.name != "minicontainer":
        return {f"{engine.name}, one port": start(1)}
    one, many = start(1), start(MANY)
    others = free_ports(MANY)
    flags = ["-p", f"127.0.0.1:{ports(others, MANY)}:{ports(80, MANY)}"]
    program = inside.python(SERVER, "0.0.0.0", str(PORT))
    beside: list[Server] = []

    def with_others() -> float:
        beside.append(Server(workshop, engine.command("bridge", program, [*inside.binds(), *flags])))
        try:
            return one()
        finally:
            beside.pop().end()

    return {"one port": one, f"one port beside {MANY}": with_others, f"{MANY} ports": many}


def ports(first: int, count: int) -> str:
    """`80`, or `80-579`."""
    return str(first) if count == 1 else f"{first}-{first + count - 1}"


def mtu(device: str) -> str:
    """Bytes of its largest packet."""
    with open(f"/sys/class/net/{device}/mtu") as file:
        return file.read().strip()


def free_ports(count: int, address: str = "127.0.0.1") -> int:
    """The first of so many ports in a row that nobody uses now. Raises Unfit."""
    if count == 1:
        with socket.create_server((address, 0), family=socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
            return int(probe.getsockname()[1])
    for first in range(10000, 32768 - count, count):  # below those that the kernel gives to clients
        with contextlib.ExitStack() as held:
            try:
                for number in range(first, first + count):
                    held.enter_context(socket.create_server((address, number)))
            except OSError:
                continue
            return first
    raise engines.Unfit(f"there are no {count} ports in a row that nobody uses")
