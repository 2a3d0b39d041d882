"""Mutants: the reference with one mistake each, made mechanically. Tests that cannot tell them apart test nothing.

    a dropped call        os.mkdir(path)                  →  pass
    a dropped flag        MS_BIND | MS_REC                →  MS_BIND,  MS_REC
    swapped arguments     os.symlink(target, path)        →  os.symlink(path, target)

Only what a learner writes is changed: the lines between the markers (stub.py).
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable, Iterator
from typing import NamedTuple

from . import stub

Change = Callable[[ast.AST, ast.AST], None]


class Mutant(NamedTuple):
    """A wrong solution: what was done to which line, and its source."""

    line: int
    change: str
    source: str


def mutants(solution: str) -> Iterator[Mutant]:
    """Every mutant of a solution, in the order of its lines."""
    tree = ast.parse(solution)
    learners = {number for number, (_, inside) in enumerate(stub.regions(solution), 1) if inside}
    nodes = [node for node in ast.walk(tree) if getattr(node, "lineno", 0) in learners]
    nodes.sort(key=lambda node: (node.lineno, node.col_offset))  # type: ignore[attr-defined]
    for node in nodes:
        for change, apply in changes(node):
            index = list(ast.walk(tree)).index(node)
            changed = copy.deepcopy(tree)
            apply(list(ast.walk(changed))[index], changed)
            yield Mutant(node.lineno, change, ast.unparse(ast.fix_missing_locations(changed)) + "\n")  # type: ignore[attr-defined]


def changes(node: ast.AST) -> Iterator[tuple[str, Change]]:
    """What can be done to a node, in words and as a function of (the copy's node, the copy)."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        yield f"dropped the call of {ast.unparse(node.value.func)}", drop
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        yield f"dropped the flag {ast.unparse(node.right)}", keep_left
        yield f"dropped the flag {ast.unparse(node.left)}", keep_right
    if isinstance(node, ast.Call):
        for first in range(len(node.args) - 1):
            one, other = node.args[first : first + 2]
            if ast.dump(one) != ast.dump(other) and not any(isinstance(word, ast.Starred) for word in (one, other)):
                yield f"swapped {ast.unparse(one)} and {ast.unparse(other)}", swap(first)


def drop(node: ast.AST, tree: ast.AST) -> None:
    """A statement that calls becomes one that does nothing."""
    replace(tree, node, ast.Pass())


def keep_left(node: ast.AST, tree: ast.AST) -> None:
    """`a | b` becomes `a`."""
    assert isinstance(node, ast.BinOp)
    replace(tree, node, node.left)


def keep_right(node: ast.AST, tree: ast.AST) -> None:
    """`a | b` becomes `b`."""
    assert isinstance(node, ast.BinOp)
    replace(tree, node, node.right)


def swap(first: int) -> Change:
    """Two neighbouring arguments of a call change places."""

    def apply(node: ast.AST, tree: ast.AST) -> None:
        assert isinstance(node, ast.Call)
        node.args[first], node.args[first + 1] = node.args[first + 1], node.args[first]

    return apply


def replace(tree: ast.AST, old: ast.AST, new: ast.AST) -> None:
    """Put `new` where `old` stands."""
    for parent in ast.walk(tree):
        for name, value in ast.iter_fields(parent):
            if value is old:
                setattr(parent, name, new)
            elif isinstance(value, list):
                value[:] = [new if item is old else item for item in value]
