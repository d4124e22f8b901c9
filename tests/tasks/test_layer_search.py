"""Layer searches in waves, and by several editors."""

from pathlib import Path
from typing import Any

import pytest

from flows.spec import SpecError
from storage.sql import query
from storage.store import Store
from tasks.driver.plan import with_known_layers
from tasks.driver.session import Session, anything_left
from tasks.errors import TaskError
from tasks.units.search import ChoiceRecord, LayerSearch, SearchPlan
from tasks.units.unit import Bench, Done
from tasks.workers.worker import Worker
from tests.tasks.support import InProcess, all_stages, plan

FEW = {"steps": 10, "contexts": 2}
SEARCH: dict[str, Any] = {
    "facts": {"name": "factworld", "size": 4},
    "editors": [{"name": "memit", **FEW}, {"name": "rome", **FEW, "batch_sizes": [1]}],
    "layers": "search",
    "score": {"every_edits": 0},
    "second_moment": {"n_texts": 100},
}


def searched(tmp_path: Path, **changes: Any) -> tuple[Store, Any]:
    planned = plan(tmp_path, **SEARCH, locate={"search": changes})
    assert not all_stages(planned).failed
    return Store(planned.store), planned


@pytest.mark.slow
def test_layers_that_cannot_win_are_dropped_by_their_intervals(tmp_path: Path) -> None:
    store, planned = searched(tmp_path, editor="rome", edits=32, keep=2)
    (search,) = planned.searches
    n_layers = planned.models[0].n_layers
    assert [(facts.start, facts.stop) for facts in search.waves] == [(0, 8), (8, 16), (16, 32)]
    commits = store.commits(search.run_id)
    choices = [ChoiceRecord.of_json(c.spec) for c in commits.values() if c.kind == "search_choice"]
    assert [choice.n_facts for choice in sorted(choices, key=lambda each: each.n_facts)] == [8, 16]
    left = search.left(store)
    assert 2 <= len(left) < n_layers, "this model's facts stand in its first layers"
    counts = query(store, "SELECT layer, n_edits, score FROM layer_summary ORDER BY layer").to_pylist()
    assert {row["layer"] for row in counts if row["n_edits"] == 32} == set(left) and len(counts) == n_layers
    best = max((row for row in counts if row["n_edits"] == 32), key=lambda row: (row["score"], -row["layer"]))
    (rome,) = (run for run in with_known_layers(planned, store) if run.editor == "rome")
    assert rome.layers == (best["layer"],)
    assert not anything_left(planned, store) and search.next_units(store) == []


@pytest.mark.slow
def test_each_editor_takes_the_layer_of_its_own_search(tmp_path: Path) -> None:
    store, planned = searched(tmp_path, editor=["memit", "rome"], edits=4, layers=[0, 1, 2])
    assert [search.template.editor for search in planned.searches] == ["memit", "rome"]
    ranked = "row_number() OVER (PARTITION BY editor ORDER BY score DESC, layer)"
    sql = f"SELECT editor, layer FROM layer_summary QUALIFY {ranked} = 1"
    best = {row["editor"]: row["layer"] for row in query(store, sql).to_pylist()}
    found = {run.editor: run.layers for run in with_known_layers(planned, store) if run.editor != "none"}
    assert found == {editor: (layer,) for editor, layer in best.items()} and found.keys() == {"memit", "rome"}


def test_a_search_in_waves_looks_at_layers_that_come_later(tmp_path: Path) -> None:
    """What was chosen of fewer layers says nothing of the others; what was edited stays."""
    store, planned = searched(tmp_path, editor="rome", edits=8, keep=1, layers=[2, 3])
    (search,) = planned.searches
    wanted = {"editor": "rome", "edits": 8, "keep": 1, "layers": [0, 1, 2, 3]}
    more = plan(tmp_path, **SEARCH, locate={"search": wanted})
    (longer,) = more.searches
    assert longer.run_id == search.run_id and search.left(store) and search.units_left(store) == []
    assert {unit.layer for unit in longer.units_left(store) if isinstance(unit, LayerSearch)} >= {0, 1}
    assert not all_stages(more).failed
    assert longer.units_left(store) == [] and 0 in longer.left(store), "this model's facts stand in its first layers"


def test_a_search_in_waves_is_killed_and_goes_on(tmp_path: Path) -> None:
    planned = plan(
        tmp_path, **SEARCH, locate={"search": {"editor": "rome", "edits": 8, "layers": [0, 3, 5], "keep": 1}}
    )
    store, worker = Store(planned.store), Worker(planned.store)
    (search,) = planned.searches
    seen: list[tuple[str, str]] = []
    session = Session(planned, store, InProcess(store, worker))
    from tasks.driver.stages import prepare

    prepare(session)
    while units := search.next_units(store):  # as a command that dies after each unit
        seen.append(units[0].key)
        assert worker.do(units[0]) == "done"
    assert len(seen) == len(set(seen))
    last = [unit for unit in search._searches(search.template, search.waves[-1], search.left(store))]
    assert all(isinstance(unit, LayerSearch) and store.is_committed(*unit.key) for unit in last)


def test_what_a_search_may_be(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"locate.search.editor: no editor 'romy' \(did you mean 'rome'\?\)"):
        plan(tmp_path, **SEARCH, locate={"search": {"editor": ["memit", "romy"], "edits": 4}})
    one, waves = (
        plan(tmp_path, **SEARCH, locate={"search": {"edits": 4} | keep}).searches[0] for keep in ({}, {"keep": 2})
    )
    assert isinstance(one, SearchPlan) and one.run_id != waves.run_id, "its rows are of other numbers of facts"


@pytest.mark.slow
def test_a_search_goes_on_where_anothers_unit_was_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = LayerSearch.do

    def fail(self: LayerSearch, bench: Bench) -> Done:
        if self.run.editor == "memit" and self.layer == 0:
            raise TaskError("no memory for it")
        return real(self, bench)

    monkeypatch.setattr(LayerSearch, "do", fail)
    planned = plan(tmp_path, **SEARCH, locate={"search": {"editor": ["memit", "rome"], "edits": 2, "layers": [0, 1]}})
    session = all_stages(planned)
    memit, rome = planned.searches
    assert list(session.failed) == [(memit.run_id, "layer-000")]
    store = Store(planned.store)
    assert store.is_committed(memit.run_id, "layer-001") and rome.next_units(store) == []
