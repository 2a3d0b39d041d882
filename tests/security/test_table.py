"""SECURITY.md's table and the tests agree: each row names tests that exist, each test here is in a row."""

import re
from pathlib import Path

import pytest

from tests.conftest import CHECKOUT

SECURITY = (CHECKOUT / "SECURITY.md").read_text()
# What the project has promised to try (the issue "Holding prisoners").
PROMISED = """2016-9962 2018-15664 2019-5736 2019-14271 2019-16884 2019-19921 2020-15257 2021-30465 2022-0492 2022-0811
2022-24769 2023-27561 2023-28642 2024-21626 2025-31133 2025-52565 2025-52881""".split()


def rows() -> list[list[str]]:
    """The cells of the table of tried techniques."""
    part = SECURITY.split("## What was tried")[1].split("\n## ")[0]
    lines = [line for line in part.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def named(row: list[str]) -> list[str]:
    return re.findall(r"`(tests/[\w/]+\.py::\w+)`", row[2])


def defined_in(path: Path) -> set[str]:
    return set(re.findall(r"^def (test_\w+)\(", path.read_text(), re.MULTILINE))


def test_every_row_names_a_test_that_exists() -> None:
    assert len(rows()) >= 20
    for row in rows():
        assert len(row) == 3 and row[0] and row[1] and named(row), row
        for node in named(row):
            path, name = node.split("::")
            assert name in defined_in(CHECKOUT / path), node


def test_every_test_here_is_in_the_table() -> None:
    nodes = {node for row in rows() for node in named(row)}
    for path in Path(__file__).parent.glob("test_*.py"):
        if path != Path(__file__):
            for name in defined_in(path):
                assert f"tests/security/{path.name}::{name}" in nodes


@pytest.mark.parametrize("number", PROMISED)
def test_every_promised_cve_is_tried_or_said_to_be_open(number: str) -> None:
    tried = " ".join(row[0] for row in rows())
    missing = SECURITY.split("## What is not covered yet")[1].split("\n## ")[0]
    assert (number in tried) != (number in missing)
