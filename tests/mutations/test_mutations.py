"""No broken input ends in a bare exception; each is refused by name of file and place, and by the plan if that can know it."""

from pathlib import Path

import pytest

from tests.mutations.cases import all_cases
from tests.mutations.spoiling import Case
from tests.mutations.stages import Outcome, drive, make_good

FEW, PARTS = 14, 6
"""Every fourteenth case is always run."""


def is_known_later(case: Case) -> bool:
    """Whether a plan cannot know it: it reads no weights, factors no matrix, and no files that a command over a store reads."""
    numbers = case.file == "model.safetensors" and case.what.endswith((" NaN", " infinite"))
    return case.in_store or numbers or case.what.endswith(" of rank one")


@pytest.fixture(scope="session")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("mutations") / "good"
    make_good(root)
    return root


def wrong(outcome: Outcome) -> list[str]:
    """Return what is wrong with how a case ended."""
    faults = list(outcome.faults)
    if outcome.error is not None and outcome.stage != "plan" and not is_known_later(outcome.case):
        faults.append(f"refused only by {outcome.stage}")
    return faults


def check(cases: list[Case], good: Path, tmp_path: Path) -> None:
    outcomes = [drive(case, good, tmp_path / f"case-{number}") for number, case in enumerate(cases)]
    bad = [(o.case.kind, o.case.what, wrong(o), str(o.error)[:300]) for o in outcomes if wrong(o)]
    assert not bad, "\n".join(map(str, bad))
    assert sum(o.error is not None for o in outcomes) > len(outcomes) / 4, "most mutations break something"


@pytest.mark.timeout(600)
def test_some_broken_inputs(good: Path, tmp_path: Path) -> None:
    cases = all_cases(good, good / "store")[::FEW]
    assert len(cases) >= 30
    check(cases, good, tmp_path)


@pytest.mark.minutes
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("part", range(PARTS))
def test_all_broken_inputs(good: Path, tmp_path: Path, part: int) -> None:
    cases = all_cases(good, good / "store")
    assert len(cases) >= 400
    check(cases[part::PARTS], good, tmp_path)


def test_a_bare_exception_and_an_empty_message_are_noticed() -> None:
    """The check can fail."""
    case = Case("order", "order.json", "nothing", lambda root: None, names=("2", "id"))
    assert Outcome(case, "plan", IndexError("list index out of range")).faults == ["a bare IndexError"]
    from tasks.errors import InputError

    assert Outcome(case, "plan", InputError("no")).faults == [
        "does not name order.json",
        "names none of ('2', 'id')",
        "does not say what to do",
    ]
    good = Outcome(case, "inputs", InputError("order.json: number 2 is no id; expected one of the data set's"))
    assert good.faults == [] and wrong(good) == ["refused only by inputs"]
