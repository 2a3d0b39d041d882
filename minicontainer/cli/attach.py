"""`attach`: our terminal becomes a running container's, until it ends or we type ctrl-p ctrl-q."""

from ..engine import client
from . import UsageError, attached
from .flags import Flag, parse

FLAGS = [
    Flag("--no-stdin", "no_stdin", "bool", "only look on"),
    Flag("--sig-proxy", "sig_proxy", "bool", "pass signals on to it (=false: do not)"),
    Flag("--detach-keys", "detach_keys", "text", "what to type to leave it alone (ctrl-p,ctrl-q)"),
]


def main(arguments: list[str]) -> int:
    """docker-attach(1)."""
    values, names = parse("attach CONTAINER", FLAGS, ["--sig-proxy", *arguments])
    if len(names) != 1:
        raise UsageError('"minicontainer attach" needs one container; `minicontainer ps` lists them')
    container = client.Client().containers.get(names[0])
    stdin = container.record["stdin"] and not values["no_stdin"]
    keys = attached.keys(values.get("detach_keys"))
    session = container.attach(stdin)
    session.wait_started()
    with attached.Signals(values["sig_proxy"] and not session.terminal) as signals:
        return attached.stay(session, stdin, signals, keys, left=container.note_detached)
