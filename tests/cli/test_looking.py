"""`ps`, `inspect`, `images`, `volume ls`: what they say is what the kernel and the store have."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import minicontainer
from tests.engine_fixtures import Shop, fresh_shop  # noqa: F401

pytestmark = [pytest.mark.root, pytest.mark.needs("overlay", "bridge", "veth", "nftables", "libseccomp")]


@pytest.fixture
def cleared(shop: Shop) -> Iterator[Shop]:
    """The shop; all containers go at the end."""
    yield shop
    left = out("ps", "-aq").split()
    if left:
        minicontainer("rm", "-f", "-v", *left)


def out(*arguments: str) -> str:
    return minicontainer(*arguments).stdout


def names(*arguments: str) -> list[str]:
    return out("ps", "--format", "{{.Names}}", *arguments).split()


def inspect(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(out("inspect", name))[0]
    return found


def run(name: str, *arguments: str) -> str:
    return out("run", "-d", "--name", name, *arguments).strip()


# ps


def test_filters(cleared: Shop) -> None:
    run("web", "--label", "tier=front", "-p", "127.0.0.1:0:80", "-v", "data:/data", "demo", "sleep", "600")
    run("db", "--label", "tier=back", "--network", "none", "plain", "sleep", "600")
    run("done", "--network", "none", "plain", "sh", "-c", "exit 3")
    out("wait", "done")
    out("create", "--name", "new", "--network", "none", "plain", "true")
    port = out("port", "web", "80").rpartition(":")[2].strip()
    everything = ["new", "done", "db", "web"]
    assert names() == ["db", "web"]
    assert names("-a") == everything
    assert names("-n", "3") == ["new", "done", "db"]
    assert names("-l") == ["new"]
    for filters, expected in [
        (["name=^d"], ["done", "db"]), (["name=/web"], ["web"]), (["name=we", "name=db"], ["db", "web"]),
        (["label=tier"], ["db", "web"]), (["label=tier=back"], ["db"]), (["label=tier", "label=made"], ["web"]),
        (["label=tier=front", "name=db"], []), (["exited=3"], ["done"]), (["exited=0"], []),
        (["status=created"], ["new"]), (["status=created", "status=exited"], ["new", "done"]),
        (["ancestor=demo"], ["web"]), (["ancestor=plain:latest"], ["new", "done", "db"]), (["ancestor=nosuch"], []),
        (["before=done"], ["db", "web"]), (["since=db"], ["new", "done"]), (["volume=data"], ["web"]),
        (["volume=/data"], ["web"]), (["volume=other"], []), (["network=none"], ["new", "done", "db"]),
        ([f"publish={port}"], ["web"]), ([f"publish={port}/udp"], []), (["publish=1-65535"], ["web"]),
        (["expose=80"], ["web"]), (["expose=81-90"], []), (["health=none"], everything),
        ([f"id={inspect('db')['Id'][:9]}"], ["db"]),
    ]:  # fmt: skip
        given = [word for text in filters for word in ("--filter", text)]
        assert names("-a", *given) == expected, filters
    assert names("--filter", "status=exited") == ["done"]  # a status asked for needs no -a
    assert out("ps", "-q").split() == [inspect(name)["Id"][:12] for name in ("db", "web")]


@pytest.mark.parametrize(("words", "code", "why"), [
    (["ps", "--filter", "nope=1"], 1, "Invalid filter 'nope'"),
    (["ps", "--filter", "status=nope"], 1, "Invalid filter 'status=nope'"),
    (["ps", "--filter", "name=["], 1, "Invalid filter '['"),
    (["ps", "--filter", "exited=x"], 1, "Invalid filter 'exited=x'"),
    (["ps", "--filter", "before=nosuch"], 1, "No such container: nosuch"),
    (["ps", "--filter", "nope"], 125, "bad format of filter"),
    (["ps", "-n", "x"], 125, "invalid argument 'x'"),
    (["ps", "--format", "{{"], 1, "failed to parse template: template: :1: unclosed action"),
    (["ps", "word"], 1, "accepts no arguments"),
    (["images", "--filter", "nope=1"], 1, "Invalid filter 'nope'"),
    (["volume", "ls", "--filter", "dangling=x"], 1, "Invalid filter 'dangling=x'"),
    (["inspect", "-f", "{{.Id", "x"], 64, "template parsing error: template: :1: unclosed action"),
    (["inspect", "nosuch"], 1, "no such object: nosuch"),
    (["inspect", "--type", "nope", "x"], 1, "unknown type"),
    (["image", "inspect", "nosuch"], 1, "No such image: nosuch"),
    (["volume", "inspect", "nosuch"], 1, "no such volume: nosuch"),
    (["network", "inspect", "nosuch"], 1, "network nosuch not found"),
])  # fmt: skip
def test_what_cannot_be_looked_at(shop: Shop, words: list[str], code: int, why: str) -> None:
    done = minicontainer(*words, check=False)
    assert done.returncode == code
    assert done.stderr.startswith("minicontainer: ") and why in done.stderr, done.stderr


def test_sizes_are_those_of_the_writable_layer(cleared: Shop) -> None:
    run("web", "--network", "none", "plain", "sh", "-c", "head -c 12345 /dev/zero >/x; echo ready; sleep 600")
    out("logs", "web")
    with subprocess.Popen([sys.executable, "-m", "minicontainer", "logs", "-f", "web"], stdout=subprocess.PIPE) as logs:
        assert logs.stdout is not None
        assert logs.stdout.readline() == b"ready\n"
        logs.kill()
    image = json.loads(out("inspect", "plain"))[0]["Size"]
    assert re.fullmatch(r"12\.3kB \(virtual [\d.]+MB\)", out("ps", "--format", "{{.Size}}").strip())
    found = json.loads(out("inspect", "-s", "web"))[0]
    assert (found["SizeRw"], found["SizeRootFs"]) == (12345, 12345 + image)
    assert "SizeRw" not in inspect("web")
    assert out("inspect", "-f", "{{.SizeRw}}", "web") == "<nil>\n"


@pytest.mark.needs("bridge", "veth", "nftables", "ipv6")
def test_all_that_is_exposed_is_published_where_nobody_says_where(cleared: Shop) -> None:
    exposed = ["--expose", "80-81", "--expose", "53/udp"]
    out("run", "-d", "--name", "web", "-P", *exposed, "-p", "127.0.0.1:0:81", "plain", "sleep", "600")
    published = inspect("web")["NetworkSettings"]["Ports"]
    assert {inside: [place["HostIp"] for place in places] for inside, places in published.items()} == {
        "80/tcp": ["0.0.0.0", "::"], "81/tcp": ["127.0.0.1"], "53/udp": ["0.0.0.0", "::"],
    }  # fmt: skip
    numbers = [int(place["HostPort"]) for places in published.values() for place in places]
    assert min(numbers) > 1023 and len(set(numbers)) == 3
    host = inspect("web")["HostConfig"]
    assert host["PublishAllPorts"] and list(host["PortBindings"]) == ["81/tcp"]
    before = out("port", "web")
    out("restart", "web")
    assert out("port", "web").count("\n") == before.count("\n") == 5
    out("run", "-d", "--name", "no", "-P", *exposed, "--network", "none", "plain", "sleep", "600")
    assert out("port", "no") == ""
    assert not inspect("no")["NetworkSettings"]["Ports"]


def test_ports_in_a_row_are_shown_as_a_range(cleared: Shop) -> None:
    from minicontainer.cli import ps

    port = {"address": "0.0.0.0", "protocol": "tcp"}
    published = [{**port, "host": 8000 + number, "container": 8000 + number} for number in (0, 1, 2, 5)]
    published += [{**port, "host": 9000, "container": 80}]
    record = {"status": "running", "network": "bridge", "ports": published,
              "config": {"ExposedPorts": {"80/tcp": {}, "53/udp": {}, "443/tcp": {}}}}  # fmt: skip
    assert ps.ports(record) == (
        "0.0.0.0:8000-8002->8000-8002/tcp, 53/udp, 443/tcp, 0.0.0.0:8005->8005/tcp, 0.0.0.0:9000->80/tcp"
    )
    assert ps.ports({**record, "status": "exited"}) == ""


# inspect


def test_a_container_is_inspected_as_the_kernel_has_it(cleared: Shop) -> None:
    run("web", "-m", "64m", "--cpus", "0.5", "--pids-limit", "50", "--cap-add", "NET_ADMIN", "--cap-drop", "CHOWN",
        "-v", "data:/data:ro", "-v", "/srv:/srv:rslave", "-v", "/srv:/mine",
        "-p", "127.0.0.1:0:80", "--read-only", "--stop-signal", "INT", "-u", "alice",
        "demo", "sleep", "600")  # fmt: skip
    found = inspect("web")
    pid = found["State"]["Pid"]
    assert found["State"]["Running"] and found["State"]["Status"] == "running"
    assert Path(f"/proc/{pid}/cmdline").read_bytes() == b"sleep\x00600\0"
    host = found["HostConfig"]
    assert (host["Memory"], host["NanoCpus"], host["PidsLimit"]) == (64 << 20, 500_000_000, 50)
    assert (host["CapAdd"], host["CapDrop"], host["ReadonlyRootfs"]) == (["CAP_NET_ADMIN"], ["CAP_CHOWN"], True)
    assert (found["Config"]["User"], found["Config"]["StopSignal"]) == ("alice", "SIGINT")
    network = found["NetworkSettings"]
    assert os.readlink(network["SandboxKey"]) == os.readlink(f"/proc/{pid}/ns/net")
    seen = json.loads(subprocess.run(
        ["nsenter", f"--net={network['SandboxKey']}", "ip", "-j", "address", "show", "eth0"],
        capture_output=True, text=True, check=True).stdout)[0]  # fmt: skip
    address = seen["addr_info"][0]
    assert (network["IPAddress"], network["IPPrefixLen"]) == (address["local"], address["prefixlen"])
    assert network["MacAddress"] == network["Networks"]["bridge"]["MacAddress"] == seen["address"]
    assert network["Ports"]["80/tcp"][0]["HostIp"] == "127.0.0.1"
    layers = found["GraphDriver"]["Data"]
    merged = next(
        line for line in Path("/proc/self/mountinfo").read_text().splitlines()
        if line.split()[4] == layers["MergedDir"]
    )  # fmt: skip
    assert " overlay " in merged
    assert Path(layers["UpperDir"]).is_dir() and Path(layers["WorkDir"]).is_dir()
    assert [Path(lower, "bin").is_dir() for lower in layers["LowerDir"].split(":")] == [False, True]
    mounts = {mount["Destination"]: mount for mount in found["Mounts"]}
    assert (mounts["/data"]["Name"], mounts["/data"]["RW"]) == ("data", False)
    assert (mounts["/srv"]["Propagation"], mounts["/mine"]["Propagation"]) == ("rslave", "rprivate")
    assert json.loads(out("network", "inspect", "bridge"))[0]["Containers"][found["Id"]]["Name"] == "web"


def test_how_one_ended_for_want_of_memory(cleared: Shop) -> None:
    shop_run = minicontainer(
        "run", "--name", "fat", "--network", "none", "-m", "8m", "--memory-swap", "8m", "plain",
        "sh", "-c", "head -c 100m /dev/zero | tail", check=False,
    )  # fmt: skip
    found = inspect("fat")["State"]
    assert found["OOMKilled"] is True
    assert found["ExitCode"] == shop_run.returncode
    out("run", "--name", "thin", "--network", "none", "plain", "true")
    assert inspect("thin")["State"]["OOMKilled"] is False


def test_the_talks_tour_of_the_host(cleared: Shop) -> None:
    """Typed as the slide types it: the namespace by name, the other end of the cable by its index."""
    cont = "web"
    run(cont, "demo", "sleep", "600")
    here = {**os.environ, "cont": cont, "docker": f"{sys.executable} -m minicontainer"}
    script = """
        set -e
        pid=$($docker inspect -f '{{.State.Pid}}' $cont)
        mkdir -p /var/run/netns/
        ln -sT /proc/$pid/ns/net /var/run/netns/mc-$$-$cont
        trap "rm /var/run/netns/mc-$$-$cont" EXIT
        ip netns exec mc-$$-$cont ip -o link show eth0
        ls $($docker inspect -f '{{.GraphDriver.Data.MergedDir}}' $cont)
    """
    done = subprocess.run(["sh", "-c", script], env=here, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    cable, *root = done.stdout.splitlines()
    index, peer = re.match(r"(\d+): eth0@if(\d+):", cable).groups()  # type: ignore[union-attr]
    ours = {name: Path(f"/sys/class/net/{name}") for name in os.listdir("/sys/class/net")}
    other = next(name for name, path in ours.items() if (path / "ifindex").read_text().strip() == peer)
    assert (ours[other] / "iflink").read_text().strip() == index
    bridge = json.loads(out("inspect", "bridge"))[0]["Options"]["com.docker.network.bridge.name"]
    assert os.path.basename(os.readlink(ours[other] / "master")) == bridge
    assert set(root) >= {"bin", "etc", "proc", "srv", "sys", "tmp"}


# images, volume ls


def test_images_by_filter_and_format(shop: Shop) -> None:
    def listed(*arguments: str) -> list[str]:
        """Of the shop's three: other tests have committed images of theirs to the same store."""
        names = out("images", "--format", "{{.Repository}}", *arguments).split()
        return sorted(name for name in names if name in ("demo", "foreign", "plain"))

    assert listed() == ["demo", "foreign", "plain"]
    assert listed("--filter", "reference=d*") == ["demo"]
    assert listed("--filter", "reference=*:latest") == ["demo", "foreign", "plain"]
    assert listed("--filter", "label=made=by hand") == ["demo"]
    assert listed("--filter", "dangling=true") == []
    found = json.loads(out("images", "--format", "json", "demo"))
    identifier = json.loads(out("inspect", "demo"))[0]["Id"]
    assert identifier.startswith(f"sha256:{found['ID']}")
    assert out("images", "-q", "--no-trunc", "demo").strip() == identifier


def test_volumes_by_filter_and_format(cleared: Shop) -> None:
    out("volume", "create", "--label", "a=1", "one")
    out("volume", "create", "two")
    out("create", "--name", "user", "--network", "none", "-v", "two:/x", "plain", "true")
    try:
        assert out("volume", "ls", "--format", "{{.Name}} {{.Mountpoint}}", "--filter", "name=one").split() == [
            "one", f"{cleared.root}/volumes/one/_data"]  # fmt: skip
        assert out("volume", "ls", "-q", "--filter", "label=a=1").split() == ["one"]
        assert out("volume", "ls", "-q", "--filter", "dangling=true", "--filter", "name=one|two").split() == ["one"]
        assert out("volume", "ls", "-q", "--filter", "dangling=false").split() == ["two"]
        assert out("volume", "inspect", "-f", "{{.Labels.a}}", "one") == "1\n"
    finally:
        out("rm", "user")
        out("volume", "rm", "one", "two")
