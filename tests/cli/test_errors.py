"""What goes wrong is told in one sentence, has docker's exit code, and leaves nothing behind."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests import leftovers
from tests.conftest import minicontainer
from tests.engine_fixtures import Shop, fresh_shop  # noqa: F401

pytestmark = pytest.mark.root


def test_the_command_is_not_found(shop: Shop) -> None:
    said = shop.refused(127, "demo", "nosuch")
    assert "nosuch" in said and "executable file not found in $PATH" in said
    assert "/no/such" in shop.refused(127, "demo", "/no/such")
    assert "interpreter" in shop.refused(127, "demo", "/opt/script")
    assert "/etc/passwd/x" in shop.refused(127, "demo", "/etc/passwd/x")


def test_the_command_cannot_be_executed(shop: Shop) -> None:
    assert "Permission denied" in shop.refused(126, "demo", "/opt/plain")
    assert "directory" in shop.refused(126, "demo", "/etc")
    assert "Permission denied" in shop.refused(126, "demo", "plain")  # found in $PATH, as docker looks for it
    assert "nor a script" in shop.refused(126, "demo", "/opt/noise")


def test_a_command_that_its_user_may_not_reach(shop: Shop) -> None:
    assert "Permission denied" in shop.refused(126, "-u", "alice", "demo", "/root/x")


def test_another_architecture_is_named_and_so_is_ours(shop: Shop) -> None:
    said = shop.refused(126, "foreign")
    assert "s390x" in said and ("amd64" in said or "arm64" in said)


def test_no_command_at_all(shop: Shop) -> None:
    assert "no command" in shop.refused(125, "plain")
    assert "no command" in shop.refused(125, "--entrypoint", "", "demo")


def test_no_such_image(shop: Shop) -> None:
    said = shop.refused(125, "nosuch", "true")
    assert "No such image: nosuch" in said and "load" in said
    assert "demo:v9" in shop.refused(125, "demo:v9", "true")


@pytest.mark.parametrize(
    "name", ["UPPER/case", "a//b", "-", "demo:", "demo@sha256:12", "ä", "a" * 300, "demo:latest:x"]
)
def test_what_is_no_image_name(shop: Shop, name: str) -> None:
    shop.refused(125, name, "true")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--nosuch demo true", "unknown flag: --nosuch"),
        ("-Z demo true", "unknown shorthand flag: 'Z'"),
        ("--name", "flag needs an argument: --name"),
        ("--rm", "needs an image"),
        ("--network nosuch demo true", "no such network: nosuch"),
        ("--network container:nosuch demo true", "No such container: nosuch"),
        ("--pid container:nosuch demo true", "No such container: nosuch"),
        ("--pid nosuch demo true", "no pid mode 'nosuch'"),
        ("--pid none demo true", "no pid mode 'none'"),
        ("--ipc nosuch demo true", "no ipc mode 'nosuch'"),
        ("--uts private demo true", "no uts mode 'private'"),
        ("--uts host --hostname x demo true", "conflicts with --uts host"),
        ("--hostname " + "x" * 65 + " demo true", "at most 64"),
        ("--name ? demo true", "invalid container name"),
        ("-p 80:80 --network none demo true", "bridge only"),
        ("-p x --network bridge demo true", "invalid containerPort: x"),
        ("-p 99999:80 --network bridge demo true", "invalid hostPort: 99999"),
        ("-p 1.2.3.4.5:80:80 --network bridge demo true", "invalid IP address"),
        ("-p 80/icmp --network bridge demo true", "invalid proto: icmp"),
        ("-v /x:rel demo true", "invalid volume specification"),
        ("-v a:b:c:d demo true", "invalid volume specification"),
        ("-v /x:/y:wrong demo true", "no option 'wrong'"),
        ("-v /x:/ demo true", "cannot be /"),
        ("-v ?:/x demo true", "no name for a volume"),
        ("--mount type=bind,source=/no/such,target=/x demo true", "does not exist: /no/such"),
        ("--mount type=bind,target=/x demo true", "source=PATH"),
        ("--mount type=wrong,target=/x demo true", "bind, volume or tmpfs"),
        ("--mount type=tmpfs demo true", "absolute path"),
        ("--mount wrong=1,target=/x demo true", "no field 'wrong'"),
        ("--tmpfs rel demo true", "absolute path"),
        ("--tmpfs /x:wrong demo true", "does not take the options 'wrong'"),
        ("--env-file /no/such demo true", "--env-file /no/such"),
        ("--env-file /etc demo true", "--env-file /etc"),
        ("-u nosuch demo true", "no user 'nosuch'"),
        ("-u alice:nosuch demo true", "no group 'nosuch'"),
        ("-u 4294967295 demo true", "0 to 2147483647"),
        ("-u 99999999999999999999 demo true", "0 to 2147483647"),
        ("-u 1:4294967295 demo true", "0 to 2147483647"),
        ("--group-add nosuch demo true", "no group 'nosuch'"),
        ("-w relative demo true", "not an absolute path"),
        ("-w /etc/passwd demo true", "/etc/passwd"),
        ("-w /etc/passwd/x demo true", "/etc/passwd"),
        ("--sysctl net.nosuch=1 demo true", "net/nosuch"),
        ("--sysctl kernel.nosuch=1 demo true", "kernel.nosuch"),
        ("--sysctl kernel.panic=1 demo true", "whole machine"),
        ("--sysctl vm.swappiness=1 demo true", "whole machine"),
        ("--sysctl net.ipv4.ip_forward=1 --network host demo true", "for others, too"),
        ("--sysctl kernel.msgmax=1 --ipc host demo true", "for others, too"),
        ("--ulimit nosuch=1 demo true", "invalid ulimit type"),
        ("--ulimit nofile=9:8 demo true", "at most the hard one"),
        ("--memory 1m demo true", "6m"),
        ("--memory x demo true", "--memory"),
        ("--cpus 9999 demo true", "range of CPUs"),
        ("--cpuset-cpus 9999 demo true", "--cpuset-cpus 9999"),
        ("--cpuset-cpus x demo true", "list of numbers"),
        ("--device /dev/nosuch demo true", "/dev/nosuch"),
        ("--device /etc/passwd demo true", "not a device"),
        ("--device /dev/null:/dev/x:q demo true", "--device"),
        ("--cap-add NOSUCH demo true", "NOSUCH"),
        ("--security-opt nosuch demo true", "--security-opt"),
        ("--security-opt seccomp=/no/such demo true", "/no/such"),
        ("--cidfile /no/such/file demo true", "--cidfile /no/such/file"),
        ("--explain=wrong demo true", "--explain"),
    ],
)
def test_one_sentence(shop: Shop, flags: str, said: str) -> None:
    before = Path("/proc/sys/kernel/panic").read_text(), Path("/proc/sys/vm/swappiness").read_text()
    assert said in shop.refused(125, *flags.split())
    assert (Path("/proc/sys/kernel/panic").read_text(), Path("/proc/sys/vm/swappiness").read_text()) == before


def test_a_ulimit_that_cannot_be_raised(shop: Shop) -> None:
    """Where we lack CAP_SYS_RESOURCE, the kernel says no; where we have it, nr_open does."""
    said = shop.refused(125, "--ulimit", "nofile=2000000000", "demo", "true")
    assert "RLIMIT_NOFILE" in said


def test_a_name_that_is_taken(shop: Shop) -> None:
    """The second start fails, and its failure neither frees the first one's name nor ends it."""
    with shop.start("demo", "sh", "-c", "echo ready; sleep 60", name="taken") as first:
        done = shop.run("--name", "taken", "demo", "true", check=False)
        assert done.returncode == 125
        assert "taken" in done.stderr and first.id[:12] in done.stderr
        assert os.readlink(shop.root / "containers/names/taken") == first.id
        assert Path(f"/proc/{first.pid}").exists()
        assert os.listdir(shop.root / "containers").count("names") == 1
        assert [name for name in os.listdir(shop.root / "containers") if name != "names"] == [first.id]


@pytest.mark.needs("bridge", "veth", "nftables")
def test_a_port_that_a_container_has(shop: Shop) -> None:
    arguments = ("--network", "bridge", "-p", "127.0.0.1:18080:80")
    with shop.start(*arguments, "demo", "sh", "-c", "echo ready; sleep 60") as first:
        done = shop.run(*arguments, "demo", "true", check=False)
        assert done.returncode == 125, done.stderr
        assert "18080" in done.stderr and first.id[:12] in done.stderr
        assert [name for name in os.listdir(shop.root / "containers") if name != "names"] == [first.id]


@pytest.mark.needs("bridge", "veth", "nftables")
def test_a_port_that_a_program_of_the_host_has(shop: Shop) -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        port = listening.getsockname()[1]
        assert str(port) in shop.refused(125, "--network", "bridge", "-p", f"127.0.0.1:{port}:80", "demo", "true")


def test_a_cidfile_that_exists_is_not_touched(shop: Shop, tmp_path: Path) -> None:
    file = tmp_path / "cid"
    file.write_text("somebody's")
    assert "exists" in shop.refused(125, "--cidfile", str(file), "demo", "true")
    assert file.read_text() == "somebody's"


def test_a_start_that_fails_leaves_no_cidfile(shop: Shop, tmp_path: Path) -> None:
    shop.refused(127, "--cidfile", str(tmp_path / "cid"), "demo", "nosuch")
    assert not (tmp_path / "cid").exists()


def test_without_rm_a_failed_start_leaves_a_container_that_is_created(shop: Shop) -> None:
    """And nothing in the kernel. As docker does it."""
    before = sorted((shop.root / "volumes").glob("*"))
    done = shop.run(
        "--name", "failed", "--memory", "64m", "-v", "/anonymous", "demo", "nosuch", remove=False, check=False
    )
    assert (done.returncode, done.stdout) == (127, "")
    identifier = os.readlink(shop.root / "containers/names/failed")
    # Two names for it in the store, and nothing but those.
    assert sorted(leftovers.find(shop.root, shop.suffix)) == [
        f"{shop.root}/containers/{identifier}",
        f"{shop.root}/containers/names/failed",
    ]
    state = json.loads(minicontainer("inspect", "failed").stdout)[0]["State"]
    assert (state["Status"], state["ExitCode"], state["Running"]) == ("created", 127, False)
    assert "nosuch" in state["Error"]
    minicontainer("rm", "-v", "failed")
    assert sorted((shop.root / "volumes").glob("*")) == before


@pytest.mark.needs("bridge", "veth", "nftables")
def test_a_start_on_the_bridge_that_fails_leaves_nothing(shop: Shop) -> None:
    shop.refused(127, "--network", "bridge", "-p", "18081:80", "--memory", "64m", "demo", "nosuch")


def test_a_terminal_without_a_terminal(shop: Shop) -> None:
    assert "not a TTY" in shop.refused(125, "-it", "demo", "true")


def test_a_damaged_image_is_not_run(shop: Shop) -> None:
    """A config that was changed on disk has another digest."""
    blobs = shop.root / "blobs/sha256"
    config = blobs / json.loads(minicontainer("inspect", "demo").stdout)[0]["Id"].removeprefix("sha256:")
    content = config.read_bytes()
    assert b"the default command" in content
    try:
        config.write_bytes(content.replace(b"the default command", b"another, bad command"))
        shop.refused(125, "demo", "true")
    finally:
        config.write_bytes(content)


def test_what_is_no_command(shop: Shop) -> None:
    for words in (["nosuch"], ["--nosuch"]):
        done = subprocess.run([sys.executable, "-m", "minicontainer", *words], capture_output=True, text=True)
        assert done.returncode in (1, 125)
        assert "not a command" in done.stderr


def test_a_host_path_that_cannot_be_made(shop: Shop, tmp_path: Path) -> None:
    """`-v` makes the host's path; below a file it cannot."""
    (tmp_path / "file").write_text("")
    said = shop.refused(125, "-v", f"{tmp_path}/file/x:/x", "demo", "true")
    assert f"{tmp_path}/file" in said
    assert leftovers.find(shop.root, shop.suffix) == []


def test_a_directory_over_a_file(shop: Shop, tmp_path: Path) -> None:
    said = shop.refused(125, "-v", f"{tmp_path}:/etc/passwd", "demo", "true")
    assert "/etc/passwd" in said
