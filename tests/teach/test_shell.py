"""`--explain=sh`: every step has its command, every word is quoted, and the script's container equals the engine's."""

import ast
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
from hypothesis import strategies

from minicontainer import steps
from minicontainer.teach import shell
from tests import leftovers
from tests.conftest import CHECKOUT, minicontainer

# ---------------------------------------------------------------------------------------------------- pure: the tables


def called_functions() -> Iterator[tuple[str, str]]:
    """(where, "module.function") of every function that a `steps.call(…)` names in what a container's plan is made of.

    The notebooks' sandbox and the labs' rooms (teach/, with kernel/idmap), `exec` and bundles have plans of their own,
    which no script renders.
    """
    for path in sorted((CHECKOUT / "minicontainer").rglob("*.py")):
        if "teach" in path.parts or path.name in ("idmap.py", "enter.py", "between.py", "waiting.py", "lifecycle.py"):
            continue
        own = path.parent.name if path.name == "__init__.py" else path.stem
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and ast.unparse(node.func) == "steps.call"):
                continue
            function = node.args[0]
            choices = [function.body, function.orelse] if isinstance(function, ast.IfExp) else [function]
            for choice in choices:
                name = ast.unparse(choice)
                yield f"{path.name}:{node.lineno}", name if "." in name else f"{own}.{name}"


ELSEWHERE = (  # `update`'s, `exec`'s, and bundles'
    "cgroups.gather",
    "cgroups.go_in",
    "cgroups.weigh_disks",
    "hooks.run",
    "idmap.become_root",
    "idmap.give_pipes",
    "init.live_with_parent",
    "listener.hand_over",
    "listener.load",
    "mounts.attach_copy",
    "mounts.propagate",
    "mounts.set_below",
    "os.chroot",
    "priorities.run_on",
    "priorities.schedule",
    "priorities.queue",
    "priorities.take_for",
    "rootfs.let_go",
    "scope.begin",
    "scope.change",
    "scope.stop",
    "syscalls.setdomainname",
)


def test_every_verb_and_every_called_function_has_a_rendering() -> None:
    """A step that the script could not show would be a container that is not the same."""
    assert set(shell.VERBS) == set(steps.VERBS) - {"call"}
    lacking = []
    for where, name in called_functions():
        # A method is named by an instance (`volumes.create`), its class by the function itself.
        known = name in shell.CALLS or any(key.split(".")[::2] == name.split(".") for key in shell.CALLS)
        if not known and name not in ("function", "steps.function", *ELSEWHERE):
            lacking.append(f"{where} {name}")
    assert lacking == []


NAMES = [shell.Name("id", "a" * 64, "a" * 64), shell.Name("store", "/s p/$x", "/s p/$x")]


@hypothesis.given(strategies.text(strategies.characters(codec="utf-8", exclude_characters="\0"), max_size=40))
def test_a_word_means_itself(text: str) -> None:
    """Whatever a user writes, the shell hands on unchanged: alone, and beside a variable."""
    sheet = shell.Sheet(NAMES, "parent")
    for value in (text, f"{text}{'a' * 64}{text}", f"/s p/$x/{text}"):
        script = f"id={'a' * 64}; store='/s p/$x'; printf %s {sheet.word(value)}"
        done = subprocess.run(["sh", "-c", script], capture_output=True)
        assert done.stdout.decode() == value
        assert done.stderr == b""


def test_known_values_and_symbols_become_variables() -> None:
    """A long path is written as what it is: the container's."""
    sheet = shell.Sheet(NAMES, "parent")
    assert sheet.word(f"/s p/$x/containers/{'a' * 64}/upper") == '"$store/containers/$id/upper"'
    assert sheet.word(steps.Text((steps.ADDRESS, "/16"))) == '"$address/16"'
    assert sheet.word(steps.Text((steps.PID, "s"))) == '"${pid}s"'
    assert sheet.word("/s p/$xyz") == "'/s p/$xyz'"


@hypothesis.given(strategies.text("ab$`\\\"'EOF_\n ", max_size=60))
def test_a_document_means_itself(text: str) -> None:
    """A file's content, whole, between the two ends of a here-document."""
    for content in (f"{text}\n", steps.Text((f"{text} ", steps.ADDRESS, "\n"))):
        sheet = shell.Sheet([], "parent")
        shell.write(sheet, "/dev/stdout", content)
        done = subprocess.run(
            ["sh"], input="address=10.0.0.1\n" + "\n".join(sheet.lines), capture_output=True, text=True
        )
        assert done.stdout == str(content).replace("$address", "10.0.0.1")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/etc/hosts", "/etc/hosts"),
        ("/run/lock", "/run/lock"),
        ("/var/run/x/../y", "/run/y"),
        ("/../../etc", "/etc"),
        ("/up/etc", "/etc"),
        ("/var/lock/new/deep", "/run/lock/new/deep"),
        ("//a//./b/", "/a/b"),
    ],
)
def test_links_of_the_image_lead_nowhere_else(tmp_path: Path, path: str, expected: str) -> None:
    """`inside` is the script's openat2(2) with RESOLVE_IN_ROOT."""
    for directory in ("etc", "run/lock", "var"):
        (tmp_path / directory).mkdir(parents=True)
    (tmp_path / "var/run").symlink_to("/run")
    (tmp_path / "var/lock").symlink_to("../../../run/lock")
    (tmp_path / "up").symlink_to("../..")
    script = f'set -eu\n{shell.FUNCTIONS["inside"]}\ninside "$1"; printf %s "$place"'
    environment = {**os.environ, "rootfs": str(tmp_path)}
    done = subprocess.run(["sh", "-c", script, "sh", path], capture_output=True, text=True, env=environment)
    assert done.stdout == f"{tmp_path}{expected}", done.stderr


def test_a_circle_of_links_ends(tmp_path: Path) -> None:
    """As openat2(2) ends it, with ELOOP."""
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("/a")
    script = f"set -eu\n{shell.FUNCTIONS['inside']}\ninside /a/c; echo came here"
    environment = {**os.environ, "rootfs": str(tmp_path)}
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, env=environment, timeout=20)
    assert done.returncode and "came here" not in done.stdout


# --------------------------------------------------------------------------------------- root: the same container twice

PROBE = r"""
echo == mounts; cat /proc/self/mountinfo
echo == namespaces; for kind in cgroup ipc mnt net pid uts user; do echo $kind $(readlink /proc/self/ns/$kind); done
echo == names; hostname; cat /etc/hostname /etc/hosts /etc/resolv.conf
echo == network; ip -o addr show; ip route
echo == cgroup; cat /proc/self/cgroup
cd /sys/fs/cgroup && grep . */cpu.cfs_* */cpu.shares */memory.limit_in_bytes */memory.memsw.limit_in_bytes \
    */memory.soft_limit_in_bytes */pids.max */devices.list */cpuset.cpus cpu.max cpu.weight memory.max memory.swap.max \
    memory.low pids.max 2>/dev/null
echo == process; grep -E '^(Uid|Gid|Groups|Cap|NoNewPrivs)' /proc/self/status; echo pid $$; umask
cat /proc/self/limits /proc/self/oom_score_adj
echo == environment; env | sort
echo == files; ls -lan /dev /dev/pts /data /scratch 2>/dev/null; touch /here 2>&1
echo == settings; cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/msgmax
"""

CASES = {
    "bridge": ["--cpus", "0.5", "--memory", "64m", "--pids-limit", "50", "--hostname", "ada"],
    "bridge with ports": ["-p", "127.0.0.1:0:80", "-p", "0:53/udp", "-v", "/data", "-v", "named:/named"],
    "none": ["--network", "none", "-v", "{tmp}/a dir:/data:ro", "--tmpfs", "/scratch:size=1m", "--read-only"],
    "host": ["--network", "host", "--memory-reservation", "32m", "--cpu-shares", "512"],
    "user": [
        "--network", "none", "-u", "1000:1000", "--group-add", "55", "-w", "/work/deep",
        "-e", "A=it's $HOME `x` \\ \"q\"",
        "--ulimit", "nofile=100:200", "--security-opt", "no-new-privileges", "--oom-score-adj", "500",
    ],
    "capabilities": [
        "--network", "none", "--cap-drop", "ALL", "--cap-add", "NET_ADMIN", "--sysctl", "kernel.msgmax=4321",
    ],
    "shared": ["--network", "host", "--pid", "host", "--ipc", "host", "--uts", "host"],
    "privileged": ["--network", "none", "--privileged", "--shm-size", "1m", "--cpuset-cpus", "0"],
    "mounts": [
        "--network", "none", "--mount", "type=bind,source={tmp}/a dir,target=/data,bind-propagation=rslave",
        "--mount", "type=tmpfs,target=/scratch,tmpfs-mode=700", "--device", "/dev/null:/dev/mine:rw",
        "-v", "{tmp}/made:/made", "-v", "{tmp}/file:/etc/passwd:ro",
    ],
}  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A store of this file's own."""
    with leftovers.store_with_busybox(tmp_path_factory.mktemp("explain") / "store") as root:
        yield root


def left_behind(store: Path) -> list[str]:
    """What is still there after a moment. The note of the host's ip_forward is the store's, until `system reset`."""
    for _ in range(400):
        found = [trace for trace in leftovers.find(store, leftovers.suffix(store)) if "/ip_forward-" not in trace]
        if not found:
            break
        time.sleep(0.05)
    return found


def normalised(output: str, host: bool) -> str:
    """The probe's output with what differs between any two containers replaced by what it stands for."""
    text = re.sub(r"\b[0-9a-f]{64}\b", "ID", output)
    text = re.sub(r"\b[0-9a-f]{12}\b", "SHORT", text)
    head, _, rest = text.partition("== namespaces")
    # Mounts: numbered anew in their order; device numbers of what was mounted for it, by their order, too. A slave's
    # master is what the script says that it cannot make; and the kernel lists first what was made first.
    order: dict[str, str] = {}
    lines = []
    listed = [line.split(" ") for line in head.splitlines()[1:]]
    for fields in sorted(listed, key=lambda fields: fields[4]):
        fields = [field for field in fields if not field.startswith("master:")]
        order.setdefault(fields[0], f"m{len(order)}")
        device = order.setdefault(fields[2], f"d{len(order)}") if fields[2].startswith("0:") else fields[2]
        lines.append(" ".join([order[fields[0]], order.get(fields[1], "outside"), device, *fields[3:]]))
    for kind in ("cgroup", "ipc", "mnt", "net", "pid", "uts", "user"):
        own = os.readlink(f"/proc/self/ns/{kind}")
        rest = re.sub(rf"^{kind} ({kind}:\[\d+\])$", lambda m, o=own: f"{m[0][:5]} {'host' if m[1] == o else 'new'}",
                      rest, flags=re.M)  # fmt: skip
    if host:  # whose devices come and go meanwhile; that it is the host's was said above
        rest = re.sub(r"(?s)== network.*== cgroup", "== cgroup", rest)
    else:
        rest = re.sub(
            r"\b(172|10|192)\.\d+\.\d+\.\d+(?=/\d+ scope global|\s+(SHORT|ada|[\w-]+)$| *$)",
            "ADDRESS",
            rest,
            flags=re.M,
        )
        rest = re.sub(r"src \S+", "src ADDRESS", rest)
    rest = re.sub(r"eth0@if\d+|fe80::\S+", "NUMBER", rest)
    rest = re.sub(r"(tentative|dadfailed) ?", "", rest)
    rest = re.sub(r"inet6 NUMBER.*\n?", "", rest)
    rest = re.sub(r"^pid \d+$", lambda m: m[0] if m[0] == "pid 1" else "pid of the host's", rest, flags=re.M)
    rest = re.sub(r"\w{3} +\d+ +\d\d:\d\d", "DATE", rest)
    return "\n".join(lines) + rest


@pytest.mark.root
@pytest.mark.needs("busybox", "setpriv", "nft", "ip")
@pytest.mark.parametrize("case", CASES)
def test_the_script_makes_the_same_container(store: Path, tmp_path: Path, case: str) -> None:
    """Once by the engine, once by hand: equal in mounts, namespaces, names, network, cgroups, user and limits."""
    (tmp_path / "a dir").mkdir()
    (tmp_path / "file").write_text("root:x:0:0::/:/bin/sh\n")
    flags = [flag.format(tmp=tmp_path) if "{tmp}" in flag else flag for flag in CASES[case]]
    command = ["--rm", *flags, "busybox", "sh", "-c", PROBE]
    by_engine = minicontainer("run", *command)
    script = tmp_path / "script"
    script.write_text(minicontainer("run", "--explain=sh", *command).stdout)
    by_hand = subprocess.run(["sh", str(script)], capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
    assert by_hand.stderr == ""
    assert by_hand.returncode == 0
    host = "host" in case or "shared" in case
    assert normalised(by_hand.stdout, host).splitlines() == normalised(by_engine.stdout, host).splitlines()
    assert "== settings" in by_hand.stdout
    assert left_behind(store) == []


@pytest.mark.userns
@pytest.mark.needs("busybox", "setpriv", "user-overlay")
def test_the_root_of_a_user_namespace_makes_it_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Devices bound instead of made, user.overlay xattrs, no setgroups: the plan says so, and the script with it."""
    monkeypatch.setenv("MINICONTAINER_ROOT", str(tmp_path / "store"))
    (tmp_path / "data").mkdir()
    (tmp_path / "data/probe").write_text(PROBE)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    flags = f"--rm --network none -v {tmp_path}/data:/data"
    run = f'{sys.executable} -m minicontainer run {flags} "$@" busybox sh /data/probe'
    both = f"""
        {sys.executable} -m minicontainer bootstrap busybox >&2
        {run}
        echo == by hand
        set -- --explain=sh
        {run} >{tmp_path}/script
        sh {tmp_path}/script
    """
    command = ["unshare", "-Ur", "sh", "-ec", both]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=CHECKOUT, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    by_engine, _, by_hand = done.stdout.partition("== by hand\n")
    assert normalised(by_hand, False).splitlines() == normalised(by_engine, False).splitlines()
    assert "== settings" in by_hand
    assert os.listdir(tmp_path / "store/containers") == ["names"]


@pytest.mark.root
@pytest.mark.parametrize("code", [0, 7, 137])
def test_the_exit_code_is_the_commands(store: Path, tmp_path: Path, code: int) -> None:
    """… and standard input goes in under -i."""
    command = [
        "--rm",
        "-i",
        "--network",
        "none",
        "busybox",
        "sh",
        "-c",
        f"cat; [ {code} != 137 ] || kill -9 $$; exit {code}",
    ]
    script = tmp_path / "script"
    script.write_text(minicontainer("run", "--explain=sh", *command).stdout)
    done = subprocess.run(["sh", str(script)], input="typed\n", capture_output=True, text=True, timeout=60)
    assert done.stdout == "typed\n"
    # The first process of a pid namespace cannot kill itself with SIGKILL: pid_namespaces(7).
    assert done.returncode == code
    assert left_behind(store) == []


@pytest.mark.root
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGKILL, 137)])
def test_signals(store: Path, tmp_path: Path, number: signal.Signals, code: int) -> None:
    """A signal to the script ends the container; one that kills the container is in the script's exit code."""
    command = [
        "--rm",
        "--network",
        "none",
        "-v",
        f"{tmp_path}:/data",
        "busybox",
        "sh",
        "-c",
        "touch /data/up; sleep 50",
    ]
    script = tmp_path / "script"
    script.write_text(minicontainer("run", "--explain=sh", *command).stdout)
    identifier = re.findall(r"^id=(\w{64})$", script.read_text(), flags=re.M)[0]
    with subprocess.Popen(["sh", str(script)], stdin=subprocess.DEVNULL) as running:
        while not (tmp_path / "up").exists():
            assert running.poll() is None
            time.sleep(0.02)
        if number == signal.SIGKILL:
            own = f"minicontainer{leftovers.suffix(store)}/{identifier}/cgroup.procs"
            procs = next(Path(point, own) for point in leftovers.HIERARCHIES if Path(point, own).exists())
            os.kill(int(procs.read_text().split()[0]), number)
        else:
            running.send_signal(number)
        assert running.wait(60) == code
    assert left_behind(store) == []


@pytest.mark.root
def test_a_script_that_fails_leaves_nothing(store: Path, tmp_path: Path) -> None:
    """Each of its commands in turn is made to fail: the trap takes down what there is."""
    command = ["--rm", "--memory", "64m", "-p", "0:80", "busybox", "true"]
    text = minicontainer("run", "--explain=sh", *command).stdout
    lines = text.splitlines()
    begin = lines.index("trap 'exit 143' TERM")
    places = [n for n, line in enumerate(lines) if line.startswith("# ") and n > begin]
    for place in places[:: max(1, len(places) // 12)]:
        script = tmp_path / "script"
        script.write_text("\n".join([*lines[:place], "false", *lines[place:]]) + "\n")
        done = subprocess.run(["sh", str(script)], capture_output=True, text=True, timeout=60)
        assert done.returncode != 0, f"{lines[place]} {done.stderr}"
        assert left_behind(store) == [], lines[place]


@pytest.mark.root
def test_the_plan_takes_nothing(store: Path) -> None:
    """Neither a lease nor a directory: the script is text only."""
    before = sorted(store.rglob("*"))
    for form in ("json", "sh"):
        minicontainer("run", f"--explain={form}", "-v", "data:/data", "-p", "80:80", "busybox", "true")
    assert sorted(store.rglob("*")) == before
    assert left_behind(store) == []


@pytest.mark.root
@pytest.mark.parametrize(
    "flags", [*CASES.values(), ["-t"], ["--init"], ["--name", "named"]], ids=lambda flags: " ".join(flags)[:40]
)
def test_every_plan_can_be_rendered(store: Path, tmp_path: Path, flags: list[str]) -> None:
    """And the shell can read it; every why of the plan stands there."""
    (tmp_path / "a dir").mkdir()
    (tmp_path / "file").touch()
    words = [flag.format(tmp=tmp_path) if "{tmp}" in flag else flag for flag in flags]
    done = minicontainer("run", "--explain=sh", *words, "busybox", "echo", "it's")
    assert "has no rendering" not in done.stdout
    assert subprocess.run(["sh", "-n"], input=done.stdout, capture_output=True, text=True).stderr == ""
