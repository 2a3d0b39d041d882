"""The package's own functions behind this lab's door: what they score shows how far copying gets."""

from minicontainer import steps
from minicontainer.kernel import rootfs


def pivot(directory, writable):
    steps.execute([*rootfs.private(directory), *rootfs.pivot(directory), *rootfs.readonly()], {})
