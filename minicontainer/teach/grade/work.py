"""One student, one lab: one pytest of the grader's own, with the student's text in a cell; and many of them at a time.

    with cell.Place() as place:
        Run(place, records).all(pairs, jobs, tell)      first what this host can grade, by each lab's stub

The assertions run in our pytest, which looks at the kernel from outside; it writes the results, and no line of a
student's is loaded into it.
"""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from typing import NamedTuple, TypeVar

from ... import errors, files, host
from ..lab import Lab, copies, rooms
from . import cell, outputs, records, submissions

LIMIT = 180.0  # seconds for one student in one lab
GRACE = 20.0  # seconds for pytest to close what it has opened
SLOTS = 500  # users of the machine whom rooms may belong to: rooms.PLAIN_UID and the next ones
# What no stub has to do with: where its tests say so, they would of everybody, and nobody's points would be his own.
BROKEN = ("no room can be made here", "the room's keeper has ended", "no answer from the room", outputs.DEFECT)
T = TypeVar("T")


class Pair(NamedTuple):
    """What is to be graded: a student's text for one lab, or why there is none."""

    submission: submissions.Submission
    lab: Lab
    source: str
    refused: str
    lacking: frozenset[str] = frozenset()  # the tests that an earlier run could not grade; the others have their points


def pairs(
    kept: records.Records, found: Sequence[submissions.Submission], labs: Sequence[Lab], only: Sequence[str] = ()
) -> list[Pair]:
    """What is still to be graded, wholly or in part; of the students in `only`, whatever has been graded before.

    Raises NotFound for a student in `only` of whom there is no submission.
    """
    missing = set(only) - {one.student for one in found}
    if missing:
        raise errors.NotFound(f"there is no submission of {', '.join(sorted(missing))}")
    before = {(one.student, one.lab): one for one in kept.all()}
    wanted = []
    for one in found:
        for lab in labs:
            lacking: frozenset[str] = frozenset()
            if only:
                if one.student not in only:
                    continue
            elif kept.finished(one.student, lab.name):
                if before[one.student, lab.name].whole:
                    continue
                lacking = records.uncounted(before[one.student, lab.name].tests)
            try:
                wanted.append(Pair(one, lab, submissions.text(one, lab, len(labs) == 1), "", lacking))
            except submissions.Refused as error:
                wanted.append(Pair(one, lab, "", str(error), lacking))
    return wanted


class Run:
    """A grading run on this host: the cells' place, the records, and every pytest that is at work."""

    def __init__(self, place: cell.Place, kept: records.Records, limit: float = LIMIT) -> None:
        self.place = place
        self.records = kept
        self.limit = limit
        self.host = os.uname().nodename
        self.working: set[subprocess.Popen[bytes]] = set()
        self.stopped = threading.Event()
        self.ungradable: dict[str, str] = {}  # labs of which no test can be run here, and why

    @property
    def tier(self) -> str:
        """Who makes the rooms, for the report."""
        who = "root" if host.is_root() else "an ordinary user, who is root of a user namespace"
        return f"rooms in containers of {who}"

    def outline(self, lab: Lab, slot: int) -> None:
        """Grade the lab's stub: which tests there are, and which of them this host cannot grade.

        Once for each folder of results; where something was lacking, by each run anew: it may have been mended.
        """
        path = self.records.outline_path(self.host, lab.name)
        if os.path.exists(path) and not records.uncounted(self.records.outline(self.host, lab.name)):
            return
        with tempfile.TemporaryDirectory(prefix="minicontainer-grade-") as folder:
            part = f"{folder}/results"
            ended, said = self.pytest(lab, f"{lab.directory}/lab.py", part, "stub", slot)
            found = records.lines(part) if os.path.exists(part) else []
        if self.stopped.is_set():
            return
        stuck = [entry["hint"] for entry in found if any(sign in entry["hint"] for sign in BROKEN)]
        if found and not ended and not stuck:
            self.records.keep_outline(self.host, lab.name, found)
        else:
            self.ungradable[lab.name] = f"{stuck[0]}; {said}" if stuck else ended or said

    def outline_the_others(self, labs: Sequence[Lab]) -> None:
        """Keep of each lab that cannot be graded here at all why, for each of its tests.

        Raises Unsupported, with what pytest said, where that is every one of them: then it is not the lab.
        """
        for lab in labs:
            if why := self.ungradable.get(lab.name):
                if len(self.ungradable) == len(labs):
                    raise errors.Unsupported(f"lab {lab.name} cannot be graded here: {why}")
                self.records.keep_outline(self.host, lab.name, records.not_here(lab, why))

    def offers_more(self, pair: Pair) -> bool:
        """Whether this host can grade what an earlier run could not, and all that it could."""
        return not pair.lacking or records.uncounted(self.records.outline(self.host, pair.lab.name)) < pair.lacking

    def grade(self, pair: Pair, slot: int) -> None:
        """Grade one pair, and keep what came of it."""
        student, lab = pair.submission.student, pair.lab
        seed = self.records.seed(student, lab.name)
        uid = rooms.PLAIN_UID + slot
        outline = self.records.outline(self.host, lab.name)
        part = self.records.begin(
            student, lab.name, number=pair.submission.number, seed=seed, host=self.host, tier=self.tier, uid=uid,
            outline=outline,
        )  # fmt: skip
        text = f"{self.records.path(student, lab.name)}.py"
        files.unlink(text)
        began = time.monotonic()
        ended, said, defect = pair.refused, "", False
        if not ended:
            files.write(text, pair.source.encode(), 0o600)
        if not ended and lab.name not in self.ungradable:
            ended, said = self.pytest(lab, text, part, seed, slot)
            tests = {line["test"] for line in records.lines(part) if "test" in line}
            if not ended and {entry["test"] for entry in outline} - tests:
                ended, defect = f"the grader itself failed: {said}", True
        if self.stopped.is_set():
            os.unlink(part)
            return
        seconds = round(time.monotonic() - began, 3)
        self.records.finish(part, student, lab.name, seconds=seconds, ended=ended, defect=defect)

    def pytest(self, lab: Lab, text: str, results: str, seed: str, slot: int) -> tuple[str, str]:
        """Run a lab's tests; why they were ended early ("" if they were not), and the end of what pytest said."""
        uid = rooms.PLAIN_UID + slot
        command = [*copies.pytest(lab, text, results), f"--seed={seed}", f"--cell={uid}"]
        with tempfile.TemporaryFile() as output:
            process = subprocess.Popen(
                command, cwd=copies.above(lab), env=copies.environment(), stdin=subprocess.DEVNULL, stdout=output,
                stderr=output, start_new_session=True, pass_fds=[self.place.lock],
            )  # fmt: skip
            self.working.add(process)
            ended = ""
            try:
                if self.stopped.is_set():
                    self.interrupt(process)
                process.wait(self.limit)
            except subprocess.TimeoutExpired:
                ended = f"the time for this lab was over ({self.limit:g} seconds)"
                self.interrupt(process)
            except BaseException:
                self.interrupt(process)
                raise
            finally:
                self.working.discard(process)
                if process.poll() is None:
                    try:
                        process.wait(GRACE)
                    except subprocess.TimeoutExpired:
                        os.killpg(process.pid, signal.SIGKILL)
                        process.wait()
                cell.end(cell.name(uid))
            output.seek(max(0, output.tell() - 2000))
            return ended, f"exit code {process.returncode}: {output.read().decode(errors='replace').strip()}"

    def interrupt(self, process: subprocess.Popen[bytes]) -> None:
        """SIGINT: pytest closes its fixtures, and so the cell."""
        try:
            process.send_signal(signal.SIGINT)
        except ProcessLookupError:
            pass

    def stop(self) -> None:
        """End every pytest; half-done results are done anew by the next run."""
        self.stopped.set()
        for process in list(self.working):
            self.interrupt(process)

    def all(self, pairs: Sequence[Pair], jobs: int, tell: Callable[[Pair], None], first: int = 0) -> None:
        """Grade many, `jobs` at a time; `tell` hears of each when it is finished, on this thread.

        `first` is the first slot: where several runs share a machine, each should have users of its own.
        """
        slots: queue.SimpleQueue[int] = queue.SimpleQueue()
        for slot in range(first, first + jobs):
            slots.put(slot % SLOTS)

        def with_slot(work: Callable[[T, int], None], what: T) -> T:
            slot = slots.get()
            try:
                if not self.stopped.is_set():
                    work(what, slot)
            finally:
                slots.put(slot)
            return what

        with ThreadPoolExecutor(jobs) as pool:
            try:
                labs = list({pair.lab.name: pair.lab for pair in pairs}.values())
                for outlined in [pool.submit(with_slot, self.outline, lab) for lab in labs]:
                    outlined.result()
                self.outline_the_others(labs)
                for pair in pairs:
                    if not self.offers_more(pair):
                        tell(pair)
                waiting = {pool.submit(with_slot, self.grade, pair) for pair in pairs if self.offers_more(pair)}
                while waiting:
                    done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                    for future in done:
                        tell(future.result())
            except BaseException:
                self.stop()
                pool.shutdown(wait=True, cancel_futures=True)
                raise
