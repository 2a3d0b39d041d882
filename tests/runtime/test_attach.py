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
