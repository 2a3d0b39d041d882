"""Containers: where image, network and runtime meet.

A container is a directory of the store, made first and removed last: the journal of all that is done for it.

    containers/<id>/record.json   who it is: all that `teardown` needs
                    config.json   the OCI config it runs by
                    upper/ work/ rootfs/ hosts hostname resolv.conf
    containers/names/<name>       a link to the id: taking a name is one atomic symlink(2)
    <run root>/<id>/state.json    its process, while it runs: gone at reboot

Whoever starts a container holds an flock on its directory, which the monitor inherits: only who can take that lock
may repair or remove it. `start` and `teardown` are plans; `teardown` is made of the record alone.
"""

from __future__ import annotations

import json
import os
import time
from collections import namedtuple

from .. import errors, files, host, steps, syscalls
from ..image import store
from ..kernel import cgroups, overlay
from ..network import bridge, ipam, nat
from ..runtime import launch, monitor, spec, state
from . import configure, names, volumes

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing: 4 ms of every start
    from collections.abc import Iterator
    from typing import Any

    Record = dict[str, Any]
    Records = list[Record]  # inside the class, `list` is its method
    Names = list[str]


class Start(namedtuple("Start", "record config plan options")):
    """A start, planned: what will run and how, with nothing done yet."""

    record: Record
    config: dict[str, Any]
    plan: list[steps.Step]
    options: dict[str, Any]


class Containers:
    """The containers of a store."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.directory = f"{root}/containers"
        self.volumes = volumes.Volumes(root)
        self.images = store.Store(root)

    def path(self, identifier: str) -> str:
        """A container's directory."""
        return f"{self.directory}/{identifier}"

    # Planning

    def plan(self, image: str, explain: bool = False, **given: Any) -> Start:
        """Plan to start a container from `image`; `given` are options by docker-py's names (configure.DEFAULTS).

        Reads facts (the image, this host), changes nothing, takes nothing. With `explain`, the processes will report
        each step. Raises ImageNotFound, InvalidArgument, Unsupported.
        """
        if not host.privileged():
            raise errors.Unsupported(
                "a container needs root's rights, to mount and to make namespaces: run this with sudo, or as root of "
                "a user namespace of your own: unshare -Ur minicontainer run --network none …"
            )
        if given.get("network_mode", "bridge") == "bridge" and not host.owns_network():
            raise errors.Unsupported(
                "this user namespace may not change the network that it is in: use --network none or host, or give it "
                "a network of its own: unshare -Urn minicontainer run …"
            )
        unknown = set(given) - set(configure.DEFAULTS)
        if unknown:
            raise errors.InvalidArgument(f"there is no option {min(unknown)!r}; engine/configure.py lists them all")
        options = {**configure.DEFAULTS, **given}
        found = self.images.get(image)
        identifier = names.new_id()
        self.complete(options, identifier, found.config)
        directory = self.path(identifier)
        joined = self.joined(options)
        config = configure.config(
            options,
            found.config,
            self.images.layer_directories(found),
            directory,
            options["mounts"],
            self.volumes.data,
            joined,
        )
        spec.check(config)
        record: Record = {
            "id": identifier,
            "name": options["name"] or names.new_name(),
            "drawn": not options["name"],  # the name: by us, so another would do as well
            "created": timestamp(),
            "image": image,
            "image_id": found.id,
            "layers": found.chain_ids,
            "args": config["process"]["args"],
            "labels": options["labels"],
            "remove": options["remove"],
            "network": options["network_mode"],
            "ports": [port._asdict() for port in options["ports"]],
            "mounts": [mount._asdict() for mount in options["mounts"]],
            "anonymous": options["anonymous"],
            "cgroup": config["linux"]["cgroupsPath"],
            "status": "starting",
            "exit_code": None,
        }
        plan = list(self.start(record, config, options, self.images.layer_links(found), explain))
        return Start(record, config, plan, options)

    def complete(self, options: dict[str, Any], identifier: str, image: dict[str, Any]) -> None:
        """Fill in what the user left open: names, anonymous volumes, exposed ports."""
        if options["name"] and not names.valid(options["name"]):
            raise errors.InvalidArgument(
                f"invalid container name {options['name']!r}: use letters, digits and `_.-`, two at least"
            )
        mode = options["network_mode"]
        options["hostname"] = self.hostname(options) or identifier[:12]
        if mode not in ("bridge", "host", "none") and not mode.startswith("container:"):
            raise errors.NetworkNotFound(f"no such network: {mode}; bridge, host, none and container:NAME are there")
        if options["ports"] and mode != "bridge":
            raise errors.InvalidArgument(f"ports can be published on the bridge only, not with --network {mode}")
        defaults = image.get("config") or {}
        taken = {os.path.normpath(mount.target) for mount in options["mounts"]}
        options["mounts"] = list(options["mounts"])  # the caller's stays as it is
        for target in defaults.get("Volumes") or {}:
            if os.path.normpath(target) not in taken:
                options["mounts"].append(volumes.Mount("volume", "", target))
        options["anonymous"] = []
        for index, mount in enumerate(options["mounts"]):
            if mount.kind == "volume" and not mount.source:
                name = names.new_id()
                options["anonymous"].append(name)
                options["mounts"][index] = mount._replace(source=name)

    def hostname(self, options: dict[str, Any]) -> str:
        """The name asked for, or that of the machine or container whose network or uts namespace it is to share."""
        asked, mode, uts = options["hostname"], options["network_mode"], options["uts_mode"]
        if asked and (uts == "host" or mode.startswith("container:")):
            raise errors.InvalidArgument(
                f"--hostname {asked} conflicts with {'--uts host' if uts == 'host' else f'--network {mode}'}: "
                "a name shared with others is not this container's to choose"
            )
        if len(os.fsencode(asked)) > LONGEST_HOSTNAME or asked != "".join(asked.split()):
            raise errors.InvalidArgument(f"--hostname {asked!r}: at most {LONGEST_HOSTNAME} bytes and no blanks")
        if uts == "host" or (mode == "host" and not asked):
            return os.uname().nodename
        if mode.startswith("container:"):
            shared = self.path(self.get(mode.partition(":")[2])["id"])
            return files.read(f"{shared}/hostname").decode().strip()
        return str(asked)

    def joined(self, options: dict[str, Any]) -> dict[str, int]:
        """The pids of the containers whose namespaces are to be shared, by kind of namespace."""
        result = {}
        for kind, key in (("network", "network_mode"), ("pid", "pid_mode"), ("ipc", "ipc_mode"), ("uts", "uts_mode")):
            mode, _, name = options[key].partition(":")
            if mode == "container":
                record = self.get(name)
                running = self.running(record["id"])
                if running is None:
                    raise errors.Conflict(f"container {name} is not running: its {kind} namespace cannot be shared")
                result[kind] = running["pid"]
            elif options[key] not in MODES[kind]:
                raise errors.InvalidArgument(f"there is no {kind} mode {options[key]!r}: use host or container:NAME")
        return result

    def start(
        self, record: Record, config: dict[str, Any], options: dict[str, Any], layers: list[str], explain: bool
    ) -> Iterator[steps.Step]:
        """Everything from nothing to a running command, in the monitor."""
        directory = self.path(record["id"])
        rootfs = f"{directory}/rootfs"
        bridged = record["network"] == "bridge"
        network = bridge.default(self.root) if bridged else None
        if host.in_user_namespace():
            yield steps.unshare(
                syscalls.CLONE_NEWNS, why="the mounts of this user's container need a list that is this user's"
            )
        yield from steps.about("engine", self.begin(record, config))
        if network:
            yield from steps.about("bridge", bridge.setup(network))
            yield steps.call(
                ipam.lease, network, record["id"], why="an address that nobody else has", result="address"
            )._replace(concept="bridge")
        yield from steps.about("engine", self.etc_files(directory, options))
        yield from steps.about("overlay", overlay.mount(self.root, layers, directory, record["remove"]))
        yield from steps.about("mounts", volumes.prepare(self.volumes, options["mounts"], rootfs))
        attach: list[steps.Step] = []
        if network:
            attach += steps.about("bridge", bridge.attach(network, record["id"]))
            attach += steps.about("nat", nat.publish(record["id"], options["ports"]))
        yield from launch.plan(config, rootfs, options["stdin_open"], explain, attach)

    def begin(self, record: Record, config: dict[str, Any]) -> Iterator[steps.Step]:
        """Open the journal: from here on, whatever happens can be taken down again."""
        directory = self.path(record["id"])
        yield steps.call(
            open_journal,
            self.directory,
            directory,
            why="the container's directory, locked by whoever runs it",
            result="lock",
        )
        yield steps.call(take_name, self.directory, record, why="a name is taken by making one link")
        yield steps.call(write_record, directory, record, False, why="what teardown will need to know")
        yield steps.write(
            f"{directory}/config.json", json.dumps(config), why="the OCI config, for runtimes and readers"
        )

    def etc_files(self, directory: str, options: dict[str, Any]) -> Iterator[steps.Step]:
        """/etc/hosts, hostname and resolv.conf: files of ours, bound over the image's."""
        mode, name = options["network_mode"], options["hostname"]
        lines: list[Any] = [LOCALHOST]
        if mode.startswith("container:"):
            shared = self.path(self.get(mode.partition(":")[2])["id"])
            for file in ("hosts", "hostname", "resolv.conf"):
                content = files.read(f"{shared}/{file}").decode(errors="replace")
                yield steps.write(f"{directory}/{file}", content, why="one network, one set of names")
            return
        if mode == "host":
            lines = [files.read("/etc/hosts").decode(errors="replace")]
        if mode == "bridge":
            lines += [steps.ADDRESS, f"\t{name}\n"]
        yield steps.write(f"{directory}/hosts", steps.Text(lines), why="its own name leads to its own address")
        yield steps.write(f"{directory}/hostname", f"{name}\n", why="programs read the name here too")
        servers = resolv_conf(keep_loopback=mode == "host")
        yield steps.write(f"{directory}/resolv.conf", servers, why="the host's servers; its loopback is not ours")

    # Taking down

    def teardown(
        self, record: Record, remove: bool, exit_code: int | None = None, volumes_too: bool = True
    ) -> Iterator[steps.Step]:
        """The reverse of `start`, from the record alone; every step is idempotent.

        With `remove`, nothing is left but, unless `volumes_too`, its anonymous volumes.
        """
        identifier, directory = record["id"], self.path(record["id"])
        yield from steps.about("cgroups", cgroups.remove(record["cgroup"]))
        if record["network"] == "bridge":
            detach = bridge.detach(bridge.default(self.root), identifier, bool(record["ports"]), unplug=False)
            yield from steps.about("bridge", detach)
        yield from steps.about("overlay", overlay.umount(directory))
        yield steps.remove_tree(f"{host.run_root()}/{identifier}", why="no process any more")._replace(concept="engine")
        anonymous = record["anonymous"] if volumes_too else []
        ended = self.forget(record, anonymous) if remove else self.remember(record, exit_code)
        yield from steps.about("engine", ended)

    def forget(self, record: Record, anonymous: Names) -> Iterator[steps.Step]:
        """Close the journal of a container that is to leave nothing."""
        for name in anonymous:
            yield steps.remove_tree(
                f"{self.volumes.directory}/{name}", why="an anonymous volume goes with its container"
            )
        if record["name"]:
            yield steps.call(drop_name, self.directory, record["name"], record["id"], why="the name is free again")
        yield steps.remove_tree(self.path(record["id"]), why="the journal goes last")

    def remember(self, record: Record, exit_code: int | None) -> Iterator[steps.Step]:
        """Note how a container ended that is to be kept."""
        ended = {**record, "status": "exited", "exit_code": exit_code, "finished": timestamp()}
        yield steps.call(write_record, self.path(record["id"]), ended, why="how it ended, for `ps -a`")

    # Running

    def run(self, planned: Start, explain: bool = False, apart: tuple[int, ...] = ()) -> monitor.Client:
        """Perform a planned start in a monitor of its own. The client's end tells when it started and how it ended.

        The standard descriptors in `apart` are pipes to the client; it inherits the others.
        """
        record = planned.record

        def started(values: steps.Values) -> None:
            pid = values["pid"]
            record["started"] = timestamp()
            running = {
                "pid": pid,
                "start_time": state.start_time(pid),
                "address": values.get("address", ""),
                "started": record["started"],
            }
            files.make_directory(f"{host.run_root()}/{record['id']}")
            files.write(f"{host.run_root()}/{record['id']}/state.json", json.dumps(running).encode())
            if not record["remove"]:
                write_record(self.path(record["id"]), {**record, "status": "running"})

        def teardown(exit_code: int | None) -> Iterator[steps.Step]:
            return self.teardown(record, record["remove"] or exit_code is None, exit_code)

        return monitor.start(lambda end: monitor.run(planned.plan, started, teardown, end, explain), apart)

    # Looking

    def list(self) -> Records:
        """All records, newest first; each with the status that is true now."""
        records = [self.read(identifier) for identifier in self.identifiers()]
        return sorted((record for record in records if record), key=lambda record: record["created"], reverse=True)

    def identifiers(self) -> Names:
        """The ids of all containers, whole or half made."""
        try:
            return [name for name in os.listdir(self.directory) if len(name) == 64]
        except FileNotFoundError:
            return []

    def read(self, identifier: str) -> Record | None:
        """One record with its true status, None if it has none (yet, or any more)."""
        try:
            record: Record = json.loads(files.read(f"{self.path(identifier)}/record.json"))
        except FileNotFoundError:
            return None
        running = self.running(identifier)
        if running:
            record |= {**running, "status": "running"}
        elif record["status"] == "running" or os.path.exists(f"{host.run_root()}/{identifier}/state.json"):
            record["status"] = "dead"
        return record

    def running(self, identifier: str) -> dict[str, Any] | None:
        """The state of a running container: pid, start time, address; None if it does not run."""
        try:
            found: dict[str, Any] = json.loads(files.read(f"{host.run_root()}/{identifier}/state.json"))
        except FileNotFoundError:
            return None
        return found if state.alive(found["pid"], found["start_time"]) else None

    def get(self, name: str) -> Record:
        """A container by name, id or any unique prefix of its id. Raises ContainerNotFound, InvalidArgument."""
        try:
            identifiers = [os.readlink(f"{self.directory}/names/{name}")] if names.valid(name) else []
        except OSError:
            identifiers = []
        if not identifiers:
            identifiers = [identifier for identifier in self.identifiers() if name and identifier.startswith(name)]
        if len(identifiers) > 1:
            raise errors.InvalidArgument(f"{name} is the beginning of {len(identifiers)} ids: write more of it")
        record = self.read(identifiers[0]) if identifiers else None
        if record is None:
            raise errors.ContainerNotFound(f"No such container: {name}")
        return record

    def using_volume(self, volume: str) -> Names:
        """The ids of the containers, running or not, that mount this volume."""
        return [
            record["id"]
            for record in self.list()
            if any(mount["kind"] == "volume" and mount["source"] == volume for mount in record["mounts"])
        ]

    def remove(self, name: str, volumes_too: bool = False) -> str:
        """Remove a container that does not run; `volumes_too`, its anonymous volumes go with it. Returns its id.

        Raises ContainerNotFound, Conflict.
        """
        record = self.get(name)
        try:
            lock = files.lock(self.path(record["id"]), wait=False)
        except BlockingIOError:
            raise errors.Conflict(
                f"container {record['name']} is running: end it first (kill {record.get('pid', 'its process')})"
            ) from None
        try:
            steps.execute(self.teardown(record, remove=True, volumes_too=volumes_too), {})
        finally:
            os.close(lock)
        return str(record["id"])


LONGEST_HOSTNAME = 64  # HOST_NAME_MAX, gethostname(2)

# What a namespace's option may be, beside container:NAME.
MODES = {
    "network": ("bridge", "host", "none"),
    "pid": ("", "host"),
    "ipc": ("", "host", "none", "private", "shareable"),
    "uts": ("", "host"),
}

LOCALHOST = """\
127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::0\tip6-localnet
ff00::0\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
"""


def timestamp() -> str:
    """Now, in RFC 3339 with nanoseconds, as docker writes times."""
    now = time.time_ns()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now // 10**9)) + f".{now % 10**9:09d}Z"


def open_journal(containers: str, directory: str) -> int:
    """Make the container's directory and lock it, in one go as far as a repairer can see. Returns the lock."""
    files.make_directory(f"{containers}/names")
    with files.locked(f"{containers}.lock", shared=True):
        os.mkdir(directory, 0o700)
        return files.lock(directory)


def take_name(containers: str, record: Record) -> None:
    """Take the record's name, or raise Conflict; a name that was only drawn is drawn anew until it is free."""
    while True:
        try:
            os.symlink(record["id"], f"{containers}/names/{record['name']}")
            return
        except FileExistsError:
            if record["drawn"]:
                record["name"] = names.new_name()
                continue
            holder = os.readlink(f"{containers}/names/{record['name']}")
            hint = "remove that one (rm), or use another name"
            raise errors.Conflict(
                f"the container name {record['name']!r} is in use by container {holder[:12]}: {hint}"
            ) from None


def drop_name(containers: str, name: str, identifier: str) -> None:
    """Give a name back, if it is ours: a start that failed for its name must not free the holder's."""
    path = f"{containers}/names/{name}"
    try:
        if os.readlink(path) == identifier:
            os.unlink(path)
    except FileNotFoundError:
        pass


def write_record(directory: str, record: Record, sync: bool = True) -> None:
    """Replace the record; with `sync`, it survives a power cut."""
    files.write(f"{directory}/record.json", json.dumps(record).encode(), sync=sync)


def resolv_conf(keep_loopback: bool) -> str:
    """The host's resolv.conf(5) without servers on its loopback, which is not the container's.

    systemd-resolved keeps the real servers in a file of its own.
    """
    real = "/run/systemd/resolve/resolv.conf"
    path = real if not keep_loopback and os.path.exists(real) else "/etc/resolv.conf"
    try:
        text = files.read(path).decode(errors="replace")
    except FileNotFoundError:
        return "# the host has no resolv.conf\n"
    if keep_loopback:
        return text
    lines = []
    for line in text.splitlines():
        words = line.split()
        if len(words) > 1 and words[0] == "nameserver" and (words[1].startswith("127.") or words[1] == "::1"):
            continue
        lines.append(line)
    return "\n".join(lines) + "\n"
