"""`run --lab`: the real tool on a learner's functions, and what it says where they fail."""

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from minicontainer import errors
from minicontainer.teach import lab
from minicontainer.teach.lab import swap
from tests import leftovers
from tests.conftest import CHECKOUT, minicontainer

File = Callable[[str], str]

# A stack() whose work can be told from the package's: a file that no image has, the attributes of user namespaces.
STACK = """
    import os
    from minicontainer import syscalls

    def stack(layers, top):
        for name in ("upper", "work", "merged", "extra"):
            os.mkdir(f"{top}/{name}")
        open(f"{top}/extra/mine", "w").write("the learner was here\\n")
        lower = ":".join([f"{top}/extra", *reversed(layers)])
        data = f"lowerdir={lower},upperdir={top}/upper,workdir={top}/work,userxattr"
        syscalls.mount("overlay", f"{top}/merged", "overlay", 0, data)
    """


@pytest.fixture
def file(tmp_path: Path) -> File:
    """A lab.py with this text; its path."""

    def write(source: str) -> str:
        path = tmp_path / "labs" / "06_overlay" / "lab.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(source))
        return str(path)

    return write


# ------------------------------------------------------------------------------------------------------- the real tool


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A store with busybox."""
    with leftovers.store_with_busybox(tmp_path_factory.mktemp("swap") / "store") as made:
        yield made


def run(*words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return minicontainer("run", "--rm", "--network", "none", *words, check=check)


@pytest.mark.root
@pytest.mark.needs("overlay", "busybox", "libseccomp")
class TestRun:
    @pytest.mark.parametrize("everything", [False, True], ids=["one", "all"])
    def test_a_container_stands_on_the_learners_mount(self, root: Path, file: File, everything: bool) -> None:
        path = file(STACK)
        word = f"all={Path(path).parent.parent}" if everything else f"overlay={path}"
        done = run("--lab", word, "busybox", "cat", "/mine", "/proc/self/mountinfo")
        assert done.stdout.startswith("the learner was here")
        at_root = next(line for line in done.stdout.splitlines() if line.split()[4:5] == ["/"])
        assert " - overlay " in at_root and "userxattr" in at_root and "/extra:" in at_root, at_root
        assert run("busybox", "ls", "/mine", check=False).returncode == 1, "a plain run knows nothing of it"
        assert leftovers.none_within(root, leftovers.suffix(root)) == []

    def test_explain_shows_it_under_its_concept(self, root: Path, file: File) -> None:
        lines = run("--explain", "--lab", f"overlay={file(STACK)}", "busybox", "true").stderr.splitlines()
        heading = next(number for number, line in enumerate(lines) if line.startswith("parent ─ overlay"))
        assert "learner" in lines[heading + 1] and "lab.stack" in lines[heading + 2], lines[heading : heading + 3]
        assert not any("mount_at" in line for line in lines)

    @pytest.mark.parametrize(
        ("body", "said"),
        [
            ("    raise OSError(28, 'No space left on device')", "line 2, in stack(): OSError: [Errno 28]"),
            ("    raise NotImplementedError", "line 2, in stack(): still the stub"),
            ("    import sys; sys.exit(0)", "line 2, in stack(): SystemExit: 0"),
            ("    helper()\ndef helper():\n    1 / 0", "line 4, in stack(): ZeroDivisionError"),
            ("    pass", "at the step call (the learner's stack())"),
        ],
        ids=["raises", "stub", "exits", "in a helper", "does nothing"],
    )
    def test_a_failure_names_file_and_line_and_leaves_nothing(
        self, root: Path, file: File, body: str, said: str
    ) -> None:
        path = file(f"def stack(layers, top):\n{body}")
        done = run("--lab", f"overlay={path}", "busybox", "true", check=False)
        assert done.returncode == 125
        assert said in done.stderr, done.stderr
        assert path in done.stderr or body == "    pass"
        assert leftovers.none_within(root, leftovers.suffix(root)) == []

    def test_an_endless_loop_ends(self, root: Path, file: File) -> None:
        path = file("def stack(layers, top):\n    while True: pass")
        done = run("--lab", f"overlay={path}", "busybox", "true", check=False)
        assert done.returncode == 125
        assert "line 2, in stack(): TimeoutError: it did not come back within" in done.stderr
        assert leftovers.none_within(root, leftovers.suffix(root)) == []

    def test_a_file_without_the_function(self, root: Path, file: File) -> None:
        path = file("def stapel(): pass")
        done = run("--lab", f"overlay={path}", "busybox", "true", check=False)
        assert done.returncode == 125
        assert f"{path} has no stack(), which lab 06_overlay asks for" in done.stderr


# ----------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("overlay", "write TOPIC=FILE"),
        ("overlay=", "write TOPIC=FILE"),
        ("overly=lab.py", "no lab is called overly; there are .*06_overlay"),
        ("overlay=/nowhere/lab.py", "/nowhere/lab.py: No such file"),
        ("all=/nowhere", "no NN_topic/lab.py is in there"),
    ],
)
def test_a_word_that_cannot_be_meant(word: str, said: str) -> None:
    with pytest.raises(errors.MiniContainerError, match=said):
        for found, path in swap.named(word):
            swap.Learners(found, path)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("def stack(:", "line 1: SyntaxError"),
        ("import nothing_of_that_name", "line 1: ModuleNotFoundError"),
        ("\n\nopen('/nowhere')", "line 3: FileNotFoundError"),
        ("raise SystemExit(0)", "line 1: SystemExit"),
    ],
)
def test_a_file_that_cannot_be_loaded(file: File, source: str, said: str) -> None:
    path = file(source)
    with pytest.raises(errors.MiniContainerError) as raised:
        swap.Learners(lab.get("overlay"), path)
    assert str(raised.value).startswith(f"{path}, {said}")


@pytest.mark.root
def test_nothing_is_imported_from_a_new_root(tmp_path: Path, file: File) -> None:
    """The image's own Python module, which lies where ours would look for it, is not loaded with our rights."""
    for place in filter(None, sys.path):
        (tmp_path / place.lstrip("/")).mkdir(parents=True, exist_ok=True)
        (tmp_path / place.lstrip("/") / "trojan.py").write_text("open('/loaded', 'w').close()")
    path = file("import json\ndef stack(layers, top):\n    import json\n    import trojan")
    code = f"""
        import os
        from minicontainer.teach import lab
        from minicontainer.teach.lab import swap
        mine = swap.Learners(lab.get("overlay"), {path!r})
        swap.install(["overlay={path}"])
        os.chroot({str(tmp_path)!r})
        mine.stack([], "")
        """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=CHECKOUT, check=False)
    assert "line 4, in stack(): ImportError: trojan would come from the image by now" in done.stderr, done.stderr
    assert not os.path.exists(tmp_path / "loaded")
