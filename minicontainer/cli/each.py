"""Commands that do one thing to each that is named: docker's way to go on where one of them fails."""

from __future__ import annotations

import sys
from collections.abc import Callable

from .. import errors
from ..engine import client
from ..engine.container import Container
from . import UsageError, sentence


def each(command: str, names: list[str], do: Callable[[Container], object], say: bool = True) -> int:
    """`do` to each; its name as it was typed is printed, or with `say` false what `do` returned. The exit code."""
    if not names:
        raise UsageError(f'"minicontainer {command}" needs a container; `minicontainer ps -a` lists them')
    containers = client.Client().containers

    def once(name: str) -> object:
        result = do(containers.get(name))
        return name if say else result

    return one_by_one(names, once)


def one_by_one(names: list[str], do: Callable[[str], object]) -> int:
    """`do` to each name, and print what it returns, if anything. The exit code: 1 where one of them failed."""
    code = 0
    for name in names:
        try:
            said = do(name)
            if said is not None:
                print(said)
        except (errors.MiniContainerError, OSError) as error:
            print(f"minicontainer: {sentence(error)}", file=sys.stderr)
            code = 1
    return code
