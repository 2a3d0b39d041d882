"""`doctor`: what this machine can do, and the exact command that mends what it cannot. Changes nothing.

What can be tried is tried, in a child with namespaces of its own; what cannot is read from /proc. The facts of the
ground floor are `minicontainer.host`'s; those that need a concept are asked here.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator

from .. import errors, host, netlink, syscalls
from ..engine import bootstrap, configure, userns
from ..host import Fact
from ..kernel import cgroups, idmap, overlay
from ..network import foreign, nat, spoofing
from .flags import Flag, parse

FLAGS = [Flag("--json", "json", "bool", "the same as JSON")]

Group = tuple[str, list[Fact]]


def main(arguments: list[str]) -> int:
    """doctor [--json]"""
    values, rest = parse("doctor [--json]", FLAGS, arguments)
    if rest:
        raise errors.InvalidArgument(f"doctor takes no {rest[0]!r}")
    groups = [
        ("what every container needs", list(foundation())),
        ("the network", list(network())),
        ("limits", list(limits())),
        ("images and the store", [*host.store_facts(), *image_programs()]),
        ("more", list(extras())),
        ("the course", [*notebooks(), *labs()]),
    ]
    missing = sum(fact.state == "missing" for _, facts in groups for fact in facts)
    if values["json"]:
        print(json.dumps(as_json(groups), indent=1))
    else:
        print(shown(groups, colour=sys.stdout.isatty() and "NO_COLOR" not in os.environ))
    return 1 if missing else 0


def as_json(groups: list[Group]) -> dict[str, object]:
    """All facts, in order, and whether `run` will work."""
    facts = [
        {"group": group, "name": fact.name, "state": fact.state, "said": fact.said, "mend": fact.mend}
        for group, facts in groups
        for fact in facts
    ]
    return {"ready": all(fact["state"] != "missing" for fact in facts), "facts": facts}


COLOURS = {"ok": "32", "warn": "33", "missing": "31"}


def shown(groups: list[Group], colour: bool) -> str:
    """A line for each fact; the mend below, ready to be copied."""
    width = max(len(fact.name) for _, facts in groups for fact in facts)
    lines = []
    for title, facts in groups:
        lines.append(f"{title}:")
        for fact in facts:
            word = f"{fact.state:7}"
            if colour:
                word = f"\x1b[{COLOURS[fact.state]}m{word}\x1b[0m"
            lines.append(f"  {word}  {fact.name:{width}}  {fact.said}")
            if fact.mend:
                lines.append(f"  {'':7}  {'':{width}}  → {fact.mend}")
        lines.append("")
    every = [fact for _, facts in groups for fact in facts]
    missing = [fact.name for fact in every if fact.state == "missing"]
    warned = [fact for fact in every if fact.state == "warn"]
    if missing:
        lines.append(f"Not ready yet, for want of: {', '.join(missing)}. The lines with → mend it.")
    elif warned:
        count = f"{len(warned)} thing{'s' * (len(warned) > 1)}"
        how = "see →" if any(fact.mend for fact in warned) else "which nothing here mends"
        lines.append(f"Ready: `run` will work. {count} could be better, {how}.")
    else:
        lines.append("Ready: `run` will work, with all that belongs to it.")
    return "\n".join(lines)


# --------------------------------------------------------------------------------------------------------------- facts


def foundation() -> Iterator[Fact]:
    """Kernel, privilege, namespaces, overlay, seccomp, and our own dependencies."""
    yield host.machine_fact()
    yield host.kernel_fact()
    yield host.privilege_fact()
    yield host.namespaces_fact()
    yield host.filesystems_fact()
    yield host.overlay_fact()
    yield host.seccomp_fact()
    yield libseccomp()
    yield from dependencies()


def libseccomp() -> Fact:
    """The library that compiles profiles: needed once per profile, then the filter is cached."""
    try:
        import pyseccomp

        number = ".".join(map(str, pyseccomp.get_version())) if hasattr(pyseccomp, "get_version") else "found"
        return Fact("libseccomp", "ok", number)
    except ModuleNotFoundError:
        return Fact("libseccomp", "missing", "pyseccomp, its binding, is not installed", install("pyseccomp"))
    except (ImportError, RuntimeError, OSError):
        return Fact(
            "libseccomp", "missing", "not found; it compiles the seccomp profile", "sudo apt-get install libseccomp2"
        )


# Module → what to install, and what fails without it.
MODULES = {
    "_prctl": ("python-prctl", "missing", "capabilities cannot be set"),
    "zstandard": ("zstandard", "warn", "layers compressed with zstd cannot be read"),
    "pyroute2": ("pyroute2", "warn", "macvlan and ipvlan cannot be tried here"),
}


def dependencies() -> Iterator[Fact]:
    """The Python packages beside us, each looked for where `run` would look."""
    lacking = False
    for module, (package, state, consequence) in MODULES.items():
        try:
            there = importlib.util.find_spec(module) is not None
        except ImportError:
            there = False
        if not there:
            lacking = True
            yield Fact(package, state, f"not installed: {consequence}", install(package))
    if not lacking:
        yield Fact(
            "dependencies", "ok", f"Python {sys.version.split()[0]}, " + ", ".join(p for p, _, _ in MODULES.values())
        )


def install(package: str) -> str:
    """How a package of ours gets where this Python looks."""
    return f"./dev setup   or: {sys.executable} -m pip install {package}"


def network() -> Iterator[Fact]:
    """Bridge, cables, firewall: tried in a network namespace that goes with the child."""

    def bridge_and_cable() -> None:
        netlink.link_add("probe0", "bridge", up=True)
        netlink.link_add("probe1", "veth", peer="probe2", master="probe0", up=True)

    def firewall() -> None:
        netlink.nft(*nat.table_commands())

    def senders() -> None:
        netlink.nft(*spoofing.table_commands())

    yield tried("bridge, veth", bridge_and_cable, "can be made", ["bridge", "veth"])
    yield tried("nf_tables", firewall, "NAT and maps work", ["nf_tables", "nft_chain_nat", "nft_masq", "nft_fib_inet"])
    yield tried("forged addresses", senders, "dropped: nf_tables has the family bridge", ["nf_tables"], "warn")
    yield host.forwarding_fact()
    yield from foreign_firewalls()
    for kind in ("macvlan", "ipvlan"):
        yield tried(kind, functools.partial(on_a_cable, kind), "can be made", [kind], "warn")


def tried(name: str, attempt: Callable[[], object], good: str, modules: list[str], state: str = "missing") -> Fact:
    """A fact that comes from trying it where nobody sees it. `modules` of the kernel may help."""
    problem = host.probe(attempt, syscalls.CLONE_NEWNET)
    if not problem:
        return Fact(name, "ok", good)
    mend = f"sudo modprobe -a {' '.join(modules)}"
    if not any(has_module(module) for module in modules):
        mend = "" if state == "warn" else "boot your distribution's own kernel: this one was built without"
    return Fact(name, state, f"does not work here: {problem}", mend)


def has_module(name: str) -> bool:
    """Whether the running kernel came with that module (modules.dep(5))."""
    try:
        with open(f"/lib/modules/{os.uname().release}/modules.dep") as file:
            return any(f"/{name}.ko" in line.partition(":")[0] for line in file)
    except OSError:
        return False


def on_a_cable(kind: str) -> None:
    """A macvlan or ipvlan device on one end of a cable. Off the start path, so by pyroute2."""
    import pyroute2

    netlink.link_add("probe0", "veth", peer="probe1", up=True)
    with pyroute2.IPRoute() as route:
        try:
            route.link("add", ifname="probe2", kind=kind, link=route.link_lookup(ifname="probe0")[0])
        except pyroute2.NetlinkError as error:
            raise errors.KernelError(error.code, "RTM_NEWLINK", (kind,)) from None


def foreign_firewalls() -> Iterator[Fact]:
    """Chains of docker, ufw and others that drop what our bridge forwards."""
    device = f"mc0{host.suffix()}"
    if not host.is_root():
        yield Fact("firewall", "ok", "only root may look whether another one is in the way")
        return
    try:
        drops = foreign.drops(device)
    except (errors.MiniContainerError, OSError) as error:
        yield Fact("firewall", "warn", f"cannot be looked at: {error}")
        return
    for drop in drops:
        said = str(drop).partition("; to allow it: ")[0]
        yield Fact("firewall", "warn", said, f"sudo {drop.mend.replace(' && ', ' && sudo ')}")
    if not drops:
        yield Fact("firewall", "ok", "nobody else's drops what containers send")


def limits() -> Iterator[Fact]:
    """cgroups: which version, whether we may make some, which controllers they have."""
    layout = cgroups.detect()
    obstacle = cgroups.obstacle()
    if obstacle:
        said, _, mend = obstacle.partition("; ")
        state = "missing" if host.is_root() else "warn"
        yield Fact("cgroups", state, f"{said}: no limits", mend)
        return
    controllers = available(layout)
    name = f"version {layout.version}"
    lacking = [word for word in ("cpu", "cpuset", "memory", "pids") if word not in controllers]
    if lacking:
        mend = "boot with cgroup_enable=memory swapaccount=1" if "memory" in lacking else ""
        if not host.is_root():
            mend = "sudo systemctl set-property user-$(id -u).slice Delegate=yes   and log in again"
        yield Fact("cgroups", "warn", f"{name}, without {', '.join(lacking)}: such limits are refused", mend)
    else:
        yield Fact("cgroups", "ok", f"{name}, with cpu, cpuset, memory, pids")
    if cgroups.has_swap_limit():
        yield Fact("swap limit", "ok", "memory and swap can be limited together")
    else:
        yield Fact(
            "swap limit", "warn", "this kernel counts no swap: --memory alone cannot bound it",
            "add swapaccount=1 to GRUB_CMDLINE_LINUX in /etc/default/grub, then: sudo update-grub && sudo reboot",
        )  # fmt: skip


def available(layout: cgroups.Layout) -> set[str]:
    """The controllers that a container's cgroup can have."""
    if layout.version == 1:
        return set(layout.mounts)
    directory = layout.mounts.get("", "") + ("" if host.is_root() else layout.own)
    try:
        with open(f"{directory}/cgroup.controllers") as file:
            return set(file.read().split())
    except OSError:
        return set()


def image_programs() -> Iterator[Fact]:
    """What `bootstrap` makes images from, and what only XFS can get wrong."""
    point, kind, _ = host.mount_of(host.root())
    if kind == "xfs" and shutil.which("xfs_info"):
        told = subprocess.run(["xfs_info", point], check=False, capture_output=True, text=True).stdout
        if "ftype=0" in told:
            yield Fact("d_type", "missing", f"the XFS at {point} was made without ftype=1, which overlay needs",
                       "export MINICONTAINER_ROOT=/a/folder/on/ext4")  # fmt: skip
    busybox = shutil.which("busybox")
    if busybox and not is_dynamic(busybox):
        yield Fact("busybox", "ok", f"{busybox}, static: `bootstrap busybox` works")
    else:
        yield Fact(
            "busybox",
            "warn",
            "no static one: `bootstrap busybox` has to fetch it",
            "sudo apt-get install busybox-static",
        )
    if shutil.which("debootstrap") and os.path.exists(bootstrap.KEYRING):
        yield Fact("debootstrap", "ok", "`bootstrap debian` works, as root")
    else:
        yield Fact(
            "debootstrap",
            "warn",
            "not installed, or Debian's keys are not: no `bootstrap debian`",
            "sudo apt-get install debootstrap debian-archive-keyring",
        )


def is_dynamic(path: str) -> bool:
    """Whether a program names an interpreter (elf(5), PT_INTERP): then it needs libraries that an empty image lacks."""
    with open(path, "rb") as file:
        header = file.read(64)
        if header[:5] != b"\x7fELF\x02":
            return True
        start, size, count = (int.from_bytes(header[a:b], "little") for a, b in ((32, 40), (54, 56), (56, 58)))
        file.seek(start)
        table = file.read(size * count)
    return any(table[at : at + 4] == b"\x03\0\0\0" for at in range(0, len(table), size))


def extras() -> Iterator[Fact]:
    """Nice to have."""
    if os.path.exists(configure.INIT):
        yield Fact("tini", "ok", f"{configure.INIT}: `run --init` works")
    else:
        yield Fact("tini", "warn", "not installed: no `run --init`", "sudo apt-get install tini")
    yield host.user_namespaces_fact()
    yield host.subordinate_ids_fact()
    yield from own_ids()


def own_ids() -> Iterator[Fact]:
    """`run --userns auto`: whether mounts of the store can translate ids, and which ids there are to give."""
    if not host.is_root():
        yield Fact("idmapped mounts", "ok", "root of the machine may try them: sudo minicontainer doctor")
        return
    problem = userns.obstacle(host.store_place())
    if problem:
        old = problem == overlay.TOO_OLD or not idmap.translates()
        mend = "boot Linux 5.19 or newer" if old else "export MINICONTAINER_ROOT=/a/folder/on/ext4"
        yield Fact("idmapped mounts", "warn", f"no `run --userns auto`: {problem}", mend)
    else:
        yield Fact("idmapped mounts", "ok", "the store's ids can be translated: `run --userns auto` works")
    yield ids_to_lease()


def ids_to_lease() -> Fact:
    """How many containers `--userns auto` has ids for: those of `containers` in subuid(5) and subgid(5), or our own."""
    kept = userns.kept()
    room = sum(count // userns.COUNT for _, count in kept)
    if not room:
        first, count = userns.OWN
        return Fact(
            "ids to lease", "warn",
            f"/etc/subuid and /etc/subgid have no {userns.COUNT} ids in common for `{userns.NAME}`: no --userns auto",
            f"echo {userns.NAME}:{first}:{count} | sudo tee -a /etc/subuid /etc/subgid",
        )  # fmt: skip
    said = f"for {room} containers, from {' and '.join(str(first) for first, _ in kept)} on"
    if any(idmap.ranges(idmap.text_of(path), userns.NAME, -1) for path in ("/etc/subuid", "/etc/subgid")):
        return Fact("ids to lease", "ok", f"{said}, as /etc/subuid and /etc/subgid say")
    return Fact(
        "ids to lease", "ok", f"{said}; others by a line {userns.NAME}:FIRST:COUNT in /etc/subuid and /etc/subgid"
    )


def notebooks() -> Iterator[Fact]:
    """Which notebooks run here, and the mend for each that does not, or not whole."""
    from ..teach import lesson, sandbox

    lacking = [name for name in ("jupyterlab", "ipykernel", "nbclient") if importlib.util.find_spec(name) is None]
    if lacking:
        yield Fact("notebooks", "warn", f"none runs: {', '.join(lacking)} not installed", "./dev setup")
        return
    forbidden = sandbox.obstacle()
    if forbidden:
        said, _, mend = forbidden.partition(". Allow it:  ")
        yield Fact("notebooks", "warn", f"none runs as this user: {said}", mend)
        return
    obstacles = {word: in_the_sandbox(word) for word in lesson.WORDS}
    whole = [f"{number:02}" for number, topic in lesson.TOPICS.items() if not any(obstacles[w][0] for w in topic.wants)]
    who = "root of the machine, without a user namespace" if host.is_root() else "in a sandbox of your own"
    if whole:
        yield Fact("notebooks", "ok", f"{' '.join(whole)} run whole, {who}")
    for word, (said, mend) in obstacles.items():
        less = [f"{number:02}" for number, topic in lesson.TOPICS.items() if said and word in topic.wants]
        if less:
            yield Fact("notebooks", "warn", f"{' '.join(less)} show less: {said}", mend)


def labs() -> Iterator[Fact]:
    """Which labs can be checked here, and the mend for each that cannot, or not whole."""
    from ..teach import lab, sandbox

    if importlib.util.find_spec("pytest") is None:
        yield Fact("labs", "warn", "none can be checked: pytest not installed", "./dev setup")
        return
    forbidden = sandbox.obstacle()
    if forbidden:
        said = forbidden.partition(". Allow it:  ")[0]
        yield Fact(
            "labs", "warn", f"none can be checked as this user: {said}", "sudo minicontainer lab check NN lab.py"
        )
        return
    wants = {one.number: one.wants() for one in lab.every()}
    obstacles = {word: in_the_sandbox(word) for word in sorted(set().union(*wants.values()))}
    whole = [number for number, words in wants.items() if not any(obstacles[word][0] for word in words)]
    yield Fact("labs", "ok", f"{' '.join(whole)} can be checked whole, as this user")
    for word, (said, mend) in obstacles.items():
        less = [number for number, words in wants.items() if said and word in words]
        if less:
            mend = mend.replace("./dev notebooks", f"minicontainer lab check {less[0]} FILE")
            yield Fact("labs", "warn", f"{' '.join(less)}: not every test: {said}", mend)


def in_the_sandbox(word: str) -> tuple[str, str]:
    """Why the notebooks' kernel will lack something here, and the mend; two empty texts where it has it.

    The kernel has a network and mounts of its own; cgroups come from systemd, ids from /etc/subuid.
    """
    from ..teach import lesson, sandbox

    if word == "overlay":
        fact = host.overlay_fact()
        return ("", "") if fact.state == "ok" else (fact.said, fact.mend)
    if word == "cgroups" and not sandbox.wants_scope():
        said, _, _ = cgroups.obstacle().partition("; ")
        return said, "sudo ./dev notebooks" if said else ""
    if word == "idmap" and not host.is_root() and not idmap.here().helped:
        return "one user id only", idmap.mend()
    if word == "userns" or (word == "translation" and not in_the_sandbox("idmap")[0]):
        return lesson.obstacle(word)
    return "", ""
