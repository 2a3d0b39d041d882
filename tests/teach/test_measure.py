"""Figures and what may be said of them: against the standard library, against tables, and against a clock."""

import json
import math
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import hypothesis
import pytest
from hypothesis import strategies

from minicontainer import errors, host
from minicontainer.cli import bench as face
from minicontainer.teach import bench, measure
from minicontainer.teach.bench import engines, start

COLUMN = strategies.lists(strategies.floats(0.001, 1000), min_size=1, max_size=60)


@hypothesis.given(COLUMN)
def test_the_median_is_the_standard_librarys(values: list[float]) -> None:
    assert measure.median(values) == pytest.approx(statistics.median(values))


@hypothesis.given(strategies.lists(strategies.floats(0.001, 1000), min_size=2, max_size=60))
def test_the_quartiles_are_the_standard_librarys(values: list[float]) -> None:
    wanted = statistics.quantiles(values, n=4, method="inclusive")
    assert [measure.quantile(values, part) for part in (0.25, 0.5, 0.75)] == pytest.approx(wanted)


# Ranks from tables of the binomial distribution at p = 1/2: the k-th smallest and largest enclose the median, 95 %.
@pytest.mark.parametrize(
    ("count", "rank"), [(1, 1), (5, 1), (6, 1), (8, 1), (9, 2), (11, 2), (12, 3), (20, 6), (50, 18)]
)
def test_the_medians_interval_is_the_tables(count: int, rank: int) -> None:
    values = [float(value) for value in range(1, count + 1)]
    assert measure.median_interval(values) == (rank, count + 1 - rank)


def test_how_sure_an_interval_is_depends_on_the_runs() -> None:
    """The same by chance: the true median of a fair column is in the interval as often as promised."""
    assert [round(measure.sureness(runs), 3) for runs in (1, 2, 5, 6, 9, 20)] == [0.0, 0.5, 0.938, 0.969, 0.961, 0.959]
    draw = random.Random(1)
    hits = 0
    for _ in range(2000):
        low, high = measure.median_interval([draw.expovariate(1) for _ in range(20)])
        hits += low <= math.log(2) <= high
    assert hits / 2000 == pytest.approx(measure.sureness(20), abs=0.02)


@hypothesis.given(COLUMN)
def test_a_summary_is_in_order(values: list[float]) -> None:
    found = measure.summary(values)
    assert found.least <= found.low <= found.median <= found.high <= found.most
    assert found.least <= found.lower_quartile <= found.median <= found.upper_quartile <= found.most
    assert found.runs == len(values)


def test_a_ratio_keeps_what_a_round_has_in_common() -> None:
    """The machine is ten times slower in half the rounds, and the ratio does not notice."""
    slow = [1.0, 10.0] * 10
    found = measure.ratio([0.2 * value for value in slow], slow)
    assert (found.value, found.low, found.high) == pytest.approx((0.2, 0.2, 0.2))


def test_a_ratio_is_unsure_where_the_figures_are() -> None:
    found = measure.ratio([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [6.0, 1.0, 5.0, 2.0, 4.0, 3.0])
    assert found.low < found.value < found.high
    assert measure.ratio([1.0, 2.0, 3.0], [3.0, 2.0, 1.0]) == measure.ratio([1.0, 2.0, 3.0], [3.0, 2.0, 1.0])


def test_a_ratio_of_different_rounds_is_refused() -> None:
    with pytest.raises(ValueError, match="same rounds"):
        measure.ratio([1.0], [1.0, 2.0])


def test_everybody_runs_once_a_round_in_changing_order_and_warm_ups_do_not_count() -> None:
    events: list[str] = []

    def contestant(name: str) -> measure.Timed:
        return lambda: events.append(name) or float(len(events))  # type: ignore[func-returns-value]

    found = measure.interleave(
        {name: contestant(name) for name in "abc"}, 8, 2, {"b": lambda: events.append("before b")}
    )
    assert {name: len(values) for name, values in found.items()} == {"a": 8, "b": 8, "c": 8}
    assert all(events[at + 1] == "b" for at, event in enumerate(events) if event == "before b")
    order = [event for event in events if event != "before b"]
    rounds = [order[at : at + 3] for at in range(0, len(order), 3)]
    assert len(rounds) == 10
    assert all(sorted(names) == ["a", "b", "c"] for names in rounds)
    assert len({tuple(names) for names in rounds}) > 1


def test_a_command_takes_as_long_as_it_takes() -> None:
    assert 0.1 <= measure.spent(["sleep", "0.1"]) < 3


def test_a_command_reads_nothing_and_is_heard_only_when_it_fails(capfd: pytest.CaptureFixture[str]) -> None:
    measure.spent(["sh", "-c", "echo out; echo err >&2; ! read line"])
    with pytest.raises(errors.MiniContainerError, match=r"ended with 3: the reason$"):
        measure.spent(["sh", "-c", "echo first >&2; echo the reason >&2; exit 3"])
    assert capfd.readouterr() == ("", "")


def test_the_machine_is_described_and_the_data_are_kept(tmp_path: Path) -> None:
    described = measure.machine()
    assert f"Linux {os.uname().release}" in measure.in_words(described)
    path = tmp_path / "new" / "raw.json"
    measure.save(str(path), described)
    assert json.loads(path.read_text()) == described


# -------------------------------------------------------------------------------------------------------------- reports


def report(ours: float, theirs: float) -> bench.Report:
    made = bench.Report("start", "a title")
    made.groups.append(
        bench.Group("bridge", "ours", {"ours": [ours + step / 1e6 for step in range(20)], "docker": [theirs] * 20})
    )
    made.bars.append(bench.Bar("bridge", "ours", "docker", 0.20, 0.15))
    made.bars.append(bench.Bar("bridge", "ours", "podman", 0.20, 0.15))
    made.skipped.append(("podman", "podman is not installed"))
    made.judge()
    return made


def test_a_bar_is_held_missed_or_not_measured() -> None:
    held, unmeasured = report(0.1, 1.0).bars
    assert held.held
    assert face.verdict(held).startswith("bar held: bridge, ours: at most 0.20 of docker: 0.100")
    assert not unmeasured.held
    assert face.verdict(unmeasured) == "bar not measured: bridge, ours: at most 0.20 of podman: podman is not installed"
    missed = report(0.25, 1.0).bars[0]
    assert not missed.held
    assert "MISSED" in face.verdict(missed)


def test_a_report_is_readable_and_its_raw_data_are_json() -> None:
    made = report(0.1, 1.0)
    shown = face.shown(made)
    assert "docker 1000.0 1000.0 1000.0 1000.0 1000.0 0.100 (0.100 to 0.100)" in " ".join(shown.split())
    assert "20 rounds" in shown
    assert "skipped: podman: podman is not installed" in shown
    raw = json.loads(json.dumps(made.raw()))
    assert len(raw["groups"][0]["figures"]["docker"]) == 20
    assert [bar["held"] for bar in raw["bars"]] == [True, False]


GOOD = {"Seccomp": "2", "CapEff": "00000000a80425fb", "CapBnd": "00000000a80425fb", "Gateway": "answers ping"}


@pytest.mark.parametrize(
    ("network", "change", "problem"),
    [
        ("bridge", {}, ""),
        ("bridge", {"Seccomp": "0"}, "no seccomp filter"),
        ("bridge", {"CapEff": "000001ffffffffff"}, "41 capabilities"),
        ("bridge", {"CapBnd": "000001ffffffffff"}, "41 capabilities"),
        ("bridge", {"Gateway": None}, "its gateway does not answer"),
        ("bridge", {"Gateway": "answers ARP"}, "its gateway does not answer a ping"),
        ("none", {"Gateway": None}, ""),
    ],
)
def test_only_a_container_is_timed(network: str, change: dict[str, str | None], problem: str) -> None:
    fields = {key: value for key, value in {**GOOD, **change}.items() if value is not None}
    assert start.judge(network, fields, ours=True)[0].startswith(problem or "")
    assert bool(start.judge(network, fields, ours=True)[0]) == bool(problem)


def test_a_peer_with_other_capabilities_takes_part_and_is_noted() -> None:
    problem, note = start.judge("none", {**GOOD, "CapEff": "00000000800405fb"}, ours=False)
    assert problem == ""
    assert "11 capabilities" in note


def test_an_engine_that_is_not_there_says_so() -> None:
    with pytest.raises(engines.Unfit, match="no-such-engine is not installed"):
        engines.said(["no-such-engine", "version"])


def test_there_is_no_such_bench() -> None:
    with pytest.raises(errors.InvalidArgument, match="start, life, images"):
        bench.run("unknown", 1, lambda text: None)


@pytest.mark.root
@pytest.mark.needs("overlay", "ip", "nft", "busybox", "libseccomp")
@pytest.mark.parametrize("how", ["to the end", "SIGINT", "SIGTERM"])
def test_a_bench_leaves_nothing_behind(how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only ourselves, for the others are not on its path. Interrupted, and not."""
    tools, folder = tmp_path / "bin", tmp_path / "folder"
    tools.mkdir()
    folder.mkdir()
    (tools / "busybox").symlink_to(str(shutil.which("busybox")))
    process = subprocess.Popen(
        [sys.executable, "-m", "minicontainer", "bench", "start", "--runs", "3" if how == "to the end" else "500",
         "--json", str(tmp_path / "raw.json")],
        env={**os.environ, "PATH": str(tools), "PODMAN": "/nonexistent", "TMPDIR": str(folder)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert process.stderr is not None
    for line in process.stderr:
        if "rounds to warm up" in line:
            break
    (workshop,) = folder.iterdir()
    monkeypatch.setenv("MINICONTAINER_ROOT", str(workshop / "store"))
    assert traces() != set(), "nothing is there while it runs?"
    if how != "to the end":
        time.sleep(0.5)
        (os.killpg if how == "SIGINT" else os.kill)(process.pid, getattr(signal, how))
    out, err = process.communicate(timeout=60)
    assert process.returncode == (0 if how == "to the end" else 130), out + err
    assert list(folder.iterdir()) == []
    assert traces() == set()
    if how == "to the end":
        assert "skipped: docker: docker is not installed" in out
        assert "bar not measured: bridge: at most 0.20 of docker" in out
        assert "imports: " in out
        raw = json.loads((tmp_path / "raw.json").read_text())
        networks, by_steps = raw["groups"][:3], raw["groups"][3:]
        assert [group["title"] for group in networks] == ["bridge", "none", "host"]
        assert all(len(group["figures"]["minicontainer"]) == 3 for group in networks)
        assert [len(group["figures"]["minicontainer oci"]) for group in by_steps] == [3, 3]


def traces() -> set[str]:
    """What there is of the store that $MINICONTAINER_ROOT names: its bridge, table, cgroups, and what lies in /run."""
    suffix = host.suffix()
    # os.walk(), which does not mind what goes while it looks
    found = {f"{top}/{name}" for top, names, _ in os.walk("/sys/fs/cgroup") for name in names
             if name.startswith(f"minicontainer{suffix}")}  # fmt: skip
    for command in (["ip", "-o", "link"], ["nft", "list", "tables"]):
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        found |= {line for line in said.splitlines() if suffix in line}
    return found | {host.run_root()} if os.path.exists(host.run_root()) else found
