"""Figures as pictures: one style, readable in grey, on a projector and by a screen reader.

    bars(title, unit, {label: [samples]}, reference=None, alt=None)   medians with intervals, and each single run
    panels(title, [Panel(...), ...])                                  several such, one below the other
    lines(title, x_label, y_label, {label: [(x, y, low, high)]})      how one quantity follows another
    histogram(title, unit, {label: [shares]})                         how many reached how much, for each label
    timeline(steps)                                                   a start, step by step, coloured by concept
    save(figure, path)                                                as PNG (or SVG, PDF), with its alternative text

All return a `Picture`: a matplotlib Figure that a notebook shows when it is a cell's last line; its `.alt` says in
words what there is to see. The words go wherever the picture goes: into the notebook's output, and into the file.

What tells series apart is never colour alone: labels stand beside the bars and at the ends of lines, markers and dashes
differ, and concepts have hatches. Needs matplotlib: `pip install minicontainer[plot]`; `./dev setup` installs it.
"""

from __future__ import annotations

import atexit
import base64
import io
import logging
import os
import shutil
import tempfile
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from .. import errors
from . import measure
from .record import Moment, recorded


def quiet() -> None:
    """Have matplotlib say nothing on stderr of where it caches its fonts: it would be a warning in every cell."""
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    if "MPLCONFIGDIR" not in os.environ:
        home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
        while not os.path.exists(home):
            home = os.path.dirname(home)
        if not os.access(home, os.W_OK):
            folder = tempfile.mkdtemp(prefix="minicontainer-plot-")
            atexit.register(shutil.rmtree, folder, ignore_errors=True)
            os.environ["MPLCONFIGDIR"] = folder


quiet()
try:
    import matplotlib
    from matplotlib import ticker
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch
except ImportError as missing:
    raise errors.Unsupported(
        f"plots are drawn by matplotlib ({missing}): ./dev setup installs it, or pip install 'minicontainer[plot]'"
    ) from None

__all__ = [
    "Moment", "Panel", "Picture", "bars", "histogram", "lines", "panels", "recorded", "save", "timeline",
]  # fmt: skip

# ---------------------------------------------------------------------------------------------------------------- style

INK, QUIET, RULE, PAPER = "#1b1f24", "#5b636d", "#d5d9de", "#ffffff"
OURS, REFERENCE = "#6aa5cc", "#e1e5e9"  # middle and light: they differ in grey, too

STYLE: Any = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same picture on every machine
    "font.size": 11,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": QUIET,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.unicode_minus": True,
    "grid.color": RULE,
    "grid.linewidth": 0.8,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "hatch.linewidth": 0.7,
    "figure.facecolor": PAPER,
    "savefig.facecolor": PAPER,
}
WIDTH = 8.6  # inches; a slide's width
DPI = 144

# Concept → colour, hatch. Lightness alternates between neighbours; the hatch stays when the colour is printed away.
CONCEPTS = {
    "process": ("#262626", ""),
    "engine": ("#8c8c8c", "++"),
    "terminal": ("#a6a6a6", "oo"),
    "namespaces": ("#0b4f6c", ""),
    "rootfs": ("#e9c46a", ""),
    "overlay": ("#d1703c", "//"),
    "bridge": ("#57a0d3", ""),
    "nat": ("#b8dcf0", "\\\\"),
    "cgroups": ("#3a7d44", ".."),
    "mounts": ("#b5d99c", "||"),
    "capabilities": ("#7b2d59", "--"),
    "seccomp": ("#dba6c5", "xx"),
    "idmap": ("#8f7a4f", "||"),
    "waiting": ("#ffffff", "...."),
}


class Picture(Figure):
    """A figure that brings its alternative text, and shows itself in a notebook without pyplot or a `%magic`."""

    alt: str = ""

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
        """What Jupyter asks for: the picture, its words for who does not see it, and its size on the page."""
        png = self.png()
        width = int.from_bytes(png[16:20], "big")  # PNG, 5.2: the header's first field
        image = base64.b64encode(png).decode()
        return (
            {"image/png": image, "text/plain": self.alt},
            {"image/png": {"alt": self.alt, "width": round(width * 96 / DPI)}},
        )

    def png(self) -> bytes:
        """The picture as PNG, its alternative text inside (the `Description` of PNG, 11.3.3.2)."""
        buffer = io.BytesIO()
        with matplotlib.rc_context(STYLE):
            self.savefig(
                buffer, format="png", dpi=DPI, bbox_inches="tight", pad_inches=0.15, metadata={"Description": self.alt}
            )
        return buffer.getvalue()


def save(figure: Figure, path: str) -> None:
    """Write the figure to a file, with its alternative text: PNG, SVG (`<dc:description>`) or PDF (`Subject`)."""
    alt = str(getattr(figure, "alt", ""))
    kind = os.path.splitext(path)[1].lower().removeprefix(".") or "png"
    fields = {"png": "Description", "svg": "Description", "pdf": "Subject"}
    if kind not in fields:
        raise errors.InvalidArgument(f"a plot is written as .png, .svg or .pdf, not {path}")
    try:
        with matplotlib.rc_context(STYLE):
            figure.savefig(
                path, format=kind, dpi=DPI, bbox_inches="tight", pad_inches=0.15, metadata={fields[kind]: alt}
            )
    except OSError as error:
        raise errors.InvalidArgument(f"the plot cannot be written to {path}: {error.strerror}") from None


def blank(title: str, width: float, height: float) -> Picture:
    """An empty picture with its title, to be called under STYLE."""
    figure = Picture(figsize=(width, height), dpi=100, layout="constrained")
    if title:
        figure.suptitle(textwrap.fill(title, 74), x=0.01, ha="left", fontsize=14, fontweight="bold")
    return figure


def figures(value: float) -> str:
    """A number with three digits that count: 0.0123, 1.23, 12.3, 1234, 45600."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}".replace(",", "\u202f")  # thin space: what the SI asks for
    return f"{value:#.3g}"


# ----------------------------------------------------------------------------------------------------------------- bars


class Panel(NamedTuple):
    """One set of bars: what, in which unit, the samples by label, and whom the others are compared with."""

    title: str
    unit: str
    series: Mapping[str, Sequence[float]]
    reference: str | None = None


def bars(
    title: str,
    unit: str,
    series: Mapping[str, Sequence[float]],
    reference: str | None = None,
    alt: str | None = None,
) -> Picture:
    """A bar for each label: the samples' median, the interval it surely lies in, each sample as a dot.

    `unit` is the axis' label: "ms", "MB/s (more is better)". With `reference` (a label) each other bar says how many
    times the reference it is; samples of equal number are taken to be of the same rounds (measure.ratio).
    """
    return panels(title, [Panel("", unit, series, reference)], alt)


def panels(title: str, groups: Sequence[Panel], alt: str | None = None, letters: float = 11) -> Picture:
    """Several sets of bars in one picture, each with an axis of its own. `letters`: their size, in points."""
    groups = [group for group in groups if any(len(samples) for samples in group.series.values())]
    if not groups:
        raise errors.InvalidArgument("there is nothing to plot: no samples")
    rows = [len(group.series) for group in groups]
    with matplotlib.rc_context(STYLE | {"font.size": letters}):
        figure = blank(title, WIDTH, 1.0 + sum(0.42 * count + 0.85 * letters / 11 for count in rows))
        grid = figure.add_gridspec(len(groups), 1, height_ratios=[count + 1.2 for count in rows])
        for number, group in enumerate(groups):
            draw_bars(figure.add_subplot(grid[number]), group, letters)
        figure.supxlabel(caption(groups), x=0.01, ha="left", fontsize=letters - 2, color=QUIET)
    figure.alt = alt or f"Bar chart. {title}. " + " ".join(map(in_words, groups))
    return figure


def draw_bars(axes: Axes, group: Panel, letters: float) -> None:
    """The bars of one panel, the first on top."""
    found = {label: measure.summary(samples) for label, samples in group.series.items() if samples}
    edge = last_shown(group)
    for row, (label, summary) in enumerate(found.items()):
        samples = group.series[label]
        light = label == group.reference
        axes.barh(row, summary.median, height=0.62, color=REFERENCE if light else OURS, edgecolor=INK, linewidth=0.6)
        within = [value for value in samples if value <= edge]
        if len(samples) > 1:
            axes.plot(within, scattered(row, len(within)), "o", ms=3.2, mfc=PAPER, mec=INK, mew=0.6, alpha=0.9)
            around = [[summary.median - summary.low], [summary.high - summary.median]]
            axes.errorbar(summary.median, row, xerr=around, fmt="none", ecolor=INK, elinewidth=1.8, capsize=4)
        if len(within) < len(samples):
            axes.plot(edge, row, ">", ms=5, color=INK)  # there are more, further out
        said = figures(summary.median)
        if group.reference in found and not light:
            said += f"  {times(samples, group.series[group.reference])}"
        place = max(summary.high, max(within, default=0.0)) if len(within) == len(samples) else edge
        axes.annotate(said, (place, row), xytext=(9, 0), textcoords="offset points", va="center", color=INK)
    axes.set_yticks(range(len(found)), [textwrap.fill(label, int(330 / letters)) for label in found])
    axes.set_ylim(len(found) - 0.45, -0.55)
    axes.set_xlim(0, edge * (1 + 0.025 * letters))
    axes.set_xlabel(group.unit)
    axes.xaxis.set_major_locator(ticker.MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:,.6g}".replace(",", "\u202f")))
    axes.grid(False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_color(INK)
    if group.title:
        axes.set_title(group.title, loc="left", fontsize=letters + 1, fontweight="bold")


def last_shown(group: Panel) -> float:
    """Where a panel's axis ends. One run that went astray must not flatten all others: it is only pointed to."""
    found = [measure.summary(samples) for samples in group.series.values() if samples]
    reach = max(summary.high for summary in found)
    most = max(summary.most for summary in found)
    return (most if most <= 1.6 * reach else 1.35 * reach) or 1.0


def cut(group: Panel) -> bool:
    """Whether some run of a panel lies beyond its axis."""
    return any(value > last_shown(group) for samples in group.series.values() for value in samples)


def scattered(row: int, count: int) -> list[float]:
    """Heights for dots that would lie on one another: up and down within the bar, in their order."""
    return [row + 0.2 * ((number * 0.618) % 1 - 0.5) * 2 for number in range(count)]


def times(samples: Sequence[float], reference: Sequence[float]) -> str:
    """`× 1.04`: the ratio of the medians."""
    below = measure.median(reference)
    return f"(× {figures(measure.median(samples) / below)})" if below else ""


def caption(groups: Sequence[Panel]) -> str:
    """What bars, whiskers and dots are, and of how many runs."""
    counts = {len(samples) for group in groups for samples in group.series.values() if samples}
    if counts == {1}:
        return "one run each"
    runs = f"{min(counts)}" if len(counts) == 1 else f"{min(counts)} to {max(counts)}"
    said = f"bar: median of {runs} runs · whisker: its interval, {measure.sureness(min(counts)):.0%} sure"
    said += " · dot: one run"
    said += " · ▶ more runs further out" * any(map(cut, groups))
    references = {group.reference for group in groups if group.reference}
    return said + (f"\n(× …): times {references.pop()}" if len(references) == 1 else "")


def in_words(group: Panel) -> str:
    """A panel for somebody who does not see it."""
    said = []
    for label, samples in group.series.items():
        if samples:
            found = measure.summary(samples)
            ratio = ""
            if group.reference and label != group.reference and group.series.get(group.reference):
                ratio = f", {times(samples, group.series[group.reference]).strip('()× ')} times {group.reference}"
            said.append(f"{label}: {figures(found.median)} ({figures(found.low)} to {figures(found.high)}{ratio})")
    return f"{group.title}{', ' if group.title else ''}{group.unit}: {'; '.join(said)}."


# ---------------------------------------------------------------------------------------------------------------- lines

# Colour, marker, dashes: any one of the three tells the lines apart.
LINES = [
    ("#2a6f97", "o", "-"),
    ("#d1703c", "s", "--"),
    ("#3a7d44", "^", "-."),
    ("#7b2d59", "D", ":"),
    ("#4d4d4d", "v", (0, (5, 1))),
    ("#b08900", "P", (0, (1, 1))),
]


def lines(
    title: str,
    x_label: str,
    y_label: str,
    series: Mapping[str, Sequence[tuple[float, float, float, float]]],
    alt: str | None = None,
) -> Picture:
    """A line for each label through its points (x, y, low, high); low to high is the band around it.

    Axes are labelled as given: with units, please. The y axis begins at zero, so that heights may be compared.
    """
    series = {label: sorted(points) for label, points in series.items() if points}
    if not series:
        raise errors.InvalidArgument("there is nothing to plot: no points")
    with matplotlib.rc_context(STYLE):
        figure = blank(title, WIDTH, 4.6)
        axes = figure.add_subplot()
        ends = []
        for number, (label, points) in enumerate(series.items()):
            colour, marker, dashes = LINES[number % len(LINES)]
            x, y, low, high = (list(column) for column in zip(*points, strict=True))
            axes.fill_between(x, low, high, color=colour, alpha=0.16, linewidth=0)
            axes.plot(x, y, color=colour, marker=marker, linestyle=dashes, lw=2, ms=6, mec=PAPER, mew=0.8, label=label)
            ends.append((y[-1], x[-1], label, colour))
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        axes.set_ylim(0, 1.08 * max(point[3] for points in series.values() for point in points) or 1)
        name_ends(axes, ends)
        axes.grid(False, axis="x")
    said = []
    for label, points in series.items():
        first, last = points[0], points[-1]
        said.append(
            f"{label}: {figures(first[1])} at {figures(first[0])}, {figures(last[1])} at {figures(last[0])}"
            f" ({len(points)} points)"
        )
    figure.alt = alt or f"Line chart. {title}. {y_label} over {x_label}. {'; '.join(said)}."
    return figure


def name_ends(axes: Axes, ends: list[tuple[float, float, str, str]]) -> None:
    """Each line's name at its right end; names that would cover one another are moved apart. One line needs none."""
    if len(ends) < 2:
        return
    bottom, top = axes.get_ylim()
    distance = (top - bottom) * 0.065
    right = max(x for _, x, _, _ in ends)
    height = bottom - distance
    placed = []
    for y, x, label, colour in sorted(ends):
        height = max(y, height + distance)
        placed.append((height, y, x, label, colour))
    excess = placed[-1][0] - (top - distance / 2)
    for height, y, x, label, colour in placed:
        if excess > 0:
            height = max(height - excess, bottom)
        axes.annotate(
            label, (x, y), xytext=(1.02, height), textcoords=("axes fraction", "data"), va="center", color=colour,
            fontweight="bold", annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": RULE, "lw": 0.8} if x != right or abs(height - y) > 1e-9 else None,
        )  # fmt: skip


# ------------------------------------------------------------------------------------------------------------ histogram

TENTHS = ["0–9 %", *(f"{10 * tenth}–{10 * tenth + 9} %" for tenth in range(1, 9)), "90–99 %", "100 %"]


def histogram(title: str, unit: str, series: Mapping[str, Sequence[float]], alt: str | None = None) -> Picture:
    """For each label, how many of its values (shares between 0 and 1) lie in each tenth; 1 stands alone."""
    counts = {
        label: [sum(min(int(value * 10 + 1e-9), 10) == tenth for value in values) for tenth in range(11)]
        for label, values in series.items()
        if values
    }
    if not counts:
        raise errors.InvalidArgument("there is nothing to plot: no values")
    with matplotlib.rc_context(STYLE | {"font.size": 10}):
        figure = blank(title, WIDTH, 0.9 + 1.5 * len(counts))
        for number, axes in enumerate(figure.subplots(len(counts), 1, squeeze=False, sharex=True)[:, 0]):
            label, heights = list(counts.items())[number]
            axes.bar(range(11), heights, width=0.86, color=OURS, edgecolor=INK, linewidth=0.6)
            for place, height in enumerate(heights):
                if height:
                    axes.annotate(
                        str(height),
                        (place, height),
                        xytext=(0, 2),
                        textcoords="offset points",
                        ha="center",
                        va="bottom",
                    )
            axes.set_title(label, loc="left", fontsize=11, fontweight="bold")
            axes.set_ylim(0, 1.25 * max(heights))
            axes.yaxis.set_major_locator(ticker.MaxNLocator(4, integer=True))
            axes.grid(False, axis="x")
            axes.set_xticks(range(11), TENTHS, fontsize=8.5)
            axes.tick_params(axis="x", length=0)
        figure.supxlabel(unit, fontsize=10)
    told = (
        f"{label}: " + ", ".join(f"{height} with {TENTHS[place]}" for place, height in enumerate(heights) if height)
        for label, heights in counts.items()
    )
    figure.alt = alt or f"Histogram. {title}, {unit}. {'; '.join(told)}."
    return figure


# ------------------------------------------------------------------------------------------------------------- timeline


def timeline(steps: Sequence[Moment | Mapping[str, Any]], title: str = "", alt: str | None = None) -> Picture:
    """A start by step: who was at work when, on which concept; at the right what it took to clear away.

    `steps` are Moments, or mappings with their fields. `run --explain --plot FILE.png` draws one of its own start;
    FILE.json keeps the steps instead, for `timeline(recorded(FILE))`.
    """
    moments = [step if isinstance(step, Moment) else Moment(**step) for step in steps]
    if not moments:
        raise errors.InvalidArgument("there is nothing to plot: no steps")
    start = [moment for moment in moments if moment.by != "teardown"]
    teardown = [moment for moment in moments if moment.by == "teardown"]
    parts = [part for part in (start, teardown) if part]
    lengths = [max(m.ended for m in part) - min(m.began for m in part) for part in parts]
    whole = sum(lengths) or 1e-6
    if not title:
        said = [f"{length * 1000:.1f} ms" for length in lengths]
        title = f"A start in {said[0]}" if start else f"Cleared away in {said[0]}"
        title += f", cleared away in {said[1]}" if len(parts) == 2 else ""
    spent: dict[str, float] = {}
    for moment in moments:
        spent[moment.concept] = spent.get(moment.concept, 0.0) + moment.ended - moment.began
    with matplotlib.rc_context(STYLE):
        figure = blank(title, 11, 4.4)
        # One scale for both: as wide as long. A very short part still needs room for its axis.
        ratios = [max(length / whole, 0.16) for length in lengths]
        grid = figure.add_gridspec(1, len(parts), width_ratios=ratios, wspace=0.06)
        for number, part in enumerate(parts):
            lanes = ["teardown"] if part is teardown else ["parent", "child"]
            draw_lanes(figure.add_subplot(grid[number]), part, lanes, lengths[number] / ratios[number])
        order = [name for name in sorted(spent, key=lambda name: -spent[name]) if name != "waiting"]
        order += ["waiting"] if "waiting" in spent else []
        patches = [
            Patch(facecolor=look(name)[0], hatch=look(name)[1], edgecolor=INK, linewidth=0.6,
                  label=f"{name}  {spent[name] * 1000:.1f} ms")
            for name in order
        ]  # fmt: skip
        figure.legend(
            handles=patches, loc="outside lower left", ncols=5, frameon=False, fontsize=10.5, handlelength=1.8,
            columnspacing=1.6,
        )  # fmt: skip
    longest = sorted(moments, key=lambda moment: moment.began - moment.ended)[:5]
    figure.alt = alt or (
        f"Timeline of {len(moments)} steps. {title}. By concept: "
        + ", ".join(f"{name} {spent[name] * 1000:.1f} ms" for name in order)
        + ". Longest steps: "
        + ", ".join(f"{m.call} ({m.by}) {(m.ended - m.began) * 1000:.1f} ms" for m in longest)
        + "."
    )
    return figure


def look(concept: str) -> tuple[str, str]:
    """Colour and hatch of a concept; grey for one that is not listed."""
    return CONCEPTS.get(concept or "process", ("#8c8c8c", "++"))


def draw_lanes(axes: Axes, moments: Sequence[Moment], lanes: list[str], scale: float) -> None:
    """The steps as segments on their process's lane, in ms from the first; the longest are named."""
    zero = min(moment.began for moment in moments)
    length = (max(moment.ended for moment in moments) - zero) * 1000 or 1e-3
    for moment in moments:
        row = lanes.index(moment.by)
        colour, hatch = look(moment.concept)
        left, wide = (moment.began - zero) * 1000, (moment.ended - moment.began) * 1000
        waiting = moment.concept == "waiting"
        edge = 0.5 if wide > scale * 1000 * 0.004 else 0.1  # of a sliver, the edges would be all that is seen
        axes.barh(
            row, wide, left=left, height=0.16 if waiting else 0.5, color=colour, hatch=hatch, linewidth=edge,
            edgecolor=RULE if waiting else INK,
        )  # fmt: skip
    for row, lane in enumerate(lanes):
        name_longest(axes, row, [m for m in moments if m.by == lane and m.concept != "waiting"], zero, length, scale)
    axes.set_yticks(range(len(lanes)), lanes, fontweight="bold")
    axes.set_ylim(1.5, -0.95)
    axes.set_xlim(0, length * 1.005)
    axes.set_xlabel("ms since the first step" if "parent" in lanes else "ms since the end")
    axes.grid(False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_locator(ticker.MaxNLocator(8 if "parent" in lanes else 3, steps=[1, 2, 5, 10]))


def name_longest(
    axes: Axes, row: int, moments: list[Moment], zero: float, length: float, scale: float, most: int = 5
) -> None:
    """Above the lane, the names of its longest steps, in two heights, as far as they do not cover one another."""
    taken: list[list[tuple[float, float]]] = [[], []]
    letter = scale * 1000 * 0.0092  # how wide a letter is, in ms
    for moment in sorted(moments, key=lambda moment: moment.began - moment.ended)[:most]:
        if (moment.ended - moment.began) * 1000 < scale * 1000 * 0.012:
            return
        middle = ((moment.began + moment.ended) / 2 - zero) * 1000
        half = len(moment.call) * letter / 2
        centre = min(max(middle, half), max(length - half, half))
        for level, used in enumerate(taken):
            free = all(centre + half < left or centre - half > right for left, right in used)
            # The line down from the upper height must not strike out a name of the lower one.
            if free and not (level and any(left < middle < right for left, right in taken[0])):
                used.append((centre - half, centre + half))
                height = row - 0.38 - 0.19 * level
                axes.plot([middle, middle], [row - 0.25, height + 0.06], color=QUIET, lw=0.6, clip_on=False)
                axes.text(centre, height, moment.call, fontsize=9.5, ha="center", va="center", color=INK)
                break
