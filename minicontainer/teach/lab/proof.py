"""Proof that labs are honest: what the stub, the reference, the package's own functions and the mutants score.

    python -m minicontainer.teach.lab.proof [NN…]        (./dev labs) a table, and below it every mutant that got away

A lab is honest if its stub scores nothing, its reference everything, the package's functions behind the lab's door 60 %
at most, and nine of ten wrong solutions less than everything; and if students get no line of the solution.
tests/labs/test_honest.py asserts it.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

from ... import errors, files
from . import SOLUTIONS, Lab, bundle, copies, every, get, mutants, stub

PACKAGE_AT_MOST = 0.6
CAUGHT_AT_LEAST = 0.9
# Labs that have no package's own functions to be compared with, and why.
NO_PACKAGE = {
    "21": "the package looks into no mount namespace but its containers' own",
    "23": "the package waits for its own children alone, and `--init` for a container's orphans",
}


class Result(NamedTuple):
    """What a solution scored, of what; the titles of the tests it failed, and how many this host cannot run."""

    points: float
    of: float
    failed: list[str]
    left_out: int
    seed: str

    @property
    def share(self) -> float:
        """Between 0 and 1; of what this host can run."""
        return self.points / self.of if self.of else 0.0


class Proof(NamedTuple):
    """All about one lab. `package` is None where there is no such file; a mutant is (its change, whether caught)."""

    lab: Lab
    stub: Result
    reference: Result
    package: Result | None
    mutants: list[tuple[str, bool]]
    leaked: list[str]
    seconds: float


def score(lab: Lab, source: str, first: bool = False, seed: str = "", tier: str = "room") -> Result:
    """Run the lab's tests on this source; with `first`, only until one fails. New inputs each time, or a seed's."""
    seed = seed or secrets.token_hex(4)
    with tempfile.TemporaryDirectory(prefix="minicontainer-proof-") as directory:
        results = f"{directory}/results"
        files.write(f"{directory}/lab.py", source.encode())
        command = copies.pytest(lab, f"{directory}/lab.py", results, f"--seed={seed}", f"--tier={tier}")
        command += ["-x"] if first else []
        done = subprocess.run(
            command, cwd=copies.above(lab), env=copies.environment(), check=False, capture_output=True, text=True
        )
        entries = [json.loads(line) for line in copies.read(results).splitlines()]
    if not entries:
        raise errors.MiniContainerError(f"lab {lab.name}: no test ran: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    counted = [entry for entry in entries if entry["outcome"] in ("passed", "failed")]
    return Result(
        sum(entry["points"] for entry in counted),
        sum(entry["of"] for entry in counted),
        [f"{entry['title']} {entry['hint']}" for entry in counted if entry["outcome"] == "failed"],
        len(entries) - len(counted),
        seed,
    )


def solution(lab: Lab) -> str:
    """The reference's text."""
    return files.read(lab.solution).decode()


def package(lab: Lab) -> str:
    """The package's own functions behind the lab's door; "" where nothing of the package does this job."""
    return copies.read(f"{SOLUTIONS}/{lab.number}_package.py")


def caught(lab: Lab) -> list[tuple[str, bool]]:
    """Every mutant, as "line 12: dropped the call of os.mkdir", and whether it lost points."""
    with hunters() as pool:
        return [future.result() for future in hunted(lab, pool)]


def hunters() -> ThreadPoolExecutor:
    """Who runs mutants. They wait, mostly."""
    return ThreadPoolExecutor(2 * len(os.sched_getaffinity(0)))


def hunted(lab: Lab, pool: ThreadPoolExecutor) -> list[Future[tuple[str, bool]]]:
    """The same as `caught` of each, begun: so one lab's need not wait for the last of another's."""

    def one(mutant: mutants.Mutant) -> tuple[str, bool]:
        return f"line {mutant.line}: {mutant.change}", bool(score(lab, mutant.source, True, "proof").failed)

    return [pool.submit(one, mutant) for mutant in mutants.mutants(solution(lab))]


def leaked(lab: Lab) -> list[str]:
    """The lines of the solution that students get in some file of theirs."""
    given = {line.strip() for content in bundle.given(every()).values() for line in content.decode().splitlines()}
    return sorted(stub.telling(solution(lab)) & given)


def prove(lab: Lab) -> Proof:
    """All of it for one lab."""
    began = time.monotonic()
    theirs = package(lab)
    return Proof(
        lab,
        score(lab, stub.stub(solution(lab))),
        score(lab, solution(lab)),
        score(lab, theirs) if theirs else None,
        caught(lab),
        leaked(lab),
        time.monotonic() - began,
    )


def wrong(proof: Proof) -> list[str]:
    """What is not as it should be, a sentence each."""
    said = []
    if proof.stub.points:
        said.append(f"the stub scores {proof.stub.points:g}")
    if proof.reference.failed:
        said += [f"the reference (seed {proof.reference.seed}) fails: {title}" for title in proof.reference.failed]
    if proof.package and proof.package.share > PACKAGE_AT_MOST:
        said.append(f"the package's own functions score {proof.package.share:.0%}")
    missed = [change for change, lost in proof.mutants if not lost]
    if len(missed) > len(proof.mutants) * (1 - CAUGHT_AT_LEAST):
        said.append(f"{len(missed)} of {len(proof.mutants)} mutants lose nothing")
    said += [f"students get this line of the solution: {line}" for line in proof.leaked]
    defects = [title for result in (proof.stub, proof.reference, proof.package) if result for title in result.failed]
    said += [title for title in defects if "a defect of the lab" in title]
    return said


def main(words: list[str]) -> int:
    """A line for each lab, as soon as it is known; what is wrong, and which mutants got away, below it."""
    labs = [get(word) for word in words] or [lab for lab in every() if os.path.exists(lab.solution)]
    print(f"{'LAB':22}{'STUB':>9}{'REFERENCE':>11}{'PACKAGE':>9}{'MUTANTS CAUGHT':>16}{'SECONDS':>9}")
    failed = 0
    for lab in labs:
        proof = prove(lab)
        count = f"{sum(lost for _, lost in proof.mutants)} of {len(proof.mutants)}"
        package = f"{proof.package.share:.0%}" if proof.package else "–"
        print(
            f"{lab.name:22}{proof.stub.share:>9.0%}{proof.reference.share:>11.0%}{package:>9}{count:>16}"
            f"{proof.seconds:>9.0f}",
            flush=True,
        )
        for change, lost in proof.mutants:
            if not lost:
                print(f"    not caught: {change}")
        if lab.number in NO_PACKAGE:
            print(f"    no function of the package does this: {NO_PACKAGE[lab.number]}")
        if proof.reference.left_out:
            print(f"    {proof.reference.left_out} tests cannot run here")
        for sentence in wrong(proof):
            print(f"    wrong: {sentence}")
            failed = 1
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
