"""Copy-on-write: sixty layers in one mount, the lower ones never written."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from minicontainer import errors
from minicontainer.kernel import overlay

MOUNT = """
import sys
from minicontainer import steps, syscalls
from minicontainer.kernel import overlay
syscalls.unshare(syscalls.CLONE_NEWNS)
syscalls.mount("", "/", "", syscalls.MS_REC | syscalls.MS_PRIVATE)
store, count = sys.argv[1], int(sys.argv[2])
steps.execute(overlay.mount(store, [f"l/{n:02}" for n in range(count)], f"{store}/c", False), {})
root = f"{store}/c/rootfs"
assert open(f"{root}/who").read() == str(count - 1), "the topmost layer wins"
assert len([name for name in __import__("os").listdir(root) if name.startswith("only-")]) == count
open(f"{root}/who", "w").write("changed")
steps.execute(overlay.umount(f"{store}/c"), {})
steps.execute(overlay.umount(f"{store}/c"), {})
"""


@pytest.mark.root
@pytest.mark.needs("overlay")
def test_sixty_layers_are_one_tree_and_stay_as_they_were(tmp_path: Path) -> None:
    for number in range(60):
        layer = tmp_path / f"l/{number:02}"
        layer.mkdir(parents=True)
        (layer / "who").write_text(str(number))
        (layer / f"only-{number}").touch()
    subprocess.run([sys.executable, "-c", MOUNT, tmp_path, "60"], check=True)
    assert (tmp_path / "l/59/who").read_text() == "59"
    assert (tmp_path / "c/upper/who").read_text() == "changed"
    assert os.listdir(tmp_path / "c/upper") == ["who"], "only what was written was copied up"


def test_the_topmost_layer_comes_first_in_the_kernels_list() -> None:
    text = overlay.options(["low", "mid", "top"], "u", "w", user=False, volatile=False)
    assert text == "lowerdir=top:mid:low,upperdir=u,workdir=w"


def test_options_that_do_not_fit_one_page_are_refused_not_cut() -> None:
    with pytest.raises(errors.InvalidArgument, match="a page has 4096"):
        overlay.options(["x" * 60] * 70, "u", "w", user=False, volatile=False)


@pytest.mark.parametrize("path", ["a:b", "a,b", "a\\b"])
def test_a_path_that_the_options_reserve_is_refused(path: str) -> None:
    with pytest.raises(errors.InvalidArgument):
        overlay.options(["low"], path, "w", user=False, volatile=False)
