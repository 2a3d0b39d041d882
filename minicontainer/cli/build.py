"""`build`: an image by a Dockerfile; with `--check`, what is wrong or doubtful about it, and nothing is built."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from collections.abc import Iterator
from typing import Any

from .. import errors, files
from ..build import builder, check, context, contexts, dockerfile, exchange, ignore, instructions
from ..engine import client, committing
from ..image import tar
from . import UsageError, building, exporting, run
from .flags import Flag, parse, size

# What holds for each RUN, as it would for `run`.
LIMITS = {
    "extra_hosts", "cpu_shares", "cpu_quota", "cpu_period", "cpuset_cpus", "cpuset_mems", "mem_limit", "memswap_limit",
    "ulimits", "shm_size", "security_opt",
}  # fmt: skip

FLAGS = [
    Flag("-t --tag", "tags", "list", "REPOSITORY[:TAG]: what the image is to be called"),
    Flag("-f --file", "file", "text", "the Dockerfile (default: PATH/Dockerfile)"),
    Flag("--target", "target", "text", "the stage to build (default: the last)"),
    Flag("--build-arg", "build_args", "list", "NAME=VALUE for an ARG; NAME alone: this environment's"),
    Flag(
        "--build-context",
        "build_contexts",
        "list",
        "NAME=DIR, docker-image://IMAGE, oci-layout://DIR[:TAG]: what FROM and --from mean by NAME",
    ),
    Flag("--label", "labels", "list", "NAME=VALUE"),
    Flag("--no-cache", "no_cache", "bool", "do every step, whatever has been done before"),
    Flag("--pull", "pull", "bool", "ask the registry for a newer base image"),
    Flag("--platform", "platform", "text", "linux/arm64: whose image to make"),
    Flag("--network", "network", "text", "of its RUNs: bridge (default), none, host"),
    Flag("--secret", "secrets", "list", "id=NAME,src=FILE or id=NAME,env=VARIABLE: for RUN --mount=type=secret"),
    Flag("--ssh", "agents", "list", "default or NAME[=SOCKET]: the agent for RUN --mount=type=ssh"),
    *(flag for flag in run.FLAGS if flag.name in LIMITS),
    Flag("-o --output", "outputs", "list", "DIR, - or type=local|tar|oci|docker|image,dest=…: where the result goes"),
    Flag(
        "--cache-from", "cache_from", "list", "DIR, NAME, type=local,src=DIR or type=registry,ref=NAME: look there, too"
    ),
    Flag(
        "--cache-to",
        "cache_to",
        "list",
        "type=local,dest=DIR or type=registry,ref=NAME: write this build's steps there",
    ),
    Flag("--progress", "progress", "text", "auto, plain, tty, json"),
    Flag("--iidfile", "iidfile", "text", "write the image's id to this file"),
    Flag("-q --quiet", "quiet", "bool", "print the image's id alone"),
    Flag("--why", "why", "bool", "say of each step that is done what has changed since the last time"),
    Flag("--debug-shell", "debug_shell", "bool", "if a RUN fails, a shell where it failed"),
    Flag("--check", "check", "bool", "read the Dockerfile, say what is wrong or doubtful, and build nothing"),
]


def main(arguments: list[str]) -> int:
    """docker-build(1). 1 where a step failed; with --check, 1 if there is anything to say, 0 if not."""
    values, rest = parse("build [FLAGS] PATH | -", FLAGS, arguments)
    if len(rest) == 2 and rest[0].endswith(".sif"):
        raise UsageError("build: a SIF by a definition file is not there yet")
    if len(rest) != 1:
        raise UsageError(
            '"minicontainer build" needs one word: the directory to build from, or - for a Dockerfile here'
        )
    for name in values["tags"]:
        committing.check_name(name)
    exports = exporting.Exports(values["outputs"], values["tags"], values.get("progress", "auto"))
    build_args = pairs(values["build_args"])
    try:
        with opened(rest[0], values.get("file")) as (file, content, found):
            return built(values, build_args, exports, file, content, found)
    except errors.BuildError as error:
        print(f"minicontainer: {shown(error)}", file=sys.stderr)
        return 1


def built(
    values: dict[str, Any], build_args: dict[str, str], exports: exporting.Exports, file: str, content: bytes,
    found: builder.Given | None,
) -> int:  # fmt: skip
    """Build it, or check it."""
    script = instructions.read(dockerfile.parse(content, file))
    if values["check"]:
        return checked(check.check(script, values.get("target", ""), build_args))
    settings = builder.Settings(
        target=values.get("target", ""),
        build_args=build_args,
        labels=pairs(values["labels"]),
        use_cache=not values["no_cache"],
        pull=values["pull"],
        platform=values.get("platform", ""),
        network=values.get("network", "bridge"),
        secrets=secrets(values["secrets"]),
        sockets=dict(map(agent, values["agents"])),
        options=options(values),
        debug=building.shell if values["debug_shell"] else None,
        cache_from=tuple(exchange.place_of("--cache-from", text, "src") for text in values["cache_from"]),
        cache_to=tuple(exchange.place_of("--cache-to", text, "dest") for text in values["cache_to"]),
        contexts=dict(map(contexts.parse, values["build_contexts"])),
        epoch=committing.source_date_epoch(build_args.get("SOURCE_DATE_EPOCH", "")),
        deliver=exports.deliver if exports.outputs else None,
    )
    teller = building.teller(values.get("progress", "auto"), values["quiet"], values["why"], values["debug_shell"])
    made = builder.Builder(client.Client().containers, script, settings, teller.tell, found)
    try:
        with building.orderly():
            image = made.build(*values["tags"])
    finally:
        teller.close()
    exports.push()
    exports.end(teller, image)
    if "iidfile" in values:
        files.write(values["iidfile"], image.id.encode())
    return 0


def options(values: dict[str, Any]) -> dict[str, Any]:
    """The limits of each RUN, as containers.plan takes them."""
    given = run.limits({name: value for name, value in values.items() if name in LIMITS})
    given["ulimits"] = dict(map(run.ulimit, given["ulimits"]))
    if "shm_size" in given:
        given["shm_size"] = size("--shm-size", given["shm_size"])
    return given


def secrets(texts: list[str]) -> dict[str, bytes]:
    """--secret's values by id. Raises UsageError, and InvalidArgument for a file that cannot be read."""
    found = {}
    for text in texts:
        fields = dict(part.partition("=")[::2] for part in text.split(","))
        name, path = fields.get("id", ""), fields.get("src") or fields.get("source")
        if not name or set(fields) - {"id", "src", "source", "env", "type"}:
            raise UsageError(f"--secret {text}: write id=NAME,src=FILE or id=NAME,env=VARIABLE")
        variable = fields.get("env") or ("" if path else name)
        if variable and variable in os.environ:
            found[name] = os.environb[os.fsencode(variable)]
        elif variable and "env" in fields:
            raise errors.InvalidArgument(f"--secret {text}: there is no variable {variable} here")
        else:
            found[name] = read_secret(path or name)
    return found


def read_secret(path: str) -> bytes:
    """A secret's file, half a megabyte at most (docker's bound)."""
    try:
        content = files.read(path)
    except OSError as error:
        raise errors.InvalidArgument(f"--secret: cannot read {path}: {error.strerror}") from None
    if len(content) > MOST_SECRET:
        raise errors.InvalidArgument(f"--secret: {path} has {len(content)} bytes; a secret has {MOST_SECRET} at most")
    return content


MOST_SECRET = 500 * 1024


def agent(text: str) -> tuple[str, str]:
    """--ssh: an id and the socket of the agent. Raises InvalidArgument."""
    name, _, path = text.partition("=")
    path = path or os.environ.get("SSH_AUTH_SOCK", "")
    try:
        if stat.S_ISSOCK(os.stat(path).st_mode):
            return name, os.path.abspath(path)
    except OSError:
        pass
    raise errors.InvalidArgument(f"--ssh {text}: {path or '$SSH_AUTH_SOCK'} is no socket of an ssh agent")


def pairs(texts: list[str]) -> dict[str, str]:
    """NAME=VALUE; of a NAME alone, this environment's value, if it has one."""
    found = {}
    for text in texts:
        name, given, value = text.partition("=")
        if given or name in os.environ:
            found[name] = value if given else os.environ[name]
    return found


def checked(findings: list[check.Finding]) -> int:
    """Say what has been found."""
    for finding in findings:
        print(shown(finding))
    if not findings:
        print("Check complete, no warnings found.")
        return 0
    print(f"Check complete, {len(findings)} warning{'s have' if len(findings) > 1 else ' has'} been found.")
    return 1


def shown(what: object) -> str:
    """A line of the file may hold bytes that are no text, and signs that would move the terminal's cursor."""
    text = str(what).encode("utf-8", "replace").decode()
    return "".join(sign if sign in "\n\t" or sign.isprintable() else "?" for sign in text)


@contextlib.contextmanager
def opened(path: str, file: str | None) -> Iterator[tuple[str, bytes, builder.Given | None]]:
    """The Dockerfile's name and bytes, and the context, if there is one: a directory, or a tar from standard input."""
    if path.startswith(("http://", "https://", "git://", "git@", "github.com/")):
        raise errors.InvalidArgument(f"{path}: clone or fetch it first, and name the directory")
    if path == "-":
        if file == "-":
            raise UsageError("standard input cannot be both the context and the Dockerfile")
        first = sys.stdin.buffer.peek(tar.BLOCK) if hasattr(sys.stdin.buffer, "peek") else b""
        if not context.is_tar(first):
            yield "Dockerfile", sys.stdin.buffer.read(), None
            return
        import tempfile  # 6 ms

        with tempfile.TemporaryDirectory(prefix="minicontainer-context-") as folder:
            context.from_tar(sys.stdin.buffer.read, folder)
            with piped(folder, file or "Dockerfile") as found:
                yield found
        return
    if not os.path.isdir(path):
        raise errors.InvalidArgument(f"{path}: no such directory to build from")
    if file == "-":
        with context.Tree(path, context.ignored(path)) as tree:
            yield "Dockerfile", sys.stdin.buffer.read(), builder.Given(tree, os.path.realpath(path))
        return
    name = file or os.path.join(path, "Dockerfile")
    if file and not os.path.exists(file) and os.path.exists(os.path.join(path, file)):
        name = os.path.join(path, file)
    with builder.given(path, name) as found:
        yield name, files.read(name), found


@contextlib.contextmanager
def piped(folder: str, name: str) -> Iterator[tuple[str, bytes, builder.Given]]:
    """The same of an archive that was unpacked: whoever made it may have put links of any kind there."""
    content = context.read_inside(folder, name)
    if content is None:
        raise errors.BuildError(f"{name}: not found in the context")
    rules = ignore.Ignore(())
    for place in ignore.names(name):
        text = context.read_inside(folder, place)
        if text is not None:
            rules = ignore.parse(text, place)
            break
    with context.Tree(folder, rules) as tree:
        yield name, content, builder.Given(tree, "")
