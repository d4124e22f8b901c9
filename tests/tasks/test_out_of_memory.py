"""A unit that takes more memory than its node has is ended by Ray, and costs nothing but itself."""

import time
from collections.abc import Iterator

import psutil
import pytest
import ray

from tasks.workers.pool import Pool
from tests.tasks.fakes import FakeUnit
from tests.tasks.test_pool import Fakes, unit

STEP = 100 * 2**20


class Hungry:
    """A worker whose unit takes as many bytes as it says."""

    def ping(self) -> str:
        return "here"

    def look(self, *, stop: bool) -> float:
        return 0.0

    def do(self, unit: FakeUnit) -> str:
        taken = []
        for _ in range(int(unit.what) // STEP):
            taken.append(b"1" * STEP)
            time.sleep(0.05)  # slower than the watch over memory
        return "done"


@pytest.fixture
def spare() -> Iterator[int]:
    """A cluster whose node may take so many bytes more."""
    memory = psutil.virtual_memory()
    spare = min(3 * 2**30, memory.available // 2)
    watch = {
        "memory_usage_threshold": (memory.total - memory.available + spare) / memory.total,
        "memory_monitor_refresh_ms": 50,
    }
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, _system_config=watch)
    try:
        yield spare
    finally:
        ray.shutdown()


@pytest.mark.slow
def test_a_unit_that_takes_too_much_memory_is_given_up(spare: int) -> None:
    done: list[str] = []
    workers = Fakes(1, kind=Hungry)
    pool = Pool(workers, max_attempts=2)
    failed = pool.run(
        [unit("a", "0"), unit("hog", str(3 * spare)), unit("b", "0")], on_done=lambda unit, _: done.append(unit.unit_id)
    )
    pool.close()
    assert sorted(done) == ["a", "b"] and workers.n_ended >= 2, (
        "it was tried twice, by a worker each time; what runs beside this test may take the memory of one more"
    )
    assert "killed due to the node running low on memory" in failed["r", "hog"]
