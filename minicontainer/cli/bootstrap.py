"""`bootstrap`: make an image on the spot, with no registry: from Debian's static busybox, or by debootstrap."""

from ..engine import client
from . import UsageError
from .flags import parse


def main(arguments: list[str]) -> int:
    """bootstrap busybox|debian"""
    _, rest = parse("bootstrap busybox|debian", [], arguments)
    if rest not in (["busybox"], ["debian"]):
        raise UsageError("bootstrap makes one of two images: `bootstrap busybox` or `bootstrap debian`")
    image = client.Client().images.bootstrap(rest[0])
    print(f"Made image: {image.names[0]} ({image.id[7:19]})")
    return 0
