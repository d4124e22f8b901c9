"""Context prefixes: sampled from a bare start, whatever the tokenizer and the chat template are."""

import pytest

from editing.errors import TokenizationError
from editing.measure.contexts import sample_contexts
from tests.editing.tiny import DECODERS, chat_lm, random_lm, requests


@pytest.mark.parametrize("family", DECODERS)
def test_an_empty_start_is_the_start_of_text(family: str) -> None:
    lm = random_lm(family)
    found = sample_contexts(lm, 3, n_tokens=[4], seed=0, starts=[""])
    assert len(found) == 4 and found[0] == "" and all(text.endswith(". ") and len(text) > 4 for text in found[1:])
    assert found == sample_contexts(lm, 3, n_tokens=[4], seed=0, starts=[""])


def test_a_tokenizer_without_any_start_says_so() -> None:
    lm = random_lm("qwen2")
    lm.tokenizer.eos_token = None
    with pytest.raises(TokenizationError, match="give context_starts"):
        sample_contexts(lm, 1, n_tokens=[4], seed=0, starts=[""])
    assert sample_contexts(lm, 1, n_tokens=[4], seed=0, starts=["The"])[1].startswith("The")


def test_prefixes_of_a_chat_model_hold_nothing_of_its_template() -> None:
    plain, chat = chat_lm()
    for starts in (["The", "In"], [""]):
        given = sample_contexts(plain, 2, n_tokens=[4], seed=0, starts=starts)
        assert sample_contexts(chat, 2, n_tokens=[4], seed=0, starts=starts) == given


def test_an_empty_prompt_says_so() -> None:
    lm = random_lm("qwen2")
    with pytest.raises(TokenizationError, match="the prompt '' has no tokens"):
        lm.answer_logprobs([requests(1)[0].prompt, ""], ["Rome", "Rome"])
