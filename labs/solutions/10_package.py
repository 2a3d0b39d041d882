"""The package's own functions behind this lab's door: what they score shows how far copying gets."""

import os

from minicontainer.engine import volumes
from minicontainer.kernel import mounts


def arrange(root, wanted):
    for one in wanted:
        flags = mounts.parse_options(["rbind", *one["options"]]).flags
        mounts.bind(root, one["source"], one["target"], flags, 0)


def fill(volume, directory):
    was_empty = not os.listdir(volume)
    volumes.copy_up(directory, "/", volume)
    return was_empty
