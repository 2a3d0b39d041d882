"""Two hundred containers, twenty at a time: none shares an address, and nothing is left."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import leftovers
from tests.conftest import minicontainer

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A store of this file's own."""
    with leftovers.store_with_busybox(tmp_path_factory.mktemp("many") / "store") as root:
        yield root


ADDRESS = "ip -o -4 addr show eth0 | tr -s ' ' | cut -d' ' -f4; cat"


@pytest.mark.timeout(300)
def test_two_hundred_runs_twenty_at_a_time(store: Path) -> None:
    """Each shows its address and then waits on its input, so that the twenty exist at the same moment."""
    command = [sys.executable, "-m", "minicontainer", "run", "--rm", "-i", "busybox", "sh", "-c", ADDRESS]
    for _ in range(10):
        running = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            for _ in range(20)
        ]
        addresses = [process.stdout.readline().strip() for process in running if process.stdout]
        for process in running:
            _, error = process.communicate("", timeout=60)
            assert process.returncode == 0, error
        assert all("/" in address for address in addresses), addresses
        assert len(set(addresses)) == 20, sorted(addresses)
    assert leftovers.none_within(store, leftovers.suffix(store)) == []
    assert minicontainer("system", "check").stdout == "nothing is wrong\n"
