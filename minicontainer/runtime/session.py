"""The client's side of a container: what happens to it as it happens, its output, its input.

A `Session` is what `monitor.fork` gives whoever asked for a container, and `connect` whoever comes later; the monitor
does not tell them apart. Packets are those of attach.py. A session that ends, in whatever way, ends no container.
"""

from __future__ import annotations

import _socket as socket
import os
import select

from .. import errors, files
from .. import signals as signal
from . import attach, channel

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing: 4 ms of every start
    from collections.abc import Callable, Iterator
    from typing import Any

    Report = Callable[[dict[str, Any]], None]

DETACH = b"\x10\x11"  # ctrl-p ctrl-q
KILLED = "the monitor was killed, and the kernel ended its container: `minicontainer system check --repair` cleans up"

leaving: list[int] = []  # monitors, children of ours, that have said their last word and may not have ended yet


class Session:
    """One end of a connection to a monitor. `monitor` is its pid where it is a child of ours, to be reaped."""

    def __init__(self, end: socket.socket, monitor: int = 0) -> None:
        self.end = end
        self.monitor = monitor
        self.process = -1  # a pidfd of the container's init, once it is known
        self.terminal = False
        self.shown = {1, 2}  # of its outputs, those that `relay` passes on
        self.lost = KILLED  # what it means that the other side has gone without a word
        self.code: int | None = None  # how it ended, once that is known
        self.kept: list[bytes] = []  # packets that the monitor had no room for

    def ask(self, message: dict[str, Any]) -> None:
        """Send a request. Raises Gone if the monitor has ended."""
        try:
            channel.send(self.end, message)
        except (BrokenPipeError, ConnectionResetError):
            raise channel.Gone(KILLED) from None

    def tell(self, message: dict[str, Any]) -> None:
        """Send what needs no answer, now or in `relay`, once there is room."""
        self.send(channel.packet(message))

    def send(self, packet: bytes) -> None:
        """The same. It never waits: the monitor may be waiting for us to read what the container writes."""
        self.kept.append(packet)
        self.flush()

    def flush(self) -> None:
        """Send what there is room for. If the monitor has ended, its last words are still to be read."""
        while self.kept:
            packet = self.kept.pop(0)
            try:
                self.end.send(packet, socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT)
            except BlockingIOError:
                self.kept.insert(0, packet)
                return
            except (BrokenPipeError, ConnectionResetError):
                pass

    def wait_started(self, report: Report | None = None) -> int:
        """Wait until the command runs; returns its pid. Raises what went wrong. `report` gets a message per step."""
        return int(self.until("started", report=report)["started"])

    def wait_exited(self, report: Report | None = None) -> int:
        """Wait until the container has ended and all is taken down; returns its exit code (128+n for a signal)."""
        return int(self.until("exited", report=report)["exited"])

    def until(self, *words: str, report: Report | None = None, patience: float | None = None) -> dict[str, Any]:
        """The next message with one of these words in it.

        Raises TimeoutError where nothing comes for `patience` seconds, Gone, and whatever the monitor reports.
        """
        while True:
            if patience is not None and not select.select([self.end], [], [], patience)[0]:
                raise TimeoutError
            packet, descriptors = channel.receive_packet(self.end)
            message = self.understand(packet, descriptors)
            if any(word in message for word in words):
                return message
            if report and "by" in message:
                report(message)

    def understand(self, packet: bytes, descriptors: list[int]) -> dict[str, Any]:
        """A packet as a message; {} for what the container wrote. Raises what the monitor reports, Gone at the end."""
        if packet[:1] != b"{":
            if packet:
                return {}
            self.reap()
            raise channel.Gone(self.lost)
        message = channel.parse(packet)
        if "error" in message:
            self.reap()
            raise channel.revive(message["error"])
        if "started" in message:
            if self.process >= 0:
                os.close(self.process)
            self.process = descriptors[0]
            self.terminal = message["terminal"]
        if "exited" in message:
            self.reap()
        return message

    def reap(self) -> None:
        """The monitor is going, or has gone: its parent waits for it, if not now, then at the next one's end.

        All is taken down by then, and said; but the kernel closes its netlink socket only when what it has deleted from
        the firewall is freed, an RCU grace period later: ten milliseconds that nobody needs to wait for.
        """
        if self.monitor:
            leaving.append(self.monitor)
            self.monitor = 0
        leaving[:] = [pid for pid in leaving if not ended(pid)]

    def send_signal(self, number: int) -> None:
        """Signal the container's init; nothing happens if it has ended. Not through the monitor: it may wait for us."""
        try:
            signal.pidfd_send_signal(self.process, number)
        except ProcessLookupError:
            pass

    def resize(self, rows: int, columns: int) -> None:
        """The size of its terminal."""
        self.tell({"resize": [rows, columns]})

    def relay(self, stdin: bool, keys: bytes = DETACH, report: Report | None = None) -> int | None:
        """Write what the container writes to our own 1 and 2, and with `stdin` give it what comes from our 0.

        Returns its exit code once it has ended; None if somebody typed `keys`, where it has a terminal.
        """
        held, end = b"", self.end.fileno()
        while True:
            sources = [end, 0] if stdin and not self.kept else [end]
            ready, room, _ = select.select(sources, [end] if self.kept else [], [])
            if room:
                self.flush()
            if 0 in ready:
                data = self.read()
                if not data:
                    stdin = False
                    self.tell({"eof": True})
                elif self.terminal and keys:
                    data, found = held + data, (held + data).find(keys)
                    if found >= 0:
                        self.send(b"0" + data[:found])
                        return None
                    # What may be the beginning of the keys waits for the next one that is typed.
                    held = next((keys[:n] for n in range(len(keys) - 1, 0, -1) if data.endswith(keys[:n])), b"")
                    data = data[: len(data) - len(held)]
                if data:
                    self.send(b"0" + data)
            if end in ready:
                packet, descriptors = channel.receive_packet(self.end)
                if packet[:1] in (b"1", b"2"):
                    number = packet[0] - ord("0")
                    if number in self.shown:
                        self.write(number, memoryview(packet)[1:])
                    continue
                message = self.understand(packet, descriptors)
                if "exited" in message:
                    return int(message["exited"])
                if report and "by" in message:
                    report(message)

    def output(self) -> Iterator[tuple[int, bytes]]:
        """What the container writes from now on, as (1 or 2, bytes), until it has ended; then `code` is known."""
        while (told := self.written()) is not None:
            yield told

    def written(self) -> tuple[int, bytes] | None:
        """The next that it writes, as `output` has it; None once it has ended."""
        while True:
            packet, descriptors = channel.receive_packet(self.end)
            if packet[:1] in (b"1", b"2"):
                return packet[0] - ord("0"), packet[1:]
            message = self.understand(packet, descriptors)
            if "exited" in message:
                self.code = int(message["exited"])
                return None

    def write(self, number: int, data: memoryview) -> None:
        """Write to one of our outputs. If its reader has left, a container of ours gets to know, as by a pipe."""
        try:
            files.write_all(number, data)
        except BrokenPipeError:
            if not self.monitor:
                raise
            self.tell({"close": number})

    def read(self) -> bytes:
        """What can be read of our standard input; nothing at its end, or where our terminal has gone (EIO)."""
        try:
            return os.read(0, attach.CHUNK - 1)
        except OSError:
            return b""

    def close(self) -> None:
        """Let go. The container does not notice."""
        self.end.close()
        if self.process >= 0:
            os.close(self.process)
            self.process = -1


def ended(pid: int) -> bool:
    """Whether a child of ours has ended, and is reaped."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:  # somebody else has reaped it: the kernel, where our program ignores SIGCHLD
        return True


def connect(directory: str) -> Session:
    """A session with the monitor of the container whose directory of /run that is. Raises Conflict if there is none."""
    try:
        place = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise errors.Conflict("the container is not running") from None
    end = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        end.connect(f"/proc/self/fd/{place}/{attach.NAME}")
    except (FileNotFoundError, ConnectionRefusedError):
        end.close()
        raise errors.Conflict("the container is not running") from None
    finally:
        os.close(place)
    return Session(end)
