"""Every kind of unit keeps what the class of all units promises."""

import json
import pickle
from collections import defaultdict
from pathlib import Path
from typing import Any, ClassVar

import pytest

from storage.errors import DamagedFileError
from storage.store import Store
from tasks.driver.plan import with_known_layers
from tasks.units.fact_scores import RetentionRecord
from tasks.units.ready import ready_units, units_left
from tasks.units.score import settings_types
from tasks.units.unit import Bench, Done, Record, Unit, kinds
from tasks.workers.worker import Worker
from tests.tasks.support import InProcess, Session, all_stages, asked_plan

EVERY_KIND: dict[str, Any] = {
    "facts": {"name": "factworld", "size": 4},
    "editors": [
        {"name": "memit", "layers": [[1]], "batch_sizes": [2], "steps": 4, "contexts": 2},
        {"name": "emmet", "layers": [[1]], "batch_sizes": [2], "steps": 4, "contexts": 2},
        {"name": "rome", "layers": "search", "batch_sizes": [1], "steps": 4, "contexts": 2},
        {"name": "malmen", "layers": [[0, 1]], "batch_sizes": [2], "steps": 4, "rank": 4},
    ],
    "training": {"facts": 40, "validation": 8, "steps_per_segment": 2},
    "second_moment": {"n_texts": 100, "shard_texts": 64},
    "locate": {"search": {"edits": 4, "layers": [0, 1], "keep": 1}, "trace": {"facts": 2, "samples": 2, "window": 2}},
    "compute": {"chains_in_step": 2},
    "commit_every": 2,
}


class Listening(Worker):
    """A worker that keeps what its units have given."""

    def __init__(self, root: str) -> None:
        super().__init__(root)
        self.done: list[tuple[Unit, Done]] = []

    def _commit(self, unit: Unit, run_id: str, done: Done, *rest: Any) -> bool:
        self.done.append((unit, done))
        return super()._commit(unit, run_id, done, *rest)


def real_kinds() -> dict[str, type[Unit]]:
    return {name: kind for name, kind in kinds().items() if kind.__module__.startswith("tasks.")}


def test_every_kind_of_unit_in_one_experiment(tmp_path: Path) -> None:
    score = {
        "every_edits": 2,
        "benchmarks": ["sentiment"],
        "examples": 4,
        "generation": {"prompts": 2, "tokens": 8},
        "perplexity": {"texts": "self", "n_texts": 4, "max_tokens": 16},
        **{kind: {} for kind in settings_types()},
    }
    facts = {"name": "factworld", "size": 4, "known": "first_token"}
    store = Store(tmp_path / "store", create=True)
    worker = Listening(store.location)
    planned = asked_plan(tmp_path, worker, **EVERY_KIND | {"facts": facts}, score=score)
    session = all_stages(planned, Session(planned, store, InProcess(store, worker)))
    assert not session.failed
    by_kind = defaultdict(list)
    for unit, done in worker.done:
        by_kind[unit.kind].append((unit, done))
    assert by_kind.keys() == real_kinds().keys(), "an experiment with every kind of unit"
    assert set(map(type, (unit for unit, _ in worker.done))) == set(real_kinds().values())
    for unit, done in worker.done:
        assert pickle.loads(pickle.dumps(unit)).key == unit.key and pickle.loads(pickle.dumps(unit)) == unit
        assert unit.cost > 0 and unit.threads >= 1 and unit.run_id == unit.run_ids[0]
        assert not unit.is_lost(store)
        commit = store.read_commit(*unit.key)
        assert commit is not None and commit.kind == unit.kind and commit.recipe == unit.recipe
        assert (commit.first_round, commit.last_round) == unit.rounds_held
        if done.record is not None:
            assert type(done.record).of_json(json.loads(json.dumps(commit.spec))) == done.record
        else:
            assert commit.spec == {}
    names = [unit.key for unit, _ in worker.done if not unit.edits]
    assert len(names) == len(set(names)), "nothing is done twice"
    for run in with_known_layers(planned, store):
        assert ready_units(store, run) == [] and units_left(store, run) == []
    for job in (*planned.moments, *planned.trainings):
        assert job.next_units(store) == []


def test_a_second_class_of_one_kind_is_refused() -> None:
    with pytest.raises(TypeError, match=r"Another and Own are both of kind 'own'"):
        type("Another", (Unit,), {"kind": "own", "cost_per_item": 1.0})


def test_a_kind_says_what_it_costs() -> None:
    with pytest.raises(TypeError, match="Free has no cost_per_item"):
        type("Free", (Unit,), {"kind": "free"})
    assert "free" not in kinds()


def test_a_kind_that_says_too_little_cannot_be_made() -> None:
    class Half(Unit):
        cost_per_item: ClassVar[float] = 1.0

        def do(self, bench: Bench) -> Done:
            return Done({})

    with pytest.raises(TypeError, match=r"abstract methods?.*n_items.*unit_id"):
        Half()  # type: ignore[abstract]


def test_records_leave_out_defaults_and_need_the_rest() -> None:
    record = RetentionRecord(rounds=2, positions=(0, 1))
    assert record.to_json() == {"rounds": 2, "positions": [0, 1]}
    assert RetentionRecord.of_json({**record.to_json(), "of a later version": 1}) == record
    with pytest.raises(DamagedFileError, match=r"expected a RetentionRecord with \['rounds', 'positions'\].*withdraw"):
        RetentionRecord.of_json({"rounds": 2})
    assert issubclass(RetentionRecord, Record)
