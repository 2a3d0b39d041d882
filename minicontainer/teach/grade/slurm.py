"""`grade --executor slurm`: the same on many machines, by a job array of an existing Slurm (sbatch(1), --array).

Each element of the array is `minicontainer grade … --task LIST` on some node: it grades the pair in the line of LIST
that SLURM_ARRAY_TASK_ID names, in a cell of that node's, and writes the same file below the same --out. So submissions,
--out and this checkout lie on a file system that all nodes see, under the same names; jobs run as who submits them,
which must be root there, or somebody with a delegated cgroup.

    OUT/slurm/RUN/list     a line of JSON for each pair: [student, lab]
                  0.log    what each element has said
"""

from __future__ import annotations

import json
import os
import secrets
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence

from ... import errors, files
from . import records, work

LARGEST = 1000  # elements of an array: slurm.conf(5), MaxArraySize, is 1001 where nobody says otherwise
LOOK = 1.0  # seconds between looks for results


def carry_out(
    kept: records.Records,
    pairs: Sequence[work.Pair],
    words: Sequence[str],
    jobs: int,
    tell: Callable[[work.Pair], None],
) -> None:
    """Grade these pairs by Slurm, `jobs` at a time at most; `words` are grade's own, for an element to repeat.

    Raises Unsupported where there is no Slurm, MiniContainerError where pairs were left, which names their logs.
    """
    if not shutil.which("sbatch"):
        raise errors.Unsupported("--executor slurm needs sbatch and Slurm's slurm.conf: apt-get install slurm-client")
    kept.secret()  # drawn here, not by several nodes at once
    folder = f"{kept.out}/slurm/{secrets.token_hex(4)}"
    files.make_directory(folder, 0o700)
    for pair in pairs:  # what is graded anew is finished once more only when it is
        kept.forget(pair.submission.student, pair.lab.name)
    for begin in range(0, len(pairs), LARGEST):
        part = pairs[begin : begin + LARGEST]
        listed = "".join(json.dumps([pair.submission.student, pair.lab.name]) + "\n" for pair in part)
        files.write(f"{folder}/list", listed.encode())
        submit(folder, words, len(part), jobs, Waiting(kept, part, tell))
    left = [index for index, pair in enumerate(pairs) if not kept.finished(pair.submission.student, pair.lab.name)]
    if left:
        log = f"{folder}/{left[0] % LARGEST}.log"
        raise errors.MiniContainerError(
            f"Slurm has left {len(left)} of {len(pairs)} ungraded; what the first of them said: {log}. "
            "The same command does what is missing"
        )


class Waiting:
    """The pairs that are not finished yet."""

    def __init__(self, kept: records.Records, pairs: Sequence[work.Pair], tell: Callable[[work.Pair], None]) -> None:
        self.kept = kept
        self.pairs = list(pairs)
        self.tell = tell

    def look(self) -> None:
        """Tell of each that is finished by now."""
        for pair in list(self.pairs):
            if self.kept.finished(pair.submission.student, pair.lab.name):
                self.pairs.remove(pair)
                self.tell(pair)


def submit(folder: str, words: Sequence[str], count: int, jobs: int, waiting: Waiting) -> None:
    """One array, until its last element has ended; cancelled if we are."""
    task = [sys.executable, "-m", "minicontainer", "grade", *words, "--task", f"{folder}/list"]
    command = ["sbatch", "--wait", "--parsable", "--job-name=minicontainer-grade", f"--array=0-{count - 1}%{jobs}"]
    command += ["--ntasks=1", "--cpus-per-task=1", f"--chdir={os.getcwd()}", f"--output={folder}/%a.log"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin and process.stdout
    process.stdin.write(f"#!/bin/sh\nexec {shlex.join(task)}\n")
    process.stdin.close()
    job = process.stdout.readline().strip().partition(";")[0]  # sbatch(1), --parsable: id;cluster
    if not job:
        raise errors.MiniContainerError(f"sbatch has refused the job: exit code {process.wait()}")
    try:
        while True:
            try:
                process.wait(LOOK)
                break
            except subprocess.TimeoutExpired:
                waiting.look()
    except BaseException:
        subprocess.run(["scancel", job], check=False)
        process.wait()
        raise
    finally:
        process.stdout.close()
        waiting.look()


def element(path: str) -> tuple[str, str, int]:
    """In an element: the student and the lab that are its own, and its number. Raises InvalidArgument."""
    number = os.environ.get("SLURM_ARRAY_TASK_ID", "")
    lines = files.read(path).decode().splitlines()
    if not number.isdecimal() or int(number) >= len(lines):
        raise errors.InvalidArgument(
            "--task is for an element of a job array: SLURM_ARRAY_TASK_ID names a line of LIST"
        )
    student, lab = json.loads(lines[int(number)])
    return student, lab, int(number)
