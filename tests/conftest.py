"""Tiers of tests, and what a test may ask of the host.

Three tiers by what a test needs, never by mood:

    (no mark)               pure: no privilege at all
    @pytest.mark.userns     an ordinary user: makes user namespaces. Under root, `./dev test` runs these as nobody
    @pytest.mark.root       root of the machine

and, across the tiers,

    @pytest.mark.slow       over ten seconds, or needs a real docker or podman: only with --all
    @pytest.mark.brief      a slow test does more of the same: not with --all, where both would run
    @pytest.mark.vm         also part of the lane on the second kernel (`./dev vm`). kernel/test_cgroups.py has it by
                            itself, and so has tests/vm, which runs nowhere else but on pure cgroup v2, and its
                            test_systemd.py only under systemd (`./dev vm --systemd`), test_engines.py only in there
    @pytest.mark.needs("overlay", "nft")
                            skips, naming what is missing. Words from FEATURES below, or a command's name

A tier that this run is not for is deselected, not skipped. A skip therefore always means "this host lacks something",
and with CI=true it is a failure unless the feature is one of EXPECTED_ABSENT.
"""

import contextlib
import ctypes.util
import functools
import importlib.util
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import hypothesis.configuration
import pytest

from tests import peers

CHECKOUT = Path(__file__).resolve().parent.parent
IN_CI = os.environ.get("CI", "").lower() in ("1", "true", "yes")

# What one of the two kernels lacks and the other one has: the test runs there; and what is not to be had everywhere, or
# as large as npm.
# Nothing else may be skipped in CI.
EXPECTED_ABSENT = {"cgroup1", "cgroup2", "ipvlan", "dummy", "vlan", "resource-limits", "atheris", "node", "npm"}

# Hypothesis keeps examples that failed; not in the checkout, which may belong to someone else.
hypothesis.configuration.set_hypothesis_home_dir("/tmp/minicontainer-hypothesis-" + str(os.getuid()))
hypothesis.settings.register_profile("here", deadline=None, print_blob=True)
hypothesis.settings.load_profile("here")


# ------------------------------------------------------------------------------------------------------------- features


def is_root() -> bool:
    """Root of the machine, not of a user namespace."""
    return os.geteuid() == 0 and Path("/proc/self/uid_map").read_text().split() == ["0", "0", "4294967295"]


def link_kind(kind: str, *arguments: str) -> bool:
    """Whether the kernel makes a network device of that kind (in a network namespace that goes with the command)."""
    parent = "ip link add parent0 type veth peer name parent1 && " if kind in ("ipvlan", "macvlan", "vlan") else ""
    on = "link parent0" if parent else ""
    return works(
        "unshare", *as_owner(), "-n", "sh", "-c", f"{parent}ip link add probe0 {on} type {kind} {' '.join(arguments)}"
    )


def works(*command: str) -> bool:
    """Whether a command exits with 0. Quietly."""
    try:
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=20).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def as_owner() -> list[str]:
    """What an ordinary user adds to `unshare` to be root of what it makes."""
    return [] if os.geteuid() == 0 else ["-r"]


def filesystem(name: str) -> bool:
    """Whether the kernel knows a filesystem: built in, or a module that root's first mount would load."""
    if any(line.split()[-1] == name for line in Path("/proc/filesystems").read_text().splitlines()):
        return True
    return is_root() and works("modprobe", name)


def cgroup1_controller(name: str) -> bool:
    """Whether a controller is mounted as cgroup v1."""
    return any(
        fields[0] == name and fields[1] != "0"
        for fields in (line.split() for line in Path("/proc/cgroups").read_text().splitlines())
    )


def nftables() -> bool:
    """nf_tables with NAT: what the default bridge asks for."""
    rules = "add table ip t; add chain ip t c { type nat hook postrouting priority 100; }; add rule ip t c masquerade"
    return works("unshare", *as_owner(), "-n", "nft", rules)


def is_cgroup2() -> bool:
    """Pure cgroup v2: the one mounted at /sys/fs/cgroup is the unified hierarchy."""
    with contextlib.suppress(OSError):
        return (Path("/sys/fs/cgroup") / "cgroup.controllers").exists()
    return False


def ipv6() -> bool:
    """Whether loopback has its address of IPv6."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
        probe.bind(("::1", 0))
        return True
    return False


def is_systemd() -> bool:
    """Whether systemd is process 1: sd_booted(3)."""
    return os.path.isdir("/run/systemd/system")


def status(field: str) -> str:
    """One line of /proc/self/status (proc_pid_status(5))."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(line.split()[1] for line in lines if line.startswith(field + ":"))


def since(*version: int) -> bool:
    """Whether the kernel is of this version or newer."""
    return [int(number) for number in re.findall(r"\d+", os.uname().release)[:2]] >= list(version)


# A feature's name: how to see it, and what to do where it is missing.
FEATURES: dict[str, tuple[Callable[[], bool], str]] = {
    "overlay": (lambda: filesystem("overlay"), "a kernel with overlayfs"),
    "user-overlay": (
        lambda: works(
            "unshare",
            "-rm",
            "sh",
            "-c",
            "d=$(mktemp -d) && mount -t tmpfs t $d && cd $d && mkdir l u w m && "
            "mount -t overlay -o userxattr,lowerdir=l,upperdir=u,workdir=w o m",
        ),
        "Linux 5.11 or newer, where a user namespace may mount an overlay",
    ),
    "idmapped-overlay": (lambda: since(5, 19), "Linux 5.19 or newer, whose overlayfs may stand on idmapped mounts"),
    "idmapped-tmpfs": (lambda: since(6, 3), "Linux 6.3 or newer, whose tmpfs may be an idmapped mount"),
    "user-namespace": (
        lambda: works("unshare", "-rm", "true"),
        "user namespaces for ordinary users: sysctl user.max_user_namespaces and "
        "kernel.apparmor_restrict_unprivileged_userns",
    ),
    "bridge": (lambda: link_kind("bridge"), "the kernel's bridge (modprobe bridge)"),
    "veth": (lambda: link_kind("veth", "peer", "name", "probe1"), "the kernel's veth (modprobe veth)"),
    "dummy": (lambda: link_kind("dummy"), "the kernel's dummy (modprobe dummy)"),
    "vlan": (lambda: link_kind("vlan", "id", "5"), "the kernel's 802.1Q (modprobe 8021q)"),
    "macvlan": (lambda: link_kind("macvlan"), "the kernel's macvlan (modprobe macvlan)"),
    "ipvlan": (lambda: link_kind("ipvlan"), "the kernel's ipvlan (modprobe ipvlan)"),
    "ipv6": (ipv6, "IPv6, ::1 at least: sysctl net.ipv6.conf.lo.disable_ipv6=0"),
    "nftables": (nftables, "nf_tables with NAT in the kernel, and the nftables package for the tests' own look at it"),
    "cgroup1": (lambda: not is_cgroup2() and cgroup1_controller("memory"), "a host with cgroup v1"),
    "cgroup2": (is_cgroup2, "a host with pure cgroup v2 (./dev vm has it)"),
    "resource-limits": (
        lambda: bool(int(status("CapEff"), 16) >> 24 & 1),
        "CAP_SYS_RESOURCE (./dev vm has it)",
    ),
    "atheris": (
        lambda: importlib.util.find_spec("atheris") is not None,
        "./dev test --all gets it where there is a build of it for this Python and processor",
    ),
    "libseccomp": (lambda: ctypes.util.find_library("seccomp") is not None, "apt-get install libseccomp2"),
}


@functools.cache
def missing(feature: str) -> str | None:
    """What to say when this host lacks `feature`; None when it has it. Looked up once per run."""
    if feature in FEATURES:
        probe, mend = FEATURES[feature]
        return None if probe() else f"missing: {feature} ({mend})"
    return (
        None if shutil.which(feature) else f"missing: {feature} (apt-get install it; ./dev setup --peers has them all)"
    )


def need(*features: str) -> None:
    """Skip the running test (from its body or a fixture) where a feature is missing, and name it."""
    for feature in features:
        if said := missing(feature):
            pytest.skip(said)


# ---------------------------------------------------------------------------------------------------------------- tiers


def pytest_configure() -> None:
    """Signals mean what they usually do: nohup, and a shell for what it puts behind `&`, have some ignored."""
    for number, usual in ((signal.SIGHUP, signal.SIG_DFL), (signal.SIGINT, signal.default_int_handler)):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, usual)


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--all`, as `./dev test --all` passes it on."""
    parser.addoption("--all", action="store_true", help="run the tests marked slow, too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect what this run is not for: by user, by --all, by kernel."""
    kept, dropped = [], []
    for item in items:
        if item.path == CHECKOUT / "tests" / "kernel" / "test_cgroups.py":
            item.add_marker(pytest.mark.vm)
        if item.path.is_relative_to(CHECKOUT / "tests" / "vm"):
            item.add_marker(pytest.mark.vm)
            elsewhere = (
                not is_cgroup2()
                or (item.path.name == "test_systemd.py" and not is_systemd())
                or (item.path.name == "test_engines.py" and "MINICONTAINER_VM" not in os.environ)
            )
        else:
            elsewhere = False
        unfit = (
            elsewhere
            or (item.get_closest_marker("slow") is not None and not config.getoption("--all"))
            or (item.get_closest_marker("brief") is not None and config.getoption("--all"))
            or (item.get_closest_marker("root") is not None and not is_root())
            or (item.get_closest_marker("userns") is not None and os.geteuid() == 0)
        )
        # The run as nobody is for the userns tier alone: the pure tests have had their turn.
        unfit = unfit or ("MINICONTAINER_USERNS_LANE" in os.environ and item.get_closest_marker("userns") is None)
        (dropped if unfit else kept).append(item)
    if dropped:
        config.hook.pytest_deselected(items=dropped)
        items[:] = kept


def pytest_runtest_setup(item: pytest.Item) -> None:
    """@pytest.mark.needs(…)."""
    for marker in item.iter_markers("needs"):
        need(*marker.args)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI a skip is a failure, unless the other kernel runs that test."""
    report = yield
    if IN_CI and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if not any(f"missing: {feature} " in reason for feature in EXPECTED_ABSENT):
            report.outcome = "failed"
            report.longrepr = f"unexpected skip in CI: {reason}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """The same for a whole file (pytest.importorskip at its top)."""
    report = yield
    if IN_CI and report.skipped:
        report.outcome = "failed"
        report.longrepr = f"unexpected skip in CI: {report.longrepr}"
    return report


# ------------------------------------------------------------------------------------------------------------- fixtures


@pytest.fixture(scope="session", autouse=True)
def _no_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """`run` of an image that is not here asks nobody for it: tests reach loopback and what they made, no further."""
    path = tmp_path_factory.mktemp("settings") / "registries.json"
    path.write_text('{"pull": "never"}')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINICONTAINER_REGISTRIES", str(path))
        yield


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A store of the test's own, whose shared kernel objects (bridge, table, cgroup) go with it."""
    root = tmp_path / "store"
    monkeypatch.setenv("MINICONTAINER_ROOT", str(root))
    yield root
    if root.exists():
        minicontainer("system", "reset", "--force", check=False)


def minicontainer(
    *arguments: str, check: bool = True, stdin: str | None = None, timeout: float = 60, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """The command line as users type it, in a process of its own, output captured; with `check`, it must succeed."""
    done = subprocess.run(
        [sys.executable, "-m", "minicontainer", *arguments],
        input=stdin or "",
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd=cwd,
    )
    if check and done.returncode:
        pytest.fail(f"minicontainer {' '.join(arguments)} exited with {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done


@pytest.fixture(scope="session")
def shared_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One store for all tests of `run`, filled by tests/engine_fixtures.py; its `shop` is what they ask for."""
    from tests import engine_fixtures

    root = tmp_path_factory.mktemp("shop") / "store"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINICONTAINER_ROOT", str(root))
        engine_fixtures.fill(root)
    yield root
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINICONTAINER_ROOT", str(root))
        minicontainer("system", "reset", "--force")


@pytest.fixture(scope="session")
def _peers() -> Iterator[None]:
    """What docker and podman were given goes with the session."""
    yield
    peers.stop()


@pytest.fixture(scope="session")
def docker(_peers: None) -> list[str]:
    """A real docker: the words its commands begin with, e.g. `subprocess.run([*docker, "save", …])`. For slow tests."""
    need("docker", "dockerd")
    return peers.docker()


@pytest.fixture(scope="session")
def podman(_peers: None) -> list[str]:
    """A real podman: the words its commands begin with. For slow tests."""
    need("podman")
    return peers.podman()
