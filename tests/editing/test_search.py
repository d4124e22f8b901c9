"""Layer search: every edit alone."""

import math
from dataclasses import replace

import pytest
import torch

from editing.hparams import resolve_hparams
from editing.measure.moments import collect_moments
from editing.measure.search import search_layer
from editing.methods.editor import Artifacts, make_editor
from editing.methods.geometry import KeyGeometry
from tests.conformance.cases import method
from tests.editing.tiny import random_lm, requests, texts


def test_a_layer_search_sees_edits_beside_the_weights() -> None:
    lm = random_lm("gpt2", std=0.1, dtype=torch.float64)
    fact = requests(1)
    (found,) = search_layer(lm, fact, 2, method("grace", steps=40), Artifacts())
    before = lm.answer_logprobs([fact[0].prompt], [fact[0].target_new])[0]
    rewrite = next(score for score in found.scores if score.probe.kind == "rewrite")
    assert rewrite.new.nll_sum < before.nll_sum - 0.1
    assert not lm.patches


def test_an_impossible_edit_does_not_concern_the_others_of_a_layer_search() -> None:
    lm, facts = random_lm("gpt2"), requests(4)
    moments = collect_moments(lm, texts(), [1])
    given = Artifacts(geometry={1: KeyGeometry.of(moments[1].matrix, jitter=1e-6)}, contexts=("",))
    rome = make_editor("rome", resolve_hparams("rome", model="", overrides={"steps": 3}))
    found = rome.targets(lm, facts, [1], given)
    targets = {fact.request_id: found.select([i]) for i, fact in enumerate(facts)}
    expected = list(search_layer(lm, facts, 1, rome, replace(given, targets=targets)))
    bad = targets[facts[2].request_id]
    targets[facts[2].request_id] = bad._replace(delta=bad.delta * math.nan)
    edits = list(search_layer(lm, facts, 1, rome, replace(given, targets=targets)))
    assert [edit.error is None for edit in edits] == [True, True, False, True]
    for i in (0, 1, 3):
        for score, other in zip(edits[i].scores, expected[i].scores, strict=True):
            assert score.new.nll_sum == pytest.approx(other.new.nll_sum, rel=1e-9)
