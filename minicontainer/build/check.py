"""What `build --check` says of a Dockerfile before anything is built: errors that no build would survive, and warnings.

The warnings' names are those of docker's build checks, so that its documentation of each, and `# check=skip=NAME`,
hold here too. Pure.
"""

from __future__ import annotations

from typing import NamedTuple

from .. import errors
from . import dockerfile, expand, instructions
from .dockerfile import Source, Statement
from .instructions import Script

# What every build knows without an ARG (Dockerfile reference: *Predefined ARGs*), and a FROM by itself.
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
PROXY_ARGUMENTS = {*PROXIES, *(name.lower() for name in PROXIES)}
PREDEFINED = {*PROXY_ARGUMENTS, "SOURCE_DATE_EPOCH"}
PLATFORM = {f"{side}{part}" for side in ("BUILD", "TARGET") for part in ("PLATFORM", "OS", "ARCH", "VARIANT")}


class Finding(NamedTuple):
    """One warning: its rule, a sentence, and the place; line from 1, column from 0."""

    rule: str
    reason: str
    file: str
    line: int
    source: str
    column: int

    def __str__(self) -> str:
        shown = errors.BuildError(f"{self.rule}: {self.reason}", self.file, self.line, self.source, self.column)
        return str(shown)


class Settings(NamedTuple):
    """`# check=skip=A,B;error=true`: which rules are silent, and whether a warning is an error."""

    rules: tuple[str, ...]
    error: bool


def settings(source: Source) -> Settings:
    """The directive `check`. Raises BuildError for what it cannot mean."""
    rules: tuple[str, ...] = ()
    error = False
    for part in source.directives.get("check", "").split(";"):
        name, _, value = part.strip().partition("=")
        if name == "skip":
            rules = tuple(rule.strip().lower() for rule in value.split(","))
        elif name == "error" and value.lower() in ("true", "false"):
            error = value.lower() == "true"
        elif part.strip():
            line = next(at for at, text in enumerate(source.lines) if "check" in text)
            reason = f"check={part.strip()}: skip=RULE,… or error=true"
            raise errors.BuildError(reason, source.file, line + 1, source.lines[line])
    return Settings(rules, error)


def stage_named(script: Script, name: str) -> int | None:
    """The index of the stage of that name or number; of two of one name, the last. None: there is none."""
    for index in reversed(range(len(script.stages))):
        if script.stages[index].base.name == name.lower():
            return index
    if name.isascii() and name.isdigit() and len(name) < 9 and int(name) < len(script.stages):
        return int(name)
    return None


def earlier_stage(script: Script, index: int, name: str) -> int | None:
    """The same among those that stand before the stage `index`."""
    return stage_named(script._replace(stages=script.stages[:index]), name)


def base_stage(script: Script, index: int) -> int | None:
    """The earlier stage that a FROM stands on. It takes names alone: `FROM alpine AS alpine` is an image."""
    image = script.stages[index].base.image
    return None if image.isdigit() else earlier_stage(script, index, image)


def references(script: Script, index: int) -> list[tuple[Statement, str]]:
    """The names behind `--from` in a stage, each with its statement; those with a variable are known at the build."""
    found = []
    for instruction in script.stages[index].instructions:
        if isinstance(instruction, instructions.Copy):
            found.append((instruction.statement, instruction.from_))
        if isinstance(instruction, instructions.Run):
            found += [(instruction.statement, mount.from_) for mount in instruction.mounts]
    return [(statement, name) for statement, name in found if name and "$" not in name]


def declared(script: Script) -> set[str]:
    """The names of all ARGs, those of stages that nobody needs among them."""
    everywhere = [one for stage in script.stages for one in stage.instructions if isinstance(one, instructions.Arg)]
    return {name for one in (*script.arguments, *everywhere) for name, _ in one.pairs}


def needs(script: Script, index: int) -> list[int]:
    """The earlier stages that a stage stands on or copies from. Raises BuildError if it names itself or a later one.

    A name that no stage bears is an image's.
    """
    source = script.source
    on = base_stage(script, index)
    found = [] if on is None else [on]
    for statement, name in references(script, index):
        on = earlier_stage(script, index, name)
        if on is not None:
            found.append(on)
            continue
        on = stage_named(script, name)
        number = name.isascii() and name.isdigit()
        if on == index:
            dockerfile.refuse(source, statement, f"{name} is this stage itself: it would wait for its own end", name)
        if on is not None:
            line = script.stages[on].base.statement.first
            dockerfile.refuse(source, statement, f"{name} is a later stage (line {line}): it is not there yet", name)
        if number:
            dockerfile.refuse(source, statement, f"there is no stage {name}: they are counted from 0", name)
    return sorted(set(found))


def needed(script: Script, target: str = "") -> list[int]:
    """The stages that a build of `target` (the last, if not given) has to build, in order. Raises BuildError."""
    last = stage_named(script, target) if target else len(script.stages) - 1
    if last is None:
        names = [stage.base.name for stage in script.stages if stage.base.name]
        known = f"; there are {', '.join(names)}" if names else ": no stage has a name"
        raise errors.BuildError(f"no stage {target!r} to be the target{known}", script.source.file)
    wanted, found = [last], set()
    while wanted:
        index = wanted.pop()
        if index not in found:
            found.add(index)
            wanted += needs(script, index)
    return sorted(found)


def check(script: Script, target: str = "", build_args: dict[str, str] | None = None) -> list[Finding]:
    """All warnings, by line. Raises BuildError for what no build would survive."""
    needed(script, target)
    for index in range(len(script.stages)):
        needs(script, index)
    checker = Checker(script, build_args or {})
    checker.look()
    skip = settings(script.source).rules
    found = [one for one in checker.findings if "all" not in skip and one.rule.lower() not in skip]
    return sorted(found, key=lambda one: (one.line, one.column, one.rule))


class Checker:
    """One look through a script, with the variables that are known at each line."""

    def __init__(self, script: Script, build_args: dict[str, str]) -> None:
        self.script, self.source = script, script.source
        self.build_args = build_args
        self.findings: list[Finding] = []
        self.global_names: set[str] = set()

    def warn(self, rule: str, statement: Statement, reason: str, at: str = "") -> None:
        place = dockerfile.place(self.source, statement, at)
        self.findings.append(Finding(rule, reason, self.source.file, *place))

    def look(self) -> None:
        for line in self.source.empty_continuations:
            reason = "an empty line amid an instruction: leave it out, or make it a comment"
            self.findings.append(
                Finding("NoEmptyContinuation", reason, self.source.file, line, self.source.lines[line - 1], 0)
            )
        self.casing()
        above: dict[str, str] = dict.fromkeys(PREDEFINED | PLATFORM, "")
        for argument in self.script.arguments:
            self.arguments(argument, above)
            self.global_names |= {name for name, _ in argument.pairs}
        names: dict[str, int] = {}
        left: list[tuple[dict[str, str], bool]] = []
        for index, stage in enumerate(self.script.stages):
            self.head(stage.base, above, names)
            on = names.get(stage.base.image.lower())
            # What an image's own ENV says is not known before it is there.
            known, foreign = left[on] if on is not None else ({}, stage.base.image != "scratch")
            known = dict.fromkeys(PREDEFINED, "") | known
            self.body(stage.instructions, known, foreign)
            left.append((known, foreign))
            if stage.base.name:
                names[stage.base.name] = index

    def casing(self) -> None:
        """An instruction that is in capitals where most are not, or the other way round."""
        statements = self.source.statements
        capitals = sum(one.spelled.isupper() for one in statements)
        small = sum(one.spelled.islower() for one in statements)
        for one in statements:
            if one.spelled != (one.keyword.lower() if small > capitals else one.keyword):
                most = "small letters" if small > capitals else "capitals"
                self.warn("ConsistentInstructionCasing", one, f"{one.spelled}: most here are in {most}", one.spelled)

    def expand(self, statement: Statement, text: str, known: dict[str, str]) -> expand.Expansion | None:
        """A text expanded; None if it asks for a variable that only the build has. Raises BuildError."""
        try:
            return expand.expand(text, known, self.source.escape)
        except expand.Required:
            return None
        except expand.Malformed as error:
            dockerfile.refuse(self.source, statement, f"{statement.keyword}: {error}", text)

    def arguments(self, argument: instructions.Arg, known: dict[str, str]) -> None:
        for name, default in argument.pairs:
            found = self.expand(argument.statement, default or "", known)
            if name in self.build_args:
                known[name] = self.build_args[name]
            else:
                known[name] = found.text if found else ""

    def head(self, base: instructions.From, above: dict[str, str], names: dict[str, int]) -> None:
        """A FROM: its names, and the variables in it."""
        statement = base.statement
        for text in (base.image, base.platform):
            found = self.expand(statement, text, above)
            for name in found.unset if found else ():
                self.warn("UndefinedArgInFrom", statement, f"no ARG above the first FROM sets {name}", f"${name}")
        if not base.name:
            return
        _, as_, spelled = statement.text.split()
        if as_ != ("as" if statement.spelled.islower() else "AS") and as_ in ("as", "AS"):
            self.warn("FromAsCasing", statement, f"{statement.spelled} and {as_}: write both alike", as_)
        if spelled != base.name:
            self.warn("StageNameCasing", statement, f"{spelled}: stages' names are in small letters", spelled)
        if base.name in names:
            line = self.script.stages[names[base.name]].base.statement.first
            self.warn("DuplicateStageName", statement, f"line {line} has a stage {base.name}, too", spelled)
        if base.name in ("scratch", "context"):
            self.warn("ReservedStageName", statement, f"{base.name} means something else already", spelled)

    def body(self, body: tuple[instructions.Instruction, ...], known: dict[str, str], foreign: bool) -> None:
        """One stage's instructions; `known` grows by its ARG and ENV."""
        absolute = shell = False
        seen: dict[str, Statement] = {}
        for one in body:
            statement = one.statement
            self.variables(one, known, foreign)
            if isinstance(one, instructions.Arg):
                self.arguments(one, known)
            elif isinstance(one, instructions.Env):
                known |= {name: text if one.legacy else self.value(statement, text, known) for name, text in one.pairs}
            elif isinstance(one, instructions.Shell):
                shell = True
            elif isinstance(one, instructions.Maintainer):
                reason = "MAINTAINER is of old: LABEL org.opencontainers.image.authors= says it now"
                self.warn("MaintainerDeprecated", statement, reason)
            elif isinstance(one, instructions.Workdir):
                if not absolute and not one.path.lstrip("\"'").startswith(("/", "$")):
                    reason = f"{one.path}: where it leads, the base image decides; begin with /"
                    self.warn("WorkdirRelativePath", statement, reason, one.path)
                absolute = True
            if isinstance(one, instructions.Env | instructions.Label) and one.legacy:
                name = one.pairs[0][0]
                self.warn("LegacyKeyValueFormat", statement, f"write {statement.keyword} {name}=…, with a =", name)
            if isinstance(one, instructions.Cmd | instructions.Entrypoint):
                if one.command.words is None and one.command.text and not shell:
                    reason = f'a shell stands between signals and this command: {statement.keyword} ["…"] has none'
                    self.warn("JSONArgsRecommended", statement, reason)
            if statement.keyword in ("CMD", "ENTRYPOINT", "HEALTHCHECK"):
                before = seen.get(statement.keyword)
                if before:
                    reason = f"without effect: line {statement.first} has a {statement.keyword}, too"
                    self.warn("MultipleInstructionsDisallowed", before, reason)
                seen[statement.keyword] = statement

    def value(self, statement: Statement, text: str, known: dict[str, str]) -> str:
        found = self.expand(statement, text, known)
        return found.text if found else ""

    def variables(self, one: instructions.Instruction, known: dict[str, str], foreign: bool) -> None:
        """Names in an instruction that nothing sets. An image may: then only those are told that ARG sets too early."""
        for text in expanded(one):
            found = self.expand(one.statement, text, known)
            for name in found.unset if found else ():
                if name in self.global_names:
                    reason = f"{name} is an ARG of the FROMs: a stage that uses it says ARG {name}, too"
                elif foreign:
                    continue
                else:
                    reason = f"no ARG or ENV above sets {name}"
                self.warn("UndefinedVar", one.statement, reason, text)


def expanded(one: instructions.Instruction) -> list[str]:
    """The texts of an instruction in which variables mean something."""
    if isinstance(one, instructions.Copy | instructions.Add):
        documents = {heredoc.word for heredoc in one.statement.heredocs}
        return [text for text in (*one.sources, one.target, one.chown, one.chmod) if text not in documents]
    if isinstance(one, instructions.Env | instructions.Label):
        # The form of old has no quotes.
        return [] if one.legacy else [text for _, text in one.pairs]
    if isinstance(one, instructions.Expose):
        return list(one.ports)
    if isinstance(one, instructions.Volume):
        return list(one.paths)
    if isinstance(one, instructions.User | instructions.Workdir | instructions.Stopsignal):
        return [one.statement.text]
    return []
