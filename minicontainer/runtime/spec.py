"""config.json: the OCI runtime specification's description of one container (config.md, config-linux.md, 1.0.2).

Offers the default configuration, with Docker's security defaults, and `check`, which refuses by name what this runtime
cannot do. A config is a plain dict in the specification's own spelling all the way down to the kernel's plans.
"""

from __future__ import annotations

import os
import resource

from .. import errors, host, syscalls
from ..kernel import mounts, namespaces
from . import hooks

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing: 4 ms of every start
    from typing import Any

VERSION = "1.0.2"  # of the configs and states that are written here
NEWEST = "1.3.0"  # whose fields are known: each has its effect, or is refused by name

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
            "resources": {"devices": [{"allow": False, "access": "rwm"}]},
            "maskedPaths": list(MASKED),
            "readonlyPaths": list(READONLY),
            "devices": [],
            "sysctl": {},
        },
    }


def rootless(uid: int, gid: int) -> dict[str, Any]:
    """The same for a container of this ordinary user's: root in a user namespace, in the host's network.

    Without a network namespace of its own it may not mount sysfs, but bind the host's, and the cgroups with it.
    """
    config = default()
    linux = config["linux"]
    linux["namespaces"] = [entry for entry in linux["namespaces"] if entry["type"] not in ("network", "cgroup")]
    linux["namespaces"].append({"type": "user"})
    linux["uidMappings"] = [{"containerID": 0, "hostID": uid, "size": 1}]
    linux["gidMappings"] = [{"containerID": 0, "hostID": gid, "size": 1}]
    linux["resources"] = {}
    config["mounts"] = [entry for entry in config["mounts"] if entry["type"] not in ("cgroup", "sysfs")]
    config["mounts"].append(mount("/sys", "none", "/sys", ["rbind", "nosuid", "noexec", "nodev", "ro"]))
    for entry in config["mounts"]:
        entry["options"] = [word for word in entry["options"] if word != "gid=5"]
    return config


def mount(destination: str, kind: str, source: str, options: list[str]) -> dict[str, Any]:
    """One entry of `mounts`."""
    return {"destination": destination, "type": kind, "source": source, "options": options}


def complete(config: dict[str, Any]) -> dict[str, Any]:
    """A config that somebody else wrote, with what the specification lets one leave out. Nothing of it is changed.

    Raises InvalidArgument where a part is missing, or is no object.
    """
    for name in ("root", "process"):
        if not isinstance(config.get(name), dict):
            raise errors.InvalidArgument(f"config.json has no {name}, which a container is made from")
    process, linux = config["process"], config.get("linux") or {}
    if not isinstance(process.get("args") or [], list) or not isinstance(linux, dict):
        raise errors.InvalidArgument("config.json is malformed: process.args is a list of words, linux an object")
    profile = linux.get("seccomp")
    return {
        **config,
        "mounts": [
            {
                "type": "none",
                "source": "none",
                **entry,
                "destination": entry["destination"],
                "options": entry.get("options") or [],
            }
            for entry in config.get("mounts") or []
        ],
        "process": complete_process(process),
        "linux": {
            **linux,
            **{name: linux.get(name) or [] for name in ("namespaces", "maskedPaths", "readonlyPaths", "devices")},
            "resources": meant(linux.get("resources") or {}),
            "sysctl": linux.get("sysctl") or {},
            "seccomp": profile and {**profile, "syscalls": profile.get("syscalls") or []},
        },
        "annotations": config.get("annotations") or {},
    }


def complete_process(process: dict[str, Any]) -> dict[str, Any]:
    """The same for a process, the container's or one more."""
    return {
        **process,
        "args": process.get("args") or [],
        "cwd": process.get("cwd") or "",
        "env": process.get("env") or [],
        "user": {"uid": 0, "gid": 0, **(process.get("user") or {})},
        "capabilities": process.get("capabilities") or {},
        "rlimits": process.get("rlimits") or [],
    }


def meant(resources: dict[str, Any]) -> dict[str, Any]:
    """The resources without what means "no limit": nothing, 0 and objects of such; docker says it of each it has.

    To two of them 0 is a value like others.
    """
    found = {name: meant(value) if isinstance(value, dict) else value for name, value in resources.items()}
    return {name: value for name, value in found.items() if value or (value == 0 and name in ("swappiness", "idle"))}


# What is understood, level by level.
KNOWN: dict[str, set[str]] = {
    "": {"ociVersion", "root", "process", "mounts", "hostname", "domainname", "hooks", "linux", "annotations"},
    "root": {"path", "readonly"},
    "process": {
        "args", "cwd", "env", "user", "capabilities", "rlimits", "noNewPrivileges", "terminal", "oomScoreAdj",
        "consoleSize", "ioPriority", "scheduler", "apparmorProfile", "execCPUAffinity",
    },
    "process.user": {"uid", "gid", "additionalGids", "umask"},
    "hooks": set(hooks.KINDS),
    "linux": {
        "namespaces", "resources", "maskedPaths", "readonlyPaths", "devices", "sysctl", "cgroupsPath", "seccomp",
        "rootfsPropagation", "uidMappings", "gidMappings", "mountLabel", "personality",
        "timeOffsets",
    },
}  # fmt: skip
# What the specification has beside it (up to 1.3), and is refused by name. All else it wants ignored (config.md,
# Extensibility), which `without_effect` says.
REFUSED: dict[str, set[str]] = {
    "": {"solaris", "windows", "vm", "zos", "freebsd"},
    "process": {"selinuxLabel", "commandLine"},
    "process.user": {"username"},
    "linux": {"intelRdt", "netDevices", "memoryPolicy"},
}
NAMESPACES = ("pid", "mount", "uts", "ipc", "network", "cgroup", "user", "time")
CLOCKS = ("monotonic", "boottime")


def check(config: dict[str, Any]) -> None:
    """Raise InvalidArgument for a config that cannot be meant, Unsupported for one that this runtime cannot do."""
    if not str(config.get("ociVersion", "")).startswith("1."):
        raise errors.InvalidArgument(f"config.json is of ociVersion {config.get('ociVersion')!r}: 1.x is understood")
    for level, key in beside(config):
        if key in REFUSED.get(level, ()):
            raise errors.Unsupported(
                f"config.json asks for {level + '.' if level else ''}{key}, which is not supported yet"
            )
    kinds = [namespace["type"] for namespace in config["linux"]["namespaces"]]
    for kind in kinds:
        if kind not in NAMESPACES:
            raise errors.Unsupported(f"config.json asks for a namespace {kind!r}, not supported yet")
        if kinds.count(kind) > 1:
            raise errors.InvalidArgument(f"config.json asks for more than one namespace {kind!r}")
    check_mount_namespace(config["linux"]["namespaces"])
    if config["linux"].get("mountLabel") and host.has_selinux():
        raise errors.Unsupported(
            "config.json asks for linux.mountLabel, which is not supported yet where SELinux is on"
        )
    if config["process"].get("apparmorProfile"):
        from ..kernel import apparmor

        apparmor.check(config["process"])
    check_maps(config["linux"])
    check_translations(config["mounts"], config["linux"])
    check_binds(config["mounts"])
    check_shared(config["mounts"], config["linux"])
    if any(config["process"].get(name) for name in ("scheduler", "ioPriority")) or config["linux"].get("personality"):
        from ..kernel import priorities

        priorities.check(config["process"], config["linux"])
    if config["process"].get("execCPUAffinity"):
        from ..kernel import priorities

        priorities.check_affinity(config["process"]["execCPUAffinity"])
    for name in ("hostname", "domainname"):
        if config.get(name) and not own(config["linux"]["namespaces"], "uts"):
            raise errors.InvalidArgument(f"config.json has a {name}, and no namespace 'uts' of its own to set it in")
    check_sysctls(config["linux"])
    check_clocks(config["linux"])
    propagation = config["linux"].get("rootfsPropagation") or "private"
    if propagation not in mounts.PROPAGATION:
        raise errors.InvalidArgument(f"config.json: linux.rootfsPropagation {propagation!r} is no propagation")
    for limit in config["process"]["rlimits"]:
        if not str(limit.get("type")).startswith("RLIMIT_") or not hasattr(resource, limit["type"]):
            raise errors.InvalidArgument(f"config.json: process.rlimits: there is no limit {limit.get('type')!r}")
        for value in (limit.get("soft"), limit.get("hard")):
            if type(value) is not int or not -1 <= value < 1 << 64:
                raise errors.InvalidArgument(f"config.json: process.rlimits: {limit}: soft and hard are numbers")
    check_user(config["process"])
    for device in config["linux"]["devices"]:
        if device.get("type") not in ("c", "u", "b", "p") or not str(device.get("path", "")).startswith("/"):
            raise errors.InvalidArgument(f"config.json: linux.devices: {device}: a path, and a type of c, b, u or p")
    check_device_rules(config["linux"]["resources"].get("devices") or [])
    if not config["process"]["args"]:
        raise errors.InvalidArgument("config.json names no command: process.args is empty")
    if not config["process"]["cwd"].startswith("/"):
        raise errors.InvalidArgument(f"the working directory {config['process']['cwd']!r} is not an absolute path")


def check_user(process: dict[str, Any]) -> None:
    """Raise InvalidArgument for a user or group that is none: to setresuid(2), -1 is "as it is", which is root."""
    user = process["user"]
    for number in (user["uid"], user["gid"], *(user.get("additionalGids") or ())):
        if type(number) is not int or not 0 <= number < NOBODY:
            raise errors.InvalidArgument(f"config.json: process.user: {number!r} is no number of a user or group")


def check_device_rules(rules: list[dict[str, Any]]) -> None:
    """Raise InvalidArgument for a rule about devices that could be taken to mean more than it says."""
    for rule in rules:
        access, numbers = rule.get("access"), (rule.get("major"), rule.get("minor"))
        if rule.get("type") not in (None, "a", "b", "c"):
            wrong = "its type is a, b or c"
        elif not isinstance(access, str) or not access or set(access) - set("rwm"):
            wrong = "its access is some of r, w and m"
        elif any(number is not None and (type(number) is not int or not -1 <= number < 1 << 32) for number in numbers):
            wrong = "major and minor are numbers"
        elif type(rule.get("allow", False)) is not bool:
            wrong = "allow is true or false"
        else:
            continue
        raise errors.InvalidArgument(f"config.json: linux.resources.devices: {rule}: {wrong}")


NOBODY = (1 << 32) - 1  # (uid_t) -1


def check_mount_namespace(spaces: list[dict[str, Any]]) -> None:
    """Raise Unsupported for the path of the machine's own mount namespace, or of ours: their root would be exchanged.

    One by its path, made for the container, is what its maker says that it is; whoever else is in there has the
    container's root from then on, as with runc. Who names none lives among our mounts (rootfs.lend), to which root of
    a user namespace may add nothing.
    """
    path = namespaces.joined(spaces, "mount")
    for owner in ("1", "self") if path else ():
        try:
            same = os.path.samefile(path, f"/proc/{owner}/ns/mnt")
        except OSError:
            continue  # launch says what is wrong with the path; an ordinary user may not look at process 1's
        if same:
            raise errors.Unsupported(
                f"config.json asks for the mount namespace {path}, the host's: its root would be exchanged"
            )
    if namespaces.has(spaces, "user") and not namespaces.has(spaces, "mount"):
        raise errors.Unsupported(
            "config.json asks for a namespace 'user' and no mount namespace: its root may mount nothing in the host's"
        )


def without_effect(config: dict[str, Any]) -> list[str]:
    """A sentence for each thing that a checked config asks for and nobody on this machine will read."""
    said = [
        f"{level + '.' if level else ''}{key} has no effect: the specification does not have it"
        for level, key in beside(config)
        if key not in REFUSED.get(level, ())
    ]
    if is_lent(config):
        said.append("there is no mount namespace: the root is chroot(2)'s, and root inside can walk out of it")
    if config["linux"].get("mountLabel"):
        said.append("linux.mountLabel has no effect: it is for SELinux, which this machine has not, or not on")
    return said


def is_lent(config: dict[str, Any]) -> bool:
    """Whether it is to live among its caller's own mounts."""
    return not namespaces.has(config["linux"]["namespaces"], "mount")


def beside(config: dict[str, Any]) -> list[tuple[str, str]]:
    """(level, name) of all that a config asks for and KNOWN does not have."""
    found = []
    for level, known in KNOWN.items():
        part = config
        for name in level.split(".") if level else ():
            part = part.get(name) or {}
        found += [(level, key) for key in part if key not in known and part[key]]
    return found


def own(spaces: list[dict[str, Any]], kind: str) -> bool:
    """Whether it has a namespace of this kind that is not ours, be it by a path that leads there."""
    path = namespaces.joined(spaces, kind)
    if not path:
        return namespaces.new(spaces, kind)
    try:
        return not os.path.samefile(path, f"/proc/self/ns/{namespaces.FILES.get(kind, kind)}")
    except OSError:
        return True  # launch says what is wrong with the path


def check_sysctls(linux: dict[str, Any]) -> None:
    """Raise InvalidArgument for a kernel parameter that is not of a namespace of the container's: the machine's."""
    has = {kind for kind in ("network", "ipc", "uts") if own(linux["namespaces"], kind)}
    for name in linux.get("sysctl") or {}:
        word = name.replace("/", ".")
        if word.startswith("net."):
            kind = "network"
        elif word.startswith(("fs.mqueue.", "kernel.msg", "kernel.sem", "kernel.shm")):
            kind = "ipc"
        else:
            kind = "uts" if word in ("kernel.domainname", "kernel.hostname") else ""
        if kind not in has:
            raise errors.InvalidArgument(f"config.json: linux.sysctl {name!r} is not the container's own to set")


def check_clocks(linux: dict[str, Any]) -> None:
    """Raise what is wrong with linux.timeOffsets, which are for a new time namespace, and where there is none."""
    spaces = linux["namespaces"]
    if namespaces.has(spaces, "time") and not os.path.exists("/proc/self/ns/time"):
        raise errors.Unsupported("config.json asks for a namespace 'time', which this kernel lacks: Linux 5.6 has it")
    for clock, offset in (linux.get("timeOffsets") or {}).items():
        if not namespaces.new(spaces, "time"):
            raise errors.InvalidArgument(
                "config.json has linux.timeOffsets, and no new namespace 'time' to use them in"
            )
        if clock not in CLOCKS:
            raise errors.InvalidArgument(f"config.json: linux.timeOffsets {clock!r}: it is one of {', '.join(CLOCKS)}")
        if not all(isinstance(offset.get(unit, 0), int) for unit in ("secs", "nanosecs")):
            raise errors.InvalidArgument(f"config.json: linux.timeOffsets.{clock} is secs and nanosecs")


def check_translations(entries: list[dict[str, Any]], linux: dict[str, Any]) -> None:
    """Raise what is wrong with mounts in which ids are to be translated: uidMappings and gidMappings, idmap, ridmap."""
    for entry in entries:
        for word in entry.get("options") or []:
            if word.startswith(tuple(f"{name}=" for name in mounts.TRANSLATED)):  # crun's own, and podman's
                raise errors.Unsupported(f"config.json: {entry['destination']} asks for {word}: give it uidMappings")
        if not mounts.translated(entry) and not entry.get("gidMappings"):
            continue
        at = f"the mount at {entry['destination']}"
        if bool(entry.get("uidMappings")) != bool(entry.get("gidMappings")):
            raise errors.InvalidArgument(f"config.json: {at} has one of uidMappings and gidMappings: both are needed")
        joined = namespaces.joined(linux["namespaces"], "user")
        if not entry.get("uidMappings") and not linux.get("uidMappings") and not joined:
            raise errors.InvalidArgument(
                f"config.json: {at} is to be idmapped, and neither it nor linux has uidMappings and gidMappings"
            )
        for name in ("uidMappings", "gidMappings"):
            check_lines(entry.get(name) or [], f"{name} of {at}")
        if not mounts.is_bind(entry):
            raise errors.Unsupported(f"config.json: {at} is to be idmapped and is no bind mount: those are supported")


def check_binds(entries: list[dict[str, Any]]) -> None:
    """Raise InvalidArgument for an option that no bind mount has: without a word, a `nosiud` would be nothing."""
    for entry in entries:
        if mounts.is_bind(entry):
            for word in mounts.unknown(entry):
                raise errors.InvalidArgument(
                    f"config.json: {entry['destination']} is a bind mount, which has no option {word!r}"
                )


def check_shared(entries: list[dict[str, Any]], linux: dict[str, Any]) -> None:
    """Raise Unsupported where a shared bind mount would give the host what the container is to have of its own.

    Its /proc, /sys, /dev, cgroups and masks, that is. Another bind mount may be meant to be there; and nobody mounts on
    the host from a user namespace.
    """
    if namespaces.has(linux["namespaces"], "user"):
        return
    for index, entry in enumerate(entries):
        if not mounts.is_bind(entry) or not mounts.asked(entry).propagation & syscalls.MS_SHARED:
            continue
        within = os.path.normpath(entry["destination"]).rstrip("/") + "/"
        own = [later["destination"] for later in entries[index + 1 :] if not mounts.is_bind(later)]
        for path in (*own, *linux["readonlyPaths"], *linux["maskedPaths"]):
            if os.path.normpath(path).startswith(within):
                raise errors.Unsupported(
                    f"config.json: the mount at {entry['destination']} is shared with the host, which would get what "
                    f"is mounted at {path}, too"
                )


def check_lines(lines: list[dict[str, Any]], name: str) -> None:
    """Raise InvalidArgument for a map that is none."""
    keys = ("containerID", "hostID", "size")
    if any(not isinstance(line, dict) or not all(isinstance(line.get(key), int) for key in keys) for line in lines):
        raise errors.InvalidArgument(f"config.json: {name} is a list of containerID, hostID and size")


def check_maps(linux: dict[str, Any]) -> None:
    """Raise what is wrong with linux.uidMappings, gidMappings: they are for a new user namespace, and map its root.

    Of one that is joined they say nothing: it has maps already, for which launch.py asks it.
    """
    spaces = linux["namespaces"]
    for name in ("uidMappings", "gidMappings"):
        lines = linux.get(name) or []
        if lines and not namespaces.has(spaces, "user"):
            raise errors.InvalidArgument(f"config.json has linux.{name}, and no namespace 'user' to use it in")
        check_lines(lines, f"linux.{name}")
        if namespaces.new(spaces, "user") and not any(line["containerID"] == 0 and line["size"] for line in lines):
            raise errors.InvalidArgument(
                f"config.json: linux.{name} does not map 0, which makes the container's mounts"
            )
