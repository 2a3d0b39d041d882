"""The command line: `python -m minicontainer COMMAND …`, with the habits docker gave.

A lazy table: only the file of the command that was typed is imported. Each has `main(arguments) -> exit code`; it
parses, calls the engine, prints. Printing and exit codes live here and nowhere below.
"""

import errno
import os
import sys

from .. import __version__, errors, signals

# What is typed: (the file that does it, one line of help). Two words are docker's longer spelling of the same.
COMMANDS = {
    "run": ("run", "start a container from an image and wait for its command"),
    "create": ("create", "make a container and do not start it"),
    "start": ("start", "start containers that are there"),
    "stop": ("stop", "ask containers to end, and kill those that do not"),
    "restart": ("restart", "stop containers and start them again"),
    "kill": ("kill", "send containers a signal"),
    "pause": ("pause", "hold containers still"),
    "unpause": ("unpause", "let paused containers go on"),
    "wait": ("wait", "until containers have ended: prints their exit codes"),
    "attach": ("attach", "be at a running container's terminal, or see its output"),
    "exec": ("exec", "one more process in a running container"),
    "top": ("top", "the processes of a container"),
    "cp": ("cp", "copy files into a container, or out of it"),
    "diff": ("diff", "what a container has changed over its image"),
    "commit": ("commit", "make an image of a container as it is"),
    "export": ("export", "a container's files as a tar archive"),
    "logs": ("logs", "what a container has written"),
    "ps": ("ps", "list containers"),
    "stats": ("stats", "what containers use: processor, memory, network, disks"),
    "update": ("update", "other limits for containers, at once"),
    "events": ("events", "what happens to containers"),
    "port": ("port", "where a container's published ports lead"),
    "rename": ("rename", "call a container otherwise"),
    "rm": ("rm", "remove containers"),
    "container": ("container", "prune: remove all containers that do not run"),
    "inspect": ("inspect", "all that is known of a container, image, volume or network, as JSON; --graph: drawn"),
    "images": ("images", "list images"),
    "pull": ("pull", "fetch an image from a registry"),
    "push": ("push", "send an image to a registry"),
    "manifest": ("manifest", "inspect: what a registry says that an image is"),
    "login": ("login", "say who we are at a registry"),
    "logout": ("logout", "forget who we are at a registry"),
    "image": ("image", "explore, prune: what each layer did; remove what nobody uses"),
    "history": ("history", "what was done to make an image"),
    "rmi": ("rmi", "remove images, or names of theirs"),
    "tag": ("tag", "give an image another name"),
    "search": ("search", "find images of the store by a word of their name or description"),
    "save": ("save", "images as an archive that docker, podman and skopeo read"),
    "import": ("importing", "an image of a root file system's tar, such as export writes"),
    "load": ("load", "load images from an archive that docker, podman or skopeo wrote"),
    "build": ("build", "an image by a Dockerfile; --check: what is wrong or doubtful about it"),
    "builder": ("builder", "du, prune: what the build cache holds, and giving it back"),
    "bootstrap": ("bootstrap", "make an image on the spot: busybox or debian"),
    "volume": ("volume", "create, ls, inspect, rm, prune: directories that outlive containers"),
    "network": ("network", "create, ls, inspect, connect, disconnect, rm, prune, reload: bridges by name"),
    "firewall": ("firewall", "plan: the rules for a published port, and who would reach it, before they are there"),
    "notebook": ("notebook", "list, reset NN: the course's notebooks; a reset keeps your copy"),
    "lab": ("lab", "list, start NN, check NN, reset NN, progress, bundle: the course's labs"),
    "grade": ("grade", "the labs of a whole class, for marks: each submission in a container"),
    "oci": ("oci", "create, start, exec, delete and the rest of an OCI runtime, as runc is one"),
    "doctor": ("doctor", "what this machine can do, and the mend for what it cannot"),
    "system": (
        "system",
        "df, prune, check [--repair], start, enable, disable, reset: the store as a whole, and after a boot",
    ),
    "bench": ("bench", "measure: start, life, load, and native beside container"),
}
LONGER = {
    **{
        f"container {name}": name
        for name in (
            "run",
            "create",
            "start",
            "stop",
            "restart",
            "kill",
            "pause",
            "unpause",
            "wait",
            "attach",
            "exec",
            "top",
            "cp",
            "diff",
            "commit",
            "export",
            "logs",
            "port",
            "rename",
            "stats",
            "update",
        )
    },
    "container ls": "ps",
    "container list": "ps",
    "container ps": "ps",
    "container rm": "rm",
    "container inspect": "inspect --type=container",
    "image build": "build",
    "builder build": "build",
    "buildx build": "build",
    "buildx du": "builder du",
    "buildx prune": "builder prune",
    "image ls": "images",
    "image list": "images",
    "image load": "load",
    "image tag": "tag",
    "image import": "import",
    "image save": "save",
    "image history": "history",
    "image rm": "rmi",
    "image remove": "rmi",
    "image pull": "pull",
    "image push": "push",
    "image inspect": "inspect --type=image",
    "network inspect": "inspect --type=network",
    "volume inspect": "inspect --type=volume",
}
# Here a failure of ours must not look like one of the container's command (docker-run(1), EXIT STATUS).
RUNS_A_COMMAND = ("run", "create")


def main(arguments: list[str] | None = None) -> int:
    """Do what was typed; returns the exit code."""
    for descriptor in (0, 1, 2):
        # One that is closed would be given to the next file that we open, and the container would write into that.
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open("/dev/null", os.O_RDWR), True)
    sys.stdout = sys.stdout or open(1, "w")
    sys.stderr = sys.stderr or open(2, "w")
    words = sys.argv[1:] if arguments is None else arguments
    if not words or words[0] in ("-h", "--help", "help"):
        print(usage(), end="")
        return 0
    if words[0] in ("-v", "--version", "version"):
        print(f"minicontainer {__version__}")
        return 0
    name, rest = words[0], words[1:]
    longer = LONGER.get(" ".join(words[:2]))
    if longer:
        name, *more = longer.split()
        rest = more + words[2:]
    if name not in COMMANDS:
        print(f"minicontainer: {name!r} is not a command; `minicontainer --help` lists them", file=sys.stderr)
        return 125 if name.startswith("-") else 1
    # importlib.import_module would do the same, once importlib itself is imported.
    module = __import__(f"{__name__}.{COMMANDS[name][0]}", fromlist=["main"])
    try:
        code: int = module.main(rest)
        return code
    except Help as help:
        print(help)
        return 0
    except BrokenPipeError:
        # Whoever read our output has left: not an error of ours, and no message can reach them. What is still to be
        # flushed goes nowhere.
        os.dup2(os.open("/dev/null", os.O_WRONLY), 1)
        return 141
    except KeyboardInterrupt:
        return 130
    except (errors.MiniContainerError, OSError) as error:
        print(f"minicontainer: {sentence(error)}", file=sys.stderr)
        return exit_code(name, error)


def sentence(error: Exception) -> str:
    """An error in one line; a system call's says which step made it, if it was one of a plan."""
    if not isinstance(error, OSError):
        return str(error)
    text = str(error)
    if not isinstance(error, errors.KernelError):
        text = f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror or error)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            text += "; the disk is full: free some space, and do it again"
    notes = getattr(error, "__notes__", [])
    known = isinstance(error, errors.CommandNotFound | errors.CommandNotExecutable)
    return f"{text}, {notes[0]}" if notes and not known else text


def console() -> None:
    """The entry of the console script: `main`, and then the process ends at once.

    Taking an interpreter down object by object takes 4 ms, and the kernel does the same in none.
    """
    signals.signal(signals.SIGCHLD, signals.SIG_DFL)  # who ignores it, as our caller may, hears of no child's end
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def exit_code(command: str, error: Exception) -> int:
    """Docker's exit code for an error of ours."""
    if command == "exec" and isinstance(error, errors.KernelError | errors.NotFound):
        if isinstance(error, errors.ContainerNotFound):
            return 1
        return 127 if isinstance(error, errors.CommandNotFound) else 126
    if command not in RUNS_A_COMMAND:
        return 125 if isinstance(error, UsageError) else 1
    if isinstance(error, errors.CommandNotFound):
        return 127
    if isinstance(error, errors.CommandNotExecutable):
        return 126
    return 125


class UsageError(errors.InvalidArgument):
    """A flag that does not exist, or a value that it cannot take."""


class Help(errors.InvalidArgument):
    """Somebody asked for --help: the message is the text to print. Raised by `flags.parse`."""


def usage() -> str:
    """What `--help` prints."""
    lines = ["usage: minicontainer COMMAND …", ""]
    lines += [f"  {name:10} {help}" for name, (_, help) in COMMANDS.items()]
    lines += ["", "`minicontainer COMMAND --help` tells a command's flags.", ""]
    return "\n".join(lines)
