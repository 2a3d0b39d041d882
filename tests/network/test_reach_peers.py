"""A real docker on the same host: its published ports and ours, with its FORWARD policy of DROP in between."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import engine_fixtures, peers
from tests.laboratory import Inside, Machine, command

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.needs("bridge", "veth", "nftables", "ip", "iptables", "ipv6"),
]

HOST, LAN = "198.51.100.1", "198.51.100.2"
HOST6, LAN6 = "fd00:51::1", "fd00:51::2"


class Both:
    """The peers' network namespace: docker's host, and ours for these tests. Each engine has a container `web`."""

    def __init__(self, docker: list[str]) -> None:
        self.here = peers.own_network()
        self.docker = docker
        self.host = Inside(int(self.here[1].split("/")[2]))
        self.lan = Machine()
        self.typed("ip", "link", "add", "lan9", "type", "veth", "peer", "name", "eth0", "netns", str(self.lan.pid))
        self.typed("ip", "address", "add", f"{HOST}/24", "dev", "lan9")
        self.typed("ip", "address", "add", f"{HOST6}/64", "dev", "lan9", "nodad")
        self.typed("ip", "link", "set", "lan9", "up")
        self.lan.ip("address", "add", f"{LAN}/24", "dev", "eth0")
        self.lan.ip("address", "add", f"{LAN6}/64", "dev", "eth0", "nodad")
        self.lan.ip("link", "set", "eth0", "up")
        self.typed("iptables", "-P", "FORWARD", "DROP")  # as docker sets it where it is the one to switch forwarding on

    def typed(self, *words: str) -> str:
        return command(*self.here, *words)

    def ours(self, *words: str) -> str:
        return self.typed(sys.executable, "-m", "minicontainer", *words)

    def theirs(self, *words: str) -> str:
        return command(*self.docker, *words)

    def refused(self, *words: str) -> str:
        typed = [*self.here, sys.executable, "-m", "minicontainer", *words]
        done = subprocess.run(typed, capture_output=True, text=True)
        assert done.returncode == 125
        return done.stderr

    def end(self) -> None:
        for engine in (self.ours, self.theirs):
            names = engine("ps", "-aq").split()
            if names:
                engine("rm", "-f", *names)
        self.ours("system", "reset", "--force")
        self.typed("iptables", "-P", "FORWARD", "ACCEPT")
        self.typed("ip", "link", "delete", "lan9")
        self.host.end()
        self.lan.end()


@pytest.fixture
def both(docker: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Both]:
    monkeypatch.setenv("MINICONTAINER_ROOT", str(tmp_path / "store"))
    archive = tmp_path / "images.tar"
    archive.write_bytes(engine_fixtures.archive(engine_fixtures.images()))
    made = Both(docker)
    for load in (made.ours, made.theirs):
        load("load", "-q", "-i", str(archive))
    yield made
    made.end()


def soon(machine: Machine, protocol: str, address: str, port: int) -> str | None:
    """An answer that should come: a machine with much to do is asked again."""
    for _ in range(30):
        if found := machine.ask(protocol, address, port):
            return found
    return None


@pytest.mark.parametrize("network", ["bridge", "six"])
def test_each_reaches_the_others_ports_and_the_lan_reaches_both(both: Both, network: str) -> None:
    if network == "six":
        both.ours("network", "create", "--ipv6", "six")
    both.theirs("run", "-d", "--name", "web", "-p", "8081:80", "-p", "8081:80/udp", "plain", "sleep", "600")
    ports = ["-p", "8080:80", "-p", "8080:80/udp"]
    words = ["--network", network, *ports, "plain"]
    assert "chain FORWARD" in both.refused("run", "--rm", *words, "true")
    rules = both.typed("iptables-save")
    both.ours("run", "-d", "--name", "web", "--firewall", "docker-user", *words, "sleep", "600")
    ours, theirs = (
        Inside(int(engine("inspect", "-f", "{{.State.Pid}}", "web"))) for engine in (both.ours, both.theirs)
    )
    try:
        for protocol in ("tcp", "udp"):
            ours.serve(protocol, 80, "ours")
            theirs.serve(protocol, 80, "theirs")
            found = {
                "LAN, ours": soon(both.lan, protocol, HOST, 8080),
                "LAN by IPv6, ours": soon(both.lan, protocol, HOST6, 8080),
                "LAN, theirs": soon(both.lan, protocol, HOST, 8081),
                "host, ours": soon(both.host, protocol, "127.0.0.1", 8080),
                "host by IPv6, ours": soon(both.host, protocol, "::1", 8080),
                "host, theirs": soon(both.host, protocol, "127.0.0.1", 8081),
                "their container, ours": soon(theirs, protocol, HOST, 8080),
                "our container, theirs": soon(ours, protocol, HOST, 8081),
                "itself": soon(ours, protocol, HOST, 8080),
            }  # fmt: skip
            heard = {who: (answer or "").split(" ")[0] for who, answer in found.items()}
            assert heard == {who: "theirs" if who.endswith("theirs") else "ours" for who in found}, protocol
            assert found["LAN, ours"] == f"ours {LAN}"
            assert (found["LAN by IPv6, ours"] == f"ours {LAN6}") is (network == "six")  # else it is relayed
    finally:
        ours.end()
        theirs.end()
    both.ours("rm", "-f", "web")
    both.ours("system", "reset", "--force")
    assert [line for line in both.typed("iptables-save").splitlines() if line[0] in ":-"] == [
        line for line in rules.splitlines() if line[0] in ":-"
    ]
