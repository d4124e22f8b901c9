"""Runs that go in step: what each writes is what it would have written alone, killed at any commit or not."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows.forecast import forecast
from storage.sql import query
from storage.store import Store
from tasks.specs.run import RunSpec
from tasks.units import targets
from tasks.units.groups import companions, with_companions
from tasks.units.ready import ready_units
from tasks.units.segment import Segment
from tasks.units.unit import Unit
from tasks.workers.worker import Worker
from tests.end_to_end.support import contents
from tests.tasks.support import plan, prepare
from tests.tasks.test_targets import edited_runs, written

GRID: dict[str, Any] = {
    "editors": [
        {"name": "memit", "steps": 5, "contexts": 2},
        {"name": "emmet", "steps": 5, "contexts": 2, "ridge": 1.0, "layers": [1]},
    ],
    "layers": [[0, 1]],
    "batch_sizes": [1],
    "seeds": [0],
    "facts": {"name": "factworld", "size": 6, "samples": 2},
    "score": {"every_edits": 4, "benchmarks": ["sentiment"], "examples": 4},
    "commit_every": 2,
}


class Killed(BaseException):
    pass


class KilledAfter:
    """In the place of a store's ``commit``: does as many as given."""

    def __init__(self, n_commits: int, commit: Callable[..., bool]) -> None:
        self._left, self._commit = n_commits, commit

    def __call__(self, *given: Any) -> bool:
        self._left -= 1
        if self._left < 0:
            raise Killed
        return self._commit(*given)


def kill_after(worker: Worker, n_commits: int) -> None:
    """Let a worker commit so many units, and die at the next."""
    worker.bench.store.commit = KilledAfter(n_commits, worker.bench.store.commit)  # type: ignore[method-assign]


def drive(store: Store, worker: Worker, runs: list[RunSpec]) -> list[Unit]:
    """Do everything that is ready until nothing is; return the units done."""
    by_id, done = {run.run_id: run for run in runs}, []
    while units := [new for run in runs for new in ready_units(store, run, companions(run, by_id))]:
        assert worker.do(units[0]) == "done"
        done.append(units[0])
    return done


def test_a_plan_says_which_runs_go_in_step(tmp_path: Path) -> None:
    planned = plan(tmp_path, **GRID, compute={"chains_in_step": 3})
    first = [run.run_id for run in edited_runs(planned)][:3]
    assert f"in step, their targets searched for together: {', '.join(first)}" in forecast(planned)[1]
    assert not any("in step" in note for note in forecast(plan(tmp_path, **GRID))[1])


def test_runs_in_step_write_what_they_would_write_alone(tmp_path: Path) -> None:
    (tmp_path / "alone").mkdir()
    (tmp_path / "together").mkdir()
    alone, planned = plan(tmp_path / "alone", **GRID), plan(tmp_path / "together", **GRID)
    store, other = Store(planned.store), Store(alone.store)
    worker, single = Worker(planned.store), Worker(alone.store)
    prepare(planned, worker)
    prepare(alone, single)
    runs = with_companions(store, edited_runs(planned), 4)
    assert [len(run.execution.in_step) for run in runs] == [4] * 4, "two editors on two samples"
    done = drive(store, worker, runs)
    assert sum(unit.edits for unit in done) == 3, "three segments, each of all four runs"
    drive(other, single, edited_runs(alone))
    for run in runs:
        found, expected = written(store, run), written(other, run)
        assert found.keys() == expected.keys() and len(found) >= 6
        for key, value in expected.items():
            assert float((found[key] - value).norm() / value.norm()) < 1e-3, (run.run_id, key)
    for sql in (
        "SELECT run_id, round, fact_id, n_steps FROM edits ORDER BY ALL",
        "SELECT run_id, fact_id, probe_id, scored_at, n_correct_new FROM fact_scores ORDER BY ALL",
        "SELECT run_id, count(*) AS n FROM benchmark_answers GROUP BY ALL ORDER BY ALL",
    ):
        assert query(store.location, sql).to_pylist() == query(other.location, sql).to_pylist()


def test_killed_between_the_commits_of_a_group_it_ends_with_the_same_rows(tmp_path: Path) -> None:
    """The group's unit commits the first run last: until then the whole unit is done again."""
    (tmp_path / "whole").mkdir()
    (tmp_path / "killed").mkdir()
    whole, planned = plan(tmp_path / "whole", **GRID), plan(tmp_path / "killed", **GRID)
    store, other = Store(planned.store), Store(whole.store)
    worker = Worker(planned.store)
    prepare(planned, worker)
    prepare(whole, Worker(whole.store))
    drive(other, Worker(whole.store), with_companions(other, edited_runs(whole), 3))

    for n_commits in (1, 3, 2):
        worker = Worker(planned.store)
        kill_after(worker, n_commits)
        with pytest.raises(Killed):
            drive(store, worker, with_companions(store, edited_runs(planned), 3))
    runs = with_companions(store, edited_runs(planned), 3)
    assert sorted(len(run.execution.in_step) for run in runs) == [0, 3, 3, 3], "those that have begun stay together"
    drive(store, Worker(planned.store), runs)
    assert contents(store.location) == contents(other.location)


def test_a_group_that_has_lost_a_member_goes_on_alone(tmp_path: Path) -> None:
    planned = plan(tmp_path, **GRID)
    store, worker = Store(planned.store), Worker(planned.store)
    prepare(planned, worker)
    runs = with_companions(store, edited_runs(planned), 2)
    by_id = {run.run_id: run for run in runs}
    leader = runs[0]
    worker.do(Segment.at(leader, 0, companions(leader, by_id)))
    (left,) = with_companions(store, [by_id[leader.execution.in_step[1]].changed(in_step=())], 2)
    assert left.execution.in_step == ()
    drive(store, worker, [left])
    (rows,) = query(store.location, f"SELECT count(*) AS n FROM edits WHERE run_id = '{left.run_id}'").to_pylist()
    assert rows["n"] == 6


def whole(store: Store, runs: list[RunSpec], n_edits: int) -> bool:
    """Return whether each run has every edit once, on weights that its ledger gives."""
    sql = "SELECT run_id, count(*) AS n, count(DISTINCT round) AS rounds FROM edits GROUP BY run_id"
    found = {row["run_id"]: (row["n"], row["rounds"]) for row in query(store.location, sql).to_pylist()}
    for run in runs:
        Worker(str(store.location)).bench.models.at(run, run.n_rounds)  # replays and compares digests
    return found == {run.run_id: (n_edits, n_edits) for run in runs}


ROMES = GRID | {"editors": [{"name": "rome", "steps": 5, "contexts": 2, "layers": [1]}], "score": {"every_edits": 0}}


def sample(n_samples: int, size: int) -> dict[str, Any]:
    return ROMES | {"facts": {"name": "factworld", "size": size, "samples": n_samples}}


def session(tmp_path: Path, size: int, changes: dict[str, Any], left_out: tuple[int, ...] = ()) -> list[RunSpec]:
    """Run an experiment to its end as one command would; leave out some of its runs."""
    planned = plan(tmp_path, **changes)
    store, worker = Store(planned.store), Worker(planned.store)
    prepare(planned, worker)
    runs = [run for number, run in enumerate(edited_runs(planned)) if number not in left_out]
    runs = with_companions(store, runs, size)
    drive(store, worker, runs)
    return runs


def test_a_run_that_went_on_without_its_companion_does_not_stop_it(tmp_path: Path) -> None:
    session(tmp_path, 2, sample(2, 6))
    session(tmp_path, 2, sample(1, 8))
    runs = session(tmp_path, 2, sample(2, 8))
    assert [run.execution.in_step for run in runs] == [(), ()] and whole(Store(str(tmp_path / "store")), runs, 8)
    runs = session(tmp_path, 2, sample(2, 10))
    assert [len(run.execution.in_step) for run in runs] == [2, 2], "once they stand at one round they go in step again"
    assert whole(Store(str(tmp_path / "store")), runs, 10)


def killed(tmp_path: Path, size: int, changes: dict[str, Any], *, after: int) -> Store:
    """Run an experiment until it is killed between two commits; return the store."""
    planned = plan(tmp_path, **changes)
    store, worker = Store(planned.store), Worker(planned.store)
    prepare(planned, worker)
    kill_after(worker, after)
    with pytest.raises(Killed):
        drive(store, worker, with_companions(store, edited_runs(planned), size))
    return store


@pytest.mark.parametrize("changes", [sample(2, 8), sample(2, 12), sample(2, 6) | {"commit_every": 1}])
def test_killed_between_commits_and_gone_on_with_otherwise(changes: dict[str, Any], tmp_path: Path) -> None:
    store = killed(tmp_path, 2, sample(2, 6), after=3)
    runs = session(tmp_path, 2, changes)
    assert whole(store, runs, changes["facts"]["size"])


def test_a_companion_that_went_on_alone_after_a_kill_keeps_its_ledger(tmp_path: Path) -> None:
    store = killed(tmp_path, 2, sample(2, 6), after=1)
    session(tmp_path, 2, sample(2, 6), left_out=(0,))
    runs = session(tmp_path, 2, sample(2, 8))
    assert whole(store, runs, 8)


def test_runs_that_began_in_different_groups_go_alone(tmp_path: Path) -> None:
    store = killed(tmp_path, 3, sample(3, 6), after=1)  # the second run has begun in a group of three
    session(tmp_path, 3, sample(3, 6), left_out=(1,))
    runs = session(tmp_path, 3, sample(3, 8))
    assert [len(run.execution.in_step) for run in runs] == [2, 0, 2] and whole(store, runs, 8)


def test_a_segment_that_another_attempt_has_committed_is_taken_from_the_store(tmp_path: Path) -> None:
    """Where bits differ between attempts, the ledger counts, not what this worker has found."""
    planned = plan(tmp_path, **sample(2, 6))
    store, worker = Store(planned.store), Worker(planned.store)
    prepare(planned, worker)
    runs = with_companions(store, edited_runs(planned), 2)
    by_id = {run.run_id: run for run in runs}
    first = Segment.at(runs[0], 0, companions(runs[0], by_id))
    commit = worker.bench.store.commit

    def beaten(run_id: str, unit_id: str, tables: Any, info: Any) -> bool:
        return commit(run_id, unit_id, tables, info) and False

    worker.bench.store.commit = beaten  # type: ignore[method-assign]
    assert worker.do(first) == "lost"
    (loaded,) = worker.bench.models._loaded.values()
    assert loaded.run_id is None and not loaded.standing


def test_only_runs_of_one_search_go_in_step(tmp_path: Path) -> None:
    entries = [
        *GRID["editors"],
        {"name": "rome", "steps": 5, "contexts": 2, "layers": [1]},
        {"name": "ft_c", "layers": [1]},
    ]
    changes = GRID | {"editors": entries, "facts": {"name": "factworld", "size": 6}}
    planned = plan(tmp_path, **changes)
    runs = with_companions(Store(planned.store), edited_runs(planned), 8)
    assert {run.editor: len(run.execution.in_step) for run in runs} == {"memit": 2, "emmet": 2, "rome": 0, "ft_c": 0}
    independent = plan(tmp_path, **changes | {"mode": "independent"})
    runs = with_companions(Store(planned.store), edited_runs(independent), 8)
    assert not any(run.execution.in_step for run in runs)


def test_editors_that_share_their_search_with_nobody_go_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planned = plan(tmp_path, **GRID)
    asked = targets.target_definition
    monkeypatch.setattr(targets, "target_definition", lambda name, *of: None if name == "emmet" else asked(name, *of))
    runs = with_companions(Store(planned.store), edited_runs(planned), 8)
    assert [len(run.execution.in_step) for run in runs if run.editor == "memit"] == [2, 2]
    assert [len(run.execution.in_step) for run in runs if run.editor == "emmet"] == [0, 0]
