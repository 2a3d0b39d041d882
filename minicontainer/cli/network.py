"""`network`: reload puts the firewall back."""

from ..engine import client
from . import UsageError
from .flags import Flag, parse

FLAGS: dict[str, list[Flag]] = {"reload": []}

USAGE = "network reload"


def main(arguments: list[str]) -> int:
    """podman-network-reload(1), for all containers."""
    verb = arguments[0] if arguments else ""
    if verb in ("-h", "--help"):
        print(USAGE)
        return 0
    if verb not in FLAGS:
        raise UsageError(USAGE)
    _, rest = parse(f"network {verb}", FLAGS[verb], arguments[1:])
    if rest:
        raise UsageError(f"network {verb} takes no {rest[0]!r}")
    for identifier in client.Client().firewall.reload():
        print(identifier)
    return 0
