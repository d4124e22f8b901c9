"""Which unit goes next."""

import pickle
import random

from tasks.workers.backlog import Backlog, Waiting
from tests.tasks.fakes import FakeSegment, FakeUnit


def unit(run_id: str, kind: str = "own", number: int = 0) -> FakeUnit:
    return (FakeSegment if kind == "segment" else FakeUnit)(run_id=run_id, name=f"{kind}-{number}")


def backlog_of(*units: FakeUnit) -> Backlog:
    backlog = Backlog()
    backlog.add(Waiting(each) for each in units)
    return backlog


def order(backlog: Backlog, run_id: str | None = None) -> list[tuple[str, str]]:
    return [backlog.take(run_id).unit.key for _ in range(len(backlog))]


def test_segments_first_then_as_it_came() -> None:
    units = [unit("a", number=1), unit("b", number=2), unit("a", "segment"), unit("b", number=3)]
    assert order(backlog_of(*units)) == [units[i].key for i in (2, 0, 1, 3)]


def test_a_worker_prefers_its_own_run_but_no_score_to_a_segment() -> None:
    units = [unit("a", number=1), unit("b", number=2), unit("b", number=3), unit("a", "segment")]
    assert order(backlog_of(*units), "b") == [units[i].key for i in (3, 1, 2, 0)]


def test_scores_first_where_that_is_asked_for() -> None:
    units = [unit("a", "segment", 1), unit("b", number=2), unit("a", number=3), unit("b", "segment", 4)]
    backlog = backlog_of(*units)
    assert [backlog.take("a", others_first=True).unit for _ in units] == [units[i] for i in (2, 1, 0, 3)]


def test_the_longest_chain_first() -> None:
    """By the rounds that are left, not by those that are done."""
    left = {"short": 10, "long": 40, "long but far": 4}
    units = [FakeSegment(run_id=name, name="s", left=rounds) for name, rounds in left.items()]
    assert [run_id for run_id, _ in order(backlog_of(*units))] == ["long", "short", "long but far"]


def test_chains_that_are_walked_for_long_leave_nothing_behind() -> None:
    backlog = backlog_of(*(unit(name, "segment") for name in "abc"))
    sizes = []
    for number in range(3000):
        taken = backlog.take("a" if number % 2 else "b").unit
        backlog.add([Waiting(unit(taken.run_id, "segment", number))])
        sizes.append(len(pickle.dumps(backlog)))
    assert max(sizes[1000:]) < max(sizes[:1000]) + 1000


def test_as_a_slow_obvious_version_and_every_unit_once() -> None:
    rng = random.Random(0)
    backlog, plain, taken = Backlog(), list[tuple[int, FakeUnit]](), []
    for number in range(400):
        new = unit(rng.choice("abc"), rng.choice(["segment", "own"]), number)
        backlog.add([Waiting(new)])
        plain.append((number, new))
        if rng.random() < 0.5:
            own = rng.choice(["a", "b", "c", "elsewhere", None])
            expected = min(plain, key=lambda e, own=own: (not e[1].edits, e[1].run_id != own, e[0]))
            plain.remove(expected)
            taken.append(backlog.take(own).unit)
            assert taken[-1] is expected[1]
    assert len(backlog) == len(plain) == 400 - len(taken)
