"""Our namedtuple beside that of collections: the same values, the same refusals."""

import collections
import copy
import pickle
from typing import Any

import pytest

from minicontainer.netlink import Link
from minicontainer.records import namedtuple

CLASSES: list[Any] = [
    make("Point", "x y z", defaults=(0, None))
    for make in (collections.namedtuple, namedtuple)  # noqa: PYI024
]
Point = CLASSES[1]


@pytest.mark.parametrize("given", [((1,), {}), ((1, 2, 3), {}), ((1,), {"z": 5}), ((), {"x": 1, "y": 2})], ids=str)
def test_the_same_values(given: tuple[tuple[int, ...], dict[str, int]]) -> None:
    values, named = given
    theirs, ours = (one(*values, **named) for one in CLASSES)
    assert ours == theirs and tuple(ours) == tuple(theirs) and hash(ours) == hash(theirs)
    assert (ours.x, ours.y, ours.z) == (theirs.x, theirs.y, theirs.z)
    assert ours._asdict() == theirs._asdict() and repr(ours) == repr(theirs)
    assert ours._replace(z=9) == theirs._replace(z=9)
    assert ours._fields == theirs._fields and ours._field_defaults == theirs._field_defaults
    assert copy.copy(ours) == ours and ours._make((7, 8, 9)) == (7, 8, 9)
    match ours:
        case Point(x, y, z):
            assert (x, y, z) == tuple(ours)


@pytest.mark.parametrize(
    "given",
    [((), {}), ((1, 2, 3, 4), {}), ((1,), {"x": 2}), ((1,), {"w": 2}), ((), {"y": 2})],
    ids=["none", "too many", "twice", "unknown", "one is missing"],
)
def test_the_same_refusals(given: tuple[tuple[int, ...], dict[str, int]]) -> None:
    for one in CLASSES:
        with pytest.raises(TypeError):
            one(*given[0], **given[1])
    with pytest.raises((TypeError, ValueError)):
        Point(1)._replace(w=1)


def test_a_value_never_changes_and_travels() -> None:
    link = Link(1, "eth0", True, "veth", 0, 1500, "", True, 0, None)
    with pytest.raises(AttributeError):
        link.mtu = 1400  # type: ignore[misc]
    assert pickle.loads(pickle.dumps(link)) == link and type(link._replace(mtu=9)) is Link
