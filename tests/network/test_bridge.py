"""The bridge: set up once however many ask, a cable for each container, and a host as it was afterwards."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from minicontainer import errors, files, host, netlink, steps
from minicontainer.network import Network, bridge, ipam, nat
from tests.laboratory import Laboratory, Machine, ask, command, fresh_laboratory, write  # noqa: F401

FORWARDING = "/proc/sys/net/ipv4/ip_forward"


def identifier(number: int) -> str:
    return f"{number:011x}" + "c" * 53


def set_up() -> Network:
    network = bridge.default(host.root())._replace(subnet="172.30.0.0/16", gateway="172.30.0.1")
    steps.execute(bridge.setup(network), {})
    return network


def attach(network: Network, number: int, machine: Machine, *ports: str) -> str:
    """Attach a machine as a container; its address."""
    values: steps.Values = {"pid": machine.pid, "address": ipam.lease(network, identifier(number))}
    steps.execute(bridge.attach(network, identifier(number), nat.parse_ports(list(ports))), values)
    return str(values["address"])


def wait_until(condition: Any) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.01)


def devices() -> set[str]:
    return {link["ifname"] for link in json.loads(command("ip", "-json", "link"))}


# ------------------------------------------------------------------------------------------------- facts and pure plans


def test_the_subnet_avoids_the_hosts_routes_and_name_servers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    default = ("eth0", 0, 0xFFFFFFFF)
    monkeypatch.setattr(host, "suffix", lambda: "")
    monkeypatch.setattr(bridge, "RESOLV_CONF", (str(tmp_path / "none"), str(tmp_path / "resolv.conf")))
    (tmp_path / "resolv.conf").write_text("search here\nnameserver 127.0.0.53\nnameserver\nnameserver fd00::1%eth0\n")

    def chosen(*routes: tuple[str, str]) -> str:
        monkeypatch.setattr(bridge, "_routes", lambda: [default, *((name, *ipam.bounds(to)) for name, to in routes)])
        return bridge.free_subnet("mc0", [])

    assert chosen() == "172.30.0.0/16"
    assert chosen(("eth1", "172.30.128.0/24")) == "172.29.0.0/16"
    assert chosen(("mc0", "172.30.0.0/16")) == "172.30.0.0/16"  # our own bridge's route is no clash
    assert chosen(("eth1", "172.16.0.0/12")) == "10.255.0.0/16"
    with pytest.raises(errors.Conflict, match="every private subnet"):
        chosen(("eth1", "172.16.0.0/12"), ("eth2", "192.168.0.0/16"), ("eth3", "10.0.0.0/8"))
    (tmp_path / "resolv.conf").write_text("nameserver 172.30.7.53  \n nameserver 10.255.255.53\n")
    assert chosen() == "172.29.0.0/16"
    assert chosen(("eth1", "172.16.0.0/12")) == "10.254.0.0/16"
    with pytest.raises(errors.Conflict, match="a name server of this host"):
        bridge.made("/nosuch", "mine", "0" * 64, "10.255.255.0/24")


def test_names_fit_the_kernel(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MINICONTAINER_ROOT", "/elsewhere")
    assert len(bridge.default("/nosuch").device) <= 15
    assert bridge.cable("3f2a0123456789abcdef") == "veth3f2a0123456"


def test_a_plan_touches_nothing_and_names_its_unknowns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(host, "run_root", lambda: str(tmp_path))
    monkeypatch.setattr(os.path, "exists", lambda path: True)  # /proc/sys/net/ipv6
    network = Network("bridge", "mc0", "172.30.0.0/16", "172.30.0.1", 1500)
    plan = [*bridge.attach(network, identifier(1)), *nat.publish(identifier(1), nat.parse_ports(["8000:80"]))][:11]
    assert [step.verb for step in plan] == [
        "call", "link_add", "call", "link_set", "address_add", "link_set", "route_add", "link_wait", "link_wait",
        "call", "nft",
    ]  # fmt: skip
    assert str(plan[4].arguments[1]) == "$address/16"
    (command_,) = plan[-1].arguments
    assert ": $address . 80 }" in netlink.nft_text(command_)
    assert all(step.why for step in plan)
    assert not os.listdir(tmp_path)


# ------------------------------------------------------------------------------------------------------ set up, attach

on_the_kernel = [pytest.mark.root, pytest.mark.needs("bridge", "veth", "nftables", "ip")]


def kernel(test: Any) -> Any:
    for mark in on_the_kernel:
        test = mark(test)
    return test


@kernel
def test_set_up_once_then_nothing_is_left_to_do(laboratory: Laboratory):
    write(FORWARDING, "0")
    network = set_up()
    assert list(bridge.setup(network)) == []
    assert bridge.default(host.root()) == network
    assert files.read(FORWARDING) == b"1\n"
    (link,) = json.loads(command("ip", "-json", "-4", "address", "show", network.device))
    assert link["addr_info"][0]["local"] == network.gateway and "UP" in link["flags"]


@kernel
@pytest.mark.parametrize(
    "damage",
    [("nft", "flush", "ruleset"), ("ip", "link", "del", "DEVICE"), ("ip", "link", "set", "DEVICE", "down")],
    ids=" ".join,
)
def test_what_somebody_took_away_is_set_up_again(laboratory: Laboratory, damage: tuple[str, ...]):
    network = set_up()
    command(*[word.replace("DEVICE", network.device) for word in damage])
    assert list(bridge.setup(network))
    set_up()
    assert list(bridge.setup(network)) == []


@kernel
def test_set_up_again_keeps_the_ports_that_are_published(laboratory: Laboratory):
    network = set_up()
    container = laboratory.machine()
    attach(network, 1, container, "8000:80")
    before = command("nft", "list", "ruleset")
    command("ip", "link", "set", network.device, "down")
    set_up()
    assert command("nft", "list", "ruleset") == before


@kernel
def test_another_version_of_the_rules_is_replaced(laboratory: Laboratory, monkeypatch: pytest.MonkeyPatch):
    current = nat.LAYOUT
    monkeypatch.setattr(nat, "LAYOUT", "rules 0")
    network = set_up()
    monkeypatch.setattr(nat, "LAYOUT", current)
    assert not nat.knows(network)
    set_up()
    assert nat.knows(network)


@kernel
def test_ten_starts_at_once_set_up_one_network(laboratory: Laboratory, tmp_path: Path):
    program = f"""
from minicontainer import host, steps
from minicontainer.network import bridge
host.run_root = lambda: {str(tmp_path / "run")!r}
for _ in range(3):
    network = bridge.default(host.root())
    steps.execute(bridge.setup(network), {{}})
    assert not list(bridge.setup(network))
"""
    running = [subprocess.Popen([sys.executable, "-c", program]) for _ in range(10)]
    assert [process.wait() for process in running] == [0] * 10
    rules = command("nft", "list", "ruleset")
    assert rules.count("masquerade") == 5 and rules.count("chain forward") == 1


@kernel
def test_after_the_teardown_the_host_is_as_it_was(laboratory: Laboratory):
    write(FORWARDING, "0")
    before = devices()
    network = set_up()
    attach(network, 1, laboratory.machine(), "8000:80")
    steps.execute(bridge.detach(network, identifier(1)), {})
    for _ in range(2):  # the second finds nothing, and does not mind
        steps.execute(bridge.teardown(network), {})
    assert devices() == before
    assert command("nft", "list", "ruleset") == ""
    assert files.read(FORWARDING) == b"0\n"
    assert not os.path.exists(f"{host.root()}/networks/bridge.json")


@kernel
def test_forwarding_that_was_on_stays_on(laboratory: Laboratory):
    write(FORWARDING, "1")
    steps.execute(bridge.teardown(set_up()), {})
    assert files.read(FORWARDING) == b"1\n"


@kernel
def test_a_container_has_its_address_its_route_and_reaches_gateway_and_neighbour(laboratory: Laboratory):
    network = set_up()
    first, second = laboratory.machine(), laboratory.machine()
    addresses = [attach(network, 1, first), attach(network, 2, second)]
    assert addresses == ["172.30.0.2", "172.30.0.3"]
    (eth0,) = json.loads(first.ip("-json", "-4", "address", "show", "dev", "eth0"))
    assert eth0["addr_info"][0]["local"] == "172.30.0.2" and eth0["operstate"] == "UP"
    mac = first.call(lambda: netlink.link("eth0").mac)
    assert int(mac[:2], 16) & 3 == 2  # locally administered, not multicast
    assert json.loads(first.ip("-json", "route"))[0]["gateway"] == network.gateway
    assert "127.0.0.1/8" in first.ip("address", "show", "lo")
    second.serve("tcp", 80, "second")
    assert first.ask("tcp", "172.30.0.3", 80) == "second 172.30.0.2"
    assert ask("tcp", "172.30.0.3", 80) == f"second {network.gateway}"


@kernel
def test_a_container_cannot_become_the_hosts_ipv6_router(laboratory: Laboratory):
    network = set_up()
    attach(network, 1, laboratory.machine())
    assert "inet6" not in command("ip", "address", "show", network.device)


@kernel
def test_a_container_announces_nothing_to_the_others(laboratory: Laboratory):
    """Its eth0 has no IPv6, so no multicast of its own that a switch would have to copy; its loopback keeps ::1."""
    network = set_up()
    machine = laboratory.machine()
    attach(network, 1, machine)
    assert "inet6" not in machine.ip("address", "show", "eth0")
    assert machine.call(lambda: Path("/proc/sys/net/ipv6/conf/eth0/disable_ipv6").read_text()) == "1\n"
    assert "::1/128" in machine.ip("address", "show", "lo")


@kernel
def test_a_container_may_speak_at_once(laboratory: Laboratory):
    """No bridge that listens for loops first, no duplicate address detection: the first packet goes through.

    Were it lost, the next would follow after a second (tcp(7)), which is more than PAUSE.
    """
    network = set_up()
    container = laboratory.machine()
    container.serve("tcp", 80, "it")
    address = attach(network, 1, container)
    assert ask("tcp", address, 80)


@kernel
def test_detach_leaves_nothing_and_may_be_repeated(laboratory: Laboratory):
    network = set_up()
    before = devices(), command("nft", "list", "ruleset")
    attach(network, 1, laboratory.machine(), "8000:80", "127.0.0.1:53:53/udp", "70")
    for _ in range(2):
        steps.execute(bridge.detach(network, identifier(1)), {})
        assert (devices(), command("nft", "list", "ruleset")) == before
        assert ipam.leases(network) == {}


@kernel
@pytest.mark.parametrize("done", range(14))
def test_detach_after_a_start_that_died_anywhere(laboratory: Laboratory, done: int):
    network = set_up()
    before = devices(), command("nft", "list", "ruleset")
    values: steps.Values = {"pid": laboratory.machine().pid, "address": ipam.lease(network, identifier(1))}
    plan = list(bridge.attach(network, identifier(1), nat.parse_ports(["8000:80", "53:53/udp"])))
    assert len(plan) in (12, 13)
    steps.execute(plan[:done], values)
    nat._held.clear()  # the process that held the ports is gone
    steps.execute(bridge.detach(network, identifier(1)), {})
    assert (devices(), command("nft", "list", "ruleset"), ipam.leases(network)) == (*before, {})


@kernel
def test_what_remains_of_a_container_is_known_by_its_id(laboratory: Laboratory):
    network = set_up()
    attach(network, 1, laboratory.machine(), "8000:80")
    ipam.lease(network, identifier(2))
    attach(network, 3, laboratory.machine())
    ipam.release(network, identifier(3))
    assert bridge.remains(network) == {identifier(1), identifier(2), identifier(3)[:11]}
    for found in bridge.remains(network):
        steps.execute(bridge.detach(network, found), {})
    assert bridge.remains(network) == set()
    assert devices() == {"lo", network.device}


@kernel
def test_the_cable_goes_with_the_containers_namespace(laboratory: Laboratory):
    network = set_up()
    container = laboratory.machine()
    attach(network, 1, container)
    container.end()
    steps.execute(bridge.detach(network, identifier(1), published=False, unplug=False), {})
    wait_until(lambda: bridge.cable(identifier(1)) not in devices())


@kernel
def test_the_time_of_an_attach_does_not_grow_with_the_others(laboratory: Laboratory):
    network = set_up()
    nat_commands = [
        ("create element", nat.ports_map(), ("tcp", port), ("172.30.9.9", port), "f" * 64) for port in range(1, 501)
    ]

    def once(number: int) -> float:
        container = laboratory.machine()
        began = time.monotonic()
        attach(network, number, container, f"{30000 + number}:80")
        return time.monotonic() - began

    alone = min(once(number) for number in range(1, 8))
    netlink.nft(*nat_commands)
    for number in range(100, 400):
        ipam.lease(network, identifier(number))
    crowded = 60.0
    for number in range(11, 100):  # until one has met with a machine that has nothing else to do
        crowded = min(crowded, once(number))
        if number >= 17 and crowded < 2 * alone + 0.002:
            return
    pytest.fail(f"{alone * 1e3:.1f} ms alone, {crowded * 1e3:.1f} ms among many")


# ---------------------------------------------------------------------------------------------------- without privilege


@pytest.mark.userns
@pytest.mark.needs("user-namespace", "bridge", "veth", "nftables")
def test_root_of_a_user_namespace_can_have_a_bridge_too(tmp_path: Path):
    program = """
import os, signal
from minicontainer import host, netlink, steps, syscalls
from minicontainer.network import bridge, ipam, nat
host.run_root = lambda: os.environ["MINICONTAINER_ROOT"] + "-run"
netlink.link_set("lo", up=True)
ready, told = os.pipe()
pid = os.fork()
if not pid:
    syscalls.unshare(syscalls.CLONE_NEWNET)
    os.write(told, b".")
    signal.pause()
os.read(ready, 1)
network = bridge.default(host.root())
steps.execute(bridge.setup(network), {})
assert not list(bridge.setup(network))
values = {"pid": pid, "address": ipam.lease(network, "a" * 64)}
steps.execute(bridge.attach(network, "a" * 64, nat.parse_ports(["8000:80", "53:53/udp"])), values)
assert len(nat.published("a" * 64)) == 2
steps.execute(bridge.detach(network, "a" * 64), {})
steps.execute(bridge.teardown(network), {})
assert [link.name for link in netlink.links()] == ["lo"]
os.kill(pid, signal.SIGKILL)
"""
    environment = {**os.environ, "MINICONTAINER_ROOT": str(tmp_path / "store")}
    command_ = ["unshare", "-Urn", sys.executable, "-c", program]
    done = subprocess.run(command_, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
