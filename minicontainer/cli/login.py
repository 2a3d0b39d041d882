"""`login`: say who we are at a registry, and remember it where docker does."""

import getpass
import os
import sys

from .. import errors
from ..engine import client, credentials
from . import UsageError
from .flags import Flag, parse

FLAGS = [
    Flag("-u --username", "username", "text", "user name"),
    Flag("-p --password", "password", "text", "password; others on this machine can see it while this runs"),
    Flag("--password-stdin", "stdin", "bool", "read the password from standard input"),
]


def main(arguments: list[str]) -> int:
    """docker-login(1)."""
    values, rest = parse("login [-u NAME] [--password-stdin] [SERVER]", FLAGS, arguments)
    if len(rest) > 1:
        raise errors.InvalidArgument('"minicontainer login" takes one registry at most')
    host = credentials.host_of(rest[0] if rest else "")
    username, password = values.get("username", ""), values.get("password", "")
    if values["stdin"]:
        if password:
            raise UsageError("--password and --password-stdin are mutually exclusive")
        if not username:
            raise UsageError("must provide --username with --password-stdin")
        password = sys.stdin.read().rstrip("\r\n")
    elif password:
        print("WARNING! Using --password via the CLI is insecure. Use --password-stdin.", file=sys.stderr)
    known = credentials.find(host) if not username and not password else None
    if known is None:
        username, password = asked(host, username, password)
    place = client.Client().login(username, password, host)
    if known is None and place == credentials.path():
        print(f"WARNING! Your password is stored unencrypted in {place}; a credential helper would do better.",
              file=sys.stderr)  # fmt: skip
    print("Login Succeeded")
    return 0


def asked(host: str, username: str, password: str) -> tuple[str, str]:
    """What is missing, from who sits at the terminal."""
    if username and password:
        return username, password
    if not os.isatty(0):
        raise errors.InvalidArgument("cannot perform an interactive login from a non TTY device: use --password-stdin")
    username = username or input(f"Username for {host}: ").strip()
    password = password or getpass.getpass()
    if not username or not password:
        raise errors.InvalidArgument("a user name and a password are required")
    return username, password
