"""From an image and options to an OCI config: what `docker run`'s flags mean. Pure, but for looking at the host.

Options carry docker-py's names (`cpu_shares`, `mem_limit`, `read_only` …); see `DEFAULTS` for all of them.
"""

from __future__ import annotations

import os
import stat

from .. import errors, host
from ..kernel import capabilities, cgroups, namespaces, seccomp
from ..runtime import spec
from . import users, volumes

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing: 4 ms of every start
    from collections.abc import Mapping
    from typing import Any

# Every option of `containers.run`, and what holds where it is not given.
DEFAULTS: dict[str, Any] = {
    "attach": None, "cap_add": [], "cap_drop": [], "command": [], "cpu_period": 0, "cpu_quota": 0, "cpu_shares": 0,
    "cpus": 0.0, "cpuset_cpus": "", "cpuset_mems": "", "devices": [], "dns": [], "dns_opt": [], "dns_search": [],
    "entrypoint": None, "environment": {}, "extra_hosts": [],
    "group_add": [], "hostname": "", "init": False, "ipc_mode": "", "labels": {}, "mem_limit": 0,
    "mem_reservation": 0, "memswap_limit": 0, "mounts": [], "name": "", "network_mode": "bridge", "networks": {},
    "pid_mode": "", "pids_limit": 0, "ports": [], "publish_all_ports": False, "expose": [], "firewall": "",
    "privileged": False, "read_only": False, "remove": False,
    "security_opt": [], "shm_size": 0, "stdin_open": False, "sysctls": {}, "tty": False, "ulimits": {}, "user": "",
    "uts_mode": "", "userns_mode": "", "working_dir": "", "oom_score_adj": None, "console_size": (0, 0),
    "log_config": {}, "restart_policy": {}, "healthcheck": {}, "stop_signal": "", "stop_timeout": None,
}  # fmt: skip

# What `described` says of a container of which nothing was said.
PLAIN: dict[str, Any] = {
    "Env": [], "Cmd": None, "Entrypoint": None, "WorkingDir": "", "User": "", "Labels": {}, "Volumes": {},
    "ExposedPorts": {},
}  # fmt: skip

# The annotation that an image's architecture becomes (OCI image specification, conversion.md).
ARCHITECTURE = "org.opencontainers.image.architecture"
INIT = "/usr/bin/tini-static"  # of the packages `tini` (Debian, Ubuntu)
INIT_INSIDE = "/sbin/docker-init"


def config(
    options: dict[str, Any],
    image: dict[str, Any],
    layers: list[str],
    container: str,
    mounts: list[volumes.Mount],
    volume_data: Any,
    joined: dict[str, int],
    ids: tuple[int, int] | None = None,
) -> dict[str, Any]:
    """The OCI config of one container.

    `image` is the image's own config, `layers` its directories (lowest first), `container` the container's directory,
    `mounts` what the user asked for, with every volume named, `volume_data(name)` where a volume lies, and `joined`
    the pid of each container that a namespace is to be shared with, by kind. `ids`: with a user namespace of its own,
    the first of the machine's ids that it gets, and how many.
    """
    defaults = image.get("config") or {}
    user = users.lookup(options["user"] or defaults.get("User") or "", options["group_add"], layers)
    result = spec.default()
    process, linux = result["process"], result["linux"]

    process["args"] = command(options, defaults)
    process["cwd"] = os.path.normpath(options["working_dir"] or defaults.get("WorkingDir") or "/")
    process["terminal"] = options["tty"]
    process["consoleSize"] = dict(zip(("height", "width"), options["console_size"], strict=True))
    process["user"] = {"uid": user.uid, "gid": user.gid, "additionalGids": user.groups}
    process["env"] = environment(options, defaults, user.home)
    process["rlimits"] = [
        {"type": f"RLIMIT_{name.upper()}", "soft": soft, "hard": hard}
        for name, (soft, hard) in options["ulimits"].items()
    ]
    process["oomScoreAdj"] = options["oom_score_adj"]
    result["root"]["readonly"] = options["read_only"]
    result["hostname"] = "" if options["uts_mode"] == "host" else options["hostname"]

    linux["namespaces"] = spaces(options, joined, bool(ids))
    linux["sysctl"] = sysctls(options)
    result["annotations"] = {ARCHITECTURE: image.get("architecture") or ""}
    linux["cgroupsPath"] = f"{cgroups.parent(f'minicontainer{host.suffix()}')}/{os.path.basename(container)}"
    linux["resources"] = resources(options)
    linux["devices"] = [device for text in options["devices"] for device in host_devices(text)]
    security(options, result)

    if options["shm_size"]:
        for mount in result["mounts"]:
            if mount["destination"] == "/dev/shm":
                mount["options"][-1] = f"size={options['shm_size']}"
    if options["ipc_mode"] == "none":
        result["mounts"] = [mount for mount in result["mounts"] if mount["destination"] != "/dev/shm"]
    if options["ipc_mode"] == "host":
        for mount in result["mounts"]:
            if mount["destination"] in ("/dev/shm", "/dev/mqueue") and os.path.isdir(mount["destination"]):
                mount |= {"type": "bind", "source": mount["destination"], "options": ["rbind"]}
    add_mounts(options, result, container, mounts, volume_data, ids)
    if ids:
        from . import userns

        linux |= {"uidMappings": userns.lines(*ids), "gidMappings": userns.lines(*ids)}
    adapt_to_host(options, result, bool(ids))
    return result


def command(options: dict[str, Any], defaults: dict[str, Any]) -> list[str]:
    """Entrypoint and command together. A new entrypoint drops the image's command; `--init` puts tini in front."""
    entrypoint, arguments = defaults.get("Entrypoint") or [], options["command"]
    if options["entrypoint"] is not None:
        entrypoint = replaced(options["entrypoint"])
    elif not arguments:
        arguments = defaults.get("Cmd") or []
    whole = [*entrypoint, *arguments]
    if not whole:
        raise errors.InvalidArgument("no command specified: the image has none, so name one after the image")
    return [INIT_INSIDE, "--", *whole] if options["init"] else whole


def replaced(entrypoint: str | list[str]) -> list[str]:
    """An entrypoint in place of the image's: one word, or several; an empty one is none."""
    return [entrypoint] if entrypoint and isinstance(entrypoint, str) else list(entrypoint)


def described(options: dict[str, Any], image: dict[str, Any]) -> dict[str, Any]:
    """The container as an image's config would describe it: the image's own, and over it what `run` was told.

    This is what `exec` goes by, and what `commit` makes an image's config of.
    """
    defaults = image.get("config") or {}
    variables = dict(line.split("=", 1) for line in defaults.get("Env") or [] if "=" in line)
    for key, value in options["environment"].items():
        if value is None:
            variables.pop(key, None)
        else:
            variables[key] = value
    entrypoint, words = defaults.get("Entrypoint"), options["command"]
    if options["entrypoint"] is not None:
        entrypoint = replaced(options["entrypoint"]) or None
    elif not words:
        words = defaults.get("Cmd")
    volumes_of = [mount.target for mount in options["mounts"] if mount.source in options["anonymous"]]
    ports = [*(f"{port.container}/{port.protocol}" for port in options["ports"]), *options["expose"]]
    return {
        **defaults,
        "Env": [f"{key}={value}" for key, value in variables.items()],
        "Cmd": words or None,
        "Entrypoint": entrypoint,
        "WorkingDir": options["working_dir"] or defaults.get("WorkingDir") or "",
        "User": options["user"] or defaults.get("User") or "",
        "Labels": {**(defaults.get("Labels") or {}), **options["labels"]},
        "Volumes": {**(defaults.get("Volumes") or {}), **{target: {} for target in volumes_of}},
        "ExposedPorts": {**(defaults.get("ExposedPorts") or {}), **{port: {} for port in ports}},
        **healthcheck(options["healthcheck"], defaults.get("Healthcheck") or {}),
    }


def healthcheck(given: dict[str, Any], image: dict[str, Any]) -> dict[str, Any]:
    """{"Healthcheck": …} where there is one: what was `given` (docker-py's healthcheck) over the image's."""
    keys = {
        "test": "Test", "interval": "Interval", "timeout": "Timeout", "start_period": "StartPeriod",
        "start_interval": "StartInterval", "retries": "Retries",
    }  # fmt: skip
    unknown = set(given) - set(keys)
    if unknown:
        raise errors.InvalidArgument(f"a health check has no {min(unknown)!r}: {', '.join(keys)}")
    for name, value in given.items():
        if name in ("interval", "timeout", "start_period", "start_interval") and 0 < value < 10**6:
            raise errors.InvalidArgument(f"{keys[name]} in Healthcheck cannot be less than 1ms")
    test = given.get("test")
    if isinstance(test, str):
        given = {**given, "test": ["CMD-SHELL", test]}
    merged = {**image, **{keys[name]: value for name, value in given.items() if value}}
    return {"Healthcheck": {key: merged[key] for key in keys.values() if merged.get(key)}} if merged else {}


def environment(options: dict[str, Any], defaults: dict[str, Any], home: str) -> list[str]:
    """PATH, HOSTNAME, TERM with a terminal, HOME; then the image's; then the user's: the last one named wins."""
    variables = dict([spec.PATH.split("=", 1)])
    variables["HOSTNAME"] = options["hostname"]
    if options["tty"]:
        variables["TERM"] = "xterm"
    variables["HOME"] = home
    for line in defaults.get("Env") or []:
        key, _, value = line.partition("=")
        variables[key] = value
    for key, value in options["environment"].items():
        if value is None:
            variables.pop(key, None)
        else:
            variables[key] = value
    return [f"{key}={value}" for key, value in variables.items()]


def with_variables(config: dict[str, Any], more: dict[str, str]) -> dict[str, Any]:
    """An OCI config with these variables, too, which win."""
    if not more:
        return config
    others = [line for line in config["process"]["env"] if line.partition("=")[0] not in more]
    process = {**config["process"], "env": [*others, *(f"{key}={value}" for key, value in more.items())]}
    return {**config, "process": process}


def has_ids(options: Mapping[str, Any]) -> bool:
    """Whether it is to have a user namespace of its own (userns.py)."""
    return options.get("userns_mode", "") not in ("", "host")


def spaces(options: dict[str, Any], joined: dict[str, int], mapped: bool = False) -> list[dict[str, Any]]:
    """Which namespaces are new, whose are shared, which remain the host's; `mapped`: with one for users."""
    modes = {"network": options["network_mode"], "pid": options["pid_mode"], "ipc": options["ipc_mode"]}
    result: list[dict[str, Any]] = []
    for kind in ("mount", "uts", "ipc", "pid", "network", "cgroup"):
        if kind in joined:
            result.append({"type": kind, "path": namespaces.path(joined[kind], kind)})
        elif modes.get(kind, options["uts_mode"] if kind == "uts" else "") != "host":
            result.append({"type": kind})
    return [*result, {"type": "user"}] if mapped else result


def sysctls(options: dict[str, Any]) -> dict[str, str]:
    """Kernel parameters, as docker allows them: only those that belong to a namespace that is the container's own."""
    for name in options["sysctls"]:
        kind, key = "", "network_mode"
        if name.startswith("net."):
            kind = "network"
        elif name.startswith("fs.mqueue.") or name in SYSCTLS_OF_IPC:
            kind, key = "ipc", "ipc_mode"
        elif name == "kernel.domainname":
            kind, key = "uts", "uts_mode"
        if not kind:
            raise errors.InvalidArgument(
                f"--sysctl {name}: it belongs to the whole machine, or to nobody; a container can have its own "
                f"net.*, fs.mqueue.*, kernel.domainname, {', '.join(SYSCTLS_OF_IPC)}"
            )
        mode = options[key]
        if mode == "host" or mode.startswith("container:"):
            raise errors.InvalidArgument(f"--sysctl {name}: with --{kind} {mode} it would be set for others, too")
    return dict(options["sysctls"])


SYSCTLS_OF_IPC = (
    "kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax", "kernel.shmmni",
    "kernel.shm_rmid_forced",
)  # fmt: skip


def resources(options: dict[str, Any]) -> dict[str, Any]:
    """The limits, as the spec's `linux.resources` (config-linux.md, Control groups). Bytes, microseconds, counts."""
    cpu: dict[str, Any] = {}
    if options["cpus"]:
        cpu |= {"quota": round(options["cpus"] * 100_000), "period": 100_000}
    if options["cpu_quota"]:
        cpu["quota"] = options["cpu_quota"]
    if options["cpu_period"]:
        cpu["period"] = options["cpu_period"]
    if options["cpu_shares"]:
        cpu["shares"] = options["cpu_shares"]
    if options["cpuset_cpus"]:
        if not numbers_of(options["cpuset_cpus"]) <= set(range(os.cpu_count() or 1)):
            have = (os.cpu_count() or 1) - 1
            raise errors.InvalidArgument(f"--cpuset-cpus {options['cpuset_cpus']}: this machine has 0-{have}")
        cpu["cpus"] = options["cpuset_cpus"]
    if options["cpuset_mems"]:
        cpu["mems"] = options["cpuset_mems"]
    memory: dict[str, Any] = {}
    if options["mem_limit"]:
        # As docker: a memory limit alone allows as much again in swap.
        memory |= {"limit": options["mem_limit"], "swap": options["memswap_limit"] or 2 * options["mem_limit"]}
    if options["mem_reservation"]:
        memory["reservation"] = options["mem_reservation"]
    result: dict[str, Any] = {}
    if cpu:
        result["cpu"] = cpu
    if memory:
        result["memory"] = memory
    if options["pids_limit"] > 0:
        result["pids"] = {"limit": options["pids_limit"]}
    return result


def changed(before: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """`linux.resources` of a container, once it has been told `given`, options like those of `resources`.

    Raises Conflict where what it has already does not go with that.
    """
    asked = resources({**DEFAULTS, **given})
    cpu, memory = before.get("cpu") or {}, before.get("memory") or {}
    if by_cpus(cpu) and (given.get("cpu_quota") or given.get("cpu_period")):
        raise errors.Conflict("--cpu-quota and --cpu-period cannot be updated, as --cpus has already been set")
    if given.get("cpus") and cpu.get("quota") and not by_cpus(cpu):
        raise errors.Conflict("--cpus cannot be updated, as --cpu-quota has already been set")
    limit = given.get("mem_limit") or memory.get("limit", 0)
    swap = given.get("memswap_limit") or memory.get("swap", 0)
    if given.get("memswap_limit") and not limit:
        raise errors.Conflict("--memory-swap counts memory and swap together: set --memory, too")
    if given.get("memswap_limit") and 0 < swap < limit:
        raise errors.Conflict("--memory-swap counts memory and swap together: it must be at least --memory")
    if 0 < swap < limit:
        raise errors.Conflict(
            f"--memory would be more than memory and swap together may be, {swap} bytes: update --memory-swap, too"
        )
    if limit:
        asked["memory"] = {**asked.get("memory", {}), "limit": limit, "swap": swap or 2 * limit}
    if "pids_limit" in given:
        asked["pids"] = {"limit": given["pids_limit"] if given["pids_limit"] > 0 else -1}
    parts = {part: {**(before.get(part) or {}), **asked[part]} for part in asked}
    return {**before, **parts}


def by_cpus(cpu: dict[str, Any]) -> bool:
    """Whether that is how `--cpus` is written down."""
    return cpu.get("period") == 100_000 and cpu.get("quota", 0) > 0


POWERS = {"": 0, "b": 0, "k": 1, "kb": 1, "m": 2, "mb": 2, "g": 3, "gb": 3, "t": 4, "tb": 4}


def bytes_of(text: str, kilo: int = 1024) -> int:
    """`64m` in bytes: docker's units b, k, m, g, t, powers of 1024, or for a log, of 1000. Raises ValueError."""
    digits = text.rstrip("bkmgtBKMGT")
    unit = text[len(digits) :].lower()
    if digits != digits.strip() or unit not in POWERS:
        raise ValueError(text)
    try:
        count = int(float(digits) * kilo ** POWERS[unit])
    except OverflowError:
        raise ValueError(text) from None
    if count < 0:
        raise ValueError(text)
    return count


def numbers_of(text: str) -> set[int]:
    """`0-2,4` as a set of numbers (cpuset(7), List format)."""
    result: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.partition("-")
        last = last if dash else first
        if not (first.isdecimal() and last.isdecimal()) or int(last) >= 2**16:
            raise errors.InvalidArgument(f"{text!r} is no list of numbers like 0-2,4")
        result |= set(range(int(first), int(last) + 1))
    return result


def security(options: dict[str, Any], result: dict[str, Any]) -> None:
    """Capabilities, seccomp, device access, masked paths; `--privileged` gives them all away."""
    process, linux = result["process"], result["linux"]
    granted = capabilities.resolve(options["cap_add"], options["cap_drop"], options["privileged"])
    process["capabilities"] = dict.fromkeys(("bounding", "effective", "permitted"), granted)
    profile = ""
    for text in options["security_opt"]:
        key, _, value = text.replace(":", "=", 1).partition("=")
        if key == "no-new-privileges" and value in ("", "true", "false"):
            process["noNewPrivileges"] = value != "false"
        elif key == "seccomp" and value:
            profile = value
        elif key == "apparmor" and value:
            process["apparmorProfile"] = value
        elif (key, value) in (("label", "disable"), ("systempaths", "unconfined")):
            if key == "systempaths":
                linux["maskedPaths"], linux["readonlyPaths"] = [], []
        else:
            raise errors.InvalidArgument(
                f"--security-opt {text}: no-new-privileges, seccomp=unconfined|FILE, apparmor=unconfined|PROFILE, "
                "systempaths=unconfined are known"
            )
    if options["privileged"]:
        linux["maskedPaths"], linux["readonlyPaths"] = [], []
        profile = profile or "unconfined"
        for mount in result["mounts"]:
            if mount["type"] in ("sysfs", "cgroup"):
                mount["options"] = ["rw" if word == "ro" else word for word in mount["options"]]
        linux["devices"] += all_host_devices()
    if profile != "unconfined":
        linux["seccomp"] = seccomp.from_file(profile, granted) if profile else seccomp.default(granted)
    if not host.in_user_namespace():
        if options["privileged"]:
            linux["resources"]["devices"] = [{"allow": True, "access": "rwm"}]
        else:
            linux["resources"]["devices"] = cgroups.default_devices() + [
                {"allow": True, **{key: device[key] for key in ("type", "major", "minor")}, "access": device["access"]}
                for device in linux["devices"]
            ]
    for device in linux["devices"]:
        device.pop("access", None)


def host_devices(text: str) -> list[dict[str, Any]]:
    """`--device /dev/x[:/dev/inside][:rwm]`, a node or a directory of nodes, as the spec's `linux.devices`."""
    parts = text.split(":")
    access = parts.pop() if len(parts) > 1 and not parts[-1].startswith("/") else "rwm"
    source, inside = parts[0], parts[-1]
    if len(parts) > 2 or not source.startswith("/") or set(access) - set("rwm"):
        raise errors.InvalidArgument(f"--device {text}: write /dev/NAME[:/dev/INSIDE][:rwm]")
    try:
        info = os.stat(source)
    except FileNotFoundError:
        raise errors.InvalidArgument(f"--device {text}: there is no {source} on this machine") from None
    if stat.S_ISDIR(info.st_mode):
        return [
            device
            for name in sorted(os.listdir(source))
            for device in host_devices(f"{source}/{name}:{inside}/{name}:{access}")
        ]
    if not (stat.S_ISCHR(info.st_mode) or stat.S_ISBLK(info.st_mode)):
        raise errors.InvalidArgument(f"--device {text}: {source} is not a device")
    return [describe_device(inside, info, access)]


def describe_device(path: str, info: os.stat_result, access: str) -> dict[str, Any]:
    """One node as the spec has it; `access` is for the cgroup."""
    return {
        "path": path,
        "type": "b" if stat.S_ISBLK(info.st_mode) else "c",
        "major": os.major(info.st_rdev),
        "minor": os.minor(info.st_rdev),
        "fileMode": stat.S_IMODE(info.st_mode),
        "uid": info.st_uid,
        "gid": info.st_gid,
        "access": access,
    }


def all_host_devices() -> list[dict[str, Any]]:
    """Every node right below the host's /dev, for `--privileged`; terminals are the container's own."""
    result = []
    for entry in sorted(os.scandir("/dev"), key=lambda entry: entry.name):
        info = entry.stat(follow_symlinks=False)
        if (stat.S_ISCHR(info.st_mode) or stat.S_ISBLK(info.st_mode)) and entry.name not in ("console", "ptmx", "tty"):
            result.append(describe_device(entry.path, info, "rwm"))
    return result


def add_mounts(
    options: dict[str, Any], result: dict[str, Any], container: str, mounts: list[volumes.Mount], volume_data: Any,
    ids: tuple[int, int] | None,
) -> None:  # fmt: skip
    """The user's mounts, outer ones first, and the three files of /etc that know this container's name.

    With `ids` of its own, what is the engine's, volumes included, is translated, and a bind that is `idmap`.
    """
    wanted = []

    def add(mount: dict[str, Any], translate: bool) -> None:
        if ids and translate:
            from . import userns

            mount = userns.translated(mount, *ids)
        wanted.append(mount)

    for name in ("hosts", "hostname", "resolv.conf"):
        words = ["bind", "ro"] if options["read_only"] else ["bind"]
        add(spec.mount(f"/etc/{name}", "bind", f"{container}/{name}", words), True)
    for mount in mounts:
        words = [*mount.options, *(["ro"] if mount.readonly else [])]
        words = [word for word in words if word != "nocopy"]
        if mount.kind == "tmpfs":
            wanted.append(spec.mount(mount.target, "tmpfs", "tmpfs", words))
        else:
            source = volume_data(mount.source) if mount.kind == "volume" else mount.source
            asked = "idmap" in words
            if asked and not ids:
                raise errors.InvalidArgument(f"-v {mount.source}:{mount.target}:idmap is for --userns auto")
            words = ["rbind", *(word for word in words if word != "idmap")]
            add(spec.mount(mount.target, "bind", source, words), asked or mount.kind == "volume")
    if options["init"]:
        if not os.path.exists(INIT):
            raise errors.Unsupported(f"--init needs {INIT}: apt-get install tini")
        wanted.append(spec.mount(INIT_INSIDE, "bind", INIT, ["bind", "ro"]))
    # The user's own mount at a place wins over the default one there.
    places = {os.path.normpath(mount["destination"]) for mount in wanted}
    kept = [mount for mount in result["mounts"] if mount["destination"] not in places]
    # /etc/hosts lies beneath a bind of /etc, so the shorter path goes first; sorted() keeps equals in order.
    result["mounts"] = kept + sorted(wanted, key=lambda mount: os.path.normpath(mount["destination"]).count("/"))


def adapt_to_host(options: dict[str, Any], result: dict[str, Any], mapped: bool = False) -> None:
    """What the root of a user namespace, ours or (`mapped`) its own, must get another way or cannot get at all."""
    if host.in_user_namespace() or mapped:
        if options["network_mode"] == "host" or options["network_mode"].startswith("container:"):
            # sysfs belongs to the network namespace: whoever did not make that may only bind what is there.
            for mount in result["mounts"]:
                if mount["type"] == "sysfs":
                    mount |= {"type": "bind", "source": "/sys", "options": ["rbind", "ro", "nosuid", "noexec", "nodev"]}
        if options["pid_mode"]:
            # Likewise proc and the pid namespace.
            for mount in result["mounts"]:
                if mount["type"] == "proc":
                    mount |= {"type": "bind", "source": "/proc", "options": ["rbind", "nosuid", "noexec", "nodev"]}
        if options["ipc_mode"] == "host":  # and mqueue and the ipc namespace, where the host itself has not mounted it
            result["mounts"] = [mount for mount in result["mounts"] if mount["type"] != "mqueue"]
        if not cgroups.usable():
            result["mounts"] = [mount for mount in result["mounts"] if mount["type"] != "cgroup"]
