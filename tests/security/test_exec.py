"""Ways out by what the engine reads of a container, or is told by its configuration."""

import copy
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from minicontainer import errors, syscalls
from minicontainer.runtime import spec
from tests.conftest import CHECKOUT, minicontainer
from tests.engine_fixtures import Shop, fresh_shop  # noqa: F401

pytestmark = pytest.mark.root
IN_OPEN = 0x20  # linux/inotify.h


def test_malicious_passwd_and_group(shop: Shop, tmp_path: Path) -> None:
    """Numbers that wrap around to root, or mean "as it is" (setresuid(2)); what is no number."""
    passwd = ["good:x:1000:1000::/:", "minus:x:-1:0::/:", "last:x:4294967295:0::/:", "wraps:x:4294967296:0::/:",
              "spaces:x: 0 :0::/:", "group:x:1000:4294967296::/:", "short:x:0", "hex:x:0x0:0::/:"]  # fmt: skip
    (tmp_path / "passwd").write_text("\n".join(passwd) + "\n")
    (tmp_path / "group").write_text("wrapped:x:4294967296:\n")
    flags = ["-v", f"{tmp_path}/passwd:/etc/passwd", "-v", f"{tmp_path}/group:/etc/group"]
    with shop.start(*flags, "plain", "sh", "-c", "echo ready; sleep 1000") as container:
        assert minicontainer("exec", "-u", "good", container.name, "id", "-u").stdout == "1000\n"
        for user in ("minus", "last", "wraps", "spaces", "group", "short", "hex", "good:wrapped", "-1", "4294967296"):
            done = minicontainer("exec", f"--user={user}", container.name, "id", "-u", check=False)
            assert done.returncode and done.stdout == "", user


def test_cve_2019_14271_cp_reads_nothing_but_what_it_copies(shop: Shop, tmp_path: Path) -> None:
    """Docker's cp looked users up inside, and so loaded the container's own libnss. That begins with nsswitch.conf.

    The control is the copied file itself, whose opening is seen.
    """
    with shop.start("plain", "sh", "-c", "echo x >/etc/nsswitch.conf; echo ready; sleep 1000") as container:
        watch = syscalls.inotify(f"/proc/{container.pid}/root/etc", IN_OPEN)
        try:
            minicontainer("cp", f"{container.name}:/etc/passwd", str(tmp_path / "copy"))
            events = os.read(watch, 1 << 16)
        finally:
            os.close(watch)
    names = set()
    while events:  # inotify(7): wd, mask, cookie, the name's length, the name
        length = struct.unpack("=iIII", events[:16])[3]
        names.add(events[16 : 16 + length].rstrip(b"\0"))
        events = events[16 + length :]
    assert names - {b""} == {b"passwd"}


def test_a_program_that_is_called_as_our_threshold_holds_up_no_start() -> None:
    """`oci start` waits until nothing of ours is executed any more, which it sees by that name."""
    memory = os.memfd_create("threshold")
    os.write(memory, Path(shutil.which("sleep") or "").read_bytes())
    program = subprocess.Popen(["sleep", "1000"], executable=f"/proc/self/fd/{memory}", pass_fds=[memory])
    try:
        wait = "import sys; from minicontainer.runtime import threshold; threshold.wait_until_crossed(int(sys.argv[1]))"
        subprocess.run([sys.executable, "-c", wait, str(program.pid)], cwd=CHECKOUT, check=True, timeout=30)
        assert os.readlink(f"/proc/{program.pid}/exe").startswith("/memfd:threshold")
    finally:
        os.close(memory)
        program.kill()
        program.wait()


@pytest.mark.parametrize(
    "name",
    ["kernel.core_pattern", "kernel/core_pattern", "vm.overcommit_memory", "fs.suid_dumpable", "kernel.modprobe"],
)
def test_a_bundle_sets_no_parameter_of_the_whole_machine(name: str) -> None:
    config = spec.default()
    config["linux"]["sysctl"] = {"net.ipv4.ip_forward": "1", "kernel.shmmax": "1", "kernel.domainname": "a"}
    spec.check(config)
    hosts = copy.deepcopy(config)
    hosts["linux"]["namespaces"] = [entry for entry in hosts["linux"]["namespaces"] if entry["type"] != "network"]
    with pytest.raises(errors.InvalidArgument, match="ip_forward"):
        spec.check(hosts)
    config["linux"]["sysctl"] = {name: "1"}
    with pytest.raises(errors.InvalidArgument, match="own to set"):
        spec.check(config)
