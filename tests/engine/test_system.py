"""`system reset` leaves the machine as it was; `system check` sees what does not belong."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests import leftovers
from tests.conftest import minicontainer

pytestmark = [pytest.mark.root, pytest.mark.needs("bridge", "veth", "nftables")]

# In a network namespace of its own, where nobody else has set ip_forward or a rule.
SCRIPT = """
set -eu
minicontainer() { "$PYTHON" -m minicontainer "$@"; }
look() { cat /proc/sys/net/ipv4/ip_forward; ip -o link | cut -d: -f2 | cut -d@ -f1; nft list tables; }
echo 0 >/proc/sys/net/ipv4/ip_forward  # a new namespace copies its maker's
look >before
minicontainer bootstrap busybox >&2
minicontainer volume create data >&2
minicontainer run --rm busybox true
minicontainer run -v data:/data --name stays busybox sh -c 'echo hello >/data/file' || true
test "$(cat /proc/sys/net/ipv4/ip_forward)" = 1
minicontainer system reset --force
for _ in $(seq 100); do  # the kernel takes a namespace down, and a cable with it, in its own time
    look >after
    ! cmp -s before after || break
    sleep 0.1
done
diff before after
"""


def test_reset_leaves_the_machine_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "store"
    monkeypatch.setenv("MINICONTAINER_ROOT", str(root))
    monkeypatch.setenv("PYTHON", sys.executable)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    done = subprocess.run(
        ["unshare", "-n", "sh", "-c", SCRIPT], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "after").read_text().startswith("0\n"), "it forwarded nothing before, and does not now"
    assert not root.exists()
    assert leftovers.find(root, leftovers.suffix(root)) == []
    assert not Path(f"/run/minicontainer{leftovers.suffix(root)}").exists()
    for point in leftovers.HIERARCHIES:
        assert not Path(f"{point}/minicontainer{leftovers.suffix(root)}").exists()


# What the first version that kept containers wrote.
FIRST = (
    "id", "name", "created", "image", "image_id", "layers", "args", "labels", "remove", "network", "ports", "mounts",
    "anonymous", "cgroup", "status", "exit_code", "started",
)  # fmt: skip


@pytest.mark.needs("overlay", "busybox", "libseccomp")
def test_a_record_of_an_earlier_version_stands_in_nobodys_way(tmp_path: Path) -> None:
    with leftovers.store_with_busybox(tmp_path / "store") as root:
        identifier = minicontainer("create", "--name", "old", "--network", "none", "busybox", "true").stdout.strip()
        path = root / "containers" / identifier / "record.json"
        record = {**json.loads(path.read_text()), "status": "running", "started": "2020-01-01T00:00:00.000000000Z"}
        path.write_text(json.dumps({field: record[field] for field in FIRST}))
        assert "Exited (137)" in minicontainer("ps", "-a").stdout
        assert json.loads(minicontainer("inspect", "old").stdout)[0]["State"]["Status"] == "exited"
        minicontainer("system", "reset", "--force")
        assert leftovers.find(root, leftovers.suffix(root)) == []
