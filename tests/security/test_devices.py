"""The host's devices, by a node that lies in a bundle's root or is made there: its cgroup says who may open it."""

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from tests.runtime.test_oci import Engine, engine  # noqa: F401

pytestmark = [pytest.mark.root, pytest.mark.needs("busybox"), pytest.mark.vm]

READ = ("dd", "count=1", "of=/dev/null")
EVERYTHING = [{"allow": True, "access": "rwm"}]
ANOTHER = [{"allow": True, "type": "c", "major": 1, "minor": 11, "access": "r"}]


@pytest.fixture
def disk(engine: Engine) -> int:  # noqa: F811
    """The number of one of the machine's disks, if need be one without content, that the machine's root may open.

    A node for it is in the bundle, and open to all.
    """
    for name in ("dd", "mknod"):
        (engine.bundle / "rootfs/bin" / name).symlink_to("busybox")
    node = engine.bundle / "rootfs/disk"
    for path in sorted(Path("/sys/block").glob("*/dev")):
        number = os.makedev(*map(int, path.read_text().split(":")))
        os.mknod(node, stat.S_IFBLK, number)
        os.chmod(node, 0o666)
        try:
            os.close(os.open(node, os.O_RDONLY))
            return number
        except OSError:
            node.unlink()
    pytest.skip("this machine has no disk that its root may open")


@pytest.mark.parametrize("asked", [None, [], ANOTHER], ids=["no resources", "no rules", "a rule that allows another"])
def test_a_node_of_the_hosts_disk_in_a_bundle_opens_nothing(
    engine: Engine,
    disk: int,
    asked: list[dict[str, Any]] | None,  # noqa: F811
) -> None:
    """Without any capability, and as an ordinary user; nor does one that a later process makes, who may make nodes."""
    engine.config["linux"]["resources"] = None if asked is None else {"devices": asked}
    engine.command("sleep", "1000")
    engine.create()
    engine("start", "c", check=True)
    assert engine("exec", "c", *READ, "if=/dev/zero").returncode == 0, "the default ones can be used"
    for flags in ([], ["--user", "1000:1000"]):
        assert "Operation not permitted" in engine("exec", *flags, "c", *READ, "if=/disk").stderr
    made = f"mknod /made b {os.major(disk)} {os.minor(disk)} && dd if=/made count=1 of=/dev/null"
    done = engine("exec", "--cap", "CAP_MKNOD", "c", "sh", "-c", made)
    assert "can't open '/made': Operation not permitted" in done.stderr


def test_who_asks_for_all_devices_has_them(engine: Engine, disk: int) -> None:  # noqa: F811
    """The control: as engines ask for a privileged container."""
    engine.config["linux"]["resources"] = {"devices": EVERYTHING}
    engine.command(*READ, "if=/disk")
    assert engine("run", "--bundle", str(engine.bundle), "c").returncode == 0
