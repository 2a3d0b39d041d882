"""AppArmor profiles on a kernel that has AppArmor. Asserts what the kernel says, and what it does."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from minicontainer.kernel import apparmor
from minicontainer.runtime import spec
from tests.conftest import minicontainer, need
from tests.kernel.test_apparmor import confined_where

pytestmark = pytest.mark.root

# All but one file, which belongs to root: only the profile keeps it from being written.
NAME = "minicontainer-test"
PROFILE = """
profile minicontainer-test flags=(attach_disconnected,mediate_deleted) {
  file,
  capability,
  network,
  signal,
  mount,
  umount,
  deny /tmp/forbidden w,
}
"""
TRY = "cat /proc/self/attr/apparmor/current; echo >/tmp/allowed; echo >/tmp/forbidden; ls /tmp"


@pytest.fixture(scope="module", autouse=True)
def profile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The profile, loaded, and a store with the image busybox."""
    if not apparmor.enabled():
        pytest.skip("this kernel has no AppArmor, or it is off")
    need("apparmor_parser")
    file = tmp_path_factory.mktemp("profile") / "profile"
    file.write_text(PROFILE)
    subprocess.run(["apparmor_parser", "--skip-cache", "--replace", file], check=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINICONTAINER_ROOT", str(tmp_path_factory.mktemp("store")))
        minicontainer("bootstrap", "busybox")
        yield
        minicontainer("system", "reset", "--force")
    subprocess.run(["apparmor_parser", "--remove", file], check=True)


def test_run_and_exec_are_under_the_profile() -> None:
    run = ("run", "-d", "--name", "one", "--network", "none", "--security-opt", f"apparmor={NAME}")
    minicontainer(*run, "busybox", "sleep", "600")
    try:
        pid = minicontainer("inspect", "-f", "{{.State.Pid}} {{.AppArmorProfile}}", "one").stdout.split()
        assert pid[1] == NAME
        assert Path(f"/proc/{pid[0]}/attr/apparmor/current").read_text() == f"{NAME} (enforce)\n"
        done = minicontainer("exec", "one", "sh", "-c", TRY)
        assert done.stdout == f"{NAME} (enforce)\nallowed\n"
        assert "/tmp/forbidden: Permission denied" in done.stderr
    finally:
        minicontainer("rm", "-f", "one")


def test_unconfined_and_a_profile_that_is_not_loaded() -> None:
    run = ("run", "--rm", "--network", "none", "--security-opt")
    done = minicontainer(*run, "apparmor=unconfined", "busybox", "sh", "-c", TRY)
    assert done.stdout == "unconfined\nallowed\nforbidden\n"
    done = minicontainer(*run, "apparmor=nosuch", "busybox", "true", check=False)
    assert done.returncode == 125
    assert "exec nosuch" in done.stderr and "is such a profile loaded?" in done.stderr


def test_a_bundles_profile(tmp_path: Path) -> None:
    (tmp_path / "rootfs/bin").mkdir(parents=True)
    shutil.copy(shutil.which("busybox") or "", tmp_path / "rootfs/bin/busybox")
    config = spec.default()
    config["process"] |= {
        "args": ["busybox", "cat", "/proc/self/attr/apparmor/current"], "user": {"uid": 1234, "gid": 1234},
        "apparmorProfile": NAME, "noNewPrivileges": True,
    }  # fmt: skip
    config["linux"]["cgroupsPath"] = "/minicontainer-test-apparmor"
    (tmp_path / "config.json").write_text(json.dumps(config))
    done = minicontainer("oci", "--root", str(tmp_path / "state"), "run", "--bundle", str(tmp_path), "a")
    assert done.stdout == f"{NAME} (enforce)\n"


def test_a_file_over_the_kernels_own_is_not_written() -> None:
    """CVE-2019-16884: what lies at /proc/self/attr need not be the kernel's. In a mount namespace of its own."""
    covered = "syscalls.mount('/dev/null', f'/proc/{os.getpid()}/attr/apparmor/exec', '', syscalls.MS_BIND)"
    done = confined_where(covered, "error.errno")
    assert done.stdout == "KernelError 18\n", done.stderr  # EXDEV
