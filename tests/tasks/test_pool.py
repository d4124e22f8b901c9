"""The pool on a real embedded Ray cluster: lost workers, poison units, and workers that never start."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.exceptions import RayError

from storage.errors import StoreUnavailableError
from tasks.errors import ClusterError
from tasks.specs.placement import Placement
from tasks.workers.placer import cluster
from tasks.workers.pool import Pool
from tests.end_to_end.support import wait_until
from tests.tasks.fakes import Cut, Fake, FakeSegment, FakeUnit, Mortal, Reluctant, Second, Sick


@pytest.fixture(scope="module", autouse=True)
def ray_cluster() -> Iterator[None]:
    with cluster(Placement()):
        yield


def unit(name: str, what: str, **given: Any) -> FakeUnit:
    return FakeUnit(run_id="r", name=name, what=what, given=given)


def is_gone(worker: Any) -> bool:
    try:
        ray.get(worker.ping.remote())
    except RayError:
        return True
    return False


def start_all(pool: Pool, count: int, folder: Path) -> None:
    """Have all workers of a pool start: by units that wait for each other."""
    folder.mkdir()
    assert pool.run([unit(f"meet-{i}", "meet", folder=str(folder), count=count) for i in range(count)]) == {}
    assert pool.counts() == {"busy": 0, "idle": count, "starting": 0}


class Fakes:
    """Starts so many of them."""

    def __init__(
        self,
        count: int,
        *,
        kind: type = Fake,
        resources: dict[str, float] | None = None,
        node_stays: bool = True,
        **given: Any,
    ) -> None:
        self._count, self._kind, self._given, self._node_stays = count, kind, given, node_stays
        self._options = {"num_cpus": 0.5, "max_restarts": 0, "max_task_retries": 0, "resources": resources or {}}
        self.started_workers: list[Any] = []
        self.n_ended = self.n_answered = 0
        self.unfit: list[str | None] = []

    def capacity(self) -> int:
        return self._count

    def preparing(self) -> bool:
        return False

    def problems(self) -> str:
        return "node far: it lacks the model"

    def started(self, worker: Any) -> None:
        self.n_answered += 1

    def start(self) -> Any:
        self.started_workers.append(ray.remote(self._kind).options(**self._options).remote(**self._given))
        return self.started_workers[-1]

    def ended(self, worker: Any, *, unfit: str | None = None) -> bool:
        self.n_ended += 1
        self.unfit.append(unfit)
        return self._node_stays


@pytest.mark.slow
def test_failures_cost_their_own_unit_only() -> None:
    done: list[str] = []
    given_up: list[tuple[str, str]] = []
    pool = Pool(Fakes(2), quarantine=lambda u, failure: given_up.append((u.unit_id, failure.traceback)))
    units = [unit(f"ok-{i}", "fine") for i in range(6)] + [
        unit("dies", "die"),
        unit("raises", "raise"),
        unit("no", "refuse"),
    ]
    failed = pool.run(units, on_done=lambda u, _: done.append(u.unit_id))
    pool.close()
    assert sorted(done) == [f"ok-{i}" for i in range(6)]
    assert [name for name, _ in sorted(given_up)] == ["dies", "no", "raises"]
    assert 'raise ValueError("a poisoned unit")' in dict(given_up)["raises"], "with the line that raised"
    assert "worker lost" in failed["r", "dies"] and "a poisoned unit" in failed["r", "raises"]
    assert failed["r", "no"] == "ClusterError: will never work", "it was not tried again"


@pytest.mark.slow
def test_a_worker_that_dies_while_starting_is_replaced_but_not_for_ever(tmp_path: Path) -> None:
    once, always = tmp_path / "once", tmp_path / "always"
    once.mkdir()
    always.mkdir()
    # Nodes that die under starting workers, one after another, are no fault of the workers.
    pool = Pool(Fakes(1, kind=Reluctant, graves=str(once), deaths=4, node_stays=False))
    assert pool.run([unit("a", "fine")]) == {}
    pool.close()
    pool = Pool(Fakes(1, kind=Reluctant, graves=str(always), deaths=99))
    with pytest.raises(ClusterError, match="3 workers in a row died while starting"):
        pool.run([unit("a", "fine")])


@pytest.mark.slow
def test_a_process_in_which_the_unforeseen_has_happened_is_not_used_again() -> None:
    pool = Pool(Fakes(1, kind=Sick), max_attempts=1)
    failed = pool.run([unit("infects", "infect"), *(unit(f"ok-{i}", "fine") for i in range(3))])
    pool.close()
    assert failed == {("r", "infects"): "RuntimeError: the device has failed"}


@pytest.mark.slow
@pytest.mark.parametrize(("deaths", "done"), [(4, True), (99, False)])
def test_nodes_that_die_are_no_fault_of_their_unit_but_not_for_ever(deaths: int, done: bool, tmp_path: Path) -> None:
    pool = Pool(Fakes(1, kind=Mortal, graves=str(tmp_path), deaths=deaths, node_stays=False))
    failed = pool.run([unit("a", "fine")])
    pool.close()
    assert (failed == {}) is done
    assert len(list(tmp_path.iterdir())) == (deaths if done else 13), "ten nodes, and three attempts"


@pytest.mark.slow
def test_workers_that_do_not_start_do_not_end_a_run_in_which_others_work(tmp_path: Path) -> None:
    """The one that works does so until four have not started, while another unit waits."""
    workers = Fakes(2, kind=Second, folder=str(tmp_path))
    pool = Pool(workers)
    assert pool.run([unit("long", "meet", folder=str(tmp_path), count=6), unit("waits", "fine")]) == {}
    pool.close()
    assert len(workers.started_workers) >= 5 > 1 + pool.max_attempts and workers.n_answered == 1


@pytest.mark.slow
def test_without_a_place_for_a_worker_it_is_waited_for_one_and_said_why_there_is_none() -> None:
    pool = Pool(Fakes(0), start_timeout_s=1)
    with pytest.raises(ClusterError, match=r"within 1 s; .*left out: node far: it lacks the model; expected room"):
        pool.run([unit("a", "fine")])


@pytest.mark.slow
def test_one_worker_of_four_scores_while_chains_go_on(tmp_path: Path) -> None:
    done: list[str] = []
    pool = Pool(Fakes(4))
    start_all(pool, 4, tmp_path / "start")
    chains = [FakeSegment(run_id="r", name=f"step-{i}", what="wait") for i in range(9)]
    scores = [unit(f"score-{i}", "wait") for i in range(3)]
    assert pool.run([*chains, *scores], on_done=lambda u, _: done.append(u.unit_id.partition("-")[0])) == {}
    pool.close()
    assert done.index("score") < 4 and done.count("score") == 3 and done.count("step") == 9


@pytest.mark.slow
def test_a_unit_is_not_handed_to_one_dead_worker_after_another(tmp_path: Path) -> None:
    """As when a node dies whose workers have nothing to do."""
    workers = Fakes(4)
    pool = Pool(workers)
    start_all(pool, 4, tmp_path / "start")
    for worker in workers.started_workers:
        ray.kill(worker)
        assert wait_until(lambda worker=worker: is_gone(worker), seconds=30)
    assert pool.run([unit("a", "fine")]) == {}, "four would have been more than its attempts"
    pool.close()
    assert workers.n_ended == len(workers.started_workers) >= 5


@pytest.mark.slow
def test_units_that_follow_are_done_once() -> None:
    pool, done = Pool(Fakes(1)), []

    def follow(finished: FakeUnit) -> list[FakeUnit]:
        return (
            [unit("second", "fine"), unit("third", "fine")] if finished.unit_id != "third" else [unit("first", "fine")]
        )

    assert pool.run([unit("first", "fine")], follow=follow, on_done=lambda u, _: done.append(u.unit_id)) == {}
    pool.close()
    assert sorted(done) == ["first", "second", "third"]


@pytest.mark.slow
def test_a_worker_that_cannot_be_placed_is_an_error_in_time() -> None:
    """Its node is none the worse for it: others may have taken the room."""
    workers = Fakes(1, resources={"unobtainium": 1})
    began = time.monotonic()
    with pytest.raises(ClusterError, match="no worker started within 3 s; the cluster has"):
        Pool(workers, start_timeout_s=3).run([unit("a", "fine")])
    assert time.monotonic() - began < 30 and workers.unfit == [None]


@pytest.mark.slow
def test_workers_that_wait_for_the_store_are_not_given_up_while_it_is_away_for_all() -> None:
    answers = iter([False, False, True])
    pool = Pool(Fakes(1, resources={"unobtainium": 1}), start_timeout_s=1, store_is_there=lambda: next(answers))
    with pytest.raises(ClusterError, match="no worker started within 1 s"):
        pool.run([unit("a", "fine")])
    assert next(answers, None) is None, "it was asked until it was there"


@pytest.mark.slow
def test_a_store_that_is_away_on_one_node_ends_the_worker_and_on_all_the_run(tmp_path: Path) -> None:
    for name, is_there in (("one", True), ("all", False)):
        (tmp_path / name).mkdir()
        workers = Fakes(1, kind=Cut, folder=str(tmp_path / name))
        pool = Pool(workers, max_attempts=1, store_is_there=lambda is_there=is_there: is_there)
        if is_there:
            assert pool.run([unit("a", "fine")]) == {}, "it cost the unit no attempt"
            assert workers.unfit == ["the store does not answer there: the store is gone"]
        else:
            with pytest.raises(StoreUnavailableError, match="the store is gone"):
                pool.run([unit("a", "fine")])
        pool.close()
