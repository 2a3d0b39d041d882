"""Ways out by what our own processes do while they are inside: hooks, files of /proc, who looks at whom."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.test_life import until
from tests.conftest import CHECKOUT, minicontainer
from tests.engine_fixtures import Beside, Shop, fresh_shop  # noqa: F401
from tests.runtime.test_oci import Engine, engine  # noqa: F401
from tests.security.prisoners import PYTHON, trees

pytestmark = [pytest.mark.root, pytest.mark.needs("busybox")]

CREATE = """
import sys
from minicontainer import cli
from minicontainer.runtime import threshold
if sys.argv[1] == "raced":  # the program was another one when it was looked at
    threshold.check = lambda path: None
sys.argv[1:2] = ["oci"]
cli.console()
"""
TELL = "#!/proc/self/exe\nimport os\nopen('/told', 'w').write(os.readlink('/proc/self/exe'))\n"


@pytest.mark.parametrize("when", ["seen", "raced"])
def test_cve_2019_5736_a_hook_inside_is_the_interpreter_itself(engine: Engine, when: str) -> None:  # noqa: F811
    """A startContainer hook is a program of the container's, which may be `#!/proc/self/exe`. What Python needs to run
    is there, so it would tell."""
    root = engine.bundle / "rootfs"
    (root / "evil").write_text(TELL)
    (root / "evil").chmod(0o755)
    for tree in trees():
        engine.config["mounts"].append({"destination": tree, "type": "bind", "source": tree, "options": ["rbind"]})
    engine.config["hooks"] = {"startContainer": [{"path": "/evil"}]}
    engine.command("sh", "-c", ":")
    words = [sys.executable, "-c", CREATE, when, *engine.words("create", "--bundle", str(engine.bundle), "c")[4:]]
    subprocess.run(words, cwd=CHECKOUT, check=True, timeout=60, stdout=subprocess.DEVNULL)
    engine("start", "c")
    engine.until("stopped")
    assert not (root / "told").exists()
    engine("delete", "c", check=True)
    (root / "evil").write_text(TELL.replace("/proc/self/exe", PYTHON, 1))
    engine("run", "--bundle", str(engine.bundle), "c")
    assert (root / "told").read_text() == PYTHON, "the control: a hook that may be one"


HOSTILE = """
mkdir /p; mount -t proc proc /p; mount -t tmpfs none /proc; mkdir /proc/self
ln -s /secret/file /proc/self/oom_score_adj; mknod /proc/self/setgroups p; ln -s /p/self/fd /proc/self/fd
if cat /secret/file; then :; else echo ready; fi
sleep 1000
"""


@pytest.mark.needs("idmapped-overlay")
def test_exec_writes_nothing_where_a_hostile_proc_leads(shop: Shop, tmp_path: Path) -> None:  # noqa: F811
    """Root of a container with a user namespace mounts a /proc of its own. Who goes in is the machine's root until it
    is somebody there: a file that only that one may write must not be written, and no pipe must hold it up."""
    secret = tmp_path / "secret"
    secret.mkdir(0o700)
    (secret / "file").write_text("secret")
    (secret / "file").chmod(0o600)
    own = ("--userns", "auto", "--privileged", "--oom-score-adj", "217", "-v", f"{secret}:/secret")
    with shop.start(*own, "plain", "sh", "-c", HOSTILE) as container:
        assert container.ready == "ready"
        done = minicontainer("exec", container.name, "sh", "-c", "cat /p/self/oom_score_adj; id -G")
        assert done.stdout.split()[0] == "217"
        assert (secret / "file").read_text() == "secret"


ENTERING = """
import os, signal
from minicontainer import steps
from minicontainer.engine import client, entering
from minicontainer.runtime import enter

def stop():
    os.kill(os.getpid(), signal.SIGSTOP)

born = enter.born
enter.born = lambda *a: [steps.call(stop, why="held"), *born(*a)]
entering.begin(client.Client().containers, "beside", ["true"], {}).wait_started()
"""


@pytest.mark.needs("idmapped-overlay")
def test_cve_2016_9962_in_a_user_namespace_whose_root_may_trace(shop: Shop) -> None:  # noqa: F811
    """At its first moment inside, when it has as many rights there as the container's own root, who may trace all that
    is in there: /proc/PID of it shows nothing."""
    own = ("--userns", "auto", "--privileged", "plain", "sh", "-c", "echo ready; sleep 1000")
    with shop.start(*own) as container, subprocess.Popen([sys.executable, "-c", ENTERING]) as client:
        looked_at(container)
        assert client.wait(30) == 0


def looked_at(container: Beside) -> None:
    """Somebody inside looks at the process that has been stopped there, and is refused; then it goes on."""

    def held() -> int:
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                same = os.readlink(entry / "ns/pid") == container.namespace("pid")
                if same and (entry / "stat").read_text().rpartition(")")[2].split()[0] == "T":
                    return int(entry.name)
            except OSError:
                continue
        return 0

    pid = until(held)
    numbers = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if "NSpid" in line)
    number = numbers.split()[-1]
    try:
        for name in ("exe", "root", "cwd", "fd"):
            done = minicontainer("exec", container.name, "ls", "-l", f"/proc/{number}/{name}", check=False)
            assert "Permission denied" in done.stderr and "->" not in done.stdout, (name, done.stdout)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert "->" in minicontainer("exec", container.name, "ls", "-l", "/proc/1/exe").stdout, "the control"


HELD = """
import os, signal, sys
from minicontainer import steps
from minicontainer.engine import client
from minicontainer.runtime import init

def stop():
    os.kill(os.getpid(), signal.SIGSTOP)

command = init.command
init.command = lambda *a: [step for all in command(*a) for step in
                           ((steps.call(stop, why="held"), all) if all.arguments[0] is init.execute else (all,))]
client.Client().containers.run("plain", ["true"], detach=True, network_mode="none", pid_mode="container:beside",
                               name="held", remove=True)
"""


def test_who_shares_its_pid_namespace_cannot_look_into_a_container_that_starts(shop: Shop) -> None:  # noqa: F811
    """`--pid container:EVIL`: right before execve it has no more rights than the other's root, and is still ours:
    /proc/PID/exe would be the interpreter (CVE-2019-5736), /proc/PID/fd what it has open."""
    with (
        shop.start("plain", "sh", "-c", "echo ready; sleep 1000") as container,
        subprocess.Popen([sys.executable, "-c", HELD]) as client,
    ):
        looked_at(container)
        assert client.wait(30) == 0
