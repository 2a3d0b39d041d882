"""The monitor's side of a running container, with pipes and sockets of this process."""

import os
import select
import socket
from pathlib import Path

from minicontainer.runtime import attach, log


def test_who_comes_as_the_output_ends_is_not_taken_for_it(tmp_path: Path) -> None:
    """accept(2) gives the lowest free number: that of a pipe which was ready, and was closed, in the same round."""
    stage = attach.Stage(log.Writer("", 0, 1))
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    stage.outputs = {reader: 1}
    stage.listen(str(tmp_path))
    ours = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.connect(str(tmp_path / attach.NAME))
    os.close(writer)
    poll = select.poll()
    poll.register(reader, select.POLLIN)
    stage.watch(poll)
    ready = poll.poll()
    assert dict(ready) == {reader: select.POLLHUP, stage.listener: select.POLLIN}
    assert not stage.read(reader)
    stage.attend(ready)
    [client] = stage.clients
    assert client.end.fileno() == reader
    stage.finish({"exited": 3})
    assert ours.recv(100) == b'{"exited": 3}'
    ours.close()
    client.end.close()


def test_a_guest_is_called_when_its_descriptor_is_readable_and_one_that_fails_no_more() -> None:
    stage = attach.Stage(log.Writer("", 0, 1))
    heard: list[bytes] = []

    def fail() -> None:
        raise ValueError

    (good, one), (bad, other) = os.pipe(), os.pipe()
    stage.guests = {good: lambda: heard.append(os.read(good, 10)), bad: fail}
    os.write(one, b"a")
    stage.idle(0.01)
    assert heard == [b"a"]
    os.write(other, b"b")
    os.write(one, b"c")
    stage.idle(0.01)
    assert heard == [b"a", b"c"] and list(stage.guests) == [good]
    for descriptor in (good, one, bad, other):
        os.close(descriptor)
