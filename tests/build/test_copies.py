"""COPY in a build: what gets into the layer, and when the cache knows it. How files are chosen and copied: test_context
and test_copying."""

import functools
import http.server
import io
import json
import os
import subprocess
import sys
import tarfile
import threading

import pytest

from tests.yard import Yard, fresh_yard  # noqa: F401

pytestmark = [pytest.mark.root, pytest.mark.needs("overlay", "libseccomp")]


def test_the_context_without_what_is_ignored(yard: Yard) -> None:
    for name in ("a", "b.tmp", "src/c", "src/d.tmp"):
        (yard.context / name).parent.mkdir(exist_ok=True)
        (yard.context / name).write_text(f"{name}\n")
    (yard.context / ".dockerignore").write_text("**/*.tmp\nDockerfile*\n.dockerignore\n")
    yard.build("FROM plain\nCOPY . /app/\n")
    assert yard.layer() == {"app": None, "app/a": b"a\n", "app/src": None, "app/src/c": b"src/c\n"}
    (yard.context / "Dockerfile.dockerignore").write_text("*\n!a\n")
    yard.build("FROM plain\nCOPY . /app/\n")
    assert yard.layer() == {"app": None, "app/a": b"a\n"}


def test_only_what_a_step_reads_matters_to_the_cache(yard: Yard) -> None:
    (yard.context / "a").write_text("1")
    (yard.context / "b").write_text("1")
    text = "FROM plain\nCOPY a /a\nRUN true\nCOPY b /b\n"
    assert [kind for kind, _ in yard.told(text)] == ["done"] * 3
    os.utime(yard.context / "a", (1, 1))  # its time is no content
    assert [kind for kind, _ in yard.told(text)] == ["cached"] * 3
    (yard.context / "b").write_text("2")
    assert [kind for kind, _ in yard.told(text)] == ["cached", "cached", "done"]
    (yard.context / "a").chmod(0o755)
    assert [kind for kind, _ in yard.told(text)] == ["done"] * 3
    (yard.context / "a").write_text("3")
    done = yard.build(text, "--why")
    (why, *_) = [json.loads(line)["why"] for line in done.stdout.splitlines() if '"kind": "why"' in line]
    (reason,) = why
    assert reason.startswith("file a was sha256:6b86b273ff34, is sha256:4e07408562be")


def test_from_a_stage_and_from_an_image(yard: Yard) -> None:
    yard.build(
        "FROM demo AS one\nRUN echo 1 >/srv/data/new; chown 3:4 /srv/data/new\nFROM scratch\n"
        "COPY --from=one /srv/data /data/\nCOPY --from=0 /etc/group /g\nCOPY --from=plain:latest /etc/passwd /p\n"
    )
    assert yard.layer(0)["data/new"] == b"1\n" and yard.layer(0)["data/one"] == b"1\n"
    assert list(yard.layer(1)) == ["g"] and list(yard.layer(2)) == ["p"]
    owners = yard.owners(0)
    assert owners["data/new"] == (3, 4) and owners["data/one"] == (1000, 1000)


def test_owners_modes_and_documents(yard: Yard) -> None:
    (yard.context / "a").write_text("1")
    (yard.context / "a").chmod(0o640)
    yard.build(
        "FROM demo\nARG WHO=alice\nCOPY --chown=$WHO a /x/\nCOPY --chown=7 --chmod=4711 a <<B /y/\nhello $WHO\nB\n"
    )
    assert yard.owners(-2)["x/a"] == (1000, 1001)
    assert yard.owners(-1)["y/a"] == (7, 7)
    assert yard.layer()["y/B"] == b"hello alice\n"
    assert yard.modes(-1)["y/a"] == 0o4711 and yard.modes(-2)["x/a"] == 0o640
    words = [entry["created_by"] for entry in yard.image().config["history"][-2:]]
    assert words == ["COPY --chown=alice a /x/ # buildkit", "COPY --chown=7 --chmod=4711 a <<B /y/ # buildkit"]


def test_a_link_in_the_image_leads_to_its_own_files(yard: Yard) -> None:
    (yard.context / "a").write_text("mine")
    yard.build("FROM plain\nRUN ln -s /../../../../tmp /up; ln -s tmp/deep /deep\nCOPY a /up/here\nCOPY a /deep/a\n")
    assert yard.layer(-2) == {"tmp": None, "tmp/here": b"mine"}
    assert yard.layer(-1) == {"tmp": None, "tmp/deep": None, "tmp/deep/a": b"mine"}


def test_a_linked_layer_needs_no_base(yard: Yard) -> None:
    (yard.context / "a").write_text("1")
    text = "FROM plain\nRUN echo {} >/tmp/x; ln -s /tmp /data\nCOPY --link a /data/a\n"
    assert [kind for kind, _ in yard.told(text.format(1))] == ["done", "done"]
    assert yard.layer() == {"data": None, "data/a": b"1"}
    assert [kind for kind, _ in yard.told(text.format(2))] == ["done", "cached"]
    assert yard.layer() == {"data": None, "data/a": b"1"}
    assert yard.written("FROM app\nRUN cat /data/a; echo; cat /tmp/x\n") == ["1", "2"]


def test_add_unpacks_and_fetches(yard: Yard) -> None:
    with tarfile.open(yard.context / "files.tgz", "w:gz") as tar:
        entry = tarfile.TarInfo("in/side")
        entry.size, entry.uid, entry.mode = 3, 5, 0o604
        tar.addfile(entry, io.BytesIO(b"abc"))
    got = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            got.append(self.path)
            super().do_GET()

        def log_message(self, *_: object) -> None:
            pass

    (yard.context / "page").write_text("page\n")
    handler = functools.partial(Handler, directory=str(yard.context))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        text = (
            f"FROM plain\nADD files.tgz /a\nADD --unpack=false files.tgz /b/\n"
            f"ADD http://127.0.0.1:{server.server_port}/page /c/\n"
        )
        yard.build(text)
        assert got == ["/page"]
        assert [kind for kind, _ in yard.told(text)] == ["cached"] * 3
        (yard.context / "page").write_text("other\n")
        assert [kind for kind, _ in yard.told(text)] == ["cached", "cached", "done"]
        server.shutdown()
    assert yard.layer(-3)["a/in/side"] == b"abc" and yard.owners(-3)["a/in/side"] == (5, 0)
    assert yard.layer(-2)["b/files.tgz"] == (yard.context / "files.tgz").read_bytes()
    assert yard.layer() == {"c": None, "c/page": b"other\n"} and yard.modes(-1)["c/page"] == 0o600


def test_a_context_from_a_pipe(yard: Yard) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, content in (("sub/Dockerfile", b"FROM plain\nCOPY a b /\n"), ("a", b"1"), ("b", b"2"), ("c", b"3")):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    for options, context in ((["-f", "sub/Dockerfile"], packed.getvalue()), ([], b"FROM plain\nCOPY <<X /a\nX\n")):
        words = [sys.executable, "-m", "minicontainer", "build", "-q", "-t", "app", *options, "-"]
        subprocess.run(words, input=context, check=True, capture_output=True)
        assert sorted(yard.layer()) == (["a", "b"] if options else ["a"])
    done = subprocess.run(words, input=b"FROM plain\nCOPY a /\n", capture_output=True, text=False)
    assert done.returncode == 1 and b"Dockerfile:2: there is no context" in done.stderr


def test_what_is_wrong_names_its_line(yard: Yard) -> None:
    for text, complaint in (
        ("FROM plain\nCOPY nosuch /\n", 'Dockerfile:2: COPY: "/nosuch": not found'),
        ("FROM plain\nCOPY ../x /\n", "Dockerfile:2: COPY:"),
        ("FROM plain\nCOPY --from=nosuch.invalid/x / /\n", "Dockerfile:2: COPY nosuch.invalid/x:"),
        ("FROM plain\nCOPY --chown=nobody Dockerfile /\n", "Dockerfile:2: COPY: --chown=nobody"),
        ("FROM plain\nCOPY --chmod=999 Dockerfile /\n", "Dockerfile:2: COPY: --chmod=999"),
        ("FROM plain\nCOPY Dockerfile /etc\nCOPY Dockerfile /etc/passwd/\n", "Dockerfile:3: COPY:"),
    ):
        assert complaint in yard.build(text, code=1).stderr
    assert yard.containers() == []


def test_stages_that_do_not_need_one_another_run_side_by_side(yard: Yard) -> None:
    """Each waits for what the other writes: one after the other, the first would wait for ever."""
    step = "RUN --mount=type=cache,target=/c echo >/c/{0}; n=0; while ! test -e /c/{1}; do sleep 0.1; done\n"
    yard.build(
        f"FROM plain AS one\n{step.format('one', 'two')}FROM plain AS two\n{step.format('two', 'one')}"
        "FROM scratch\nCOPY --from=one /etc/passwd /one\nCOPY --from=two /etc/passwd /two\n"
    )
    assert len(yard.image().chain_ids) == 2
