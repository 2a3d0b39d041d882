"""`top`: a container's processes, as this machine numbers them, in the columns of ps(1).

Which processes: those in its cgroup. What of them: /proc/PID/stat and its kin (proc(5)). Of ps's options those are
understood that people type: none, `-ef`, `aux`, and `-o` with a list of columns.
"""

from __future__ import annotations

import os
import pwd
import time
from collections.abc import Callable

from .. import errors, files
from ..kernel import cgroups
from . import containers

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


class Process:
    """One process, as it was a moment ago. Raises FileNotFoundError, ProcessLookupError if it has gone."""

    def __init__(self, pid: int) -> None:
        text = files.read(f"/proc/{pid}/stat").decode(errors="replace")
        self.pid = pid
        self.name = text[text.index("(") + 1 : text.rindex(")")]
        fields = text[text.rindex(")") + 2 :].split()
        self.state = fields[0]
        self.ppid, self.pgid, self.sid, self.tty, self.foreground = map(int, fields[1:6])
        self.cpu = (int(fields[11]) + int(fields[12])) / TICKS  # seconds
        self.nice, self.threads = int(fields[16]), int(fields[17])
        self.virtual, self.resident = int(fields[20]), int(fields[21]) * PAGE  # bytes
        self.age = max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / TICKS)  # seconds
        self.uid = os.stat(f"/proc/{pid}").st_uid
        for line in files.read(f"/proc/{pid}/status").decode(errors="replace").splitlines():
            if line.startswith("Uid:"):
                self.uid = int(line.split()[2])
        words = files.read(f"/proc/{pid}/cmdline").decode(errors="replace").rstrip("\0").split("\0")
        self.command = " ".join(words) if words != [""] else f"[{self.name}]"

    @property
    def user(self) -> str:
        """Its user, as this machine calls that."""
        try:
            return pwd.getpwuid(self.uid).pw_name
        except KeyError:
            return str(self.uid)

    @property
    def percent(self) -> float:
        """Of one processor, over all of its life."""
        return 100 * self.cpu / self.age if self.age else 0.0

    @property
    def terminal(self) -> str:
        """`pts/0`, or `?`."""
        major, minor = os.major(self.tty), os.minor(self.tty)
        return f"pts/{minor + 256 * (major - 136)}" if 136 <= major <= 143 else f"tty{minor}" if major == 4 else "?"

    @property
    def status(self) -> str:
        """ps's STAT: the state, and what is special."""
        special = "<" if self.nice < 0 else "N" if self.nice > 0 else ""
        special += "s" if self.sid == self.pid else ""
        special += "l" if self.threads > 1 else ""
        return self.state + special + ("+" if self.foreground == self.pgid else "")

    @property
    def since(self) -> str:
        """When it started: `14:05` today, `Jan31` before."""
        began = time.localtime(time.time() - self.age)
        return time.strftime("%H:%M" if self.age < 86400 else "%b%d", began)

    def clock(self, short: bool) -> str:
        """The processor time it has had: 00:00:07, or 0:07."""
        minutes, seconds = divmod(int(self.cpu), 60)
        return f"{minutes}:{seconds:02}" if short else f"{minutes // 60:02}:{minutes % 60:02}:{seconds:02}"


def elapsed(process: Process) -> str:
    """How long it has been there: [[days-]hours:]minutes:seconds."""
    minutes, seconds = divmod(int(process.age), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    text = f"{minutes:02}:{seconds:02}"
    return f"{days}-{hours:02}:{text}" if days else f"{hours:02}:{text}" if hours else text


# A column of `ps -o`: its title, and what stands there. Those of `-ef` and `aux` that look otherwise begin with a dot.
COLUMNS: dict[str, tuple[str, Callable[[Process], object]]] = {
    "args": ("COMMAND", lambda p: p.command),
    "cmd": ("CMD", lambda p: p.command),
    "comm": ("COMMAND", lambda p: p.name),
    "command": ("COMMAND", lambda p: p.command),
    "c": ("C", lambda p: min(99, int(p.percent))),
    "etime": ("ELAPSED", elapsed),
    "ni": ("NI", lambda p: p.nice),
    "nlwp": ("NLWP", lambda p: p.threads),
    "pcpu": ("%CPU", lambda p: f"{p.percent:.1f}"),
    "pgid": ("PGID", lambda p: p.pgid),
    "pid": ("PID", lambda p: p.pid),
    "pmem": ("%MEM", lambda p: f"{100 * p.resident / (PAGE * os.sysconf('SC_PHYS_PAGES')):.1f}"),
    "ppid": ("PPID", lambda p: p.ppid),
    "rss": ("RSS", lambda p: p.resident // 1024),
    "sid": ("SID", lambda p: p.sid),
    "stat": ("STAT", lambda p: p.status),
    "start": ("START", lambda p: p.since),
    "stime": ("STIME", lambda p: p.since),
    "time": ("TIME", lambda p: p.clock(short=False)),
    "tty": ("TT", lambda p: p.terminal),
    "uid": ("UID", lambda p: p.uid),
    "user": ("USER", lambda p: p.user),
    "vsz": ("VSZ", lambda p: p.virtual // 1024),
    ".owner": ("UID", lambda p: p.user),
    ".tty": ("TTY", lambda p: p.terminal),
    ".time": ("TIME", lambda p: p.clock(short=True)),
}
COLUMNS |= {"%cpu": COLUMNS["pcpu"], "%mem": COLUMNS["pmem"], "tt": COLUMNS["tty"], "vsize": COLUMNS["vsz"]}
FULL = ".owner pid ppid c stime .tty time cmd"
OURS = "user pid pcpu pmem vsz rss .tty stat start .time command"


def listed(engine: containers.Containers, record: containers.Record, options: str) -> tuple[list[str], list[list[str]]]:
    """The titles, and a row for each process, the oldest pid first. Raises Conflict, InvalidArgument."""
    running = engine.running(record["id"])
    if running is None:
        raise errors.Conflict(f"Container {record['id']} is not running")
    return table(cgroups.processes(record["cgroup"]) or [running["pid"]], options)


def table(pids: list[int], options: str) -> tuple[list[str], list[list[str]]]:
    """The same for these pids. Raises InvalidArgument."""
    columns = [COLUMNS[name] for name in columns_of(options)]
    rows = []
    for pid in sorted(pids):
        try:
            process = Process(pid)
        except (FileNotFoundError, ProcessLookupError):
            continue
        rows.append([str(value(process)) for _, value in columns])
    return [title for title, _ in columns], rows


def columns_of(options: str) -> list[str]:
    """The columns that ps's options ask for."""
    words = options.split()
    if words in ([], ["-ef"], ["-f"], ["ef"]):
        return FULL.split()
    if words in (["aux"], ["-aux"], ["u"], ["auxw"], ["auxww"]):
        return OURS.split()
    asked = " ".join(words)
    for beginning in ("-eo", "-Ao", "-o", "-efo", "axo", "o"):
        if asked.startswith(beginning):
            names = asked.removeprefix(beginning).replace(",", " ").split()
            unknown = [name for name in names if name.startswith(".") or name not in COLUMNS]
            if unknown:
                raise errors.InvalidArgument(f'ps: error: unknown user-defined format specifier "{unknown[0]}"')
            if "pid" not in names:
                raise errors.InvalidArgument("Couldn't find PID field in ps output")
            return names
    raise errors.InvalidArgument(f"ps {options}: -ef, aux, and -o with a list of columns are understood")
