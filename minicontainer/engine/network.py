"""One network, with docker-py's nouns and verbs.

    backend = client.networks.create("backend", internal=True)
    client.containers.run("busybox", ["sleep", "60"], detach=True, name="db", network="backend")
    backend.connect("web", aliases=["site"])
    [container.name for container in backend.containers]
    backend.disconnect("web")
    backend.remove()

What a network is stands in network/__init__.py; what is done with many, and for the command line, in networks.py.
"""

from __future__ import annotations

from ..network import Network as Known
from . import container, describe, networks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Network:
    """A network that is there. `attrs` are those of the last look; `reload` looks again."""

    def __init__(self, engine: networks.Networks, known: Known) -> None:
        self.engine = engine
        self.id = networks.identity(engine.root, known)
        self.name: str = known.name
        self._attrs: dict[str, Any] = {}

    def __repr__(self) -> str:
        return f"<Network: {self.short_id}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Network) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    @property
    def short_id(self) -> str:
        """The first twelve digits of its id."""
        return self.id[:12]

    @property
    def attrs(self) -> dict[str, Any]:
        """All that `network inspect` tells of it."""
        if not self._attrs:
            self.reload()
        return self._attrs

    @property
    def containers(self) -> list[container.Container]:
        """Those that run in it, as of the last look."""
        return [self.engine.containers.get(identifier) for identifier in self.attrs["Containers"]]

    def reload(self) -> None:
        """Look again. Raises NetworkNotFound if it has gone."""
        self._attrs = describe.network(self.engine.containers, self.id)

    def connect(
        self,
        container: container.Container | str,
        aliases: list[str] | None = None,
        ipv4_address: str = "",
        mac_address: str = "",
    ) -> None:
        """Plug a container in, at once if it runs. Raises ContainerNotFound, Conflict, InvalidArgument."""
        self.engine.connect(self.id, _id(container), ipv4_address, mac_address, tuple(aliases or ()))

    def disconnect(self, container: container.Container | str, force: bool = False) -> None:
        """Plug it out. `force` is docker-py's: nothing can hold it back here. Raises what `connect` raises."""
        self.engine.disconnect(self.id, _id(container))

    def remove(self) -> None:
        """Remove it. Raises Conflict while a running container is in it."""
        self.engine.remove(self.id)


def _id(given: container.Container | str) -> str:
    return given if isinstance(given, str) else given.id
