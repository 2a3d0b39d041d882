"""`exec`: what docker's flags mean for one more process in a container, and the keeper that stays beside it.

    session = begin(containers, "web", ["sh"], {"tty": True, "stdin_open": True})   # another process is the keeper
    session.wait_started(); session.relay(stdin=True)

Like a container's monitor, the keeper outlives its client: a client that is killed leaves the process as it is, and
what it writes from then on is nobody's. A keeper that is killed takes its process with it.
"""

from __future__ import annotations

import errno
import os

from .. import errors, files, steps
from .. import quickjson as json
from ..kernel import capabilities
from ..records import namedtuple
from ..runtime import attach, enter, log, monitor
from . import configure, containers, users

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing: 4 ms of every start
    import _socket as socket
    from typing import Any

    from ..runtime import session

# Every option, by docker-py's names (exec_run), and what holds where it is not given.
DEFAULTS: dict[str, Any] = {
    "environment": {}, "privileged": False, "stdin_open": False, "tty": False, "user": "", "working_dir": "",
    "console_size": (0, 0),
}  # fmt: skip


class Entry(namedtuple("Entry", "record plan stdin tty")):
    """A process planned, for a container that runs."""

    record: containers.Record
    plan: list[steps.Step]
    stdin: bool
    tty: bool


def plan(engine: containers.Containers, name: str, command: list[str], given: dict[str, Any]) -> Entry:
    """Plan `command` for the container of that name; `given` are options of DEFAULTS. Reads facts, changes nothing.

    Raises ContainerNotFound, Conflict where it does not run, NotFound for a user that it does not have.
    """
    options = {**DEFAULTS, **given}
    record = engine.find(name)
    if record["status"] == "paused":
        raise errors.Conflict(f"Container {name} is paused, unpause the container before exec")
    if record["status"] == "restarting":
        raise errors.Conflict(f"Container {record['id']} is restarting, wait until the container is running")
    running = engine.running(record["id"])
    if running is None:
        raise errors.Conflict(f"Container {record['id']} is not running")
    config = json.loads(files.read(f"{engine.path(record['id'])}/config.json"))
    try:
        process = describe(options, command, config, record, running["pid"])
    except PermissionError:
        raise errors.Unsupported(
            f"Container {name} runs in a user namespace that this process has no rights in: exec as the user who made "
            "it, without unshare"
        ) from None
    listed = list(enter.plan(config, process, running["pid"], running["start_time"]))
    return Entry(record, listed, options["stdin_open"], options["tty"])


def describe(
    options: dict[str, Any], command: list[str], config: dict[str, Any], record: containers.Record, pid: int
) -> dict[str, Any]:
    """The spec's `process`: the container's own, but for what was asked. `pid` is its init, in whose root its users are
    looked up."""
    own, defaults = config["process"], record["config"]
    if options["working_dir"] and not options["working_dir"].startswith("/"):
        raise errors.KernelError(errno.EINVAL, "chdir", (options["working_dir"],), "it must be an absolute path")
    user = users.lookup(options["user"] or defaults["User"], [], [f"/proc/{pid}/root"], pid)
    groups = user.groups if options["user"] else own["user"]["additionalGids"]
    given = {"hostname": record["hostname"], "tty": options["tty"], "environment": options["environment"]}
    process = {
        **own,
        "args": command,
        "cwd": options["working_dir"] or own["cwd"],
        "env": configure.environment(given, defaults, user.home),
        "terminal": options["tty"],
        "consoleSize": dict(zip(("height", "width"), options["console_size"], strict=True)),
        "user": {"uid": user.uid, "gid": user.gid, "additionalGids": groups},
    }
    if options["privileged"]:
        everything = capabilities.resolve(privileged=True)
        process["capabilities"] = dict.fromkeys(("bounding", "effective", "permitted"), everything)
    return process


def begin(
    engine: containers.Containers, name: str, command: list[str], given: dict[str, Any], audience: bool = True
) -> session.Session:
    """Plan it and start it, in a keeper of its own; from a process with threads, in a fresh interpreter.

    With `audience` the session gets its output, and gives its input with stdin. Raises what `plan` raises.
    """
    planned = plan(engine, name, command, given)
    if monitor.threaded():
        asked = json.dumps([planned.record["id"], command, given, audience])
        begun = monitor.spawn(__name__, asked, engine.root)
    else:
        begun = monitor.fork(lambda end: keep(planned, end, audience))
    begun.lost = "the keeper was killed, and the kernel ended its process"
    return begun


def main(asked: str, root: str) -> None:
    """A fresh interpreter, which becomes the keeper; the client is at descriptor 3."""
    os.environ["MINICONTAINER_ROOT"] = root
    name, command, given, audience = json.loads(asked)
    try:
        monitor.perform(
            lambda end: keep(plan(containers.Containers(root), name, command, given), end, audience), monitor.CHANNEL
        )
    finally:
        os._exit(0)


def keep(planned: Entry, end: socket.socket, audience: bool) -> None:
    """Be the keeper: start it, tend it, tell how it ended."""
    stage = attach.Stage(log.Writer("", 0, 0))
    stage.once = True
    stage.clients.append(attach.Client(end, takes=audience, gives=planned.stdin and audience))
    stage.open(planned.stdin, planned.tty)
    values: dict[str, Any] = {}
    monitor.start(planned.plan, values, None)
    stage.began(values["pid"], values.get("master"), planned.stdin)
    if not audience:
        stage.introduce(stage.clients[0])
    status = stage.serve()
    assert status is not None
    stage.finish({"exited": monitor.exit_code(status)})
