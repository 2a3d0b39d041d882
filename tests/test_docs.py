"""What the documents say is true: links lead somewhere, commands and flags exist, modules are there and all are named,
and the README's transcript is what the demo prints."""

import importlib
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from minicontainer import cli
from minicontainer.cli import flags
from tests.conftest import CHECKOUT

DOCUMENTS = sorted([*CHECKOUT.glob("*.md"), *(CHECKOUT / "notebooks").glob("*.md"), *(CHECKOUT / "labs").glob("*.md"),
                    *(CHECKOUT / "slides").glob("*.md"), *(CHECKOUT / "minicontainer").glob("*.md")])  # fmt: skip
PACKAGE = CHECKOUT / "minicontainer"
README = (CHECKOUT / "README.md").read_text()
ARCHITECTURE = (CHECKOUT / "ARCHITECTURE.md").read_text()
CHANGELOG = (CHECKOUT / "CHANGELOG.md").read_text()


def name(path: Path) -> str:
    return str(path.relative_to(CHECKOUT))


# ---------------------------------------------------------------------------------------------------------------- links


def anchors(text: str) -> set[str]:
    """What a document's headings are called in links: lower case, blanks to dashes, no punctuation."""
    headings = re.findall(r"^#+ +(.*)$", without_fences(text), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def without_fences(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_every_link_to_a_file_leads_to_it(document: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", without_fences(document.read_text())):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        found = document.parent / path if path else document
        assert found.exists(), target
        if anchor:
            assert anchor in anchors(found.read_text()), target


def test_all_parts_of_the_project_say_what_they_are() -> None:
    for path in ("README.md", "ARCHITECTURE.md", "CHANGELOG.md", "LICENSE", "LICENSE-course", "notebooks/README.md",
                 "labs/README.md", "slides/README.md"):  # fmt: skip
        assert (CHECKOUT / path).read_text().strip(), path


# ------------------------------------------------------------------------------------------------------------- commands


def fences(text: str, *languages: str) -> Iterator[str]:
    """The lines of all code blocks in these languages."""
    for language, block in re.findall(r"^```(\w*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        if language in languages:
            yield from block.splitlines()


def code(text: str) -> Iterator[str]:
    """Every line of a console or sh block, and every piece of inline code."""
    yield from fences(text, "sh", "console")
    yield from re.findall(r"`([^`\n]+)`", without_fences(text))


def typed(document: Path) -> Iterator[list[str]]:
    """The words of every `minicontainer …` in a document, without prompt, sudo, redirection and comment."""
    for line in code(document.read_text()):
        match = re.match(r"(?:[#$] )?(?:sudo )?(?:unshare -\w+ )?minicontainer (.*)", line.strip())
        if match:
            lexer = shlex.shlex(match[1], posix=True, punctuation_chars="<>;|&")
            lexer.commenters = "#"
            words = list(lexer)
            yield words[: next((index for index, word in enumerate(words) if word in ("<", ">", ";", "|", "&&")), None)]


def command(words: list[str]) -> tuple[str, ModuleType, list[str]]:
    """Which command that is, the module that does it, and its own words."""
    longer = cli.LONGER.get(" ".join(words[:2]))
    which, rest = (longer.split()[0], words[2:]) if longer else (words[0], words[1:])
    assert which in cli.COMMANDS, f"minicontainer {which}"
    return which, importlib.import_module(f"minicontainer.cli.{cli.COMMANDS[which][0]}"), rest


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_every_command_exists_and_takes_its_flags(document: Path) -> None:
    for words in typed(document):
        which, module, rest = command(words)
        table = getattr(module, "FLAGS", [])
        if isinstance(table, dict):  # a command of commands: volume ls
            assert rest[0] in table, words
            table, rest = table[rest[0]], rest[1:]
        try:
            _, others = flags.parse(which, table, rest, stop=which in ("run", "exec", "top", "oci"))
        except cli.Help:
            continue
        except cli.UsageError as error:
            pytest.fail(f"minicontainer {' '.join(words)}: {error}")
        if which == "run":
            assert others, f"no image: {words}"


def test_the_readme_names_every_command() -> None:
    assert {words[0] for words in typed(CHECKOUT / "README.md")} == set(cli.COMMANDS)


def test_what_does_not_exist_yet_is_not_shown_as_if_it_did() -> None:
    """The README's "not yet" rows, the other way round: who adds one of these takes it out of there."""
    rows = [row for row in README.splitlines() if row.startswith("|") and "not yet" in row]
    assert rows
    missing = [word for row in rows for word in re.findall(r"`([a-z]+)`", row.split("|")[1])]
    assert [word for word in missing if word in cli.COMMANDS] == []
    run = importlib.import_module("minicontainer.cli.run")
    known = {spelling for flag in run.FLAGS for spelling in flag.spellings.split()}
    assert [word for row in rows for word in re.findall(r"`(--?[a-zA-Z-]+)`", row.split("|")[1]) if word in known] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_every_verb_of_dev_exists(document: Path) -> None:
    verbs = set(re.findall(r"^#: (\w+)", (CHECKOUT / "dev").read_text(), re.MULTILINE))
    text = document.read_text()
    for verb in re.findall(r"\./dev ([a-z]+)", "\n".join(code(text))):
        assert verb in verbs, verb


# -------------------------------------------------------------------------------------------------------------- modules


def test_every_module_is_named_in_the_architecture() -> None:
    """One line of the tables for each: who adds a module says there what it is for."""
    named = set(re.findall(r"^\| (`.*?`) \|", ARCHITECTURE, re.MULTILINE))
    named = {path for cell in named for path in re.findall(r"`([\w/]+\.py)`", cell)}
    there = {str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py")}
    ours = {path for path in there if not path.endswith("__init__.py")}
    assert ours - named == set(), "ARCHITECTURE.md has no line for these"
    assert named - there == set(), "ARCHITECTURE.md has a line for these, which are not there"


def test_every_file_that_is_named_exists() -> None:
    """`kernel/overlay.py`, `minicontainer/steps.py`, tests/kernel/test_overlay.py: all are found."""
    for document in DOCUMENTS:
        for path in re.findall(r"[\w./-]+\.py\b", without_fences(document.read_text())):
            places = [CHECKOUT / path, PACKAGE / path, *PACKAGE.rglob(Path(path).name)]
            places += document.parent.glob(f"*/{path}") if document.parent != CHECKOUT else []
            assert any(place.exists() for place in places[: 2 if "/" in path else None]), f"{name(document)}: {path}"


def test_functions_in_the_architecture_exist() -> None:
    """`steps.execute`, `steps.PID`: what is named with its module is there."""
    for module, attribute in re.findall(r"`(steps|overlay|channel|launch|init)\.([A-Za-z_]+)[^`]*`", ARCHITECTURE):
        found = next(path for path in PACKAGE.rglob(f"{module}.py"))
        dotted = ".".join(found.relative_to(CHECKOUT).with_suffix("").parts)
        assert attribute == "py" or hasattr(importlib.import_module(dotted), attribute), f"{module}.{attribute}"


def test_code_that_is_quoted_stands_in_the_source() -> None:
    """A Python block that begins with `def` is a function of the package, but for its types."""
    blocks = re.findall(r"^```python\n(def .*?)^```", ARCHITECTURE, re.MULTILINE | re.DOTALL)
    assert blocks
    sources = "\n".join(path.read_text() for path in PACKAGE.rglob("*.py"))
    for block in blocks:
        for line in block.splitlines()[1:]:
            assert line in sources.splitlines(), line


def test_the_version_that_is_next_is_the_packages() -> None:
    import minicontainer

    assert (
        f"## [Unreleased]: {minicontainer.__version__}\n" in CHANGELOG
        or f"## [{minicontainer.__version__}]" in CHANGELOG
    )


# ------------------------------------------------------------------------------------------------------ the transcript


def transcript() -> list[str]:
    """What the README says that `./dev demo` prints."""
    blocks = re.findall(r"^```console\n\$ sudo \./dev demo\n\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 1
    return str(blocks[0]).splitlines()


def demo() -> list[list[str]]:
    """The commands of the demo's script."""
    body = re.search(r"^demo\(\) \{\n(.*?)^\}", (CHECKOUT / "dev").read_text(), re.MULTILINE | re.DOTALL)
    assert body
    lines = body[1].replace("\\\n", " ").splitlines()
    return [shlex.split(line)[2:] for line in lines if line.strip().startswith("try ")]


def shown() -> list[tuple[list[str], list[str]]]:
    """The commands of the transcript, each with the lines it printed."""
    found: list[tuple[list[str], list[str]]] = []
    inside = False
    for line in transcript():
        if line.startswith("# minicontainer "):
            found.append((shlex.split(line)[2:], []))
            inside = True
        elif re.match(r"  \(\d+ ms\)$|\d\. |Nothing of", line):
            inside = False
        elif inside and line not in ("", "[…]"):
            found[-1][1].append(line)
    return found


def test_the_transcript_has_the_demos_commands() -> None:
    assert [words for words, _ in shown()] == demo()


def test_the_transcript_has_the_demos_words() -> None:
    script = (CHECKOUT / "dev").read_text()
    for line in transcript():
        if re.match(r"\d\. |Nothing of|  Next:|  Undo:", line):
            assert line.replace("/usr/local/bin/minicontainer.", "$minicontainer.") in script, line


def stable(line: str) -> str:
    """The line without what differs from start to start: ids, addresses, durations, sizes of bars."""
    line = re.sub(r"\b(?:172|10|192)(?:\.\d+){3}\b", "ADDRESS", line)
    line = re.sub(r"\b[0-9a-f]{12,64}\b", "ID", line)
    line = re.sub(r"█+|▏", "█", re.sub(r"\d+(?:\.\d+)?", "N", line))
    return " ".join(line.split())


@pytest.mark.root
@pytest.mark.needs("overlay", "bridge", "veth", "nftables", "busybox", "libseccomp")
def test_the_transcript_is_true(store: Path) -> None:
    """Every line that the README shows, the same command prints here, too."""
    for words, lines in shown():
        done = subprocess.run(
            [sys.executable, "-m", "minicontainer", *words], stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        printed = {stable(line) for line in [*done.stdout.splitlines(), *done.stderr.splitlines()]}
        assert lines
        assert [line for line in lines if stable(line) not in printed] == [], words
