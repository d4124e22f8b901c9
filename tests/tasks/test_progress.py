"""Units tell how far they are, and long ones that are asked to end go on later from where they were."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from editing.measure.moments import TEXTS_AT_ONCE
from editing.model.lm import LanguageModel
from editing.model.progress import Interrupted, Progress
from storage.artifacts import artifact_recipes, find_artifact
from storage.sql import query
from storage.store import Store
from tasks.driver.plan import Plan
from tasks.driver.rates import Clock
from tasks.driver.stage_progress import StageProgress
from tasks.runs.chain import segments
from tasks.units.moments import BLOCK, MOST_SHARDS, SUMS, MomentsJob, cut, shard_recipe
from tasks.units.ready import ready_units
from tasks.units.segment import Segment
from tasks.units.targets import TARGETS
from tasks.units.unit import LEFT, Unit
from tasks.workers.worker import Worker
from tests.tasks.fakes import FakeUnit
from tests.tasks.support import edited, plan, prepare, search_units
from tests.tasks.test_pool import unit as fake

SEARCH: dict[str, Any] = {
    "facts": {"name": "factworld", "size": 6},
    "layers": [[0]],
    "second_moment": {"n_texts": 100},
    "locate": {
        "search": {"edits": 6, "layers": [0, 1, 2], "editor": "rome"},
        "trace": {"facts": 4, "samples": 2, "window": 2},
    },
}


class Told(Progress):
    """Keeps all that it is told, and asks to stop at one point of it."""

    def __init__(self, stop_at: int | None = None) -> None:
        super().__init__()
        self.said: list[float] = []
        self.shares: list[float] = []
        self.stop_at = stop_at

    def at(self, share: float) -> None:
        self.said.append(self._start + self._width * share)
        if self.stop_at is not None and len(self.said) >= self.stop_at:
            self.is_asked_to_stop = True
        super().at(share)
        self.shares.append(self.share)


def listening(worker: Worker, stop_at: int | None = None) -> Told:
    told = Told(stop_at)
    worker.bench.progress = worker.bench.models._progress = told
    for loaded in worker.bench.models._loaded.values():
        loaded.lm.progress = told
    return told


def test_loops_within_loops_tell_the_whole() -> None:
    progress = Told()
    for _ in progress.over([1, 2]):
        for _ in progress.over("abcd"):
            pass
    assert [round(share, 6) for share in progress.said] == [0.125, 0.25, 0.375, 0.5, 0.5, 0.625, 0.75, 0.875, 1.0, 1.0]
    assert progress.share == 1.0
    with progress.part(0.0, 0.1):
        progress.at(0.5)
    assert progress.share == 1.0, "it never goes back"
    progress.begin()
    with progress.part(0.2, 0.4), progress.part(0.5, 1.0):
        progress.at(0.5)
        assert progress.share == pytest.approx(0.35)
    progress.is_asked_to_stop = True
    progress.at(0.6)
    with pytest.raises(Interrupted), progress.interruptible():
        progress.at(0.7)


def searches(planned: Plan) -> list[Unit]:
    (search,) = planned.searches
    targets, edits = search_units(search, shared=True)
    return [*targets, *edits]


def traces(planned: Plan, store: Store, worker: Worker) -> list[Unit]:
    (job,) = planned.traces
    worker.do(job.known_unit())
    return list(job.traces(store))


@pytest.mark.slow
def test_long_units_tell_at_least_five_steps(tmp_path: Path) -> None:
    planned = plan(tmp_path, **SEARCH)
    store, worker = Store(planned.store), Worker(planned.store)
    prepare(planned, worker)
    for each in [*searches(planned), *traces(planned, store, worker), *ready_units(store, edited(planned))]:
        told = listening(worker)
        assert worker.do(each) == "done"
        steps = {round(share, 3) for share in told.shares}
        assert len(steps) >= 5 and told.share == pytest.approx(1.0), (each.kind, steps)
        assert each.kind != TARGETS or told.shares[0] < 0.3, "what comes first is not all"


def done_with_stops(worker: Worker, each: Unit, stop_at: int) -> int:
    """Do a unit that is asked to end again and again, a little later each time; return how often it was left."""
    for times in range(100):
        listening(worker, stop_at * (times + 1))
        said = worker.do(each)
        if said != LEFT:
            assert said == "done"
            return times
    raise AssertionError("it does not come to an end")


def rows_of(store: str, table: str) -> list[dict[str, Any]]:
    found = query(store, f"SELECT * EXCLUDE (attempt, unit_id) FROM {table} ORDER BY ALL").to_pylist()
    assert found
    return found


def close(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> bool:
    def same(a: Any, b: Any) -> bool:
        return a == pytest.approx(b, rel=1e-4, abs=1e-6) if isinstance(a, float) else a == b

    return len(one) == len(other) and all(same(a[key], b[key]) for a, b in zip(one, other, strict=True) for key in a)


@pytest.mark.slow
def test_a_search_that_is_left_repeats_nothing_that_was_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from editing.methods import targets as engine

    found: list[tuple[int, str]] = []
    real = engine._optimise_batch

    def counted(lm: LanguageModel, facts: Any, chains: Any, layers: Any, *rest: Any) -> Any:
        for layer, targets in zip(layers, real(lm, facts, chains, layers, *rest), strict=True):
            found.extend((layer, str(fact.ids)) for fact in facts)
            yield targets

    monkeypatch.setattr(engine, "_optimise_batch", counted)
    whole, left = plan(tmp_path / "whole", **SEARCH), plan(tmp_path / "left", **SEARCH)
    for planned, stop_at in ((whole, 10**9), (left, 9)):
        worker = Worker(planned.store)
        prepare(planned, worker)
        found.clear()
        times = [done_with_stops(worker, each, stop_at) for each in searches(planned)]
        assert (sum(times) == 0) == (planned is whole)
        assert len(found) == len(set(found)) == 6 * 3, "each fact's target at each layer, once"
        assert artifact_recipes(Store(planned.store), "unfinished") == []
    assert close(rows_of(whole.store, "layer_scores"), rows_of(left.store, "layer_scores"))


@pytest.mark.slow
def test_a_trace_that_is_left_goes_on_with_the_next_fact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tasks.units import trace

    traced: list[str] = []
    real: Callable[..., Any] = trace.trace_rows

    def counted(lm: LanguageModel, facts: Any, settings: Any) -> Any:
        rows = real(lm, facts, settings)
        traced.extend(fact.request_id for fact in facts)
        return rows

    monkeypatch.setattr(trace, "trace_rows", counted)
    whole, left = plan(tmp_path / "whole", **SEARCH), plan(tmp_path / "left", **SEARCH)
    for planned, stop_at in ((whole, 10**9), (left, 40)):
        store, worker = Store(planned.store), Worker(planned.store)
        traced.clear()
        times = [done_with_stops(worker, each, stop_at) for each in traces(planned, store, worker)]
        assert (sum(times) == 0) == (planned is whole) and len(traced) == len(set(traced)) == 4
    assert rows_of(whole.store, "traces") == rows_of(left.store, "traces")


def shard_job(planned: Plan) -> MomentsJob:
    (job,) = planned.moments
    return job


def test_sums_that_are_left_go_on_to_the_same_bits(tmp_path: Path) -> None:
    wanted = SEARCH | {"second_moment": {"n_texts": 192, "shard_texts": 128, "max_tokens": 40}}
    whole, left = plan(tmp_path / "whole", **wanted), plan(tmp_path / "left", **wanted)
    sums = []
    for planned, stop_at in ((whole, 10**9), (left, 2)):
        store, worker, job = Store(planned.store), Worker(planned.store), shard_job(planned)
        worker.bench.models.loaded(planned.models[0]).lm.tokens_per_forward = 512
        shard = job.shard((0, 128))
        times = done_with_stops(worker, shard, stop_at)
        assert (times == 0) == (planned is whole)
        found = find_artifact(store, SUMS, shard_recipe(job.recipe, 0, (0, 128)))
        assert found is not None
        sums.append(found.path("sums.safetensors").read_bytes())
    assert sums[0] == sums[1]


@pytest.mark.slow
def test_a_segment_that_is_asked_to_end_commits_what_it_has(tmp_path: Path) -> None:
    wanted = SEARCH | {"batch_sizes": [1], "commit_every": 6, "locate": {}}
    whole, left = plan(tmp_path / "whole", **wanted), plan(tmp_path / "left", **wanted)
    for planned in (whole, left):
        store, worker, run = Store(planned.store), Worker(planned.store), edited(planned)
        prepare(planned, worker)
        if planned is left:
            told = listening(worker)
            told.stop_at = 8
            assert worker.do(ready_units(store, run)[0]) == "done"
            done = [(c.first_round, c.last_round) for c in segments(store, run.run_id)]
            assert len(done) == 1 and 0 < (done[0][1] or 0) < 6
            listening(worker)
        while units := ready_units(store, run):
            worker.do(units[0])
    for table in ("edits", "rounds", "ledger"):
        assert rows_of(whole.store, table) == rows_of(left.store, table)


def test_workers_end_together() -> None:
    assert BLOCK == TEXTS_AT_ONCE
    for n_texts in (1200, 5000, 20_000):
        shards = cut(0, n_texts, 1024, divided=True)
        assert shards[0][0] == 0 and shards[-1][1] == n_texts
        assert all(a[1] == b[0] and a[1] % BLOCK == 0 for a, b in pairwise(shards))
        for workers in (2, 4, 8):
            load = [0] * workers
            for start, stop in shards:
                load[load.index(min(load))] += stop - start
            assert max(load) - min(load) <= max(BLOCK, 0.1 * n_texts / workers), (n_texts, workers, load)
    assert cut(0, 150, 1024, divided=True) == [(0, 150)]
    assert cut(0, 1200, 1024, divided=False) == [(0, 1024), (1024, 1200)]
    assert len(cut(0, 1200, 1024, divided=True)) <= MOST_SHARDS


def test_what_is_left_is_known_by_this_run_then_the_store_then_the_estimate() -> None:
    units = [fake(f"u{i}", "fine") for i in range(4)]
    assert all(isinstance(each, FakeUnit) for each in units)
    assert Clock(units, {}, None).seconds_left() is None
    assert Clock(units, {}, 10.0).seconds_left() == pytest.approx(10.0 * sum(each.cost for each in units))
    clock = Clock(units, {units[0].kind: 3.0}, 10.0)
    assert clock.seconds_left() == pytest.approx(3.0 * sum(each.n_items for each in units))
    clock.done(units[0], 8.0 * units[0].n_items)
    assert clock.seconds_left() == pytest.approx(8.0 * sum(each.n_items for each in units[1:]))
    clock.shares([(units[1], 0.5)])
    assert clock.seconds_left() == pytest.approx(
        8.0 * (sum(each.n_items for each in units[1:]) - 0.5 * units[1].n_items)
    )
    stage = StageProgress("edit", sum(each.cost for each in units), 4, clock)
    stage.finished(units[0], 8.0)
    stage.shares([(units[1], 0.5), (units[2], 0.25)])
    assert stage.share == pytest.approx((units[0].cost + 0.75 * units[1].cost) / sum(each.cost for each in units))
    assert stage.n_busy == 2


def test_an_eta_goes_by_the_pace_of_each_chain_and_is_no_shorter_than_the_longest(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Two chains of three segments each, one of which is ten times as slow as the other, beside four workers."""
    now = 0.0
    monkeypatch.setattr("tasks.driver.rates.time.monotonic", lambda: now)
    planned = plan(tmp_path, editors=["ft_c", "rome"], layers=[0], batch_sizes=[1], commit_every=4)
    runs = {run.editor: run for run in planned.runs}
    slow, quick = ([Segment.at(runs[name], first) for first in (0, 4, 8)] for name in ("rome", "ft_c"))
    clock = Clock([*slow, *quick], {}, 1.0)
    clock.shares([(slow[0], 0.0), (quick[0], 0.0)])
    assert clock.seconds_left() == pytest.approx(24.0), "by the estimate, a second a fact"
    now = 20.0
    clock.shares([(slow[0], 0.2), (quick[0], 0.5)])
    assert clock.seconds_left() == pytest.approx(80 + 200 + 20 + 80)
    assert clock.seconds_left(4) == pytest.approx(80 + 200), "the slow one has 80 s of this segment left, and two more"
    clock.done(quick[0], 40.0)
    clock.shares([(slow[0], 0.2)])
    assert clock.seconds_left() == pytest.approx(80 + 200 + 80), "the quick one goes on at its own pace"


def test_an_eta_does_not_look_at_every_unit_and_may_be_asked_from_another_thread() -> None:
    units = [fake(f"u{i}", "fine") for i in range(20_000)]
    clock = Clock(units, {}, 1.0)
    looked: list[str] = []
    real = type(units[0]).n_items

    def watched(self: FakeUnit) -> int:
        looked.append(self.unit_id)
        return int(real.__get__(self))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FakeUnit, "n_items", property(watched))
        clock.shares([(units[0], 0.5)])
        assert clock.seconds_left() == pytest.approx(19_999.5 * units[0].cost)
    assert set(looked) <= {"u0"}
    with ThreadPoolExecutor(1) as other:
        asked = [other.submit(clock.seconds_left) for _ in range(200)]
        for each in units[:2000]:
            clock.done(each, 1.0)
        assert all(found.result() is not None for found in asked)
