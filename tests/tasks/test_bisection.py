"""The edit that breaks a model is found and named: planted ones of a hundred times the size, and small ones that do harm."""

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from editing.editors.rome import Rome
from editing.methods.editor import Artifacts, EditResult, ParameterUpdate, State
from editing.model.lm import LanguageModel
from editing.requests import EditRequest
from storage.commits import CommitInfo
from storage.sql import query
from storage.store import Store
from tasks.errors import InputError
from tasks.reports.diagnosis import Diagnosis
from tasks.runs.windows import _window, worst_window
from tasks.specs.run import RunSpec
from tasks.workers import bisection
from tasks.workers.bench import WorkerBench
from tasks.workers.bisection import diagnose
from tests.tasks.support import edited, plan, run_all

SETTINGS: dict[str, Any] = {
    "editors": [{"name": "rome", "contexts": 2, "steps": 8}],
    "layers": [0],
    "batch_sizes": [1],
    "facts": {"name": "factworld", "size": 24},
    "score": {"every_edits": 8, "text_tokens": 0},
    "commit_every": 6,
}
Change = Callable[[ParameterUpdate, Artifacts], ParameterUpdate]


def planted(monkeypatch: pytest.MonkeyPatch, changes: dict[str, Change]) -> None:
    """From now on the edits of some facts are changed, in whatever state and batch they are made."""
    original = Rome.edit

    def edit(
        self: Rome,
        lm: LanguageModel,
        batch: Sequence[EditRequest],
        layers: Sequence[int],
        state: State,
        artifacts: Artifacts,
    ) -> EditResult:
        result = original(self, lm, batch, layers, state, artifacts)
        for request in batch:
            if (change := changes.get(request.request_id)) is not None:
                result = result._replace(updates=tuple(change(update, artifacts) for update in result.updates))
        return result

    monkeypatch.setattr(Rome, "edit", edit)


def times(factor: float) -> Change:
    def change(update: ParameterUpdate, artifacts: Artifacts) -> ParameterUpdate:
        assert update.left is not None
        return ParameterUpdate(update.name, left=factor * update.left, right=update.right)

    return change


def along(place: int, norm: float) -> Change:
    """An update of this norm along an eigenvector of the keys' second moment: -1 is the top one, 0 the least."""

    def change(update: ParameterUpdate, artifacts: Artifacts) -> ParameterUpdate:
        assert update.left is not None
        (geometry,) = artifacts.geometry.values()
        key = geometry.spectrum[1][:, place]
        left = torch.randn(update.left.shape[0], 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        return ParameterUpdate(update.name, left=(norm * left / left.norm()).float(), right=key[None].float())

    return change


def fact_at(tmp_path: Path, place: int, **changes: Any) -> str:
    """Return the id of the fact that a run edits at a place."""
    planned = plan(tmp_path, **SETTINGS | changes)
    run = edited(planned)
    return str(WorkerBench(Store(planned.store), "cpu", spread=False).order(run)[place].request_id)


def diagnosed(tmp_path: Path, **options: Any) -> tuple[Store, RunSpec, Diagnosis]:
    store, planned = run_all(tmp_path, **SETTINGS | options)
    run = edited(planned)
    return store, run, diagnose(str(store.files.folder), run.run_id)


def norm_as_first_edit(store: Store, run: RunSpec, fact: str) -> float:
    """Return the norm of the change that an edit makes of the pristine weights, worked out here."""
    bench = WorkerBench(store, "cpu", spread=False)
    lm = bench.pristine(run.model)
    editor, artifacts, _ = bench.inputs(run)
    (request,) = (request for request in bench.order(run) if request.request_id == fact)
    (update,) = editor.edit(lm, [request], run.layers, {}, artifacts).updates
    assert update.left is not None and update.right is not None
    return float((update.left.double() @ update.right.double()).norm())


@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.minutes) for seed in range(2, 20))])
def test_an_edit_of_a_hundred_times_the_size_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    place = random.Random(seed).randrange(24)
    facts = {"name": "factworld", "size": 24, "seed": seed}
    fact = fact_at(tmp_path, place, facts=facts)
    planted(monkeypatch, {fact: times(100.0)})
    store, run, found = diagnosed(tmp_path, facts=facts)
    assert found.culprit == fact and found.round == place
    assert found.n_scored <= 3, "eight rounds lie between two checkpoints"
    by_stage = {step.stage: step for step in found.steps}
    assert by_stage["first"].update_norm == pytest.approx(norm_as_first_edit(store, run, fact), rel=1e-6)
    assert by_stage["first"].health < 0.7, "it breaks the pristine model, too"
    assert by_stage["without"].health > 0.75, "without it the chain does not collapse"
    assert fact in found.text and "breaks that model, too" in found.text


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.minutes) for seed in range(1, 10))])
def test_the_cause_is_named_and_not_the_largest_norm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """A large update where no key points does nothing; a smaller one where all keys point breaks the model."""
    large, small = random.Random(seed).sample(range(24), 2)
    facts = {"name": "factworld", "size": 24, "seed": seed}
    harmless, harmful = (fact_at(tmp_path, place, facts=facts) for place in (large, small))
    planted(monkeypatch, {harmless: along(0, 36.0), harmful: along(-1, 28.0)})
    store, _, found = diagnosed(tmp_path, facts=facts)
    (row,) = query(store, "SELECT arg_max(round, update_norm) AS round FROM rounds").to_pylist()
    assert row["round"] == large and found.culprit == harmful and found.round == small


def test_of_a_batch_the_fact_is_named_that_does_it_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"editors": [{"name": "memit", "contexts": 2, "steps": 8}], "batch_sizes": [4], "layers": [[0, 1]]}
    fact = fact_at(tmp_path, 14, **settings)
    planted_in_memit(monkeypatch, fact)
    _, _, found = diagnosed(tmp_path, **settings)
    assert found.culprit == fact and found.round == 3
    assert [step.fact_id for step in found.steps if step.stage == "alone"][2] == fact
    assert sum(step.stage == "alone" for step in found.steps) == 4


def planted_in_memit(monkeypatch: pytest.MonkeyPatch, fact: str) -> None:
    from editing.editors.memit import Memit

    original = Memit.edit

    def edit(self: Memit, lm: Any, batch: Sequence[EditRequest], *given: Any) -> EditResult:
        result = original(self, lm, batch, *given)
        if all(request.request_id != fact for request in batch):
            return result
        return result._replace(updates=tuple(times(100.0)(update, given[-1]) for update in result.updates))

    monkeypatch.setattr(Memit, "edit", edit)


def test_a_sound_run_has_no_disabling_edit_and_rows_are_kept(tmp_path: Path) -> None:
    store, run, found = diagnosed(tmp_path)
    assert found.culprit is None and "no disabling edit" in found.text
    again = diagnose(str(store.files.folder), run.run_id, start=8, stop=24)
    assert again.steps[0].after_edits == 8 and again.steps[1].after_edits == 24
    rows = query(store, "SELECT name, text FROM measurements WHERE score = 'diagnosis'").to_pylist()
    assert {row["text"] for row in rows if row["name"] == "verdict"} == {found.text, again.text}
    assert query(store, "SELECT count(*) AS n FROM edit_spikes WHERE is_spike").to_pylist() == [{"n": 0}]


def test_later_edits_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fact = fact_at(tmp_path, 10)
    planted(monkeypatch, {fact: times(100.0)})
    store, planned = run_all(tmp_path, **SETTINGS)
    found = diagnose(str(store.files.folder), edited(planned).run_id, again=True)
    again = next(step for step in found.steps if step.stage == "again")
    assert again.health > 0.75 and "edited anew" in found.text
    spikes = query(store, "SELECT round, norm_ratio FROM edit_spikes WHERE is_spike").to_pylist()
    assert [row["round"] for row in spikes] == [10] and spikes[0]["norm_ratio"] > 50
    (row,) = query(store, "SELECT * FROM disabling_edits").to_pylist()
    stages = {step.stage: step for step in found.steps}
    assert row["fact_id"] == fact and row["norm_as_first"] == stages["first"].update_norm and row["times_others"] > 50
    assert (
        row["norm_in_chain"] == stages["alone"].update_norm and row["without_retention"] == stages["without"].retention
    )
    (table,) = query(store, "SELECT * FROM forgetting_summary").to_pylist()
    verdict = {
        "score": "diagnosis",
        "scored_at": 1,
        "edits_so_far": None,
        "item": None,
        "name": "verdict",
        "value": None,
    }
    store.commit(
        found.run_id, "diagnosis-later", {"measurements": [verdict | {"text": "none"}]}, CommitInfo(kind="diagnosis")
    )
    assert query(store, "SELECT * FROM disabling_edits").num_rows == 0, "the last diagnosis holds"
    assert table["n_runs"] == table["n_disabling"] == 1 and table["edits"] == 24 and table["efficacy"] > 0.5


def test_what_cannot_be_bisected_says_why(tmp_path: Path) -> None:
    store, planned = run_all(tmp_path, **SETTINGS | {"score": {"every_edits": 8, "retention": "none"}})
    place, run = str(store.files.folder), edited(planned)
    with pytest.raises(InputError, match=r"no checkpoint scored earlier edits; expected score\.retention: all"):
        diagnose(place, run.run_id)
    with pytest.raises(InputError, match="is no sequential run of edits"):
        diagnose(place, run.baseline_run_id)


def test_an_editor_with_which_any_edit_breaks_the_model_has_no_culprit(tmp_path: Path) -> None:
    """Fine-tuning at a great learning rate: the first edit does it, and so would any other."""
    settings = {"editors": [{"name": "ft", "lr": 0.5, "steps": 10}]}
    store, _, found = diagnosed(tmp_path, **settings)
    assert found.culprit is None and "not one edit does it" in found.text
    assert query(store, "SELECT * FROM disabling_edits").num_rows == 0


def test_without_a_round_whole_tensors_are_as_if_it_had_added_nothing(tmp_path: Path) -> None:
    """FT stores whole tensors, and those of later rounds hold what an earlier one did."""
    store, planned = run_all(tmp_path, **SETTINGS | {"editors": [{"name": "ft", "steps": 3}]})
    run = edited(planned)
    bench = WorkerBench(store, "cpu", spread=False)
    case = bisection._Case(bench, run, bench.order(run), {}, lambda step: None)
    (name,) = bench.inputs(run).editor.parameter_names(bench.at(run, 0), run.layers)
    states = [bench.at(run, rounds).precise(name).double().clone() for rounds in (2, 3, 24)]
    without = bisection._without(case, 2, 24).precise(name).double()
    assert torch.allclose(without, states[2] - (states[1] - states[0]), atol=1e-6)
    assert not torch.equal(without, states[2])


def test_a_window_of_a_few_probes_decides_nothing(tmp_path: Path) -> None:
    store, planned = run_all(tmp_path, **SETTINGS | {"score": {"every_edits": [1, 8, 24], "text_tokens": 0}})
    run = edited(planned)
    windows = {(a, b): _window(store, run, a, b) for a, b in ((0, 1), (1, 8), (8, 24))}
    assert len(windows[0, 1].held) < 30 < len(windows[8, 24].held)
    found = worst_window(store, run)
    assert found[:2] == (8, 24) and found.n_small == sum(len(each.held) < 30 for each in windows.values()) > 0


def test_facts_that_a_guard_kept_out_are_edited_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, planned = run_all(tmp_path, **SETTINGS)
    run, bench = edited(planned), WorkerBench(store, "cpu", spread=False)
    fact = bench.order(run)[5].request_id
    rows = [
        {"score": "guarded", "scored_at": 5, "edits_so_far": 6, "item": fact, "name": "n", "value": 9.0, "text": None}
    ]
    store.commit(run.run_id, "guarded-x", {"measurements": rows}, CommitInfo(kind="segment-x"))
    case = bisection._Case(bench, run, bench.order(run), {}, lambda step: None, *bisection._kept_out(store, run))
    assert case.batch(5) == [] and len(case.batch(4)) == 1
