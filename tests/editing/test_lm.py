"""What a model says and how its parts are found, over kinds of heads, soft caps and chat templates."""

from typing import Any

import pytest
import torch

from editing.model.tokens import pad_rows
from tests.conformance.cases import edits_of, layers_for
from tests.editing.tiny import chat_lm, random_lm, relative, requests, texts


def test_answers_of_an_encoder_decoder_and_a_classifier_are_hugging_faces() -> None:
    for family in ("t5", "bert"):
        lm, edits = random_lm(family, std=0.2), edits_of(family, 4)
        scores = lm.answer_logprobs([r.prompt for r in edits], [r.target_new for r in edits])
        for fact, score in zip(edits, scores, strict=True):
            (head,) = lm.format.prompts([fact.prompt])
            (tail,) = lm.format.answers([fact.prompt], [fact.target_new])
            labels = torch.tensor([tail]) if family == "t5" else torch.tensor(tail)
            loss = lm.model(torch.tensor([head]), labels=labels).loss
            assert score.nll_mean == pytest.approx(float(loss), rel=1e-6)
            assert score.n_tokens == len(tail)


@pytest.mark.parametrize(("changes", "effect"), [({"final_logit_softcapping": 2.0}, 2.0), ({}, None)])
def test_soft_caps_are_honoured(changes: dict[str, Any], effect: float | None) -> None:
    lm = random_lm("gemma2", **({"final_logit_softcapping": None} | changes))
    rows = pad_rows(lm.format.prompts(texts(3)))
    with torch.no_grad():
        expected = lm.model(rows.ids, attention_mask=rows.mask).logits
        found = lm.logits(lm.forward(rows))
    assert relative(found[rows.mask.bool()], expected[rows.mask.bool()]) < 1e-6
    assert (float(found.abs().max()) <= 2.0) == (effect is not None)


def test_prompts_go_through_the_chat_template() -> None:
    plain, lm = chat_lm()
    (fact,) = requests(1)
    full = f"<|endoftext|>user: {fact.prompt}\nassistant: "
    expected = tuple(plain.tokenizer(full, add_special_tokens=False)["input_ids"])
    assert lm.format.prompts([fact.prompt]) == [expected], "special tokens once, as the template writes them"
    (looked,) = lm.format.lookups([fact.prompt], [fact.subject_end])
    head = lm.format.decode(looked.ids[: looked.lookup + 1])
    assert head.endswith(fact.subject), head
    (tail,) = lm.format.answers([fact.prompt], [fact.target_new])
    assert lm.format.decode(expected + tail).split("assistant:")[1].strip() == fact.target_new
    chat, bare = lm.answer_logprobs([fact.prompt], ["Rome"]), plain.answer_logprobs([fact.prompt], ["Rome"])
    assert chat != bare


def test_layers_of_an_encoder_decoder_are_counted_through_both_stacks() -> None:
    lm = random_lm("t5")
    assert lm.n_layers == 4
    assert lm.module_name(1, "mlp_out") == "encoder.block.1.layer.1.DenseReluDense.wo"
    assert lm.module_name(2, "mlp_out") == "decoder.block.0.layer.2.DenseReluDense.wo"
    assert layers_for("ft", "t5") == [1, 2], "the conformance tests edit both stacks"
