"""A class of students for lab 06: perfect, partial, empty, broken, malicious; each with the points that he should get.

    for one in students(100, reference):
        one.write(directory)          a folder or an archive of that name
        one.points                    what it should score, of WORTH

Who does harm has a working solution as well, wherever his attack leaves it a chance: so a full score shows that the
attack did nothing, and less than that shows what it cost him.
"""

import io
import os
import re
import tarfile
import textwrap
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

WORTH = 13  # points of lab 06
NOTHING, ALL = 0, WORTH


class Student(NamedTuple):
    """A submission: its files by path (None: made by `special`), and the points that it should get."""

    name: str
    files: dict[str, bytes]
    points: float
    form: str = "folder"  # folder, zip, tar.gz
    special: str = ""  # fifo, link, sparse: what 06_overlay/lab.py is instead of a file

    def write(self, into: Path) -> None:
        """Hand it in."""
        if self.form == "zip":
            with zipfile.ZipFile(into / f"{self.name}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
                for path, content in self.files.items():
                    archive.writestr(path, content)
            return
        if self.form == "tar.gz":
            with tarfile.open(into / f"{self.name}.tar.gz", "w:gz") as packed:
                for path, content in self.files.items():
                    entry = tarfile.TarInfo(path)
                    entry.size = len(content)
                    packed.addfile(entry, io.BytesIO(content))
            return
        for path, content in self.files.items():
            file = into / self.name / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        place = into / self.name / ("06_overlay" if self.special else "")
        place.mkdir(parents=True, exist_ok=True)
        if self.special == "fifo":
            os.mkfifo(place / "lab.py")
        elif self.special == "link":
            os.symlink("/etc/passwd", place / "lab.py")
        elif self.special == "sparse":
            with open(place / "lab.py", "wb") as file:
                file.truncate(1 << 40)


def without(reference: str, *functions: str) -> str:
    """The reference, with these functions as the stub has them."""
    for name in functions:
        pattern = rf"(def {name}\(.*?\):\n    \"\"\".*?\"\"\"\n)(.*?)(?=\n\n\ndef |\Z)"
        reference, count = re.subn(pattern, r"\1    raise NotImplementedError", reference, flags=re.DOTALL)
        assert count == 1, name
    return reference


# Which functions are missing, and what is left.
PARTIAL = [
    (("freeze",), 10),
    (("changes",), 9),
    (("freeze", "changes"), 6),
    (("stack",), 3),
    (("stack", "freeze"), 0),
]

# A lab.py that cannot score.
BROKEN = {
    "syntax": b"def stack(layers, top)\n    pass\n",
    "import": b"import nowhere\n",
    "raises": b"raise RuntimeError('at import')\n",
    "wrong-names": b"def stapel(layers, top): pass\n",
    "wrong-count": b"def stack(): pass\ndef freeze(): pass\ndef changes(): pass\n",
    "binary": bytes(range(256)) * 20,
    "null": b"x = 1\n\0\n",
    "latin-1": "# -*- coding: latin-1 -*-\n# Übung\n".encode("latin-1"),
    "deep": b"x = " + b"[" * 50_000 + b"]" * 50_000,
    "deep-sum": b"x = " + b"+".join([b"1"] * 60_000) + b"\n",
    "surrogate": b"raise ValueError('\\ud800 \\x00 \\x1b[31m')\n",
    "string-subclass": b"class Odd(Exception):\n    def __str__(self): return 7\nraise Odd()\n",
}

# What is run at import, before a whole solution. The points say what is left of it: an attack may cost its author his
# own points, one that does nothing costs nothing, and nobody gets a point that his functions have not earned.
AT_IMPORT = {
    # SystemExit at import: there is no function to call.
    "sys-exit": ("import sys; sys.exit(0)", NOTHING),
    # The process ends before there is one.
    "os-exit": ("import os; os._exit(0)", NOTHING),
    # The assertions are not in his process, and his functions are good ones.
    "patched-assert": ("import builtins; builtins.AssertionError = Exception", ALL),
    "patched-pytest": (
        """
        import sys, types
        sys.modules["pytest"] = types.ModuleType("pytest")
        sys.modules["_pytest"] = types.ModuleType("_pytest")
        """,
        ALL,
    ),
    # Answers are json.dumps's in his process: all of them are None now, and lack the question's number.
    "patched-json": ("import json; json.dumps = lambda *_, **__: '{\"returned\": null}'", NOTHING),
    # It never gets to its functions: the import does not come back in its five seconds. 256 processes are the cell's.
    "fork-bomb": (
        """
        import os
        while True:
            try:
                os.fork()
            except OSError:
                pass
        """,
        NOTHING,
    ),
    # It fills its own /tmp, which is in memory and bounded, after the layers were laid there; then come good functions.
    # Names, directories, whiteouts and mounts take no room in a tmpfs, data does. One test compares data that is
    # written afterwards, to be copied up: its 2 points are lost, the other 11 have been earned.
    "full-disk": (
        """
        try:
            with open("/tmp/full", "wb") as file:
                while True:
                    file.write(bytes(1 << 20))
        except OSError:
            pass
        """,
        ALL - 2,
    ),
    # The import does not come back.
    "endless": ("while True: pass", NOTHING),
    "endless-output": ("while True: print('x' * 100_000)", NOTHING),
    # Killed for memory at import, at the cell's 512 MB; the keeper is spared, and makes the next test's room.
    "memory": ("hog = []\nwhile True: hog.append(b'x' * (1 << 24))", NOTHING),
    # He is process 1 of his pid namespace: -1 is everybody else in there, and there is nobody. Then good functions.
    "kill-all": ("import os, signal\ntry: os.kill(-1, signal.SIGKILL)\nexcept ProcessLookupError: pass", ALL),
    # His parent is outside of his pid namespace, so getppid() is 0, and kill(0) is his own process group: process 1
    # alone, which no SIGKILL from inside reaches (pid_namespaces(7)). So nothing has happened, and his points are his.
    "kill-parent": ("import os, signal\ntry: os.kill(os.getppid(), signal.SIGKILL)\nexcept OSError: pass", ALL),
    # Without the pipes nobody hears of his functions.
    "closed": ("import os\nos.closerange(0, 256)", NOTHING),
    # An answer of None for whatever is asked, and functions that are not there: the kernel shows nothing of them.
    "forged": (
        """
        import os
        for number in range(1, 40):
            for descriptor in range(3, 12):
                try:
                    os.write(descriptor, b'{"returned": null, "number": %d}\\n' % number)
                except OSError:
                    pass
        raise NotImplementedError
        """,
        NOTHING,
    ),
    # What is no answer of ours is passed over; then there are no functions.
    "deep-answer": (
        """
        import os
        for descriptor in range(3, 12):
            try:
                os.write(descriptor, b"[" * 60_000 + b"\\n")
            except OSError:
                pass
        raise NotImplementedError
        """,
        NOTHING,
    ),
}

# Looked for, tried, and told by an exception if found: the points show whether it was.
SPY = """
    import os, socket, ctypes
    def tried(action):
        try:
            action()
        except Exception:
            return False
        return True
    found = []
    for path in %(secret)r:
        if tried(lambda: open(path).read() if not os.path.isdir(path) else os.listdir(path)[0]):
            found.append(path)
        if tried(lambda: open(path + "/forged", "w").write("x")):
            found.append("wrote " + path)
    for place in ("/", "/usr", %(package)r, %(package)r + "/.venv", "/etc"):
        if tried(lambda: open(place + "/forged", "w").write("x")):
            found.append("wrote " + place)
    for top, folders, names in os.walk(%(package)r):
        folders[:] = set(folders) - {".venv"}
        found += [top + "/" + name for name in names if "test_lab" in name or "solutions" in top]
    if tried(lambda: socket.create_connection(("192.0.2.1", 80), 1)) or len(socket.if_nameindex()) > 1:
        found.append("a network")
    if any("SECRET" in name for name in os.environ):
        found.append("the grader's environment")
    libc = ctypes.CDLL(None, use_errno=True)
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid()]
    for pid in [*pids, os.getppid()]:
        if pid and libc.ptrace(16, pid, 0, 0) == 0:
            found.append("ptrace %%d" %% pid)
    if pids:
        found.append("processes %%s" %% pids)
    if os.path.exists("/proc/1/environ") and b"SECRET" in open("/proc/1/environ", "rb").read():
        found.append("an environment")
    if found:
        raise RuntimeError("found: " + ", ".join(found))
"""

# Plugins that would give everything, were they loaded.
CHEAT = b"""
import pytest
@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    outcome.get_result().outcome = "passed"
"""


def spy(secret: list[str], package: str) -> str:
    """The code of who looks for what is none of his business."""
    return textwrap.dedent(SPY) % {"secret": secret, "package": package}


def hostile(reference: str, secret: list[str], package: str) -> Iterator[Student]:
    """One of each kind."""
    path = "06_overlay/lab.py"
    for name, (code, points) in AT_IMPORT.items():
        text = f"{textwrap.dedent(code)}\n{reference}"
        yield Student(f"evil-{name}", {path: text.encode()}, points)
    inside = reference.replace('    for name in ("upper"', '    os._exit(0)\n    for name in ("upper"')
    assert inside != reference
    # It is stack() that ends the process; freeze() is a good one, and 3 points.
    yield Student("evil-exit-in-function", {path: inside.encode()}, 3)
    # It looks around, finds nothing, and goes on to good functions.
    yield Student("evil-spy", {path: f"{spy(secret, package)}\n{reference}".encode()}, ALL)
    stub = without(reference, "stack", "freeze", "changes").encode()
    plugins = {"conftest.py": CHEAT, "06_overlay/conftest.py": CHEAT, "pytest.ini": b"[pytest]\naddopts = -p cheat\n"}
    yield Student("evil-conftest", {path: stub, **plugins, "06_overlay/cheat.py": CHEAT}, NOTHING)
    yield Student("evil-test", {path: stub, "06_overlay/test_lab.py": b"def test_all(): pass\n"}, NOTHING)
    yield Student("evil-slip", {"../../06_overlay/lab.py": stub, f"/{path}": stub, path: stub}, NOTHING, "zip")
    yield Student("evil-bomb", {path: b"#" * (300 << 20)}, NOTHING, "zip")
    yield Student("evil-tar-bomb", {path: b"#" * (100 << 20)}, NOTHING, "tar.gz")
    yield Student("evil-long", {path: b"x = 1\n" * (100 << 20 >> 3)}, NOTHING)
    for special in ("fifo", "link", "sparse"):
        yield Student(f"evil-{special}", {}, NOTHING, special=special)


def students(count: int, reference: str, secret: list[str], package: str) -> list[Student]:
    """A class of `count`: every kind of broken and malicious one, the rest perfect, partial and empty by turns."""
    path = "06_overlay/lab.py"
    found = list(hostile(reference, secret, package))
    found += [Student(f"broken-{name}", {path: content}, NOTHING) for name, content in BROKEN.items()]
    found.append(Student("empty", {}, NOTHING))
    found.append(Student("empty-file", {path: b""}, NOTHING))
    number = 0
    while len(found) < count:
        kind, form = number % 7, ("folder", "zip", "tar.gz")[number % 3]
        missing, points = ((), ALL) if kind in (0, 3) else PARTIAL[number % 5]
        place = (path, "labs/06_overlay/lab.py", "06/lab.py", "lab.py", "handed-in/06_overlay/lab.py")[number % 5]
        text = without(reference, *missing)
        if kind == 5:
            text, points = without(reference, "stack", "freeze", "changes"), NOTHING
        found.append(Student(f"student-{number:02}", {place: text.encode()}, points, form))
        number += 1
    return found
