"""`minicontainer.build.build`: docker-py's words for a build. What a Dockerfile means is tested elsewhere.

Whoever builds is a program of its own, as a user's is: this one may have threads, of other tests' servers.
"""

import io
import json
import subprocess
import sys
import threading
from typing import Any

import pytest

from minicontainer import build, errors
from minicontainer.engine.client import Client
from tests.conftest import CHECKOUT
from tests.yard import Yard, fresh_yard  # noqa: F401

pytestmark = [pytest.mark.root, pytest.mark.needs("overlay", "libseccomp")]

PROGRAM = """
import io, json, sys

from minicontainer import build, errors
from minicontainer.engine.client import Client

client, told = Client(sys.argv[1]), []
for words in json.loads(sys.argv[2]):
    if "text" in words:
        words["fileobj"] = io.BytesIO(words.pop("text").encode())
    try:
        image, log = build.build(client, **words, network_mode="none")
        told.append([image.id, log])
    except errors.BuildError as error:
        told.append([str(error), error.build_log])
print(json.dumps(told))
"""


def built(yard: Yard, *calls: dict[str, Any]) -> list[tuple[str, Any]]:
    """For each call its image's ID, or what was raised, and the log."""
    words = [sys.executable, "-c", PROGRAM, str(yard.root), json.dumps(calls)]
    done = subprocess.run(words, cwd=CHECKOUT, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=100)
    assert done.returncode == 0, done.stderr
    return [(name, log) for name, log in json.loads(done.stdout.splitlines()[-1])]


def test_a_directory_and_what_docker_py_says_of_it(yard: Yard) -> None:
    (yard.context / "other").write_text("FROM plain AS one\nARG A\nRUN echo $A >/made\nFROM plain\nRUN false\n")
    words = {"path": str(yard.context), "dockerfile": "other", "target": "one", "buildargs": {"A": "x"}}
    first, again, anew = built(
        yard, {**words, "tag": "mine:2", "labels": {"k": "v"}}, words, {**words, "nocache": True}
    )
    image = yard.image("mine:2")
    assert first[0] == image.id and image.config["config"]["Labels"]["k"] == "v"
    assert yard.layer(name="mine:2")["made"] == b"x\n"
    assert first[1][-1] == {"stream": f"Successfully built {image.id[7:19]}\n"}
    cached = {"stream": " ---> Using cache\n"}
    assert [cached in log for _, log in (first, again, anew)] == [False, True, False]


def test_what_cannot_be_is_raised(yard: Yard) -> None:
    client = Client(str(yard.root))
    for given in ({}, {"path": str(yard.context), "fileobj": io.BytesIO(b"FROM plain\n")}):
        with pytest.raises(errors.InvalidArgument, match="either path or fileobj"):
            build.build(client, **given)
    with pytest.raises(errors.BuildError, match="no such Dockerfile"):
        build.build(client, str(yard.context), dockerfile="nosuch")
    text = r"RUN printf 'h\303'; sleep 0.2; printf '\251\n'; exit 3"  # a character in two pieces
    [(said, log)] = built(yard, {"text": f"FROM plain\n{text}\n"})
    assert "exit code: 3" in said
    assert "".join(line["stream"] for line in log).endswith("hé\n"), "the log of what went wrong is at hand"
    over = threading.Event()
    thread = threading.Thread(target=over.wait)
    thread.start()
    try:
        with pytest.raises(errors.Unsupported, match="threads"):
            build.build(client, fileobj=io.BytesIO(b"FROM plain\nRUN echo another\n"), network_mode="none")
    finally:
        over.set()
        thread.join()
    assert yard.containers() == []
