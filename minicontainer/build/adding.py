"""What ADD takes beyond COPY: files from addresses of the web.

Offers: `select`, which is context.select for ADD. What is fetched is a file of mode 0600, named as its address ends, as
old as the server says. Addresses of git repositories are refused by name. Raises BuildError.
"""

from __future__ import annotations

import os
import posixpath
import re
import urllib.parse
from collections.abc import Iterable

from .. import errors
from . import context
from .context import Refuse, Selected, Tree

GIT = re.compile(r"(?:git|ssh|git\+https?)://|[\w.-]+@[\w.-]+:|https?://[^?#]*\.git/?(?:[?#]|$)")


def is_address(source: str) -> bool:
    """Whether a source is to be fetched."""
    return source.startswith(("http://", "https://"))


def select(
    tree: Tree,
    sources: Iterable[str],
    refuse: Refuse,
    fetched: Tree,
    *,
    exclude: Iterable[str] = (),
    checksum: str = "",
) -> list[Selected]:
    """What the sources of one ADD mean, in their order. What is fetched goes into `fetched`, a directory of the
    caller's. `checksum` is `sha256:` and 64 digits: what is fetched must have it."""
    selected: list[Selected] = []
    excluded = list(exclude)
    for source in sources:
        if GIT.match(source):
            refuse(f"{source}: repositories are not fetched: clone it beside the Dockerfile, and COPY that", source)
        if is_address(source):
            selected.append(fetch(source, refuse, fetched, checksum))
        elif checksum:
            refuse(f"--checksum is for http and https addresses, and {source} is none", "--checksum")
        else:
            selected += context.select(tree, [source], refuse, exclude=excluded)
    return selected


def name_of(url: str) -> str:
    """What a file from there is called; "" where the address does not end in a name."""
    name = posixpath.basename(urllib.parse.unquote(urllib.parse.urlsplit(url).path))
    return "" if name in (".", "..") or "\0" in name else name


def fetch(url: str, refuse: Refuse, fetched: Tree, checksum: str = "") -> Selected:
    """The file at an address, as one more file in the directory `fetched`."""
    from ..image import registry  # HTTP: 45 ms, which a build without addresses does not pay

    name = str(len(os.listdir(fetched.root)))
    descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=fetched.root)
    try:
        modified = registry.fetch(url, descriptor, registry.settings_here())
        os.utime(descriptor, (modified, modified))
    except ValueError as error:
        refuse(f"{url} is no address: {error}", url)
    except (errors.RegistryError, OSError) as error:
        refuse(f"cannot fetch {error}", url)
    finally:
        os.close(descriptor)
    had = f"sha256:{context.hashed(fetched.root, name)[0]}" if checksum else ""
    if had != checksum:
        refuse(f"digest mismatch {had}: {checksum}", checksum)
    (found,) = context.select(fetched, [name], refuse)
    return found._replace(shown=url, base=name_of(url), address=url)
