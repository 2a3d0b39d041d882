"""`minicontainer.build.build`: docker-py's words for a build. What a Dockerfile means is tested elsewhere."""

import io
import threading

import pytest

from minicontainer import build, errors
from minicontainer.engine.client import Client
from tests.yard import Yard, fresh_yard  # noqa: F401

pytestmark = [pytest.mark.root, pytest.mark.needs("overlay", "libseccomp")]


def test_a_directory_and_what_docker_py_says_of_it(yard: Yard) -> None:
    (yard.context / "other").write_text("FROM plain AS one\nARG A\nRUN echo $A >/made\nFROM plain\nRUN false\n")
    client = Client(str(yard.root))
    words = {"dockerfile": "other", "target": "one", "buildargs": {"A": "x"}, "network_mode": "none"}
    image, log = build.build(client, str(yard.context), "mine:2", labels={"k": "v"}, **words)
    assert client.images.get("mine:2").id == image.id
    assert image.config["config"]["Labels"]["k"] == "v"
    assert client.containers.run("mine:2", ["cat", "/made"], network_mode="none", remove=True) == b"x\n"
    assert log[-1] == {"stream": f"Successfully built {image.id[7:19]}\n"}
    cached = {"stream": " ---> Using cache\n"}
    assert cached not in log and cached in build.build(client, str(yard.context), **words)[1]
    assert cached not in build.build(client, str(yard.context), nocache=True, **words)[1]


def test_what_cannot_be_is_raised(yard: Yard) -> None:
    client = Client(str(yard.root))
    for given in ({}, {"path": str(yard.context), "fileobj": io.BytesIO(b"FROM plain\n")}):
        with pytest.raises(errors.InvalidArgument, match="either path or fileobj"):
            build.build(client, **given)
    with pytest.raises(errors.BuildError, match="no such Dockerfile"):
        build.build(client, str(yard.context), dockerfile="nosuch")
    with pytest.raises(errors.BuildError, match="exit code: 3"):
        build.build(client, fileobj=io.BytesIO(b"FROM plain\nRUN exit 3\n"), network_mode="none")
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
