"""Containers: where image, network and runtime meet.

A container is a directory of the store, made first and removed last: the journal of all that is done for it.

    containers/<id>/record.json   who it is: all that `start` and `teardown` need
                    config.json   the OCI config it runs by
                    <id>-json.log what it has written
                    upper/ work/ rootfs/ hosts hostname resolv.conf
    containers/names/<name>       a link to the id: taking a name is one atomic symlink(2)
    <run root>/<id>/state.json    its process, while it runs: gone at reboot
                    monitor.sock  its monitor's door (runtime/attach.py)

Whoever is at work on a container holds an flock on its directory, a monitor as long as it lives: only who can take
that lock may repair, start or remove it. `creation`, `start` and `teardown` are plans; `plan` is the first two in one.

A record's `status`: created; starting, running, restarting while a monitor is there; exited. `read` tells what is true
now, whatever was written down last: also paused; dead, for a --rm container whose monitor was killed. `lost` is there
where a monitor was killed and left something to take down.
"""

from __future__ import annotations

import os
import time

from .. import errors, files, host, steps, syscalls
from .. import quickjson as json
from ..image import blobs, store
from ..kernel import cgroups, overlay
from ..network import bridge, dns, drivers, foreign, ipam, nat
from ..records import namedtuple
from ..runtime import launch, log, monitor, session, spec, state
from . import configure, events, keeper, names, networks, volumes

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing: 4 ms of every start
    from collections.abc import Iterator
    from typing import Any, Literal, Unpack, overload

    from ..image import removal
    from . import container
    from .options import Options

    Record = dict[str, Any]
    Records = list[Record]  # inside the class, `list` is its method
    Names = list[str]
    Users = list[removal.User]
    Plugs = list[networks.Plug]


class Start(namedtuple("Start", "record config plan options")):
    """A start, planned: what will run and how, with nothing done yet."""

    record: Record
    config: dict[str, Any]
    plan: list[steps.Step]
    options: dict[str, Any]


class Ground(namedtuple("Ground", "id name config chain_ids secret", defaults=({},))):
    """What a container may stand on in an image's place: layers of the store, and what an image's config would say.

    `id` is that of the image below it all, which stays as long as the container does; "" where there is none. `secret`
    are variables that its command gets, and that neither its config.json nor its record has.
    """

    id: str
    name: str
    config: dict[str, Any]
    chain_ids: list[str]
    secret: dict[str, str]


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

    def plan(self, image: str | Ground, explain: bool = False, dry: bool = False, **given: Any) -> Start:
        """Plan to create and start a container; `given` are options by docker-py's names (configure.DEFAULTS).

        `image` is a name or an id. Reads facts (the image, this host) and changes nothing; but with `--userns auto` it
        takes the ids that all else is planned with, unless the plan is `dry`, never to be performed. With `explain`,
        the processes will report each step. Raises ImageNotFound, InvalidArgument, Unsupported.
        """
        identifier = names.new_id()
        try:
            return self.plan_as(identifier, image, explain, dry, given)
        except BaseException:
            if configure.has_ids(given):
                self.give_ids_back(identifier)
            raise

    def plan_as(self, identifier: str, image: str | Ground, explain: bool, dry: bool, given: dict[str, Any]) -> Start:
        """`plan` for a container of this id; if it raises, its ids of the machine may have been taken."""
        self.check_privilege()
        if networks.own(given.get("network_mode", "bridge")) and not host.owns_network():
            raise errors.Unsupported(
                "this user namespace may not change the network that it is in: use --network none or host, or give it "
                "a network of its own: unshare -Urn minicontainer run …"
            )
        unknown = set(given) - set(configure.DEFAULTS)
        if unknown:
            raise errors.InvalidArgument(f"there is no option {min(unknown)!r}; engine/configure.py lists them all")
        options = {**configure.DEFAULTS, **given}
        found = self.images.get(image) if isinstance(image, str) else image
        self.complete(options, identifier, found.config)
        directory = self.path(identifier)
        joined = self.joined(options)
        among = [options["network_mode"], *options["networks"]]
        self.check_firewall(among, options["ports"], options["firewall"])
        ids = self.take_ids(options, identifier, dry)
        config = configure.config(
            options,
            found.config,
            [self.images.layer_directory(chain) for chain in found.chain_ids],
            directory,
            options["mounts"],
            self.volumes.data,
            joined,
            ids,
        )
        spec.check(config)
        described = configure.described(options, found.config)
        record: Record = {
            "id": identifier,
            "name": options["name"] or names.new_name(),
            "drawn": not options["name"],  # the name: by us, so another would do as well
            "created": log.timestamp(),
            "image": image if isinstance(image, str) else image.name,
            "image_id": found.id,
            "layers": found.chain_ids,
            "args": config["process"]["args"],
            "config": described,
            "labels": described["Labels"],
            "remove": options["remove"],
            "volatile": options["remove"] or isinstance(found, Ground),  # a power cut may take what it writes
            "hostname": options["hostname"],
            "attach": [0, 1, 2][not options["stdin_open"] :] if options["attach"] is None else options["attach"],
            "stdin": options["stdin_open"],
            "tty": options["tty"],
            "network": options["network_mode"],
            "networks": options["networks"],
            "modes": {kind: options[key] for kind, key in SHARED.items()},
            **({"userns": options["userns_mode"], "ids": ids} if ids else {}),
            "dns": {name: options[key] for name, key in DNS.items()},
            "ports": [port._asdict() for port in options["ports"]],
            "publish_all": options["publish_all"],
            "firewall": options["firewall"],
            "mounts": [mount._asdict() for mount in options["mounts"]],
            "anonymous": options["anonymous"],
            "cgroup": config["linux"]["cgroupsPath"],
            "log": log_options(options["log_config"], described),
            "restart": restart_policy(options["restart_policy"], options["remove"]),
            "restart_count": 0,
            "stop_signal": monitor.signal_number(
                options["stop_signal"] or defaults_of(found.config).get("StopSignal") or "TERM"
            ),
            "stop_timeout": options["stop_timeout"],
            "status": "starting",
            "exit_code": None,
        }
        plan = [*self.alone(), *steps.about("engine", self.creation(record, config))]
        if isinstance(found, Ground):
            plan += self.start(record, configure.with_variables(config, found.secret), self.links(record), explain)
        else:
            plan += self.start(record, config, self.images.layer_links(found), explain)
        return Start(record, config, plan, options)

    def plan_start(self, name: str, console_size: tuple[int, int] = (0, 0)) -> Start:
        """Plan to start a container that is there: the same config, its own files, a new lease of an address.

        Raises ContainerNotFound, Conflict where it is marked for removal, and what `plan` raises.
        """
        self.check_privilege()
        record = self.find(name)
        if record["status"] == "dead":
            raise errors.Conflict(f"container {record['name']} is marked for removal and cannot be started: rm it")
        directory = self.path(record["id"])
        ports = [nat.Port(**port) for port in record["ports"]]
        self.check_firewall([*networks.asked(record)], ports, record["firewall"])
        plan = [*self.alone(), *steps.about("engine", take_up(directory))]
        if record.get("lost") or self.left(record):
            plan += self.teardown(record, remove=False)
        return self.started_again(record, plan, console_size, restart_count=0)

    def plan_restart(self, identifier: str) -> Start:
        """The same for the container's own monitor, which holds the lock, and has a pid namespace to forget."""
        record = self.load(identifier)
        forget = steps.setns("/proc/self/ns/pid", syscalls.CLONE_NEWPID, why="that of the last start has ended")
        plan = [*self.alone(), forget._replace(concept="namespaces")]
        return self.started_again(record, plan, (0, 0), restart_count=record["restart_count"] + 1)

    def started_again(self, record: Record, plan: list[steps.Step], size: tuple[int, int], **fields: Any) -> Start:
        """The start of a container that is there, after the steps in `plan`."""
        directory = self.path(record["id"])
        config = json.loads(files.read(f"{directory}/config.json"))
        options = {key: record["modes"][kind] for kind, key in SHARED.items()} | {"network_mode": record["network"]}
        config["linux"]["namespaces"] = configure.spaces(options, self.joined(options), bool(record.get("ids")))
        config["process"]["consoleSize"] = dict(zip(("height", "width"), size, strict=True))
        noted = steps.call(
            change, directory, {"status": "starting", "stopped": False, **fields}, why="we are at it, and who we are"
        )
        plan += [noted._replace(concept="engine")]
        plan += self.start(record, config, self.links(record), explain=False)
        return Start(record, config, plan, {"stdin_open": record["stdin"], "tty": record["tty"]})

    def take_ids(self, options: dict[str, Any], identifier: str, dry: bool) -> tuple[int, int] | None:
        """The (first, count) of the ids of a container with a user namespace of its own, None for all others."""
        if not configure.has_ids(options):
            return None
        from . import userns

        count = userns.check(options)
        return userns.take(self.root, identifier, count, dry), count

    def give_ids_back(self, identifier: str) -> None:
        """The ids of a container with a user namespace of its own are free again, if it has any."""
        from . import userns

        userns.give_back(self.root, identifier)

    def alone(self) -> Iterator[steps.Step]:
        """In a user namespace the monitor needs a list of mounts of its own, before anything else."""
        if host.in_user_namespace():
            yield steps.unshare(
                syscalls.CLONE_NEWNS, why="the mounts of this user's container need a list that is this user's"
            )

    def check_privilege(self) -> None:
        """Raise Unsupported, with what to do, where this process may start no container."""
        if not host.privileged():
            raise errors.Unsupported(
                "a container needs root's rights, to mount and to make namespaces: run this with sudo, or as root of "
                "a user namespace of your own: unshare -Ur minicontainer run --network none …"
            )

    def complete(self, options: dict[str, Any], identifier: str, image: dict[str, Any]) -> None:
        """Fill in what the user left open: names, anonymous volumes, exposed ports."""
        if options["name"] and not names.valid(options["name"]):
            raise errors.InvalidArgument(
                f"invalid container name {options['name']!r}: use letters, digits and `_.-`, two at least"
            )
        options["hostname"] = self.hostname(options) or identifier[:12]
        self.check_names(options)
        self.complete_networks(options)
        defaults = image.get("config") or {}
        options["publish_all"] = self.complete_ports(options, defaults) if options["publish_all_ports"] else None
        self.check_ports(options)
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

    def check_firewall(self, among: Names, ports: list[nat.Port], way: str) -> None:
        """Raise Unsupported where somebody else's firewall would keep everybody from the published ports.

        They lead to one of the networks `among` which the container is.
        """
        name = networks.leading(self.root, among) if ports or way else ""
        if name:
            found = networks.get(self.root, name)
            foreign.check(found.device, ports, way, foreign.families(found))
        else:
            foreign.check("", [], way)

    def complete_ports(self, options: dict[str, Any], image: dict[str, Any]) -> Names:
        """Publish all that image and user expose, where no -p says on which port. Those that were added: "80/tcp"."""
        if not networks.own(options["network_mode"]):
            return []
        exposed = nat.parse_exposed([*(image.get("ExposedPorts") or {}), *options["expose"]])
        added = nat.unpublished(exposed, options["ports"])
        options["ports"] = [*options["ports"], *map(nat.any_free, added)]
        return added

    def check_ports(self, options: dict[str, Any]) -> None:
        """Raise InvalidArgument where ports, by -p or by -P, cannot be published: nobody would come to them."""
        if options["ports"]:
            mode = options["network_mode"]
            networks.publishing(self.root, networks.leading(self.root, [mode, *options["networks"]]) or mode)

    def complete_networks(self, options: dict[str, Any]) -> None:
        """Which networks, by name, and what is asked for in each. Raises NetworkNotFound, InvalidArgument."""
        mode, wished = options["network_mode"], options["networks"]
        if not networks.own(mode):
            if wished:
                raise errors.InvalidArgument(f"with --network {mode} there is no address, alias or network to choose")
            return
        wished = {mode: {}, **wished}
        for name in wished:
            networks.get(self.root, name)
        options["networks"] = {
            name: {**end, "mac": networks.mac_address(end.get("mac", ""))} for name, end in wished.items()
        }

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
            shared = self.path(self.find(mode.partition(":")[2])["id"])
            return files.read(f"{shared}/hostname").decode().strip()
        return str(asked)

    def check_names(self, options: dict[str, Any]) -> None:
        """Raise InvalidArgument for a server that is no address, or a host that leads to none."""
        given = [flag for flag, key in (("--dns", "dns"), ("--add-host", "extra_hosts")) if options[key]]
        if given and options["network_mode"].startswith("container:"):
            mode = options["network_mode"]
            raise errors.InvalidArgument(f"{given[0]} conflicts with --network {mode}: names are that container's")
        for server in options["dns"]:
            if not ipam.is_address(server):
                raise errors.InvalidArgument(f"--dns {server}: it is not an IP address")
        for text in options["extra_hosts"]:
            name, address = extra_host(text)
            if not name or len(name.split()) != 1 or not (address == HOST_GATEWAY or ipam.is_address(address)):
                raise errors.InvalidArgument(f"--add-host {text}: write NAME:ADDRESS, or NAME:{HOST_GATEWAY}")

    def joined(self, options: dict[str, Any]) -> dict[str, int]:
        """The pids of the containers whose namespaces are to be shared, by kind of namespace."""
        result = {}
        for kind, key in (("network", "network_mode"), ("pid", "pid_mode"), ("ipc", "ipc_mode"), ("uts", "uts_mode")):
            mode, _, name = options[key].partition(":")
            if mode == "container":
                record = self.find(name)
                running = self.running(record["id"])
                if running is None:
                    raise errors.Conflict(f"container {name} is not running: its {kind} namespace cannot be shared")
                result[kind] = running["pid"]
            elif kind in MODES and options[key] not in MODES[kind]:
                raise errors.InvalidArgument(f"there is no {kind} mode {options[key]!r}: use host or container:NAME")
        return result

    def start(self, record: Record, config: dict[str, Any], layers: list[str], explain: bool) -> Iterator[steps.Step]:
        """From a container that is there to a running command, in the monitor."""
        directory = self.path(record["id"])
        rootfs = f"{directory}/rootfs"
        plugs = networks.plugs(self.root, record)
        for plug in plugs:
            driver = plug.network.driver
            yield from steps.about("bridge", drivers.of(driver).setup(plug.network))
            if record["firewall"] == "docker-user" and driver == "bridge":
                yield from steps.about("nat", foreign.admit(plug.network.device, foreign.families(plug.network)))
            yield from steps.about("bridge", networks.leases(plug, record["id"]))
        yield from steps.about("engine", self.etc_files(directory, record, plugs))
        maps = []  # or none at all: a lab's own mount does not know them
        if record.get("ids"):
            from . import userns

            maps = [userns.translation(*record["ids"])]
            why = "nobody else has got them since"
            ours = steps.call(userns.confirm, self.root, record["id"], *record["ids"], why=why)
            yield ours._replace(concept="engine")
        yield from steps.about("overlay", overlay.mount(self.root, layers, directory, record["volatile"], *maps))
        mounts = [volumes.Mount(**mount) for mount in record["mounts"]]
        yield from steps.about("mounts", volumes.prepare(self.volumes, mounts, rootfs, record.get("ids")))
        attach: list[steps.Step] = []
        for plug in plugs:
            attach += steps.about("bridge", networks.plug_in(plug, record["id"]))
        if plugs:
            attach += steps.about("engine", self.names_in(plugs, record))
        ports = [nat.Port(**port) for port in record["ports"]]
        if ports:
            first = next((plug for plug in plugs if networks.leads(plug.network)), None)
            to = (first.symbol6, first.symbol, first.device) if first else (None, None)
            attach += steps.about("nat", nat.publish(record["id"], ports, *to))
        yield from launch.plan(config, rootfs, record["stdin"], explain, attach)

    def names_in(self, plugs: Plugs, record: Record) -> Iterator[steps.Step]:
        """Its names in its networks, and where its questions about others' come."""
        yield steps.call(dns.listen, steps.PID, why="where it asks for names, inside", result="questions")
        for plug in plugs:
            addresses = [plug.symbol, *([plug.symbol6] if plug.symbol6 else [])]
            yield steps.call(networks.announce, plug.network, record, *addresses, why="its names lead to its address")

    def follow(self, record: Record) -> None:
        """A container has another name: if it runs, its networks know it by that from now on."""
        running = self.running(record["id"])
        for network, end in (running or {}).get("ends", {}).items():
            networks.announce(networks.get(self.root, network), record, end["address"], end.get("address6", ""))

    def creation(self, record: Record, config: dict[str, Any]) -> Iterator[steps.Step]:
        """Open the journal: from here on, whatever happens can be taken down again."""
        directory = self.path(record["id"])
        yield steps.call(
            open_journal,
            self.directory,
            directory,
            why="the container's directory, locked by whoever is at work on it",
            result="lock",
        )
        yield steps.write(
            f"{directory}/config.json", json.dumps(config), why="the OCI config, for later starts and for readers"
        )
        yield steps.call(take_name, self.directory, record, why="a name is taken by making one link")
        yield steps.call(
            claim, self.root, directory, record, why="what a start and a teardown need to know; its layers now stay"
        )
        yield steps.call(events.write, self.root, "create", record, why="for who follows `events`")

    def etc_files(self, directory: str, record: Record, plugs: Plugs) -> Iterator[steps.Step]:
        """/etc/hosts, hostname and resolv.conf: files of ours, bound over the image's."""
        mode, name = record["network"], record["hostname"]
        lines: list[Any] = [LOCALHOST]
        if mode.startswith("container:"):
            shared = self.path(self.find(mode.partition(":")[2])["id"])
            for file in ("hosts", "hostname", "resolv.conf"):
                content = files.read(f"{shared}/{file}").decode(errors="replace")
                yield steps.write(f"{directory}/{file}", content, why="one network, one set of names")
            return
        if mode == "host" and os.path.exists("/etc/hosts"):
            lines = [files.read("/etc/hosts").decode(errors="replace")]
        lines += [f"{address}\t{host_name}\n" for host_name, address in self.extra_hosts(record, plugs)]
        for plug in plugs:
            lines += [plug.symbol, f"\t{name}\n"]
            lines += [plug.symbol6, f"\t{name}\n"] if plug.symbol6 else []
        yield steps.write(f"{directory}/hosts", steps.Text(lines), why="its own name leads to its own address")
        yield steps.write(f"{directory}/hostname", f"{name}\n", why="programs read the name here too")
        asks_us = networks.own(mode)
        text = self.resolver_settings(record, asks_us)
        why = "whom it asks for names: its network's resolver" if asks_us else "the host's servers, if it reaches them"
        yield steps.write(f"{directory}/resolv.conf", text, why=why)

    def resolver_settings(self, record: Record, asks_us: bool) -> str:
        """Its resolv.conf(5); with `asks_us`, that of a container in a network."""
        return resolver_settings(resolv_conf(record["network"] == "host"), record["dns"], asks_us)

    def extra_hosts(self, record: Record, plugs: Plugs) -> Iterator[tuple[str, str]]:
        """(name, address) of --add-host. The host is reached by the first network, or as by the default one."""
        for name, address in map(extra_host, record["dns"]["hosts"]):
            if address == HOST_GATEWAY:
                bridges = [plug.network for plug in plugs if plug.network.driver == "bridge"]
                address = (bridges[0] if bridges else bridge.default(self.root)).gateway
            yield name, address

    # Taking down

    def teardown(
        self,
        record: Record,
        remove: bool,
        ended: Record | None = None,
        volumes_too: bool = True,
        again: bool = False,
    ) -> Iterator[steps.Step]:
        """The reverse of `start`, from the record alone; every step is idempotent.

        With `remove`, nothing is left but, unless `volumes_too`, its anonymous volumes; else `ended` is noted. `again`,
        it will be restarted: its monitor's door stays open.
        """
        identifier, directory = record["id"], self.path(record["id"])
        yield from steps.about("cgroups", cgroups.remove(record["cgroup"]))
        yield from steps.about("bridge", networks.unplug(self.root, record))
        yield from steps.about("overlay", overlay.umount(directory, bool(record.get("ids"))))
        place = self.run_directory(identifier)
        gone = (
            steps.unlink(f"{place}/state.json", why="no process now")
            if again
            else steps.remove_tree(place, why="no process any more")
        )
        if remove:
            yield gone._replace(concept="engine")
            anonymous = record["anonymous"] if volumes_too else []
            yield from steps.about("engine", self.forget(record, anonymous))
        else:  # how it ended is known before nobody can be asked any more
            yield from steps.about("engine", self.remember(directory, ended or {}, not record["volatile"]))
            yield gone._replace(concept="engine")

    def forget(self, record: Record, anonymous: Names) -> Iterator[steps.Step]:
        """Close the journal of a container that is to leave nothing."""
        for name in anonymous:
            yield steps.remove_tree(
                f"{self.volumes.directory}/{name}", why="an anonymous volume goes with its container"
            )
        if record.get("ids"):
            from . import userns

            yield steps.call(userns.give_back, self.root, record["id"], why="its ids are free for others")
        if record["name"]:
            yield steps.call(drop_name, self.directory, record["name"], record["id"], why="the name is free again")
        if "image" in record:
            yield steps.call(events.write, self.root, "destroy", record, why="for who follows `events`")
        yield steps.remove_tree(self.path(record["id"]), why="the journal goes last")

    def remember(self, directory: str, ended: Record, sync: bool) -> Iterator[steps.Step]:
        """Note how a container ended that is to be kept."""
        if ended:
            yield steps.call(note_end, directory, ended, sync, why="how it ended, for `ps -a`")

    # What its monitor asks for (keeper.py)

    def log_writer(self, record: Record) -> log.Writer:
        """The container's log, to write to."""
        options = record["log"]
        path = self.log_path(record["id"]) if options["driver"] == "json-file" else ""
        attrs = json.dumps(options["attrs"]) if options.get("attrs") else ""
        return log.Writer(path, options["max_size"], options["max_file"], attrs)

    def note_started(self, record: Record, values: steps.Values) -> str:
        """Note that the command runs. Returns the container's directory of /run."""
        pid, place, now = values["pid"], self.run_directory(record["id"]), log.timestamp()
        bound = [port._asdict() for port in nat.bound(record["id"])]
        led = not bound or self.leads_to(record, values)
        running = {
            "pid": pid,
            "start_time": state.start_time(pid),
            "ends": networks.ends(record, values),
            "asks": "questions" in values,
            "started": now,
            "ports": bound if led else [],
            **({} if led else {"held": bound}),  # they lead nowhere: networks.py
        }
        files.make_directory(place, 0o700)
        files.write(f"{place}/state.json", json.dumps(running).encode())
        if not record["remove"]:
            change(self.path(record["id"]), {"status": "running", "started": now}, not record["volatile"])
        events.write(self.root, "start", record)
        return place

    def leads_to(self, record: Record, values: steps.Values) -> str:
        """The address that its published ports lead to, by a start; "" is nowhere."""
        ends = networks.ends(record, values)
        return ends.get(networks.leading(self.root, ends), {}).get("address", "")

    def after_failure(self, record: Record, error: BaseException) -> steps.Plan:
        """What to take down after a start that failed. It stays, unless it is half made, or --rm."""
        try:
            record = self.load(record["id"])
        except FileNotFoundError:
            return self.teardown(record, remove=True)
        ended = {"status": "exited" if "started" in record else "created", "exit_code": failure_code(error)}
        if "started" in record:
            ended["finished"] = log.timestamp()
        return self.teardown(record, record["remove"], {**ended, "error": str(error)})

    def after_end(self, record: Record, code: int, again: bool, stopped: bool) -> steps.Plan:
        """What to take down after the command has ended; `again`, it will be restarted; `stopped`, it was asked to."""
        status = "restarting" if again else "exited"
        ended = {"status": status, "exit_code": code, "finished": log.timestamp(), "error": "", "stopped": stopped}
        ended["oom_killed"] = bool(cgroups.oom_kills(record["cgroup"]))
        return self.teardown(record, record["remove"], ended, again=again)

    def note(self, action: str, record: Record, **attributes: str) -> None:
        """Note for who follows `events` what has been done to a container."""
        events.write(self.root, action, record, **attributes)

    def restarts(self, record: Record, code: int) -> bool:
        """Whether its policy says to start it again, now that it has ended with this code by itself."""
        policy = record["restart"]
        if policy["name"] == "on-failure":
            return code != 0 and not 0 < policy["maximum"] <= record["restart_count"]
        return policy["name"] in ("always", "unless-stopped")

    # Running

    def comes_back(self, record: Record) -> bool:
        """Whether a container that does not run is to be started after a boot: docker's rule for its daemon's start."""
        name = record["restart"]["name"]
        return name == "always" or (name == "unless-stopped" and "started" in record and not record.get("stopped"))

    def perform(self, planned: Start, explain: bool = False, audience: bool = True) -> session.Session:
        """Perform a planned start in a monitor of its own. The session tells when it started and how it ended.

        With `audience`, the session is attached: it gets the output, and with -i gives the input. Raises Unsupported
        in a process with threads, which cannot fork: there, `create` and `begin`.
        """
        if monitor.threaded():
            raise errors.Unsupported("a process with threads cannot fork a container: containers.run does it otherwise")
        return monitor.fork(lambda end: keeper.live(self, planned, end, audience, explain))

    def make(self, planned: Start) -> str:
        """Make the container that was planned, and do not start it. Returns its id."""
        planned.record["status"] = "created"
        values: steps.Values = {}
        try:
            steps.execute(self.creation(planned.record, planned.config), values)
        except BaseException:
            steps.execute(self.teardown(planned.record, remove=True), {})
            raise
        os.close(values["lock"])
        return str(planned.record["id"])

    def start_apart(self, identifier: str, audience: bool) -> session.Session:
        """Start a container that is there; its monitor is a fresh interpreter. For a process with threads."""
        return monitor.spawn("minicontainer.engine.keeper", identifier, "attached" if audience else "", self.root)

    # docker-py's nouns: the same for who writes Python (container.py)

    if TYPE_CHECKING:  # with `detach` a Container, without what it wrote

        @overload
        def run(
            self, image: str, command: str | Names | None = None, *, detach: Literal[True], remove: bool = False,
            **given: Unpack[Options],
        ) -> container.Container: ...  # fmt: skip

        @overload
        def run(
            self, image: str, command: str | Names | None = None, *, detach: Literal[False] = False,
            stdout: bool = True, stderr: bool = False, remove: bool = False, **given: Unpack[Options],
        ) -> bytes: ...  # fmt: skip

    def run(
        self, image: str, command: str | Names | None = None, *, detach: bool = False, stdout: bool = True,
        stderr: bool = False, remove: bool = False, **given: Unpack[Options],
    ) -> container.Container | bytes:  # fmt: skip
        """Create a container and start it. With `detach`, the Container; else, once it has ended, what it wrote.

        An image that is not here is pulled first, unless registries.json says "never"; `create` does not pull.
        `given` are docker-py's options (options.py). Raises ContainerError where it ended with another code than 0,
        InvalidArgument, ImageNotFound, RegistryError, CommandNotFound, CommandNotExecutable, Conflict: then there is
        no container.
        """
        if detach:
            given = {**given, "attach": [], **({"auto_remove": True} if remove else {})}
        try:
            made = self.create(image, command, **given)
        except errors.ImageNotFound:
            from . import images, pulling

            if pulling.to_fetch(image) is None:
                raise
            images.Images(self.root).pull(image)
            made = self.create(image, command, **given)
        try:
            made.start()
        except BaseException:
            made.remove(v=True)
            raise
        if detach:
            return made
        code = made.wait()["StatusCode"]
        output, complaint = made.logs(stdout=stdout, stderr=stderr), made.logs(stdout=False)
        assert isinstance(output, bytes) and isinstance(complaint, bytes)
        if remove:
            made.remove(v=True)
        if code:
            raise errors.ContainerError(
                f"{image}: exit code {code}: {complaint.decode(errors='replace').strip()}", code
            )
        return output

    def create(self, image: str, command: str | Names | None = None, **given: Unpack[Options]) -> container.Container:
        """Create a container and do not start it. `given`, and what is raised, as with `run`."""
        from . import options

        known = options.understood(given)
        return self.get(self.make(self.plan(image, command=options.words(command), **known)))

    def get(self, name: str) -> container.Container:
        """A container by name, id or any unique prefix of its id. Raises ContainerNotFound, InvalidArgument."""
        from . import container

        return container.Container(self, self.find(name))

    def list(self, all: bool = False, filters: dict[str, Names] | None = None) -> list[container.Container]:
        """The running containers, newest first; with `all`, every one. `filters` are those of filters.py."""
        from . import container, filters as filtering  # isort: skip

        found = [record for record in self.records() if all or record["status"] in LIVE]
        if filters:
            found = filtering.of_containers(self, found, filters)
        return [container.Container(self, record) for record in found]

    def prune(self, filters: dict[str, Names] | None = None) -> dict[str, Any]:
        """Remove the containers that do not run; `filters`: until, label, label!.

        Returns ContainersDeleted, their ids, and SpaceReclaimed, the bytes of their own files.
        """
        from . import filters as filtering

        chosen = filtering.of_prunable_containers(filters or {})
        removed, space = [], 0
        for record in self.records():
            if record["status"] not in (*LIVE, "starting") and chosen(record) and not self.is_step(record["id"]):
                size = files.disk_usage(f"{self.path(record['id'])}/upper")
                try:
                    removed.append(self.remove(record["id"]))
                    space += size
                except (errors.Conflict, errors.ContainerNotFound):
                    pass  # somebody has started or removed it meanwhile
        events.note_prune(self.root, "container", space)
        return {"ContainersDeleted": removed, "SpaceReclaimed": space}

    def is_step(self, identifier: str) -> bool:
        """Whether a container is a step of a build that is under way: building.Workshop makes a layer of it."""
        try:
            return state.alive(*json.loads(files.read(f"{self.root}/build/running/{identifier}")))
        except FileNotFoundError:
            return False

    def begin(self, identifier: str, audience: bool, console_size: tuple[int, int] = (0, 0)) -> session.Session:
        """Start a container that is there; see `perform`. From a process with threads, by a fresh interpreter."""
        if monitor.threaded():
            return self.start_apart(identifier, audience)
        return self.perform(self.plan_start(identifier, console_size), audience=audience)

    # Looking

    def records(self) -> Records:
        """All records, newest first; each with the status that is true now."""
        records = [self.read(identifier) for identifier in self.identifiers()]
        return sorted((record for record in records if record), key=lambda record: record["created"], reverse=True)

    def layers_in_use(self) -> set[str]:
        """The chainIDs of the layers that containers stand on, whether they run or not."""
        return {chain for record in self.records() for chain in record["layers"]}

    def users(self) -> Users:
        """Who uses which image and layers, as a removal asks it."""
        from ..image import removal

        return [
            removal.User(record["id"], record["image_id"], record["layers"], record["status"] in (*LIVE, "starting"))
            for record in self.records()
        ]

    def links(self, record: Record) -> Names:
        """The short names of the layers that a container stands on, whether its image is still there or not."""
        return self.images.links(record["layers"], record["image"])

    def identifiers(self) -> Names:
        """The ids of all containers, whole or half made."""
        try:
            return [name for name in os.listdir(self.directory) if len(name) == 64]
        except FileNotFoundError:
            return []

    def load(self, identifier: str) -> Record:
        """A record as it was written last, whole even if an earlier version wrote it. Raises FileNotFoundError."""
        return {**EARLIER, **json.loads(files.read(f"{self.path(identifier)}/record.json"))}

    def change(self, identifier: str, **fields: Any) -> None:
        """Note something in a record."""
        change(self.path(identifier), fields, True)

    def read(self, identifier: str) -> Record | None:
        """One record with its true status, None if it has none (yet, or any more)."""
        before = None
        while True:
            try:
                record = self.load(identifier)
            except FileNotFoundError:
                return None
            if record["status"] in ("created", "exited"):
                return record
            kept = state.alive(*record["monitor"])
            try:
                running = json.loads(files.read(f"{self.run_directory(identifier)}/state.json"))
            except FileNotFoundError:
                running = None
            if running and (kept or state.alive(running["pid"], running["start_time"])):
                record["bindings"] = record["ports"]  # as they were asked for
                record |= {**running, "status": "paused" if running.get("paused") else "running"}
                if record["config"].get("Healthcheck"):
                    from . import health

                    record["health"] = (health.read(self, record) or {}).get("Status", "")
                return record
            if record == before:  # else its monitor may have noted something since, and ended
                break
            before = record
        if not kept:
            self.lose(record)
        return record

    def left(self, record: Record) -> bool:
        """Whether its monitor was killed after it had noted the end, and before it had taken the last thing away."""
        return record["status"] in ("created", "exited") and os.path.exists(self.run_directory(record["id"]))

    def lose(self, record: Record) -> None:
        """Say of a record whose monitor was killed what has become of it."""
        record["lost"] = True
        if record["remove"]:
            record["status"] = "dead"
        elif "started" not in record:
            record["status"] = "created"
        elif record["status"] == "restarting":  # it had ended, and how was noted
            record["status"] = "exited"
        else:  # the kernel killed its command with the monitor: 128 + SIGKILL; after its last log line
            seen = next(path for path in (self.log_path(record["id"]), self.path(record["id"])) if os.path.exists(path))
            record |= {"status": "exited", "exit_code": 137, "finished": log.timestamp(os.stat(seen).st_mtime_ns)}

    def running(self, identifier: str) -> dict[str, Any] | None:
        """The state of a running container: pid, start time, address; None if it does not run."""
        try:
            found: dict[str, Any] = json.loads(files.read(f"{self.run_directory(identifier)}/state.json"))
        except FileNotFoundError:
            return None
        return found if state.alive(found["pid"], found["start_time"]) else None

    def run_directory(self, identifier: str) -> str:
        """Where its state and its monitor's socket lie, while it runs."""
        return f"{host.run_root()}/{identifier}"

    def log_path(self, identifier: str) -> str:
        """Its log; rotated ones have `.1`, `.2` behind it."""
        return f"{self.path(identifier)}/{identifier}-json.log"

    def find(self, name: str) -> Record:
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
        return self.volumes_in_use().get(volume, [])

    def volumes_in_use(self) -> dict[str, Names]:
        """By volume, the ids of the containers, running or not, that mount it; in one look at the records."""
        found: dict[str, Names] = {}
        for record in self.records():
            for volume in {mount["source"] for mount in record["mounts"] if mount["kind"] == "volume"}:
                found.setdefault(volume, []).append(record["id"])
        return found

    def remove(self, name: str, volumes_too: bool = False, killed: bool = False) -> str:
        """Remove a container that does not run; `volumes_too`, its anonymous volumes go with it. Returns its id.

        One that has just been `killed` may be on its way out: that is waited for. Raises ContainerNotFound, Conflict.
        """
        record = self.find(name)
        if not killed and record["status"] in (*LIVE, "starting"):
            raise errors.Conflict(
                f"You cannot remove a {record['status']} container {record['id']}. "
                "Stop the container before attempting removal or force remove"
            )
        lock = lock_journal(self.path(record["id"]))
        try:
            steps.execute(self.teardown(record, remove=True, volumes_too=volumes_too), {})
        finally:
            os.close(lock)
        if record["image_id"] and not blobs.exists(self.root, record["image_id"]):
            # It has outlived its image: its layers may go now.
            from ..image import removal

            removal.sweep(self.images, self.users)
        return str(record["id"])


LONGEST_HOSTNAME = 64  # HOST_NAME_MAX, gethostname(2)

# What a namespace's option may be, beside container:NAME.
MODES = {
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


LIVE = ("running", "paused", "restarting")  # what `ps` shows without -a

# The kinds of namespaces that can be shared, beside the network, by their options.
SHARED = {"pid": "pid_mode", "ipc": "ipc_mode", "uts": "uts_mode"}

# What a record says of names, by the options' names.
DNS = {"servers": "dns", "search": "dns_search", "options": "dns_opt", "hosts": "extra_hosts"}
HOST_GATEWAY = "host-gateway"  # in place of an address of --add-host: the host's, as containers reach it

# A log is bounded where nobody says otherwise: three files of ten megabytes.
LOG = {"driver": "json-file", "max_size": 10 * 10**6, "max_file": 3}

# What holds of a container whose record has no such field: it was made when containers had no monitor, log or restart.
EARLIER: Record = {
    "volatile": False, "monitor": (0, 0), "config": configure.PLAIN, "hostname": "", "attach": [],
    "stdin": False, "tty": False,
    "modes": dict.fromkeys(SHARED, ""), "dns": {name: [] for name in DNS}, "log": {**LOG, "driver": "none"},
    "restart": {"name": "no", "maximum": 0}, "restart_count": 0, "stop_signal": 15,
    "stop_timeout": None, "publish_all": None, "firewall": "", "userns": "", "ids": None,
}  # fmt: skip


def defaults_of(image: dict[str, Any]) -> dict[str, Any]:
    """What the image says of its containers."""
    return image.get("config") or {}


def log_options(given: dict[str, Any], described: dict[str, Any]) -> dict[str, Any]:
    """docker-py's log_config: {"type": driver, "config": {"max-size": "10m", "max-file": "3"}}; -1 is no bound.

    `labels` and `env` name those of a container so `described` that are noted with each entry.
    """
    driver, options = given.get("type") or "json-file", given.get("config") or {}
    if driver not in ("json-file", "none"):
        raise errors.InvalidArgument(f"there is no log driver {driver!r}: json-file and none are there")
    result: dict[str, Any] = {**LOG, "driver": driver}
    there = {
        "labels": described["Labels"],
        "env": dict(line.split("=", 1) for line in described["Env"] if "=" in line),
    }
    for name, value in options.items():
        if name == "max-size":
            try:
                result["max_size"] = 0 if value == "-1" else configure.bytes_of(value, kilo=1000)
                continue
            except ValueError:
                pass  # said below
        elif name == "max-file" and value.isdecimal() and int(value):
            result["max_file"] = int(value)
            continue
        elif name in there:
            noted = {key: there[name][key] for key in value.split(",") if key in there[name]}
            result |= {name: value, "attrs": {**result.get("attrs", {}), **noted}}
            continue
        raise errors.InvalidArgument(
            f"--log-opt {name}={value}: max-size=10m (-1: no bound), max-file=3, labels=A,B and env=A,B are known"
        )
    return result


def restart_policy(given: dict[str, Any], remove: bool) -> dict[str, Any]:
    """docker-py's restart_policy: {"Name": "on-failure", "MaximumRetryCount": 5}."""
    name, most = given.get("Name") or "no", given.get("MaximumRetryCount") or 0
    if name not in ("no", "on-failure", "always", "unless-stopped"):
        raise errors.InvalidArgument(f"invalid restart policy {name!r}: no, on-failure[:N], always, unless-stopped")
    if most and name != "on-failure":
        raise errors.InvalidArgument(f"maximum retry count cannot be used with restart policy {name!r}")
    if remove and name != "no":
        raise errors.InvalidArgument("conflicting options: --restart and --rm")
    return {"name": name, "maximum": most}


def word(record: Record) -> str:
    """Docker's word for a record's status."""
    return "created" if record["status"] == "starting" and "started" not in record else str(record["status"])


def failure_code(error: BaseException) -> int:
    """The exit code of a container whose start failed, as docker notes it."""
    if isinstance(error, errors.CommandNotFound):
        return 127
    return 126 if isinstance(error, errors.CommandNotExecutable) else 128


def take_up(directory: str) -> Iterator[steps.Step]:
    """Lock the journal of a container that is there."""
    yield steps.call(lock_journal, directory, why="whoever holds this lock is at work on it alone", result="lock")


def lock_journal(directory: str, patience: float = 10.0) -> int:
    """The lock of a container that does not run. Somebody who is about to let go of it is waited for.

    Raises Conflict, ContainerNotFound.
    """
    until = time.monotonic() + patience
    while True:
        try:
            return files.lock(directory, wait=False, make=False)
        except BlockingIOError:
            if time.monotonic() > until:
                raise errors.Conflict(
                    f"somebody else is at work on container {os.path.basename(directory)[:12]}"
                ) from None
        except FileNotFoundError:
            raise errors.ContainerNotFound(f"No such container: {os.path.basename(directory)[:12]}") from None
        time.sleep(0.005)


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


def claim(root: str, directory: str, record: Record) -> None:
    """Write the record of a container that is new: from then on nobody removes the layers that it stands on.

    The images lock is shared meanwhile, which a removal holds alone. Raises ImageNotFound where one was faster.
    """
    images = store.Store(root)
    with images.lock(shared=True):
        if record["image_id"] and not blobs.exists(root, record["image_id"]):
            raise errors.ImageNotFound(f"No such image: {record['image']}; it was removed just now")
        images.links(record["layers"], record["image"])
        write_record(directory, record, False)


def write_record(directory: str, record: Record, sync: bool = True) -> None:
    """Replace the record; with `sync`, it survives a power cut. Whoever starts it notes that it is the monitor."""
    if record["status"] == "starting":
        record["monitor"] = [os.getpid(), state.start_time(os.getpid())]
    files.write(f"{directory}/record.json", json.dumps(record).encode(), sync=sync)


def change(directory: str, fields: Record, sync: bool = False) -> None:
    """Note something in the record of the container in `directory`, whoever else notes something else meanwhile."""
    with files.locked(f"{directory}/record.lock"):
        record = json.loads(files.read(f"{directory}/record.json"))
        write_record(directory, {**record, **fields}, sync)


def note_end(directory: str, ended: Record, sync: bool) -> None:
    """Note how a container ended; on a full disk that is not known any more, and it is said to have been killed."""
    try:
        change(directory, ended, sync)
    except OSError:
        pass  # what is left to be taken down must go all the same


def extra_host(text: str) -> tuple[str, str]:
    """NAME:ADDRESS, or NAME=ADDRESS, of which an IPv6 one may stand in brackets."""
    name, _, address = text.partition("=" if "=" in text else ":")
    return name, address.removeprefix("[").removesuffix("]")


def resolver_settings(text: str, wished: dict[str, list[str]], asks_us: bool) -> str:
    """A resolv.conf(5): the host's, with what was `wished` in place of its lines of that kind.

    A container that `asks_us` has one server, which knows the others. There a name without a dot is tried as it is
    first: another container's comes before one of a search domain (ndots:0).
    """
    lines = [line.split() for line in text.splitlines()]
    found = {
        kind: [word for words in lines if words[:1] == [kind] for word in words[1:]]
        for kind in ("nameserver", "search", "options")
    }
    servers = [dns.ADDRESS] if asks_us else wished["servers"] or found["nameserver"]
    search = wished["search"] or found["search"]
    options = wished["options"] or found["options"]
    if asks_us and not any(option.startswith("ndots:") for option in options):
        options = [*options, "ndots:0"]
    result = "".join(f"nameserver {server}\n" for server in servers)
    result += f"search {' '.join(search)}\n" if search and search != ["."] else ""
    return result + (f"options {' '.join(options)}\n" if options else "")


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
