"""`bench`: measure something, here and in other engines, and say how sure the figures are."""

import importlib.util
import os
import sys
import time

from .. import errors
from ..teach import bench, measure
from . import Help, UsageError, flags, table

FLAGS = [
    flags.Flag("-n --runs", "runs", "text", "rounds that count (default: what the bench thinks enough)"),
    flags.Flag("--json", "json", "text", "write the raw data here (default: bench-results/NAME-TIME.json)"),
    flags.Flag("--plot", "plot", "text", "draw what was found into this file (.png, .svg or .pdf)"),
    flags.Flag("--check", "check", "bool", "exit with 1 if a bar is missed, or could not be measured"),
    flags.Flag("-q --quiet", "quiet", "bool", "do not say what is going on"),
]


def main(arguments: list[str]) -> int:
    """bench NAME [--runs N] [--json FILE] [--plot FILE] [--check]"""
    try:
        values, rest = flags.parse("bench NAME [FLAGS]", FLAGS, arguments)
    except Help as help:
        print(help, "\n\n" + names(), sep="")
        return 0
    if not rest:
        print(names())
        return 0
    if len(rest) > 1:
        raise UsageError(f"bench does one thing at a time: {rest[0]}, or {rest[1]}?")
    runs = flags.number("--runs", values.get("runs", "0"))
    if runs < 0:
        raise UsageError("--runs must be 1 or more")
    picture = values.get("plot")
    if picture:
        drawable(picture)
    path = os.path.abspath(values.get("json") or f"bench-results/{rest[0]}-{time.strftime('%Y%m%d-%H%M%S')}.json")
    try:
        report = bench.run(rest[0], runs, silence if values["quiet"] else progress)
    finally:
        if not values["quiet"]:
            progress("")
    print(shown(report))
    try:
        measure.save(path, report.raw())
        print(f"raw data: {os.path.relpath(path) if path.startswith(os.getcwd() + '/') else path}")
    except OSError as error:
        raise errors.InvalidArgument(f"the raw data cannot be written to {path}: {error.strerror}") from None
    if picture:
        bench.draw(report, picture)
        print(f"plot: {picture}")
    return 1 if values["check"] and not all(bar.held for bar in report.bars) else 0


def drawable(path: str) -> None:
    """Say before anything is measured that it cannot be drawn."""
    if os.path.splitext(path)[1].lower() not in (".png", ".svg", ".pdf"):
        raise UsageError(f"--plot {path}: it draws .png, .svg or .pdf")
    if not os.access(os.path.dirname(os.path.abspath(path)), os.W_OK):
        raise UsageError(f"--plot {path}: there is no directory to write that to")
    if not importlib.util.find_spec("matplotlib"):
        raise errors.Unsupported("--plot draws with matplotlib: ./dev setup, or pip install 'minicontainer[plot]'")


def names() -> str:
    """The benches, a line each."""
    return "\n".join(["benches:", *(f"  {name:10} {help}" for name, help in bench.BENCHES.items())])


def progress(text: str) -> None:
    """What is going on, on one line of standard error; a new line each where that is no terminal."""
    if not sys.stderr.isatty():
        if text and not text.startswith("round "):
            print(text, file=sys.stderr)
        return
    print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def silence(_: str) -> None:
    """--quiet."""


def shown(report: bench.Report) -> str:
    """A report as a person reads it."""
    lines = ["", report.title, f"on {measure.in_words(report.machine)}", ""]
    for group in report.groups:
        rows = []
        for name, values in group.series.items():
            found = measure.summary(values)
            row = [name, *(number(value * group.scale) for value in (found.median, found.low, found.high))]
            row += [number(value * group.scale) for value in (found.lower_quartile, found.upper_quartile)]
            if name != group.ours and group.ours in group.series:
                quotient = measure.ratio(group.series[group.ours], values)
                row.append(f"{quotient.value:.3f}  ({quotient.low:.3f} to {quotient.high:.3f})")
            else:
                row.append("")
            rows.append(row)
        header = [group.title, f"median {group.unit}", "from", "to", "quartile 1", "3", "ours / theirs"]
        lines += [columns(header, rows), ""]
    if report.groups:
        first = next(iter(report.groups[0].series.values()))
        lines += [
            f"{len(first)} rounds. from, to: the true median lies between, {measure.sureness(len(first)):.0%} sure; "
            "ratios: likewise, by resampling",
            "",
        ]
    lines += [verdict(bar) for bar in report.bars]
    lines += [f"skipped: {what}: {why}" for what, why in report.skipped]
    lines += [f"fact: {fact}" for fact in report.facts]
    return "\n".join(lines)


def number(value: float) -> str:
    """A figure of the table: a tenth is enough from ten on."""
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def columns(header: list[str], rows: list[list[str]]) -> str:
    """A table whose numbers stand below one another: every column but the first and the last to the right."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    aligned = [
        [cell if column in (0, len(header) - 1) else cell.rjust(widths[column]) for column, cell in enumerate(row)]
        for row in [header, *rows]
    ]
    return table.show(aligned[0], aligned[1:])


def verdict(bar: bench.Bar) -> str:
    """One bar in one line."""
    whose = "" if bar.ours == "minicontainer" else f", {bar.ours}"
    promise = f"{bar.group}{whose}: at most {bar.at_most:.2f} of {bar.theirs}"
    if bar.ratio is None:
        return f"bar not measured: {promise}: {bar.why_not}"
    aim = ""
    if bar.aim < bar.at_most:
        aim = "; aim reached" if bar.ratio.value <= bar.aim else f"; aim {bar.aim:.2f} not reached"
    sure = (
        "" if bar.ratio.high <= bar.at_most or bar.ratio.low > bar.at_most else ", but not for sure: more --runs tell"
    )
    word = "held" if bar.held else "MISSED"
    return f"bar {word}: {promise}: {bar.ratio.value:.3f} ({bar.ratio.low:.3f} to {bar.ratio.high:.3f}){aim}{sure}"
