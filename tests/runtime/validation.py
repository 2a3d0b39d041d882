"""Other people's tests of an OCI runtime: the validation programs of opencontainers/runtime-tools, run and counted.

    python tests/runtime/validation.py TOOLS RUNTIME [PROGRAM …]

TOOLS is a checkout in which `make runtimetest validation-executables` has been run; RUNTIME a program with runc's
command line. Needs root. What each program said is kept in the folder VALIDATION_LOG, if that is set. Prints a line for
each program and each check that failed, then the two sums.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import namedtuple
from pathlib import Path

from minicontainer import syscalls

# Why a program fails on the runtime of this package, on a kernel with cgroup v1 and the controllers of Debian 12's.
REASONS = {
    "hooks": "its own defect: it waits for lines that it does not write",
    "linux_cgroups_blkio": "blkio.weight, which this kernel has not: refused",
    "linux_cgroups_hugetlb": "a controller that is not mounted: refused",
    "linux_cgroups_memory": "reads a limit on the kernel's own memory, which Linux has not kept since 5.16",
    "linux_cgroups_network": "controllers that are not mounted: refused",
    "linux_cgroups_relative_blkio": "as linux_cgroups_blkio",
    "linux_cgroups_relative_hugetlb": "as linux_cgroups_hugetlb",
    "linux_cgroups_relative_memory": "as linux_cgroups_memory",
    "linux_cgroups_relative_network": "as linux_cgroups_network",
    "linux_process_apparmor_profile": "this kernel has no AppArmor: refused",
    "misc_props": "lacks the program that it starts, which create says at once",
    "mounts": "wants mountinfo in the list's order: Linux lists by age, and what is shared or slave is taken first",
    "pidfile": "kills a process that has ended",
    "poststart": "now and then: whether `echo` in here or out there is faster",
    "prestart": "wants such hooks at start, where the specification has had them at create since 1.0.2",
    "process_capabilities": "asks for capabilities that its caller has not got",
    "process_capabilities_fail": "wants an error for an unknown capability: left out with a warning (config.md of 1.1)",
    "process_rlimits": "Go 1.19 and later raise RLIMIT_NOFILE themselves",
    "start": "its own defect: wants a start to go well that the specification wants to fail, of no process",
}

SECONDS = 60  # for one program; the longest takes ten


class Outcome(namedtuple("Outcome", "program passed failed skipped said")):
    """What one program said: how many of its checks held, the lines of those that did not, all of its output."""

    program: str
    passed: int
    failed: list[str]
    skipped: int
    said: str


def hide_unified() -> None:
    """In a mount namespace of our own, take off the hierarchy of version 2 that a hybrid host has beside version 1.

    The programs look for any mount of type cgroup2, and having found one, for controllers that are not in it.
    """
    syscalls.unshare(syscalls.CLONE_NEWNS)
    syscalls.mount("", "/", "", syscalls.MS_REC | syscalls.MS_PRIVATE)
    if os.path.ismount("/sys/fs/cgroup/unified"):
        syscalls.umount("/sys/fs/cgroup/unified", syscalls.MNT_DETACH)


def run(tools: Path, program: Path, runtime: Path) -> Outcome:
    """Run one program. It passes if it ends well, all of its checks hold, and they are as many as it planned.

    Some check nothing, and say by their exit code, or by an "error" of their diagnostics, what they think.
    """
    command = subprocess.Popen(
        [program], cwd=tools, env={**os.environ, "RUNTIME": str(runtime)}, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    late = False
    try:
        output, _ = command.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        late = True
        os.killpg(command.pid, signal.SIGKILL)
        output, _ = command.communicate()
    said = output.decode(errors="replace")
    checks = re.findall(r"^(?:not )?ok\b.*$", said, re.MULTILINE)
    failed = [line for line in checks if line.startswith("not ok")]
    skipped = [line for line in checks if line.startswith("ok") and re.search(r"# skip", line, re.IGNORECASE)]
    planned = sum(int(number) for number in re.findall(r"^1\.\.(\d+)$", said, re.MULTILINE))
    passed = len(checks) - len(failed) - len(skipped)
    if late:
        failed.append(f"killed after {SECONDS} s")
    elif command.returncode:
        failed.append(f"ended with {command.returncode}")
    elif planned != len(checks):
        failed.append(f"planned {planned}, checked {len(checks)}")
    elif not checks:  # these say what is wrong outside of any check
        failed += re.findall(r'^ *"error": (.*)$', said, re.MULTILINE)
    return Outcome(program.parent.name, passed, failed, len(skipped), said)


def all_of(tools: Path, runtime: str, chosen: list[str], log: Path | None = None) -> list[Outcome]:
    """Run the programs, those `chosen` by name or all; what each said goes into a file of the folder `log`."""
    outcomes = []
    with tempfile.TemporaryDirectory(prefix="validation-") as folder:
        wrapper = Path(folder, "runtime")
        wrapper.write_text(f'#!/bin/sh\nexec {shlex.quote(os.path.abspath(runtime))} --root {folder}/state "$@"\n')
        wrapper.chmod(0o755)
        for program in sorted(tools.glob("validation/*/*.t")):
            if not chosen or program.parent.name in chosen:
                outcomes.append(run(tools, program, wrapper))
                if log:
                    (log / f"{program.parent.name}.tap").write_text(outcomes[-1].said)
    return outcomes


def main(tools: str, runtime: str, *chosen: str) -> int:
    """Print what happened. Returns 1 if a program failed."""
    hide_unified()
    log = os.environ.get("VALIDATION_LOG")
    outcomes = all_of(Path(tools).resolve(), shutil.which(runtime) or runtime, list(chosen), Path(log) if log else None)
    for outcome in outcomes:
        skipped = f", {outcome.skipped} skipped" if outcome.skipped else ""
        print(f"{'FAILED' if outcome.failed else 'passed'} {outcome.program}: {outcome.passed} checks{skipped}")
        if outcome.failed and outcome.program in REASONS:
            print(f"       of minicontainer: {REASONS[outcome.program]}")
        for line in outcome.failed[:10]:
            print(f"       {line}")
        if len(outcome.failed) > 10:
            print(f"       and {len(outcome.failed) - 10} more")
    good = sum(not outcome.failed for outcome in outcomes)
    print(f"{good} of {len(outcomes)} programs, {sum(outcome.passed for outcome in outcomes)} checks")
    return int(good < len(outcomes))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
