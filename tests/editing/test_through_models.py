"""Invariances that must hold through every family's real forward pass."""

from dataclasses import replace
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from editing import edit, load
from editing.api import apply
from editing.errors import ModelError
from editing.factworld.world import World
from editing.hparams import resolve_hparams
from editing.measure.moments import MomentAccumulator, collect_moments
from editing.methods.editor import Artifacts, make_editor
from editing.methods.fact_rows import fact_rows
from editing.methods.geometry import KeyGeometry
from editing.methods.targets import TargetHparams, optimise_targets, targets_of_layers
from editing.model.families import FAMILIES
from editing.model.lm import LanguageModel, Site
from editing.model.packing import Packed, common_front, side_by_side
from editing.model.tokens import Rows, pad_rows
from editing.model.upper_pass import live_columns
from tests.bench.plain import plain_target
from tests.editing.tiny import DECODERS, TOLERANCE, random_lm, relative, requests, texts

HPARAMS = TargetHparams(steps=6, lr=0.1, weight_decay=0.1, clamp=4.0, kl_weight=0.0625)
CONTEXTS = ("", "It rained all day. ", "They closed the shop early. ")
families = pytest.mark.parametrize("family", DECODERS)


def artifacts(lm: LanguageModel, layers: list[int]) -> Artifacts:
    moments = collect_moments(lm, texts(), layers)
    geometry = {layer: KeyGeometry.of(m.matrix, jitter=1e-4) for layer, m in moments.items()}
    return Artifacts(geometry=geometry, contexts=CONTEXTS)


@families
def test_upper_pass_gives_the_models_own_logits(family: str) -> None:
    lm = random_lm(family)
    rows = pad_rows(lm.format.prompts([r.prompt for r in requests(3)]))
    expected = lm.model(input_ids=rows.ids, attention_mask=rows.mask).logits
    for first in range(lm.n_layers + 1):
        upper = lm.upper_pass(rows, first)
        found = lm.logits(upper(upper.hidden))
        assert relative(found[rows.mask.bool()], expected[rows.mask.bool()]) < TOLERANCE[family], first
        moved = lm.logits(upper(upper.hidden * torch.linspace(0.5, 2, upper.hidden.shape[-1])))
        assert relative(moved[rows.mask.bool()], expected[rows.mask.bool()]) > 1e-3, "it depends on what it is given"


@families
def test_weight_view_maps_keys_to_values(family: str) -> None:
    lm = random_lm(family)
    rows = pad_rows(lm.format.prompts([requests(1)[0].prompt]))
    found = lm.states(rows, [Site("key", 1), Site("value", 1)])
    names = lm.parameter_names(1)
    bias = lm.parameter(names["bias"]) if "bias" in names else 0.0
    assert relative(found[Site("key", 1)] @ lm.weight(1).T + bias, found[Site("value", 1)]) < TOLERANCE[family]


@families
def test_batched_targets_are_single_targets(family: str) -> None:
    lm = random_lm(family)
    batch = requests(5)
    together = optimise_targets(lm, batch, CONTEXTS, 1, HPARAMS, site="block")
    for index, request in enumerate(batch):
        alone = optimise_targets(lm, [request], CONTEXTS, 1, HPARAMS, site="block")
        assert relative(together.value[index], alone.value[0]) < TOLERANCE[family]
        assert together.n_steps[index] == alone.n_steps[0]
    other = optimise_targets(lm, [batch[1]], CONTEXTS[:1], 1, HPARAMS, site="block")
    assert relative(other.value[0], together.value[1]) > 1e-6, "other contexts, another target"


@pytest.mark.parametrize("family", ["mistral", "gemma2", "gemma3_text", "phi3", "qwen2"])
def test_padded_rows_see_what_a_sliding_window_lets_a_row_alone_see(family: str) -> None:
    """Every layer of Mistral and Phi-3 looks through one, some layers of Gemma, and Qwen where its config says so.

    HF's own masks are right for a row alone; with padding longer than the window they give NaN.
    """
    window = {"sliding_window": 5} | ({"use_sliding_window": True, "max_window_layers": 2} if family == "qwen2" else {})
    narrow, wide = random_lm(family, **window), random_lm(family)
    sequences = narrow.format.prompts([context + requests(1)[0].prompt for context in CONTEXTS])
    alone = [narrow.model(input_ids=torch.tensor([ids])).logits[0] for ids in sequences]
    final = narrow.forward(pad_rows(sequences))
    lookups = [len(ids) - 2 for ids in sequences]
    packed = side_by_side([sequences], common_front([sequences], lookups))
    live = [path[at:] for (_, _, path), at in zip(packed.columns, lookups, strict=True)]
    upper = narrow.upper_pass_at(packed, live_columns(packed, [[column for part in live for column in part]]), 2)
    cut = narrow.logits(upper(upper.hidden))[0].unflatten(0, (len(sequences), 2))
    for row, expected in enumerate(alone):
        assert relative(narrow.logits(final[row, : len(expected)]), expected) < TOLERANCE[family]
        assert relative(cut[row], expected[-2:]) < TOLERANCE[family]
        assert relative(wide.model(input_ids=torch.tensor([sequences[-1]])).logits[0], alone[-1]) > 1e-4, "it matters"


@families
def test_order_and_microbatch_change_nothing(family: str) -> None:
    lm = random_lm(family)
    batch = requests(6)
    expected = optimise_targets(lm, batch, CONTEXTS, 1, HPARAMS, site="value")
    lm.tokens_per_forward = 64
    order = [4, 2, 0, 5, 1, 3]
    found = optimise_targets(lm, [batch[i] for i in order], CONTEXTS, 1, HPARAMS, site="value")
    assert relative(found.value, expected.value[order]) < TOLERANCE[family]
    assert found.n_steps == [expected.n_steps[i] for i in order]
    assert relative(found.value, expected.value) > 1e-3, "in another order they are other rows"


@families
def test_facts_that_are_done_leave_the_batch_without_changing_the_others(family: str) -> None:
    lm = random_lm(family)
    batch = requests(5)
    loose = TargetHparams(steps=30, lr=0.3, weight_decay=0.0, clamp=50.0, kl_weight=0.0, stop_loss=-1.0)
    # A random model cannot be made to say anything: the stop is a loss that the middle fact reaches.
    lowest = optimise_targets(lm, batch, CONTEXTS, 1, loose, site="block").losses[:, :, 0].min(dim=1).values
    loose = replace(loose, stop_loss=float(lowest.sort().values[2]) * (1 + 1e-6))
    together = optimise_targets(lm, batch, CONTEXTS, 1, loose, site="block")
    assert len(set(together.n_steps)) > 1, "they stop at different steps"
    for index, request in enumerate(batch):
        alone = optimise_targets(lm, [request], CONTEXTS, 1, loose, site="block")
        assert alone.n_steps[0] == together.n_steps[index]
        # Thirty steps magnify what one forward pass rounds.
        assert relative(together.value[index], alone.value[0]) < max(1e-9, 10 * TOLERANCE[family])


@families
def test_padding_changes_no_answer(family: str) -> None:
    lm = random_lm(family)
    batch = requests(8)
    prompts, answers = [r.prompt for r in batch], [r.target_new for r in batch]
    together = lm.answer_logprobs(prompts, answers)
    for prompt, answer, score in zip(prompts, answers, together, strict=True):
        (alone,) = lm.answer_logprobs([prompt], [answer])
        assert alone.nll_sum == pytest.approx(score.nll_sum, rel=TOLERANCE[family])
        assert alone.argmax_ids == score.argmax_ids
    rows = pad_rows(lm.format.prompts(prompts))
    unmasked = Rows(rows.ids, torch.ones_like(rows.mask))
    states = [lm.states(r, [Site("block", 3)])[Site("block", 3)] for r in (rows, unmasked)]
    assert relative(states[0][rows.mask.bool()], states[1][rows.mask.bool()]) < TOLERANCE[family], (
        "causal, right-padded"
    )


@pytest.mark.parametrize("family", [name for name in DECODERS if not FAMILIES[name].normed_value])
def test_an_edit_with_two_layers_equals_the_textbook(family: str) -> None:
    """MEMIT written out: solve, write, read again, solve, write."""
    lm = random_lm(family)
    layers, batch, weight = [1, 2], requests(3), 200.0
    inputs = artifacts(lm, layers)
    hparams = resolve_hparams("memit", model="x", overrides={"steps": 6, "preservation_weight": weight, "clamp": 4.0})
    method = make_editor("memit", hparams)
    start = lm.snapshot(method.parameter_names(lm, layers))
    targets = method.targets(lm, batch, layers, inputs)
    expected = {}
    for index, layer in enumerate(layers):
        keys, present = [], []
        for request in batch:
            mine = []
            for context in CONTEXTS:
                ids = lm.format.prompts([context + request.prompt])[0]
                at = len(lm.format.prompts([context + request.prompt[: request.subject_end]])[0]) - 1
                state = lm.states(pad_rows([ids]), [Site("key", layer), Site("block", layers[-1])])
                mine.append(state[Site("key", layer)][0, at])
                if not context:
                    present.append(state[Site("block", layers[-1])][0, at])
            keys.append(0.5 * mine[0] + 0.5 * torch.stack(mine[1:]).mean(0))
        k = torch.stack(keys).T.double()
        r = ((targets.value - torch.stack(present)) / (2 - index)).T.double()
        update = torch.linalg.solve(weight * inputs.geometry[layer].moment + k @ k.T, k @ r.T).T
        lm.weight(layer).add_(update)
        expected[layer] = lm.weight(layer).clone()
    lm.restore(start)
    apply(lm, method, batch, layers, {}, inputs)
    for layer in layers:
        assert relative(lm.weight(layer), expected[layer]) < max(1e-9, 10 * TOLERANCE[family]), layer


@families
def test_moments_stream_merge_and_ignore_padding(family: str) -> None:
    lm = random_lm(family)
    sequences = [ids for ids in lm.format.prompts(texts(12))]
    keys = torch.cat([lm.states(pad_rows([ids]), [Site("key", 2)])[Site("key", 2)][0] for ids in sequences])
    whole = MomentAccumulator([0, 2])
    whole.update(lm, sequences)
    assert whole.n_tokens == len(keys)
    assert relative(whole.result()[2].matrix, keys.T @ keys / len(keys)) < TOLERANCE[family]
    one, two = MomentAccumulator([0, 2]), MomentAccumulator([0, 2])
    one.update(lm, sequences[:5])
    two.update(lm, sequences[5:])
    one.merge(two)
    for layer in (0, 2):
        assert relative(one.result()[layer].matrix, whole.result()[layer].matrix) < TOLERANCE[family]
    assert relative(two.result()[2].matrix, whole.result()[2].matrix) > 1e-3


@families
def test_memit_is_emmet_with_its_weight_as_ridge_through_a_model(family: str) -> None:
    found = {}
    for name, given in (
        ("memit", {"preservation_weight": 150.0}),
        ("emmet", {"ridge": 150.0}),
        ("other", {"ridge": 15.0}),
    ):
        lm = random_lm(family)
        editor = "emmet" if name == "other" else name
        hparams = resolve_hparams(editor, model="x", overrides={"steps": 4, **given})
        start = lm.weight(1).clone()
        apply(lm, make_editor(editor, hparams), requests(4), [1], {}, artifacts(lm, [1]))
        found[name] = lm.weight(1) - start
    assert relative(found["memit"], found["emmet"]) < TOLERANCE[family]
    assert relative(found["memit"], found["other"]) > 1e-3, "another ridge is another method"


def test_remembering_edits_travels_in_the_state() -> None:
    lm = random_lm("gpt2")
    inputs = artifacts(lm, [1])
    hparams = resolve_hparams(
        "memit", model="x", overrides={"steps": 3, "preservation_weight": 100.0, "remember": True}
    )
    method = make_editor("memit", hparams)
    first = apply(lm, method, requests(4)[:2], [1], {}, inputs)
    assert first.state["keys.1"].shape[0] == 2
    after_first = lm.snapshot(method.parameter_names(lm, [1]))
    second = apply(lm, method, requests(4)[2:], [1], first.state, inputs)
    assert second.state["keys.1"].shape[0] == 4
    remembered = lm.weight(1).clone()
    lm.restore(after_first)
    apply(lm, method, requests(4)[2:], [1], {}, inputs)
    assert relative(lm.weight(1), remembered) > 1e-6, "the state matters"


def test_five_lines_from_a_notebook() -> None:
    lm = load("factworld-tiny")
    (request,) = World(n_known=300).requests()[:1]
    before = lm.answer_logprobs([request.prompt], [request.target_new])[0]
    (result,) = edit(lm, [request], editor="emmet", layers=[0], texts=texts(100))
    after = lm.answer_logprobs([request.prompt], [request.target_new])[0]
    assert not before.correct and after.correct
    assert result.parameters[0].shortfall is not None and result.parameters[0].shortfall < 1e-6


@families
@pytest.mark.parametrize("site", ["block", "value"])
def test_chains_searched_together_have_their_own_targets(family: str, site: Literal["value", "block"]) -> None:
    lm = random_lm(family)
    batch, names = requests(6), [lm.parameter_names(layer)["weight"] for layer in (0, 1)]
    pristine = lm.snapshot(names)
    generator = torch.Generator().manual_seed(3)

    def moved(value: Tensor) -> Tensor:
        return value + 0.3 * value.std() * torch.randn(value.shape, generator=generator, dtype=value.dtype)

    chains = [{name: moved(value) for name, value in pristine.items()} for _ in range(3)]
    owners = [0, 1, 2, 1, 0, 2]  # neighbours in a batch are of different chains
    if site == "value" and lm.family.normed_value:
        with pytest.raises(ModelError, match="norm"):
            optimise_targets(lm, batch, CONTEXTS, 1, HPARAMS, site=site, under=[chains[i] for i in owners])
        return
    together = optimise_targets(lm, batch, CONTEXTS, 1, HPARAMS, site=site, under=[chains[i] for i in owners])
    assert all(torch.equal(lm.parameter(name), value) for name, value in pristine.items()), "the model is as it was"
    for index, (request, owner) in enumerate(zip(batch, owners, strict=True)):
        lm.restore(chains[owner])
        alone = optimise_targets(lm, [request], CONTEXTS, 1, HPARAMS, site=site)
        assert relative(together.value[index], alone.value[0]) < TOLERANCE[family]
        assert together.n_steps[index] == alone.n_steps[0]
        lm.restore(chains[(owner + 1) % 3])
        other = optimise_targets(lm, [request], CONTEXTS, 1, HPARAMS, site=site)
        assert relative(together.value[index], other.value[0]) > 1e-4, "another chain, another target"


@families
@pytest.mark.parametrize("site", ["block", "value"])
def test_targets_of_several_layers_are_those_of_each(family: str, site: Literal["value", "block"]) -> None:
    lm, batch = random_lm(family), requests(4)
    layers = [2, 0, 1]  # at the last one nothing reaches the prediction, and only rounding would be compared
    found = targets_of_layers(lm, batch, CONTEXTS, layers, HPARAMS, site=site)
    assert sorted(found) == sorted(layers)
    for layer in layers:
        expected = optimise_targets(lm, batch, CONTEXTS, layer, HPARAMS, site=site)
        assert relative(found[layer].value, expected.value) < TOLERANCE[family]
        assert relative(found[layer].initial, expected.initial) < TOLERANCE[family]
        assert found[layer].n_steps == expected.n_steps
    assert relative(found[0].value, found[2].value) > 1e-2


@families
@pytest.mark.parametrize("site", ["block", "value"])
def test_sequences_in_rows_of_their_own_change_nothing(
    family: str, site: Literal["value", "block"], monkeypatch: pytest.MonkeyPatch
) -> None:
    lm, batch = random_lm(family), requests(5)
    expected = targets_of_layers(lm, batch, CONTEXTS, [0, 2], HPARAMS, site=site)
    lengths = sorted(sum(map(len, fact.ids)) for fact in fact_rows(lm, batch, CONTEXTS))
    assert lengths[1] < lengths[-2]
    for wide in (0, lengths[2]):  # all of them, or the longer ones
        monkeypatch.setattr("editing.methods.fact_passes.WIDE", wide)
        found = targets_of_layers(lm, batch, CONTEXTS, [0, 2], HPARAMS, site=site)
        for layer in (0, 2):
            assert relative(found[layer].value, expected[layer].value) < TOLERANCE[family]
            assert found[layer].n_steps == expected[layer].n_steps


def test_a_long_prompt_keeps_to_the_tokens_of_a_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = random_lm("gpt2", n_positions=512)
    passage = " ".join(texts(12))
    batch = [replace(request, template=f"{passage} {request.template}") for request in requests(2)] + requests(4)[2:]
    sizes, run = [], type(lm).forward_packed

    def watched(self: LanguageModel, packed: Packed, *given: Any) -> Tensor:
        sizes.append(packed.ids.numel())
        return run(self, packed, *given)

    monkeypatch.setattr(type(lm), "forward_packed", watched)
    longest = max(len(ids) for fact in fact_rows(lm, batch, CONTEXTS) for ids in fact.ids)
    lm.tokens_per_forward = longest + 60
    found = optimise_targets(lm, batch, CONTEXTS, 1, HPARAMS, site="block")
    assert longest > 100 and max(sizes) <= lm.tokens_per_forward < 2 * longest
    for index, request in enumerate(batch):
        initial, delta, _ = plain_target(lm, request, CONTEXTS, 1, HPARAMS, site="block")
        assert relative(found.value[index], initial + delta) < TOLERANCE["gpt2"]
