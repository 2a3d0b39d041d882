"""What the sources of COPY and ADD mean, and the digest of what they name."""

import bz2
import gzip
import io
import lzma
import os
import socket
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from minicontainer import errors, files
from minicontainer.build import context, dockerfile, ignore


def refuse(reason: str, at: str) -> NoReturn:
    """As a build binds it: line and caret of the instruction."""
    source = dockerfile.parse(f"FROM scratch\nCOPY {at} /target/\n")
    dockerfile.refuse(source, source.statements[1], reason, at)


def make(root: Path, *paths: str) -> Path:
    """Files that contain their own path; directories end with a slash; `a -> b` is a link."""
    for path in paths:
        name, arrow, target = path.partition(" -> ")
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        if arrow:
            (root / name).symlink_to(target)
        elif name.endswith("/"):
            (root / name).mkdir(exist_ok=True)
        else:
            (root / name).write_text(name)
    return root


def chosen(root: Path, *sources: str, rules: str = "", **how: Any) -> list[tuple[str, list[str]]]:
    """What each match is called, and the names of all that is in it."""
    with context.Tree(str(root), ignore.parse(rules)) as tree:
        return [(one.base, [node.name for node in one.nodes]) for one in context.select(tree, sources, refuse, **how)]


PROJECT = ("a.txt", "b.txt", ".hidden", "src/main.py", "src/lib/x.py", "src/lib/y.c", "src/empty/", "docs/a.md")


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("a.txt", [("a.txt", [""])]),
        ("/a.txt", [("a.txt", [""])]),
        ("./src/../a.txt/", [("a.txt", [""])]),
        ("../../a.txt", [("a.txt", [""])]),
        ("*.txt", [("a.txt", [""]), ("b.txt", [""])]),
        ("[b-z].txt", [("b.txt", [""])]),
        ("[^b].txt", [("a.txt", [""])]),
        ("?hidden", [(".hidden", [""])]),
        ("nothing*", []),
        ("src", [("src", ["", "empty", "lib", "lib/x.py", "lib/y.c", "main.py"])]),
        ("src/", [("src", ["", "empty", "lib", "lib/x.py", "lib/y.c", "main.py"])]),
        ("src/*", [("empty", [""]), ("lib", ["", "x.py", "y.c"]), ("main.py", [""])]),
        ("**/*.py", [("main.py", [""])]),  # of a path's names, ** is one, as in Go's filepath.Match
        ("*/*/*.py", [("x.py", [""])]),
        ("s*/lib", [("lib", ["", "x.py", "y.c"])]),
        ("docs/../s*", [("src", ["", "empty", "lib", "lib/x.py", "lib/y.c", "main.py"])]),
    ],
)
def test_what_a_source_means(tmp_path: Path, source: str, found: list[tuple[str, list[str]]]) -> None:
    assert chosen(make(tmp_path, *PROJECT), source) == found


@pytest.mark.parametrize("source", [".", "/", "./", "..", ""])
def test_the_whole_context(tmp_path: Path, source: str) -> None:
    ((base, names),) = chosen(make(tmp_path, "b", "a/c", "a-b"), source)
    assert (base, names) == ("", ["", "a", "a/c", "a-b", "b"])


def test_several_sources_in_their_order(tmp_path: Path) -> None:
    assert chosen(make(tmp_path, *PROJECT), "b.txt", "docs", "a*") == [
        ("b.txt", [""]), ("docs", ["", "a.md"]), ("a.txt", [""]),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("/x", '"/x": not found'),
        ("x", '"/x": not found'),
        ("a.txt/x", '"/a.txt/x": not found'),
        ("none/*", '"/none": not found'),
        ("[b", "a [ without its ]"),
        ("loop", "Too many levels"),
        ("secret", '"/secret": not found, for .dockerignore'),
        ("to-secret", '"/to-secret": not found, for .dockerignore'),
        ("hidden-link", '"/hidden-link": not found, for .dockerignore'),
        ("gone", '"/gone": not found, for .dockerignore'),
    ],
)
def test_what_is_not_there_names_line_and_caret(tmp_path: Path, source: str, reason: str) -> None:
    make(tmp_path, *PROJECT, "secret", "to-secret -> secret", "hidden-link -> a.txt", "loop -> loop", "gone/x")
    with pytest.raises(errors.BuildError) as caught:
        chosen(tmp_path, source, rules="secret\nhidden-link\ngone")
    assert reason in caught.value.reason and caught.value.line == 2
    assert caught.value.source[caught.value.column :].startswith(source)


def test_links_stay_in_the_context(tmp_path: Path) -> None:
    """A source that is a link is what it leads to, under its own name; a link below a directory stays one."""
    outside = make(tmp_path / "outside", "etc/passwd")
    root = make(
        tmp_path / "context", "etc/passwd", "d/f", "d/up -> ../../../etc", f"abs -> {outside}/etc/passwd",
        "rooted -> /etc/passwd", "climb -> ../../../../etc", "dir -> d", "chain -> dir/up/passwd",
    )  # fmt: skip
    assert chosen(root, "rooted") == [("rooted", [""])]
    assert chosen(root, "dir") == [("dir", ["", "f", "up"])]
    assert chosen(root, "climb") == [("climb", ["", "passwd"])]
    with context.Tree(str(root)) as tree:
        (one,) = context.select(tree, ["chain"], refuse)
        assert (one.path, one.base) == ("etc/passwd", "chain")
        plain = context.content(context.select(tree, ["etc/passwd"], refuse), {})
        assert context.content([one], {}).files == {"chain": plain.files["etc/passwd"]}
        (below,) = context.select(tree, ["d"], refuse)
        assert context.content([below], {}).files["d/up"] == "link to ../../../etc"
    with pytest.raises(errors.BuildError, match="not found"):
        chosen(root, "abs")


def test_what_a_dockerignore_leaves_out(tmp_path: Path) -> None:
    make(tmp_path, *PROJECT, "node_modules/x/y", "src/lib/keep.o", "src/lib/z.o", "deep/er/est/file")
    rules = "node_modules\n**/*.o\n!src/lib/keep.o\n.hidden\ndeep\n!deep/er/est"
    ((_, names),) = chosen(tmp_path, ".", rules=rules)
    assert names == [
        "", "a.txt", "b.txt", "deep", "deep/er", "deep/er/est", "deep/er/est/file", "docs", "docs/a.md", "src",
        "src/empty", "src/lib", "src/lib/keep.o", "src/lib/x.py", "src/lib/y.c", "src/main.py",
    ]  # fmt: skip
    assert chosen(tmp_path, "*", rules="*\n!a.txt") == [("a.txt", [""])]
    assert chosen(tmp_path, "src/lib", rules="**/*.c\nsrc/lib/*.o") == [("lib", ["", "x.py"])]
    assert chosen(tmp_path, "node*", rules=rules) == []


def test_a_pruned_directory_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "node_modules/a/b", "kept/c")
    opened: list[str] = []
    real = os.open
    monkeypatch.setattr(os, "open", lambda path, *rest, **named: opened.append(str(path)) or real(path, *rest, **named))
    chosen(tmp_path, ".", rules="node_modules")
    assert "kept" in opened and "node_modules" not in opened


def test_exclude(tmp_path: Path) -> None:
    make(tmp_path, *PROJECT)
    assert chosen(tmp_path, "src", exclude=["**/*.c", "empty"]) == [("src", ["", "lib", "lib/x.py", "main.py"])]
    assert chosen(tmp_path, "src", exclude=["lib", "!lib/y.c"]) == [("src", ["", "empty", "lib", "lib/y.c", "main.py"])]
    assert chosen(tmp_path, "*", exclude=["src", "docs", "*.txt"]) == [(".hidden", [""])]
    assert chosen(tmp_path, "*.txt", exclude=["b*"]) == [("a.txt", [""])]
    with pytest.raises(errors.BuildError, match=r"--exclude=\[: a \[ without"):
        chosen(tmp_path, "src", exclude=["["])


def test_parents(tmp_path: Path) -> None:
    make(tmp_path, *PROJECT, "one/x/a.txt", "one/y/a.txt", "one/y/b.txt")
    assert chosen(tmp_path, "src/lib/x.py", parents=True) == [("", ["", "src", "src/lib", "src/lib/x.py"])]
    assert chosen(tmp_path, "src/./lib", parents=True) == [("src", ["", "lib", "lib/x.py", "lib/y.c"])]
    assert chosen(tmp_path, "one/*/a.txt", parents=True) == [
        ("", ["", "one", "one/x", "one/x/a.txt", "one/y", "one/y/a.txt"])
    ]
    assert chosen(tmp_path, "./**/*.py", parents=True) == [("", ["", "src", "src/lib", "src/lib/x.py", "src/main.py"])]
    assert chosen(tmp_path, "one/*/./a.txt", parents=True) == [("x", ["", "a.txt"]), ("y", ["", "a.txt"])]
    assert chosen(tmp_path, "src/./", parents=True) == chosen(tmp_path, "src")
    assert chosen(tmp_path, "nothing/**", parents=True) == []
    for source in ("src/nothing", "src/./nothing", "nothing/./a"):
        with pytest.raises(errors.BuildError, match="not found"):
            chosen(tmp_path, source, parents=True)
    assert chosen(tmp_path, "src", parents=True, exclude=["**/*.py", "src/empty"]) == [
        ("", ["", "src", "src/lib", "src/lib/y.c"])
    ]


def test_names_of_any_bytes_and_kinds(tmp_path: Path) -> None:
    for name in (b"\xff\xfe", "ü".encode(), b"a\nb"):
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_text("x")
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
    with context.Tree(str(tmp_path)) as tree:
        made = context.content(context.select(tree, ["."], refuse), {}).files
    assert set(made) == {"/", "\udcff\udcfe", "ü", "a\nb", "fifo"}  # a socket is nothing that can be copied
    assert made["fifo"].startswith("fifo 0")


def digest(root: Path, *sources: str, hashes: dict[context.Key, str] | None = None, **how: Any) -> str:
    with context.Tree(str(root), **how) as tree:
        return context.content(context.select(tree, sources or ["."], refuse), {} if hashes is None else hashes).digest


CHANGES: list[Callable[[Path], object]] = [
    lambda root: (root / "a.txt").write_text("a.tyt"),
    lambda root: (root / "a.txt").chmod(0o755),
    lambda root: (root / "src/lib").chmod(0o700),
    lambda root: (root / "a.txt").rename(root / "c.txt"),
    lambda root: (root / "new").write_text(""),
    lambda root: (root / "new").mkdir(),
    lambda root: (root / "docs/a.md").unlink(),
    lambda root: ((root / "link").unlink(), (root / "link").symlink_to("b.txt")),
    lambda root: ((root / "link").unlink(), (root / "link").write_text("a.txt")),
]


@pytest.mark.parametrize("change", range(len(CHANGES)))
def test_what_changes_the_digest(tmp_path: Path, change: int) -> None:
    make(tmp_path, *PROJECT, "link -> a.txt")
    hashes: dict[context.Key, str] = {}
    before = digest(tmp_path, hashes=hashes)
    CHANGES[change](tmp_path)
    assert digest(tmp_path, hashes=hashes) != before


def test_what_leaves_the_digest_alone(tmp_path: Path) -> None:
    """Times, the place, the order in which files were made, the context's own mode."""
    one, two = make(tmp_path / "one", *PROJECT), make(tmp_path / "two", *reversed(PROJECT))
    two.chmod(0o700)
    for path in two.rglob("*"):
        os.utime(path, (1, 1))
    assert digest(one) == digest(two)


def test_a_context_is_roots_and_a_stage_keeps_its_owners(tmp_path: Path) -> None:
    make(tmp_path, "a")
    with context.Tree(str(tmp_path)) as tree, context.Tree(str(tmp_path), keep=True) as kept:
        (of_context,), (of_stage,) = (context.select(which, ["a"], refuse) for which in (tree, kept))
        assert (of_context.nodes[0].uid, of_context.nodes[0].gid) == (0, 0)
        assert (of_stage.nodes[0].uid, of_stage.nodes[0].gid) == (os.getuid(), (tmp_path / "a").stat().st_gid)
        plain = context.content([of_stage], {})
        os.setxattr(tmp_path / "a", "user.note", b"\x01")
        (after,) = context.select(kept, ["a"], refuse)
        assert context.content([after], {}).files["a"] == plain.files["a"] + " user.note=01"
        assert context.content(context.select(tree, ["a"], refuse), {}) == context.content([of_context], {})


def test_a_file_is_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "a", "b")
    time.sleep(0.08)  # what has changed just now is not trusted to keep still
    hashes: dict[context.Key, str] = {}
    before = digest(tmp_path, hashes=hashes)
    assert len(hashes) == 2
    monkeypatch.setattr(context, "hashed", lambda *_: pytest.fail("hashed again"))
    assert digest(tmp_path, hashes=hashes) == before
    monkeypatch.undo()
    (tmp_path / "a").write_text("c")
    assert digest(tmp_path, hashes=hashes) != before


def test_a_file_that_has_changed_since_it_was_selected_is_told_of_as_it_is(tmp_path: Path) -> None:
    make(tmp_path, "a", "b")
    with context.Tree(str(tmp_path)) as tree:
        selected = context.select(tree, ["."], refuse)
        (tmp_path / "a").write_text("something else")
        told = context.content(selected, {})
        assert told == context.content(context.select(tree, ["."], refuse), {})
        assert selected[0].nodes[1].size == len("something else")
        (tmp_path / "b").unlink()
        with pytest.raises(errors.BuildError, match="/b: cannot be read: No such file"):
            context.content(context.select(tree, ["."], refuse) and selected, {})


def test_a_heredoc_is_a_file(tmp_path: Path) -> None:
    one = context.inline("run.sh", b"#!/bin/sh\n")
    make(tmp_path, "run.sh")
    (tmp_path / "run.sh").write_bytes(b"#!/bin/sh\n")
    (tmp_path / "run.sh").chmod(0o644)
    assert context.content([one], {}).digest == digest(tmp_path, "run.sh")
    assert not one.directory


# Against an oracle --------------------------------------------------------------------------------------------------


def matches(pattern: str, name: str) -> bool:
    """Go's filepath.Match, by its own definition, character by character."""
    if not pattern:
        return not name
    if pattern[0] == "*":
        return any(matches(pattern[1:], name[at:]) for at in range(len(name) + 1))
    if not name:
        return False
    if pattern[0] == "?":
        return matches(pattern[1:], name[1:])
    if pattern[0] == "[":
        end = pattern.index("]", 2)
        negated = pattern[1] == "^"
        inside = pattern[2 if negated else 1 : end]
        if len(inside) == 3 and inside[1] == "-":
            found = inside[0] <= name[0] <= inside[2]
        else:
            found = name[0] in inside
        return found != negated and matches(pattern[end + 1 :], name[1:])
    if pattern[0] == "\\":
        pattern = pattern[1:]
    return pattern[0] == name[0] and matches(pattern[1:], name[1:])


NAMES = ["a", "b", "ab", "ba", ".a", "a.b", "a*", "[a]", "a]", "d", "d.d"]
PIECES = st.sampled_from(["a", "b", ".", "*", "?", "[ab]", "[^a]", "[a-c]", "\\*", "\\a", "d", "]"])
PATTERN = st.lists(PIECES, min_size=1, max_size=4).map("".join)


@pytest.fixture(scope="module")
def forest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("forest"), *NAMES[:-2], *(f"d/{name}" for name in NAMES), "d.d/")


@settings(max_examples=300, deadline=None, database=None)
@given(st.lists(PATTERN, min_size=1, max_size=2))
def test_wildcards_are_go_s(forest: Path, patterns: list[str]) -> None:
    if not context.has_wildcard("/".join(patterns)) or ".." in patterns or "." in patterns:
        return
    fixed, wild = context.split_wildcards(context.clean("/".join(patterns)))
    paths = [str(path.relative_to(forest)) for path in sorted(forest.rglob("*"), key=lambda path: path.parts)]
    wanted = [
        path for path in paths
        if len(path.split("/")) == len(patterns)
        and f"/{path}/".startswith(fixed.rstrip("/") + "/")
        and all(map(matches, wild, path.split("/")[-len(wild) :]))
    ]  # fmt: skip
    if fixed != "/" and not (forest / fixed[1:]).is_dir():
        return
    with context.Tree(str(forest)) as tree:
        assert context.expand(tree, "", fixed, wild, refuse) == wanted


LINES = st.lists(st.sampled_from(["a", "b", "d", "*", "**", "!", "/", "\n", "\n!", "d/a", "?", ".a"]), max_size=12)


@settings(max_examples=200, deadline=None, database=None)
@given(LINES, LINES)
def test_a_walk_finds_what_no_rule_leaves_out(forest: Path, lines: list[str], excluded: list[str]) -> None:
    """And the directories above it; whatever a walk has not entered had nothing in it."""
    try:
        rules, exclude = ignore.parse("".join(lines)), ignore.parse("".join(excluded))
    except errors.BuildError:
        return
    paths = {str(path.relative_to(forest)) for path in forest.rglob("*")}
    kept = {path for path in paths if not rules.ignored(path) and not exclude.ignored(path)}
    with context.Tree(str(forest), rules) as tree:
        nodes = tree.walk("", forest.stat(), [exclude])
    assert {node.name for node in nodes} - {""} == kept | (
        {"d"} if any(path.startswith("d/") for path in kept) else set()
    )
    assert {node.name for node in nodes if node.implied} == {node.name for node in nodes} - kept - {""}


@settings(max_examples=200, deadline=None, database=None)
@given(st.text(alphabet="ab*?[]^-\\/. d", max_size=12), st.booleans())
def test_noise_ends_in_build_errors_alone(forest: Path, source: str, parents: bool) -> None:
    with context.Tree(str(forest)) as tree:
        try:
            context.content(context.select(tree, [source], refuse, parents=parents), {})
        except errors.BuildError as error:
            assert error.line


# Places -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "leads"),
    [
        ("a/../../../x", "x"),
        ("climb/passwd", "etc/passwd"),
        ("abs", "etc"),
        ("dangling/y", "not/there/y"),
        ("a/up/./f", "f"),
        ("abs/../x", "x"),
        ("/", ""),
        ("", ""),
    ],
)
def test_where_a_path_leads(tmp_path: Path, path: str, leads: str) -> None:
    make(tmp_path, "etc/passwd", "a/up -> ..", "climb -> ../../../etc", "abs -> /etc", "dangling -> /not/there", "f")
    root = os.open(tmp_path, os.O_PATH)
    try:
        found = files.place(root, path)
        assert found.path == leads
        assert (found.status is not None) == (tmp_path / leads).exists()
        with pytest.raises(NotADirectoryError):
            files.place(root, "f/x")
        with pytest.raises(OSError, match="levels"):
            (tmp_path / "loop").symlink_to("loop")
            files.place(root, "loop/x")
        with pytest.raises(errors.KernelError):
            files.beneath(root, "abs", os.O_PATH)
    finally:
        os.close(root)


# From a pipe --------------------------------------------------------------------------------------------------------


def archive(names: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, data in names.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode, member.uid = len(data), 0o640, 4711
            tar.addfile(member, io.BytesIO(data))
    return stream.getvalue()


COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes, "gzip": gzip.compress, "bzip2": bz2.compress, "xz": lzma.compress,
    "zstd": lambda data: zstandard.ZstdCompressor().compress(data),
}  # fmt: skip


@pytest.mark.parametrize("compression", COMPRESS)
def test_a_context_from_a_pipe(tmp_path: Path, compression: str) -> None:
    data = COMPRESS[compression](archive({"Dockerfile": b"FROM scratch\n", "./src/.wh.x": b"kept", "b": b"\0" * 3000}))
    assert context.is_tar(data[:512])
    context.from_tar(io.BytesIO(data).read, str(tmp_path))
    assert (tmp_path / "src/.wh.x").read_bytes() == b"kept"
    assert (tmp_path / "Dockerfile").stat().st_uid == os.geteuid()
    with context.Tree(str(tmp_path)) as tree:
        made = context.content(context.select(tree, ["."], refuse), {}).files
    assert made["b"].endswith(" 0640") and set(made) == {"/", "Dockerfile", "src", "src/.wh.x", "b"}


@pytest.mark.parametrize("text", [b"", b"FROM scratch\n", b"\0" * 512, b"#" * 2000])
def test_a_dockerfile_is_no_archive(text: bytes) -> None:
    assert not context.is_tar(text)


@pytest.mark.parametrize("compression", COMPRESS)
@pytest.mark.parametrize("damage", ["cut", "changed"])
def test_a_damaged_archive_is_refused(tmp_path: Path, compression: str, damage: str) -> None:
    data = COMPRESS[compression](archive({"a": os.urandom(5000)}))
    data = data[:1000] if damage == "cut" else data[:20] + b"\xff" * 200 + data[220:]
    with pytest.raises(errors.BuildError, match="no proper archive"):
        context.from_tar(io.BytesIO(data).read, str(tmp_path))


def test_a_hostile_archive_stays_in_its_folder(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        link = tarfile.TarInfo("out")
        link.type, link.linkname = tarfile.SYMTYPE, ".."
        tar.addfile(link)
        member = tarfile.TarInfo("out/escaped")
        tar.addfile(member)
    context.from_tar(io.BytesIO(stream.getvalue()).read, str(tmp_path / "folder"))
    assert not (tmp_path / "escaped").exists() and (tmp_path / "folder/escaped").exists()
    with pytest.raises(errors.BuildError, match="no proper archive"):
        context.from_tar(io.BytesIO(archive({"../up": b""})).read, str(tmp_path / "folder"))
