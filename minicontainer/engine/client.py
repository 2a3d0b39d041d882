"""The door for library users: one client, with docker-py's nouns and verbs. EXAMPLES.md has a page of them.

client = Client()
client.images.load(open("image.tar", "rb"))
client.containers.run("busybox", ["true"])
"""

from .. import host
from . import containers, events, firewall, images, networks, volumes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

HUB = "docker.io"


class Client:
    """The store at `root` (default: $MINICONTAINER_ROOT, else the user's), and what is in it."""

    def __init__(self, root: str = "") -> None:
        self.root = root or host.root()
        self.containers = containers.Containers(self.root)
        self.images = images.Images(self.root)
        self.networks = networks.Networks(self.containers)
        self.volumes = volumes.Volumes(self.root)
        self.firewall = firewall.Firewall(self.containers)

    def events(self, since: float = 0, until: float = 0) -> "Iterator[dict[str, Any]]":
        """What happens to containers, docker's documents, from `since` on (seconds since 1970; 0: now).

        It ends where nothing more can come before `until`; with 0, never.
        """
        return events.between(self.root, int(since * 10**9), int(until * 10**9))

    def login(self, username: str = "", password: str = "", registry: str = HUB) -> str:
        """Say who we are at a registry; without a name, by what is remembered. It is remembered where docker does.

        Returns where that is. Raises RegistryError where the registry does not accept it: then nothing is.
        """
        from . import credentials

        return credentials.login(registry, username, password)
