"""The pool on a real embedded Ray cluster: lost workers, poison units, and workers that never start."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from tasks.errors import ClusterError
from tasks.identity import ModelRef, Unit
from tasks.placement import Placement, cluster
from tasks.pool import Pool

MODEL = ModelRef(name="m", folder="/", revision=None, dtype="float32", digest="d", n_layers=1, family="gpt2")


class Fake:
    """A worker whose units say what happens to them."""

    def ping(self) -> str:
        return "here"

    def do(self, unit: Unit) -> str:
        if unit.payload["what"] == "die":
            os._exit(1)
        if unit.payload["what"] == "raise":
            raise ValueError("a poisoned unit")
        if unit.payload["what"] == "refuse":
            raise ClusterError("will never work")
        return "done"


@pytest.fixture(scope="module", autouse=True)
def ray_cluster() -> Iterator[None]:
    with cluster(Placement()):
        yield


def unit(name: str, what: str) -> Unit:
    return Unit(run_id="r", unit_id=name, kind="own", model=MODEL, payload={"what": what})


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
        self.n_started = self.n_ended = 0

    def capacity(self) -> int:
        return self._count

    def start(self) -> Any:
        self.n_started += 1
        return ray.remote(self._kind).options(**self._options).remote(**self._given)

    def ended(self, worker: Any) -> bool:
        self.n_ended += 1
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
    failed = pool.run(units, on_done=lambda u: done.append(u.unit_id))
    pool.close()
    assert sorted(done) == [f"ok-{i}" for i in range(6)]
    assert [name for name, _ in sorted(given_up)] == ["dies", "no", "raises"]
    assert 'raise ValueError("a poisoned unit")' in dict(given_up)["raises"], "with the line that raised"
    assert "worker lost" in failed["r", "dies"] and "a poisoned unit" in failed["r", "raises"]
    assert failed["r", "no"] == "ClusterError: will never work", "it was not tried again"


class Reluctant(Fake):
    """A worker that dies while it starts, unless so many have died before it."""

    def __init__(self, graves: str, deaths: int) -> None:
        dead = len(list(Path(graves).iterdir()))
        if dead < deaths:
            (Path(graves) / str(dead)).touch()
            os._exit(1)


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
def test_units_that_follow_are_done_once() -> None:
    pool, done = Pool(Fakes(1)), []

    def follow(finished: Unit) -> list[Unit]:
        return (
            [unit("second", "fine"), unit("third", "fine")] if finished.unit_id != "third" else [unit("first", "fine")]
        )

    assert pool.run([unit("first", "fine")], follow=follow, on_done=lambda u: done.append(u.unit_id)) == {}
    pool.close()
    assert sorted(done) == ["first", "second", "third"]


@pytest.mark.slow
def test_a_worker_that_cannot_be_placed_is_an_error_in_time() -> None:
    pool = Pool(Fakes(1, resources={"unobtainium": 1}), start_timeout_s=3)
    began = time.monotonic()
    with pytest.raises(ClusterError, match="no worker started within 3 s; the cluster has"):
        pool.run([unit("a", "fine")])
    assert time.monotonic() - began < 30
