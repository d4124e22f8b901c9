"""How the time of a summary and of a plan grows: upper limits in seconds, which a cost that outgrows its input would pass."""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from flows.costs import costs
from flows.experiment_file import load_experiment
from flows.forecast import forecast
from flows.several_models import plan_each, read_each
from storage.cleaning import gc as clear
from storage.commits import CommitInfo
from storage.compaction import compact
from storage.store import Store
from tests.bench.limits import Limited
from tests.bench.system import N_PROBES, RUN, summary_seconds, tables_of

MILLIONS = {"summary_4_million": (4, 1.6), "summary_16_million": (16, 6.4)}
"""Fact scores, and seconds at most; ``summary_compacted`` is one million."""
RUNS = {"plan_10_runs": (10, 1.0), "plan_100_runs": (100, 1.0), "plan_1000_runs": (1000, 4.0)}
"""Runs of one experiment, and seconds at most."""
FACTS_OF_A_RUN, SEGMENTS = 10_000, 4


def growth_limits() -> Iterator[tuple[str, Callable[[], Limited]]]:
    """Yield each row's name and how to measure it."""
    for name, (millions, limit) in MILLIONS.items():
        yield name, partial(_summary, name, millions, limit)
    for name, (runs, limit) in RUNS.items():
        yield name, partial(_plan, name, runs, limit)


def _summary(name: str, millions: int, limit: float) -> Limited:
    n_runs = millions * 1_000_000 // (FACTS_OF_A_RUN * N_PROBES)
    with tempfile.TemporaryDirectory(prefix="palimpsest-bench-") as folder:
        _write(Path(folder) / "store", n_runs)
        return Limited(name=name, value=summary_seconds(Path(folder) / "store", n_runs), limit=limit, unit="s")


def _write(root: Path, n_runs: int) -> None:
    """Write a compacted store whose runs are of different names and of the same scores."""
    store, rng = Store(root, create=True), np.random.default_rng(0)
    step = FACTS_OF_A_RUN // SEGMENTS
    parts = [tables_of(range(start, start + step), rng) for start in range(0, FACTS_OF_A_RUN, step)]
    for number in range(n_runs):
        run_id = f"memit-b5-{number:010d}"
        for part, tables in enumerate(parts):
            first, last = part * step // 5, (part + 1) * step // 5
            info = CommitInfo(kind="segment", first_round=first, last_round=last)
            store.commit(run_id, f"segment-{first:06d}", tables | ({} if part else {"runs": [RUN]}), info)
        compact(store, run_id)
    clear(store, grace_s=0)


def _plan(name: str, n_runs: int, limit: float) -> Limited:
    """Time what ``palimpsest plan`` does for a grid of batch sizes × samples × seeds: the median of three."""
    with tempfile.TemporaryDirectory(prefix="palimpsest-bench-") as folder:
        experiment = load_experiment(
            {
                "name": "grid",
                "store": f"{folder}/store",
                "model": "factworld-tiny",
                "facts": {"name": "factworld", "size": 20, "samples": n_runs // 10},
                "editors": ["memit", "emmet"],
                "layers": [[0]],
                "batch_sizes": [1, 2, 4, 5, 10],
            }
        )
        seconds = []
        for _ in range(3):
            began = time.perf_counter()
            inputs = read_each(experiment)
            planned = plan_each(inputs)
            assert sum(not run.is_unedited for run in planned.runs) == n_runs
            forecast(planned)
            costs(planned, inputs[0].requests, "h200")
            seconds.append(time.perf_counter() - began)
        return Limited(name=name, value=statistics.median(seconds), limit=limit, unit="s")
