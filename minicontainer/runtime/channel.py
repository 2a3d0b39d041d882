"""What parent, child and client say to one another: small JSON messages over a socket pair (unix(7), SOCK_SEQPACKET).

    {"reached": "namespaces"}        the sender has come to this point
                                     "descriptor": the number of one of the sender's (listener.py)
    {"step": n, "began", "ended"}    its n-th step is done; seconds of the monotonic clock, the same in all processes
    {"error": …}                     an exception, to be raised again on the other side as the same class
    one byte                         the errno of the last execve, from threshold.py's program: {"errno": n}

What a client and the monitor of a running container say is in attach.py. The end of the stream means that the other
side is gone.
"""

from __future__ import annotations

import _socket as socket  # its C half: 0.3 ms of every start, not 2
import struct

from .. import errors
from .. import quickjson as json
from . import threshold

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing: 4 ms of every start
    from typing import Any


def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected ends; both close on exec."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def send(end: socket.socket, message: dict[str, Any], *descriptors: int) -> None:
    """Send one message, with descriptors beside it (SCM_RIGHTS)."""
    beside = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights(*descriptors))] if descriptors else []
    end.sendmsg([packet(message)], beside, socket.MSG_NOSIGNAL)


def rights(*descriptors: int) -> bytes:
    """Descriptors as SCM_RIGHTS has them, unix(7): an array of int. (The module array brings collections along.)"""
    return struct.pack(f"{len(descriptors)}i", *descriptors)


def packet(message: dict[str, Any]) -> bytes:
    """A message as it is sent."""
    return json.dumps(message).encode()


def parse(data: bytes) -> dict[str, Any]:
    """A message as it was meant."""
    message: dict[str, Any] = json.loads(data)
    return message


def receive(end: socket.socket) -> tuple[dict[str, Any] | None, list[int]]:
    """The next message and the descriptors beside it (two at most); None at the end of the stream."""
    data, descriptors = receive_packet(end)
    if len(data) == 1:
        return {"errno": data[0]}, descriptors
    return (parse(data) if data else None), descriptors


def receive_packet(end: socket.socket) -> tuple[bytes, list[int]]:
    """The next packet, whatever it holds, and the descriptors beside it; nothing at the end of the stream."""
    try:
        data, beside, _, _ = end.recvmsg(LARGEST, socket.CMSG_SPACE(8), socket.MSG_CMSG_CLOEXEC)
    except ConnectionResetError:  # said once, if the other side has gone and left something of ours unread
        return receive_packet(end)
    return data, [descriptor for _, _, content in beside for (descriptor,) in struct.iter_unpack("i", content)]


LARGEST = 1 << 17  # bytes of one message: a traceback, at the longest


def describe(error: BaseException) -> dict[str, Any]:
    """An exception as a message that `revive` turns back."""
    notes = list(getattr(error, "__notes__", []))
    if isinstance(error, errors.KernelError):
        # What JSON cannot carry is there to be read only.
        arguments = [word if isinstance(word, int | str) else str(word) for word in error.arguments]
        return {"class": type(error).__name__, "args": [error.errno, error.call, arguments, error.hint], "notes": notes}
    if isinstance(error, errors.MiniContainerError):
        return {"class": type(error).__name__, "args": [str(error)], "notes": notes}
    if isinstance(error, OSError):
        return {"class": "OSError", "args": [error.errno, error.strerror, error.filename], "notes": notes}
    # Without the traceback module: the root may be the image's by now, and nothing may be imported from there.
    place, where = error.__traceback__, "nowhere"
    while place is not None:
        where = f"{place.tb_frame.f_code.co_filename}:{place.tb_lineno}"
        place = place.tb_next
    text = f"a defect of minicontainer, please report it: {type(error).__name__}: {error} at {where}"
    return {"class": "MiniContainerError", "args": [text], "notes": []}


def revive(described: dict[str, Any]) -> Exception:
    """The exception that `describe` described; a MiniContainerError that says where for one that nobody foresaw."""
    error: Exception
    if described["class"] == "OSError":
        error = OSError(*described["args"])
    else:
        error = getattr(errors, described["class"], errors.MiniContainerError)(*described["args"])
        if isinstance(error, errors.KernelError):
            error.arguments = tuple(error.arguments)
    for note in described["notes"]:
        error.add_note(note)
    return error


class Gone(errors.MiniContainerError):
    """The other side ended without a word: it was killed."""


def wait(end: socket.socket, point: str, values: dict[str, Any]) -> None:
    """Read until the other side has reached `point`. Raises its error, or Gone.

    Reports of steps go to `values["report"]` if somebody listens; a descriptor that comes along is bound as `master`.
    Waiting for "execve" ends with the stream: the other end is close-on-exec. But only after a last word, "command",
    for a process that is killed closes it too.
    """
    last_word: dict[str, Any] = {}
    while True:
        message, descriptors = receive(end)
        if descriptors:
            values["master"] = descriptors[0]
        if message is None:
            if point == "execve" and last_word:
                return
            raise Gone(f"the other process was killed before it reached {point!r}")
        if "error" in message:
            raise revive(message["error"])
        if "errno" in message:
            raise threshold.refusal(message["errno"], last_word["name"], last_word["architecture"])
        if "step" in message and "report" in values:
            values["report"](message)
        if "descriptor" in message:
            values["descriptor"] = message["descriptor"]
        if message.get("reached") == point:
            return
        last_word = message if message.get("reached") == "command" else {}


def last_words(end: socket.socket) -> Exception | None:
    """The error that the other side, which has ended, sent and nobody has read yet."""
    end.setblocking(False)
    try:
        while True:
            message, _ = receive(end)
            if message is None or "error" in message:
                return revive(message["error"]) if message else None
    except OSError:
        return None


def tell(end: socket.socket, point: str, **more: Any) -> None:
    """Say that we have come to this point, and whatever `more` there is. Raises the other side's error, or Gone."""
    try:
        send(end, {"reached": point, **more})
    except BrokenPipeError:
        gone = Gone(f"the other process was killed before we reached {point!r}")
        raise last_words(end) or gone from None
