"""config.json: the OCI runtime specification's description of one container (config.md, config-linux.md, 1.0.2).

Offers the default configuration, with Docker's security defaults, and `check`, which refuses by name what this runtime
cannot do. A config is a plain dict in the specification's own spelling all the way down to the kernel's plans.
"""

from __future__ import annotations

from .. import errors, host

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing: 4 ms of every start
    from typing import Any

VERSION = "1.0.2"

# Docker's defaults: what would tell a container about the host, or let it turn the host's knobs.
MASKED = [
    "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
    "/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats",
    "/sys/devices/virtual/powercap", "/sys/firmware",
]  # fmt: skip
READONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def default() -> dict[str, Any]:
    """A config for `sh` in a directory `rootfs`, isolated from the host in every way that Docker's default is.

    In a user namespace, /dev/pts cannot belong to the tty group (gid 5), which need not be mapped there.
    """
    pts = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]
    return {
        "ociVersion": VERSION,
        "root": {"path": "rootfs", "readonly": False},
        "process": {
            "args": ["sh"],
            "cwd": "/",
            "env": [PATH],
            "user": {"uid": 0, "gid": 0},
            "capabilities": {},
            "rlimits": [],
            "noNewPrivileges": False,
            "terminal": False,
        },
        "mounts": [
            mount("/proc", "proc", "proc", ["nosuid", "noexec", "nodev"]),
            mount("/dev", "tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount("/dev/pts", "devpts", "devpts", pts if host.in_user_namespace() else [*pts, "gid=5"]),
            mount("/sys", "sysfs", "sysfs", ["nosuid", "noexec", "nodev", "ro"]),
            mount("/sys/fs/cgroup", "cgroup", "cgroup", ["ro", "nosuid", "noexec", "nodev", "relatime"]),
            mount("/dev/mqueue", "mqueue", "mqueue", ["nosuid", "noexec", "nodev"]),
            mount("/dev/shm", "tmpfs", "shm", ["nosuid", "noexec", "nodev", "mode=1777", "size=67108864"]),
        ],
        "linux": {
            "namespaces": [{"type": kind} for kind in ("mount", "uts", "ipc", "pid", "network", "cgroup")],
            "resources": {},
            "maskedPaths": list(MASKED),
            "readonlyPaths": list(READONLY),
            "devices": [],
            "sysctl": {},
        },
    }


def mount(destination: str, kind: str, source: str, options: list[str]) -> dict[str, Any]:
    """One entry of `mounts`."""
    return {"destination": destination, "type": kind, "source": source, "options": options}


# What is understood, level by level; the rest is refused by name.
KNOWN: dict[str, set[str]] = {
    "": {"ociVersion", "root", "process", "mounts", "hostname", "linux", "annotations"},
    "process": {
        "args", "cwd", "env", "user", "capabilities", "rlimits", "noNewPrivileges", "terminal", "oomScoreAdj",
        "consoleSize",
    },
    "linux": {
        "namespaces", "resources", "maskedPaths", "readonlyPaths", "devices", "sysctl", "cgroupsPath", "seccomp",
    },
}  # fmt: skip


def check(config: dict[str, Any]) -> None:
    """Raise InvalidArgument for a config that cannot be meant, Unsupported for one that this runtime cannot do."""
    if not str(config.get("ociVersion", "")).startswith("1."):
        raise errors.InvalidArgument(f"config.json is of ociVersion {config.get('ociVersion')!r}: 1.x is understood")
    for level, known in KNOWN.items():
        part = config if level == "" else config.get(level, {})
        for key in part:
            if key not in known and part[key]:
                raise errors.Unsupported(
                    f"config.json asks for {level + '.' if level else ''}{key}, which is not supported yet"
                )
    if not config["process"]["args"]:
        raise errors.InvalidArgument("config.json names no command: process.args is empty")
    if not config["process"]["cwd"].startswith("/"):
        raise errors.InvalidArgument(f"the working directory {config['process']['cwd']!r} is not an absolute path")
