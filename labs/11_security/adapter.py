"""Lab 11 behind the real tool: a container's root gives up what it does not keep by the learner's `keep`."""

from minicontainer import steps
from minicontainer.kernel import capabilities


def install(lab):
    """From now on a root's capabilities go in one step; another user's, which setuid(2) takes part in, as before."""
    bound, apply = capabilities.bound, capabilities.apply

    def rest(wanted, uid):
        if uid:
            yield from bound(wanted)
            yield from apply(wanted, uid)
        else:
            yield steps.call(lab.keep, wanted.get("effective") or [], why="the learner's keep()")

    def later(wanted):
        if wanted.get("permitted"):
            yield steps.call(capabilities.keep_capabilities, why="a change from uid 0 would clear the permitted set")

    capabilities.bound, capabilities.apply = later, rest
