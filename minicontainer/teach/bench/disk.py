"""`bench disk`: small files, a large one and its way to the disk, on each kind of place that a container has.

    upper    the container's own layer of the overlay     bind     a directory of the host
    lower    the image's layer; changing a file there     volume   the same, managed by the engine
             copies all of it up first                    tmpfs    memory

All but tmpfs lie on one file system: native, in the bench's own folder, is that file system without a container.
"""

from __future__ import annotations

import json
import os
import shutil

from . import Group, Report, Workshop, engines, inside

RUNS = 8

PROGRAM = """\
place = sys.argv[1]
home = place + "/bench-files"
os.mkdir(home)
began = now()
for number in range(400):
    os.close(os.open(f"{home}/{number}", os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o644))
create = (now() - began) / 400
for number in range(400):
    os.unlink(f"{home}/{number}")
block = os.urandom(1 << 20)
began = now()
large = os.open(home + "/large", os.O_CREAT | os.O_RDWR)
for _ in range(16):
    os.write(large, block)
os.fsync(large)
write = (16 << 20) / (now() - began)
began = now()
for _ in range(8):
    for number in range(16):
        os.pread(large, 1 << 20, number << 20)
read = (128 << 20) / (now() - began)
os.close(large)
os.unlink(home + "/large")
os.rmdir(home)
figures = dict(create=create, write=write, read=read)
lower = place + "/lower"
if os.path.exists(lower):
    os.pread(os.open(lower, os.O_RDONLY), 1 << 24, 0)
    began = now()
    os.close(os.open(lower, os.O_WRONLY | os.O_APPEND))
    figures["copyup"] = now() - began
    began = now()
    os.close(os.open(lower, os.O_WRONLY | os.O_APPEND))
    figures["again"] = now() - began
tell(**figures)
"""


def measure(workshop: Workshop, runs: int) -> Report:
    """See the module."""
    report = Report("disk", "Files, on each kind of place that a container has")
    native, bound = f"{workshop.folder}/native", f"{workshop.folder}/bound"
    os.mkdir(native)
    os.mkdir(bound)
    shares = {
        "bind": ["-v", f"{bound}:/mnt"],
        "volume": ["-v", f"{workshop.tag}:/mnt"],
        "tmpfs": ["--tmpfs", "/mnt:size=128m"],
    }
    commands = {"native": inside.python(PROGRAM, native)}
    for engine in inside.prepare(workshop, report):
        ours = engine.name == "minicontainer"
        upper = "upper" if ours else f"{engine.name}, upper"
        commands[upper] = engine.command("none", inside.python(PROGRAM, "/work"), inside.binds())
        if ours:
            if volatile(engine):
                commands["upper, kept"] = [word for word in commands[upper] if word != "--rm"]
                report.facts.append(
                    "upper is mounted `volatile`, as it goes with its container (--rm): fsync waits for no disk there; "
                    "it does in a container that is kept"
                )
            for name, flags in shares.items():
                commands[name] = engine.command("none", inside.python(PROGRAM, "/mnt"), [*inside.binds(), *flags])
    # Native has the file, too: what an overlay does by copying is there an open(2) like any other.
    shutil.copy(f"{workshop.folder}/tree/work/lower", f"{native}/lower")
    found = inside.rounds(workshop, report, commands, runs or RUNS)
    report.groups += [
        Group("creating an empty file", "upper", found["create"], "µs per file", 1e6),
        Group("writing 16 MiB and fsync", "upper", found["write"], "MB/s", 1e-6, "more"),
        Group("reading it back, from the page cache", "upper", found["read"], "GB/s", 1e-9, "more"),
    ]
    lower = {}
    for name, values in found["copyup"].items():
        if name not in ("native", "upper, kept"):
            who = "minicontainer" if name == "upper" else name.partition(",")[0]
            lower[f"{who}: lower, copied up"] = values
    again = {"minicontainer: once more": found["again"]["upper"]}
    report.groups.append(
        Group(
            "opening a file of 16 MiB to append to it",
            "minicontainer: lower, copied up",
            {"native": found["copyup"]["native"], **lower, **again},
        )
    )
    report.facts.append(f"the file system below: {filesystem(workshop.folder)}")
    return report


def volatile(engine: engines.Engine) -> bool:
    """Whether its overlay makes nothing of fsync(2): option `volatile`, in newer kernels shown as `fsync=volatile`."""
    program = "tell(options=next(line.split()[3] for line in open('/proc/self/mounts') if line.split()[1] == '/'))"
    said = engines.said(engine.command("none", inside.python(program), inside.binds()))
    return "volatile" in json.loads(said)["options"].replace("=", ",").split(",")


def filesystem(path: str) -> str:
    """The kind of the file system that a path is on: the longest mount point above it (proc_pid_mountinfo(5))."""
    best, kind = "", "unknown"
    with open("/proc/self/mountinfo") as file:
        for line in file:
            before, _, after = line.partition(" - ")
            point = before.split()[4]
            if (path + "/").startswith(point.rstrip("/") + "/") and len(point) >= len(best):
                best, kind = point, after.split()[0]
    return kind
