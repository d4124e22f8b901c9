"""Chains, replays and scores in one process; what a segment boundary, another worker or another order must not change."""

import json
import random
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from editing.factworld.world import World
from editing.methods.editor import Artifacts, make_editor
from editing.model.lm import LanguageModel
from editing.model.loading import load
from editing.model.patches import PatchChange
from storage.artifacts import put_artifact
from storage.errors import DamagedFileError, StoreVersionError
from storage.sql import query
from storage.store import Store
from tasks.data.orders import seeded_order
from tasks.driver.session import session
from tasks.errors import InputError, LedgerMismatch
from tasks.runs.chain import segments
from tasks.runs.ledger import changes_of, replay
from tasks.runs.rows import last_logits, run_row
from tasks.units.ready import ready_units, units_left
from tasks.units.segment import Segment
from tasks.workers.checkout import checkout
from tasks.workers.worker import Worker
from tests.end_to_end.support import contents
from tests.tasks.support import edited, finish, plan, prepare, run_all


def without_units(found: dict[str, list[str]]) -> dict[str, list[Any]]:
    """Drop what names the unit, for runs whose segments have other lengths."""
    keep = ("ledger", "edits", "edit_updates", "rounds", "fact_scores", "benchmark_answers")
    return {
        table: sorted(json.dumps({k: v for k, v in json.loads(row).items() if k != "unit_id"}) for row in found[table])
        for table in keep
    }


def test_segment_length_and_the_number_of_workers_change_nothing(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one, _ = run_all(tmp_path / "a")
    planned = plan(tmp_path / "b", commit_every=6)
    store, workers, rng = Store(planned.store), [Worker(planned.store) for _ in range(2)], random.Random(3)
    prepare(planned, workers[0])
    for run in planned.runs:
        while units := ready_units(store, run):
            rng.choice(workers).do(rng.choice(units))  # in any order that the store allows
    found, expected = without_units(contents(store.location)), without_units(contents(one.location))
    for table, rows in expected.items():
        if table == "ledger":
            continue  # the editor's state is written once per segment
        baseline = [row for row in rows if '"baseline"' not in row]
        assert [row for row in found[table] if '"baseline"' not in row] == baseline, table


def test_a_unit_done_twice_is_skipped(tmp_path: Path) -> None:
    store, planned = run_all(tmp_path)
    before = contents(store.location)
    assert Worker(planned.store).do(Segment.at(edited(planned), 0)) == "skipped"
    assert contents(store.location) == before


def test_every_planned_unit_is_committed_and_no_other(tmp_path: Path) -> None:
    fresh = plan(tmp_path)
    wanted = {run.run_id: {unit.unit_id for unit in units_left(Store(fresh.store), run)} for run in fresh.runs}
    store, planned = run_all(tmp_path)
    for run in planned.runs:
        assert units_left(store, run) == [], "nothing is left"
        found = {unit_id for unit_id, commit in store.commits(run.run_id).items() if commit.kind != "recipe"}
        assert found == wanted[run.run_id]


def test_what_is_left_of_a_run_that_is_cut_otherwise_now(tmp_path: Path) -> None:
    """Committed segments stay as they are; a finished run lacks nothing, however it would be cut today."""
    store, planned = run_all(tmp_path)
    for run in planned.runs:
        assert units_left(store, run.changed(commit_every=2)) == []
        assert units_left(store, run.changed(commit_every=100)) == []


def test_checkpoints_fall_on_the_first_round_boundary_at_or_after(tmp_path: Path) -> None:
    run = edited(plan(tmp_path))
    run = run.changed(batch_size=5, every_edits=6, facts=replace(run.facts, size=23))
    assert run.n_rounds == 4 and run.checkpoints == (2, 3, 4)


def test_the_ledger_rebuilds_every_round(tmp_path: Path) -> None:
    store, planned = run_all(tmp_path)
    run, worker = edited(planned), Worker(planned.store)
    loaded, names = worker.bench.models.at(run, run.n_rounds)
    final = loaded.lm.snapshot(names)
    worker.bench.models.at(run, 1)
    first = loaded.lm.snapshot(names)
    worker.bench.models.at(run, run.n_rounds)
    assert all(torch.equal(loaded.lm.parameter(name), final[name]) for name in names)
    assert not any(torch.equal(first[name], final[name]) for name in names)
    loaded.lm.restore(loaded.pristine)
    loaded.lm.weight(0)[0, 0] += 1e-3  # not the model that the run began with
    with pytest.raises(LedgerMismatch, match="after round 1 the replayed weights have digest"):
        replay(store, loaded.lm, run.run_id, 0, run.n_rounds, names)


def test_a_contradictory_batch_is_recorded_and_left_out_at_ridge_0(tmp_path: Path) -> None:
    """Two facts about one subject with different targets in one batch: the keys are equal."""
    facts = contradictory(tmp_path)
    store, planned = run_all(
        tmp_path,
        facts=facts,
        editors=[{"name": "emmet", "steps": 6, "contexts": 2}],
        layers=[0],
        mode="independent",
        score={"every_edits": 0},
        second_moment={"path": str(tmp_path / "texts.txt"), "n_texts": 300},
    )
    (row,) = query(store.location, "SELECT DISTINCT outcome, message, update_norm FROM rounds").to_pylist()
    assert row["outcome"] == "unsolved" and row["update_norm"] == 0
    assert "have the same key and different targets" in row["message"] and "ridge > 0" in row["message"]
    assert query(store.location, "SELECT count(*) AS n FROM fact_scores WHERE purpose = 'own'").to_pylist()[0]["n"] > 0
    assert segments(store, edited(planned).run_id)[-1].last_round == 1


def test_a_contradictory_batch_at_a_ridge_stores_its_shortfall_and_a_warning(tmp_path: Path) -> None:
    store, _ = run_all(
        tmp_path,
        facts=contradictory(tmp_path),
        editors=[{"name": "memit", "steps": 6, "contexts": 2, "preservation_weight": 10.0}],
        layers=[0],
        mode="independent",
        score={"every_edits": 0},
        second_moment={"path": str(tmp_path / "texts.txt"), "n_texts": 300},
    )
    (row,) = query(store.location, "SELECT outcome, message, shortfall FROM rounds").to_pylist()
    assert row["outcome"] == "edited" and row["shortfall"] > 0.1
    assert "neither is met exactly" in row["message"]


def contradictory(tmp_path: Path) -> dict[str, Any]:
    from tests.editing.tiny import texts

    (tmp_path / "texts.txt").write_text("\n".join(texts(300)))
    records = [
        {
            "case_id": number,
            "requested_rewrite": {
                "prompt": "{} works as a",
                "subject": "Daivon Trouskend",
                "target_new": {"str": target},
                "target_true": {"str": "baker"},
            },
        }
        for number, target in enumerate(("doctor", "pilot"))
    ]
    path = tmp_path / "facts.json"
    path.write_text(json.dumps(records))
    return {"name": "counterfact", "path": str(path), "size": 2}


def test_a_singular_second_moment_stops_before_any_edit(tmp_path: Path) -> None:
    planned = plan(tmp_path, second_moment={"n_texts": 1, "max_tokens": 5})
    worker = Worker(planned.store)
    prepare(planned, worker)
    with pytest.raises(
        Exception, match=r"the second moment of layer 0 is singular: rank \d+ of 160.*second_moment\.jitter"
    ):
        worker.do(Segment.at(edited(planned), 0))
    assert segments(Store(planned.store), edited(planned).run_id) == []


def test_an_independent_run_starts_every_round_from_the_unedited_model(tmp_path: Path) -> None:
    (tmp_path / "i").mkdir()
    (tmp_path / "s").mkdir()
    store, _ = run_all(tmp_path / "i", mode="independent")
    sequential, _ = run_all(tmp_path / "s")
    sql = "SELECT round, parameter, update_norm, drift_per_value FROM rounds ORDER BY ALL"
    independent = query(store.location, sql).to_pylist()
    for row in independent:  # drift is this round's own update and nothing else
        size = 64 * 160
        assert row["update_norm"] == pytest.approx(row["drift_per_value"] * size, rel=1e-9)
    assert independent != query(sequential.location, sql).to_pylist()


def test_remembered_keys_survive_a_resume(tmp_path: Path) -> None:
    editors = [{"name": "memit", "steps": 6, "contexts": 2, "remember": True}]
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one, _ = run_all(tmp_path / "a", editors=editors, layers=[0])
    resumed = plan(tmp_path / "b", editors=editors, layers=[0])
    store, first = Store(resumed.store), Worker(resumed.store)
    prepare(resumed, first)
    first.do(Segment.at(edited(resumed), 0))
    for run in resumed.runs:
        finish(store, Worker(resumed.store), run)  # another process would start like this
    assert contents(store.location)["ledger"] == contents(one.location)["ledger"]
    assert query(one.location, "SELECT count(*) AS n FROM ledger WHERE kind = 'state'").to_pylist() == [{"n": 3}]


def test_checkout_of_a_dense_editor_and_its_refusals(tmp_path: Path) -> None:
    store, planned = run_all(tmp_path, editors=["ft_c"], layers=[0])
    run_id = edited(planned).run_id
    assert "agree with those recorded" in checkout(store.location, run_id, after=8, out=tmp_path / "m")
    with pytest.raises(InputError, match="the nearest state is --after 8"):
        checkout(store.location, run_id, after=7, out=tmp_path / "n")
    with pytest.raises(InputError, match="is not empty"):
        checkout(store.location, run_id, after=8, out=tmp_path / "m")


def test_checkout_of_a_run_from_another_kind_of_device_compares_logits_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two kinds of device round differently, so digests would refuse what is right; wrong logits are still refused."""
    store, planned = run_all(tmp_path, editors=["ft_c"], layers=[0])
    run_id = edited(planned).run_id
    monkeypatch.setattr("tasks.runs.rows.run_row", lambda *args: {**run_row(*args), "device_kind": "elsewhere"})
    (tmp_path / "there").mkdir()
    there, _ = run_all(tmp_path / "there", editors=["ft_c"], layers=[0])
    monkeypatch.setattr("tasks.runs.ledger.digest_of_parameters", lambda *args: "of another device")
    with pytest.raises(LedgerMismatch, match="kind of device"):
        checkout(store.location, run_id, after=8, out=tmp_path / "m")
    said = checkout(there.location, run_id, after=8, out=tmp_path / "n")
    assert "made on elsewhere and rebuilt on cpu" in said and "logits agree" in said
    monkeypatch.setattr("tasks.workers.checkout.last_logits", lambda lm, prompt: _shifted(*last_logits(lm, prompt)))
    with pytest.raises(LedgerMismatch, match="differ by"):
        checkout(there.location, run_id, after=8, out=tmp_path / "o")


def _shifted(ids: list[int], logits: list[float]) -> tuple[list[int], list[float]]:
    return ids, [1.01 * value for value in logits]


def test_a_longer_run_continues_the_shorter_one(tmp_path: Path) -> None:
    """Number of edits and benchmarks are not part of a run: the first rounds are the same rows, later ones are added."""
    store, _ = run_all(tmp_path, facts={"name": "factworld", "size": 8}, score={"every_edits": 4})
    first = contents(store.location)
    scored = {"every_edits": 4, "benchmarks": ["sentiment"], "examples": 4}
    run_all(tmp_path, facts={"name": "factworld", "size": 16}, score=scored)
    longer = contents(store.location)
    assert set(first["ledger"]) < set(longer["ledger"]) and set(first["fact_scores"]) < set(longer["fact_scores"])
    assert first["runs"] == longer["runs"] and not first["benchmark_answers"] and longer["benchmark_answers"]


def test_independent_rounds_of_an_editor_with_state_do_not_know_each_other(tmp_path: Path) -> None:
    entry = {"name": "ultraedit", "lr": 0.01}
    changes = {"editors": [entry], "mode": "independent", "score": {"every_edits": 0}}
    store, planned = run_all(tmp_path, **changes)
    run = edited(planned)
    rows = [row for c in store.commits(run.run_id).values() for row in store.rows(c, "ledger") if row["round"] == 1]
    (update,) = [change for change in changes_of(rows)[1] if not isinstance(change, PatchChange)][:1]
    lm = load("factworld-tiny")
    requests = World(n_known=300).requests()
    batch = [requests[i] for i in seeded_order(requests, sample=0, seed=0, distinct=False).positions[2:4]]
    editor = make_editor("ultraedit", run.hparams)
    alone = editor.edit(lm, batch, run.layers, {}, Artifacts()).updates[0]
    assert update.value is not None and alone.value is not None
    assert torch.allclose(update.value, alone.value, atol=1e-6)


def test_a_run_does_not_go_on_with_other_inputs(tmp_path: Path) -> None:
    planned = plan(tmp_path)
    store, worker, run = Store(planned.store), Worker(planned.store), edited(planned)
    prepare(planned, worker)
    worker.do(ready_units(store, run)[0])
    card = next((Path(store.location) / "artifacts" / "contexts").glob("*/artifact.json"))
    shutil.rmtree(card.parent)
    put_artifact(store, "contexts", run.trajectory.contexts or {}, {"contexts.json": b'["", "Another text. "]'})
    segment = next(unit for unit in ready_units(store, run) if unit.kind == "segment")
    with pytest.raises(LedgerMismatch, match="its context_texts are not those that it began with"):
        Worker(planned.store).do(segment)


def test_a_training_goes_on_where_it_stands_when_its_segments_change_length(tmp_path: Path) -> None:
    entry = {"name": "malmen", "steps": 6, "rank": 8, "layers": [[0, 1]]}
    changes = {"editors": [entry], "training": {"steps_per_segment": 4, "validation": 4}}
    (job,) = plan(tmp_path, **changes).trainings
    planned = plan(tmp_path, **changes | {"training": {"steps_per_segment": 3, "validation": 4}})
    worker, store = Worker(planned.store), Store(planned.store)
    (first,) = job.next_units(store)
    assert worker.do(first) == "done"
    (other,) = planned.trainings
    (after,) = other.next_units(store)
    assert (after.first, after.last) == (4, 6)
    assert worker.do(after) == "done" and other.next_units(store) == []


def test_a_damaged_store_is_refused_before_any_work(tmp_path: Path) -> None:
    store, planned = run_all(tmp_path)
    commit = store.read_commit(edited(planned).run_id, "segment-000000")
    assert commit is not None
    damaged = Path(store.location) / commit.files[0]
    damaged.write_bytes(damaged.read_bytes()[:-20])
    before = sorted(Path(store.location).rglob("*"))
    with pytest.raises(DamagedFileError, match=damaged.name), session(planned):
        pytest.fail("the session must not begin")
    assert sorted(Path(store.location).rglob("*")) == before
    (Path(store.location) / "store.json").write_text('{"schema_version": 999}')
    with pytest.raises(StoreVersionError, match="schema version 999"), session(planned):
        pytest.fail("the session must not begin")


@pytest.mark.slow
def test_too_many_gpus_are_refused_with_what_the_cluster_has(tmp_path: Path) -> None:
    planned = plan(tmp_path, compute={"gpus_per_model": 8})
    with (
        pytest.raises(
            InputError, match=r"8 GPUs \(compute.gpus_per_model\).*no node has room for one: .* CPUs, 0 GPUs"
        ),
        session(planned),
    ):
        pytest.fail("the session must not begin")


def test_micro_batches_are_chosen_from_free_memory_once_and_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = plan(tmp_path)
    store, run = Store(planned.store), edited(planned)
    assert run.execution.compute.tokens_per_forward is None
    first, second = Worker(planned.store), Worker(planned.store)
    prepare(planned, first)
    monkeypatch.setattr("tasks.workers.loaded_models.tokens_that_fit", lambda _lm: 256)
    first.do(ready_units(store, run)[0])
    monkeypatch.setattr("tasks.workers.loaded_models.tokens_that_fit", lambda _lm: 512)  # another machine
    finish(store, second, run)
    (row,) = (row for row in query(store.location, "SELECT * FROM runs").to_pylist() if row["run_id"] == run.run_id)
    assert row["tokens_per_forward"] == 256
    (loaded,) = second.bench.models._loaded.values()
    assert loaded.lm.tokens_per_forward == 256


def test_a_segment_whose_passes_were_halved_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first forward pass meets torch's own error: it asks for more than any machine has."""
    planned = plan(tmp_path)
    store, run, worker = Store(planned.store), edited(planned), Worker(planned.store)
    prepare(planned, worker)
    forward = LanguageModel.forward_seeing
    calls = []

    def once(self: LanguageModel, *args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        return torch.empty(10**15) if len(calls) == 1 else forward(self, *args, **kwargs)

    monkeypatch.setattr(LanguageModel, "forward_seeing", once)
    worker.do(ready_units(store, run)[0])
    commit = store.read_commit(run.run_id, "segment-000000")
    assert commit is not None and commit.spec == {"tokens_per_forward": 1024}
