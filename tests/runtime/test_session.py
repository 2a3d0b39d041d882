"""A client's side of a container, with sockets and pipes of this process."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from minicontainer.runtime import channel, session


@pytest.fixture
def typing(tmp_path: Path) -> Iterator[int]:
    """Our standard input is a pipe, of which this is the other end; our output a file."""
    kept = [os.dup(number) for number in (0, 1)]
    reader, writer = os.pipe()
    os.dup2(reader, 0)
    os.close(reader)
    written = os.open(tmp_path / "written", os.O_WRONLY | os.O_CREAT)
    os.dup2(written, 1)
    os.close(written)
    yield writer
    for number, before in enumerate(kept):
        os.dup2(before, number)
        os.close(before)
    os.close(writer)


def test_the_keys_are_heard_while_output_streams(typing: int) -> None:
    ours, theirs = channel.pair()
    for _ in range(10):
        theirs.send(b"1y\n")
    theirs.send(channel.packet({"exited": 0}))
    opened = session.Session(ours)
    opened.terminal = True
    os.write(typing, b"a" + session.DETACH)
    assert opened.relay(stdin=True) is None
    assert theirs.recv(10) == b"0a"
    ours.close()
    theirs.close()
