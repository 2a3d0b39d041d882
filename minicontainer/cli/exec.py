"""`exec`: one more process in a container that runs; its exit code becomes ours."""

from __future__ import annotations

import os

from .. import errors
from ..engine import client, entering
from . import attached, sentence
from .flags import Flag, environment, parse

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing: 4 ms of every start
    from typing import Any

FLAGS = [
    Flag("-i --interactive", "stdin_open", "bool", "keep standard input open"),
    Flag("-t --tty", "tty", "bool", "give it a terminal"),
    Flag("-d --detach", "detach", "bool", "leave it alone once it runs"),
    Flag("-u --user", "user", "text", "user[:group], by name or number, as the container knows them"),
    Flag("-w --workdir", "working_dir", "text", "where it starts"),
    Flag("-e --env", "env", "list", "NAME=VALUE, or NAME to pass on our own"),
    Flag("--env-file", "env_file", "list", "a file of such lines"),
    Flag("--privileged", "privileged", "bool", "every capability that the engine has itself"),
    Flag("--detach-keys", "detach_keys", "text", "what to type to leave it alone (ctrl-p,ctrl-q)"),
    Flag("--explain", "explain", "bool", "print the steps that would be taken, and take none"),
]


def main(arguments: list[str]) -> int:
    """docker-exec(1)."""
    values, rest = parse("exec [FLAGS] CONTAINER COMMAND …", FLAGS, arguments, stop=True)
    if len(rest) < 2:
        raise errors.InvalidArgument(
            '"minicontainer exec" needs a container and a command; see `minicontainer exec --help`'
        )
    options: dict[str, Any] = {
        name: values[name] for name in ("stdin_open", "tty", "privileged", "user", "working_dir") if name in values
    }
    options["environment"] = environment(values["env"], values["env_file"])
    attaching = not values["detach"]
    options["stdin_open"] = options["stdin_open"] and attaching
    if options["tty"] and options["stdin_open"] and not os.isatty(0):
        raise errors.InvalidArgument("the input device is not a TTY: leave out -t, or run in a terminal")
    if options["tty"] and attaching and os.isatty(0):
        options["console_size"] = os.get_terminal_size(0)[::-1]
    keys = attached.keys(values.get("detach_keys"))
    engine = client.Client().containers
    if values["explain"]:
        from ..teach import explain

        print(explain.text(entering.plan(engine, rest[0], rest[1:], options).plan, "keeper"))
        return 0
    session = entering.begin(engine, rest[0], rest[1:], options, attaching)
    try:
        session.wait_started()
    except errors.KernelError as error:
        if attaching:
            raise
        raise errors.MiniContainerError(sentence(error)) from None  # as docker: there is no command whose code it were
    if not attaching:
        return 0
    with attached.Signals(proxy=False) as signals:
        return attached.stay(session, options["stdin_open"], signals, keys)
