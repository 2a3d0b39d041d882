"""`run`: start a container from an image and wait for its command, whose exit code becomes ours."""

from __future__ import annotations

import os
import sys

from .. import errors, host, netlink
from ..engine import client, configure, networks, volumes
from ..network import foreign, nat, spoofing
from . import UsageError, attached
from .flags import Flag, environment, number, parse, size

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing: 4 ms of every start
    from typing import Any

FLAGS = [
    Flag("-d --detach", "detach", "bool", "leave it alone once it runs, and print its id"),
    Flag("--rm", "remove", "bool", "remove the container when it has ended"),
    Flag("-a --attach", "attach", "list", "stdin, stdout or stderr: with this alone, not with what -i says"),
    Flag("-i --interactive", "stdin_open", "bool", "keep standard input open"),
    Flag("-t --tty", "tty", "bool", "give it a terminal"),
    Flag("--name", "name", "text", "call it so"),
    Flag("-h --hostname", "hostname", "text", "its host name (default: the first 12 digits of its id)"),
    Flag("--network --net", "networks", "list", "bridge (default), none, host, container:NAME; or a network's name"),
    Flag("--network-alias --net-alias", "aliases", "list", "one more name of it in its network"),
    Flag("--ip", "ip", "text", "its address there (default: one that is free)"),
    Flag("--ip6", "ip6", "text", "its address of IPv6 there, where the network has them"),
    Flag("--mac-address", "mac", "text", "its hardware address there"),
    Flag("-p --publish", "ports", "list", "[ip:]host:container[/udp]: reach a port of it from outside"),
    Flag("-P --publish-all", "publish_all_ports", "bool", "publish every exposed port, each on one that is free"),
    Flag("--expose", "expose", "list", "80, 53/udp or 8000-8010: -P publishes it, and lists show it"),
    Flag("--firewall", "firewall", "text", "docker-user: let docker's firewall pass it; ignore: whoever drops it"),
    Flag("--add-host", "extra_hosts", "list", "name:address, or name:host-gateway: a line more in its /etc/hosts"),
    Flag("--dns", "dns", "list", "whom to ask for names that no container has (default: the host's servers)"),
    Flag("--dns-search", "dns_search", "list", "a domain to look for short names in; `.`: none"),
    Flag("--dns-option --dns-opt", "dns_opt", "list", "an option of resolv.conf(5)"),
    Flag("-v --volume", "volumes", "list", "[source:]target[:ro]: bind a path of the host, or a volume by name"),
    Flag("--mount", "mounts", "list", "type=bind|volume|tmpfs,source=…,target=…[,readonly]"),
    Flag("--tmpfs", "tmpfs", "list", "target[:options]: a directory in memory"),
    Flag("-e --env", "env", "list", "NAME=VALUE, or NAME to pass on our own"),
    Flag("--env-file", "env_file", "list", "a file of such lines"),
    Flag("-w --workdir", "working_dir", "text", "where its command starts"),
    Flag("-u --user", "user", "text", "user[:group], by name or number, as the image knows them"),
    Flag("--group-add", "group_add", "list", "one more group"),
    Flag("--entrypoint", "entrypoint", "text", "run this in place of the image's entrypoint"),
    Flag("--restart", "restart", "text", "no, on-failure[:N], always, unless-stopped: start it again when it ends"),
    Flag("--stop-signal", "stop_signal", "text", "what `stop` sends it first (TERM)"),
    Flag("--stop-timeout", "stop_timeout", "text", "seconds that `stop` waits before it kills (10)"),
    Flag("--log-driver", "log_driver", "text", "json-file, or none to keep no log"),
    Flag("--log-opt", "log_opts", "list", "max-size=10m, max-file=3: how much of its log is kept"),
    Flag("--detach-keys", "detach_keys", "text", "what to type to leave it alone (ctrl-p,ctrl-q)"),
    Flag("--sig-proxy", "sig_proxy", "bool", "pass signals on to it (=false: do not)"),
    Flag("--health-cmd", "health_test", "text", "look after its health by this command: exit code 0 is well"),
    Flag("--health-interval", "health_interval", "text", "time between two looks (30s)"),
    Flag("--health-timeout", "health_timeout", "text", "a look that takes longer has failed (30s)"),
    Flag("--health-retries", "health_retries", "text", "so many that failed in a row: unhealthy (3)"),
    Flag("--health-start-period", "health_start_period", "text", "what fails so early does not count (0s)"),
    Flag("--health-start-interval", "health_start_interval", "text", "time between two looks meanwhile (5s)"),
    Flag("--no-healthcheck", "no_healthcheck", "bool", "whatever the image says of it"),
    Flag("--init", "init", "bool", "a small init as PID 1: it forwards signals and reaps"),
    Flag("--read-only", "read_only", "bool", "it cannot change its own files"),
    Flag("--cpus", "cpus", "text", "how many CPUs it may use at most: 0.5"),
    Flag("-c --cpu-shares", "cpu_shares", "text", "its weight where CPUs are scarce (1024 is usual)"),
    Flag("--cpu-quota", "cpu_quota", "text", "microseconds of CPU per period"),
    Flag("--cpu-period", "cpu_period", "text", "the period, in microseconds"),
    Flag("--cpuset-cpus", "cpuset_cpus", "text", "which CPUs: 0-2,4"),
    Flag("--cpuset-mems", "cpuset_mems", "text", "which memory nodes"),
    Flag("-m --memory", "mem_limit", "text", "memory at most: 64m"),
    Flag("--memory-reservation", "mem_reservation", "text", "memory to leave it when memory is scarce"),
    Flag("--memory-swap", "memswap_limit", "text", "memory and swap together"),
    Flag("--pids-limit", "pids_limit", "text", "processes at most"),
    Flag("--ulimit", "ulimits", "list", "name=soft[:hard], as setrlimit(2) has them"),
    Flag("--shm-size", "shm_size", "text", "size of /dev/shm (64m)"),
    Flag("--sysctl", "sysctls", "list", "name=value: a kernel parameter of its namespaces"),
    Flag("--device", "devices", "list", "/dev/x[:/dev/y][:rwm]"),
    Flag("--oom-score-adj", "oom_score_adj", "text", "-1000 to 1000: whom the kernel kills first"),
    Flag("--pid", "pid_mode", "text", "host or container:NAME"),
    Flag("--ipc", "ipc_mode", "text", "host, private or container:NAME"),
    Flag("--uts", "uts_mode", "text", "host"),
    Flag("--userns", "userns_mode", "text", "auto[:size=N]: ids of its own, root inside is nobody outside; host"),
    Flag("--label -l", "labels", "list", "NAME=VALUE"),
    Flag("--cidfile", "cidfile", "text", "write its id to this file"),
    Flag("--cap-add", "cap_add", "list", "one capability more, or ALL"),
    Flag("--cap-drop", "cap_drop", "list", "one capability less, or ALL"),
    Flag(
        "--security-opt",
        "security_opt",
        "list",
        "no-new-privileges, seccomp=unconfined|FILE, apparmor=unconfined|PROFILE",
    ),
    Flag("--privileged", "privileged", "bool", "hold nothing back: every capability and device of the host"),
    Flag("--pull", "pull", "text", "fetch the image from its registry: missing (if it is not here), always, never"),
    Flag("-q --quiet", "quiet", "bool", "say nothing about that"),
    Flag("--explain", "explain", "optional", "print each step, its arguments, duration and why; =json, =sh only plan"),
    Flag(
        "--lab", "labs", "list", "TOPIC=lab.py, all=DIRECTORY: with your own solution of a lab in the package's place"
    ),
    Flag(
        "--plot", "plot", "text", "with --explain: draw its steps as a timeline into this file (.png .svg .pdf .json)"
    ),
]

# What the command line does with these is its own business.
OURS = ("attach", "detach", "detach_keys", "sig_proxy", "log_driver", "log_opts", "restart")

STREAMS = {"stdin": 0, "stdout": 1, "stderr": 2}

SIZES = {
    "mem_limit": "--memory", "mem_reservation": "--memory-reservation", "memswap_limit": "--memory-swap",
}  # fmt: skip


def main(arguments: list[str]) -> int:
    """docker-run(1)."""
    values, rest = parse("run [FLAGS] IMAGE [COMMAND …]", FLAGS, ["--sig-proxy", *arguments], stop=True)
    if not rest:
        raise UsageError('"minicontainer run" needs an image; `minicontainer images` lists those that are here')
    explain = values.pop("explain", None)
    if explain not in (None, "", "text", "json", "sh"):
        raise UsageError(f"--explain={explain}: json or sh")
    plot = values.pop("plot", None)
    if plot is not None and explain not in ("", "text"):
        raise UsageError("--plot draws the steps that --explain tells of: give both")
    labs = values.pop("labs")
    if values["attach"] and values["detach"]:
        raise UsageError("conflicting options: cannot specify both --attach and --detach")
    policy = values.pop("pull", "never" if explain in ("json", "sh") else "")
    quiet = values.pop("quiet")
    options = engine_options(values)
    if labs:
        from ..teach.lab import swap

        swap.install(labs)
    containers = client.Client().containers
    cidfile = values.get("cidfile")
    if values["tty"] and values["stdin_open"] and not values["detach"] and not os.isatty(0):
        raise errors.InvalidArgument("the input device is not a TTY: leave out -t, or run in a terminal")
    if values["tty"] and os.isatty(0):
        options["console_size"] = os.get_terminal_size(0)[::-1]
    dry = explain in ("json", "sh")
    if explain == "sh" and configure.has_ids(options):
        raise errors.Unsupported("--explain=sh: a script of a container with --userns auto is not supported yet")
    planned = plan(
        containers, policy, quiet, rest[0], explain=explain is not None, dry=dry, command=rest[1:], **options
    )
    if explain in ("json", "sh"):
        from ..teach import explain as explaining

        print(explaining.render(explain, planned), end="")
        return 0
    for warning in warnings(options):
        print(f"minicontainer: warning: {warning}", file=sys.stderr)
    if cidfile:
        note_id(cidfile, planned.record["id"])
    try:
        return begin(containers, planned, values, explain is not None, plot)
    except errors.MiniContainerError:
        if cidfile and not os.path.exists(containers.path(planned.record["id"])):
            os.unlink(cidfile)
        raise


def plan(containers: Any, policy: str, quiet: bool, image: str, **options: Any) -> Any:
    """Plan a container; an image that is not here is fetched first, as --pull (or registries.json) says."""
    if policy not in ("", "missing", "always", "never"):
        raise UsageError(f"invalid pull option: {policy!r}: must be one of 'always', 'missing' or 'never'")
    if policy == "always":
        from . import pull

        pull.fetch(image, quiet)
    try:
        return containers.plan(image, **options)
    except errors.ImageNotFound:
        if policy in ("always", "never"):
            raise
        from . import pull

        if not pull.missing(image, policy, quiet):
            raise
    return containers.plan(image, **options)


def begin(containers: Any, planned: Any, values: dict[str, Any], explain: bool, plot: str | None) -> int:
    """Start it; with -d, print its id, else stay attached to its end."""
    report = recorder = None
    if explain:
        from ..teach import explain as explaining

        teller = explaining.Reporter(planned, sys.stderr)
        report = teller.step
        if plot is not None:
            from ..teach import record

            recorder = record.Recorder(planned, plot, teller.step)
            report = recorder.step
    sys.stdout.flush()
    try:
        with attached.Signals(values["sig_proxy"]) as signals:
            session = containers.perform(planned, explain, audience=not values["detach"])
            try:
                session.wait_started(report)
            except errors.MiniContainerError as error:
                if explain:
                    teller.flush()  # as far as it came
                there = os.path.exists(containers.path(planned.record["id"]))  # Created
                if values["detach"] and (there or isinstance(error, errors.KernelError)):  # or was, with --rm
                    print(planned.record["id"])
                raise
            if values["detach"]:
                print(planned.record["id"])
                return 0
            keys = attached.keys(values.get("detach_keys"))
            streams = {STREAMS[stream.lower()] for stream in values["attach"]} or {0, 1, 2}
            session.shown = streams & {1, 2}
            stdin = planned.options["stdin_open"] and 0 in streams
            return attached.stay(
                session, stdin, signals, keys, report, left=lambda: containers.note("detach", planned.record)
            )
    finally:
        if recorder:
            recorder.draw()


def engine_options(values: dict[str, Any]) -> dict[str, Any]:
    """The flags' texts as the engine's options."""
    options = dict(values)
    attach = streams(values)
    endpoints(options)
    for name in ("volumes", "tmpfs", "env", "env_file", "cidfile", *OURS):
        options.pop(name, None)
    options["attach"] = attach
    options["healthcheck"] = healthcheck(options)
    options["mounts"] = (
        [volumes.parse_volume(text) for text in values["volumes"]]
        + [volumes.parse_mount(text) for text in values["mounts"]]
        + [volumes.parse_tmpfs(text) for text in values["tmpfs"]]
    )
    targets = [os.path.normpath(mount.target) for mount in options["mounts"]]
    for target in targets:
        if targets.count(target) > 1:
            raise UsageError(f"duplicate mount point: {target}")
    options["environment"] = environment(values["env"], values["env_file"])
    options["labels"] = dict(pair("--label", text, empty=True) for text in values["labels"])
    options["sysctls"] = dict(pair("--sysctl", text) for text in values["sysctls"])
    options["ulimits"] = dict(ulimit(text) for text in values["ulimits"])
    options["ports"] = nat.parse_ports(values["ports"])
    options["expose"] = nat.parse_exposed(values["expose"])
    opts = dict(pair("--log-opt", text) for text in values["log_opts"])
    options["log_config"] = {"type": values.get("log_driver", ""), "config": opts}
    options["restart_policy"] = restart_policy(values.get("restart", ""))
    limits(options)
    for name in ("oom_score_adj", "stop_timeout"):
        if name in options:
            options[name] = number(f"--{name.replace('_', '-')}", options[name])
    if "shm_size" in options:
        options["shm_size"] = size("--shm-size", options["shm_size"])
    if options.get("memswap_limit", 0) > 0 and not options.get("mem_limit"):
        raise UsageError("--memory-swap counts memory and swap together: set --memory, too")
    if not -1000 <= options.get("oom_score_adj", 0) <= 1000:
        raise UsageError(f"--oom-score-adj {options['oom_score_adj']}: the range is -1000 to 1000")
    return options


def streams(values: dict[str, Any]) -> list[int]:
    """What the command is attached to, as `inspect` tells it: what -a names, or output; and input with -i."""
    for stream in values["attach"]:
        if stream.lower() not in STREAMS:
            raise UsageError(f"invalid argument {stream!r} for --attach: valid streams are STDIN, STDOUT and STDERR")
    if values.get("detach"):
        return []
    named = {STREAMS[stream.lower()] for stream in values["attach"]} or {1, 2}
    return sorted(named | ({0} if values["stdin_open"] else set()))


def endpoints(options: dict[str, Any]) -> None:
    """`--network` and what goes with it, which is asked for in the first one: network_mode and networks."""
    given = [{"default": "bridge"}.get(name, name) for name in options.pop("networks")]
    asked = {name: options.pop(name, "") for name in ("ip", "ip6", "mac")}
    asked["aliases"] = options.pop("aliases")
    options["network_mode"] = first = given[0] if given else "bridge"
    for name in given[1:]:
        if not networks.own(name) or not networks.own(first):
            raise UsageError(f"conflicting options: --network {first} and --network {name} cannot go together")
    wished: dict[str, dict[str, Any]] = {name: {} for name in given if networks.own(name)}
    if any(asked.values()):
        wished[first] = asked
    options["networks"] = wished


def healthcheck(options: dict[str, Any]) -> dict[str, Any]:
    """What the --health flags, which are taken out of the options, say: docker-py's healthcheck."""
    found = {name[7:]: options.pop(name) for name in list(options) if name.startswith("health_")}
    if options.pop("no_healthcheck"):
        if found:
            raise UsageError("--no-healthcheck conflicts with --health-* options")
        return {"test": ["NONE"]}
    result: dict[str, Any] = {}
    for name, text in found.items():
        flag = f"--health-{name.replace('_', '-')}"
        if name == "test":
            result[name] = ["CMD-SHELL", text] if text.strip() else []
            continue
        result[name] = number(flag, text) if name == "retries" else nanoseconds(flag, text)
        if result[name] < 0:
            raise UsageError(f"{flag} cannot be negative")
    return result


def nanoseconds(flag: str, text: str) -> int:
    """`1m30s`, `500ms`: nothing but 0 goes without a unit."""
    from . import moments

    try:
        seconds = 0.0 if text == "0" else moments.duration(text.removeprefix("-"))
    except ValueError:
        raise UsageError(f"invalid argument {text!r} for {flag}: a time like 30s, 1m30s or 500ms") from None
    return round(-seconds * 1e9 if text.startswith("-") else seconds * 1e9)


def restart_policy(text: str) -> dict[str, Any]:
    """`on-failure:5` as docker-py's restart_policy."""
    name, _, most = text.partition(":")
    return {"Name": name, "MaximumRetryCount": number("--restart", most) if most else 0}


def limits(options: dict[str, Any]) -> dict[str, Any]:
    """The texts of the flags about processors, memory and processes become numbers, where they are there at all."""
    for name, flag in SIZES.items():
        if name in options:
            unlimited = name == "memswap_limit" and options[name] == "-1"
            options[name] = -1 if unlimited else size(flag, options[name])
    for name in ("cpu_shares", "cpu_quota", "cpu_period", "pids_limit"):
        if name in options:
            options[name] = number(f"--{name.replace('_', '-')}", options[name])
    if "cpus" in options:
        options["cpus"] = number("--cpus", options["cpus"], float)
        have = os.cpu_count() or 1
        if options["cpus"] and not 0.01 <= options["cpus"] <= have:
            raise errors.InvalidArgument(
                f"range of CPUs is from 0.01 to {have}.00, as this machine has {have}: --cpus {options['cpus']}"
            )
        if "cpu_quota" in options or "cpu_period" in options:
            raise UsageError("--cpus and --cpu-quota or --cpu-period say the same thing twice: use one of them")
    if 0 < options.get("mem_limit", 0) < 6 * 2**20:
        raise errors.InvalidArgument("minimum memory limit allowed is 6m, for a process to start at all")
    if 0 < options.get("memswap_limit", 0) < options.get("mem_limit", 0):
        raise errors.InvalidArgument("--memory-swap counts memory and swap together: it must be at least --memory")
    if 0 < options.get("cpu_shares", 0) < 2:
        raise errors.InvalidArgument("the minimum of --cpu-shares is 2")
    return options


def pair(flag: str, text: str, empty: bool = False) -> tuple[str, str]:
    """NAME=VALUE; with `empty`, a bare NAME too."""
    name, given, value = text.partition("=")
    if not name or not (given or empty):
        raise UsageError(f"invalid argument {text!r} for {flag}: write NAME=VALUE")
    return name, value


def ulimit(text: str) -> tuple[str, tuple[int, int]]:
    """`nofile=1024:2048`; -1 or `unlimited` is no limit."""
    name, value = pair("--ulimit", text)
    import resource

    if not hasattr(resource, f"RLIMIT_{name.upper()}"):
        raise UsageError(f"invalid ulimit type: {name}; getrlimit(2) lists them")
    soft, _, hard = value.partition(":")
    numbers = [-1 if part == "unlimited" else number("--ulimit", part) for part in (soft, hard or soft)]
    if numbers[1] != -1 and not 0 <= numbers[0] <= numbers[1]:
        raise UsageError(f"ulimit {text}: the soft limit must be at most the hard one")
    return name.lower(), (numbers[0], numbers[1])


def warnings(options: dict[str, Any]) -> list[str]:
    """What will not work as asked for, though the container will start: a foreign firewall in the way; a kernel."""
    mode = options["network_mode"]
    if not networks.own(mode):
        return []
    network = networks.get(host.root(), mode)
    if network.driver != "bridge":
        return []
    said = [] if netlink.link(network.device) else [each for each in [spoofing.lacking()] if each]  # once, at its birth
    if options.get("firewall") == "ignore":
        return said
    found = [
        drop
        for family in foreign.families(network)
        if not foreign.outside(options["ports"], family)  # else there is none: it would have been refused
        for drop in foreign.drops(network.device, family)
    ]
    return said + [str(drop) for drop in found if options.get("firewall") != "docker-user" or not drop.passes_user]


def note_id(path: str, identifier: str) -> None:
    """Write the file of --cidfile, before anything else is done; one that exists is somebody else's."""
    try:
        with open(path, "x") as file:
            file.write(identifier)
    except FileExistsError:
        raise UsageError(f"the file of --cidfile exists: {path}; remove it, or name another") from None
    except OSError as error:
        raise UsageError(f"--cidfile {path}: {error.strerror}") from None
