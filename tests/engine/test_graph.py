"""`inspect --graph` draws what the kernel has: compared with `ip -json` and `nft -json`, whole and broken."""

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from minicontainer.network import spoofing
from tests.cli.test_networks import End, create, device, nothing_stays, refused  # noqa: F401
from tests.conftest import minicontainer
from tests.engine_fixtures import Shop, fresh_shop  # noqa: F401

pytestmark = [pytest.mark.root, pytest.mark.needs("bridge", "veth", "nftables", "ip")]


def host(*words: str) -> Any:
    """`ip -json` or `nft --json` here."""
    flag = "-json" if words[0] == "ip" else "--json"
    return json.loads(subprocess.run([words[0], flag, *words[1:]], capture_output=True, text=True, check=True).stdout)


def graph(*names: str) -> str:
    return minicontainer("inspect", "--graph", *names).stdout


def told(drawn: str) -> str:
    """The text without its frames, in one line: what is folded is whole again."""
    return re.sub(r"\s+", " ", re.sub("[│║]", " ", drawn))


def outer_end(end: End, name: str) -> str:
    """What the kernel calls the other end of a container's device."""
    (inner,) = end.ip("link", "show", name)
    return next(link["ifname"] for link in host("ip", "link") if link["ifindex"] == inner["link_index"])


@pytest.mark.needs("ipv6")
def test_the_text_says_what_ip_and_nft_say(shop: Shop) -> None:
    create("--ipv6", "backend")
    create("--internal", "shut")
    web = End("web", "--network", "backend", "--network", "shut", "-p", "127.0.0.1::80", "-p", "80/udp")
    db = End("db", "--network", "shut")
    alone = End("alone", "--network", "none")
    side = End("side", "--network", "container:web")
    End("open", "--network", "host")
    minicontainer("create", "--name", "later", "plain", "true")
    drawn = graph("web", "db", "alone", "open", "later")
    assert max(map(len, drawn.splitlines())) <= 80
    assert "✗" not in drawn
    for end in (web, db):
        for link in end.ip("address"):
            (address,) = [found for found in link["addr_info"] if found["family"] == "inet"]
            for other in link["addr_info"]:
                assert other["scope"] == "link" or f" {other['local']}/{other['prefixlen']} " in drawn, other
            shown = f"{link['ifname']:<5} {address['local']}/{address['prefixlen']}"
            if link["ifname"] == "lo":
                assert f"│ {shown}" in drawn
            else:
                assert re.search(f"[╠╚][═╬]* {outer_end(end, link['ifname'])} ═+╡ {re.escape(shown)}", drawn), shown
        assert f"net:[{os.stat(f'/proc/{end.pid}/ns/net').st_ino}]" in drawn
        ways = [route for route in [*end.ip("route"), *end.ip("-6", "route")] if route["dst"] == "default"]
        assert len(ways) == 2 * (end is web)
        for route in ways:
            assert f"│ default via {route['gateway']} dev {route['dev']}" in drawn
    for network, word in (("backend", "masquerade"), ("shut", "internal")):
        (bridge,) = host("ip", "address", "show", device(network))
        own = [f"{found['local']}/{found['prefixlen']}" for found in bridge["addr_info"] if found["scope"] != "link"]
        assert " ".join([bridge["ifname"], *own, "network", network, "·", word]) in told(drawn)
    # Who has one namespace is in one box; who has none is in none; the host's is the host.
    (box,) = [line for line in drawn.splitlines() if "─ side, web ─" in line]
    assert box.endswith(f" net:[{os.stat(f'/proc/{side.pid}/ns/net').st_ino}] ─┐")
    (box,) = [line for line in drawn.splitlines() if "─ alone ─" in line]
    assert box.endswith(f" net:[{os.stat(f'/proc/{alone.pid}/ns/net').st_ino}] ─┐")
    assert drawn.splitlines()[0].endswith(f" net:[{os.stat('/proc/self/ns/net').st_ino}] ─┐")
    assert "in here, too: open" in drawn
    assert "later: created; it has no network namespace" in drawn
    # The ports: as nft has them.
    table = f"minicontainer{shop.suffix}"
    (at,) = elements(table, "ports_at")
    (everywhere,) = elements(table, "ports")
    (by_six,) = elements(table, "ports6")
    address, protocol, number = at["key"]
    assert re.search(f"{address}:{number}/{protocol} +→ {at['to']} +web", drawn)
    assert re.search(f"{everywhere['key'][1]}/udp +→ {everywhere['to']} +web", drawn)
    six, _, number = by_six["to"].rpartition(":")
    assert re.search(re.escape(f"{by_six['key'][1]}/udp") + " +→ " + re.escape(f"[{six}]:{number}") + " +web", drawn)
    # By a network's name: all that is in it; the cable of who is not asked for is counted.
    assert "─ db ─" in graph("shut") and "─ side, web ─" in graph("shut")
    assert "╚═ 1 more cable" in graph("db")
    assert "─ alone ─" in graph()


def elements(table: str, name: str) -> list[dict[str, Any]]:
    found = next(item["map"] for item in host("nft", "list", "map", "inet", table, name)["nftables"] if "map" in item)
    return [
        {"key": key["elem"]["val"]["concat"], "to": ":".join(map(str, data["concat"]))} for key, data in found["elem"]
    ]


def test_what_is_broken_is_marked_and_mended_as_it_says(shop: Shop) -> None:
    create("backend")
    web = End("web", "--network", "backend", "-p", "127.0.0.1::80")
    cable, bridge, table = outer_end(web, "eth0"), device("backend"), f"minicontainer{shop.suffix}"
    (way,) = [route for route in web.ip("route") if route["dst"] == "default"]
    inside = ["nsenter", "-t", str(web.pid), "-n", "ip"]
    address = f"{web.addresses['backend']}/{web.ip('address', 'show', 'eth0')[0]['addr_info'][0]['prefixlen']}"
    own = web.ip("link", "show", "eth0")[0]["address"]
    reload = [["python", "-m", "minicontainer", "network", "reload"]]
    again = [
        [*inside, "address", "add", address, "dev", "eth0"],
        [*inside, "route", "add", "default", "via", way["gateway"]],
    ]
    for fault, complaint, mend in (
        (["ip", "link", "set", cable, "nomaster"], f"{cable} is in no bridge, not in {bridge}: ", None),
        (["ip", "link", "set", bridge, "down"], f"{bridge} is down: ", None),
        ([*inside, "address", "flush", "dev", "eth0"], f"eth0 has not the address {web.addresses['backend']}", again),
        ([*inside, "link", "set", "eth0", "down"], "eth0 is down", [[*inside, "link", "set", "eth0", "up"], again[1]]),
        (
            [*inside, "link", "set", "eth0", "address", "02:00:00:00:00:99"],
            "what eth0 sends is dropped as forged: ",
            [[*inside, "link", "set", "eth0", "address", own]],
        ),
        (["nft", "flush", "map", "inet", table, "ports_at"], "no rule leads ", reload),
        (["nft", "delete", "table", "inet", table], "the firewall does not know it", reload),
        (["ip", "link", "delete", cable], "eth0, its end of the cable to backend, is not there", []),
    ):
        if "forged" in complaint and spoofing.lacking():
            continue  # this kernel does not look at it
        assert "✗" not in graph("web")
        subprocess.run(fault, check=True)
        found = told(graph("web"))
        assert f"✗ {complaint}" in found, fault
        if mend is None:
            words = re.search(f"{re.escape(complaint)}(ip [^✗└┘]*?) (?:═|│|┌|╔|└|✗|default|names|lo )", found)
            assert words, found
            mend = [words[1].split()]
        for command in mend:
            if command[0] == "python":
                minicontainer(*command[3:])
            else:
                subprocess.run(command, check=True)


def test_it_is_drawn_into_a_file(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    web = End("web", "--network", "bridge")
    for name, begins in (("web.png", b"\x89PNG"), ("web.svg", b"<?xml")):
        assert minicontainer("inspect", "--graph", "-o", str(tmp_path / name), "web").stdout == ""
        assert (tmp_path / name).read_bytes().startswith(begins)
    description = (tmp_path / "web.svg").read_text().partition("<dc:description>")[2]
    assert web.addresses["bridge"] in description  # for who does not see it


def test_what_cannot_be_drawn_is_refused() -> None:
    assert "no such" in refused("inspect", "--graph", "nosuch")
    for words in (["-o", "web.txt"], ["-f", "json"], ["--type", "image"]):
        done = minicontainer("inspect", "--graph", *words, "web", check=False)
        assert done.returncode == 125, done
        assert ("-o web.txt" if "-o" in words else "--graph draws containers") in done.stderr
