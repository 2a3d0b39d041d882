"""The package's own functions behind this lab's door: what they score shows how far copying gets."""

from minicontainer import steps
from minicontainer.kernel import capabilities


def keep(names):
    sets = dict.fromkeys(("bounding", "effective", "permitted"), names)
    steps.execute([*capabilities.bound(sets), *capabilities.apply(sets, 0)], {})


def confine(code):
    capabilities.set_no_new_privileges()
