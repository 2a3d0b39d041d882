"""Lab 15: a runtime for bundles, and the process that stays beside a container.

The README tells the job. Yours to write is what raises NotImplementedError; add functions and imports as you need.
"""

import json
import os
import pathlib
import select
import shutil
import signal
import subprocess

from minicontainer import syscalls

# A bundle is a directory with config.json and a root directory. `home` is a directory of yours, made at need: what you
# keep of a container lies below it, and of what you have kept nothing there is no container.

# What this runtime does. A path is as in `jq`: an element of a list has its number in brackets.
KNOWN = {
    "ociVersion": {}, "hostname": {}, "root": {"path": {}},
    "process": {"args": {}, "cwd": {}, "env": {}},
    "mounts": [{"destination": {}, "type": {}, "source": {}}],
    "linux": {"namespaces": [{"type": {}, "path": {}}]},
}  # fmt: skip

# What config.json calls a kind of namespace: its flag for unshare and setns.
KINDS = {
    "cgroup": syscalls.CLONE_NEWCGROUP, "ipc": syscalls.CLONE_NEWIPC, "mount": syscalls.CLONE_NEWNS,
    "network": syscalls.CLONE_NEWNET, "pid": syscalls.CLONE_NEWPID, "uts": syscalls.CLONE_NEWUTS,
}  # fmt: skip

PR_SET_CHILD_SUBREAPER = 36  # prctl(2): orphans among my descendants become my children, as if I were process 1


def refused(config):
    """The paths of all that a config asks for and KNOWN has not, sorted: ["linux.seccomp", "mounts[2].options"].

    What asks for nothing (null, false, 0, "", [], {}) is not refused. Where a whole part is unknown, its own path is
    told, and none of those in it. A list of one element in KNOWN stands for any number of such.
    """
    ### BEGIN SOLUTION
    lacking, waiting = [], [(config, KNOWN, "")]
    for part, known, path in waiting:
        if isinstance(known, list):
            waiting += [(value, known[0], f"{path}[{number}]") for number, value in enumerate(part or [])]
        elif known:
            inner = {name: f"{path}.{name}".lstrip(".") for name in part or {}}
            waiting += [(part[name], known[name], inner[name]) for name in inner if name in known]
            lacking += [inner[name] for name in inner if name not in known and part[name]]
    return sorted(lacking)
    ### END SOLUTION


### BEGIN SOLUTION
NO_PROGRAM = 2, "it is no program"  # ENOENT


def born(config, bundle, fifo):
    """A process in the container that is ready, and waits at the fifo. Its pid."""
    hear, tell = os.pipe()

    def say(**words):
        os.write(tell, json.dumps(words).encode() + b"\n")

    def live():
        """Process 1, until it is the command."""
        process = config["process"]
        gate = os.open(fifo, os.O_RDWR)
        if config.get("hostname"):
            syscalls.sethostname(config["hostname"])
        root = os.path.join(bundle, config["root"]["path"])
        syscalls.mount("", "/", "", syscalls.MS_REC | syscalls.MS_PRIVATE)
        syscalls.mount(root, root, "", syscalls.MS_BIND)
        os.chdir(root)
        syscalls.pivot_root(".", ".")
        for entry in config.get("mounts") or []:  # a link in the root directory leads to somewhere in it by now
            syscalls.mount(entry["source"], entry["destination"], entry["type"])
        syscalls.umount(".", syscalls.MNT_DETACH)
        os.chdir(process["cwd"])
        variables = dict(line.split("=", 1) for line in process.get("env") or [])
        program = shutil.which(process["args"][0], path=variables.get("PATH"))
        if not program:
            raise FileNotFoundError(*NO_PROGRAM, process["args"][0])
        say(ready=True)
        os.close(tell)
        os.read(gate, 1)
        os.execve(program, process["args"], variables)

    middle = os.fork()
    if middle == 0:
        try:
            isolate(config["linux"]["namespaces"])
            pid = os.fork()
            if pid == 0:
                live()
            say(pid=pid)
        except OSError as wrong:
            say(wrong=[wrong.errno, wrong.strerror, wrong.filename])
        finally:
            os._exit(0)
    os.close(tell)
    reap(middle)
    with open(hear) as pipe:  # to its end: who is ready has let go of it
        told = dict(pair for line in pipe for pair in json.loads(line).items())
    if "ready" not in told:
        if "pid" in told:
            reap(told["pid"])
        raise OSError(*told["wrong"])
    return told["pid"]


def isolate(spaces):
    """setns(2) and unshare(2). All doors are opened before one is gone through: their paths are the caller's."""
    doors = [(os.open(space["path"], os.O_RDONLY), KINDS[space["type"]]) for space in spaces if space.get("path")]
    for door, kind in doors:
        syscalls.setns(door, kind)
    syscalls.unshare(sum(KINDS[space["type"]] for space in spaces if not space.get("path")))


def begun(pid):
    """When a process began, in clock ticks; "" if it runs no more."""
    try:
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except (ProcessLookupError, FileNotFoundError):
        return ""
    fields = stat.rpartition(")")[2].split()
    return "" if fields[0] in "ZX" else fields[19]


def reap(pid, flags=0):
    """The exit code of a process that is our child by now, as a shell shows it; None if there is none for us."""
    try:
        found, status = os.waitpid(pid, flags)
    except ChildProcessError:
        return None
    code = os.waitstatus_to_exitcode(status)
    return None if not found else code if code >= 0 else 128 - code


### END SOLUTION
def create(home, name, bundle):
    """Make the container `name` from a bundle; its command waits for `start`. Returns the pid of its process 1.

    It has new namespaces of the kinds that linux.namespaces names; where one has a path, it enters that one. mount and
    pid are always among them, and new. Its root is the bundle's; the mounts are made in their order, and no symbolic
    link in the root directory leads one of them out of it. It gets process.env and nothing else, and no descriptor
    beyond 2. If something keeps it from being ready, OSError says what, and nothing is left: FileExistsError where the
    name is taken, FileNotFoundError where process.args names no program. ValueError names all that is refused.
    """
    ### BEGIN SOLUTION
    config = json.loads(pathlib.Path(f"{bundle}/config.json").read_text())
    if lacking := refused(config):
        raise ValueError("this runtime does not do " + ", ".join(lacking))
    place = f"{home}/{name}"
    os.makedirs(place)
    try:
        os.mkfifo(f"{place}/fifo")
        pid = born(config, bundle=bundle, fifo=f"{place}/fifo")
    except BaseException:
        shutil.rmtree(place)
        raise
    pathlib.Path(f"{place}/process").write_text(f"{pid} {begun(pid)}")
    return pid
    ### END SOLUTION


def start(home, names):
    """Let the commands of these containers begin: of all, or, if one of them is not created any more, of none.

    RuntimeError then. When it returns, each process 1 has become its command.
    """
    ### BEGIN SOLUTION
    gates = {}
    try:
        for name in names:
            if state(home, name)["status"] != "created":
                raise RuntimeError(f"{name} is not created any more")
            gates[name] = os.open(f"{home}/{name}/fifo", os.O_WRONLY | os.O_NONBLOCK)
        for name, gate in gates.items():
            os.unlink(f"{home}/{name}/fifo")
            os.write(gate, b"!")
        for gate in gates.values():  # the other end goes with execve
            becomes = select.poll()
            becomes.register(gate, select.POLLERR)
            becomes.poll()
    finally:
        for gate in gates.values():
            os.close(gate)
    ### END SOLUTION


def state(home, name):
    """What a container is by now: {"status": "created", "running" or "stopped", "pid": …}.

    A process that has ended and was not waited for is stopped; so is one whose pid somebody else has by now. The pid is
    0 then. LookupError if there is no such container.
    """
    ### BEGIN SOLUTION
    known = pathlib.Path(f"{home}/{name}/process")
    if not known.exists():
        raise LookupError(f"no container is called {name}")
    pid, since = known.read_text().split()
    if begun(pid) != since:
        return {"status": "stopped", "pid": 0}
    waits = os.path.exists(f"{home}/{name}/fifo")
    return {"status": "created" if waits else "running", "pid": int(pid)}
    ### END SOLUTION


def remove(home, name, seconds):
    """End a container, whatever it does, and forget it. Returns its exit code as a shell shows it (143, 137).

    It gets SIGTERM, and SIGKILL after so many `seconds`. It is called by the process to which orphans come. Where the
    exit code has been told to somebody before, it returns None; and who merely has the pid by now is left alone.
    """
    ### BEGIN SOLUTION
    now = state(home, name)
    pid = int(pathlib.Path(f"{home}/{name}/process").read_text().split()[0])
    if now["pid"]:
        process = os.pidfd_open(pid)
        signal.pidfd_send_signal(process, signal.SIGTERM)
        if not select.select([process], [], [], seconds)[0]:
            signal.pidfd_send_signal(process, signal.SIGKILL)
        os.close(process)
    code = reap(pid, flags=0 if now["pid"] else os.WNOHANG)
    shutil.rmtree(f"{home}/{name}")
    return code
    ### END SOLUTION


def watch(runtime, bundle, name, folder):
    """Be the engine of a container in some other runtime; `runtime` are the words that its command begins with.

    A process of its own has the runtime create the container and start it, stays until its command has ended, and has
    it deleted. It returns that process's pid when the container has started. In `folder`, which is there, `output` gets
    what the container writes to its two outputs, and `exit`, when all is over, the exit code as a shell shows it.
    RuntimeError with the runtime's own words if it cannot create or start the container: then that is deleted by force.
    """
    ### BEGIN SOLUTION
    hear, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            syscalls.prctl(PR_SET_CHILD_SUBREAPER, 1)
            heard = pathlib.Path(f"{folder}/output")
            with heard.open("wb") as output:
                words = [*runtime, "create", "--bundle", bundle, "--pid-file", f"{folder}/pid", name]
                done = subprocess.run(words, check=False, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
            said = heard.read_bytes()
            if not done.returncode:
                done = subprocess.run([*runtime, "start", name], check=False, capture_output=True)
                said = done.stderr
            if done.returncode:
                subprocess.run([*runtime, "delete", "--force", name], check=False, capture_output=True)
                os.write(tell, b"refused: " + said)
                os._exit(1)
            os.close(tell)
            code = reap(int(pathlib.Path(f"{folder}/pid").read_text()))
            subprocess.run([*runtime, "delete", name], check=False, capture_output=True)
            pathlib.Path(f"{folder}/exit.new").write_text(str(code))
            os.rename(f"{folder}/exit.new", f"{folder}/exit")
        finally:
            os._exit(0)
    os.close(tell)
    with open(hear) as pipe:
        if said := pipe.read():
            reap(pid)
            raise RuntimeError(said.strip())
    return pid
    ### END SOLUTION
