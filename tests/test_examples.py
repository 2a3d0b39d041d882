"""Every example of minicontainer/EXAMPLES.md does what it says: doctests, in one Python, against the tests' images."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import CHECKOUT, minicontainer
from tests.engine_fixtures import Shop, fresh_shop  # noqa: F401

PAGE = CHECKOUT / "minicontainer" / "EXAMPLES.md"


@pytest.mark.root
@pytest.mark.needs("overlay", "bridge", "veth", "nftables", "libseccomp", "idmapped-overlay")
def test_every_example_does_what_it_says(shop: Shop, tmp_path: Path) -> None:
    blocks = re.findall(r"^```pycon\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) > 10
    script = tmp_path / "examples.txt"
    script.write_text("\n".join(blocks))
    for name in ("busybox", "debian"):
        minicontainer("tag", "plain", name)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "doctest", "-o", "ELLIPSIS", "-f", script], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
    finally:
        left = minicontainer("ps", "-aq").stdout.split()
        if left:
            minicontainer("rm", "-f", "-v", *left)
        minicontainer("rmi", "busybox", "debian")
