"""Causal tracing beyond the golden vectors: every family's embeddings, windows, and memory."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from editing.measure.tracing import TracePlan, causal_trace, subject_noise
from editing.model.families import submodule
from editing.model.lm import LanguageModel
from editing.model.tokens import Rows
from tests.editing.tiny import DECODERS, random_lm, requests


@pytest.mark.parametrize("family", DECODERS)
def test_noise_is_three_sigma_of_what_enters_the_model(family: str) -> None:
    """Gemma scales its embeddings behind the table: noise of the table's own scale would corrupt nothing."""
    lm, facts = random_lm(family), requests(4)
    ids = [i for fact in facts for i in lm.tokenizer(fact.subject, add_special_tokens=False)["input_ids"]]
    entering: list[Tensor] = []
    embeddings = submodule(lm.model, lm.family.embeddings)
    handle = embeddings.register_forward_hook(lambda _module, _args, output: entering.append(output))
    lm.forward(Rows(torch.tensor([ids]), torch.ones(1, len(ids), dtype=torch.long)))
    handle.remove()
    assert subject_noise(lm, facts) == pytest.approx(3 * float(entering[0].std()), rel=1e-6)


@pytest.mark.parametrize(("window", "layers"), [(1, [2]), (2, [1, 2]), (3, [1, 2, 3])])
def test_a_window_has_as_many_layers_as_it_says(window: int, layers: Sequence[int], monkeypatch: Any) -> None:
    lm, facts = random_lm("gpt2", n_layer=6), requests(1)
    restored: list[list[int]] = []
    run = LanguageModel.module_at

    def watched(self: LanguageModel, site: Any) -> Any:
        restored[-1].append(site.layer)
        return run(self, site)

    def probability(lm: LanguageModel, sequences: list[tuple[int, ...]], answer: int) -> Tensor:
        restored.append([])
        return torch.zeros(len(sequences))

    restored.append([])
    monkeypatch.setattr(LanguageModel, "module_at", watched)
    monkeypatch.setattr("editing.measure.tracing._probability", probability)
    causal_trace(lm, facts, TracePlan(kinds=("mlp",), samples=1, window=window))
    assert sorted(restored[2 + 2]) == layers, "clean, corrupted, then layer by layer"


def test_memory_that_does_not_suffice_halves_the_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    lm, facts, plan = random_lm("gpt2"), requests(2), TracePlan(samples=10)
    expected = causal_trace(lm, facts, plan)
    run = type(lm).forward

    def small(self: LanguageModel, rows: Rows) -> Tensor:
        if rows.ids.numel() > 100:
            raise torch.OutOfMemoryError
        return run(self, rows)

    monkeypatch.setattr(type(lm), "forward", small)
    for one, other in zip(causal_trace(lm, facts, plan), expected, strict=True):
        assert one.low == pytest.approx(other.low, rel=1e-9)
        for kind, grid in other.scores.items():
            assert torch.allclose(one.scores[kind], grid, rtol=1e-9)
    assert lm.tokens_per_forward <= 128
