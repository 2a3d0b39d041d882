"""One container, with docker-py's nouns and verbs.

    container = client.containers.run("busybox", ["sh", "-c", "echo ready; sleep 60"], detach=True)
    for line in container.logs(stream=True, follow=True):
        break
    container.stop(timeout=1)
    container.wait()  # {"StatusCode": 143}, or 137 for one that did not listen
    container.remove()

Whatever concerns a running container is asked of its monitor (runtime/attach.py), who is its parent: so a signal never
meets a stranger that has got the same pid. None of these calls starts a thread, and all may be made from threads.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator

from .. import errors, files, steps
from .. import quickjson as json
from ..kernel import cgroups
from ..records import namedtuple
from ..runtime import channel, monitor, session
from . import containers, events, logs, names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..image import store

SIGKILL = 9  # signal(7)
UPDATABLE = {
    "cpus", "cpu_shares", "cpu_quota", "cpu_period", "cpuset_cpus", "cpuset_mems", "mem_limit", "mem_reservation",
    "memswap_limit", "pids_limit", "restart_policy",
}  # fmt: skip


class ExecResult(namedtuple("ExecResult", "exit_code output")):
    """What `exec_run` returns."""

    exit_code: int | None
    output: Any


class Container:
    """A container that exists. Its attributes are those of the last look; `reload` looks again."""

    def __init__(self, engine: containers.Containers, record: containers.Record) -> None:
        self.engine = engine
        self.record = record

    def __repr__(self) -> str:
        return f"<Container: {self.short_id}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Container) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    @property
    def id(self) -> str:
        """64 hexadecimal digits."""
        return str(self.record["id"])

    @property
    def short_id(self) -> str:
        """The first twelve of them."""
        return self.id[:12]

    @property
    def name(self) -> str:
        """adjective_surname, or as it was asked for."""
        return str(self.record["name"])

    @property
    def labels(self) -> dict[str, str]:
        """Its labels."""
        return dict(self.record["labels"])

    @property
    def image(self) -> store.Image:
        """The image that it was made from. Raises ImageNotFound where that has been removed."""
        return self.engine.images.get(self.record["image_id"])

    @property
    def status(self) -> str:
        """created, running, paused, restarting, exited, dead; as of the last look."""
        return containers.word(self.record)

    @property
    def exit_code(self) -> int | None:
        """How it ended last; None if it has not."""
        code = self.record["exit_code"]
        return None if code is None else int(code)

    @property
    def ports(self) -> dict[str, list[dict[str, str]]]:
        """Its published ports, while it runs: {"80/tcp": [{"HostIp", "HostPort"}]}."""
        result: dict[str, list[dict[str, str]]] = {}
        for port in self.record["ports"] if self.record["status"] in containers.LIVE else ():
            place = {"HostIp": port["address"], "HostPort": str(port["host"])}
            result.setdefault(f"{port['container']}/{port['protocol']}", []).append(place)
        return result

    def reload(self) -> None:
        """Look again. Raises ContainerNotFound if it has gone."""
        self.record = self.engine.find(self.id)

    def settle(self, patience: float = 10.0) -> None:
        """Look again, once a start that is under way has come to its end."""
        until = time.monotonic() + patience
        self.reload()
        while self.record["status"] == "starting" and time.monotonic() < until:
            time.sleep(0.005)
            self.reload()

    def monitor(self) -> session.Session:
        """A session with its monitor. Raises Conflict where it does not run."""
        try:
            return session.connect(self.engine.run_directory(self.id))
        except errors.Conflict:
            raise errors.Conflict(f"container {self.id} is not running") from None

    def logs(
        self,
        stdout: bool = True,
        stderr: bool = True,
        stream: bool = False,
        timestamps: bool = False,
        tail: int | None = None,
        since: str = "",
        until: str = "",
        follow: bool = False,
    ) -> bytes | Iterator[bytes]:
        """What it has written; with `stream`, entry by entry, with `follow` until it ends.

        `since` and `until` are times in RFC 3339, UTC.
        """
        wanted = {name for name, asked in (("stdout", stdout), ("stderr", stderr)) if asked}
        entries = self.entries(tail, since, until, follow)
        lines = (
            (f"{entry['time']} {entry['log']}" if timestamps else entry["log"]).encode()
            for entry in entries
            if entry["stream"] in wanted
        )
        return lines if stream else b"".join(lines)

    def entries(
        self, tail: int | None = None, since: str = "", until: str = "", follow: bool = False
    ) -> Iterator[dict[str, str]]:
        """The same as the log has it: {"log", "stream", "time"}. Raises Unsupported where no log is kept."""
        if self.record["log"]["driver"] == "none":
            raise errors.Unsupported("no log is kept of this container (--log-driver none)")
        return logs.read(self.engine.log_path(self.id), self.monitor if follow else None, tail, since, until)

    def start(self, attach: bool = False, console_size: tuple[int, int] = (0, 0)) -> session.Session | None:
        """Start it, if it does not run: its files are those that it left. Returns once its command runs.

        With `attach`, the session that gets its output, not started yet. Raises Conflict, what `run` raises.
        """
        self.settle()
        if self.record["status"] in ("running", "restarting"):
            return self.attach() if attach else None
        if self.record["status"] == "paused":
            raise errors.Conflict("cannot start a paused container, try unpause instead")
        begun = self.engine.begin(self.id, attach, console_size)
        if attach:
            return begun
        try:
            begun.wait_started()
        finally:
            begun.close()
        return None

    def attach(self, stdin: bool = False) -> session.Session:
        """A session that gets its output from now on, and with `stdin` gives its input. Raises Conflict."""
        self.reload()
        if self.record["status"] == "paused":
            raise errors.Conflict("You cannot attach to a paused container, unpause it first")
        if self.record["status"] not in ("running", "restarting"):
            raise errors.Conflict("You cannot attach to a stopped container, start it first")
        opened = self.monitor()
        opened.ask({"attach": stdin})
        events.write(self.engine.root, "attach", self.record)
        return opened

    def note_detached(self) -> None:
        """Note for who follows `events` that somebody has let go of it without ending it."""
        events.write(self.engine.root, "detach", self.record)

    def kill(self, signal: str | int = "KILL") -> None:
        """Send it a signal. The one that `stop` would send, and SIGKILL, also end a restart policy. Raises Conflict."""
        number = monitor.signal_number(str(signal))
        self.settle()
        with_stop = number in (SIGKILL, self.record["stop_signal"])
        if not self.send(number, with_stop):
            raise errors.Conflict(f"Cannot kill container: {self.name}: container {self.id} is not running")

    def send(self, number: int, stop: bool) -> bool:
        """Have the monitor send a signal; False if nothing runs. One that is to end it thaws it, too."""
        try:
            opened = self.monitor()
        except errors.Conflict:
            return False
        if os.path.exists(f"{self.engine.run_directory(self.id)}/state.json"):  # before its end can be told of
            events.write(self.engine.root, "kill", self.record, signal=str(number))
        try:
            opened.ask({"signal": number, "stop": stop})
            sent = bool(opened.until("signalled")["signalled"])
        except channel.Gone:
            return False
        finally:
            opened.close()
        if stop and os.path.exists(f"{self.engine.run_directory(self.id)}/state.json"):
            self.thaw()
        return sent

    def stop(self, timeout: float | None = None, signal: str = "") -> None:
        """Ask it to end, by SIGTERM, its own stop signal or `signal`; SIGKILL after `timeout` seconds (10).

        Returns when it has ended and all is taken down. A negative timeout waits for ever.
        """
        self.settle()
        if timeout is None:
            timeout = self.record["stop_timeout"] if self.record["stop_timeout"] is not None else 10
        number = monitor.signal_number(signal) if signal else self.record["stop_signal"]
        if self.record["status"] not in containers.LIVE:
            return
        try:
            self.end(number, timeout)
        except (errors.Conflict, channel.Gone):
            pass  # it has ended meanwhile, or its monitor was killed: it does not run
        events.write(self.engine.root, "stop", self.record)

    def end(self, number: int, timeout: float) -> None:
        """Send the signal, and after `timeout` seconds SIGKILL; return when it has ended."""
        opened = self.monitor()
        try:
            self.ask_to_end(opened, number)
            if self.record["status"] == "paused":
                self.thaw()
            try:
                opened.until("exited", patience=timeout if timeout >= 0 else None)
            except TimeoutError:
                self.ask_to_end(opened, SIGKILL)
                opened.until("exited")
        finally:
            opened.close()

    def ask_to_end(self, opened: session.Session, number: int) -> None:
        """Have the monitor send a signal that is to end it for good."""
        events.write(self.engine.root, "kill", self.record, signal=str(number))
        opened.ask({"signal": number, "stop": True})

    def restart(self, timeout: float | None = None, signal: str = "") -> None:
        """`stop`, and `start`."""
        self.stop(timeout, signal)
        self.start()
        events.write(self.engine.root, "restart", self.record)

    def wait(self, timeout: float | None = None) -> dict[str, int]:
        """Wait until it does not run: {"StatusCode": 128+n for a signal}. Raises TimeoutError."""
        self.reload()
        try:
            opened = self.monitor()
        except errors.Conflict:
            self.settle()
            return {"StatusCode": self.record["exit_code"] or 0}
        try:
            message = opened.until("exited", "ended", patience=timeout)
            return {"StatusCode": int(message.get("exited", message.get("ended", 0)))}
        except channel.Gone:
            self.reload()
            return {"StatusCode": self.record["exit_code"] or 0}
        finally:
            opened.close()

    def pause(self) -> None:
        """Hold all its processes still (cgroup freezer). Raises Conflict."""
        self.settle()
        if self.record["status"] == "paused":
            raise errors.Conflict(f"Container {self.id} is already paused")
        if self.record["status"] != "running":
            raise errors.Conflict(f"Container {self.id} is not running")
        cgroups.freeze(self.record["cgroup"])
        self.note_paused(True)
        events.write(self.engine.root, "pause", self.record)

    def unpause(self) -> None:
        """Let them go on. Raises Conflict."""
        self.reload()
        if self.record["status"] != "paused":
            raise errors.Conflict(f"Container {self.id} is not paused")
        self.thaw()
        events.write(self.engine.root, "unpause", self.record)

    def thaw(self) -> None:
        """What is frozen does not even die."""
        cgroups.thaw(self.record["cgroup"])
        self.note_paused(False)

    def note_paused(self, paused: bool) -> None:
        """Note it beside the process, where it is forgotten with the process."""
        path = f"{self.engine.run_directory(self.id)}/state.json"
        try:
            state = channel.parse(files.read(path))
            files.write(path, channel.packet({**state, "paused": paused}))
        except FileNotFoundError:
            pass  # it has ended meanwhile

    def rename(self, name: str) -> None:
        """Call it otherwise. Raises Conflict where that name is taken."""
        if not names.valid(name):
            raise errors.InvalidArgument(f"Invalid container name ({name}): letters, digits and `_.-`, two at least")
        old = self.name
        renamed = {**self.record, "name": name, "drawn": False}
        containers.take_name(self.engine.directory, renamed)
        self.engine.change(self.id, name=name, drawn=False)
        containers.drop_name(self.engine.directory, old, self.id)
        self.record = renamed
        self.engine.follow(renamed)
        events.write(self.engine.root, "rename", renamed, oldName=f"/{old}")

    def update(self, **given: Any) -> None:
        """Other limits (cpus, mem_limit, pids_limit …, as `run` has them), at once, and restart_policy.

        Raises Conflict, InvalidArgument, KernelError where the kernel refuses: then all that is noted is as before.
        """
        from . import configure

        unknown = set(given) - UPDATABLE
        if unknown:
            raise errors.InvalidArgument(f"{min(unknown)!r} cannot be updated: {', '.join(sorted(UPDATABLE))} can")
        self.settle()
        if self.record["status"] == "dead":
            raise errors.Conflict(f"container {self.name} is marked for removal and cannot be updated")
        policy = given.pop("restart_policy", None)
        if policy and self.record["remove"]:
            raise errors.Conflict("restart policy cannot be updated because --rm is set for the container")
        restart = containers.restart_policy(policy or {}, False)
        path = f"{self.engine.path(self.id)}/config.json"
        with files.locked(f"{self.engine.path(self.id)}/record.lock"):
            config = json.loads(files.read(path))
            before = config["linux"].get("resources") or {}
            config["linux"]["resources"] = configure.changed(before, given)
            if self.record["status"] in ("running", "paused"):
                steps.execute(cgroups.update(self.record["cgroup"], before, config["linux"]["resources"]), {})
            files.write(path, json.dumps(config).encode(), sync=True)
        if policy:
            self.engine.change(self.id, restart=restart)
        self.reload()
        events.write(self.engine.root, "update", self.record)

    @property
    def attrs(self) -> dict[str, Any]:
        """All that is known of it, as `docker inspect` shows it."""
        from . import describe

        return describe.container(self.engine, self.record)

    def exec_run(
        self, cmd: str | list[str], stdout: bool = True, stderr: bool = True, stdin: bool = False, tty: bool = False,
        privileged: bool = False, user: str = "", detach: bool = False, stream: bool = False,
        environment: dict[str, str] | None = None, workdir: str = "", demux: bool = False,
    ) -> ExecResult:  # fmt: skip
        """Run a command in it, a list of words or one text: its exit code, and what it wrote.

        With `stream` the output is an iterator, and with `demux` pairs (stdout, stderr) of which one may be None; with
        either `stream` or `detach` the code is None. Raises CommandNotFound, CommandNotExecutable, Conflict.
        """
        import shlex

        from . import entering

        given = {"tty": tty, "privileged": privileged, "user": user, "working_dir": workdir, "stdin_open": stdin}
        words = shlex.split(cmd) if isinstance(cmd, str) else cmd
        begun = entering.begin(
            self.engine, self.id, words, {**given, "environment": environment or {}}, audience=not detach
        )
        try:
            begun.wait_started()
        except BaseException:
            begun.close()
            raise
        if detach:
            begun.close()
            return ExecResult(None, b"")
        wanted = {number for number, asked in ((1, stdout), (2, stderr)) if asked}

        def pieces() -> Iterator[tuple[int, bytes]]:
            try:
                yield from (piece for piece in begun.output() if piece[0] in wanted)
            finally:
                begun.close()

        if stream:
            pairs = ((data, None) if number == 1 else (None, data) for number, data in pieces())
            return ExecResult(None, pairs if demux else (data for _, data in pieces()))
        whole = list(pieces())
        if demux:
            apart = [b"".join(data for which, data in whole if which == number) or None for number in (1, 2)]
            return ExecResult(begun.code, tuple(apart))
        return ExecResult(begun.code, b"".join(data for _, data in whole))

    def diff(self) -> list[dict[str, Any]]:
        """What it has changed over its image: {"Path", "Kind"}, kind 0 for changed, 1 for added, 2 for deleted."""
        from . import committing

        kinds = {"C": 0, "A": 1, "D": 2}
        found = committing.diff(self.engine, self.record)
        return [{"Path": os.fsdecode(change.path), "Kind": kinds[change.kind]} for change in found]

    def get_archive(self, path: str) -> tuple[Iterator[bytes], dict[str, Any]]:
        """A tar stream of what is at `path`, and what that is: {"name", "size", "mode", "mtime"}. Raises NotFound."""
        from . import copying

        self.reload()
        return copying.read(self.engine, self.record, path)

    def put_archive(self, path: str, data: bytes | Iterable[bytes]) -> bool:
        """Extract a tar archive, compressed or not, into the directory at `path`. Raises NotFound, InvalidImage."""
        from . import copying

        self.reload()
        copying.write(self.engine, self.record, path, [data] if isinstance(data, bytes) else data)
        return True

    def export(self) -> Iterator[bytes]:
        """Its files as a tar stream, in chunks; without what is mounted there. Raises Conflict."""
        from ..image import pack, tar
        from . import trees

        self.reload()
        with trees.rootfs(self.engine, self.record) as tree:
            yield from pack.Packer(ids=tree.inside).below(tree.root, b"")
            yield tar.END

    def commit(
        self, repository: str = "", tag: str = "", message: str = "", author: str = "", pause: bool = True,
        changes: str | list[str] = "",
    ) -> store.Image:  # fmt: skip
        """An image of it as it is now, with `changes` (lines of a Dockerfile) in its config; held still meanwhile."""
        from ..image import reference
        from . import committing, images  # isort: skip

        name = f"{repository}:{tag}" if repository and tag else repository
        lines = changes.splitlines() if isinstance(changes, str) else changes
        self.reload()
        hold = pause and self.record["status"] == "running"
        if hold:
            self.pause()
        try:
            image = committing.commit(self.engine, self.record, name, author, message, lines)
        finally:
            if hold:
                self.reload()
                self.unpause()
        called = reference.parse(name).familiar() if name else ""
        if called:
            images.Images(self.engine.root).note("tag", image.id, images.labels_of(image), called)
        events.write(self.engine.root, "commit", self.record, comment=message, imageID=image.id, imageRef=called)
        return image

    def top(self, ps_args: str = "") -> dict[str, list[Any]]:
        """Its processes as ps(1) would list them: {"Titles", "Processes"}. Raises Conflict, InvalidArgument."""
        from . import processes

        self.reload()
        titles, rows = processes.listed(self.engine, self.record, ps_args)
        return {"Titles": titles, "Processes": rows}

    def remove(self, v: bool = False, force: bool = False) -> None:
        """Remove it; with `v` its anonymous volumes, too; with `force` it is killed first. Raises Conflict."""
        if force:
            self.settle()
            until = time.monotonic() + 10
            while self.send(SIGKILL, stop=True) and time.monotonic() < until:
                try:
                    self.wait(timeout=1)
                except (TimeoutError, errors.ContainerNotFound):
                    continue
        try:
            self.engine.remove(self.id, v, killed=force)
        except errors.ContainerNotFound:
            if not self.record["remove"]:  # a --rm is removed by its monitor when it ends
                raise
