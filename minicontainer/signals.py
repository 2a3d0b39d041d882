"""signal(7), as Python's `signal` has it: numbers in place of its enumerations, which cost 3 ms of every start."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from signal import *  # noqa: F403
else:
    from _signal import *  # noqa: F403
