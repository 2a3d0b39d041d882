"""Lab 03 behind the real tool: the container's root is made by the learner's `pivot`, and can hardly be written."""

from minicontainer import steps
from minicontainer.kernel import rootfs

WRITABLE = ["/tmp", "/run", "/dev/shm"]  # what programs can seldom do without


def install(lab):
    """From now on the steps that exchange the root are one, the learner's."""

    def pivot(root):
        yield steps.call(lab.pivot, root, WRITABLE, why="the learner's pivot()")

    rootfs.pivot = pivot
