"""`--explain` as text and as JSON: what is said is what is done, and it fits the terminal."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from minicontainer import steps
from minicontainer.kernel import mounts, rootfs
from minicontainer.runtime import channel, init
from minicontainer.teach import explain
from tests import leftovers
from tests.conftest import minicontainer

LONG = "/var/lib/minicontainer/containers/" + "a" * 64

CHILD = [
    steps.unshare(0x00020000 | 0x04000000, why="its own")._replace(concept="namespaces"),
    steps.call(mounts.attach, "/root", "proc", "/proc", "proc", 14, "", why="ps reads it")._replace(concept="mounts"),
    steps.call(mounts.mask, "/proc/kcore", why="hidden")._replace(concept="rootfs"),
    steps.call(mounts.mask, "/proc/keys", why="hidden")._replace(concept="rootfs"),
]
NODE = {"path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o666}
PLAN = [
    steps.mkdir(f"{LONG}/upper", why="the writable layer")._replace(concept="overlay"),
    steps.write(f"{LONG}/hosts", steps.Text(("127.0.0.1 localhost\n", steps.ADDRESS, "\tname\n" * 90)), why="a name"),
    steps.call(init.fork, CHILD, steps.Symbol("a"), steps.Symbol("b"), False, why="apart", result="pid"),
    steps.call(channel.wait, steps.Symbol("a"), "namespaces", {}, why="until it is there"),
    steps.link_set("lo", up=True, namespace=steps.PID, why="up")._replace(concept="bridge"),
    steps.call(rootfs.make_device, "/r", NODE, why="a node"),
    steps.nft(("add table", "t"), why="rules")._replace(concept="nat"),
    steps.umount_all(f"{LONG}/rootfs", 2, why="gone")._replace(concept="overlay"),
]


@pytest.mark.parametrize("width", [60, 80, 100])
def test_text_fits_the_terminal(width: int) -> None:
    """No line is wider; nothing is coloured that need not be."""
    text = explain.text(PLAN, "parent", width, colour=False)
    assert max(map(len, text.splitlines())) <= width
    assert "\033" not in text


def test_text_says_what_the_man_pages_say() -> None:
    """Flags by their names, modes in octal, symbols by theirs; each why once; each concept with its notebook."""
    text = explain.text(PLAN, "parent", 100, colour=False)
    for words in (
        'mkdir("/var/lib/minicontainer/containers/aaaaaaaaaaaa…/upper", 0755)',
        "unshare(CLONE_NEWNS|CLONE_NEWUTS)",
        'mounts.attach("/root", "proc", "/proc", "proc", MS_NOSUID|MS_NODEV|MS_NOEXEC, "")',
        "pid = init.fork(<the child's plan, 4 steps>",
        'link_set("lo", up=true, namespace=$pid)',
        'rootfs.make_device("/r", "/dev/null", \'c\', 1:3, 0666)',
        "add table inet t",
        "MNT_DETACH",
        "notebook 06: overlay and copy-on-write",
        "child ─ namespaces",
    ):
        assert words in text, words
    assert text.count("# hidden") == 1
    assert text.count("mounts.mask(") == 2


def test_colour_changes_no_word() -> None:
    """What is coloured is the same text."""
    coloured = explain.text(PLAN, "parent", 80, colour=True)
    assert re.sub(r"\033\[[0-9;]*m", "", coloured) == explain.text(PLAN, "parent", 80, colour=False)


def test_unknown_flags_are_shown_too() -> None:
    """A bit without a name is not swallowed."""
    assert explain.flag_names(2 | 1 << 30, explain.MOUNT) == "MS_NOSUID|0x40000000"
    assert explain.flag_names(0, explain.MOUNT) == "0"


def test_json_lists_both_processes_in_their_order() -> None:
    """The child's steps follow the fork; a `call` names its function first."""
    listed = json.loads(explain.as_json(PLAN))
    assert [step["process"] for step in listed] == ["parent"] * 3 + ["child"] * 4 + ["parent"] * 5
    assert all(list(step) == ["process", "verb", "arguments", "why", "concept", "result"] for step in listed)
    assert listed[3]["arguments"] == ["CLONE_NEWNS|CLONE_NEWUTS"]
    flags = "MS_NOSUID|MS_NODEV|MS_NOEXEC"
    assert listed[4]["arguments"] == ["mounts.attach", "/root", "proc", "/proc", "proc", flags, ""]
    assert listed[2]["result"] == "pid"


# -------------------------------------------------------------------------------------------- root: of real containers


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A store of this file's own."""
    with leftovers.store_with_busybox(tmp_path_factory.mktemp("explain") / "store") as root:
        yield root


@pytest.mark.root
@pytest.mark.parametrize("columns", ["80", "100"])
def test_explain_tells_on_stderr_and_leaves_stdout_alone(
    store: Path, columns: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every step with its duration, then where the time went; and the container's output is its own."""
    monkeypatch.setenv("COLUMNS", columns)
    flags = ["--rm", "-p", "0:80", "--memory", "64m", "busybox"]
    done = minicontainer("run", "--explain", *flags, "echo", "hello")
    assert done.stdout == "hello\n"
    told = [line for line in done.stderr.splitlines() if not line.startswith("minicontainer: warning")]
    assert max(map(len, told)) <= int(columns)
    assert "\033" not in done.stderr
    planned = json.loads(minicontainer("run", "--explain=json", *flags, "true").stdout)
    durations = [line for line in told if re.match(r" *\d+\.\d\d ms  ", line)]
    heading = next(line for line in told if line.startswith("start: "))
    counts = {who: int(count) for count, who in re.findall(r"(\d+) by the (\w+)", heading)}
    for who in ("parent", "child"):
        # One more or less: a shared bridge is set up by whoever comes first.
        assert abs(counts[who] - sum(step["process"] == who for step in planned)) <= 12
    ending = next(line for line in told if line.startswith("teardown: "))
    down = int(re.findall(r"(\d+) by the teardown", ending)[0])
    assert len(durations) == sum(counts.values()) + down - 1  # execve leaves nobody to tell how long it took
    text = "\n".join(told)
    for words in ("init.execute(", "pivot_root", "CLONE_NEWNET", "nat.withdraw", "remove_tree", "$container/upper"):
        assert words in text, words


@pytest.mark.root
def test_rm_explains_the_teardown(store: Path) -> None:
    """The plan, and nothing else: the container is still there afterwards."""
    minicontainer("run", "--name", "kept", "--network", "none", "busybox", "true")
    done = minicontainer("rm", "--explain", "kept")
    assert "containers.drop_name(" in done.stdout and "teardown ─ cgroups" in done.stdout
    assert "kept" in minicontainer("ps", "-a").stdout
    minicontainer("rm", "kept")


@pytest.mark.root
def test_colour_on_a_terminal_only_and_not_against_the_user(store: Path) -> None:
    """script(1) gives stderr a terminal; NO_COLOR takes the colour away again."""
    run = f"{sys.executable} -m minicontainer run --explain --rm --network none busybox true"
    for variable, coloured in (("TERM=xterm", True), ("NO_COLOR=1", False)):
        command = ["script", "-qec", f"env {variable} {run}", "/dev/null"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
        assert ("\033[" in done.stdout) is coloured
