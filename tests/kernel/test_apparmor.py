"""Which profiles are asked for, by what the kernel says of itself. With AppArmor: tests/vm/test_apparmor.py."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from minicontainer import errors
from minicontainer.kernel import apparmor


@pytest.mark.parametrize(("said", "on"), [("Y\n", True), ("N\n", False), (None, False)])
def test_a_profile_needs_apparmor(said: str | None, on: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if said:
        (tmp_path / "enabled").write_text(said)
    monkeypatch.setattr(apparmor, "ENABLED", str(tmp_path / "enabled"))
    asked = [{"apparmorProfile": name} for name in ("one", "unconfined", "", None)]
    assert [[step.arguments[1:] for step in apparmor.plan(process)] for process in asked] == (
        [[("one",)], [("unconfined",)], [], []] if on else [[]] * 4
    )
    for process in asked[1:] if not on else asked:
        apparmor.check(process)
    if not on:
        with pytest.raises(errors.Unsupported, match="AppArmor profile 'one' cannot be had"):
            apparmor.check(asked[0])


def confined_where(covered: str, told: str) -> subprocess.CompletedProcess[str]:
    """`confine`, after this call has covered /proc or a part of it, in a mount namespace of its own: what of the error
    is `told`."""
    script = (
        "import os; from minicontainer import syscalls; from minicontainer.kernel import apparmor\n"
        "syscalls.unshare(syscalls.CLONE_NEWNS); syscalls.mount('', '/', '', syscalls.MS_REC | syscalls.MS_PRIVATE)\n"
        f"{covered}\n"
        f"try: apparmor.confine('unconfined')\nexcept Exception as error: print(type(error).__name__, {told})"
    )
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)


@pytest.mark.skipif(not os.path.exists("/proc/self/attr/exec"), reason="this kernel has no security modules")
def test_where_apparmor_has_no_file_of_its_own_it_is_asked_by_the_common_one() -> None:
    """Before Linux 5.8, and where another module, or none, is on. No profile of that name is there."""
    with pytest.raises(errors.KernelError) as refused:
        apparmor.confine(f"minicontainer-test-{os.getpid()}")
    assert refused.value.call == "write"


@pytest.mark.root
def test_nothing_is_written_where_proc_is_another_file_system(tmp_path: Path) -> None:
    """CVE-2019-16884: a volume of the image's own at /proc. In a mount namespace of its own."""
    done = confined_where("syscalls.mount('tmpfs', '/proc', 'tmpfs')", "error")
    assert "InvalidArgument the AppArmor profile 'unconfined' needs /proc" in done.stdout, done.stderr
