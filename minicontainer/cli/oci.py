"""`oci`: an OCI runtime's command line, as runc's callers type it; also the program `minicontainer-runtime`.

podman, docker, containerd, buildah and Slurm call a runtime by these words. What it refuses, it says on standard error
and, where its caller asked so by --log, in a file; the caller reads that text.
"""

from __future__ import annotations

import os
import sys

from .. import __version__, cli, errors, files, host
from .. import quickjson as json
from .. import signals as signal
from ..kernel import cgroups
from ..runtime import lifecycle
from . import Help, UsageError, sentence
from .flags import Flag, parse, size, usage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Verb = tuple[Callable[["lifecycle.Runtime", dict[str, Any], list[str]], int], str, list[Flag]]

FLAGS = [
    Flag("--root", "root", "text", "where the state of its containers lies"),
    Flag("--log", "log", "text", "write what went wrong into this file, too"),
    Flag("--log-format", "log_format", "text", "of that file: text or json"),
    Flag("--debug", "debug", "bool", "(accepted; there is nothing more to say)"),
    Flag("--systemd-cgroup", "systemd", "bool", "systemd makes the cgroup; linux.cgroupsPath is slice:prefix:name"),
    Flag("--version -v", "version", "bool", "which runtime this is, for which specification"),
]
BUNDLE = [
    Flag("-b --bundle", "bundle", "text", "the directory with config.json (default: this one)"),
    Flag("--pid-file", "pid_file", "text", "write its pid there"),
    Flag("--console-socket", "console_socket", "text", "hand its terminal to who listens there"),
    Flag("--preserve-fds", "preserve_fds", "text", "how many descriptors, from 3 on, its command keeps"),
    Flag("--no-new-keyring", "no_keyring", "bool", "it has the session keyring of who creates it"),
    Flag("--no-pivot", "no_pivot", "bool", "refused: a root without pivot_root(2) can be left"),
]


def main(arguments: list[str]) -> int:
    """Do what was typed."""
    told = f"{usage('oci [FLAGS] COMMAND …', FLAGS)}\n\ncommands: {', '.join(VERBS)}"
    try:
        values, words = parse("oci [FLAGS] COMMAND …", FLAGS, arguments, stop=True)
    except Help:
        raise Help(told) from None
    if values["version"]:
        from ..runtime import spec

        print(f"minicontainer-runtime version {__version__}\nspec: {spec.VERSION}")
        return 0
    if not words or words[0] not in VERBS:
        raise UsageError(told)
    if values.get("log_format", "text") not in ("text", "json"):
        raise UsageError(f"--log-format {values['log_format']}: text or json")
    try:
        perform, shape, flags = VERBS[words[0]]
        given, rest = parse(f"oci {words[0]} {shape}", flags, words[1:], stop="…" in shape)
        wanted = shape.split()
        most = 1 << 20 if "…" in shape else len(wanted)
        if not len([word for word in wanted if word[0] not in "[…"]) <= len(rest) <= most:
            raise UsageError(f"oci {words[0]} {shape}: not {len(rest)} words")
        runtime = lifecycle.Runtime(values.get("root") or f"{host.run_root()}/oci", values["systemd"])
        return perform(runtime, given, rest)
    except Help:
        raise
    except (errors.MiniContainerError, OSError) as error:
        if values.get("log"):
            note(values["log"], values.get("log_format", "text"), "error", said(error))
        print(f"minicontainer-runtime: {said(error)}", file=sys.stderr)
        return NOT_EXECUTED if words[0] == "exec" else 1


NOT_EXECUTED = 255  # runc's: 1 may be what the process has ended with


def console() -> None:
    """The entry of the program `minicontainer-runtime`."""
    sys.argv.insert(1, "oci")
    cli.console()


def said(error: Exception) -> str:
    """An error in one line. Engines look for the kernel's own words in lower case, as Go prints them."""
    text = sentence(error)
    if isinstance(error, OSError) and error.strerror:
        text = text.replace(error.strerror, error.strerror.lower())
    return text


def note(path: str, form: str, level: str, text: str) -> None:
    """One more line in the caller's log."""
    from datetime import UTC, datetime

    now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    fields = {"level": level, "msg": text, "time": now}
    line = json.dumps(fields) if form == "json" else f'time="{now}" level={level} msg={json.dumps(text)}'
    with open(path, "a") as file:
        file.write(f"{line}\n")


def create(runtime: lifecycle.Runtime, given: dict[str, Any], words: list[str]) -> int:
    """Make a container; its command waits."""
    make(runtime, given, words[0])
    return 0


def make(runtime: lifecycle.Runtime, given: dict[str, Any], identifier: str, outlives: bool = True) -> int:
    """Make a container from what was typed. Its pid."""
    if given["no_pivot"]:
        raise errors.Unsupported("--no-pivot is not supported: without pivot_root(2) the root can be left")
    kept = descriptors(given)
    pid_file, console = given.get("pid_file", ""), given.get("console_socket", "")
    own_keyring = not given["no_keyring"]
    pid = runtime.create(identifier, given.get("bundle", "."), pid_file, console, outlives, len(kept), own_keyring)
    let_go(kept)
    warn(runtime.warnings)
    return pid


def descriptors(given: dict[str, Any]) -> range:
    """Which descriptors the command keeps; until it has them, no program that we run inherits them."""
    text = given.get("preserve_fds", "0")
    if not text.isdecimal():
        raise UsageError(f"--preserve-fds {text}: how many descriptors, from 3 on")
    kept = range(3, 3 + int(text))
    for descriptor in kept:
        try:
            passed = os.get_inheritable(descriptor)  # one of our own never is
        except OSError:
            passed = False
        if not passed:
            raise errors.InvalidArgument(f"--preserve-fds {text}: descriptor {descriptor} is not open")
    for descriptor in kept:
        os.set_inheritable(descriptor, False)
    return kept


def let_go(kept: range) -> None:
    """Close what the command has now: the end of a pipe is one only when nobody else holds it."""
    for descriptor in kept:
        os.close(descriptor)


def run(runtime: lifecycle.Runtime, given: dict[str, Any], words: list[str]) -> int:
    """create, start, wait, delete; killed, it takes its container with it. Returns the command's exit code."""
    from ..runtime import monitor

    identifier = words[0]
    pid = make(runtime, given, identifier, outlives=given["detach"])
    if given["detach"]:
        warn(runtime.start(identifier))
        return 0
    process = os.pidfd_open(pid)

    def pass_on(number: int, _: object) -> None:
        try:
            signal.pidfd_send_signal(process, number)
        except ProcessLookupError:
            pass  # it has ended, and what is left of it is being taken down

    for number in set(signal.valid_signals()) - {signal.SIGCHLD, signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, pass_on)
    try:
        warn(runtime.start(identifier))
        attend(runtime, pid)
        return monitor.exit_code(os.waitpid(pid, 0)[1])
    finally:
        warn(runtime.delete(identifier, force=True))


def execute(runtime: lifecycle.Runtime, given: dict[str, Any], words: list[str]) -> int:
    """One more process in a container. Returns its exit code; with --detach, at once."""
    from ..runtime import monitor

    identifier, *command = words
    if bool(command) == ("process" in given):
        raise UsageError("oci exec ID COMMAND …, or --process FILE: one of them says what to run")
    if command:
        process = another(runtime.config(identifier)["process"], command, given)
    elif beside := [flag for flag in ONE_MORE if given.get(flag.name)]:
        raise UsageError(f"{beside[0].spellings.split()[-1]}: the process of --process says it itself")
    else:
        process = document("--process", given["process"])
    pid_file, console = given.get("pid_file", ""), given.get("console_socket", "")
    kept = descriptors(given)
    pid = runtime.enter(identifier, process, pid_file, console, given["detach"], len(kept))
    let_go(kept)
    warn(runtime.warnings)
    if given["detach"]:
        return 0
    attend(runtime, pid)
    return monitor.exit_code(os.waitpid(pid, 0)[1])


def document(flag: str, path: str) -> dict[str, Any]:
    """The JSON object in a file, or from standard input (-). Raises InvalidArgument for anything else, OSError."""
    content = sys.stdin.buffer.read() if path == "-" else files.read(path)
    try:
        found = json.loads(content)
    except ValueError as error:
        raise errors.InvalidArgument(f"{flag} {path} is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise errors.InvalidArgument(f"{flag} {path}: a JSON object is asked for, {{…}}")
    return found


def another(own: dict[str, Any], command: list[str], given: dict[str, Any]) -> dict[str, Any]:
    """The container's own process, with another command, and what the flags of ONE_MORE say.

    Capabilities are added to three sets: an inheritable one would go to whatever file asks for it (CVE-2022-29162).
    """
    process = {**own, "args": command, "terminal": given["tty"], "cwd": given.get("cwd", own["cwd"])}
    process["env"] = [*own["env"], *given["env"]]
    if "user" in given:
        uid, separator, gid = given["user"].partition(":")
        if not uid.isdecimal() or bool(separator) != gid.isdecimal():
            raise UsageError(f"--user {given['user']}: UID or UID:GID, as numbers")
        process["user"] = {**own["user"], "uid": int(uid), **({"gid": int(gid)} if gid else {})}
    if given["groups"]:
        if not all(group.isdecimal() for group in given["groups"]):
            raise UsageError(f"--additional-gids {' '.join(given['groups'])}: numbers")
        groups = [*(process["user"].get("additionalGids") or []), *map(int, given["groups"])]
        process["user"] = {**process["user"], "additionalGids": groups}
    if given["caps"]:
        sets = own["capabilities"]
        more = {kind: [*(sets.get(kind) or []), *given["caps"]] for kind in ("bounding", "effective", "permitted")}
        process["capabilities"] = {**sets, **more}
    if given["no_new_privs"]:
        process["noNewPrivileges"] = True
    if "apparmor" in given:
        process["apparmorProfile"] = given["apparmor"]
    if "label" in given:
        process["selinuxLabel"] = given["label"]
    return process


def attend(runtime: lifecycle.Runtime, pid: int) -> None:
    """Where its terminal is ours to hold, stay beside it until it has ended."""
    if runtime.terminal >= 0:
        from . import relay

        relay.until_ended(runtime.terminal, pid)


def ps(runtime: lifecycle.Runtime, given: dict[str, Any], words: list[str]) -> int:
    """Its processes: their pids, or ps's table of them."""
    identifier, *options = words
    form = given.get("format", "table")
    if form not in ("table", "json"):
        raise UsageError(f"--format {form}: table or json")
    pids = cgroups.processes(runtime.cgroup(identifier))
    if form == "json":
        print(json.dumps(pids))
        return 0
    from ..engine import processes
    from . import table

    titles, rows = processes.table(pids, " ".join(options))
    print(table.wide([titles, *rows]))
    return 0


def pause(runtime: lifecycle.Runtime, given: dict[str, Any], words: list[str]) -> int:
    """Hold it still."""
    cgroups.freeze(runtime.cgroup(words[0]))
    return 0


def resume(runtime: lifecycle.Runtime, given: dict[str, Any], words: list[str]) -> int:
    """Let it go on."""
    cgroups.thaw(runtime.cgroup(words[0]))
    return 0


def update(runtime: lifecycle.Runtime, given: dict[str, Any], words: list[str]) -> int:
    """Other limits: the file's, or, where there is none, the flags'."""
    if "resources" in given:
        resources = document("--resources", given["resources"])
    else:
        resources = {}
        for flag in LIMITS:
            if flag.name in given:
                part, name = flag.name.split(".")
                resources.setdefault(part, {})[name] = limit(flag, given[flag.name])
        if not resources:
            known = ", ".join(flag.spellings for flag in LIMITS)
            raise UsageError(f"oci update ID: --resources FILE, or - for standard input; or some of {known}")
    runtime.update(words[0], resources)
    return 0


def limit(flag: Flag, text: str) -> int | str:
    """A limit as it was typed. Raises UsageError."""
    if flag.name in ("cpu.cpus", "cpu.mems"):
        return text
    if flag.name.startswith("memory.") and text != "-1":
        return size(flag.spellings, text)
    try:
        return int(text)
    except ValueError:
        raise UsageError(f"{flag.spellings} {text}: {flag.help}") from None


def start(runtime: lifecycle.Runtime, given: dict[str, Any], words: list[str]) -> int:
    """Let its command begin."""
    warn(runtime.start(words[0]))
    return 0


def state(runtime: lifecycle.Runtime, given: dict[str, Any], words: list[str]) -> int:
    """Its state, as JSON."""
    print(json.dumps(runtime.state(words[0]), indent=2))
    return 0


def listing(runtime: lifecycle.Runtime, given: dict[str, Any], words: list[str]) -> int:
    """All that are there."""
    found = runtime.all()
    form = given.get("format", "table")
    if form == "json":
        print(json.dumps(found))
    elif form == "table" and not given["quiet"]:
        from . import table

        rows = [[one["id"], str(one["pid"]), one["status"], one["bundle"]] for one in found]
        print(table.show(["ID", "PID", "STATUS", "BUNDLE"], rows))
    elif given["quiet"]:
        print("".join(f"{one['id']}\n" for one in found), end="")
    else:
        raise UsageError(f"--format {form}: table or json")
    return 0


def kill(runtime: lifecycle.Runtime, given: dict[str, Any], words: list[str]) -> int:
    """Send it a signal, by number or name; TERM, if none is said."""
    from ..runtime import monitor

    runtime.kill(words[0], monitor.signal_number(words[1] if len(words) > 1 else "TERM"), given["all"])
    return 0


def delete(runtime: lifecycle.Runtime, given: dict[str, Any], words: list[str]) -> int:
    """Remove it."""
    warn(runtime.delete(words[0], given["force"]))
    return 0


def example(runtime: lifecycle.Runtime, given: dict[str, Any], words: list[str]) -> int:
    """A config.json to begin with."""
    from ..runtime import spec

    path = os.path.join(given.get("bundle", "."), "config.json")
    config = spec.rootless(os.geteuid(), os.getegid()) if given["rootless"] else spec.default()
    with open(path, "x") as file:
        file.write(json.dumps(config, indent=2))
    return 0


def events(runtime: lifecycle.Runtime, given: dict[str, Any], words: list[str]) -> int:
    """What it uses, every few seconds, and when its memory did not suffice: as JSON, a line each, until it ends."""
    from ..kernel.cgroups import figures
    from . import moments

    try:
        interval = moments.duration(given.get("interval", "5s"))
    except ValueError:
        raise UsageError(f"--interval {given['interval']}: 5s, 500ms, 1m …") from None
    if interval <= 0:
        raise UsageError(f"--interval {given['interval']}: more than nothing")
    path, process = runtime.cgroup(words[0]), runtime.hold(words[0])
    if not given["stats"]:
        memory = figures.OutOfMemory(path, process)
        while (happened := memory.wait(interval)) != "end":
            event = {"type": "oom"} if happened else {"type": "stats", "data": figures.figures(path)}
            print(json.dumps({"id": words[0], **event}), flush=True)
        return 0
    print(json.dumps({"type": "stats", "id": words[0], "data": figures.figures(path)}))
    return 0


def features(runtime: lifecycle.Runtime, given: dict[str, Any], words: list[str]) -> int:
    """What a config.json may ask for, as JSON."""
    print(json.dumps(lifecycle.features(), indent=2))
    return 0


def warn(failed: list[str]) -> None:
    """Say what did not go well and does not matter."""
    for text in failed:
        print(f"minicontainer-runtime: warning: {text}", file=sys.stderr)


# What `exec` may say of its process where no --process says it.
ONE_MORE = [
    Flag("--cwd", "cwd", "text", "its working directory"),
    Flag("-e --env", "env", "list", "NAME=VALUE, one more"),
    Flag("-u --user", "user", "text", "UID or UID:GID, as numbers"),
    Flag("-g --additional-gids", "groups", "list", "one more group, as a number"),
    Flag("-c --cap", "caps", "list", "one more capability"),
    Flag("--no-new-privs", "no_new_privs", "bool", "no set-id program gives it more"),
    Flag("--apparmor", "apparmor", "text", "the AppArmor profile that it is under"),
    Flag("--process-label", "label", "text", "refused: SELinux's"),
]
# What `update` may say one by one: the names are linux.resources' own.
LIMITS = [
    Flag("--blkio-weight", "blockIO.weight", "text", "10 to 1000"),
    Flag("--cpu-period", "cpu.period", "text", "microseconds"),
    Flag("--cpu-quota", "cpu.quota", "text", "microseconds of each period; -1 is no limit"),
    Flag("--cpu-burst", "cpu.burst", "text", "microseconds"),
    Flag("--cpu-share", "cpu.shares", "text", "a number, beside 1024"),
    Flag("--cpu-rt-period", "cpu.realtimePeriod", "text", "microseconds"),
    Flag("--cpu-rt-runtime", "cpu.realtimeRuntime", "text", "microseconds"),
    Flag("--cpu-idle", "cpu.idle", "text", "0 or 1"),
    Flag("--cpuset-cpus", "cpu.cpus", "text", "0-2,7"),
    Flag("--cpuset-mems", "cpu.mems", "text", "0-1"),
    Flag("--memory", "memory.limit", "text", "64m, or bytes; -1 is no limit"),
    Flag("--memory-reservation", "memory.reservation", "text", "the same"),
    Flag("--memory-swap", "memory.swap", "text", "the same, of memory and swap together"),
    Flag("--pids-limit", "pids.limit", "text", "how many; -1 is no limit"),
]

VERBS: dict[str, Verb] = {
    "create": (create, "ID", BUNDLE),
    "start": (start, "ID", []),
    "run": (run, "ID", [*BUNDLE, Flag("-d --detach", "detach", "bool", "leave it alone once it runs")]),
    "state": (state, "ID", []),
    "list": (
        listing, "", [
            Flag("-f --format", "format", "text", "table or json"), Flag("-q --quiet", "quiet", "bool", "ids only"),
        ],
    ),
    "kill": (kill, "ID [SIGNAL]", [Flag("-a --all", "all", "bool", "all its processes")]),
    "delete": (delete, "ID", [Flag("-f --force", "force", "bool", "kill it first; no error if it is not there")]),
    "exec": (
        execute, "ID [COMMAND …]", [
            Flag("-p --process", "process", "text", "what to run: the spec's process, as JSON in this file"),
            Flag("-d --detach", "detach", "bool", "leave it alone once it runs"),
            Flag("-t --tty", "tty", "bool", "a terminal of its own"),
            *ONE_MORE,
            *BUNDLE[1:4],
        ],
    ),
    "ps": (ps, "ID [OPTIONS …]", [Flag("-f --format", "format", "text", "table, by ps's OPTIONS, or json")]),
    "pause": (pause, "ID", []),
    "resume": (resume, "ID", []),
    "update": (
        update, "ID", [Flag("-r --resources", "resources", "text", "the spec's linux.resources: FILE or -"), *LIMITS],
    ),
    "events": (
        events, "ID", [
            Flag("--stats", "stats", "bool", "what it uses, once"),
            Flag("--interval", "interval", "text", "how often to say it: 5s"),
        ],
    ),
    "features": (features, "", []),
    "spec": (
        example, "", [
            Flag("-b --bundle", "bundle", "text", "the directory to write config.json into"),
            Flag("--rootless", "rootless", "bool", "for a container of this very user, in a user namespace"),
        ],
    ),
}  # fmt: skip
