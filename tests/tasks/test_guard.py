"""A guard keeps out what is predicted to break the model, by earlier rounds only, and says what it kept out."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from editing.editors.memit import Memit
from editing.editors.rome import Rome
from editing.hparams import editor_names
from editing.methods.editor import EditResult
from editing.requests import EditRequest
from flows.spec_values import SpecError
from storage.sql import query
from storage.store import Store
from tasks.specs.editor_card import predicts
from tests.flows.support import refusal, write
from tests.tasks.support import edited, plan, run_all
from tests.tasks.test_bisection import SETTINGS, fact_at, times

SPIKE = 14
"""The planted edit's place."""


def guarded(on_spike: str, **settings: Any) -> dict[str, Any]:
    (editor,) = settings.pop("editors", SETTINGS["editors"])
    guard = {"on_spike": on_spike, "times": 20.0, "after": 4, **settings.pop("guard", {})}
    return SETTINGS | {"editors": [{**editor, "guard": guard}]} | settings


def planted(monkeypatch: pytest.MonkeyPatch, method: type[Any], fact: str) -> None:
    """The update of any batch with this fact is a hundred times too large, and is predicted to be."""
    original = method.edit

    def edit(self: Any, lm: Any, batch: Sequence[EditRequest], *given: Any) -> EditResult:
        result: EditResult = original(self, lm, batch, *given)
        if all(request.request_id != fact for request in batch):
            return result
        reports = [
            replace(
                each, predicted_norm=100 * each.predicted_norm, predicted_disturbance=1e4 * each.predicted_disturbance
            )
            if each.request_id == fact
            else each
            for each in result.edit_updates
        ]
        updates = tuple(times(100.0)(update, given[-1]) for update in result.updates)
        return result._replace(updates=updates, edit_updates=tuple(reports))

    monkeypatch.setattr(method, "edit", edit)


def summary(store: Store) -> dict[str, Any]:
    (row,) = query(store, "SELECT * FROM run_summary WHERE editor <> 'none'").to_pylist()
    return dict(row)


def test_a_planted_edit_is_left_out_and_the_chain_is_sound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fact = fact_at(tmp_path, SPIKE)
    planted(monkeypatch, Rome, fact)
    broken, _ = run_all(tmp_path / "broken", **SETTINGS)
    store, _ = run_all(tmp_path / "guarded", **guarded("skip"))
    sound, fallen = summary(store), summary(broken)
    assert sound["final_neighborhood"] > 0.9 and sound["final_neighborhood"] > fallen["final_neighborhood"] + 0.1
    assert sound["final_score"] > fallen["final_score"] + 0.05, (sound["final_score"], fallen["final_score"])
    (row,) = query(store, "SELECT fact_id, round, times_median FROM guarded_edits").to_pylist()
    assert row["fact_id"] == fact and row["round"] == SPIKE and row["times_median"] > 1000
    (outcome,) = query(store, "SELECT outcome, message, update_norm FROM rounds WHERE outcome <> 'edited'").to_pylist()
    assert outcome["outcome"] == "guarded" and fact in outcome["message"] and outcome["update_norm"] == 0


def test_skipping_as_many_at_random_does_not_help(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same number of other edits left out: the planted one breaks the model all the same."""
    fact = fact_at(tmp_path, SPIKE)
    other = fact_at(tmp_path, 3)
    planted(monkeypatch, Rome, fact)
    monkeypatch.setattr("tasks.runs.guard.Guard.suspects", lambda self, result: {
        each.request_id: 1.0 for each in result.edit_updates if each.request_id == other})  # fmt: skip
    store, _ = run_all(tmp_path / "random", **guarded("skip"))
    assert query(store, "SELECT fact_id FROM guarded_edits").to_pylist() == [{"fact_id": other}]
    assert summary(store)["final_neighborhood"] < 0.8


def test_stop_leaves_out_all_later_rounds_also_after_a_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planted(monkeypatch, Rome, fact_at(tmp_path, SPIKE))
    store, _ = run_all(tmp_path / "stop", **guarded("stop", commit_every=4))
    outcomes = query(store, "SELECT outcome FROM rounds ORDER BY round").to_pylist()
    assert [row["outcome"] for row in outcomes] == ["edited"] * SPIKE + ["guarded"] * (24 - SPIKE)


def test_of_a_batch_the_suspect_is_left_out_and_the_rest_solved_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"editors": [{"name": "memit", "contexts": 2, "steps": 8}], "batch_sizes": [4], "layers": [[0, 1]]}
    fact = fact_at(tmp_path, SPIKE, **settings)
    planted(monkeypatch, Memit, fact)
    store, _ = run_all(tmp_path / "guarded", **guarded("skip", **settings))
    rows = query(store, "SELECT fact_id FROM edit_updates WHERE round = 3").to_pylist()
    assert len({row["fact_id"] for row in rows}) == 3 and fact not in {row["fact_id"] for row in rows}
    (row,) = query(
        store, "SELECT max(update_norm) AS norm, any_value(outcome) AS outcome FROM rounds WHERE round = 3"
    ).to_pylist()
    assert row["outcome"] == "guarded" and 0 < row["norm"] < 100


def test_segments_of_any_length_decide_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that is resumed knows of earlier rounds what one that was not knows."""
    planted(monkeypatch, Rome, fact_at(tmp_path, SPIKE))
    rows = []
    for length in (2, 24):
        store, _ = run_all(tmp_path / str(length), **guarded("skip", commit_every=length, guard={"times": 2.0}))
        rows.append(query(store, "SELECT round, fact_id, times_median FROM guarded_edits ORDER BY ALL").to_pylist())
    assert rows[0] == rows[1] and len(rows[0]) >= 1


def test_a_guard_is_part_of_what_a_run_is(tmp_path: Path) -> None:
    plain, skip, stop = (
        edited(plan(tmp_path / name, **settings)).run_id
        for name, settings in (("a", SETTINGS), ("b", guarded("skip")), ("c", guarded("stop")))
    )
    assert len({plain, skip, stop}) == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"editors": [{"name": "ft_c", "guard": {"on_spike": "skip"}}]},
            "editors.0.guard: ft_c predicts nothing of an edit",
        ),
        (
            {"editors": [{"name": "memit", "guard": {"on_spike": "skip"}}], "mode": "independent"},
            "no batch has earlier ones",
        ),
    ],
)
def test_guards_that_have_nothing_to_go_by_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    assert message in refusal(write(tmp_path, **changes))


def test_unknown_rules_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"editors\.0\.guard\.on_spike"):
        plan(tmp_path, **guarded("wait"))


def test_editors_with_a_closed_form_predict() -> None:
    assert {name for name in editor_names() if predicts(name)} == {
        "alphaedit",
        "emmet",
        "memit",
        "random_direction",
        "rome",
    }
