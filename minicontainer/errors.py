"""Every error that minicontainer raises on purpose, in one tree.

    MiniContainerError              one sentence: what is wrong, and what to do about it
    ├── InvalidArgument             a value that no retry will make right
    ├── Conflict                    the name or the resource is taken
    ├── NotFound
    │   ├── ImageNotFound
    │   ├── ContainerNotFound
    │   ├── VolumeNotFound
    │   └── NetworkNotFound
    ├── InvalidImage                an archive, manifest or layer that is malformed, hostile or damaged
    ├── Unsupported                 this host, or this user, cannot do what was asked; says what is missing
    ├── RegistryError
    ├── BuildError                  knows the Dockerfile, the line, and the column for a caret
    ├── ContainerError              a container that was waited for ended with another exit code than 0
    └── KernelError                 a system call failed: knows the call, its arguments and a hint
        ├── CommandNotFound         execve: no such file (exit code 127)
        └── CommandNotExecutable    execve: permission denied, a directory, another architecture (126)

An error that one module alone raises and catches stands there, a leaf of this tree: channel.Gone, cli.UsageError.
A message is one sentence for a person. What to print and which exit code to use is the business of
`minicontainer.cli`; nothing below it prints or exits.
"""

import os


class MiniContainerError(Exception):
    """The root of the tree: catch this to catch whatever the engine refuses or fails to do."""


class InvalidArgument(MiniContainerError):
    """A flag, a name or a file that cannot mean what it says."""


MISFITS = (TypeError, KeyError, AttributeError)  # what a document raises that has a word where an object should be


def malformed(what: str, error: Exception) -> InvalidArgument:
    """The refusal of such a document."""
    return InvalidArgument(f"{what} has not the form that the specification gives it: {type(error).__name__}: {error}")


class Conflict(MiniContainerError):
    """Something of that name exists, or is in use."""


class NotFound(MiniContainerError):
    """Nothing of that name or id."""


class ImageNotFound(NotFound):
    """No such image in the local store."""


class ContainerNotFound(NotFound):
    """No such container."""


class VolumeNotFound(NotFound):
    """No such volume."""


class NetworkNotFound(NotFound):
    """No such network."""


class InvalidImage(MiniContainerError):
    """An archive, manifest, config or layer that is malformed, hostile or damaged. Nothing of it was kept."""


class Unsupported(MiniContainerError):
    """This host, kernel or user cannot do what was asked. The message names what is missing."""


class RegistryError(MiniContainerError):
    """A registry refused, or answered with nonsense."""


class BuildError(MiniContainerError):
    """A Dockerfile that cannot be parsed, or a build step that failed.

    `reason` is the sentence, `file` and `line` (from 1; 0: of no line) the place, `source` that line's text and
    `column` (from 0) where in it the caret stands; `build_log` what `build.build` has heard before, in docker-py's
    form.
    """

    def __init__(self, reason: str, file: str = "", line: int = 0, source: str = "", column: int = 0) -> None:
        super().__init__(reason, file, line, source, column)
        self.reason, self.file, self.line, self.source, self.column = reason, file, line, source, column
        self.build_log: list[dict[str, str]] = []

    def __str__(self) -> str:
        if not self.line:
            return f"{self.file}: {self.reason}" if self.file else self.reason
        # Tabs stay tabs under a tab, or the caret would stand elsewhere than in the line above.
        indent = "".join("\t" if character == "\t" else " " for character in self.source[: self.column])
        return f"{self.file}:{self.line}: {self.reason}\n    {self.source}\n    {indent}^"


class ContainerError(MiniContainerError):
    """A container that was waited for ended with another exit code than 0: `exit_code`."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class KernelError(MiniContainerError, OSError):
    """A system call failed.

    `call` is its man-page name, `arguments` what it was given, `hint` what a person can do about it.
    It is an OSError too, so `error.errno` and `except OSError` work as everywhere in Python; but
    it never is one of OSError's children (FileNotFoundError ...): look at `errno`.
    """

    def __init__(self, errno: int, call: str, arguments: tuple[object, ...] = (), hint: str = "") -> None:
        OSError.__init__(self, errno, os.strerror(errno))
        self.call = call
        self.arguments = arguments
        self.hint = hint

    def __str__(self) -> str:
        arguments = ", ".join(map(repr, self.arguments))
        text = f"{self.call}({arguments}): {self.strerror}"
        return f"{text}; {self.hint}" if self.hint else text

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        return type(self), (self.errno, self.call, self.arguments, self.hint)


class CommandNotFound(KernelError):
    """execve found no such file in the container."""


class CommandNotExecutable(KernelError):
    """execve found the file and may not, or cannot, execute it."""
