"""`start`: start containers that are there; what they had written is still there, too."""

import os

from ..engine import client
from . import UsageError, attached
from .each import each
from .flags import Flag, parse

FLAGS = [
    Flag("-a --attach", "attach", "bool", "stay attached to its output, and take its exit code"),
    Flag("-i --interactive", "interactive", "bool", "… and to its input"),
    Flag("--sig-proxy", "sig_proxy", "bool", "pass signals on to it (=false: do not)"),
    Flag("--detach-keys", "detach_keys", "text", "what to type to leave it alone (ctrl-p,ctrl-q)"),
]


def main(arguments: list[str]) -> int:
    """docker-start(1)."""
    values, names = parse("start CONTAINER …", FLAGS, ["--sig-proxy", *arguments])
    if not (values["attach"] or values["interactive"]):
        return each("start", names, lambda container: container.start())
    if len(names) != 1:
        raise UsageError("you cannot start and attach multiple containers at once")
    container = client.Client().containers.get(names[0])
    keys = attached.keys(values.get("detach_keys"))
    size = os.get_terminal_size(0)[::-1] if container.record["tty"] and os.isatty(0) else (0, 0)
    with attached.Signals(values["sig_proxy"]) as signals:
        session = container.start(attach=True, console_size=size)
        assert session is not None
        session.wait_started()
        stdin = container.record["stdin"] and values["interactive"]
        return attached.stay(session, stdin, signals, keys, left=container.note_detached)
