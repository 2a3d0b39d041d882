"""A Slurm of one node: Debian's daemons, in namespaces that end with the command they are there for.

Offers: `run(folder, command, …)`; the configuration and all logs lie in `folder`. Callers owe it: root, and COMMANDS.
"""

import os
import subprocess
from pathlib import Path

COMMANDS = ("sbatch", "munged", "slurmctld", "slurmd")
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


def run(folder: Path, command: list[str], **files: str) -> subprocess.CompletedProcess[str]:
    """Start the daemons in a new folder, run a command beside them, and end them. `files`: more of Slurm's *.conf."""
    for path in (folder / "state", folder / "spool"):
        path.mkdir(parents=True)
    folder.chmod(0o755)
    (folder / "slurm.conf").write_text(CONFIGURATION.format(folder=folder))
    for name, text in files.items():
        (folder / f"{name}.conf").write_text(text)
    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "munge.key").chmod(0o600)
    apart = ["unshare", "-n", "-u", "-p", "-m", "--fork", "--kill-child", "--mount-proc"]
    return subprocess.run(
        [*apart, "sh", "-c", SCRIPT, "sh", str(folder), *command], capture_output=True, text=True, timeout=250,
        env={**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}, stdin=subprocess.DEVNULL,
    )  # fmt: skip
