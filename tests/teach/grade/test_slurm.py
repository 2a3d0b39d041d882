"""`grade --executor slurm` on a Slurm of one node: Debian's daemons, in namespaces that end with the test."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from minicontainer.teach.grade import records
from tests.teach.grade import submissions as generated
from tests.teach.grade.test_grade import REFERENCE, expected, hand_in, root  # noqa: F401

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.needs("user-namespace", "overlay", "sbatch", "munged", "slurmctld", "slurmd"),
]

CONFIGURATION = """\
ClusterName=test
SlurmctldHost=node(192.0.2.10)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
ProctrackType=proctrack/pgid
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MpiDefault=none
ReturnToService=2
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SchedulerParameters=batch_sched_delay=0,sched_min_interval=100000
NodeName=node NodeAddr=192.0.2.10 CPUs=2
PartitionName=main Nodes=node Default=YES State=UP
"""

# In network, host name, process and mount namespaces of its own: with process 1, this shell, every daemon ends.
SCRIPT = """\
set -eu
cd "$1"; shift
hostname node
ip link set lo up
ip address add 192.0.2.10/32 dev lo
munged --foreground --force --socket=$PWD/munge.socket --key-file=$PWD/munge.key --pid-file=$PWD/munge.pid \\
    --log-file=$PWD/munge.log --seed-file=$PWD/munge.seed &
until [ -S munge.socket ]; do sleep 0.05; done
slurmctld -D >/dev/null 2>&1 &
slurmd -D >/dev/null 2>&1 &
until sinfo -h -o %t 2>/dev/null | grep -q idle; do sleep 0.1; done
"$@"
"""


@pytest.mark.timeout(300)
def test_a_class_is_graded_by_a_job_array(tmp_path: Path, root: Path) -> None:
    folder = tmp_path / "slurm"
    for path in (folder / "state", folder / "spool"):
        path.mkdir(parents=True)
    folder.chmod(0o755)
    (folder / "slurm.conf").write_text(CONFIGURATION.format(folder=folder))
    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "munge.key").chmod(0o600)
    perfect = {"lab.py": REFERENCE.encode()}
    students = [generated.Student(f"s{number}", perfect, generated.ALL) for number in range(3)]
    students.append(generated.Student("quits", {"lab.py": b"import os\nos._exit(0)\n"}, 0))
    out = tmp_path / "out"
    command = [sys.executable, "-m", "minicontainer", "grade", str(hand_in(tmp_path / "in", students)), "--labs", "06"]
    command += ["--out", str(out), "--jobs", "2", "--executor", "slurm"]
    apart = ["unshare", "-n", "-u", "-p", "-m", "--fork", "--kill-child", "--mount-proc"]
    environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
    done = subprocess.run(
        [*apart, "sh", "-c", SCRIPT, "sh", str(folder), *command], capture_output=True, text=True, env=environment,
        timeout=250, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    logs = "\n".join(path.read_text()[-1500:] for path in [*folder.glob("*.log"), *out.glob("slurm/*/*.log")])
    assert done.returncode == 0, f"{done.stdout}{done.stderr}{logs}"
    found = records.Records(str(out)).all()
    assert expected(students, {one.student: one.points for one in found}) == []
    assert {one.host for one in found} == {"node"}, "graded where Slurm has put it"
    assert len(list(out.glob("slurm/*/*.log"))) == len(students), "an element for each"
    assert (out / "index.html").exists()


def test_without_slurm_it_says_so(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    folder = hand_in(tmp_path / "in", [generated.Student("a", {"lab.py": b""}, 0)])
    command = [
        sys.executable,
        "-m",
        "minicontainer",
        "grade",
        str(folder),
        "--labs",
        "06",
        "--out",
        str(tmp_path / "out"),
    ]
    done = subprocess.run([*command, "--executor", "slurm"], capture_output=True, text=True)
    assert done.returncode == 1
    assert "slurm-client" in done.stderr
