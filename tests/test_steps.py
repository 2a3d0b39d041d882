"""Plans are data: symbols are bound when they are known, errors say at which step they came."""

import pytest

from minicontainer import steps


def test_symbols_are_bound_by_results_and_resolved_inside_texts_and_tuples() -> None:
    seen: list[object] = []
    plan = [
        steps.call(lambda: 42, why="learn a pid", result="pid"),
        steps.call(seen.append, steps.Text(("/proc/", steps.PID, "/ns")), why="use it"),
        steps.call(seen.append, (steps.PID, ["a", steps.PID]), why="use it deeper"),
    ]
    steps.execute(plan, {})
    assert seen == ["/proc/42/ns", (42, ["a", 42])]


def test_an_unbound_symbol_is_an_error_not_a_blank() -> None:
    with pytest.raises(KeyError):
        steps.execute([steps.call(print, steps.ADDRESS, why="too early")], {})


def test_the_failing_step_is_named_and_nothing_runs_after_it() -> None:
    ran: list[int] = []
    plan = [
        steps.call(ran.append, 1, why="first"),
        steps.rmdir("/proc", why="cannot be"),
        steps.call(ran.append, 2, why="never"),
    ]
    with pytest.raises(OSError) as caught:
        steps.execute(plan, {})
    assert ran == [1]
    assert caught.value.__notes__ == ["at the step rmdir (cannot be)"]


def test_the_observer_sees_each_step_with_its_times() -> None:
    reports = []
    plan = [steps.call(lambda: None, why=why) for why in ("a", "b")]
    steps.execute(plan, {}, lambda step, began, ended: reports.append((step.why, ended >= began)))
    assert reports == [("a", True), ("b", True)]


def test_about_names_a_concept_only_where_there_is_none() -> None:
    named = steps.mkdir("/x", why="x")._replace(concept="overlay")
    assert [step.concept for step in steps.about("mounts", [named, steps.mkdir("/y", why="y")])] == [
        "overlay",
        "mounts",
    ]


def test_every_constructor_makes_a_verb_that_can_be_performed() -> None:
    made = [
        steps.mkdir("/x", why="-"), steps.rmdir("/x", why="-"), steps.write("/x", "", why="-"),
        steps.put("/x", "", why="-"), steps.link_wait("a", why="-"),
        steps.symlink("a", "b", why="-"), steps.unlink("/x", why="-"), steps.remove_tree("/x", why="-"),
        steps.mount("a", "b", "c", why="-"), steps.umount("/x", why="-"), steps.umount_all("/x", why="-"),
        steps.pivot_root(".", ".", why="-"), steps.chdir("/", why="-"), steps.unshare(0, why="-"),
        steps.setns("/x", 0, why="-"), steps.sethostname("x", why="-"), steps.link_add("a", "bridge", why="-"),
        steps.link_set("a", why="-"), steps.link_delete("a", why="-"), steps.address_add("a", "b", why="-"),
        steps.route_add("default", "b", why="-"), steps.nft(why="-"), steps.call(print, why="-"),
    ]  # fmt: skip
    assert {step.verb for step in made} == set(steps.VERBS)
