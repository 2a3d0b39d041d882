"""What `containers.run` and `create` take, as docker-py spells it; `understood` makes configure.py's options of it.

The command line has a spelling of its own (cli/run.py) and never comes here, nor does a start import this.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping

from .. import errors
from ..network import nat
from . import configure, volumes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypedDict

    Pairs = Mapping[str, str] | list[str]  # {"A": "1"} or ["A=1"]
    Size = int | str  # bytes, or "64m"
    Place = int | None | tuple[str, int] | list[int]  # 8080; any that is free; ("127.0.0.1", 8080); several

    class Options(TypedDict, total=False):
        """All of them; docker-run(1) tells what each means, by the flag of that name."""

        name: str
        hostname: str
        entrypoint: str | list[str]
        environment: Pairs
        labels: Pairs
        user: str | int
        group_add: list[str]
        working_dir: str
        stdin_open: bool
        attach: list[int]  # of 0, 1, 2: what `inspect` shows its creator to be attached to; detach=True: none
        tty: bool
        init: bool
        auto_remove: bool  # remove it when it has ended: `run -d --rm`
        read_only: bool
        # What it can reach
        network: str  # the same as network_mode
        network_mode: str  # bridge, none, host, container:NAME, or a network's name
        networks: Mapping[str, Mapping[str, Any]]  # {"backend": {"ip": "172.29.0.9", "ip6": "", "aliases": ["db"]}}
        ports: Mapping[str | int, Place] | list[nat.Port]  # {"80/tcp": 8080}
        publish_all_ports: bool  # those that the image exposes, each on any that is free
        firewall: str  # "docker-user", "ignore": what about other people's rules that drop (network/foreign.py)
        expose: list[str]  # "80", "53/udp", "8000-8010": for publish_all_ports, and for who reads
        dns: list[str]
        dns_search: list[str]
        dns_opt: list[str]
        extra_hosts: Mapping[str, str] | list[str]  # {"name": "192.0.2.1"}, ["name:host-gateway"]
        volumes: (
            Mapping[str, dict[str, str]] | list[str]
        )  # {"data": {"bind": "/data", "mode": "ro"}}, ["data:/data:ro"]
        mounts: list[volumes.Mount]
        tmpfs: Mapping[str, str]  # {"/scratch": "size=1m"}
        devices: list[str]
        pid_mode: str
        ipc_mode: str
        uts_mode: str
        userns_mode: str  # "auto", "auto:size=4096": ids of its own
        # What it may use
        nano_cpus: int  # billionths of a processor
        cpus: float
        cpu_shares: int
        cpu_quota: int
        cpu_period: int
        cpuset_cpus: str
        cpuset_mems: str
        mem_limit: Size
        mem_reservation: Size
        memswap_limit: Size  # -1: as much as there is
        pids_limit: int
        shm_size: Size
        ulimits: Mapping[str, tuple[int, int]]  # {"nofile": (soft, hard)}
        oom_score_adj: int
        # What it may do
        cap_add: list[str]
        cap_drop: list[str]
        privileged: bool
        security_opt: list[str]
        sysctls: Mapping[str, str]
        # How it lives
        restart_policy: dict[str, Any]  # {"Name": "on-failure", "MaximumRetryCount": 5}
        healthcheck: dict[str, Any]  # {"test": ["CMD", "true"], "interval": nanoseconds, "retries": 3}
        log_config: dict[str, Any]  # {"type": "json-file", "config": {"max-size": "10m"}}
        stop_signal: str
        stop_timeout: float


SIZES = ("mem_limit", "mem_reservation", "memswap_limit", "shm_size")


def understood(given: Mapping[str, Any]) -> dict[str, Any]:
    """The same as configure.DEFAULTS has it. Raises InvalidArgument."""
    options = dict(given)
    for short, long in (("network", "network_mode"), ("auto_remove", "remove")):
        if short in options:
            options[long] = options.pop(short)
    if "nano_cpus" in options:
        options["cpus"] = options.pop("nano_cpus") / 10**9
    for name in SIZES:
        if isinstance(options.get(name), str):
            options[name] = size(name, options[name])
    for name in ("environment", "labels"):
        if isinstance(options.get(name), list):
            options[name] = dict(pair(text, None if name == "environment" else "") for text in options[name])
    if isinstance(options.get("ports"), Mapping):
        options["ports"] = list(published(options["ports"]))
    options["expose"] = nat.parse_exposed(options.get("expose", []))
    if isinstance(options.get("extra_hosts"), Mapping):
        options["extra_hosts"] = [f"{name}:{address}" for name, address in options["extra_hosts"].items()]
    if "user" in options:
        options["user"] = str(options["user"])
    asked = options.pop("volumes", [])
    if isinstance(asked, Mapping):
        asked = [f"{source}:{place['bind']}:{place.get('mode', 'rw')}" for source, place in asked.items()]
    tmpfs = [f"{target}:{words}" if words else target for target, words in options.pop("tmpfs", {}).items()]
    mounts = [volumes.parse_volume(text) for text in asked] + [volumes.parse_tmpfs(text) for text in tmpfs]
    options["mounts"] = [*options.get("mounts", []), *mounts]
    return options


def words(command: str | list[str] | None) -> list[str]:
    """A command: a list as it is, a text as a shell would split it."""
    return shlex.split(command) if isinstance(command, str) else list(command or [])


def size(name: str, text: str) -> int:
    """`64m` in bytes."""
    try:
        return configure.bytes_of(text)
    except ValueError:
        raise errors.InvalidArgument(f"{name}={text!r}: bytes, or a size like '64m' or '1g'") from None


def pair(text: str, alone: str | None) -> tuple[str, str | None]:
    """NAME=VALUE; `alone` is the value of a bare NAME. None takes a variable of the image's away."""
    name, given, value = text.partition("=")
    return name, value if given else alone


def published(ports: Mapping[str | int, Place]) -> Iterable[nat.Port]:
    """{"80/tcp": 8080} and the like, as `-p` would have it."""
    for inside, places in ports.items():
        for place in places if isinstance(places, list) else [places]:
            address, number = place if isinstance(place, tuple) else ("", place)
            yield from nat.parse_ports(
                [f"{address}:{number or ''}:{inside}" if address else f"{number or ''}:{inside}"]
            )
