"""The operations of an OCI runtime: create, start, state, kill, delete (runtime.md, Operations).

    <root>/<id>/    made first, removed last: an id is taken by one mkdir(2)
        config.json the bundle's, as it was at `create`
        state.json  its process: pid and start time; its bundle; whether it is created, or on its way there
        fifo        where the process waits to be started (fifo(7)); gone once it has been

create                                  the process (init.py)
mkdir, mkfifo
fork ─────────────────────────────────▶ its namespaces
state.json, whatever comes: creating
all that launch.py says ──────────────▶ all but its command
     ◀──────────────────── "created" ── read the fifo
state.json: created; the pid file; ends
                                        its parent is now whoever takes orphans: containerd's shim, conmon, init
start: one byte into the fifo ────────▶ execve
"""

from __future__ import annotations

import errno
import os
import select

from .. import errors, files, steps, syscalls
from .. import quickjson as json
from .. import signals as signal
from ..kernel import cgroups, namespaces
from . import hooks, state, threshold

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing: 4 ms of every start
    from typing import Any

    Config = dict[str, Any]

IDS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+-.")  # as runc has it


class Runtime:
    """The containers whose state lies below `root`; with `systemd`, it makes the cgroups of new ones.

    `warnings`: what was asked for and cannot be, and need not. `terminal`: the master of a new process's terminal that
    no console socket took; -1, if there is none.
    """

    def __init__(self, root: str, systemd: bool = False) -> None:
        self.root = root
        self.systemd = systemd
        self.warnings: list[str] = []
        self.terminal = -1

    def place(self, identifier: str) -> str:
        """A container's directory. Raises InvalidArgument for an id that cannot be one."""
        if not identifier or not IDS.issuperset(identifier) or identifier in (".", "..") or len(identifier) > 1024:
            raise errors.InvalidArgument(f"invalid container ID {identifier!r}: use letters, digits and `_+-.`")
        return f"{self.root}/{identifier}"

    # From a bundle to a running command

    def create(
        self,
        identifier: str,
        bundle: str,
        pid_file: str = "",
        console_socket: str = "",
        outlives: bool = True,
        kept: int = 0,
        keyring: bool = True,
    ) -> int:
        """Make a container from the bundle in that directory; its command waits to be started. Returns its pid.

        Unless it `outlives` us, it ends with us, its parent. A terminal's master goes to who listens at
        `console_socket`, or is ours. Beyond the standard ones, so many descriptors from 3 on are `kept` for its
        command. Without a `keyring` of its own, it has ours. Raises Conflict if the id is taken, InvalidArgument and
        Unsupported for a config.json that will not do, and whatever keeps it from being ready: nothing is left then.
        """
        from . import bundles, launch, spec, waiting  # here, for start, state, kill and delete do without: 5 ms of each

        place, bundle = self.place(identifier), os.path.realpath(bundle)
        taken = f"container with id exists already: {identifier}; delete it first"
        if os.path.exists(place):
            raise errors.Conflict(taken)
        config = bundles.read(bundle)
        bundles.check_console(config["process"], console_socket, not outlives)
        self.warnings += spec.without_effect(config)
        self.grant(config["process"], config["linux"]["namespaces"])
        linux = config["linux"]
        path, linux["scope"], linux["lent"] = linux.get("cgroupsPath") or "", None, None
        if self.systemd:
            linux["scope"] = bundles.own_scope(path, identifier)
            linux["cgroupsPath"] = linux["scope"][-1]
        else:
            linux["cgroupsPath"] = bundles.own_cgroup(path or identifier)
        root = os.path.join(bundle, config["root"]["path"])
        if spec.is_lent(config):
            from ..kernel import rootfs

            root = bundles.own_root(root)
            linux["lent"] = root, rootfs.beneath(root)
        linux["keyring"] = f"_ses.{identifier}" if keyring else ""
        if not namespaces.has(linux["namespaces"], "cgroup"):
            bundles.show_own_cgroup(config)
        self.guard(linux["resources"])
        values = launch.values()
        values[launch.VALUES.name] = values
        files.make_directory(self.root, 0o700)
        try:
            os.mkdir(place, 0o700)
        except FileExistsError:
            raise errors.Conflict(taken) from None
        try:
            files.write(f"{place}/config.json", json.dumps(config).encode())
            os.mkfifo(f"{place}/fifo", 0o600)
            described = {"ociVersion": spec.VERSION, "id": identifier, "status": "creating", "bundle": bundle}
            described["annotations"] = config["annotations"]
            held = waiting.Held(f"{place}/fifo", described, outlives, kept)
            # prestart hooks are of a time when `start` ran them (config.md of 1.0.0): there, it is created already.
            first = [steps.call(note, place, described, steps.PID, why="who is to be ended, should we end before it")]
            first += [
                steps.call(run_hooks, config, (kind,), {**described, "status": status}, steps.PID, why=HOOKS)
                for kind, status in (("prestart", "created"), ("createRuntime", "creating"))
            ]
            steps.execute(launch.plan(config, root, True, False, first, held), values)
            pid = int(values["pid"])
            self.hand_over(console_socket, values)
            note(place, {**described, "status": "created"}, pid)
            if pid_file:
                files.write(pid_file, str(pid).encode())
            return pid
        except BaseException as error:
            abandon(values)
            if linux["scope"] and isinstance(error, errors.Conflict):  # a unit of that name, which is another's
                files.remove_tree(place)
            else:
                self.take_down(place, config)
            raise

    def guard(self, resources: dict[str, Any]) -> None:
        """What it may do with devices: nothing but what it asks for, and the default ones (config-linux.md).

        So runc has it. A node for the machine's disk may lie in the bundle's root, or be made by a later process.
        """
        asked = resources.get("devices") or []
        if asked or cgroups.has_device_rules():
            nothing, *usual = cgroups.default_devices()
            resources["devices"] = [nothing, *asked, *usual]
        else:
            self.warnings.append(
                "all devices can be used: no v1 hierarchy of the cgroup controller `devices` is mounted"
            )

    def start(self, identifier: str) -> list[str]:
        """Let a created container's command begin. Returns what went wrong with its poststart hooks.

        Raises Conflict if it has begun, or has ended, before.
        """
        known = self.state(identifier)
        if known["status"] != "created":
            raise errors.Conflict(f"cannot start container {identifier}: it is {known['status']}, not created")
        place = self.place(identifier)
        try:
            fifo = os.open(f"{place}/fifo", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno not in (errno.ENXIO, errno.ENOENT):
                raise
            raise errors.Conflict(f"cannot start container {identifier}: its process has just ended") from None
        os.write(fifo, b"!")
        files.unlink(f"{place}/fifo")
        begun = select.poll()  # its end of the fifo goes with execve, after the startContainer hooks; or with itself
        begun.register(fifo, select.POLLERR)
        begun.poll()
        os.close(fifo)
        threshold.wait_until_crossed(known["pid"])
        return afterwards(self.config(identifier), "poststart", {**known, "status": "running"})

    def enter(
        self,
        identifier: str,
        process: Config,
        pid_file: str = "",
        console_socket: str = "",
        outlives: bool = False,
        kept: int = 0,
    ) -> int:
        """One more process in a container that runs, as the spec describes one. Returns its pid, a child of ours.

        Raises as `create` does, and Conflict for a container that does not run.
        """
        from . import bundles, enter, launch, spec

        (known, started), config = self.look(identifier), self.config(identifier)
        if known["status"] != "running":
            raise errors.Conflict(f"cannot exec in container {identifier}: it is {known['status']}")
        try:
            process = spec.complete_process(process)
            bundles.check_console(process, console_socket, not outlives)
            bundles.check_environment(process)
            spec.check({**config, "process": process})
            self.grant(process, config["linux"]["namespaces"])
        except errors.MISFITS as error:
            raise errors.malformed("the process", error) from None
        values = launch.values()
        values[launch.VALUES.name] = values
        try:
            steps.execute(enter.plan(config, process, known["pid"], started, outlives, kept, known), values)
            self.hand_over(console_socket, values)
            if pid_file:
                files.write(pid_file, str(values["pid"]).encode())
        except BaseException:
            abandon(values)
            raise
        return int(values["pid"])

    def hand_over(self, console_socket: str, values: dict[str, Any]) -> None:
        """Give a terminal's master away, or keep it for our caller."""
        if console_socket:
            hand_over(console_socket, values["master"])
        elif "master" in values:
            self.terminal = values["master"]

    def grant(self, process: Config, spaces: list[dict[str, Any]]) -> None:
        """Leave out the capabilities that cannot be had, and warn (config.md of 1.1): those that we have not got to
        give, and ambient ones that are not inheritable (capabilities(7)), which `runc spec` asks for.

        Who enters a user namespace has all of them in there (user_namespaces(7)).
        """
        from ..kernel import capabilities

        mapped = namespaces.has(spaces, "user")
        held, lacking = capabilities.known() if mapped else capabilities.bounding_set(), set()
        for kind, wanted in process["capabilities"].items():
            has = [name for name in wanted or () if name in capabilities.NUMBERS and capabilities.mask([name]) & held]
            process["capabilities"][kind] = has
            lacking.update(set(wanted or ()) - set(has))
        if lacking:
            self.warnings.append(f"{', '.join(sorted(lacking))} cannot be granted: we have not got it")
        asked, kept = process["capabilities"].get("ambient") or [], process["capabilities"].get("inheritable") or []
        process["capabilities"]["ambient"] = [name for name in asked if name in kept]
        if alone := [name for name in asked if name not in kept]:
            self.warnings.append(f"{', '.join(alone)} cannot be ambient: process.capabilities.inheritable lacks it")

    # What is there

    def config(self, identifier: str) -> Config:
        """The config that it was created with."""
        place = self.place(identifier)
        try:
            config: Config = json.loads(files.read(f"{place}/config.json"))
        except FileNotFoundError:
            if os.path.isdir(place):
                raise  # it is being created
            raise errors.ContainerNotFound(f"container does not exist: {identifier}") from None
        return config

    def state(self, identifier: str) -> dict[str, Any]:
        """Its state as runtime.md has it. Raises ContainerNotFound."""
        return self.look(identifier)[0]

    def look(self, identifier: str) -> tuple[dict[str, Any], int]:
        """The same, and when its process started, in the kernel's clock ticks; 0 before there is one."""
        place = self.place(identifier)
        try:
            known: dict[str, Any] = json.loads(files.read(f"{place}/state.json"))
        except FileNotFoundError:
            if not os.path.isdir(place):
                raise errors.ContainerNotFound(f"container does not exist: {identifier}") from None
            from . import spec

            return {"ociVersion": spec.VERSION, "id": identifier, "status": "creating", "pid": 0, "bundle": ""}, 0
        started = known.pop("start_time")
        if known["status"] == "creating":
            return known, started
        if not state.alive(known["pid"], started):
            return {**known, "status": "stopped", "pid": 0}, started
        if waits(f"{place}/fifo"):
            return {**known, "status": "created"}, started
        frozen = cgroups.is_frozen(self.config(identifier)["linux"]["cgroupsPath"])
        return {**known, "status": "paused" if frozen else "running"}, started

    def all(self) -> list[dict[str, Any]]:
        """The state of each that is there."""
        found = []
        for name in sorted(os.listdir(self.root)) if os.path.isdir(self.root) else ():
            try:
                found.append(self.state(name))
            except errors.ContainerNotFound:
                pass  # deleted meanwhile
        return found

    def cgroup(self, identifier: str) -> str:
        """The path of its cgroup. Raises ContainerNotFound, and Conflict if it does not run."""
        if self.state(identifier)["status"] not in ("created", "running", "paused"):
            raise errors.Conflict(f"container {identifier} is not running")
        path: str = self.config(identifier)["linux"]["cgroupsPath"]
        return path

    def hold(self, identifier: str) -> int:
        """A pidfd of its process. Raises as `cgroup` does."""
        known, started = self.look(identifier)
        return state.hold(known["pid"], started)

    def update(self, identifier: str, resources: dict[str, Any]) -> None:
        """Other limits, as the spec's linux.resources has them; what is not named stays. Raises as `create` does."""
        from . import spec

        path, config = self.cgroup(identifier), self.config(identifier)
        before = config["linux"]["resources"]
        try:
            wanted = {name: value for name, value in spec.meant(resources).items() if name != "devices"}
            after = {
                name: {**before.get(name, {}), **value} if isinstance(value, dict) else value
                for name, value in wanted.items()
            }
            if config["linux"].get("scope"):
                from ..kernel.cgroups import scope

                plan = list(scope.update(scope.Scope(*config["linux"]["scope"]), before, after))
            else:
                plan = list(cgroups.update(path, before, after))
        except errors.MISFITS as error:
            raise errors.malformed("linux.resources", error) from None
        steps.execute(plan, {})
        config["linux"]["resources"] = {**before, **after}
        files.write(f"{self.place(identifier)}/config.json", json.dumps(config).encode())

    # To its end

    def kill(self, identifier: str, number: int, everyone: bool = False) -> None:
        """Send its process a signal. Raises Conflict if it does not run.

        `everyone`: all others of its cgroup get it, too, and may outlive it. SIGKILL lets go what is held still: on
        cgroup v1 it would reach nobody before.
        """
        known, started = self.look(identifier)
        if known["status"] not in ("created", "running", "paused") and not everyone:
            raise errors.Conflict(f"cannot kill container {identifier}: container not running")
        path = self.config(identifier)["linux"]["cgroupsPath"]
        if self.taken_over(known, path):
            return
        told = cgroups.send(path, number) if everyone else set()
        if known["pid"] not in told:
            self.send(known["pid"], started, number)
        if number == signal.SIGKILL and cgroups.is_frozen(path):
            cgroups.thaw(path)

    def delete(self, identifier: str, force: bool = False) -> list[str]:
        """Remove one that has stopped; with `force`, whatever it is, and whether or not it is there.

        Returns what went wrong with its poststop hooks. Raises ContainerNotFound, Conflict.
        """
        place = self.place(identifier)
        try:
            known, started = self.look(identifier)
        except errors.ContainerNotFound:
            if force:
                return []
            raise
        if known["status"] != "stopped" and not force:
            raise errors.Conflict(f"cannot delete container {identifier} that is not stopped: it is {known['status']}")
        try:
            config = self.config(identifier)
        except FileNotFoundError:  # killed before it was written: nothing else was done
            files.remove_tree(place)
            return []
        self.send(known["pid"], started, signal.SIGKILL)
        self.take_down(place, config, not self.taken_over(known, config["linux"]["cgroupsPath"]))
        return afterwards(config, "poststop", {**known, "status": "stopped", "pid": 0})

    def send(self, pid: int, started: int, number: int) -> None:
        """A signal for its first process, if it lives: where it has no cgroup, nothing else reaches it.

        Without a pid namespace of its own, what it has started lives on. A frozen one ends when its cgroup is thawed.
        """
        if not pid:
            return
        try:
            process = state.hold(pid, started)
        except errors.Conflict:
            return  # it has just ended
        try:
            signal.pidfd_send_signal(process, number)
        except ProcessLookupError:
            pass
        finally:
            os.close(process)

    def taken_over(self, known: dict[str, Any], path: str) -> bool:
        """Whether another container has the cgroup that was this one's until it stopped: what runs there is not ours.

        One that is empty can be taken by whoever names it; this one is left to be deleted.
        """
        if known["status"] != "stopped" or not cgroups.processes(path):
            return False
        for other in self.all():
            try:
                theirs = self.config(other["id"])["linux"]["cgroupsPath"]
            except (FileNotFoundError, errors.ContainerNotFound):
                continue  # it has no cgroup yet, or none any more
            if other["id"] != known["id"] and other["status"] != "stopped" and theirs == path:
                return True
        return False

    def take_down(self, place: str, config: Config, alone: bool = True) -> None:
        """The reverse of `create`, from the config alone, as often as one likes.

        Kills what runs in its cgroup, unless it is not `alone` there.
        """
        linux = config["linux"]
        if alone and linux.get("scope"):
            from ..kernel.cgroups import scope

            steps.execute(scope.remove(scope.Scope(*linux["scope"])), {})
        elif alone:
            steps.execute(cgroups.remove(linux["cgroupsPath"]), {})
        if linux.get("lent"):
            from ..kernel import rootfs

            steps.execute(rootfs.take_back(*linux["lent"]), {})
        files.remove_tree(place)


def features() -> dict[str, Any]:
    """What a config.json may ask for, for a caller who chooses among runtimes (features.md)."""
    from ..kernel import capabilities, idmap, mounts, seccomp
    from . import spec

    return {
        "ociVersionMin": "1.0.0",
        "ociVersionMax": spec.NEWEST,
        "hooks": list(hooks.KINDS),
        "mountOptions": sorted(
            [*mounts.FLAGS, *mounts.PROPAGATION, *mounts.RECURSIVE, *mounts.TRANSLATED, mounts.COPY_UP]
        ),
        "linux": {
            "namespaces": list(spec.NAMESPACES),
            "capabilities": list(capabilities.NAMES),
            "cgroup": {"v1": True, "v2": True, "systemd": True, "systemdUser": False, "rdma": True},
            "seccomp": {
                "enabled": True,
                "actions": list(seccomp.ACTIONS),
                "operators": [f"SCMP_CMP_{name}" for name in seccomp.COMPARISONS],
                "archs": seccomp.ARCHITECTURES[syscalls.MACHINE],
            },
            "apparmor": {"enabled": True},
            "selinux": {"enabled": False},
            "intelRdt": {"enabled": False},
            "mountExtensions": {"idmap": {"enabled": idmap.translates()}},
        },
    }


def note(place: str, described: dict[str, Any], pid: int) -> None:
    """Write a container's state.json, with the process that it is."""
    known = {**described, "pid": pid, "start_time": state.start_time(pid)}
    files.write(f"{place}/state.json", json.dumps(known).encode())


def waits(fifo: str) -> bool:
    """Whether a process still reads the fifo: a `start` that is killed may leave it behind."""
    try:
        os.close(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError as error:
        if error.errno not in (errno.ENXIO, errno.ENOENT):
            raise
        return False
    return True


def abandon(values: dict[str, Any]) -> None:
    """Kill the child that a plan has bound to $pid, if it has come to that, and see it end."""
    try:
        if "pid" in values and os.waitpid(values["pid"], os.WNOHANG) == (0, 0):
            os.kill(values["pid"], signal.SIGKILL)
            os.waitpid(values["pid"], 0)
    except ChildProcessError:
        pass  # it has ended already, and its number may be another's


HOOKS = "the caller's own programs: docker's network is plugged in by one"


def run_hooks(config: Config, kinds: tuple[str, ...], said: dict[str, Any], pid: int) -> None:
    """Run a config's hooks of these kinds, in the host's namespaces. Raises for the first that fails."""
    for kind in kinds:
        hooks.run((config.get("hooks") or {}).get(kind) or [], {**said, "pid": pid})


def afterwards(config: Config, kind: str, said: dict[str, Any]) -> list[str]:
    """Run the hooks that can keep nothing from happening any more. Returns a sentence for each that fails."""
    failed = []
    for hook in (config.get("hooks") or {}).get(kind) or []:
        try:
            hooks.run([hook], said)
        except errors.MiniContainerError as error:
            failed.append(str(error))
    return failed


def hand_over(path: str, master: int) -> None:
    """Send a terminal's master to who listens at the console socket (runc's docs/terminals.md)."""
    import _socket as socket

    from . import channel

    end = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        end.connect(path)
        end.sendmsg([b"/dev/ptmx"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, channel.rights(master))])
    finally:
        end.close()
        os.close(master)
