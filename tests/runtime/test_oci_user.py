"""`oci` as the root of a user namespace, to whom no cgroup was lent."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from minicontainer.runtime import spec, state
from tests.conftest import CHECKOUT

pytestmark = [pytest.mark.userns, pytest.mark.needs("user-namespace", "busybox")]


@pytest.mark.parametrize("begun", [False, True], ids=["created", "running"])
def test_deleted_by_force_it_has_ended(tmp_path: Path, begun: bool) -> None:
    """Nothing but its process is there to be killed: there is no cgroup to find it by."""
    (tmp_path / "rootfs/bin").mkdir(parents=True)
    shutil.copy(shutil.which("busybox") or "", tmp_path / "rootfs/bin/sleep")
    config = spec.default()
    config["process"]["args"] = ["sleep", "1000"]
    config["mounts"] = [entry for entry in config["mounts"] if entry["destination"] == "/proc"]
    (tmp_path / "config.json").write_text(json.dumps(config))

    def oci(*words: str) -> None:
        runtime = ["unshare", "-Ur", sys.executable, "-m", "minicontainer", "oci", "--root", str(tmp_path / "state")]
        null = subprocess.DEVNULL
        subprocess.run([*runtime, *words], check=True, timeout=60, cwd=CHECKOUT, stdin=null, stdout=null)

    oci("create", "--bundle", str(tmp_path), "--pid-file", str(tmp_path / "pid"), "c")
    if begun:
        oci("start", "c")
    oci("delete", "--force", "c")
    pid = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 30
    while (started := state.start_time(pid)) and state.alive(pid, started):
        assert time.monotonic() < deadline, "it lives on, and nobody knows it any more"
        time.sleep(0.02)
    assert list((tmp_path / "state").iterdir()) == []


def test_a_bundle_for_whoever_runs_it(tmp_path: Path) -> None:
    """`spec --rootless`: root in a user namespace of its own that knows one id, this user's."""
    (tmp_path / "rootfs/bin").mkdir(parents=True)
    shutil.copy(shutil.which("busybox") or "", tmp_path / "rootfs/bin/cat")

    def oci(*words: str, **more: Any) -> subprocess.CompletedProcess[str]:
        runtime = [sys.executable, "-m", "minicontainer", "oci", "--root", str(tmp_path / "state")]
        null = subprocess.DEVNULL
        return subprocess.run([*runtime, *words], check=True, timeout=60, cwd=CHECKOUT, stdin=null, text=True, **more)

    oci("spec", "--rootless", "--bundle", str(tmp_path))
    config = json.loads((tmp_path / "config.json").read_text())
    config["process"]["args"] = ["cat", "/proc/self/uid_map", "/proc/self/gid_map", "/proc/self/setgroups"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    said = oci("run", "--bundle", str(tmp_path), "c", stdout=subprocess.PIPE).stdout
    assert said.split() == ["0", str(os.geteuid()), "1", "0", str(os.getegid()), "1", "deny"]
