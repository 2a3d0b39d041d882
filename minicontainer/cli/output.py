"""Where `save` and `export` put an archive: standard output, or a file that appears when it is whole."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterable

from .. import errors, files


def write(output: str | None, chunks: Iterable[bytes]) -> None:
    """Write the chunks. Raises InvalidArgument for a terminal or a place that cannot be, KernelError for a full disk.

    A file has another name until it is whole: an archive that is cut off looks like one.
    """
    if output is None:
        if os.isatty(1):
            raise errors.InvalidArgument("cowardly refusing to save to a terminal. Use the -o flag or redirect")
        sys.stdout.flush()
        _pour(1, "standard output", chunks)
        return
    if os.path.isdir(output):
        raise errors.InvalidArgument(f"-o {output}: that is a directory; name a file in it")
    if os.path.exists(output) and not os.path.isfile(output):  # /dev/null, a FIFO: written to as it is
        with open(output, "wb", buffering=0) as file:
            _pour(file.fileno(), output, chunks)
        return
    temporary = f"{output}.tmp-{os.getpid()}"
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise errors.InvalidArgument(f"-o {output}: {error.strerror}") from None
    try:
        try:
            _pour(descriptor, output, chunks)
        finally:
            os.close(descriptor)
        os.rename(temporary, output)
    except BaseException:
        files.unlink(temporary)
        raise


def _pour(descriptor: int, name: str, chunks: Iterable[bytes]) -> None:
    for chunk in chunks:
        try:
            files.write_all(descriptor, chunk)
        except BrokenPipeError:
            raise
        except OSError as error:
            hint = "free some space, or write elsewhere" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
            raise errors.KernelError(error.errno or errno.EIO, "write", (name,), hint) from None
