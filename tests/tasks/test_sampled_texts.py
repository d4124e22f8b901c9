"""Texts that a model samples itself, for second moments and for a perplexity, are made once and kept."""

import math
from pathlib import Path

import pytest

from editing.measure.own_texts import own_texts
from editing.model.loading import load
from flows.spec import SpecError
from storage.sql import query
from storage.store import Store
from tasks.units.sampled_texts import kept_texts
from tests.tasks.support import all_stages, plan

SELF = {"texts": "self", "n_texts": 6, "text_tokens": 12}


def test_a_perplexity_of_own_texts_is_of_what_the_unedited_model_has_said(tmp_path: Path) -> None:
    score = {"every_edits": 2, "retention": "none", "perplexity": SELF}
    planned = plan(tmp_path, facts={"name": "factworld", "size": 2}, editors=["ft"], score=score)
    all_stages(planned)
    store, model = Store(planned.store), planned.runs[0].model
    lm = load(model.name)
    texts = kept_texts(store, model.identity, planned.texts[0].source)
    assert texts == own_texts(lm, range(6), seed=1, n_tokens=12)
    rows = query(store, "SELECT edits_so_far, avg(nll / n_tokens) AS nll, count(*) AS n FROM text_nlls GROUP BY ALL")
    by_edits = {row["edits_so_far"]: row for row in rows.to_pylist()}
    assert by_edits.keys() == {0, 2} and all(row["n"] == 6 for row in by_edits.values())
    ids = [lm.format.plain(text) for text in texts]
    slow = [lm.score_ids([row[:1]], [row[1:]])[0] for row in ids]
    mean = sum(each.nll_sum / each.n_tokens for each in slow) / 6
    assert math.isclose(by_edits[0]["nll"], mean, rel_tol=1e-5) and not math.isclose(
        by_edits[2]["nll"], mean, rel_tol=1e-5
    )


def test_how_texts_are_sampled_is_part_of_what_is_scored_and_edited(tmp_path: Path) -> None:
    def recipes(**changes: object) -> tuple[str, str]:
        asked = SELF | changes
        planned = plan(tmp_path, editors=["memit"], second_moment=asked, score={"every_edits": 0, "perplexity": asked})
        run = planned.runs[-1]
        return run.run_id, str(planned.texts[0].unit_id)

    usual = recipes()
    assert recipes(temperature=1.0) == usual
    for change in ({"temperature": 0.5}, {"seed": 3}, {"top_k": 5}, {"text_tokens": 13}):
        assert all(one != other for one, other in zip(recipes(**change), usual, strict=True)), change
    with pytest.raises(SpecError, match=r"score.perplexity: found path and texts; expected one of them"):
        plan(tmp_path, score={"every_edits": 0, "perplexity": SELF | {"path": "here.txt"}})


def test_a_low_temperature_says_the_likeliest() -> None:
    lm = load("factworld-gpt2")
    greedy = own_texts(lm, range(3), n_tokens=8, top_k=1)
    assert own_texts(lm, range(3), n_tokens=8, temperature=1e-4) == greedy
    assert own_texts(lm, range(3), n_tokens=8, temperature=1.0) == own_texts(lm, range(3), n_tokens=8) != greedy
