"""What root of a container with `--userns auto` is outside: nobody."""

import os
from pathlib import Path

import pytest

from tests.engine_fixtures import Shop, fresh_shop  # noqa: F401

pytestmark = [pytest.mark.root, pytest.mark.needs("busybox", "idmapped-overlay")]
AUTO = ("--userns", "auto")

WAYS = """
kill -0 $1 2>/dev/null && echo kill
kill -0 $2 2>/dev/null && echo kill-host
ls /proc/$2/root/ >/dev/null 2>&1 && echo root
{ cat /secret/file || echo x > /secret/file || touch /secret/new || chown 0 /secret/file; } >/dev/null 2>&1 && echo file
{ mknod /disk b 8 0 || cat /dev/mem; } >/dev/null 2>&1 && echo device
for knob in /proc/$2/oom_score_adj /proc/sys/kernel/panic; do
    read value < $knob; { echo $value > $knob; } 2>/dev/null && echo knob
done
echo tried
"""


def test_root_of_one_is_nobody_outside_and_not_the_others(shop: Shop, tmp_path: Path) -> None:  # noqa: F811
    """By the kernel's own state; then root of a privileged one, who sees the host's processes and one of its
    directories, tries what root of the machine could do: to it, and to another container."""
    secret = tmp_path / "secret"
    secret.mkdir(0o700)
    (secret / "file").write_text("secret")
    (secret / "file").chmod(0o600)
    wait = ("plain", "sh", "-c", "echo ready; sleep 1000")
    with shop.start(*AUTO, *wait, name="one") as one, shop.start(*AUTO, *wait, name="two") as two:
        ranges = []
        for container in (one, two):
            [line] = Path(f"/proc/{container.pid}/uid_map").read_text().splitlines()
            inside, first, count = map(int, line.split())
            assert Path(f"/proc/{container.pid}/gid_map").read_text().split() == line.split()
            assert inside == 0 and first >= 1 << 16
            assert container.status("Uid").split() == container.status("Gid").split() == [str(first)] * 4
            assert container.namespace("user") != os.readlink("/proc/self/ns/user")
            ranges.append(range(first, first + count))
        assert one.namespace("user") != two.namespace("user")
        assert not set(ranges[0]) & set(ranges[1])
        words = ("--privileged", "--pid", "host", "-v", f"{secret}:/secret", "plain", "sh", "-c", WAYS, "sh")
        victims = (str(one.pid), str(os.getpid()))
        assert shop.out(*AUTO, *words, *victims).splitlines() == ["tried"]
        control = shop.out(*words, *victims).splitlines()
        assert {"kill", "kill-host", "root", "file", "device", "knob", "tried"} <= set(control), (
            "who is root outside does it"
        )
