"""Every lab is honest: its stub scores nothing, its reference everything, the package's functions 60 % at most, and
nine of ten wrong solutions lose points. What students get does not give the solution away."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from minicontainer.teach import lab as labs
from minicontainer.teach.lab import bundle, proof, stub

LABS = labs.every()

# Under a user who is root of nothing: the rooms are made by himself.
as_root = pytest.mark.root
as_user = [pytest.mark.userns, pytest.mark.needs("user-namespace")]
everybody = pytest.mark.parametrize("tier", [pytest.param("root", marks=as_root), pytest.param("user", marks=as_user)])
each = pytest.mark.parametrize("lab", LABS, ids=[lab.name for lab in LABS])

# What a test asks of a lab before it looks at the result.
ASKS: dict[str, Callable[[labs.Lab], list[proof.Result]]] = {
    "test_the_stub_scores_nothing": lambda lab: [proof.score(lab, stub.stub(proof.solution(lab)))],
    "test_the_reference_scores_everything": lambda lab: [proof.score(lab, proof.solution(lab))],
    "test_what_is_marked_pure_is_gradable_anywhere": lambda lab: [
        proof.score(lab, source, tier="pure")
        for source in (proof.solution(lab), stub.stub(proof.solution(lab)))
        if "mark.pure" in Path(lab.directory, "test_lab.py").read_text()
    ],
    "test_the_packages_own_functions_score_little": lambda lab: [
        proof.score(lab, source) for source in [proof.package(lab)] if source
    ],
}


@pytest.fixture(scope="module")
def begun(request: pytest.FixtureRequest) -> Iterator[dict[tuple[str, str], Future[list[proof.Result]]]]:
    """All that the tests of this run ask, begun in the order in which they will want it, as many at a time as there
    are processors: labs wait a good deal."""
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        found = {}
        for item in request.session.items:
            if isinstance(item, pytest.Function) and item.path == request.path and item.originalname in ASKS:
                lab = item.callspec.params["lab"]
                found[item.originalname, lab.name] = pool.submit(ASKS[item.originalname], lab)
        yield found
        pool.shutdown(cancel_futures=True)


@pytest.fixture
def results(
    request: pytest.FixtureRequest, begun: dict[tuple[str, str], Future[list[proof.Result]]], lab: labs.Lab
) -> list[proof.Result]:
    """What came of it; none where there is nothing to be scored."""
    return begun[request.node.originalname, lab.name].result()


def test_each_lab_has_a_reference() -> None:
    assert LABS
    assert [lab.name for lab in LABS if not Path(lab.solution).exists()] == []


def test_each_lab_is_compared_with_the_package_or_says_why_not() -> None:
    assert {lab.number for lab in LABS if not proof.package(lab)} == set(proof.NO_PACKAGE)


@each
def test_the_stub_is_the_generated_one(lab: labs.Lab) -> None:
    written = Path(lab.directory, "lab.py").read_text()
    assert written == stub.stub(proof.solution(lab)), "write it anew: python -m minicontainer.teach.lab.stub"


@each
@everybody
def test_the_stub_scores_nothing(lab: labs.Lab, tier: str, results: list[proof.Result]) -> None:
    (result,) = results
    assert result.points == 0, f"of {result.of}"
    assert [title for title in result.failed if "a defect of the lab" in title] == []


@each
@everybody
def test_the_reference_scores_everything(lab: labs.Lab, tier: str, results: list[proof.Result]) -> None:
    (result,) = results
    assert result.failed == [], f"seed {result.seed}"
    assert result.points == result.of
    assert result.of or result.left_out


@each
@everybody
def test_what_is_marked_pure_is_gradable_anywhere(lab: labs.Lab, tier: str, results: list[proof.Result]) -> None:
    """In a plain room: the same code, the same tests, without a namespace."""
    assert len(results) == 2 * ("mark.pure" in Path(lab.directory, "test_lab.py").read_text())
    if results:
        reference, the_stub = results
        assert reference.failed == []
        assert the_stub.points == 0


@each
@as_root
def test_the_packages_own_functions_score_little(lab: labs.Lab, results: list[proof.Result]) -> None:
    assert len(results) == bool(proof.package(lab))
    for result in results:
        assert result.share <= proof.PACKAGE_AT_MOST, f"{result.points} of {result.of} points"
        assert [title for title in result.failed if "a defect of the lab" in title] == []


@pytest.fixture(scope="module")
def hunted(request: pytest.FixtureRequest) -> Iterator[dict[str, list[Future[tuple[str, bool]]]]]:
    """The mutants of every lab that this run is about, begun lab by lab."""
    with proof.hunters() as pool:
        labs_ = [item.callspec.params["lab"] for item in request.session.items if isinstance(item, pytest.Function)
                 and item.path == request.path and item.originalname == "test_mutants_lose_points"]  # fmt: skip
        yield {lab.name: proof.hunted(lab, pool) for lab in labs_}
        pool.shutdown(cancel_futures=True)


@each
@as_root
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_mutants_lose_points(lab: labs.Lab, hunted: dict[str, list[Future[tuple[str, bool]]]]) -> None:
    told = [future.result() for future in hunted[lab.name]]
    missed = [change for change, lost in told if not lost]
    assert len(told) >= 5, "too few to tell anything"
    assert len(missed) <= len(told) * (1 - proof.CAUGHT_AT_LEAST), missed


@each
def test_students_get_no_line_of_the_solution(lab: labs.Lab) -> None:
    assert stub.telling(proof.solution(lab)), "the reference has no line that could give it away?"
    assert proof.leaked(lab) == []


def test_students_get_no_solution_at_all() -> None:
    given = bundle.given(LABS)
    assert {f"{lab.name}/lab.py" for lab in LABS} <= set(given)
    assert [path for path in given if "solution" in path or "package" in path or "instructor" in path] == []
    assert [path for path, content in given.items() if stub.BEGIN.encode() in content and path.endswith(".py")] == []
