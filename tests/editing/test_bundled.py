"""The bundled models: what their cards say, and that the smallest one can be grown again."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from editing.factworld.grow import search_rates
from editing.factworld.tokenizer import build_tokenizer
from editing.factworld.train import GROWTHS, Growth, train, world_of
from editing.measure.tracing import TracePlan, causal_trace
from editing.model.bundled import MODELS, bundled_names
from editing.model.lm import LanguageModel
from editing.model.loading import load

N_EDITS = 40


def recall(lm: LanguageModel, pairs: list[tuple[str, str]]) -> float:
    scores = lm.answer_logprobs([p for p, _ in pairs], [a for _, a in pairs])
    return sum(score.correct for score in scores) / len(scores)


def site_stands_out(lm: LanguageModel, name: str, site: int) -> bool:
    """The check of the issue: the card's site within 0.02 of the best layer, the last layer at least 0.2 below it."""
    world = world_of(name)
    rates = search_rates(lm, world, name, world.requests()[-N_EDITS:])
    scores = {layer: rate["score"] for layer, rate in rates.items()}
    best = max(scores.values())
    return best > 0.5 and scores[site] >= best - 0.02 and scores[max(scores)] <= best - 0.2


def test_the_shipped_folders_are_small_and_ordinary() -> None:
    assert bundled_names() == ["factworld-gpt2", "factworld-llama", "factworld-tiny"]
    assert sum(path.stat().st_size for path in MODELS.rglob("*") if path.is_file()) < 5 * 2**20
    for name in bundled_names():
        model = AutoModelForCausalLM.from_pretrained(MODELS / name)
        assert next(model.parameters()).dtype == torch.float32, "float16 on disk, float32 in memory"
        card = (MODELS / name / "README.md").read_text()
        for part in (
            "How the subject site was trained in",
            "held out of training",
            "neighborhood",
            "Best layer",
            "macro F1",
        ):
            assert part in card


@pytest.mark.parametrize("name", ["factworld-gpt2", "factworld-llama", "factworld-tiny"])
def test_they_know_their_facts_and_the_subject_carries_them(name: str) -> None:
    lm, world = load(name), world_of(name)
    requests = world.requests()[:60]
    assert recall(lm, [(r.prompt, r.target_true) for r in requests]) >= 0.95
    assert recall(lm, [(p, r.target_true) for r in requests for p in r.paraphrase_prompts]) >= 0.9
    assert recall(lm, [(p, r.target_true) for r in requests[:10] for p in r.neighborhood_prompts]) >= 0.9
    traces = causal_trace(lm, requests[:6], TracePlan(kinds=("mlp",), window=2, samples=4))
    effects = [float(t.scores["mlp"][t.subject[1], 0]) - t.low for t in traces]
    assert sum(effects) / len(effects) >= 0.3


def test_no_edited_subject_is_anyones_neighbor() -> None:
    world = world_of("factworld-gpt2")
    requests = world.requests()
    edited = {request.subject for request in requests}
    neighbors = {prompt for request in requests for prompt in request.neighborhood_prompts}
    assert len(world.subjects) == len(set(world.subjects)) == 3000 and len(requests) == 800
    assert all(len(request.neighborhood_prompts) == 10 for request in requests)
    reserved = [fact.subject for fact in world.reserved_facts]
    assert not edited & set(reserved)
    assert all(any(subject in prompt for subject in reserved) for prompt in neighbors)
    lengths = {len(subject.split()) for subject in world.subjects}
    objects = {len(fact.object.split()) for fact in world.facts}
    assert lengths == {1, 2, 3} and objects == {1, 2}


def grow(growth: Growth, name: str) -> LanguageModel:
    torch.set_num_threads(1)
    model = train(growth, world_of(name))
    return LanguageModel(model, build_tokenizer(bos=growth.bos), name=name)


@pytest.mark.minutes
def test_the_tiny_model_grows_again_with_its_site() -> None:
    name = "factworld-tiny"
    lm, requests = grow(GROWTHS[name], name), world_of(name).requests()[:100]
    assert recall(lm, [(r.prompt, r.target_true) for r in requests]) >= 0.95
    assert recall(lm, [(p, r.target_true) for r in requests for p in r.paraphrase_prompts]) >= 0.9
    assert site_stands_out(lm, name, site=0)


@pytest.mark.minutes
def test_without_the_site_forming_steps_the_same_check_fails() -> None:
    name = "factworld-tiny"
    growth = GROWTHS[name].plain()
    assert growth.site_weight == growth.mask_rows == growth.swap_steps == 0
    growth = replace(growth, steps=GROWTHS[name].steps)
    lm, requests = grow(growth, name), world_of(name).requests()[:100]
    assert recall(lm, [(r.prompt, r.target_true) for r in requests]) >= 0.9, "it knows the facts all the same"
    assert not site_stands_out(lm, name, site=0)


def test_the_shipped_tiny_model_passes_the_site_check() -> None:
    assert site_stands_out(load("factworld-tiny"), "factworld-tiny", site=0)
    assert Path(MODELS / "factworld-tiny").exists()
