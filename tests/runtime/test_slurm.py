"""Slurm starts a bundle through our runtime: `srun --container=BUNDLE`, with an oci.conf beside its slurm.conf."""

import signal
from pathlib import Path

import pytest

from tests import peers, slurm
from tests.runtime.test_oci import Engine, engine  # noqa: F401

pytestmark = [
    pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(300),
    pytest.mark.needs("overlay", "busybox", "srun", *slurm.COMMANDS),
]  # fmt: skip

NAME = "%n.%u.%j.%s.%t"  # node, user, job, step, task: what Slurm calls a container
OCI = f"""\
RunTimeQuery="{peers.RUNTIME} --root=STATE state {NAME}"
RunTimeKill="{peers.RUNTIME} --root=STATE kill -a {NAME}"
RunTimeDelete="{peers.RUNTIME} --root=STATE delete --force {NAME}"
RunTimeRun="{peers.RUNTIME} --root=STATE run --bundle %b {NAME}"
"""

# Two jobs in one Slurm: one that ends by itself, and one that is cancelled once its command runs.
JOBS = """\
pid() { grep -ho '"pid": [0-9]*' "$1"/*/state.json 2>/dev/null | grep -o '[0-9]*'; }
srun --container="$1" sh -c 'readlink /proc/self/ns/pid; echo $$; exit 7'
echo $?
srun --container="$1" --job-name long sleep 1000 &
until [ "$(tr '\\0' ' ' </proc/$(pid "$2")/cmdline)" = 'sleep 1000 ' ]; do sleep 0.1; done 2>/dev/null
there=/proc/$(pid "$2")
readlink $there/ns/pid /proc/self/ns/pid
scancel --name long
wait $!
echo $?
until [ -z "$(squeue -h)" ]; do sleep 0.1; done
ls -d $there "$2"/* 2>/dev/null
true
"""


def test_a_bundle_runs_as_a_job_and_goes_down_with_it(engine: Engine, tmp_path: Path) -> None:  # noqa: F811
    engine.state.mkdir()
    rules = OCI.replace("STATE", str(engine.state))
    done = slurm.run(tmp_path / "slurm", ["sh", "-c", JOBS, "sh", str(engine.bundle), str(engine.state)], oci=rules)
    assert done.returncode == 0, done.stderr
    first, process, code, second, slurms, cancelled, *left = done.stdout.split()
    assert (process, code) == ("1", "7"), "the first of its own pid namespace, and its exit code is the job's"
    assert slurms not in (first, second), "the container's, not the daemon's"
    assert (cancelled, left) == (str(128 + signal.SIGTERM), []), "neither the process nor a state"
