"""The monitor's side of a running container, with pipes and sockets of this process."""

import os
import resource
import select
import signal
import socket
from pathlib import Path

from minicontainer.runtime import attach, channel, log


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


def spawned(*words: str) -> int:
    """The pid of a child of ours."""
    return os.posix_spawnp(words[0], words, os.environ)


def test_input_that_nobody_can_read_any_more_is_closed() -> None:
    """A full pipe without a reader is not writable (POLLOUT), only in error (POLLERR)."""
    stage = attach.Stage(log.Writer("", 0, 1))
    reader, stage.input = os.pipe()
    os.set_blocking(stage.input, False)
    try:
        while True:
            os.write(stage.input, b"x" * 4096)
    except BlockingIOError:
        stage.typed = b"more"
    os.close(reader)
    stage.pid = spawned("sleep", "5")
    stage.process = os.pidfd_open(stage.pid)
    status = stage.serve(0.01)
    assert status is None, "as long as something is on its way it does not return before its end"
    assert (stage.input, stage.typed) == (-1, b"")
    os.kill(stage.pid, signal.SIGKILL)
    assert stage.reap() == signal.SIGKILL


def test_the_last_that_it_wrote_has_an_end_though_others_write_on() -> None:
    """They hold its pipe, and fill it faster than it is emptied."""
    stage = attach.Stage(log.Writer("", 0, 1))
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    stage.outputs = {reader: 1}
    os.write(writer, b"last")
    stage.pid = spawned("true")
    stage.process = os.pidfd_open(stage.pid)
    read = stage.read
    got: list[int] = []

    def read_and_refill(descriptor: int) -> int:
        assert len(got) < 5
        got.append(read(descriptor))
        os.write(writer, b"more")
        return got[-1]

    stage.read = read_and_refill  # type: ignore[method-assign]
    assert stage.reap() == 0
    assert got == [4]
    os.close(writer)


def test_no_process_begun_by_the_next_interpreter_inherits_a_client() -> None:
    """Nobody would see that the monitor has ended, as long as that process lives."""
    stage = attach.Stage(log.Writer("", 0, 1))
    end, ours = channel.pair()
    stage.clients.append(attach.Client(end, takes=True))
    state = stage.state()
    number = end.detach()
    assert os.get_inheritable(number), "execve leaves it open"
    [client] = attach.restored(state).clients
    assert client.takes and client.end.fileno() == number
    assert not os.get_inheritable(number)
    client.end.close()
    ours.close()


def test_a_client_that_reads_nothing_does_not_hold_up_a_restart() -> None:
    """What it is told waits for it, in order; the descriptor of its process, too, though that has ended meanwhile."""
    stage = attach.Stage(log.Writer("", 0, 1))
    end, ours = channel.pair()
    client = attach.Client(end, takes=True)
    stage.clients.append(client)
    while not client.pending:
        client.send(b"1" + b"x" * 1000)
    stage.pid = 7
    stage.process = os.pidfd_open(os.getpid())
    opened = len(os.listdir("/proc/self/fd"))
    stage.introduce(client)
    client.send(b"1last")
    os.close(stage.process)
    packet, descriptors = b"1", list[int]()
    while packet[:1] == b"1":
        packet, descriptors = channel.receive_packet(ours)
        client.flush()
    assert channel.parse(packet) == {"started": 7, "terminal": False}
    [process] = descriptors
    assert f"Pid:\t{os.getpid()}\n" in Path(f"/proc/self/fdinfo/{process}").read_text()
    assert ours.recv(10) == b"1last"
    os.close(process)
    assert len(os.listdir("/proc/self/fd")) == opened - 1
    stage.leave(client)
    ours.close()


def test_who_cannot_come_in_for_want_of_a_descriptor_waits(tmp_path: Path) -> None:
    stage = attach.Stage(log.Writer("", 0, 1))
    stage.listen(str(tmp_path))
    ours = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.connect(str(tmp_path / attach.NAME))
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, before[1]))
    try:
        stage.welcome()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert stage.clients == []
    stage.welcome()
    [client] = stage.clients
    stage.leave(client)
    os.close(stage.listener)
    ours.close()
