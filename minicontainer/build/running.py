"""RUN: a container on the layers so far; what it has changed is the next layer.

Steps run through the same runtime as `run`, with the same limits. Offers `Work`, what each step that makes a layer is,
and `Step`, which is RUN's.
"""

from __future__ import annotations

import json
import os
from collections.abc import Generator
from typing import TYPE_CHECKING, Any, NoReturn

from .. import errors
from ..engine import containers
from ..image import making
from ..runtime import session
from . import cache, config, dockerfile, instructions, mounts

if TYPE_CHECKING:
    from .builder import Builder, Stage
    from .builder import Step as Told

Doing = Generator["session.Session | None", None, making.Snapshot]
"""Work under way: it yields when it waits, and returns the snapshot with its layer on top."""


class Work:
    """A step that makes a layer: `inputs` decide about the cache, `perform` does it, `noted` is the image after it."""

    def __init__(self, builder: Builder, stage: Stage, statement: dockerfile.Statement) -> None:
        self.builder, self.stage, self.statement = builder, stage, statement

    def inputs(self) -> cache.Inputs:
        """All that can change what it does, by name."""
        raise NotImplementedError

    def perform(self, step: Told) -> Doing:
        """Do it."""
        raise NotImplementedError

    def noted(self, created: str) -> config.Image:
        """The image's config and history after it."""
        raise NotImplementedError

    def refuse(self, reason: str, at: str = "") -> NoReturn:
        """Raise BuildError for this instruction."""
        dockerfile.refuse(self.builder.source, self.statement, f"{self.statement.keyword}: {reason}", at)

    def close(self) -> None:
        """It is over, whether it was done or not."""


class Step(Work):
    """One RUN."""

    def __init__(self, builder: Builder, stage: Stage, one: instructions.Run) -> None:
        super().__init__(builder, stage, one.statement)
        self.one = one
        self.words = command(stage.image, one)
        self.mounts = mounts.Mounts(builder, stage, one)
        self.program = program(one.command)

    @property
    def arguments(self) -> dict[str, str]:
        """The build arguments that it sees."""
        return self.stage.arguments

    def inputs(self) -> cache.Inputs:
        image = self.stage.image
        return {
            "base": self.stage.base,
            "instruction": " ".join(self.builder.source_text(self.statement)),
            "command": json.dumps(self.words),
            "network": self.network,
            "user": str(image.config.get("User") or ""),
            "directory": image.directory,
            **{f"argument {name}": value for name, value in self.arguments.items()},
            **{f"environment {name}": value for name, value in image.environment.items()},
            **{f"document {one.name}": one.content for one in self.one.command.heredocs},
            **self.mounts.inputs(),
        }

    @property
    def network(self) -> str:
        """Its network mode."""
        return self.builder.settings.network if self.one.network in ("", "default") else self.one.network

    def perform(self, step: Told) -> Doing:
        try:
            for _ in self.mounts.prepare():
                yield None
            if self.program:
                self.mounts.document(self.program.content, f"{PROGRAMS}/{self.program.name}")
            return (yield from self.run(step))
        finally:
            self.mounts.close()

    def run(self, step: Told) -> Doing:
        """The container, from its start to the layer that is made of it."""
        workshop, stage = self.builder.workshop, self.stage
        ground, options = self.ground(stage.snapshot), self.options()
        running, record = workshop.start(ground, options)
        self.builder.running[stage.index] = record
        try:
            running.wait_started()
            while True:
                yield running
                told = running.written()
                if told is None:
                    break
                self.builder.tell("output", step, told)
        except errors.MiniContainerError as error:
            self.fail(str(error))
        finally:
            running.close()
        if running.code and self.builder.settings.debug:
            changed = workshop.layer_of(stage.snapshot, record)
            self.builder.left = True
            self.builder.settings.debug(self.ground(changed), options)
        if running.code:
            self.fail(f"exit code: {running.code}")
        made = workshop.layer_of(stage.snapshot, record)
        del self.builder.running[stage.index]
        return made

    def ground(self, snapshot: making.Snapshot) -> containers.Ground:
        """What its container stands on."""
        image = self.stage.image
        described = {key: image.config.get(key) for key in ("Env", "User", "WorkingDir")}
        document = {**image.platform, "config": described}
        return containers.Ground(
            self.stage.ground, "<build>", document, snapshot.chain_ids, self.mounts.prepared.secret
        )

    def options(self) -> dict[str, Any]:
        """How its container is to run, as Containers.plan takes it."""
        prepared = self.mounts.prepared
        return {
            **self.builder.settings.options,
            "command": self.words,
            "entrypoint": [],
            "network_mode": self.network,
            "hostname": HOSTNAME,
            "environment": {"HOSTNAME": None, **self.builder.proxies, **self.arguments, **prepared.environment},
            "mounts": prepared.mounts,
        }

    def fail(self, reason: str) -> None:
        """Raise BuildError for this step."""
        shown = " ".join(self.words)
        disk = os.statvfs(self.builder.engine.root)
        if disk.f_bavail * disk.f_frsize < FULL and "disk is full" not in reason:
            reason += "; the disk is full: free some space, and do it again"
        dockerfile.refuse(
            self.builder.source, self.statement, f'process "{shown}" did not complete successfully: {reason}'
        )

    def noted(self, created: str) -> config.Image:
        known = self.stage.variables
        declared = {name: known.get(name, "") for name in self.stage.declared}
        return config.ran(self.stage.image, self.words, declared, created)


FULL = 1 << 20  # bytes that are left: a step that failed may have wanted more
HOSTNAME = "buildkitsandbox"  # what a step is told of its name; BuildKit's, so that files with the name in it agree
PROGRAMS = "/dev/pipes"  # where a heredoc lies that is a program; BuildKit's place


def program(given: instructions.Command) -> dockerfile.Heredoc | None:
    """The heredoc that stands alone and says by `#!` who is to run it."""
    alone = len(given.heredocs) == 1 and given.text.strip() == given.heredocs[0].word
    return given.heredocs[0] if alone and given.heredocs[0].content.startswith("#!") else None


def command(image: config.Image, one: instructions.Run) -> list[str]:
    """The words that a RUN runs. Heredocs follow the shell's text; one that stands alone is the text itself, or a file
    to be run, if it begins with `#!`."""
    given = one.command
    if given.words is not None:
        return list(given.words)
    text = given.text
    if script := program(given):
        return [*image.shell, f"{PROGRAMS}/{script.name}"]
    if len(given.heredocs) == 1 and text.strip() == given.heredocs[0].word:
        text = given.heredocs[0].content
    else:
        for heredoc in given.heredocs:
            text += f"\n{heredoc.content}{heredoc.name}"
    return [*image.shell, text]
