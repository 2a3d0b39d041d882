"""`logout`: forget who we are at a registry."""

from .. import errors
from ..engine import credentials
from .flags import parse


def main(arguments: list[str]) -> int:
    """docker-logout(1)."""
    _, rest = parse("logout [SERVER]", [], arguments)
    if len(rest) > 1:
        raise errors.InvalidArgument('"minicontainer logout" takes one registry at most')
    host = credentials.host_of(rest[0] if rest else "")
    if credentials.forget(host):
        print(f"Removing login credentials for {credentials.key(host)}")
    else:
        print(f"Not logged in to {credentials.key(host)}")
    return 0
