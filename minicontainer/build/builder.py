"""A build: stages that stand on one another, each a loop over its instructions.

    for each instruction
        expand its variables
        does it change no file?  note it in the image's config          (config.py)
        collect its inputs; is there a layer of such inputs?  take it   (cache.py)
        else do it, and make a layer of what has changed                (running.py, copying.py; engine/building.py)

A stage is a generator that yields whenever it waits for a container, so that stages which do not need one another run
side by side, in one thread: `Builder.stages` is their whole scheduler.
"""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from .. import errors, files
from ..engine import building, containers
from ..image import archive, making, removal, store
from ..runtime import session
from . import (
    cache,
    check,
    config,
    context,
    contexts,
    copies,
    copying,
    dockerfile,
    exchange,
    expand,
    instructions,
    output,
    running,
)
from .instructions import Script

Waiting = Iterator[session.Session | None]
"""A stage under way: it yields what it waits for, None for a moment."""


class Settings(NamedTuple):
    """What `build` was told. `options` are containers.plan's, for RUN; `secrets` and `sockets` (of ssh agents) by id.

    `debug` is called with the ground of a RUN that has failed, and its options; `deliver` puts the result where it
    is to go, and then it is in no index. `cache_from` and `cache_to`: other caches. `contexts`: those of
    --build-context, by their names as contexts.normal has them.
    """

    target: str = ""
    build_args: dict[str, str] = {}  # noqa: RUF012 - never changed
    labels: dict[str, str] = {}  # noqa: RUF012
    use_cache: bool = True
    pull: bool = False
    platform: str = ""
    network: str = "bridge"
    secrets: dict[str, bytes] = {}  # noqa: RUF012
    sockets: dict[str, str] = {}  # noqa: RUF012
    options: dict[str, Any] = {}  # noqa: RUF012
    debug: Callable[[containers.Ground, dict[str, Any]], None] | None = None
    epoch: int | None = None
    cache_from: tuple[exchange.Place, ...] = ()
    cache_to: tuple[exchange.Place, ...] = ()
    contexts: dict[str, contexts.Named] = {}  # noqa: RUF012
    deliver: Callable[[output.Made, Tell], None] | None = None


class Given(NamedTuple):
    """The context, and what the hashes of its files are kept under from one build to the next: its path, or "" for one
    that will not be there again."""

    tree: context.Tree
    name: str


@contextlib.contextmanager
def given(path: str, name: str) -> Iterator[Given]:
    """A directory as the context of the Dockerfile of that name, whose .dockerignore may stand beside it."""
    with context.Tree(path, context.ignored(path, name)) as tree:
        yield Given(tree, os.path.realpath(path))


class Step(NamedTuple):
    """One step, for who tells of the build: `[stage number/of] text`. `id` counts from 1 over the whole build."""

    id: int
    stage: str
    number: int
    of: int
    text: str

    def __str__(self) -> str:
        if not self.of:  # it is no instruction's
            return self.text
        return f"[{self.stage}{' ' if self.stage else ''}{self.number}/{self.of}] {self.text}"


Tell = Callable[[str, Step, Any], None]
"""Called as a build goes on: ("begun", step, None), ("cached", step, None), ("why", step, [sentence, …]),
("output", step, (1 or 2, bytes)), ("done", step, seconds), ("failed", step, seconds); of the build as a
whole ("warning", NO_STEP, sentence)."""
NO_STEP = Step(0, "", 0, 0, "")


class Stage:
    """One stage under way: what its files are, what its image says, and the variables that it knows."""

    def __init__(self, index: int, name: str) -> None:
        self.index, self.name = index, name
        self.snapshot = making.Snapshot()
        self.image = config.scratch({})
        self.ground = ""  # the id of the image at the bottom
        self.created = ""  # when the newest layer was made
        self.arguments: dict[str, str] = {}  # what ARG has declared, and no ENV has hidden since
        self.declared: list[str] = []  # and what has no value, too
        self.number, self.of = 0, 0
        self.whole = False  # whether it stands on the files of a directory

    @property
    def variables(self) -> dict[str, str]:
        """What an instruction may ask for: of an ARG and an ENV of one name, the later one (BuildKit; the reference
        says that ENV always wins)."""
        return {**self.image.environment, **self.arguments}

    @property
    def base(self) -> str:
        """What a step's files stand on: the chainID; "scratch" for nothing."""
        return self.snapshot.chain_ids[-1] if self.snapshot.diff_ids else "scratch"


class Builder:
    """One build of one Dockerfile."""

    def __init__(
        self,
        engine: containers.Containers,
        script: Script,
        settings: Settings,
        tell: Tell,
        given: Given | None = None,
    ) -> None:
        self.engine, self.settings, self.tell, self.given = engine, settings, tell, given
        self.platform = platform_of(settings.platform)
        self.script = contexts.placed(self.resolved(script), settings.contexts)
        on = check.stage_named(script, settings.target) if settings.target else None
        self.target = settings.target if on is None else str(on)  # its stage may have lost the name
        self.trees: dict[str, context.Tree] = {}  # of those contexts that are directories
        self.borrowed: dict[str, archive.Borrowed] = {}  # of those that are images in directories
        self.source = script.source
        self.cache = cache.Cache(engine.images)
        self.built: dict[int, Stage] = {}
        self.running: dict[int, containers.Record] = {}
        self.steps = 0
        self.left = False  # whether there may be layers that nobody needs any more
        self.others: dict[str, making.Snapshot] = {}
        self.hashes: dict[cache.Stamp, str] = {}
        self.imported = [(place, exchange.records_of(place)) for place in settings.cache_from]
        self.known: dict[str, cache.Inputs] = {}  # the steps of this build, by their keys
        self.declared = check.declared(script)  # the names of all ARGs

    def build(self, *names: str) -> store.Image | making.Draft:
        """Build the target stage, and enter its image under these names. Raises BuildError, and what images raise."""
        try:
            with building.Workshop(self.engine, self.settings.epoch) as self.workshop:
                if self.settings.secrets:
                    self.workshop.use_memory()
                return self.made(check.needed(self.script, self.target), names)
        finally:
            for tree in self.trees.values():
                tree.close()
            if self.left:
                removal.sweep(self.engine.images, self.engine.users)

    def made(self, order: list[int], names: tuple[str, ...]) -> store.Image | making.Draft:
        """The image, once these stages are built."""
        self.cache.open()
        lasting = self.given.name if self.given else ""
        if lasting:
            self.hashes = self.cache.hashes(lasting)
        known = len(self.hashes)
        try:
            self.stages(order)
        finally:
            if lasting and len(self.hashes) > known:
                self.cache.keep_hashes(lasting, self.hashes)
        self.warn()
        for place in self.settings.cache_to:
            exchange.write(self.engine.images, self.cache, self.known, place)
        last = self.built[order[-1]]
        image = last.image
        if self.settings.labels:
            image = image.with_config(Labels={**(image.config.get("Labels") or {}), **self.settings.labels})
        made = output.Made(self.workshop, last.snapshot, image.document(last.created), self.steps)
        if self.settings.deliver is None:
            return made.enter(*names)
        self.settings.deliver(made, self.tell)
        return made.draft

    def warn(self) -> None:
        """Tell of each --build-arg that no ARG has taken, in docker's words."""
        unused = sorted(self.settings.build_args.keys() - self.declared - check.PREDEFINED)
        if unused:
            self.tell("warning", NO_STEP, f"One or more build-args [{' '.join(unused)}] were not consumed")

    # The stages side by side

    def stages(self, order: list[int]) -> None:
        """Build these stages, each as soon as those that it needs are there."""
        needs = {index: set(check.needs(self.script, index)) for index in order}
        under_way: dict[int, Waiting] = {}
        waiting: dict[int, session.Session | None] = {}
        try:
            while len(self.built) < len(order):
                for index in order:
                    if index not in under_way and needs[index] <= self.built.keys():
                        under_way[index] = self.stage(index)
                        waiting[index] = None
                for index in ready(waiting):
                    try:
                        waiting[index] = next(under_way[index])
                    except StopIteration:
                        del waiting[index]
        finally:
            for record in self.running.values():  # of a build that has failed or was interrupted
                self.workshop.discard(record["id"])

    def stage(self, index: int) -> Waiting:
        """Build one stage, yielding when it waits."""
        described = self.script.stages[index]
        stage = Stage(index, described.base.name or (f"stage-{index}" if len(self.script.stages) > 1 else ""))
        body = [*self.begin(stage, described.base), *described.instructions]
        stage.of = 1 + sum(isinstance(one, STEPS) for one in body)
        if stage.whole:
            yield from self.cached(stage, copies.Whole(self, stage, described.base))
        else:
            self.step(stage, described.base.statement)
        for one in body:
            yield from self.perform(stage, one)
        self.built[index] = stage

    def begin(self, stage: Stage, base: instructions.From) -> list[instructions.Instruction]:
        """FROM: an earlier stage, nothing, a directory, an image. Returns what an image's ONBUILD has kept for us."""
        earlier = check.base_stage(self.script, stage.index)
        if earlier is not None:
            below = self.built[earlier]
            stage.snapshot, stage.image, stage.ground = below.snapshot, below.image, below.ground
            stage.created = below.created
            stage.arguments, stage.declared = dict(below.arguments), list(below.declared)
            stage.image = stage.image._replace(own_command=False)
        elif base.image == "scratch":
            stage.image = config.scratch(self.platform)
            stage.created = config.created(self.settings.epoch)
        elif self.directory(base.image):
            stage.image, stage.whole = config.scratch(self.platform), True
        else:
            image = self.fetched(base)
            stage.snapshot, stage.image = making.snapshot_of(image), config.based_on(image.config)
            stage.ground, stage.created = image.id, image.created or config.created(self.settings.epoch)
        waiting = stage.image.config.get("OnBuild") or []
        stage.image = stage.image.with_config(OnBuild=None)
        return [self.kept(base, line) for line in waiting]

    def kept(self, base: instructions.From, line: str) -> instructions.Instruction:
        """A line that the base image's ONBUILD has kept."""
        source = dockerfile.parse(line, f"ONBUILD of {base.image}")
        return instructions.read_one(source, source.statements[0])

    def named(self, name: str) -> contexts.Named | None:
        """What --build-context says that a name means."""
        try:
            return self.settings.contexts.get(contexts.normal(name)) if self.settings.contexts else None
        except errors.InvalidArgument:
            return None

    def directory(self, name: str) -> context.Tree | None:
        """The directory that --build-context says a name to be."""
        named = self.named(name)
        if named is None or named.kind != contexts.DIRECTORY:
            return None
        if named.place not in self.trees:
            self.trees[named.place] = contexts.tree(named)
        return self.trees[named.place]

    def layout(self, named: contexts.Named) -> archive.Borrowed:
        """The image in a directory."""
        if str(named) not in self.borrowed:
            self.left = True  # its layers may end up in no image
            self.borrowed[str(named)] = archive.borrow(self.workshop.job, named.place, named.which)
        return self.borrowed[str(named)]

    def fetched(self, base: instructions.From) -> store.Image | archive.Borrowed:
        """The image that a stage stands on; pulled if it is not here, or if --pull says so."""
        platform = base.platform or self.settings.platform
        named = self.named(base.image)
        image = named.place if named else base.image
        try:
            if named and named.kind == contexts.LAYOUT:
                return self.layout(named)
            try:
                found = self.engine.images.get(image)
                if not self.settings.pull and (not platform or matches(found, platform)):
                    return found
            except errors.ImageNotFound:
                from ..engine import pulling

                if pulling.to_fetch(image) is None:
                    raise
            from ..engine import images

            return images.Images(self.engine.root).pull(image, platform=platform).image
        except (errors.NotFound, errors.RegistryError, errors.InvalidArgument, errors.InvalidImage) as error:
            dockerfile.refuse(
                self.source, base.statement, f"{base.statement.keyword} {base.image}: {error}", base.image
            )

    # What steps ask for

    @contextlib.contextmanager
    def tree(self, stage: Stage, statement: dockerfile.Statement, name: str) -> Iterator[context.Tree]:
        """What `--from` names: a directory, an earlier stage, an image; without, the context. Raises BuildError."""
        if not name:
            if self.given is None:
                dockerfile.refuse(self.source, statement, "there is no context: give a directory in place of -")
            yield self.given.tree
            return
        if directory := self.directory(name):
            yield directory
            return
        on = check.earlier_stage(self.script, stage.index, name)
        snapshot = self.built[on].snapshot if on is not None else self.other(statement, name)
        with self.workshop.seen(snapshot) as root:
            yield context.Tree(root, keep=True)

    def other(self, statement: dockerfile.Statement, name: str) -> making.Snapshot:
        """The layers of an image that is copied from."""
        if name not in self.others:
            base = instructions.From(statement, name, "", "")
            self.others[name] = making.snapshot_of(self.fetched(base))
        return self.others[name]

    # Variables

    def resolved(self, script: Script) -> Script:
        """The script with the variables in its FROMs put in: those of the ARGs above them, and the platform's."""
        known = {**self.platform_arguments(), **self.proxies}
        for argument in script.arguments:
            for name, default in argument.pairs:
                known[name] = self.argument(script, argument, name, default, known)
        self.above = known
        stages = []
        for stage in script.stages:
            base = stage.base
            image = expanded(script.source, base.statement, base.image, known)
            if not image:
                dockerfile.refuse(script.source, base.statement, f"FROM {base.image}: it comes to nothing", base.image)
            platform = expanded(script.source, base.statement, base.platform, known)
            stages.append(stage._replace(base=base._replace(image=image, platform=platform)))
        return script._replace(stages=tuple(stages))

    @property
    def proxies(self) -> dict[str, str]:
        """Those of --build-arg that need no ARG, and count for no cache."""
        return {name: value for name, value in self.settings.build_args.items() if name in check.PROXY_ARGUMENTS}

    def platform_arguments(self) -> dict[str, str]:
        """TARGETPLATFORM and its kin (Dockerfile reference, *Automatic platform ARGs*)."""
        found = {}
        for prefix, platform in (("TARGET", self.platform), ("BUILD", platform_of(""))):
            parts = [platform["os"], platform["architecture"], platform.get("variant", "")]
            found[f"{prefix}PLATFORM"] = "/".join(part for part in parts if part)
            found |= {f"{prefix}OS": parts[0], f"{prefix}ARCH": parts[1], f"{prefix}VARIANT": parts[2]}
        return found

    def argument(
        self, script: Script, one: instructions.Arg, name: str, default: str | None, known: dict[str, str]
    ) -> str:
        """What an ARG is worth: --build-arg's value, or the default's; where there is none, it is not set: ""."""
        if name in self.settings.build_args:
            return self.settings.build_args[name]
        return "" if default is None else expanded(script.source, one.statement, default, known)

    def declare(self, stage: Stage, one: instructions.Arg) -> None:
        """ARG within a stage: one that stands above the FROMs, too, has its value from there."""
        words = []
        for name, default in one.pairs:
            given = name in self.settings.build_args
            self.declared.add(name)  # also one that an image's ONBUILD has kept
            if name not in stage.declared:
                stage.declared.append(name)
            if default is None and not given and name in self.above:
                stage.arguments[name] = self.above[name]
                words.append(f"{name}={self.above[name]}")
            elif default is None and not given:
                words.append(name)
            else:
                stage.arguments[name] = self.argument(self.script, one, name, default, stage.variables)
                words.append(f"{name}={stage.arguments[name]}")
        stage.image = stage.image.noted(f"ARG {' '.join(words)}", stage.created)

    def text(self, stage: Stage, one: instructions.Instruction, text: str) -> str:
        """A text of an instruction with its variables put in."""
        return self.text_of(stage, one.statement, text)

    def text_of(self, stage: Stage, statement: dockerfile.Statement, text: str) -> str:
        """The same, where the instruction is known by its statement."""
        return expanded(self.source, statement, text, stage.variables)

    def words(self, stage: Stage, one: instructions.Instruction, texts: tuple[str, ...]) -> list[str]:
        """Words, of which one with variables may become several, or none."""
        found: list[str] = []
        for text in texts:
            try:
                found += expand.expand(text, stage.variables, self.source.escape).words
            except expand.Malformed as error:
                dockerfile.refuse(self.source, one.statement, f"{one.statement.keyword}: {error}", text)
        return found

    # Instructions

    def perform(self, stage: Stage, one: instructions.Instruction) -> Waiting:
        """One instruction."""
        image, created = stage.image, stage.created
        match one:
            case instructions.Run():
                yield from self.cached(stage, running.Step(self, stage, one))
            case instructions.Copy() | instructions.Add():
                yield from self.cached(stage, copies.Step(self, stage, one))
            case instructions.Workdir():
                path = self.text(stage, one, one.path)
                moved = config.workdir(image, path, created)
                if moved.directory == "/":
                    stage.image = moved
                else:
                    yield from self.cached(stage, Directory(self, stage, one, moved.directory))
            case instructions.Arg():
                self.declare(stage, one)
            case instructions.Env():
                pairs = [(self.text(stage, one, name), self.text(stage, one, text)) for name, text in one.pairs]
                stage.image = config.env(image, pairs, created)
                for name, _ in pairs:
                    stage.arguments.pop(name, None)
            case instructions.Label():
                pairs = [(self.text(stage, one, name), self.text(stage, one, text)) for name, text in one.pairs]
                stage.image = config.label(image, pairs, created)
            case instructions.Cmd():
                stage.image = config.cmd(image, config.command(image, one.command.words, one.command.text), created)
            case instructions.Entrypoint():
                words = config.command(image, one.command.words, one.command.text)
                stage.image = config.entrypoint(image, words, created)
            case instructions.Expose():
                stage.image = config.expose(image, self.words(stage, one, one.ports), created)
            case instructions.Volume():
                stage.image = config.volume(image, [self.text(stage, one, path) for path in one.paths], created)
            case instructions.User():
                stage.image = config.user(image, self.text(stage, one, one.user), created)
            case instructions.Shell():
                stage.image = config.shell(image, list(one.words), created)
            case instructions.Stopsignal():
                stage.image = config.stopsignal(image, self.text(stage, one, one.signal), created)
            case instructions.Maintainer():
                stage.image = config.maintainer(image, one.name, created)
            case instructions.Onbuild():
                stage.image = config.onbuild(image, one.statement.text)
            case instructions.Healthcheck():
                stage.image = health(image, one, created)

    def cached(self, stage: Stage, work: running.Work) -> Waiting:
        """A step that makes a layer: from the cache, or by doing it."""
        step = self.step(stage, work.statement)
        began = time.monotonic()
        try:
            inputs = work.inputs()
            if self.settings.epoch is not None:  # no file of the layer is younger
                inputs["SOURCE_DATE_EPOCH"] = str(self.settings.epoch)
            key = cache.key_of(inputs)
            place = f"{self.source.file} {stage.name} {stage.number}"
            found = self.look_up(key, inputs, stage.snapshot) if self.settings.use_cache else None
            if found is None:
                self.tell("why", step, self.reasons(place, inputs))
                snapshot = yield from work.perform(step)
                found = cache.Found(snapshot, config.created(self.settings.epoch))
                self.left |= self.cache.keep(key, inputs, *found)
                self.tell("done", step, time.monotonic() - began)
            else:
                self.tell("cached", step, None)
        except BaseException:
            self.tell("failed", step, time.monotonic() - began)
            raise
        finally:
            work.close()
        self.known[key] = inputs
        self.cache.note(place, key, inputs)
        stage.snapshot = found.snapshot
        stage.created = found.created if self.settings.epoch is None else config.created(self.settings.epoch)
        stage.image = work.noted(stage.created)

    def look_up(self, key: str, inputs: cache.Inputs, below: making.Snapshot) -> cache.Found | None:
        """What the cache has for a step, or one of those that were named."""
        found = self.cache.find(self.workshop.job, key, below)
        for place, records in self.imported if found is None else ():
            found = exchange.fetch(place, records, self.workshop.job, key, below)
            if found is not None:
                self.cache.keep(key, inputs, *found)
                break
        return found

    def reasons(self, place: str, inputs: cache.Inputs) -> list[str]:
        """Why a step is to be done, a sentence each."""
        return cache.why(self.cache.last(place), inputs) if self.settings.use_cache else ["--no-cache"]

    def step(self, stage: Stage, statement: dockerfile.Statement) -> Step:
        """Count a step, and tell that it begins."""
        self.steps += 1
        stage.number += 1
        text = " ".join([statement.keyword, *self.source_text(statement)])
        step = Step(self.steps, stage.name, stage.number, stage.of, text)
        self.tell("begun", step, None)
        return step

    def source_text(self, statement: dockerfile.Statement) -> list[str]:
        """A statement's flags and text, as its author wrote them, on one line."""
        flags = [f"--{name}" + (f"={value}" if value is not None else "") for name, value in statement.flags]
        return [*flags, statement.text] if statement.text else flags


STEPS = (instructions.Run, instructions.Copy, instructions.Add, instructions.Workdir)


class Directory(running.Work):
    """WORKDIR's layer: the directory, if it was not there."""

    def __init__(self, builder: Builder, stage: Stage, one: instructions.Workdir, path: str) -> None:
        super().__init__(builder, stage, one.statement)
        self.path = path

    def inputs(self) -> cache.Inputs:
        return {"base": self.stage.base, "instruction": f"WORKDIR {self.path}", "user": self.user}

    @property
    def user(self) -> str:
        """Whom a directory is to belong to that it makes."""
        return str(self.stage.image.config.get("User") or "")

    def made(self, root: int) -> int:
        """The directory, open. Those that were not there belong to the image's user."""
        owner = copying.owner_of(root, self.user, self.refuse, "USER") if self.user else None
        return files.make_inside(root, self.path, directory=True, owner=owner)

    def perform(self, step: Step) -> running.Doing:
        yield from ()
        with self.builder.workshop.bench(self.stage.snapshot) as bench:
            os.close(self.made(bench.root))
        return self.builder.workshop.layer(self.stage.snapshot, bench.upper)

    def noted(self, created: str) -> config.Image:
        return config.workdir(self.stage.image, self.path, created)


def ready(waiting: dict[int, session.Session | None]) -> list[int]:
    """Those stages that can go on; waits until there is one."""
    now = [index for index, end in waiting.items() if end is None]
    ends = {end.end.fileno(): index for index, end in waiting.items() if end is not None}
    poll = select.poll()
    for descriptor in ends:
        poll.register(descriptor, select.POLLIN)
    return now + [ends[descriptor] for descriptor, _ in poll.poll(0 if now else None)]


def expanded(source: dockerfile.Source, statement: dockerfile.Statement, text: str, known: dict[str, str]) -> str:
    """A text with its variables put in. Raises BuildError."""
    try:
        return expand.expand(text, known, source.escape).text
    except expand.Malformed as error:
        dockerfile.refuse(source, statement, f"{statement.keyword}: {error}", text)


def health(image: config.Image, one: instructions.Healthcheck, created: str) -> config.Image:
    """HEALTHCHECK."""
    if one.command is None:
        test = ["NONE"]
    elif one.command.words is not None:
        test = ["CMD", *one.command.words]
    else:
        test = ["CMD-SHELL", one.command.text]
    times = dict(zip(config.TIMES, (one.interval, one.timeout, one.start_period, one.start_interval), strict=True))
    return config.healthcheck(image, test, {**times, "Retries": one.retries}, created)


def platform_of(text: str) -> dict[str, str]:
    """`linux/arm64` as an image's config says it; of nothing, this machine's. Raises InvalidArgument."""
    from ..engine import committing

    architecture, variant = committing.asked_platform(text)
    return {"architecture": architecture, "os": "linux", **({"variant": variant} if variant else {})}


def matches(image: store.Image, platform: str) -> bool:
    """Whether an image is of that platform."""
    wanted = platform_of(platform)
    return image.architecture in ("", wanted["architecture"])
