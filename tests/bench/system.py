"""What runs and stores cost beside the editing itself, in seconds and megabytes: upper limits, not ratios."""

import gc
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import ray

from storage.cleaning import gc as clear
from storage.commits import CommitInfo
from storage.compaction import compact
from storage.sql import query
from storage.store import Store
from tasks.specs.placement import Placement
from tasks.workers.placer import cluster
from tasks.workers.pool import Pool
from tests.bench.limits import Limited
from tests.tasks.fakes import FakeUnit

N_RUNS, N_SEGMENTS, N_FACTS, N_PROBES = 10, 200, 50, 10
"""A million fact scores in 2,000 segments."""


def all_limits() -> Iterator[tuple[str, Callable[[], Limited]]]:
    """Yield each row's name and how to measure it."""
    yield "summary_2000_segments", lambda: _summary("summary_2000_segments", _store(compacted=False), limit=4.0)
    yield "summary_compacted", lambda: _summary("summary_compacted", _store(compacted=True), limit=0.3)
    yield "scheduling_of_a_unit", scheduling
    yield "driver_memory", driver_memory


# --- the store


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="palimpsest-bench-")


@cache
def _store(*, compacted: bool) -> Path:
    """Return a store with a million fact scores; the compacted one is the other, compacted."""
    root = Path(_folder().name) / "store"
    if not compacted:
        store, rng = Store(root, create=True), np.random.default_rng(0)
        for number in range(N_RUNS):
            _write_run(store, f"memit-b5-{number:010d}", rng)
        return root
    store = Store(_store(compacted=False))
    for run_id in store.run_ids():
        compact(store, run_id)
    clear(store, grace_s=0)
    return root


RUN = {"model": "m", "editor": "memit", "layers": [0], "batch_size": 5, "mode": "sequential", "sample": 0, "seed": 0}
"""A row of ``runs``."""


def _write_run(store: Store, run_id: str, rng: np.random.Generator) -> None:
    for segment in range(N_SEGMENTS):
        tables = tables_of(range(segment * N_FACTS, (segment + 1) * N_FACTS), rng)
        info = CommitInfo(kind="segment", first_round=segment * 10, last_round=segment * 10 + 10)
        first = {} if segment else {"runs": [RUN]}
        store.commit(run_id, f"segment-{segment * 10:06d}", tables | first, info)


def tables_of(facts: range, rng: np.random.Generator) -> dict[str, list[dict[str, Any]]]:
    """Return what a segment of five edits a round writes of some facts, each scored on ten probes."""
    edits = [{"round": fact // 5, "position": fact, "fact_id": f"fact-{fact}"} for fact in facts]
    return {"edits": edits, "fact_scores": [_score(fact, probe, rng) for fact in facts for probe in range(N_PROBES)]}


def _score(fact: int, probe: int, rng: np.random.Generator) -> dict[str, Any]:
    kind = "rewrite" if probe == 0 else "paraphrase" if probe < 3 else "neighborhood"
    return {
        "purpose": "own",
        "fact_id": f"fact-{fact}",
        "probe_id": f"fact-{fact}/{kind}/{probe}",
        "kind": kind,
        "edited_at": fact // 5,
        "scored_at": fact // 5,
        "edits_so_far": fact + 1,
        "nll_new": float(rng.exponential(4)),
        "n_new": 2,
        "n_correct_new": int(rng.integers(3)),
        "nll_true": float(rng.exponential(4)),
        "n_true": 2,
        "n_correct_true": int(rng.integers(3)),
        "argmax_new": [11, 12],
        "argmax_true": [13, 14],
        "text": " a city on a river, and",
        "is_nan": False,
    }


def _summary(name: str, store: Path, *, limit: float) -> Limited:
    return Limited(name=name, value=summary_seconds(store, N_RUNS), limit=limit, unit="s")


def summary_seconds(store: Path, n_runs: int) -> float:
    """Time ``run_summary`` in this process, files in the system's cache: the median of five."""
    query(store, "SELECT 1")
    seconds = []
    for _ in range(5):
        began = time.perf_counter()
        assert query(store, "SELECT * FROM run_summary").num_rows == n_runs
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


# --- the pool


class _Trivial:
    def ping(self) -> str:
        return "here"

    def look(self, *, stop: bool) -> float:
        return 0.0

    def do(self, unit: FakeUnit) -> str:
        return "done"


class _TwoWorkers:
    def capacity(self) -> int:
        return 2

    def preparing(self) -> bool:
        return False

    def problems(self) -> str:
        return ""

    def started(self, worker: Any) -> None:
        """Nothing is kept of it."""

    def start(self) -> Any:
        return ray.remote(_Trivial).options(num_cpus=0.5, max_restarts=0, max_task_retries=0).remote()

    def ended(self, worker: Any, *, unfit: str | None = None) -> bool:
        return True


def _units(count: int) -> list[FakeUnit]:
    return [FakeUnit(run_id=f"run-{i % 20}", name=f"unit-{i:06d}") for i in range(count)]


def _run(pool: Pool, count: int) -> float:
    began = time.perf_counter()
    assert pool.run(_units(count)) == {}
    return time.perf_counter() - began


def scheduling() -> Limited:
    """Time 2,000 units that do nothing, over two workers that are there already."""
    with cluster(Placement()):
        pool = Pool(_TwoWorkers())
        _run(pool, 10)
        per_unit = statistics.median(_run(pool, 2000) / 2000 for _ in range(3))
        pool.close()
    return Limited(name="scheduling_of_a_unit", value=1000 * per_unit, limit=5.0, unit="ms")


def driver_memory() -> Limited:
    """Return by how much the driver's memory grows for each 1,000 units that one run has done, in chains as segments are."""
    process, grown = psutil.Process(), dict[int, int]()
    n_done, n_chains, first, last = 0, 20, 1000, 20_000

    def done(unit: FakeUnit, seconds: float) -> None:
        nonlocal n_done
        n_done += 1
        if n_done in (first, last):
            gc.collect()
            grown[n_done] = process.memory_info().rss

    def follow(unit: FakeUnit) -> list[FakeUnit]:
        number = int(unit.unit_id.removeprefix("unit-")) + n_chains
        return [replace(unit, name=f"unit-{number:06d}")] if number < last else []

    with cluster(Placement()):
        pool = Pool(_TwoWorkers())
        _run(pool, first)
        assert pool.run(_units(n_chains), follow=follow, on_done=done) == {}
        pool.close()
    per_thousand = (grown[last] - grown[first]) / (last - first) * 1000 / 2**20
    return Limited(name="driver_memory", value=per_thousand, limit=0.5, unit="MB per 1,000 units")
