"""`build`: an image by a Dockerfile; with `--check`, what is wrong or doubtful about it, and nothing is built."""

from __future__ import annotations

import os
import sys

from .. import errors, files
from ..build import builder, check, dockerfile, instructions
from ..engine import client, committing
from . import UsageError, building
from .flags import Flag, parse

FLAGS = [
    Flag("-t --tag", "tags", "list", "REPOSITORY[:TAG]: what the image is to be called"),
    Flag("-f --file", "file", "text", "the Dockerfile (default: PATH/Dockerfile)"),
    Flag("--target", "target", "text", "the stage to build (default: the last)"),
    Flag("--build-arg", "build_args", "list", "NAME=VALUE for an ARG; NAME alone: this environment's"),
    Flag("--label", "labels", "list", "NAME=VALUE"),
    Flag("--no-cache", "no_cache", "bool", "do every step, whatever has been done before"),
    Flag("--pull", "pull", "bool", "ask the registry for a newer base image"),
    Flag("--platform", "platform", "text", "linux/arm64: whose image to make"),
    Flag("--network", "network", "text", "of its RUNs: bridge (default), none, host"),
    Flag("--progress", "progress", "text", "auto, plain, json"),
    Flag("--iidfile", "iidfile", "text", "write the image's id to this file"),
    Flag("-q --quiet", "quiet", "bool", "print the image's id alone"),
    Flag("--why", "why", "bool", "say of each step that is done what has changed since the last time"),
    Flag("--check", "check", "bool", "read the Dockerfile, say what is wrong or doubtful, and build nothing"),
]


def main(arguments: list[str]) -> int:
    """docker-build(1). 1 where a step failed; with --check, 1 if there is anything to say, 0 if not."""
    values, rest = parse("build [FLAGS] PATH | -", FLAGS, arguments)
    if len(rest) != 1:
        raise UsageError(
            '"minicontainer build" needs one word: the directory to build from, or - for a Dockerfile here'
        )
    for name in values["tags"]:
        committing.check_name(name)
    file, content = read(rest[0], values.get("file"))
    build_args = pairs(values["build_args"])
    try:
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
            epoch=committing.source_date_epoch(),
        )
        teller = building.teller(values.get("progress", "auto"), values["quiet"], values["why"])
        image = builder.Builder(client.Client().containers, script, settings, teller.tell).build(*values["tags"])
    except errors.BuildError as error:
        print(f"minicontainer: {shown(error)}", file=sys.stderr)
        return 1
    teller.end(image, values["tags"])
    if "iidfile" in values:
        files.write(values["iidfile"], image.id.encode())
    return 0


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


def read(path: str, file: str | None) -> tuple[str, bytes]:
    """The Dockerfile's name, and its bytes."""
    if "-" in (path, file):
        return "Dockerfile", sys.stdin.buffer.read()
    name = file or os.path.join(path, "Dockerfile")
    if not os.path.isdir(path):
        raise errors.InvalidArgument(f"{path}: no such directory to build from")
    return name, files.read(name)
