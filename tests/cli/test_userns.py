"""`run --userns auto`: what the kernel shows of its processes and the disk of its files, and that all else goes on."""

import contextlib
import itertools
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from minicontainer.engine import userns
from minicontainer.image import store
from tests.conftest import CHECKOUT, minicontainer
from tests.engine_fixtures import Shop, fresh_shop  # noqa: F401

pytestmark = [pytest.mark.root, pytest.mark.needs("busybox", "idmapped-overlay")]
AUTO = ("--userns", "auto")


def first_of(pid: int) -> int:
    """Which id of the machine its root is."""
    [line] = Path(f"/proc/{pid}/uid_map").read_text().splitlines()
    assert Path(f"/proc/{pid}/gid_map").read_text().splitlines() == [line]
    inside, outside, count = map(int, line.split())
    assert (inside, count) == (0, 65536)
    return outside


def leases(shop: Shop) -> list[str]:
    """What the store's containers have of the machine's ids."""
    found = []
    for name in os.listdir(userns.PLACE) if os.path.isdir(userns.PLACE) else ():
        with contextlib.suppress(FileNotFoundError):  # another store's, just given back
            found += [name] if os.readlink(f"{userns.PLACE}/{name}").startswith(f"{shop.root}/") else []
    return found


def on_disk(path: Path) -> tuple[int, int]:
    """Owner and group."""
    info = path.lstat()
    return info.st_uid, info.st_gid


@pytest.fixture
def name(shop: Shop) -> Iterator[str]:  # noqa: F811
    """A container that runs, with changes; afterwards nobody has its ids."""
    script = "echo more >> /opt/script; mkdir /mine; touch /mine/file; chown 7:8 /mine/file; rm /opt/plain; echo; cat"
    words = ["-di", "--network", "none", *AUTO, "--name", "mapped", "-v", "kept:/srv/data", "demo", "sh", "-c", script]
    minicontainer("run", *words)
    minicontainer("exec", "mapped", "sh", "-c", "until test ! -e /opt/plain; do sleep 0.05; done")
    assert len(leases(shop)) == 1
    try:
        yield "mapped"
    finally:
        minicontainer("rm", "-f", "mapped")
        assert leases(shop) == []


def pid_of(name: str) -> int:
    return int(minicontainer("inspect", "-f", "{{.State.Pid}}", name).stdout)


SHOWN = "stat -c %u:%g /bin/sh /opt/script /mine /mine/file /etc/hosts /srv/data /srv/data/sub/two"
OWNERS = ["0:0", "1000:1000", "0:0", "7:8", "0:0", "1000:1000", "1000:1000"]


def test_owners_inside_are_the_images_and_on_disk_they_are_the_same(shop: Shop, name: str) -> None:  # noqa: F811
    """Nothing is shifted on disk, not the layers, not its changes, not a volume; what is seen of it outside is."""
    pid = pid_of(name)
    first = first_of(pid)
    assert first >= 1 << 16
    assert minicontainer("exec", name, "sh", "-c", SHOWN).stdout.splitlines() == OWNERS
    upper = shop.root / "containers" / minicontainer("inspect", "-f", "{{.Id}}", name).stdout.strip() / "upper"
    assert (on_disk(upper / "mine/file"), on_disk(upper / "opt/script")) == ((7, 8), (1000, 1000))
    assert on_disk(shop.root / "volumes/kept/_data/sub/two") == (1000, 1000)
    layers = store.Store(str(shop.root))
    files = [path for layer in layers.layer_directories(layers.get("demo")) for path in Path(layer).rglob("*")]
    assert set(map(on_disk, files)) == {(0, 0), (1000, 1000)}
    root = Path(f"/proc/{pid}/root")
    assert on_disk(root / "bin/busybox") == (first, first) and on_disk(root / "mine/file") == (first + 7, first + 8)
    told = minicontainer("inspect", "-f", "{{.HostConfig.UsernsMode}} {{.HostConfig.IDMappings.UidMap}}", name).stdout
    assert told == f"auto [0:{first}:65536]\n"
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    assert [point for point in points if point.startswith(str(shop.root)) and point.endswith("/work")] == []


def test_copied_exported_committed_and_started_again(shop: Shop, name: str, tmp_path: Path) -> None:  # noqa: F811
    """All of it in the container's own ids, whether it runs or not."""
    (tmp_path / "in").write_text("x")
    os.chown(tmp_path / "in", 5, 6)
    for again in ("running", "stopped"):
        minicontainer("cp", "-a", str(tmp_path / "in"), f"{name}:/mine/{again}")
        minicontainer("cp", str(tmp_path / "in"), f"{name}:/srv/data/{again}")
        minicontainer("cp", "-a", f"{name}:/mine", str(tmp_path / again))
        assert on_disk(tmp_path / again / "file") == (7, 8) and on_disk(tmp_path / again) == (0, 0)
        minicontainer("export", "-o", str(tmp_path / "tar"), name)
        with tarfile.open(tmp_path / "tar") as tar:
            owners = {entry.name: (entry.uid, entry.gid) for entry in tar}
        assert (owners["mine/file"], owners["bin/busybox"], owners["opt/script"]) == ((7, 8), (0, 0), (1000, 1000))
        assert minicontainer("diff", name).stdout.splitlines() == [
            "A /mine", "A /mine/file", "A /mine/running", *(["A /mine/stopped"] if again == "stopped" else []),
            "C /opt", "D /opt/plain", "C /opt/script",
        ]  # fmt: skip
        if again == "running":
            minicontainer("stop", "-t", "0", name)
    minicontainer("commit", name, "again")
    try:
        shown = "stat -c %u:%g /mine /mine/file /mine/running /mine/stopped /opt/script; test -e /opt/plain; echo $?"
        whose = ["0:0", "7:8", "5:6", "5:6", "1000:1000", "1"]
        for words in ((), AUTO):
            assert shop.out(*words, "again", "sh", "-c", shown).splitlines() == whose
    finally:
        minicontainer("rmi", "again")
    minicontainer("start", name)
    shown = "stat -c %u:%g /mine/file /mine/running /srv/data/running /srv/data/stopped"
    assert minicontainer("exec", name, "sh", "-c", shown).stdout.split() == ["7:8", "5:6", "0:0", "0:0"]


def test_binds_are_as_they_are_unless_idmap_is_said(shop: Shop, tmp_path: Path) -> None:  # noqa: F811
    place = tmp_path / "place"
    place.mkdir()
    (place / "secret").write_text("x")
    (place / "secret").chmod(0o600)
    script = "stat -c %u /one /two /two/secret; cat /one/secret || touch /one/new || touch /two/new"
    for mapped in (("-v", f"{place}:/two:idmap"), ("--mount", f"type=bind,source={place},target=/two,idmap")):
        found = shop.run(*AUTO, "-v", f"{place}:/one", *mapped, "plain", "sh", "-c", script)
        assert found.stdout.split() == ["65534", "0", "0"]
    assert on_disk(place / "new") == (0, 0)
    assert shop.run(*AUTO, "-v", f"{place}:/one:ro", "plain", "touch", "/one/x", check=False).returncode == 1
    assert "--userns auto" in shop.refused(125, "-v", f"{place}:/one:idmap", "plain", "true")


@pytest.mark.parametrize(
    "flags",
    [
        ("--network", "host"), ("--network", "bridge"), ("--pid", "host"), ("--ipc", "host", "--uts", "host"),
        ("--privileged",), ("--read-only", "--tmpfs", "/scratch", "--cap-drop", "ALL"), ("--userns", "auto:size=1001"),
    ],
)  # fmt: skip
def test_beside_other_flags_its_root_is_nobody_outside(shop: Shop, flags: tuple[str, ...]) -> None:  # noqa: F811
    script = "id -u; readlink /proc/self/ns/user; test -d /sys/class && read line < /proc/self/uid_map && echo $line"
    ours = os.readlink("/proc/self/ns/user")
    root, space, line = shop.out(*AUTO, *flags, "plain", "sh", "-c", script).splitlines()
    assert root == "0" and space != ours and line.split()[0] == "0" and int(line.split()[1]) >= 1 << 16
    assert int(line.split()[2]) == (1001 if "auto:size=1001" in flags else 65536)
    assert leases(shop) == []


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--userns", "keep-id"), "keep-id"),
        (("--userns", "auto:uidmapping=0:1:2"), "uidmapping"),
        (("--userns", "auto", "-u", "70000"), "70000"),
        (("--userns", "auto", "--ipc", "container:other"), "--ipc container:other"),
        (("--userns", "auto:size=16777216", "--entrypoint", "/nosuch"), "/nosuch"),
    ],
)
def test_what_is_refused_takes_no_ids(shop: Shop, flags: tuple[str, ...], said: str) -> None:  # noqa: F811
    with shop.start("plain", "sh", "-c", "echo ready; sleep 1000", name="other"):
        done = shop.run(*flags, "plain", "true", check=False)
        assert done.returncode in (125, 127) and said in done.stderr
        assert leases(shop) == []


def test_many_at_once_have_ids_of_their_own(shop: Shop) -> None:  # noqa: F811
    """Each waits until all are there."""
    words = [sys.executable, "-m", "minicontainer", "run", "--rm", "-i", "--network", "none", *AUTO, "plain"]
    words += ["sh", "-c", "cat /proc/self/uid_map; cat"]
    pipe = subprocess.PIPE
    clients = [subprocess.Popen(words, cwd=CHECKOUT, stdin=pipe, stdout=pipe, text=True) for _ in range(6)]
    try:
        firsts = []
        for client in clients:
            assert client.stdout is not None
            firsts.append(int(client.stdout.readline().split()[1]))
        firsts.sort()
        assert all(after - before >= 65536 for before, after in itertools.pairwise(firsts))
    finally:
        for client in clients:
            client.communicate("", timeout=60)
    assert leases(shop) == []
