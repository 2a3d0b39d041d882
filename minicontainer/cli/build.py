"""`build`: so far `--check`, which reads a Dockerfile and says what is wrong or doubtful about it."""

from __future__ import annotations

import os
import sys

from .. import errors, files
from ..build import check, dockerfile, instructions
from . import UsageError
from .flags import Flag, parse

FLAGS = [
    Flag("--check", "check", "bool", "read the Dockerfile, say what is wrong or doubtful, and build nothing"),
    Flag("-f --file", "file", "text", "the Dockerfile (default: PATH/Dockerfile)"),
    Flag("--target", "target", "text", "the stage to build (default: the last)"),
    Flag("--build-arg", "build_args", "list", "NAME=VALUE for an ARG; NAME alone: this environment's"),
]


def main(arguments: list[str]) -> int:
    """docker-build(1): with --check, 1 if there is anything to say, 0 if not."""
    values, rest = parse(
        "build --check [-f FILE] [--target STAGE] [--build-arg NAME=VALUE …] PATH | -", FLAGS, arguments
    )
    if not values["check"]:
        raise UsageError(
            "build: building is not there yet, only `build --check`; `commit` makes an image of a container"
        )
    if len(rest) != 1:
        raise UsageError(
            '"minicontainer build" needs one word: the directory to build from, or - for a Dockerfile here'
        )
    build_args = {}
    for text in values["build_args"]:
        name, given, value = text.partition("=")
        if given or name in os.environ:
            build_args[name] = value if given else os.environ[name]
    file, content = read(rest[0], values.get("file"))
    try:
        script = instructions.read(dockerfile.parse(content, file))
        findings = check.check(script, values.get("target", ""), build_args)
    except errors.BuildError as error:
        print(f"minicontainer: {shown(error)}", file=sys.stderr)
        return 1
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


def read(path: str, file: str | None) -> tuple[str, bytes]:
    """The Dockerfile's name, and its bytes."""
    if "-" in (path, file):
        return "Dockerfile", sys.stdin.buffer.read()
    name = file or os.path.join(path, "Dockerfile")
    if not os.path.isdir(path):
        raise errors.InvalidArgument(f"{path}: no such directory to build from")
    return name, files.read(name)
