"""Lab 10 behind the real tool: volumes, bind mounts and files of /etc are put in their places by the learner's `arrange`."""

import itertools

from minicontainer import steps
from minicontainer.kernel import mounts

WORDS = ("ro", "nosuid", "nodev", "noexec")
AS_IT_IS = ("bind", "rbind", "rw", "private", "rprivate")  # what `arrange` does without a word


def install(lab):
    """From now on, bind mounts that follow one another are one step. What `arrange` has no word for is the package's."""
    package = mounts.all_of

    def all_of(root, wanted, trees=None):
        """`trees`: by a mount's number, what the package has taken before: seen with other ids, or the host's peer."""
        trees = trees or {}

        def learners_own(numbered):
            return numbered[0] not in trees and is_learners(numbered[1])

        # In their order: one may lie inside another.
        for own, numbered in itertools.groupby(enumerate(wanted), learners_own):
            numbers, group = zip(*numbered, strict=True)
            if own:
                yield steps.call(lab.arrange, root, [asked(mount) for mount in group], why="the learner's arrange()")
            else:
                taken = {place: trees[number] for place, number in enumerate(numbers) if number in trees}
                yield from package(root, list(group), taken)

    mounts.all_of = all_of


def is_learners(mount):
    """Whether it is a bind mount with no other options than the lab's."""
    return mount["type"] == "bind" and set(mount.get("options", [])) <= {*WORDS, *AS_IT_IS}


def asked(mount):
    """A mount of the OCI spec, as the lab writes one."""
    options = [word for word in mount.get("options", []) if word in WORDS]
    return {"source": mount["source"], "target": mount["destination"], "options": options}
