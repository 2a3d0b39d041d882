"""COPY and ADD as steps: which files they mean is context.py's business, and how they get there, copying.py's.

With --link a layer is made on nothing: what it stands on is no input, so another base leaves it cached, and no link in
the base leads its files elsewhere.
"""

from __future__ import annotations

import contextlib
import posixpath
from typing import TYPE_CHECKING

from ..image import making
from . import adding, cache, config, context, copying, dockerfile, expand, instructions, running

if TYPE_CHECKING:
    from .builder import Builder, Stage
    from .builder import Step as Told


class Step(running.Work):
    """One COPY or ADD."""

    def __init__(self, builder: Builder, stage: Stage, one: instructions.Copy | instructions.Add) -> None:
        super().__init__(builder, stage, one.statement)
        self.one = one
        self.from_ = one.from_ if isinstance(one, instructions.Copy) else ""
        self.documents = {heredoc.word: heredoc for heredoc in one.statement.heredocs}
        self.sources = [word if word in self.documents else self.text(word) for word in one.sources]
        self.target = self.text(one.target)
        self.owner, self.mode = self.text(one.chown), self.text(one.chmod)
        self.fetched: context.Tree | None = None  # what ADD has fetched
        self.chosen: list[context.Selected] | None = None  # what sources in the context mean: looked at once

    def text(self, text: str) -> str:
        """A text with its variables put in."""
        return self.builder.text_of(self.stage, self.statement, text)

    def document(self, heredoc: dockerfile.Heredoc) -> str:
        """A heredoc's content with its variables put in."""
        try:
            return expand.document(heredoc.content, self.stage.variables)
        except expand.Malformed as error:
            self.refuse(str(error), heredoc.word)

    def inputs(self) -> cache.Inputs:
        with self.tree() as tree:
            content = context.content(self.selected(tree), self.builder.hashes)
        return {
            "base": "" if self.one.link else self.stage.base,
            "instruction": " ".join(self.builder.source_text(self.statement)),
            "target": joined(self.stage.image.directory, self.target),
            "owner": self.owner,
            "mode": self.mode,
            **{f"file {name}": fact for name, fact in content.files.items()},
        }

    def tree(self) -> contextlib.AbstractContextManager[context.Tree | None]:
        """Where its sources are; None for one that needs none."""
        if all(source in self.documents or adding.is_address(source) for source in self.sources):
            return contextlib.nullcontext(None)
        return self.builder.tree(self.stage, self.statement, self.from_)

    def selected(self, tree: context.Tree | None) -> list[context.Selected]:
        """What its sources mean, in their order."""
        if self.chosen is not None:
            return self.chosen
        found: list[context.Selected] = []
        for source in self.sources:
            if source in self.documents:
                heredoc = self.documents[source]
                content = self.document(heredoc) if heredoc.expands else heredoc.content
                found.append(context.inline(heredoc.name, content.encode("utf-8", "surrogateescape")))
            elif isinstance(self.one, instructions.Add):
                if self.fetched is None:
                    self.fetched = context.Tree(self.builder.workshop.folder("fetched"))
                checksum = self.text(self.one.checksum)
                found += adding.select(
                    tree or self.fetched, [source], self.refuse, self.fetched, exclude=self.one.exclude,
                    checksum=checksum,
                )  # fmt: skip
            else:
                assert tree is not None
                found += context.select(
                    tree, [source], self.refuse, exclude=self.one.exclude, parents=self.one.parents
                )  # fmt: skip
        # What was hashed is what is copied, whatever happens to a context meanwhile.
        if not self.from_ or self.builder.directory(self.from_):
            self.chosen = found
        return found

    def close(self) -> None:
        if self.fetched is not None:
            self.fetched.close()

    def perform(self, step: Told) -> running.Doing:
        yield from ()
        below = making.Snapshot() if self.one.link else self.stage.snapshot
        unpack = self.one.unpack if isinstance(self.one, instructions.Add) else False
        with self.tree() as tree, self.builder.workshop.bench(below) as bench:
            copying.copy(
                self.selected(tree), bench.root, self.target, self.refuse, directory=self.stage.image.directory,
                owner=self.owned_by(), mode=self.asked_mode(), unpack=unpack,
            )  # fmt: skip
        return self.builder.workshop.layer(self.stage.snapshot, bench.upper, below=below)

    def owned_by(self) -> tuple[int, int] | None:
        """Who --chown means, by the image's own files."""
        if not self.owner:
            return None
        with self.builder.workshop.seen(self.stage.snapshot) as root:
            return copying.owner_of(root, self.owner, self.refuse)

    def asked_mode(self) -> copying.Mode | None:
        """What --chmod means."""
        try:
            return copying.Mode(self.mode) if self.mode else None
        except ValueError as error:
            self.refuse(f"--chmod={self.mode}: {error}", "--chmod")

    def noted(self, created: str) -> config.Image:
        words = [self.statement.keyword]
        words += ["--parents"] if isinstance(self.one, instructions.Copy) and self.one.parents else []
        words += [f"--chown={self.owner}"] if self.owner else []
        words += [f"--chmod={self.mode}"] if self.mode else []
        words += [f"<<{self.documents[one].name}" if one in self.documents else one for one in self.sources]
        return config.copied(self.stage.image, [*words, self.target], created)


class Whole(running.Work):
    """FROM a directory: its files are the first layer."""

    def __init__(self, builder: Builder, stage: Stage, base: instructions.From) -> None:
        super().__init__(builder, stage, base.statement)
        tree = builder.directory(base.image)
        assert tree is not None
        self.name, self.chosen = base.image, context.select(tree, ["/"], self.refuse)

    def inputs(self) -> cache.Inputs:
        content = context.content(self.chosen, self.builder.hashes)
        files = {f"file {name}": fact for name, fact in content.files.items()}
        return {"base": self.stage.base, "instruction": "FROM a directory", **files}

    def perform(self, step: Told) -> running.Doing:
        yield from ()
        with self.builder.workshop.bench(self.stage.snapshot) as bench:
            copying.copy(self.chosen, bench.root, "/", self.refuse)
        return self.builder.workshop.layer(self.stage.snapshot, bench.upper)

    def noted(self, created: str) -> config.Image:
        return config.copied(self.stage.image, ["FROM", self.name], created)


def joined(directory: str, target: str) -> str:
    """A target from the root; a slash at its end stays."""
    whole = posixpath.normpath(posixpath.join("/", directory, target))
    return whole + "/" if target.endswith(("/", "/.")) and whole != "/" else whole
