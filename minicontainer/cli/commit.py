"""`commit`: an image of a container as it is now."""

from .. import errors
from ..engine import client
from .flags import Flag, parse

FLAGS = [
    Flag("-a --author", "author", "text", "who made it"),
    Flag("-m --message", "message", "text", "what was done"),
    Flag("-c --change", "changes", "list", "a Dockerfile's CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, USER, VOLUME, WORKDIR"),
    Flag("-p --pause", "pause", "bool", "hold the container still meanwhile (=false: do not)"),
]


def main(arguments: list[str]) -> int:
    """docker-commit(1)."""
    values, words = parse("commit CONTAINER [REPOSITORY[:TAG]]", FLAGS, ["--pause", *arguments])
    if not 1 <= len(words) <= 2:
        raise errors.InvalidArgument('"minicontainer commit" needs a container, and may have a name for the image')
    container = client.Client().containers.get(words[0])
    image = container.commit(
        repository=words[1] if len(words) == 2 else "",
        message=values.get("message", ""),
        author=values.get("author", ""),
        pause=values["pause"],
        changes=values["changes"],
    )
    print(image.id)
    return 0
