"""Lab 02 behind the real tool: whatever namespaces a container has of its own, the learner's `isolate` makes."""

from minicontainer import steps
from minicontainer.kernel import namespaces


def install(lab):
    """From now on, new namespaces are one step of the learner's; the parent's plan and the child's both have it."""
    package = namespaces.of_kinds

    def of_kinds(spaces, kinds, new_ones=True, inside=()):
        yield from package([space for space in spaces if space.get("path")], kinds, inside=inside)
        wanted = [kind for kind in kinds if new_ones and namespaces.new(spaces, kind)]
        if wanted:
            yield steps.call(lab.isolate, wanted, why="the learner's isolate()")

    namespaces.of_kinds = of_kinds
