"""What is known of a blob beside its bytes: which registries' repositories have it, and what it is when compressed.

    distribution/<hex>.json   {"repositories": ["docker.io/library/debian"], "gzip": {"digest": …, "size": …}}

Offers: `repositories`, `note_repository`, `compressed`, `note_compressed`. It saves work and traffic: a push asks the
registry to take a blob over from a repository that has it, and what a plain layer is after gzip is known without doing
it again. Nothing depends on it: a file that is lost, stale or damaged costs time, and who writes last wins.
"""

from .. import errors, files
from .. import quickjson as json
from . import store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MOST = 20  # repositories that are remembered of one blob


def repositories(root: str, digest: str) -> list[str]:
    """`docker.io/library/debian`: where the blob was seen, latest first."""
    found = _read(root, digest).get("repositories")
    return [name for name in found if isinstance(name, str)] if isinstance(found, list) else []


def note_repository(root: str, digest: str, name: str) -> None:
    """The repository has the blob (of a plain layer: in compressed form)."""
    known = repositories(root, digest)
    if known[:1] != [name]:
        _change(root, digest, {"repositories": [name, *(other for other in known if other != name)][:MOST]})


def compressed(root: str, digest: str) -> tuple[str, int] | None:
    """Digest and size of a plain layer's gzip, if we have made it before."""
    found = _read(root, digest).get("gzip")
    if (
        not isinstance(found, dict)
        or not isinstance(found.get("size"), int)
        or not isinstance(found.get("digest"), str)
    ):
        return None
    return found["digest"], found["size"]


def note_compressed(root: str, digest: str, made: str, size: int) -> None:
    """What compression.gzip makes of the blob."""
    _change(root, digest, {"gzip": {"digest": made, "size": size}})


def _path(root: str, digest: str) -> str:
    return f"{root}/distribution/{digest[7:]}.json"


def _read(root: str, digest: str) -> "dict[str, Any]":
    try:
        return store.document(files.read(_path(root, digest)), "record")
    except (FileNotFoundError, errors.InvalidImage):
        return {}


def _change(root: str, digest: str, fields: "dict[str, Any]") -> None:
    files.make_directory(f"{root}/distribution", 0o700)
    files.write(_path(root, digest), json.dumps({**_read(root, digest), **fields}).encode())
