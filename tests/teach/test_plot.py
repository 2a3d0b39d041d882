"""Pictures: that they say what they show, to whoever looks and to whoever cannot; in one style, without a display."""

import base64
import json
import re
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from minicontainer import errors

pytest.importorskip("matplotlib")
from minicontainer.teach import plot, record  # noqa: E402

SAMPLES = {"native": [1.0, 1.1, 1.2, 1.1, 1.0, 1.3], "container": [2.0, 2.2, 2.4, 2.2, 2.0, 2.6]}
STEPS = [
    plot.Moment("parent", "mount", "overlay", 10.0, 10.004),
    plot.Moment("parent", "init.fork", "", 10.004, 10.005),
    plot.Moment("child", "unshare", "namespaces", 10.005, 10.0055),
    plot.Moment("parent", "channel.wait", "waiting", 10.005, 10.02),
    plot.Moment("teardown", "umount", "overlay", 15.0, 15.002),
]


def description(png: bytes) -> str:
    """The text of a PNG under `Description` (PNG, 11.3.3: tEXt, iTXt)."""
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    at = 8
    while at < len(png):
        length, kind = struct.unpack(">I4s", png[at : at + 8])
        body = png[at + 8 : at + 8 + length]
        if kind == b"tEXt" and body.startswith(b"Description\0"):
            return body.split(b"\0", 1)[1].decode("latin-1")
        if kind == b"iTXt" and body.startswith(b"Description\0"):
            rest = body[len("Description\0") :]
            text = rest[2:].split(b"\0", 2)[2]
            return (zlib.decompress(text) if rest[0] else text).decode()
        at += 12 + length
    return ""


def words(figure: plot.Picture) -> str:
    """All text that is in a figure."""
    return "\n".join(text.get_text() for text in figure.findobj(plot.matplotlib.text.Text))


def test_bars_show_medians_units_ratios_and_every_run() -> None:
    figure = plot.bars("Two ways", "ms", SAMPLES, reference="native")
    said = words(figure)
    assert {"Two ways", "native", "container", "1.10", "2.20  (× 2.00)"} <= set(said.splitlines())
    assert figure.axes[0].get_xlabel() == "ms"
    assert "6 runs" in said and "97% sure" in said
    assert sum(len(line.get_xdata()) for line in figure.axes[0].lines if line.get_marker() == "o") == 12
    assert "container: 2.20 (2.00 to 2.60, 2.00 times native)" in figure.alt


def test_a_run_that_went_astray_is_pointed_at_and_flattens_nobody() -> None:
    figure = plot.bars("Astray", "ms", {"one": [1.0] * 9 + [100.0]})
    assert figure.axes[0].get_xlim()[1] < 3
    assert [line.get_marker() for line in figure.axes[0].lines].count(">") == 1


@pytest.mark.parametrize("samples", [[5.0], [0.0, 0.0], [1e-9, 2e-9], [1e12]])
def test_any_column_can_be_drawn(samples: list[float], tmp_path: Path) -> None:
    plot.save(plot.bars("Any", "s", {"x": samples, "none": []}), str(tmp_path / "x.png"))


def test_lines_are_told_apart_without_colour_and_named_where_they_end() -> None:
    points = [(x, 2.0 * x, 1.9 * x, 2.2 * x) for x in range(1, 5)]
    figure = plot.lines("Growth", "containers", "MiB", {"a": points, "b": points, "c": points})
    drawn = [line for line in figure.axes[0].lines if len(line.get_xdata()) == 4]
    assert len({(line.get_marker(), str(line.get_linestyle())) for line in drawn}) == 3
    assert (figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()) == ("containers", "MiB")
    heights = [text.xyann[1] for text in figure.axes[0].texts]
    assert len(heights) == 3 and len(set(heights)) == 3
    assert figure.axes[0].get_ylim()[0] == 0


def test_a_timeline_has_a_lane_for_each_process_and_its_own_clock_for_the_end() -> None:
    figure = plot.timeline(STEPS)
    assert [[label.get_text() for label in axes.get_yticklabels()] for axes in figure.axes] == [
        ["parent", "child"],
        ["teardown"],
    ]
    assert [axes.get_xlim()[0] for axes in figure.axes] == [0, 0]
    assert figure.axes[0].get_xlim()[1] == pytest.approx(20, rel=0.02)
    assert "A start in 20.0 ms, cleared away in 2.0 ms" in words(figure)
    assert "overlay 6.0 ms" in figure.alt
    assert figure.alt == plot.timeline([step._asdict() for step in STEPS]).alt


def test_concepts_differ_in_grey_or_in_hatch() -> None:
    seen = set()
    for colour, hatch in plot.CONCEPTS.values():
        red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
        seen.add((round((0.2126 * red + 0.7152 * green + 0.0722 * blue) / 26), hatch))
    assert len(seen) == len(plot.CONCEPTS)


@pytest.mark.parametrize("kind", ["png", "svg", "pdf"])
def test_a_saved_picture_carries_its_words(kind: str, tmp_path: Path) -> None:
    figure = plot.bars("Words", "ms", SAMPLES, alt="two bars — one twice the other")
    plot.save(figure, str(tmp_path / f"x.{kind}"))
    data = (tmp_path / f"x.{kind}").read_bytes()
    if kind == "png":
        assert description(data) == figure.alt
    elif kind == "svg":
        assert figure.alt.encode() in data


def test_a_notebook_is_given_picture_words_and_size() -> None:
    figure = plot.bars("Shown", "ms", SAMPLES)
    data, metadata = figure._repr_mimebundle_()
    assert description(base64.b64decode(data["image/png"])) == figure.alt == metadata["image/png"]["alt"]
    assert data["text/plain"] == figure.alt
    assert 500 < metadata["image/png"]["width"] < 1200


def test_nothing_to_draw_and_nowhere_to_draw_it_are_refused(tmp_path: Path) -> None:
    for draw in (lambda: plot.bars("", "", {"a": []}), lambda: plot.lines("", "", "", {}), lambda: plot.timeline([])):
        with pytest.raises(errors.InvalidArgument, match="nothing to plot"):
            draw()
    figure = plot.bars("x", "ms", SAMPLES)
    for path in ("x.gif", "missing/x.png"):
        with pytest.raises(errors.InvalidArgument):
            plot.save(figure, str(tmp_path / path))


def test_it_is_silent_where_the_home_directory_cannot_be_written(tmp_path: Path) -> None:
    program = "from minicontainer.teach import plot; plot.bars('a', 'ms', {'x': [1, 2]}).png()"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        env={"PATH": "/usr/bin:/bin", "HOME": "/proc/1/nowhere", "TMPDIR": str(tmp_path)},
        capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------------------------- run --explain --plot


@pytest.mark.root
@pytest.mark.needs("overlay", "busybox", "libseccomp")
def test_run_draws_its_own_start(store: Path, tmp_path: Path) -> None:
    from tests.conftest import minicontainer

    minicontainer("bootstrap", "busybox")
    picture, raw = tmp_path / "start.png", tmp_path / "start.json"
    run = ["run", "--rm", "--network", "none", "--explain"]
    done = minicontainer(*run, "--plot", str(picture), "busybox", "sh", "-c", "echo out; exit 7", check=False)
    assert (done.returncode, done.stdout) == (7, "out\n")
    assert re.match(r"Timeline of \d+ steps\. A start in", description(picture.read_bytes()))
    minicontainer(*run, "--plot", str(raw), "busybox", "true")
    moments = plot.recorded(str(raw))
    assert {moment.by for moment in moments} == {"parent", "child", "teardown"}
    assert {"overlay", "namespaces", "rootfs", "waiting"} <= {moment.concept for moment in moments}
    assert all(moment.began <= moment.ended for moment in moments)
    assert json.loads(raw.read_text())["machine"]["kernel"]


@pytest.mark.parametrize(
    ("flags", "answer"),
    [(["--plot", "x.png"], "give both"), (["--explain=json", "--plot", "x.png"], "give both")],
)
def test_plot_needs_explain(flags: list[str], answer: str) -> None:
    from tests.conftest import minicontainer

    done = minicontainer("run", *flags, "busybox", "true", check=False)
    assert done.returncode == 125
    assert answer in done.stderr


def test_a_recorder_refuses_what_it_could_not_write(tmp_path: Path) -> None:
    class Planned:
        record = {"image": "x", "args": []}
        plan = ()

    for path in ("x.gif", "missing/x.png"):
        with pytest.raises(errors.InvalidArgument):
            record.Recorder(Planned, str(tmp_path / path))
