"""The text of `inspect --graph`, of graphs made up here: how it looks; what is true is tests/engine/test_graph.py's."""

import re

from minicontainer import netlink
from minicontainer.engine import graph
from minicontainer.network import Network
from minicontainer.teach import wiring


def link(index: int, name: str, kind: str = "veth", master: int = 0, up: bool = True) -> netlink.Link:
    return netlink.Link(index, name, up, kind, master, 1500, f"02:00:00:00:00:{index:02x}", up, 0, -1)


def made(networks: int, containers: int) -> graph.Graph:
    """Containers that are each in all networks: their devices bear the numbers from 100 on."""
    bridges = [
        graph.Device(link(number + 1, f"mc{number}", "bridge"), [f"10.{number}.0.1/16"], None)
        for number in range(networks)
    ]
    host = graph.Space(1, 0, [], bridges, [], False, [])
    spaces = []
    for each in range(containers):
        devices = [graph.Device(link(1, "lo", ""), ["127.0.0.1/8"], None)]
        for number in range(networks):
            outer = link(100 + number, f"veth{each:010x}{number:x}", master=number + 1)
            devices.append(
                graph.Device(link(number + 2, f"eth{number}"), [f"10.{number}.0.{each + 2}/16"], graph.Far(1, outer))
            )
        routes = [netlink.Route("default", "10.0.0.1", 2)]
        spaces.append(graph.Space(2 + each, 100, [{"name": f"c{each}", "id": "0"}], devices, routes, True, []))
    switches = [
        graph.Switch(bridge, Network(f"n{number}", f"mc{number}", "", "", 1500), True, False, False, 0, [])
        for number, bridge in enumerate(bridges)
    ]
    return graph.Graph(host, switches, spaces, [], [], True)


def test_two_containers_at_two_bridges() -> None:
    assert wiring.text(made(2, 2)) == (
        """\
┌─ host ───────────────────────────────────────────────────────────── net:[1] ─┐
│ ╔═══ mc0  10.0.0.1/16   network n0 · masquerade                              │
│ ║ ╔═ mc1  10.1.0.1/16   network n1 · masquerade                              │
└─╫─╫──────────────────────────────────────────────────────────────────────────┘
  ║ ║                    ┌─ c0 ────────────────────────────────────── net:[2] ─┐
  ╠═╬═ veth00000000000 ══╡ eth0  10.0.0.2/16        02:00:00:00:00:02          │
  ║ ╠═ veth00000000001 ══╡ eth1  10.1.0.2/16        02:00:00:00:00:03          │
  ║ ║                    │ lo    127.0.0.1/8                                   │
  ║ ║                    │ default via 10.0.0.1 dev eth0                       │
  ║ ║                    │ names at 127.0.0.11                                 │
  ║ ║                    └─────────────────────────────────────────────────────┘
  ║ ║                    ┌─ c1 ────────────────────────────────────── net:[3] ─┐
  ╚═╬═ veth00000000010 ══╡ eth0  10.0.0.3/16        02:00:00:00:00:02          │
    ╚═ veth00000000011 ══╡ eth1  10.1.0.3/16        02:00:00:00:00:03          │
                         │ lo    127.0.0.1/8                                   │
                         │ default via 10.0.0.1 dev eth0                       │
                         │ names at 127.0.0.11                                 │
                         └─────────────────────────────────────────────────────┘"""
    )


def test_it_fits_a_terminal_and_a_locale_without_frames() -> None:
    for networks in (1, 6, 7, 12):
        drawn = wiring.text(made(networks, 3))
        assert max(map(len, drawn.splitlines())) == 80
        assert drawn.count("╡") == 3 * networks
    assert wiring.text(made(2, 2), plain=True).isascii()


def test_a_cable_that_is_in_no_bridge_branches_off_from_none() -> None:
    found = made(1, 1)
    device = found.spaces[0].devices[1]
    found.spaces[0].devices[1] = device._replace(far=graph.Far(1, link(9, "vethloose")))
    found.spaces[0].troubles.append("vethloose is in no bridge, not in mc0: ip link set vethloose master mc0")
    drawn = wiring.text(found)
    assert "    vethloose ═╡ eth0" in drawn and "╠" not in drawn and "╫" not in drawn
    assert re.search(
        r"│ ✗ vethloose is in no bridge, not in mc0: ip link set\s+│\n +│   vethloose master mc0 ", drawn
    ), drawn


def test_who_stands_on_a_device_of_the_hosts_is_in_no_bridge() -> None:
    found = made(0, 1)
    parent = graph.Device(link(7, "ens3", ""), ["192.0.2.7/24"], None)
    found.host.devices.append(parent)
    inside = found.spaces[0].devices
    inside.append(graph.Device(link(3, "eth0", "macvlan"), ["192.0.2.9/24"], graph.Far(1, parent.link)))
    drawn = wiring.text(found)
    assert "│ ens3  192.0.2.7/24" in drawn  # though no route of the host leads out by it
    assert "macvlan on ens3 ═╡ eth0  192.0.2.9/24" in drawn
