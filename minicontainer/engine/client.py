"""The door for library users: one client, with docker-py's nouns and verbs.

client = Client()
client.images.load(open("image.tar", "rb"))
client.containers.run("busybox", ["true"])
"""

from .. import host
from . import containers, images, volumes


class Client:
    """The store at `root` (default: $MINICONTAINER_ROOT, else the user's), and what is in it."""

    def __init__(self, root: str = "") -> None:
        self.root = root or host.root()
        self.containers = containers.Containers(self.root)
        self.images = images.Images(self.root)
        self.volumes = volumes.Volumes(self.root)
