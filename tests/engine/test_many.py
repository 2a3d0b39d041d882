"""Two hundred containers, twenty at a time: none shares an address, and nothing is left."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests import leftovers
from tests.conftest import minicontainer
from tests.runtime.test_crash import store, suffix  # noqa: F401: a fixture

pytestmark = pytest.mark.root

ADDRESS = "ip -o -4 addr show eth0 | tr -s ' ' | cut -d' ' -f4; cat"


@pytest.mark.timeout(300)
def test_two_hundred_runs_twenty_at_a_time(store: Path) -> None:  # noqa: F811
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
        assert all(address.startswith("172.") for address in addresses), addresses
        assert len(set(addresses)) == 20, sorted(addresses)
    assert leftovers.none_within(store, suffix(store)) == []
    assert minicontainer("system", "check").stdout == "nothing is wrong\n"
