"""The parent: cgroup, fork, network, go.

parent                                   child (runtime/init.py)
make the cgroup, unshare pid
fork ──────────────────────────────────▶ enter the cgroup, unshare the other namespaces
                                         (into a user namespace that is there by way of between.py)
     ◀─────────────────── "namespaces" ──
plug in the network                      meanwhile: mounts, devices, pivot_root
     ───────────────────── "network" ──▶ identity
     ◀───────────────────── "command" ──
     ◀────────────── end of the stream ── execve
"""

from __future__ import annotations

from .. import steps
from ..kernel import cgroups, mounts, namespaces
from . import channel, init, waiting

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing: 4 ms of every start
    from collections.abc import Iterable, Iterator
    from typing import Any

OURS = steps.Symbol("channel")
THEIRS = steps.Symbol("child_channel")


def plan(
    config: dict[str, Any],
    root: str,
    stdin: bool = True,
    report: bool = False,
    network: Iterable[steps.Step] = (),
    held: waiting.Held | None = None,
) -> Iterator[steps.Step]:
    """Start the config's process with `root` as its `/`.

    `network` is what to do once the child's network namespace exists ($pid is bound by then): the point where OCI has
    the createRuntime hooks. With `stdin`, the child keeps its standard input. With `report`, it reports each step. A
    command that is `held` is left waiting, ready to be started; its parent has other children, hooks, which are born
    in the host's pid namespace.
    """
    linux = config["linux"]
    path = linux["cgroupsPath"]
    child = list(init.plan(config, root, stdin, held))
    spaces = linux["namespaces"]
    mapped, joined = namespaces.has(spaces, "user"), namespaces.joined(spaces, "user")
    if mapped:
        from ..kernel import idmap
    born_into = namespaces.born_into(spaces)
    if held and not mapped and namespaces.new(spaces, "pid"):
        born_into = namespaces.FLAGS["pid"]

    if joined:
        yield from steps.about("namespaces", idmap.join(joined))
    scope = linux.get("scope")  # systemd makes its cgroup, around a process that is there already
    if not scope:
        yield from steps.about("cgroups", cgroups.create(path, linux.get("resources", {})))
    trees = mounts.taken(config["mounts"], linux)
    yield from steps.about("mounts", mounts.take(config["mounts"], linux, trees))
    given = tuple((tree.name, tree) for tree in trees.values())
    if mapped:
        yield from init.pipes(idmap.MAPS if joined else idmap.of_spec(linux), config["process"])
    if namespaces.go_between(spaces):
        from . import between

        given = (*given, (namespaces.USER.name, namespaces.USER)) if joined else given
        yield from steps.about("namespaces", between.send(child, spaces, OURS, THEIRS, report, given))
    else:
        why = "the child goes its own way, in its own namespaces"
        if mapped:
            why = "a child, born into a user namespace, which owns its other namespaces"
        yield from steps.about("namespaces", namespaces.of_kinds(spaces, ("pid",), new_ones=not born_into))
        words = [given] if given else []
        yield steps.call(init.fork, child, OURS, THEIRS, report, born_into, *words, why=why, result="pid")
        if held and namespaces.joined(spaces, "pid"):
            yield steps.setns("/proc/self/ns/pid", namespaces.FLAGS["pid"], why="all other children are the host's")
    if mapped:
        if not joined:
            yield from steps.about("namespaces", idmap.plan(idmap.of_spec(linux)))
        yield from init.expose(config["process"], steps.PID)
        yield from init.rank(config["process"], steps.PID)
        yield steps.call(channel.tell, OURS, "mapped", why="it is somebody in there from here on")
    if scope:
        from ..kernel.cgroups import scope as scopes

        resources = linux.get("resources", {})
        yield from steps.about("cgroups", scopes.start(scopes.Scope(*scope), steps.PID, resources))
        yield steps.call(channel.tell, OURS, "cgroup", why="what it uses is counted from here on")
    yield steps.call(channel.wait, OURS, "namespaces", VALUES, why="until the child has unshared its network")
    yield from network
    yield steps.call(channel.tell, OURS, "network", why="the child may go on to its command")
    if held:
        yield from heard(linux.get("seccomp"), held.state)
        yield steps.call(channel.wait, OURS, "created", VALUES, why="all is ready: it waits to be started")
        return
    yield steps.call(
        channel.wait, OURS, "execve", VALUES, why="the stream ends when execve closes the child's end of it"
    )


VALUES = steps.Symbol("values")


def heard(seccomp: dict[str, Any] | None, state: dict[str, Any]) -> Iterator[steps.Step]:
    """A filter that has a listener; none has, most of the time."""
    if seccomp and seccomp.get("listenerPath"):
        from . import listener

        yield from steps.about("seccomp", listener.plan(OURS, VALUES, seccomp, state))


def values(report: Any = None) -> dict[str, Any]:
    """What the plan's symbols are bound to before it starts; $values is for the caller to bind, to them all."""
    ours, theirs = channel.pair()
    bound: dict[str, Any] = {OURS.name: ours, THEIRS.name: theirs}
    if report:
        bound["report"] = report
    return bound
