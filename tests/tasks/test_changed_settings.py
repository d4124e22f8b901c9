"""A store gone on with under other settings, or after something in it was lost: nothing is lost, nothing there twice."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from editing.model.bundled import bundled_folder
from storage.artifacts import artifact_recipes, drop_artifact, find_artifact
from storage.cleaning import withdraw
from storage.commits import CommitRow, newest_recipes
from storage.sql import query
from storage.store import Store
from tasks.data.model_files import resolve_model
from tasks.driver.plan import with_known_layers
from tasks.driver.session import Session
from tasks.errors import LedgerMismatch
from tasks.specs.run import RunSpec
from tasks.units.moments import MOMENTS, SUMS, layer_recipe
from tasks.units.ready import choose_recipes
from tasks.units.score import score_kinds
from tasks.units.targets import TARGETS
from tasks.workers.pool import Pool
from tasks.workers.worker import Worker
from tests.tasks.support import NoWorkers, command, plan, prepare, search_units
from tests.tasks.test_groups import GRID, Killed, kill_after, sample, session, whole
from tests.tasks.test_targets import edited_runs

FT: dict[str, Any] = {"editors": ["ft_c"], "layers": [[1]]}
SMALL: dict[str, Any] = {"score": {"every_edits": 0}, "second_moment": {"n_texts": 64}}
ROME: dict[str, Any] = {"name": "rome", "steps": 2, "contexts": 2}


def rows(store: Store, sql: str) -> list[dict[str, Any]]:
    return query(store.location, sql).to_pylist()


def twice(store: Store, table: str, columns: str) -> list[dict[str, Any]]:
    return rows(store, f"SELECT {columns}, count(*) AS n FROM {table} GROUP BY ALL HAVING n > 1")


@pytest.mark.parametrize("commit_every", [50, 3])
def test_more_facts_are_scored_once_by_the_unedited_model(commit_every: int, tmp_path: Path) -> None:
    for size, every in ((8, 50), (10, commit_every)):
        planned = plan(tmp_path, **FT, facts={"name": "factworld", "size": size}, commit_every=every)
        command(planned)
    store = Store(planned.store)
    assert not twice(store, "runs", "run_id") and not twice(store, "run_summary", "run_id")
    assert not twice(store, "fact_scores", "run_id, purpose, probe_id, scored_at")
    assert rows(store, "SELECT count(DISTINCT fact_id) AS n FROM fact_scores WHERE purpose = 'baseline'") == [{"n": 10}]


def test_a_run_is_compacted_when_it_is_done_and_again_when_it_has_grown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.driver.stages.COMPACT_FROM", 2)
    for size, every in ((8, 50), (10, 3)):
        planned = plan(tmp_path, **FT, facts={"name": "factworld", "size": size}, commit_every=every)
        command(planned)
        store = Store(planned.store)
        for run in with_known_layers(planned, store):
            assert len(store.compacted(run.run_id)) >= 2
            assert store.compacted(run.run_id).keys() == store.committed(run.run_id), run.run_id
    assert rows(store, "SELECT DISTINCT edits FROM run_summary ORDER BY 1") == [{"edits": 0}, {"edits": 10}]


def test_other_scoring_settings_score_what_is_missing(tmp_path: Path) -> None:
    for changes in (
        {"retention": 3, "examples": 4},
        {"retention": 5, "examples": 10},
        {"retention": "all", "examples": 7},
    ):
        score = {"every_edits": 4, "benchmarks": ["sentiment"], **changes}
        planned = plan(tmp_path, **FT, facts={"name": "factworld", "size": 8}, score=score)
        command(planned)
    store = Store(planned.store)
    assert not twice(store, "fact_scores", "run_id, purpose, probe_id, scored_at")
    assert not twice(store, "benchmark_answers", "run_id, benchmark, example_id, scored_at")
    assert rows(store, "SELECT edits, n_scored FROM forgetting_curve") == [
        {"edits": 4, "n_scored": 2},
        {"edits": 8, "n_scored": 6},
    ]
    assert {row["n_examples"] for row in rows(store, "SELECT n_examples FROM benchmark_curve")} == {10}


class Slow(Store):
    """A store whose reader has just read when another command writes."""

    def __init__(self, location: str, meanwhile: RunSpec) -> None:
        super().__init__(location)
        self._meanwhile: list[RunSpec] = [meanwhile]

    def commit_rows(self, *given: Any) -> dict[str, CommitRow]:
        found = super().commit_rows(*given)
        if self._meanwhile:
            choose_recipes(Store(self.location), self._meanwhile.pop())
        return found


@pytest.mark.parametrize("text_tokens", [2, 4])
def test_two_commands_at_once_choose_a_recipe_once_each(text_tokens: int, tmp_path: Path) -> None:
    (run,) = edited_runs(plan(tmp_path, **FT))
    other = run.changed(text_tokens=text_tokens)
    store = Store(tmp_path / "store")
    choose_recipes(Slow(store.location, other), run)
    kinds = [kind for kind in score_kinds() if kind.recipe_of(run) is not None]
    wanted = [tuple(kind.recipe_of(each) for each in (other, run)) for kind in kinds]
    chosen = [row for row in store.commit_rows(run.run_id).values() if row["kind"] == "recipe"]
    assert len(chosen) == sum(len({*recipes}) for recipes in wanted)
    assert (len(chosen) == len(kinds)) == (text_tokens == run.scoring.text_tokens)
    newest = newest_recipes(store.commit_rows(run.run_id))
    assert [newest[kind.kind].recipe for kind in kinds] == [mine for _, mine in wanted]


def test_layers_by_search_and_by_trace_are_two_runs(tmp_path: Path) -> None:
    editors = [ROME | {"layers": "search"}, ROME | {"layers": "trace"}]
    locate = {"search": {"editor": "rome", "edits": 4}, "trace": {"facts": 3, "samples": 2}}
    planned = plan(tmp_path, editors=editors, batch_sizes=[1], locate=locate)
    assert [run.layers_from and run.layers_from.by for run in planned.runs if run.editor == "rome"] == [
        "search",
        "trace",
    ]


def test_a_layer_that_is_given_and_found_is_one_run(tmp_path: Path) -> None:
    editors = [ROME | {"layers": [1]}, ROME | {"layers": "search"}]
    facts = {"name": "factworld", "size": 2, "samples": 3}
    locate = {"search": {"editor": "rome", "edits": 2, "layers": [1]}}
    compute = {"chains_in_step": 2}
    planned = plan(tmp_path, **SMALL, editors=editors, batch_sizes=[1], facts=facts, locate=locate, compute=compute)
    store, worker = Store(planned.store), Worker(planned.store)
    prepare(planned, worker)
    for search in planned.searches:
        for unit in search_units(search, shared=False)[1]:
            worker.do(unit)
    runs = with_known_layers(planned, store)
    assert len({run.run_id for run in runs}) == len(runs)
    command(planned)
    assert rows(store, "SELECT edits FROM run_summary WHERE editor = 'rome'") == [{"edits": 2}] * 3


def test_a_search_chooses_among_its_own_candidates(tmp_path: Path) -> None:
    for layers in ([0, 1], [2, 3]):
        locate = {"search": {"editor": "ft_c", "edits": 3, "layers": layers}}
        planned = plan(tmp_path, **SMALL, editors=["ft_c"], layers="search", batch_sizes=[1], locate=locate)
        worker = Worker(planned.store)
        for search in planned.searches:
            for unit in search_units(search, shared=False)[1]:
                worker.do(unit)
        (run,) = (run for run in with_known_layers(planned, Store(planned.store)) if run.editor != "none")
        assert run.layers[0] in layers


def test_a_companion_with_other_boundaries_goes_alone(tmp_path: Path) -> None:
    def settings(n_samples: int, size: int, commit_every: int) -> dict[str, Any]:
        return sample(n_samples, size) | {"commit_every": commit_every}

    session(tmp_path, 2, settings(2, 2, 2))
    session(tmp_path, 2, settings(1, 4, 2))
    session(tmp_path, 2, settings(2, 6, 6), left_out=(0,))  # one segment from round 2 to 6
    runs = session(tmp_path, 2, settings(2, 8, 2))
    assert whole(Store(str(tmp_path / "store")), runs, 8)


def test_a_segment_starts_where_one_ended(tmp_path: Path) -> None:
    (run,) = session(tmp_path, 1, sample(1, 4) | {"commit_every": 4})
    with pytest.raises(LedgerMismatch, match="no segment ends before round 2"):
        Worker(str(tmp_path / "store")).bench.models.state_before(run, 2)


def test_a_segment_that_was_lost_ends_where_the_next_begins(tmp_path: Path) -> None:
    (run,) = session(tmp_path, 1, sample(1, 8) | {"commit_every": 2, "score": {"every_edits": 4}})
    store = Store(str(tmp_path / "store"))
    withdraw(store, run.run_id, "segment-000002")
    (run,) = session(tmp_path, 1, sample(1, 8) | {"commit_every": 3, "score": {"every_edits": 4}})
    assert whole(store, [run], 8)
    assert not twice(store, "fact_scores", "run_id, purpose, probe_id, scored_at")


def test_a_finished_training_is_not_begun_again_with_other_segments(tmp_path: Path) -> None:
    entry = {"name": "malmen", "steps": 6, "rank": 8, "layers": [[0, 1]]}
    for length in (2, 3, 4):
        planned = plan(tmp_path, editors=[entry], training={"steps_per_segment": length, "validation": 4})
        store, worker = Store(planned.store), Worker(planned.store)
        (job,) = planned.trainings
        assert [unit.last for unit in job.done(store)] == ([2, 4, 6] if length > 2 else [])
        while units := job.next_units(store):
            worker.do(units[0])
    assert not twice(store, "training", "run_id, split, step")
    recipe = job.recipe
    drop_artifact(store, "networks", {**recipe, "step": 4})  # nobody needs it any more
    opened = Session(planned, store, Pool(NoWorkers()))
    opened.reopen_trainings()
    assert job.next_units(store) == []
    drop_artifact(store, "networks", {**recipe, "step": 6})
    opened.reopen_trainings()
    while units := job.next_units(store):
        worker.do(units[0])
    assert not twice(store, "training", "run_id, split, step")
    assert find_artifact(store, "networks", {**recipe, "step": 6}) is not None


@pytest.mark.parametrize("lost", [0, 1])
def test_a_second_moment_made_again_ends_where_it_ended(lost: int, tmp_path: Path) -> None:
    settings = {"n_texts": 2048, "first_texts": 64, "shard_texts": 64, "stop_change": 0.26}
    planned = plan(tmp_path, second_moment=settings)
    store, worker = Store(planned.store), Worker(planned.store)
    (job,) = planned.moments
    while units := job.next_units(store):
        worker.do(units[0])
    sql = "SELECT layer, n_tokens, digest FROM second_moments WHERE digest IS NOT NULL ORDER BY ALL"
    before = rows(store, sql)
    assert len({row["n_tokens"] for row in before}) == 2
    drop_artifact(store, MOMENTS, layer_recipe(job.recipe, lost))
    Session(planned, store, Pool(NoWorkers())).reopen(job.units())
    while units := job.next_units(store):
        worker.do(units[0])
    assert rows(store, sql) == before and not artifact_recipes(store, SUMS)
    for row in before:
        found = find_artifact(store, MOMENTS, layer_recipe(job.recipe, row["layer"]))
        assert found is not None and found.digest == row["digest"]


def test_shards_of_a_killed_merge_are_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planned = plan(tmp_path, second_moment={"n_texts": 128, "shard_texts": 64})
    store, worker = Store(planned.store), Worker(planned.store)
    (job,) = planned.moments
    for unit in job.next_units(store):
        worker.do(unit)

    def killed(*_given: Any) -> None:
        raise Killed

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr("tasks.units.work.moment_artifacts.drop_artifact", killed)
        worker.do(job.next_units(store)[0])
    assert artifact_recipes(store, SUMS)
    worker.do(job.next_units(store)[0])
    assert not artifact_recipes(store, SUMS) and len(artifact_recipes(store, MOMENTS)) == 2


def test_what_is_left_of_an_artifact_does_not_hold_up_a_new_one(tmp_path: Path) -> None:
    planned = plan(tmp_path, second_moment={"n_texts": 64})
    store = Store(planned.store)
    prepare(planned, Worker(planned.store))
    for card in (Path(store.location) / "artifacts" / MOMENTS).glob("*/artifact.json"):
        card.unlink()
    (job,) = planned.moments
    Session(planned, store, Pool(NoWorkers())).reopen(job.units())
    assert Worker(planned.store).do(job.next_units(store)[0]) == "done"


def without_key_sizes(failed: Mapping[tuple[str, str], str]) -> list[tuple[str, str]]:
    """Return the units that were given up, but for those that only measure keys."""
    return [key for key in failed if not key[1].startswith("key-sizes")]


def test_what_one_of_a_group_cannot_do_does_not_stop_the_others(tmp_path: Path) -> None:
    planned = plan(
        tmp_path, **GRID | SMALL | {"facts": {"name": "factworld", "size": 4}, "compute": {"chains_in_step": 2}}
    )
    store = Store(planned.store)
    prepare(planned, Worker(planned.store))
    (first,) = (recipe for recipe in artifact_recipes(store, MOMENTS) if recipe["layer"] == 0)
    found = find_artifact(store, MOMENTS, first)
    assert found is not None
    path = found.path("moment.safetensors")
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    assert len(without_key_sizes(command(planned).failed)) == 1
    assert not rows(store, "SELECT * FROM edits"), "MEMIT lacks layer 0, EMMET went with it"
    assert len(without_key_sizes(command(planned).failed)) == 1
    assert rows(store, "SELECT editor, edits FROM run_summary WHERE edits > 0") == [{"editor": "emmet", "edits": 4}]


def test_shared_targets_that_are_lost_are_found_again_for_a_group_that_begins_anew(tmp_path: Path) -> None:
    facts = {"name": "factworld", "size": 4, "samples": 2}
    planned = plan(tmp_path, **GRID | SMALL | {"facts": facts, "compute": {"chains_in_step": 4}})
    store, worker = Store(planned.store), Worker(planned.store)
    prepare(planned, worker)
    kill_after(worker, 7)
    with pytest.raises(Killed):
        command(planned, edited_runs(planned), worker)
    begun = [store.is_committed(run.run_id, "segment-000000") for run in edited_runs(planned)]
    assert begun == [False, True, True, True]
    for recipe in artifact_recipes(store, TARGETS):
        drop_artifact(store, TARGETS, recipe)
    assert not command(planned).failed
    assert rows(store, "SELECT DISTINCT edits FROM run_summary WHERE editor <> 'none'") == [{"edits": 4}]


def test_a_smaller_experiment_leaves_shared_targets_whole(tmp_path: Path) -> None:
    changes = (
        GRID | SMALL | {"mode": "independent", "layers": [[1]], "editors": [GRID["editors"][0]], "batch_sizes": [1, 2]}
    )
    changes |= {"commit_every": 50}
    planned = plan(tmp_path, **changes | {"facts": {"name": "factworld", "size": 6}})
    store = Store(planned.store)
    prepare(planned, Worker(planned.store))
    assert not command(planned, edited_runs(planned)).failed
    for recipe in artifact_recipes(store, TARGETS):
        drop_artifact(store, TARGETS, recipe)
    smaller = plan(tmp_path, **changes | {"facts": {"name": "factworld", "size": 4}})
    assert not command(smaller, edited_runs(smaller)).failed
    assert not artifact_recipes(store, TARGETS), "all is done, nothing needs them"
    larger = plan(tmp_path, **changes | {"facts": {"name": "factworld", "size": 8}})
    assert not command(larger, edited_runs(larger)).failed
    for recipe in artifact_recipes(store, TARGETS):
        found = find_artifact(store, TARGETS, recipe)
        assert found is not None
        first, last = recipe["positions"]
        assert len(json.loads(found.path("facts.json").read_text())) == last - first
    assert {row["edits"] for row in rows(store, "SELECT edits FROM run_summary")} == {8}


def test_chat_templates_in_files_of_their_own_name_the_model(tmp_path: Path) -> None:
    source = bundled_folder("factworld-tiny")
    assert source is not None
    shutil.copytree(source, tmp_path / "m")
    templates = tmp_path / "m" / "additional_chat_templates"
    templates.mkdir()
    digests = set()
    for text in ("A {{ messages }}", "B {{ messages }}"):
        (templates / "tool.jinja").write_text(text)
        digests.add(resolve_model(str(tmp_path / "m")).digest)
    assert len(digests) == 2
