"""What a model says when nothing of the answer is given to it: its texts, and why scores that leak the answer say more."""

import math

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from editing import load
from editing.factworld.world import World
from editing.measure.downstream import Question
from editing.measure.scores import ProbeScore, probes_of, score_probes
from editing.model.lm import LanguageModel
from tasks.benchmarks.answering import ask, grade
from tasks.benchmarks.definition import AnswerRule
from tasks.units.fluency import ngram_entropy, repetition
from tests.editing.tiny import DECODERS, random_lm, requests


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    return load("factworld-gpt2")


def exact(score: ProbeScore, target: str) -> bool:
    return (score.text or "").strip().startswith(target)


def test_a_scorer_that_leaks_the_answer_overstates(lm: LanguageModel) -> None:
    """Counting argmax tokens under teacher forcing gives the model each answer's beginning, and its length.

    The unedited model has never heard the new targets of two words; told the first word, it completes the second.
    """
    longer = [r for r in World().requests() if len(r.target_new.split()) > 1][:60]
    assert len(longer) == 60
    scores = score_probes(lm, [probes_of(r, ("rewrite",))[0] for r in longer], text_tokens=8)
    leaky = sum(score.new.n_correct / score.new.n_tokens for score in scores) / len(scores)
    honest = sum(exact(score, r.target_new) for score, r in zip(scores, longer, strict=True)) / len(scores)
    assert honest == 0 and leaky > 0.3, (leaky, honest)


def test_a_scorer_that_leaks_the_length_overstates(lm: LanguageModel) -> None:
    """Cut after as many tokens as the answer has, a longer word or a sentence that goes on looks like the answer."""
    known = World().requests()[:60]
    prompts = [request.prompt for request in known]
    # Answers cut short: their first word where there are two.
    short = [request.target_true.split()[0] for request in known]
    lengths = [len(ids) for ids in lm.format.answers(prompts, short)]
    texts = lm.continue_greedily(prompts, 6)
    cut = [lm.continue_greedily([p], n)[0].strip() for p, n in zip(prompts, lengths, strict=True)]
    leaky = sum(text == answer for text, answer in zip(cut, short, strict=True))
    pairs = zip((text.strip() for text in texts), short, strict=True)
    honest = sum(text == answer or text.startswith(f"{answer}.") for text, answer in pairs)
    two_words = sum(len(request.target_true.split()) > 1 for request in known)
    assert two_words > 5 and leaky - honest >= two_words - 2, (leaky, honest, two_words)


def test_greedy_text_begins_with_an_answer_if_and_only_if_all_its_tokens_are_argmax(lm: LanguageModel) -> None:
    facts = World().requests()[:40]
    probes = [probe for fact in facts for probe in probes_of(fact)]
    for score in score_probes(lm, probes, text_tokens=6):
        for answer, target in ((score.true, score.probe.target_true), (score.new, score.probe.target_new)):
            (ids,) = lm.format.answers([score.probe.prompt], [target])
            said = (score.text or "")[: len(lm.format.decode(ids))]
            assert (said == lm.format.decode(ids)) == answer.correct, (score.text, target)


@pytest.mark.parametrize("family", DECODERS)
def test_alone_and_among_others_the_same(family: str) -> None:
    lm = random_lm(family, std=0.2)
    probes = [probe for fact in requests(5) for probe in probes_of(fact)]
    together = score_probes(lm, probes, text_tokens=5)
    for probe, score in zip(probes, together, strict=True):
        (alone,) = score_probes(lm, [probe], text_tokens=5)
        assert alone.text == score.text
        assert alone.new.nll_sum == pytest.approx(score.new.nll_sum, abs=1e-4)
        assert (alone.new.n_correct, alone.true.argmax_ids) == (score.new.n_correct, score.true.argmax_ids)


@pytest.mark.parametrize("family", ["gpt2", "gptj", "llama", "qwen2"])
def test_padding_on_the_left_gives_the_same_scores(family: str) -> None:
    """Hugging Face's own forward pass over left-padded rows, with places counted from the first real token."""
    lm = random_lm(family, std=0.2, dtype=torch.float32)
    probes = [probe for fact in requests(6) for probe in probes_of(fact)]
    heads, tails = lm.pair_ids([probe.prompt for probe in probes], [probe.target_new for probe in probes])
    rows = [head + tail for head, tail in zip(heads, tails, strict=True)]
    width = max(map(len, rows))
    ids = torch.tensor([(0,) * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    with torch.no_grad():
        logits = lm.model(ids, attention_mask=mask, position_ids=(mask.cumsum(1) - 1).clamp_min(0)).logits
    logprobs = logits.double().log_softmax(-1)
    for row, (tail, score) in enumerate(zip(tails, score_probes(lm, probes), strict=True)):
        at = range(width - len(tail) - 1, width - 1)
        nll = -sum(float(logprobs[row, place, token]) for place, token in zip(at, tail, strict=True))
        assert score.new.nll_sum == pytest.approx(nll, rel=1e-4)


# --- where texts end


def test_texts_end_before_a_mark_and_before_the_end_of_text(lm: LanguageModel) -> None:
    (prompt,) = (request.prompt for request in World().requests()[:1])
    (whole,) = lm.continue_greedily([prompt], 12)
    assert whole.count(".") >= 1 and len(whole) > 8
    (cut,) = lm.continue_greedily([prompt], 12, until=["."])
    assert cut == whole[: whole.index(".")]
    marks = ["nowhere", whole[3:6], "."]
    assert lm.continue_greedily([prompt], 12, until=marks)[0] == whole[:3]
    (first, *_) = lm.tokenizer.encode(whole, add_special_tokens=False)
    tokenizer: PreTrainedTokenizerFast = lm.tokenizer
    tokenizer_end, settings = tokenizer.eos_token, lm.model.generation_config
    before = settings.eos_token_id
    try:
        settings.eos_token_id = [first]
        assert lm.continue_greedily([prompt], 12) == [""]
    finally:
        settings.eos_token_id = before
    assert tokenizer.eos_token == tokenizer_end and lm.continue_greedily([prompt], 12) == [whole]


def test_rows_that_end_early_leave_the_others_as_they_are() -> None:
    lm = random_lm("llama", std=0.2)
    prompts = [request.prompt for request in requests(8)]
    whole = lm.continue_greedily(prompts, 10)
    mark = whole[0][2:4]
    for text, found in zip(whole, lm.continue_greedily(prompts, 10, until=[mark]), strict=True):
        assert found == (text[: text.index(mark)] if mark in text else text)


@pytest.mark.parametrize("family", ["t5", "bert"])
def test_models_that_answer_otherwise(family: str) -> None:
    """An encoder-decoder writes with its decoder; a classifier names its class."""
    lm = random_lm(family, std=0.2)
    prompts = [request.prompt for request in requests(4)]
    texts = lm.continue_greedily(prompts, 5)
    if family == "bert":
        assert set(texts) <= set(lm.model.config.label2id)
        scores = lm.answer_logprobs(prompts, texts)
        assert all(score.correct for score in scores)
        return
    for prompt, text in zip(prompts, texts, strict=True):
        (head,) = lm.prompt_ids([prompt])
        out = lm.model.generate(torch.tensor([head]), max_new_tokens=5, do_sample=False, num_beams=1)[0, 1:].tolist()
        ends = [i for i, token in enumerate(out) if token == lm.tokenizer.eos_token_id]
        assert text == lm.format.decode(out[: ends[0]] if ends else out)


def test_a_model_that_gives_nan_is_not_taken_to_have_answered() -> None:
    """Only the text in which it happens is lost, and it is told from an answer that names no label."""
    lm = random_lm("llama", std=0.2)
    prompts = [request.prompt for request in requests(3)]
    whole = lm.continue_greedily(prompts, 6)
    first, middle, last = lm.prompt_ids(prompts)
    bad = min(set(middle) - set(first) - set(last))
    with torch.no_grad():
        lm.model.get_input_embeddings().weight[bad] = torch.nan
    assert lm.continue_greedily(prompts, 6) == [whole[0], None, whole[2]]
    free = lm.write_freely(prompts, 6, top_k=5, seed=0)
    assert free[1] is None and free[0] and free[2]
    asked = [Question(str(i), prompt, (), ("yes",)) for i, prompt in enumerate(prompts)]
    rule = AnswerRule(kind="text", tokens=4, labels={"yes": ("yes",), "no": ("no",)})
    grades = [grade(question, answer, rule) for question, answer in zip(asked, ask(lm, asked, rule), strict=True)]
    assert [found.outcome for found in grades] == ["invalid", "nan", "invalid"]


# --- free texts and perplexity


def test_free_texts_depend_on_their_place_and_seed_only(lm: LanguageModel) -> None:
    prompts = [request.prompt for request in World().requests()[:6]]
    texts = lm.write_freely(prompts, 12, top_k=5, seed=3)
    assert lm.write_freely(prompts[:2], 12, top_k=5, seed=3) == texts[:2]
    assert lm.write_freely(prompts, 12, top_k=5, seed=4) != texts
    assert lm.write_freely(prompts, 12, top_k=1, seed=3) == lm.write_freely(prompts, 12, top_k=1, seed=4)
    before = lm.tokens_per_forward
    try:
        lm.tokens_per_forward = 40
        assert lm.write_freely(prompts, 12, top_k=5, seed=3) == texts
    finally:
        lm.tokens_per_forward = before


def test_entropy_and_repetition_by_hand() -> None:
    # Bigrams ab ba ab: frequencies 2/3, 1/3; trigrams aba bab: 1/2 each.
    bigrams = -(2 / 3 * math.log2(2 / 3) + 1 / 3 * math.log2(1 / 3))
    assert ngram_entropy("a b a b") == pytest.approx((2 / 3 * bigrams + 4 / 3 * 1.0) / 2)
    assert ngram_entropy("a a a a") == 0
    assert ngram_entropy("Yes.") is None and ngram_entropy("") is None
    assert ngram_entropy("one, two") == pytest.approx((2 / 3 * 1.0 + 4 / 3 * 0.0) / 2), "a comma is a word"
    assert repetition("a b c d a b c d") == pytest.approx(1 / 5) and repetition("a b c") is None
    assert repetition("no no no no no no") == pytest.approx(2 / 3)
