"""Content, addressed by its digest: the `blobs/` folder of an OCI image layout.

Offers: `path`, `exists`, `read`, `put`, `adopt`, `damaged`; `absence` and `damage`, the errors. What lies under a
digest has that digest: it is checked before it is named so, and again whenever it is read. A name appears by rename(2)
and only after fsync(2).
Callers owe it: a store folder that exists, and a temporary name on the same file system.

Source: OCI image specification, image-layout.md.
"""

import os

from .. import errors, files, oci

LARGEST_DOCUMENT = 8 << 20  # bytes of a manifest or config: registries allow 4 MiB; more is an attack on our memory


def path(root: str, digest: str) -> str:
    """Where the blob lies. Raises InvalidImage for what is no sha256 digest: such a string must never become a path."""
    if not oci.is_digest(digest):
        raise errors.InvalidImage(f"{digest!r} is not a sha256 digest; other algorithms are not supported")
    return f"{root}/blobs/sha256/{digest[7:]}"


def exists(root: str, digest: str, size: int | None = None) -> bool:
    """Whether the blob is there, and has `size` bytes where that is known."""
    try:
        found = os.stat(path(root, digest)).st_size
    except FileNotFoundError:
        return False
    return size is None or found == size


def read(root: str, digest: str) -> bytes:
    """The content of a document (manifest, config), verified. Raises InvalidImage if it is missing, damaged or too
    large.
    """
    place = path(root, digest)
    try:
        if os.stat(place).st_size > LARGEST_DOCUMENT:
            raise errors.InvalidImage(
                f"{digest} has more than {LARGEST_DOCUMENT} bytes, too many for a manifest or config"
            )
        content = files.read(place)
    except FileNotFoundError:
        raise absence(digest) from None
    if oci.digest(content) != digest:
        raise damage(digest)
    return content


def put(root: str, content: bytes, temporary: str) -> str:
    """Store `content` by way of the file name `temporary`. Returns its digest. Durable when it returns."""
    digest = oci.digest(content)
    if not exists(root, digest, len(content)):
        files.write(temporary, content, sync=True)
        adopt(root, temporary, digest)
        files.sync_directory(f"{root}/blobs/sha256")
    return digest


def adopt(root: str, temporary: str, digest: str) -> None:
    """Give a file that is complete, verified and fsynced its name. Who comes second replaces the same bytes."""
    os.rename(temporary, path(root, digest))


def absence(digest: str) -> errors.InvalidImage:
    """What to do about a blob that an image needs and that is not there."""
    return errors.InvalidImage(f"blob {digest} is missing from the store; load or pull the image again")


def damage(digest: str) -> errors.InvalidImage:
    """What to do about a blob that is not what its name says."""
    return errors.InvalidImage(
        f"blob {digest} is damaged; `system check --repair` removes it, then load or pull the image again"
    )


def damaged(root: str, digest: str) -> bool:
    """Whether the content is not what the name says. Reads all of it."""
    from hashlib import sha256

    state = sha256()
    with open(path(root, digest), "rb", buffering=0) as file:
        while chunk := file.read(1 << 20):
            state.update(chunk)
    return state.hexdigest() != digest[7:]
