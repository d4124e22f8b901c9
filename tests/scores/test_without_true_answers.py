"""Facts of which nobody says what was true before: scored by their own answers alone."""

from dataclasses import replace
from pathlib import Path

import pytest

from editing.factworld.world import World
from editing.measure.scores import probes_of, score_probes
from editing.model.loading import load
from editing.requests import EditRequest
from storage.commits import CommitInfo
from storage.sql import query
from storage.store import Store
from tests.storage.test_views import run_row, score


def bare(request: EditRequest) -> EditRequest:
    return EditRequest(
        request_id=request.request_id,
        template=request.template,
        subject=request.subject,
        target_new=request.target_new,
        paraphrase_prompts=request.paraphrase_prompts,
    )


def turned(request: EditRequest) -> EditRequest:
    """Ask for what the model knows."""
    return replace(request, target_new=request.target_true, target_true=request.target_new)


def test_the_new_answer_scores_the_same_and_the_true_one_not_at_all() -> None:
    lm = load("factworld-tiny")
    requests = World(n_known=300).requests()[:4]
    swapped = [turned(request) if i % 2 else request for i, request in enumerate(requests)]
    whole = score_probes(lm, [probe for r in swapped for probe in probes_of(r, ["rewrite"])])
    alone = score_probes(lm, [probe for r in map(bare, swapped) for probe in probes_of(r, ["rewrite"])])
    for one, other in zip(whole, alone, strict=True):
        assert other.new.nll_sum == pytest.approx(one.new.nll_sum, abs=1e-5) and other.true is None and not other.is_nan
    assert [each.success for each in alone] == [each.new.correct for each in whole] == [False, True, False, True]


def test_views_take_the_argmax_in_place_of_a_comparison(tmp_path: Path) -> None:
    store = Store(tmp_path / "store", create=True)
    rows = [
        score(i, i, i, purpose="own", good=good, kind=kind) | {"nll_true": None, "n_true": 0, "n_correct_true": None}
        for i, good in enumerate([True, True, True, False])
        for kind in ("rewrite", "paraphrase")
    ]
    edits = [{"round": i, "position": i, "fact_id": f"f{i}"} for i in range(4)]
    tables = {"runs": [run_row()], "edits": edits, "fact_scores": rows}
    store.commit("run", "segment-000000", tables, CommitInfo(kind="segment", first_round=0, last_round=4))
    (row,) = query(store, "SELECT efficacy, paraphrase, neighborhood, score FROM run_summary").to_pylist()
    assert row == {"efficacy": 0.75, "paraphrase": 0.75, "neighborhood": None, "score": None}
    outcomes = query(store, "SELECT DISTINCT nll_mean, nll_sum, argmax FROM probe_outcomes ORDER BY ALL").to_pylist()
    assert [tuple(each.values()) for each in outcomes] == [(0, 0, 0), (1, 1, 1)]
