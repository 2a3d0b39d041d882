"""The store as a whole: is it whole, mend it, or take it all away.

A container's directory is made first, removed last and locked by whoever runs it. So an unlocked directory whose
record says "starting" or "running" is the trace of a start or a monitor that was killed, and its teardown plan cleans
up. Kernel objects that bear the id of no directory at all cannot come from us; they are looked for all the same.
"""

from __future__ import annotations

import os
import sys

from .. import errors, files, host, netlink, steps
from ..kernel import cgroups
from ..network import bridge, dns, drivers, every, nat, spoofing
from . import containers, networks, userns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class System:
    """The store at `root`, seen as a whole."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.containers = containers.Containers(root)

    def check(self, repair: bool = False) -> list[str]:
        """What is wrong, a sentence each; with `repair`, it has been mended. A start under way is not disturbed."""
        if not os.path.exists(self.root):
            return []
        problems = []
        for identifier in self.containers.identifiers():
            problem = self.examine(identifier, repair)
            if problem:
                problems.append(problem)
        problems += self.orphans(repair)
        store = self.containers.images
        return problems + (store.repair if repair else store.check)(self.containers.layers_in_use)

    def examine(self, identifier: str, repair: bool) -> str:
        """What is wrong with one container's directory; empty if nothing is, or somebody is at work in it."""
        directory = self.containers.path(identifier)
        with files.locked(f"{self.containers.directory}.lock"):
            try:
                lock = files.lock(directory, wait=False, make=False)
            except (BlockingIOError, FileNotFoundError):
                return ""
        try:
            record = self.containers.read(identifier)
            if record and "lost" not in record and not self.containers.left(record):
                return ""
            whole = record is None or (record["remove"] and "lost" in record)  # nothing of it is to be kept
            if repair:
                ended: dict[str, Any] = {}
                if record:
                    ended |= {key: record[key] for key in ("status", "exit_code", "finished") if key in record}
                steps.execute(self.containers.teardown(record or nobody(identifier), whole, ended), {})
            by = "start" if record is None or "started" not in record else "monitor"
            return f"container {identifier[:12]} was left by a {by} that was killed"
        finally:
            os.close(lock)

    def orphans(self, repair: bool) -> list[str]:
        """Kernel objects and files that bear the id of no container."""
        known: set[str] = set(self.containers.identifiers())
        problems = []
        for identifier, where in self.traces().items():
            if identifier not in known and not os.path.exists(self.containers.path(identifier)):
                problems.append(f"{where} belongs to container {identifier[:12]}, which does not exist")
                if repair:
                    steps.execute(self.containers.teardown(nobody(identifier), remove=True), {})
        names = f"{self.containers.directory}/names"
        for name in os.listdir(names) if os.path.isdir(names) else []:
            identifier = os.readlink(f"{names}/{name}")
            if not os.path.exists(self.containers.path(identifier)):
                problems.append(f"the name {name} belongs to container {identifier[:12]}, which does not exist")
                if repair:
                    containers.drop_name(self.containers.directory, name, identifier)
        return problems

    def traces(self) -> dict[str, str]:
        """Every whole id that the kernel or /run knows, and where."""
        found = {
            identifier: f"the lease of {address} in network {name}"
            for name, leases in networks.attached().items()
            for identifier, address in leases.items()
        }
        for name in dns.networks():
            found |= dict.fromkeys(dns.announced(name), f"a name in network {name}")
        if netlink.link(bridge.default(self.root).device):
            found |= dict.fromkeys(spoofing.owners(), "an address in the firewall's table bridge")
            found |= {identifier: f"port {port.host}" for identifier, port in nat.published()}
        for directory in cgroup_directories():
            for name in os.listdir(directory):
                if len(name) == 64 and os.path.isdir(f"{directory}/{name}"):
                    found[name] = f"the cgroup {directory}/{name}"
        if os.path.isdir(host.run_root()):
            found |= {name: f"{host.run_root()}/{name}" for name in os.listdir(host.run_root()) if len(name) == 64}
        return found

    def start(self) -> tuple[list[str], list[str]]:
        """Start what is to come back after a boot. The names of those that run now, and sentences about the others."""
        began, failed = [], []
        for record in reversed(self.containers.records()):
            if record["status"] in ("created", "exited") and self.containers.comes_back(record):
                try:
                    self.containers.get(record["id"]).start()
                    began.append(record["name"])
                except (errors.MiniContainerError, OSError) as error:
                    failed.append(f"{record['name']}: {error}")
        return began, failed

    def enable(self) -> str:
        """Have systemd start at each boot what is to come back. Returns the unit's path. Raises Unsupported."""
        self.need_systemd()
        path = f"{UNITS}/{unit_name()}"
        files.write(path, unit(self.root).encode(), sync=True)
        cgroups.systemd("systemctl", "daemon-reload")
        cgroups.systemd("systemctl", "enable", unit_name())
        return path

    def disable(self) -> None:
        """The reverse; containers that run go on. Raises Unsupported."""
        self.need_systemd()
        cgroups.systemd("systemctl", "disable", unit_name(), check=False)
        files.unlink(f"{UNITS}/{unit_name()}")
        cgroups.systemd("systemctl", "daemon-reload")

    def need_systemd(self) -> None:
        """Raise Unsupported, with another way, where there is no systemd to ask."""
        if not host.is_root():
            raise errors.Unsupported("a unit for the machine's boot is root's to install: sudo")
        if not os.path.isdir(cgroups.SYSTEMD):
            raise errors.Unsupported(
                "systemd is not process 1 here: have whatever starts this machine run `minicontainer system start`"
            )

    def reset(self) -> None:
        """Take everything away: containers, images, volumes, networks, the table, the unit; ip_forward as it was.

        Raises Conflict while a container runs.
        """
        for record in self.containers.records():
            if record["status"] in ("running", "paused", "restarting", "starting"):
                raise errors.Conflict(f"container {record['name']} is {record['status']}: end it first (rm -f)")
        self.check(repair=True)
        for record in self.containers.records():
            self.containers.remove(record["id"], volumes_too=True)
        if host.owns_network():  # else there never was a bridge
            for network in every(self.root):
                steps.execute(drivers.of(network.driver).remove(network), {})
            steps.execute(bridge.teardown(bridge.default(self.root)), {})
        if os.path.exists(f"{UNITS}/{unit_name()}"):
            self.disable()
        steps.execute(cgroups.remove_parent(cgroups.parent(f"minicontainer{host.suffix()}")), {})
        files.remove_tree(host.run_root())
        for name in os.listdir(self.root) if os.path.isdir(self.root) else []:
            files.remove_tree(f"{self.root}/{name}")
        if host.is_root():
            userns.clear()
        if not os.path.ismount(self.root):  # a disk of its own stays, empty
            files.remove_directory(self.root)


UNITS = "/etc/systemd/system"


def unit_name() -> str:
    """The unit of this store."""
    return f"minicontainer{host.suffix()}.service"


def unit(root: str) -> str:
    """The unit's text (systemd.service(5)): one command at boot. The monitors that it leaves behind are the service."""
    return f"""\
[Unit]
Description=minicontainer: containers with --restart always or unless-stopped
Wants=network-online.target
After=network-online.target

[Service]
Type=oneshot
RemainAfterExit=yes
Environment="MINICONTAINER_ROOT={root}"
ExecStart="{sys.executable}" -m minicontainer system start
# Stopping it asks the monitors to end: each asks its container to, and waits ten seconds for that.
KillMode=mixed
TimeoutStopSec=15

[Install]
WantedBy=multi-user.target
"""


def nobody(identifier: str) -> containers.Record:
    """A record for an id that has none: enough for teardown."""
    path = f"{cgroups.parent(f'minicontainer{host.suffix()}')}/{identifier}"
    everywhere: dict[str, Any] = {name: {} for name in networks.attached()}
    return {
        "id": identifier, "name": "", "network": "bridge", "networks": everywhere, "ports": [""], "anonymous": [],
        "cgroup": path,
    }  # fmt: skip


def cgroup_directories() -> list[str]:
    """The directories, one in each hierarchy, that this store's cgroups lie in."""
    parent = cgroups.parent(f"minicontainer{host.suffix()}")
    points = set(cgroups.detect().mounts.values())
    return sorted(f"{point}{parent}" for point in points if os.path.isdir(f"{point}{parent}"))
