"""What every notebook of the course begins, asks and ends with.

from minicontainer.teach import lesson

here = lesson.begin(6)          what this host can do for it; here.store, here.scratch, here.can("cgroups")
lesson.busybox()                a root directory to rebuild containers on
lesson.disk()                   a directory in mounts of which ids can be translated
lesson.run("busybox", "ps")     the package's own container, in this notebook's store
lesson.question(1, "…")         then `answer_1 = ...` in the learner's cell
lesson.check(1, answer_1, f)    f runs something and returns what is true
lesson.end()                    everything is gone, or it says what is not
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from typing import Any, NamedTuple

from .. import errors, files, host, syscalls
from ..kernel import cgroups, idmap


class Topic(NamedTuple):
    """A notebook, as the course's table has it."""

    title: str
    file: str
    minutes: int
    wants: tuple[str, ...] = ()  # words for `can`: without them it teaches, too, but shows less


TOPICS = {
    1: Topic("A process and its exit code", "01_process", 30, ("overlay",)),
    2: Topic("Namespaces: what a process sees", "02_namespaces", 40, ("overlay",)),
    3: Topic("The root file system: chroot, its escape, pivot_root", "03_rootfs", 45, ("overlay",)),
    4: Topic("An image is a tarball with metadata", "04_archive", 40, ("overlay",)),
    5: Topic("Layers and whiteouts", "05_layers", 40, ("overlay",)),
    6: Topic("Overlay and copy-on-write", "06_overlay", 45, ("overlay",)),
    7: Topic("Network namespaces, veth, bridge", "07_bridge", 60, ("overlay", "network")),
    8: Topic("NAT and published ports", "08_nat", 55, ("network",)),
    9: Topic("cgroups: how much a process may use", "09_cgroups", 45, ("cgroups",)),
    10: Topic("Volumes and bind mounts", "10_mounts", 40, ("overlay",)),
    11: Topic("Capabilities and seccomp: what root may do", "11_security", 45, ("overlay",)),
    12: Topic("User namespaces: root that is nobody", "12_idmap", 65, ("overlay", "idmap", "translation", "userns")),
    13: Topic("Registries: an image, one blob at a time", "13_registry", 45, ("overlay",)),
    14: Topic("Builds: a cache, and what it goes by", "14_build", 50, ("overlay",)),
    15: Topic("The OCI runtime: a bundle in, a process out", "15_oci", 50, ("network",)),
    16: Topic("What it costs: the comparison with native", "16_measure", 45, ("overlay", "network")),
}


# ------------------------------------------------------------------------------------------------ what this host can do


@functools.cache
def obstacle(word: str) -> tuple[str, str]:
    """Why this kernel cannot do what `word` names, and the mend; two empty texts if it can."""
    if word == "cgroups":
        said, _, mend = cgroups.obstacle().partition("; ")
        return said, mend if host.is_root() or not said else "sudo ./dev notebooks"
    if word == "network":
        if host.owns_network() and host.privileged():
            return "", ""
        return "this network namespace is another's", "open the notebook with the kernel named minicontainer"
    if word == "overlay":
        fact = host.overlay_fact()
        return ("", "") if fact.state == "ok" else (fact.said, fact.mend)
    if word == "idmap":
        if idmap.mapped() > 1:
            return "", ""
        return "only one user id is mapped here, so nothing can belong to a second one", idmap.mend()
    if word == "translation" and idmap.mapped() == 1:
        return "with one user id there is nothing to translate", idmap.mend()
    if word in ("translation", "userns") and not host.is_root():
        said = idmap.obstacle("") if word == "translation" else "it is for root of the machine"
        return said, "sudo ./dev notebooks" if said else ""
    if word in ("translation", "userns"):
        from ..engine import userns

        directory = here.directory if here else host.store_place()
        said = idmap.obstacle(directory) if word == "translation" else userns.obstacle(directory)
        return said, "export MINICONTAINER_COURSE=/a/folder/on/ext4" if said else ""
    raise errors.InvalidArgument(f"nobody can say whether this host can {word!r}: ask for one of {', '.join(WORDS)}")


WORDS = {
    "cgroups": "cgroups: limits can be set",
    "network": "network: devices, addresses, rules",
    "overlay": "overlay: layers can be mounted",
    "idmap": "several user ids",
    "translation": "mounts in which ids are translated",
    "userns": "run --userns auto: ids of its own for a container",
}


class Here:
    """Where a notebook works, and what this host lets it do."""

    def __init__(self, number: int, directory: str) -> None:
        self.number = number
        self.directory = directory
        self.name = os.path.basename(directory)  # for cgroups made by hand: nobody else's, and taken away at the end
        self.store = f"{directory}/store"
        self.scratch = f"{directory}/scratch"

    def can(self, word: str) -> bool:
        """Whether what a word of `WORDS` names can be had here."""
        return not obstacle(word)[0]


here: Here | None = None
before: set[str] = set()  # what was there when the lesson began, as `traces` calls it


def begin(number: int) -> Here:
    """Say what this notebook is and what this host can do for it; make its store, with an image, and its scratch."""
    global here, before
    topic = TOPICS[number]
    if here:
        end()
    directory = tempfile.mkdtemp(prefix=f"lesson{number:02}-", dir=place())
    here = Here(number, directory)
    os.environ["MINICONTAINER_ROOT"] = here.store
    os.mkdir(here.scratch)
    lines = [f"**Notebook {number:02}: {topic.title}** · about {topic.minutes} minutes"]
    if not host.privileged():
        lines.append(
            "* ✗ This Python is an ordinary user without a namespace of its own, and most cells will fail. "
            "Choose the kernel *minicontainer* (menu Kernel, Change Kernel)."
        )
    for word in topic.wants:
        said, mend = obstacle(word)
        lack = f"{said}. **This notebook shows less here.** To have it: `{mend}`."
        lines.append(f"* – {WORDS[word]}: {lack}" if said else f"* ✓ {WORDS[word]}")
    show("\n".join(lines), {"lesson": {"name": here.name, "suffix": host.suffix()}})
    before = set(traces())
    from ..engine import client

    client.Client().images.bootstrap("busybox")
    return here


def place() -> str:
    """A directory on a real file system, where an overlay can keep its changes: the sandbox's, or one that we find."""
    given = os.environ.get("MINICONTAINER_SCRATCH")
    for directory in filter(None, (given, tempfile.gettempdir(), "/var/tmp", os.path.expanduser("~"))):
        kind = host.mount_of(directory)[1]
        if kind not in host.NOT_FOR_LAYERS and os.access(directory, os.W_OK):
            return directory
    raise errors.Unsupported(
        "no directory here is on a file system for layers; set MINICONTAINER_SCRATCH to one on ext4"
    )


def current() -> Here:
    """What `begin` has made."""
    if here is None:
        raise errors.InvalidArgument("no lesson has begun: run the notebook's first cell, lesson.begin(…)")
    return here


def busybox() -> str:
    """A fresh copy of busybox's root directory, to build containers on by hand."""
    root = tempfile.mkdtemp(prefix="root-", dir=current().directory)
    from ..engine import client

    images = client.Client().images
    for layer in images.store.layer_directories(images.get("busybox")):
        shutil.copytree(layer, root, symlinks=True, dirs_exist_ok=True)
    os.chmod(root, 0o755)
    return root


def disk() -> str:
    """A directory of this lesson's, in mounts of which ids can be translated. `end` takes it away.

    Who is not root of the machine rules over no file system but those mounted in the own user namespace
    (mount_setattr(2), EPERM): then it is a tmpfs.
    """
    path = f"{current().directory}/disk"
    if not os.path.isdir(path):
        os.mkdir(path, 0o755)
        if not host.is_root():
            syscalls.mount("tmpfs", path, "tmpfs", 0, "mode=755")
    return path


def run(*words: str) -> subprocess.CompletedProcess[str]:
    """`minicontainer run WORDS` in this notebook's store, its output shown. What it said stands in .stdout and
    .stderr, its exit code in .returncode."""
    current()
    typed = ["run", "--rm", *words]
    command = [sys.executable, "-m", "minicontainer", *typed]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    print(done.stdout + done.stderr, end="")
    return done


# ------------------------------------------------------------------------------------------------------------ questions


def question(number: int, text: str) -> None:
    """Show a question; the learner answers by `answer_N = …` in the next cell."""
    show(f"**Question {number}.** {text}")


def check(number: int, given: Any, truth: Callable[[], Any], hint: str = "") -> None:
    """Run `truth` and compare: ✓, or ✗ with a hint. An answer that is still `...` is asked for, without telling."""
    if given is ...:
        print(f"Question {number} waits for your answer: replace the ... in answer_{number} = ... and run both cells.")
        return
    right = truth()
    if alike(given, right):
        print(f"✓ Question {number}: {plain(right)}. This was not looked up but found by running it.")
        return
    hint = hint or (truth.__doc__ or "").strip() or "run the cells above once more, and look at what they print"
    print(f"✗ Question {number}: {plain(given)} is not what the kernel says. Hint: {hint}")


def alike(given: Any, right: Any) -> bool:
    """Whether two answers mean the same: text without regard to case and space, 1 like 1.0 but not like True."""
    if isinstance(given, str) and isinstance(right, str):
        return given.strip().casefold() == right.strip().casefold()
    if isinstance(given, list | tuple | set | frozenset) and isinstance(right, list | tuple | set | frozenset):
        unordered = isinstance(given, set | frozenset) or isinstance(right, set | frozenset)
        pair = [sorted(map(str, side)) if unordered else list(side) for side in (given, right)]
        return len(pair[0]) == len(pair[1]) and all(map(alike, *pair))
    if isinstance(given, bool) != isinstance(right, bool):
        return False
    return bool(given == right)


def plain(value: Any) -> str:
    """An answer as it is shown."""
    return value if isinstance(value, str) else repr(value)


# -------------------------------------------------------------------------------------------------------------- the end


def end() -> None:
    """Take away all that the notebook made; RuntimeError names what would not go."""
    global here
    lesson = current()
    from ..engine import system

    system.System(lesson.store).reset()
    syscalls.umount_all(f"{lesson.directory}/disk")
    for _ in range(200):  # the kernel removes a dead namespace's devices in its own time: seconds on a busy machine
        left = {said for number, said in traces().items() if number not in before}
        if not left:
            break
        time_passes()
    if left:
        raise RuntimeError("left behind by this notebook: " + ", ".join(sorted(left)))
    files.remove_tree(lesson.directory)
    os.environ.pop("MINICONTAINER_ROOT", None)
    here = None
    print("Nothing is left of this lesson's containers: no mount, no device, no cgroup, no process.")


def time_passes() -> None:
    """A moment."""
    import time

    time.sleep(0.1)


def traces() -> dict[str, str]:
    """What a lesson could leave behind here, each in a few words: mounts, network devices, cgroups, processes.

    A mount goes by its number: its path is another one when somebody renames a directory above it.
    """
    with open("/proc/self/mountinfo") as file:
        mounts = {f"mount {line.split()[0]}": f"the mount {line.split()[4]}" for line in file}
    found = set()
    with open("/proc/net/dev") as file:
        found |= {f"the network device {line.split(':')[0].strip()}" for line in file if ":" in line}
    ours = cgroups.parent(f"minicontainer{host.suffix()}")
    if any(os.path.isdir(point + ours) for point in cgroups.detect().mounts.values()):
        found.add(f"the cgroup {ours}")
    found |= {f"the cgroup {path}" for path in cgroups_by_hand(current().name)}
    for child in processes():
        found.add(f"the process {child}")
    return mounts | {said: said for said in found}


def cgroups_by_hand(name: str) -> list[str]:
    """The paths of the cgroups that a lesson's cells made themselves: named as the lesson, or so beginning."""
    above = os.path.dirname(cgroups.parent(name)).rstrip("/")
    found = set()
    for point in cgroups.detect().mounts.values():
        if os.path.isdir(point + above):
            found |= {f"{above}/{entry}" for entry in os.listdir(point + above) if entry.startswith(name)}
    return sorted(found)


def processes() -> list[str]:
    """Our living descendants; in the sandbox also who has lost its parent: everyone but us and process 1."""
    inside = os.environ.get("MINICONTAINER_SANDBOX") == "1"
    parents: dict[int, int] = {}
    named: dict[int, str] = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat") as file:
                text = file.read()
        except (FileNotFoundError, ProcessLookupError):
            continue
        state, parent = text.rpartition(")")[2].split()[:2]
        if state not in "ZX":
            parents[int(name)] = int(parent)
            named[int(name)] = f"{name} ({text.partition('(')[2].rpartition(')')[0]})"
    ours = {os.getpid()}
    for _ in parents:
        more = {pid for pid, parent in parents.items() if parent in ours or (inside and parent == 1)} - ours
        if not more:
            break
        ours |= more
    return [named[pid] for pid in sorted(ours - {os.getpid(), 1}) if pid in named]


def show(text: str, unseen: dict[str, Any] | None = None) -> None:
    """Markdown in a notebook, plain text elsewhere. What is `unseen` stands in the output's metadata, for tests."""
    try:
        from IPython import display, get_ipython
    except ImportError:
        print(text)
        return
    if get_ipython() is None:
        print(text)
    else:
        display.display(display.Markdown(text), metadata=unseen)  # type: ignore[no-untyped-call]
