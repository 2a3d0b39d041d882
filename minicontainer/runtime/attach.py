"""The monitor's side of a running container: its output goes to the log and to whoever is attached, their input to it.

A client is a socket of sequenced packets (unix(7)): the one that asked for the start, and whoever has connected to
`monitor.sock` in the container's directory of /run. What it sends and gets:

    0…  1…  2…             bytes for the container's standard input; bytes that it wrote to its output, or error output
    {"attach": stdin}      from now on I want its output; with `stdin`, its input is mine to write
    {"eof": true}          … and has ended
    {"follow": true}       tell me, by a packet `!`, that the log has grown: maybe once for several times
    {"signal": n, "stop": bool}   send it a signal; with `stop`, do not restart it. Answered {"signalled": bool}
    {"resize": [rows, columns]}   its terminal
    {"questions": true}    beside it, the two sockets of network/dns.py, where the container asks for names from now on.
                           Answered {"taken": bool}
    {"lead": address}      the published ports that the monitor relays lead there from now on; "" is nowhere. Answered
                           {"led": bool}
    {"close": 1 or 2}      nobody reads this output any more: let it meet a broken pipe
    {"started": pid}       the answer to `attach`, and again after each restart; beside it, a pidfd
    {"ended": code}        its command has ended, and is going to be restarted
    {"exited": code}       … has ended for good, and all is taken down

Whoever else has something to do in the monitor is a guest: a descriptor, perhaps an epoll(7) of many, and a function
that is called when it is readable, and never waits.

A client that is slow slows the container down once a mebibyte waits for it, as a pipe would; one that has gone not.
The monitor imports this into an interpreter that has little else: channel and json come in when somebody
asks for something, `files` and ctypes not at all. That is a third of an idle monitor's memory.
"""

from __future__ import annotations

import _socket as socket
import os
import select
import time

from . import log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

LARGEST = 1 << 17  # bytes of one packet
CHUNK = 1 << 16  # bytes of one read, and of one packet
ENOUGH = 1 << 20  # bytes that may wait for one client before the container does
NAME = "monitor.sock"


class Client:
    """One who looks on, or waits, or asks."""

    def __init__(self, end: socket.socket, takes: bool = False, gives: bool = False, follows: bool = False) -> None:
        self.end = end
        self.takes = takes  # the container's output
        self.gives = gives  # its input
        self.follows = follows  # its log
        self.pending: list[tuple[bytes, int]] = []  # packets that its socket had no room for; what goes beside, or -1
        self.waiting = 0  # their bytes

    def send(self, packet: bytes, beside: int = -1) -> None:
        """Send now, or when there is room. The descriptor `beside` it may be closed by then."""
        self.pending.append((packet, os.dup(beside) if beside >= 0 else -1))
        self.waiting += len(packet)
        self.flush()

    def flush(self) -> None:
        """Send what there is room for. Raises OSError for a client that has gone."""
        while self.pending:
            packet, beside = self.pending[0]
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, beside.to_bytes(4, "little"))] if beside >= 0 else []
            try:
                self.end.sendmsg([packet], rights, socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            self.waiting -= len(packet)
            self.pending.pop(0)
            if beside >= 0:
                os.close(beside)

    def nudge(self) -> None:
        """Say that the log has grown, unless it has been told so often that its socket is full."""
        try:
            self.end.send(b"!", socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT)
        except BlockingIOError:
            pass

    def close(self) -> None:
        """It has gone: nothing waits for it any more."""
        for _, beside in self.pending:
            if beside >= 0:
                os.close(beside)
        self.end.close()


class Stage:
    """One container and its audience. Filled by the monitor: before a start by `open`, after it by `began`."""

    def __init__(self, log: log.Writer) -> None:
        self.log = log
        self.clients: list[Client] = []
        self.listener = -1
        self.pid = self.process = -1  # the container's init, and a pidfd of it
        self.outputs: dict[int, int] = {}  # descriptors to read from → 1 or 2
        self.input = -1  # the descriptor behind its standard input: a pipe, or the terminal's master
        self.terminal = False
        self.slave = -1  # the terminal's other side, held open
        self.once = False  # its input ends when whoever writes it has gone (docker: StdinOnce)
        self.stopping = False  # somebody asked for its end: no restart
        self.typed = b""  # input that the container has not taken yet
        self.guests: dict[int, Callable[[], None]] = {}  # other descriptors, and what to call when one is readable
        self.answering: Callable[[int, int], bool] | None = None  # takes the sockets of {"questions"}, if it says so
        self.leading: Callable[[str], None] | None = None  # does what {"lead"} says

    # Before a start

    def open(self, stdin: bool, terminal: bool) -> None:
        """Put pipes at our own 0, 1, 2 for the container to inherit; nothing but /dev/null where it has no `stdin`."""
        self.terminal, self.outputs, self.input, self.typed = terminal, {}, -1, b""
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        for number in (0, 1, 2):
            if terminal or (number == 0 and not stdin):
                os.dup2(null, number)
                continue
            reader, writer = os.pipe()
            ours, theirs = (writer, reader) if number == 0 else (reader, writer)
            os.dup2(theirs, number)
            os.close(theirs)
            os.set_blocking(ours, False)
            if number:
                self.outputs[ours] = number
            else:
                self.input = ours
        os.close(null)

    def began(self, pid: int, master: int | None, stdin: bool) -> None:
        """The container runs: let go of its ends of the pipes, and tell the clients."""
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        for number in (0, 1, 2):
            os.dup2(null, number)
        os.close(null)
        self.pid, self.process = pid, os.pidfd_open(pid)  # until we reap it, the pid is nobody else's
        if master is not None:
            from ..kernel import terminal

            self.slave = terminal.hold_slave(master)
            os.set_blocking(master, False)
            self.outputs = {master: 1}
            self.input = master if stdin else -1
        for client in list(self.clients):
            if client.takes:
                self.introduce(client)

    def listen(self, directory: str) -> None:
        """Let clients come by `monitor.sock` in `directory`, which is made if missing and only its owner may enter."""
        from .. import files

        files.make_directory(directory, 0o700)
        place = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        door = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            door.bind(f"/proc/self/fd/{place}/{NAME}")  # whatever the path's length: sun_path has 108 bytes
        finally:
            os.close(place)
        door.listen(64)
        self.listener = door.detach()

    # While it runs

    def serve(self, seconds: float = -1) -> int | None:
        """Until the command has ended: its wait status. None after so many seconds, once nothing is on its way."""
        until = time.monotonic() + seconds
        while True:
            pending = bool(self.typed) or any(client.pending for client in self.clients)
            left = -1.0 if seconds < 0 or pending else max(0.0, until - time.monotonic())
            if left == 0:
                return None
            poll = select.poll()
            crowded = any(client.waiting > ENOUGH for client in self.clients)
            for descriptor in () if crowded else self.outputs:
                poll.register(descriptor, select.POLLIN)
            if self.typed:
                reads = select.POLLIN if self.input in self.outputs and not crowded else 0  # a terminal is both
                poll.register(self.input, select.POLLOUT | reads)
            self.watch(poll)
            poll.register(self.process, select.POLLIN)
            ready = poll.poll(left * 1000 if left > 0 else None)
            for descriptor, event in ready:
                if descriptor in self.outputs and event & ~select.POLLOUT:
                    self.read(descriptor)
                if descriptor == self.input and event & (select.POLLOUT | select.POLLERR):  # full, and nobody reads it
                    self.feed()
            self.attend(ready)
            if (self.process, select.POLLIN) in ready:
                return self.reap()

    def reap(self) -> int:
        """The command has ended: read the last of what it wrote, close what led to it. Its wait status.

        What it has left behind may write on, without end: what is there now is read, and no more.
        """
        import fcntl
        import termios

        _, status = os.waitpid(self.pid, 0)
        for descriptor in list(self.outputs):
            # A pipe says how much it holds. A terminal only knows of a part of it, but cannot hold so much.
            told = fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4))
            left = CHUNK if self.terminal else int.from_bytes(told, "little")
            while left > 0 and (count := self.read(descriptor)):
                left -= count
        self.log.flush()
        for descriptor in {self.process, self.slave, self.input, *self.outputs} - {-1}:
            os.close(descriptor)
        self.pid = self.process = self.slave = self.input = -1
        self.outputs, self.typed = {}, b""
        return status

    def watch(self, poll: select.poll) -> None:
        """What the clients may do: come, go, ask, take what waits for them. And what the guests wait for."""
        if self.listener >= 0:
            poll.register(self.listener, select.POLLIN)
        for descriptor in self.guests:
            poll.register(descriptor, select.POLLIN)
        for client in self.clients:
            # Who types faster than the container reads waits; that it has gone is seen all the same (POLLHUP).
            wanted = 0 if client.gives and len(self.typed) > CHUNK else select.POLLIN
            poll.register(client.end.fileno(), wanted | (select.POLLOUT if client.pending else 0))

    def attend(self, ready: list[tuple[int, int]]) -> None:
        """Do what clients ask for, and call the guests whose descriptors are ready."""
        descriptors = dict(ready)
        for client in list(self.clients):
            event = descriptors.get(client.end.fileno(), 0)
            try:
                if event & select.POLLOUT:
                    client.flush()
                if event & select.POLLIN:
                    self.hear(client)
                elif event & (select.POLLHUP | select.POLLERR):
                    self.leave(client)
            except OSError:
                self.leave(client)
        for descriptor, call in list(self.guests.items()):
            if descriptor in descriptors:
                try:
                    call()
                except Exception:  # the container does not depend on a guest: it is asked no more
                    self.guests.pop(descriptor, None)
        # Last: who comes may get the number of a descriptor that was ready, and has been closed.
        if self.listener in descriptors:
            self.welcome()

    def read(self, descriptor: int) -> int:
        """Pass on what the container wrote: how many bytes. 0 where there is nothing more for now."""
        try:
            data = os.read(descriptor, CHUNK - 1)
        except BlockingIOError:
            return 0
        except OSError:  # EIO: nobody has the terminal's other side open, and it could not be held
            data = b""
        if not data:
            if descriptor != self.input:
                os.close(descriptor)
            del self.outputs[descriptor]
            return 0
        stream = self.outputs[descriptor]
        self.log.write(stream, data)
        packet = b"%d" % stream + data
        for client in list(self.clients):
            try:
                if client.takes:
                    client.send(packet)
                elif client.follows:
                    client.nudge()
            except OSError:
                self.leave(client)
        return len(data)

    def feed(self) -> None:
        """Give the container what was typed, as much as it takes."""
        try:
            self.typed = self.typed[os.write(self.input, self.typed) :]
        except BlockingIOError:
            return
        except OSError:  # it has closed its input
            self.close_input()
        if not self.typed and self.once and not self.terminal and not any(client.gives for client in self.clients):
            self.close_input()

    def close_input(self) -> None:
        """The container reads the end of its input. A terminal has none: ctrl-D is a byte like others."""
        self.typed = b""
        if self.input >= 0 and not self.terminal:
            os.close(self.input)
            self.input = -1

    # Clients

    def welcome(self) -> None:
        """Let a client in, if it is of our user or root (SO_PEERCRED, unix(7))."""
        door = socket.socket(fileno=self.listener)
        try:
            descriptor, _ = door._accept()  # type: ignore[attr-defined]  # what socket.accept is made of
        except OSError:  # no descriptor is free (EMFILE, ENFILE): it may still come in; we do not look all the time
            time.sleep(0.1)
            return
        finally:
            door.detach()
        end = socket.socket(fileno=descriptor)
        credentials = end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        if int.from_bytes(credentials[4:8], "little") in (0, os.geteuid()):
            self.clients.append(Client(end))
        else:
            end.close()

    def hear(self, client: Client) -> None:
        """One packet from a client."""
        packet, beside, _, _ = client.end.recvmsg(LARGEST, socket.CMSG_SPACE(8), socket.MSG_CMSG_CLOEXEC)
        if beside:
            self.receive(client, packet, beside[0][2])
        elif not packet:
            self.leave(client)
        elif packet[:1] == b"0":
            if self.input >= 0 and client.gives:
                self.typed += packet[1:]
                self.feed()
        elif packet[:1] == b"{":
            from . import channel

            self.obey(client, channel.parse(packet))

    def receive(self, client: Client, packet: bytes, content: bytes) -> None:
        """A packet with descriptors: whoever answers takes them, or nobody does."""
        from . import channel

        given = memoryview(content).cast("i").tolist()
        wanted = packet[:1] == b"{" and "questions" in channel.parse(packet) and len(given) == 2 and self.process >= 0
        taken = bool(wanted and self.answering and self.answering(*given))
        for descriptor in () if taken else given:
            os.close(descriptor)
        client.send(channel.packet({"taken": taken}))

    def obey(self, client: Client, asked: dict[str, Any]) -> None:
        """Do what a client asks for."""
        from . import channel

        if "attach" in asked:
            client.takes, client.gives = True, bool(asked["attach"])
            if self.process >= 0:
                self.introduce(client)
        elif "eof" in asked:
            client.gives = False
            if self.once and not self.typed:
                self.close_input()
        elif "follow" in asked:
            client.follows = True
            client.nudge()
        elif "close" in asked and not self.terminal:
            for descriptor in [key for key, stream in self.outputs.items() if stream == asked["close"]]:
                del self.outputs[descriptor]
                os.close(descriptor)
        elif "resize" in asked:
            self.resize(*asked["resize"])
        elif "lead" in asked:
            there = self.process >= 0 and self.leading is not None
            if there and self.leading:
                self.leading(asked["lead"])
            client.send(channel.packet({"led": there}))
        elif "signal" in asked:
            self.stopping = self.stopping or asked["stop"]
            self.send_signal(asked["signal"])
            client.send(channel.packet({"signalled": self.pid > 0}))

    def send_signal(self, number: int) -> None:
        """Signal the container's init, if there is one: it is our child, so its pid is nobody else's."""
        if self.pid > 0:
            os.kill(self.pid, number)

    def introduce(self, client: Client) -> None:
        """Tell an attached client of the container's process."""
        from . import channel

        try:
            client.send(channel.packet({"started": self.pid, "terminal": self.terminal}), self.process)
        except OSError:
            self.leave(client)

    def resize(self, rows: int, columns: int) -> None:
        """The size of the container's terminal."""
        from ..kernel import terminal

        for master in self.outputs if self.terminal else ():
            terminal.set_size(master, rows, columns)

    def leave(self, client: Client) -> None:
        """A client has gone."""
        self.clients.remove(client)
        client.close()
        if client.gives and self.once and not self.typed:
            self.close_input()

    def tell(self, message: dict[str, Any]) -> None:
        """Tell every client."""
        from . import channel

        for client in list(self.clients):
            try:
                client.send(channel.packet(message))
            except OSError:
                self.leave(client)

    def idle(self, seconds: float) -> None:
        """Attend to clients for so long, while nothing runs; less, if somebody asks for the container's end."""
        until = time.monotonic() + seconds
        while not self.stopping and (left := until - time.monotonic()) > 0:
            poll = select.poll()
            self.watch(poll)
            self.attend(poll.poll(left * 1000))

    def finish(self, message: dict[str, Any]) -> None:
        """The last word to every client; returns when each has read all that waits for it, or has gone."""
        if self.listener >= 0:
            os.close(self.listener)
            self.listener = -1
        self.tell(message)
        while self.clients and any(client.pending for client in self.clients):
            poll = select.poll()
            self.watch(poll)
            self.attend(poll.poll())

    # To go on in another interpreter

    def state(self) -> dict[str, Any]:
        """What `restored` makes a stage of, descriptors by number; execve does not close them now.

        Guests are functions, and for whoever brought them to hand over.
        """
        self.hand_down(True)
        names = ("listener", "pid", "process", "outputs", "input", "slave", "terminal", "once", "stopping")
        return {
            "log": self.log.state(),
            "clients": [(client.end.fileno(), client.takes, client.gives, client.follows) for client in self.clients],
            **{name: getattr(self, name) for name in names},
        }

    def hand_down(self, inheritable: bool) -> None:
        """Whether execve leaves what we have open."""
        clients = [client.end.fileno() for client in self.clients]
        for descriptor in {self.listener, self.process, self.slave, self.input, *self.outputs, *clients} - {-1}:
            os.set_inheritable(descriptor, inheritable)


def restored(state: dict[str, Any]) -> Stage:
    """The stage whose `state()` that was."""
    stage = Stage(log.Writer(**state.pop("log")))
    for descriptor, *wishes in state.pop("clients"):
        stage.clients.append(Client(socket.socket(fileno=descriptor), *wishes))
    for name, value in state.items():
        setattr(stage, name, value)
    stage.hand_down(False)
    return stage
