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
from editing.model.upper_pass import UpperPass
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
@pytest.mark.parametrize("share", [True, False])
def test_a_window_has_as_many_layers_as_it_says(
    share: bool, window: int, layers: Sequence[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    lm, facts = random_lm("gpt2", n_layer=6), requests(1)
    restored: list[list[int]] = []

    def watched(*args: Any, **_: Any) -> Tensor:
        states = args[2] if share else args[5]
        restored.append(sorted(site.layer for site in states))
        return torch.zeros(len(args[1]) if share else args[6])

    target = "corrupted_run.Corrupted.restored" if share else "tracing._corrupted"
    monkeypatch.setattr(f"editing.measure.{target}", watched)
    causal_trace(lm, facts, TracePlan(kinds=("mlp",), samples=1, window=window), share=share)
    assert [found for found in restored if found][2] == layers


@pytest.mark.parametrize("family", DECODERS)
def test_what_a_restored_state_cannot_change_is_shared(family: str) -> None:
    """Every family, Gemma's norms and sliding windows among them, against whole passes."""
    lm, facts = random_lm(family), requests(3)
    plan = TracePlan(samples=3, window=2)
    for mine, whole in zip(causal_trace(lm, facts, plan), causal_trace(lm, facts, plan, share=False), strict=True):
        assert mine.low == pytest.approx(whole.low, rel=1e-9) and mine.high == whole.high
        for kind, grid in whole.scores.items():
            assert (grid - whole.low).abs().max() > 1e-3 * whole.low, "something is restored"
            assert torch.allclose(mine.scores[kind], grid, rtol=1e-6, atol=1e-12), (family, kind)


@pytest.mark.parametrize("share", [True, False])
def test_memory_that_does_not_suffice_halves_the_passes(share: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    lm, facts, plan = random_lm("gpt2"), requests(2), TracePlan(samples=10)
    expected = causal_trace(lm, facts, plan, share=share)
    whole, upper = type(lm).forward, UpperPass.__call__

    def small(self: LanguageModel, rows: Rows) -> Tensor:
        if rows.ids.numel() > 100:
            raise torch.OutOfMemoryError
        return whole(self, rows)

    def small_upper(self: UpperPass, hidden: Tensor, *rest: Any) -> Tensor:
        if hidden.shape[0] * hidden.shape[1] > 40:
            raise torch.OutOfMemoryError
        return upper(self, hidden, *rest)

    monkeypatch.setattr(type(lm), "forward", small)
    monkeypatch.setattr(UpperPass, "__call__", small_upper)
    for one, other in zip(causal_trace(lm, facts, plan, share=share), expected, strict=True):
        assert one.low == pytest.approx(other.low, rel=1e-9)
        for kind, grid in other.scores.items():
            assert torch.allclose(one.scores[kind], grid, rtol=1e-9)
    assert lm.tokens_per_forward <= 128
