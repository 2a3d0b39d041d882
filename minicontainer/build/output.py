"""`--output`: where the result of a build goes, and as what.

Offers `parse`, which is pure, and `Made`: what a build has made, in each of the forms that there are. A build calls
`Settings.deliver` with it as long as its layers are kept from removals.

With an `epoch` (SOURCE_DATE_EPOCH, in seconds), all but `copy_to`'s owners depends on the image alone.
Source: docker-buildx-build(1), *--output*.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from typing import Any, NamedTuple

from .. import errors, files
from ..engine import building, trees
from ..image import extract, making, pack, saving, store, tar

KINDS = {  # and the attributes of each
    "image": ("name", "push"),
    "registry": ("name",),
    "local": ("dest",),
    "tar": ("dest",),
    "oci": ("dest", "name"),
    "docker": ("dest", "name"),
}
STANDARD = "-"  # the `dest` that is standard output


class Output(NamedTuple):
    """One output. `names` are the image's, none for those of `--tag`; `dest` is a path, or "-"."""

    kind: str
    dest: str = ""
    names: tuple[str, ...] = ()
    push: bool = False

    def __str__(self) -> str:
        """BuildKit's words for it."""
        if self.kind == "local":
            return "exporting to client directory"
        if self.kind == "tar":
            return "exporting to client tarball"
        return "exporting to image" if not self.dest else f"exporting to {self.kind} image format"


def parse(text: str) -> Output:
    """`type=tar,dest=FILE`, or a directory's name; `-` is a tar on standard output. Raises InvalidArgument."""
    try:
        fields = next(csv.reader([text], strict=True), [])
    except csv.Error as error:
        raise errors.InvalidArgument(f"invalid output {text!r}: {error}") from None
    if len(fields) == 1 and "=" not in fields[0]:
        return Output("tar", STANDARD) if text == STANDARD else Output("local", fields[0])
    values = {}
    for field in fields:
        name, given, value = field.partition("=")
        if not given:
            raise errors.InvalidArgument(f"invalid value {field!r} in output {text!r}: NAME=VALUE")
        values[name.strip().lower()] = value
    kind = values.pop("type", "")
    if not kind:
        raise errors.InvalidArgument(f"invalid output {text!r}: it needs a type: {', '.join(KINDS)}")
    if kind not in KINDS:
        raise errors.InvalidArgument(f"there is no output of type {kind!r}: {', '.join(KINDS)} are there")
    for name in values:
        if name not in KINDS[kind]:
            known = ", ".join(KINDS[kind])
            raise errors.InvalidArgument(f"an output of type {kind} knows no {name!r}, but: {known}")
    dest = values.get("dest", "")
    if kind == "local" and dest in ("", STANDARD):
        raise errors.InvalidArgument("an output of type local needs dest=DIRECTORY")
    if kind in ("tar", "oci"):
        dest = dest or STANDARD
    if values.get("push", "false") not in ("true", "false"):
        raise errors.InvalidArgument(f"push={values['push']!r} in output {text!r}: true or false")
    names = tuple(filter(None, values.get("name", "").split(",")))
    push = kind == "registry" or values.get("push") == "true"
    return Output("image" if kind == "registry" or (kind == "docker" and not dest) else kind, dest, names, push)


class Made:
    """What a build has made, while its layers are kept from removals. `steps`: how many there were."""

    def __init__(
        self, workshop: building.Workshop, snapshot: making.Snapshot, config: dict[str, Any], steps: int
    ) -> None:
        self.workshop, self.snapshot, self.config, self.steps = workshop, snapshot, config, steps
        self.draft = making.Draft(snapshot, config)

    def enter(self, *names: str) -> store.Image:
        """As an image of the store."""
        return self.workshop.image(self.snapshot, self.config, *names)

    def archive(self, form: str, names: list[str]) -> Iterator[bytes]:
        """As an archive, `docker-archive` or `oci`."""
        return saving.save_draft(self.workshop.engine.images, self.draft, names, form, self.workshop.epoch)

    def tar(self) -> Iterator[bytes]:
        """Its file system as a tar."""
        with self.workshop.seen(self.snapshot) as root:
            yield from pack.Packer(self.workshop.epoch).below(root, b"")
        yield tar.END

    def copy_to(self, directory: str) -> None:
        """Its file system as files below a directory, beside what is there. Raises Conflict, OSError.

        Root keeps owners, others get all. A link there is replaced or refused, never followed; and attributes of the
        machine's own (security., trusted.) are not an image's to give.
        """
        files.make_directory(directory)
        owner = None if os.geteuid() == 0 else (os.geteuid(), os.getegid())
        with trees.opened(directory) as root:
            wanted = lambda attribute: attribute.startswith("user.")  # noqa: E731
            extract.Extractor(root, "", owner, wanted=wanted).extract(self.tar())
