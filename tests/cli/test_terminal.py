"""`-t`: a real terminal (pty(7)) in front of the client, and one behind it in the container."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
from collections.abc import Iterator

import pytest

from tests import leftovers
from tests.engine_fixtures import Shop, fresh_shop  # noqa: F401

pytestmark = pytest.mark.root

FLAGS = ("--rm", "--network", "none")
LIMIT = 30  # seconds without a byte: something hangs


class Screen:
    """A client in a terminal of its own, and we at its keyboard."""

    def __init__(self, *arguments: str, rows: int = 31, columns: int = 99) -> None:
        self.open("run", *FLAGS, *arguments, rows=rows, columns=columns)

    @classmethod
    def typing(cls, *words: str) -> "Screen":
        """The same with another command."""
        screen = cls.__new__(cls)
        screen.open(*words)
        return screen

    def open(self, *words: str, rows: int = 31, columns: int = 99) -> None:
        self.seen = ""
        self.code: int | None = None
        self.pid, self.master = pty.fork()
        if self.pid == 0:
            try:
                fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
                os.execv(sys.executable, [sys.executable, "-m", "minicontainer", *words])
            finally:
                os._exit(99)

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def until(self, pattern: str) -> str:
        """Read until the pattern is there; returns what it matched, and forgets all up to its end."""
        while not (found := re.search(pattern, self.seen, re.DOTALL)):
            ready, _, _ = select.select([self.master], [], [], LIMIT)
            assert ready, f"nothing came; so far: {self.seen!r}"
            try:
                data = os.read(self.master, 65536)
            except OSError:
                data = b""
            assert data, f"the end came; so far: {self.seen!r}"
            self.seen += data.decode(errors="replace")
        self.seen = self.seen[found.end() :]
        return found[0]

    def rest(self) -> str:
        """All that is still to come, to the end."""
        try:
            while data := os.read(self.master, 65536):
                self.seen += data.decode(errors="replace")
        except OSError:  # EIO: nobody has the other side open any more
            pass
        return self.seen

    def wait(self) -> int:
        """The client's exit code."""
        if self.code is None:
            self.rest()
            self.code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.code

    def mode(self) -> list[object]:
        """The terminal's modes (termios(3))."""
        return termios.tcgetattr(self.master)


@pytest.fixture
def screens(shop: Shop) -> Iterator[list[Screen]]:
    """What was opened is closed, and its client's end waited for."""
    made: list[Screen] = []
    yield made
    for screen in made:
        os.close(screen.master)
        if screen.code is None:
            os.kill(screen.pid, signal.SIGKILL)
            os.waitpid(screen.pid, 0)
    shop.end_all()


def test_it_is_a_terminal_of_its_own(shop: Shop, screens: list[Screen]) -> None:
    screens.append(Screen("-it", "demo", "sh", "-c", "tty; [ -c /dev/console ] && echo console; echo $TERM"))
    assert screens[0].rest().split() == ["/dev/pts/0", "console", "xterm"]
    assert screens[0].wait() == 0


def test_console_is_there_only_with_a_terminal(shop: Shop) -> None:
    assert shop.run("demo", "ls", "/dev/console", check=False).returncode == 1


def test_each_line_ends_once(shop: Shop, screens: list[Screen]) -> None:
    """The container's terminal makes \\r\\n of \\n; ours, in raw mode, does not do it again."""
    screens.append(Screen("-it", "demo", "echo", "a"))
    assert screens[0].rest() == "a\r\n"


def test_the_exit_code_is_the_commands(shop: Shop, screens: list[Screen]) -> None:
    screens.append(Screen("-it", "demo", "sh", "-c", "exit 42"))
    assert screens[0].wait() == 42


def test_a_conversation(shop: Shop, screens: list[Screen]) -> None:
    screen = Screen("-it", "demo", "sh")
    screens.append(screen)
    screen.until("# ")
    screen.type("echo $((6 * 7))\n")
    screen.until(r"\r\n42\r\n")
    screen.type("exit 3\n")
    assert screen.wait() == 3


def test_control_d_ends_its_input(shop: Shop, screens: list[Screen]) -> None:
    screen = Screen("-it", "demo", "sh", "-c", "echo ready; cat; echo ended")
    screens.append(screen)
    screen.until("ready\r\n")
    screen.type("line\n\x04")
    assert screen.rest().endswith("ended\r\n")
    assert screen.wait() == 0


def test_control_c_interrupts_what_runs_inside(shop: Shop, screens: list[Screen]) -> None:
    """The key is a byte to us: the container's own terminal makes the signal, for its foreground group."""
    screen = Screen(
        "-it", "demo", "sh", "-c", "trap 'echo caught; exit 5' INT; echo ready; while :; do sleep 0.05; done"
    )
    screens.append(screen)
    screen.until("ready\r\n")
    screen.type("\x03")
    assert "caught\r\n" in screen.rest()
    assert screen.wait() == 5


def test_a_shell_survives_control_c(shop: Shop, screens: list[Screen]) -> None:
    screen = Screen("-it", "demo", "sh")
    screens.append(screen)
    screen.until("# ")
    screen.type("sh -c 'echo started; sleep 60'\n")
    screen.until("started\r\n")
    screen.type("\x03")
    screen.until("# ")
    screen.type("echo alive\n")
    screen.until(r"\r\nalive\r\n")
    screen.type("exit\n")
    screen.wait()


def test_it_has_the_size_of_ours_and_follows_it(shop: Shop, screens: list[Screen]) -> None:
    script = "stty size; trap 'stty size' WINCH; echo ready; while :; do sleep 0.05; done"
    screen = Screen("-it", "demo", "sh", "-c", script)
    screens.append(screen)
    screen.until("31 99\r\nready\r\n")
    screen.resize(40, 120)
    screen.until("40 120\r\n")
    screen.resize(10, 20)
    screen.until("10 20\r\n")


def test_our_terminal_is_raw_meanwhile_and_as_before_afterwards(shop: Shop, screens: list[Screen]) -> None:
    """A shell in between holds the terminal, so that it can be looked at when the client has ended."""
    screen = Screen.__new__(Screen)
    screen.seen, screen.code = "", None
    command = f"{sys.executable} -m minicontainer run {' '.join(FLAGS)} -it demo sh -c 'echo ready; read x; exit 6'"
    screen.pid, screen.master = pty.fork()
    if screen.pid == 0:
        os.execv("/bin/sh", ["sh", "-c", f"echo before; read x; {command}; echo after $?; read x"])
    screens.append(screen)
    screen.until("before\r\n")
    before = screen.mode()
    screen.type("\n")
    screen.until("ready\r\n")
    assert not screen.mode()[3] & (termios.ECHO | termios.ICANON | termios.ISIG)  # type: ignore[operator]
    screen.type("\n")
    screen.until("after 6\r\n")
    assert screen.mode() == before
    screen.type("\n")
    screen.wait()


def test_also_when_the_start_fails(shop: Shop, screens: list[Screen]) -> None:
    ours, theirs = os.openpty()
    before = termios.tcgetattr(ours)  # what a new one is like
    os.close(ours)
    os.close(theirs)
    screen = Screen("-it", "demo", "nosuch")
    screens.append(screen)
    assert "not found in $PATH" in screen.rest()
    assert screen.mode()[:4] == before[:4]
    assert screen.wait() == 127


def test_the_last_words_arrive(shop: Shop, screens: list[Screen]) -> None:
    screens.append(Screen("-it", "demo", "seq", "20000"))
    assert screens[0].rest() == "".join(f"{number}\r\n" for number in range(1, 20001))


def test_much_typed_arrives(shop: Shop, screens: list[Screen]) -> None:
    """More than a terminal buffers: neither side may wait for the other."""
    screen = Screen("-it", "demo", "sh", "-c", "stty -echo; echo ready; cat")
    screens.append(screen)
    screen.until("ready\r\n")
    for number in range(300):
        screen.type(f"{number} {'x' * 100}\n")
        screen.until(f"{number} x+\r\n")
    screen.type("\x04")
    assert screen.wait() == 0


def test_what_stays_behind_in_the_background_does_not_hold_us(shop: Shop, screens: list[Screen]) -> None:
    screens.append(Screen("-it", "demo", "sh", "-c", "sleep 60 & echo started; exit 4"))
    assert "started" in screens[0].rest()
    assert screens[0].wait() == 4


def test_t_without_i(shop: Shop, screens: list[Screen]) -> None:
    screens.append(Screen("-t", "demo", "sh", "-c", "tty; stty size"))
    assert screens[0].rest().split() == ["/dev/pts/0", "31", "99"]
    assert screens[0].wait() == 0


def test_t_into_a_pipe(shop: Shop) -> None:
    """No terminal on our side: none is made raw, but the container has its own."""
    assert shop.out("-t", "demo", "tty") == "/dev/pts/0\n"
    assert shop.run("-t", "demo", "sh", "-c", "exit 8", check=False).returncode == 8


@pytest.mark.parametrize("flag", ["-t", "-it"])
def test_a_terminal_that_nobody_has_open_for_a_while_is_not_lost(shop: Shop, screens: list[Screen], flag: str) -> None:
    """Its master reads EIO then, and is ready all the time."""
    script = "trap '' HUP; exec </dev/null >/dev/null 2>&1; sleep 0.3; echo again >/dev/console"
    screens.append(Screen(flag, "demo", "sh", "-c", script))
    assert screens[0].rest().split() == ["again"]
    assert screens[0].wait() == 0


def test_a_user_may_use_its_own_terminal(shop: Shop, screens: list[Screen]) -> None:
    script = "echo by name >/dev/tty; echo by path >$(tty); echo as console >/dev/console; stat -c %u $(tty)"
    screens.append(Screen("-it", "-u", "alice", "demo", "sh", "-c", script))
    assert screens[0].rest() == "by name\r\nby path\r\nas console\r\n1000\r\n"


def test_it_is_the_sessions_terminal(shop: Shop, screens: list[Screen]) -> None:
    """proc_pid_stat(5): session, tty_nr, tpgid. Job control works, and /dev/tty opens."""
    screens.append(Screen("-it", "demo", "sh", "-c", "cut -d' ' -f5-8 /proc/1/stat"))
    group, session, terminal, foreground = map(int, screens[0].rest().split())
    assert (group, session, foreground) == (1, 1, 1) and os.major(terminal) == 136


def test_signals_go_through_with_a_terminal_too(shop: Shop, screens: list[Screen]) -> None:
    screen = Screen("-it", "demo", "sh", "-c", "trap 'exit 11' TERM; echo ready; while :; do sleep 0.05; done")
    screens.append(screen)
    screen.until("ready\r\n")
    os.kill(screen.pid, signal.SIGTERM)
    assert screen.wait() == 11


def test_a_terminal_that_hangs_up(shop: Shop, screens: list[Screen]) -> None:
    """The window is closed: the kernel tells the client by SIGHUP, which tells the container, whose handler ends it."""
    script = "trap 'echo to nobody; exit 0' HUP; echo ready; while :; do sleep 0.05; done"
    screen = Screen("-it", "demo", "sh", "-c", script)
    screen.until("ready\r\n")
    os.close(screen.master)
    os.waitpid(screen.pid, 0)
    assert leftovers.none_within(shop.root, shop.suffix) == []
