"""Generation with kept keys and values gives what reading the whole text again for each token gives."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from editing import edit
from editing.model.generation import generate
from tests.bench.plain import plain_continuations
from tests.editing.tiny import DECODERS, random_lm, requests

PROMPTS = [context + r.prompt for context, r in zip(("", "It rained all day. ", "So. ") * 2, requests(6), strict=True)]
families = pytest.mark.parametrize("family", DECODERS)


@families
def test_the_likeliest_tokens_are_those_of_the_whole_text(family: str) -> None:
    lm = random_lm(family, std=0.2)
    heads = lm.format.prompts(PROMPTS)
    assert len({len(head) for head in heads}) > 2, "rows of different length"
    expected = plain_continuations(lm, PROMPTS, 6)
    assert generate(lm, heads, 6) == expected
    assert len(set(expected)) > 1


@pytest.mark.parametrize("family", ["mistral", "gemma2", "gemma3_text"])
def test_behind_a_sliding_window(family: str) -> None:
    narrow, wide = random_lm(family, std=0.2, sliding_window=5), random_lm(family, std=0.2)
    heads = narrow.format.prompts(PROMPTS)
    found = generate(narrow, heads, 6)
    # Each alone: Hugging Face's own masks give NaN where the padding is longer than the window.
    assert found == [plain_continuations(narrow, [prompt], 6)[0] for prompt in PROMPTS]
    assert found != generate(wide, heads, 6), "it matters"


def test_batches_change_nothing() -> None:
    lm = random_lm("llama", std=0.2)
    heads = lm.format.prompts(PROMPTS)
    together = generate(lm, heads, 4)
    lm.tokens_per_forward = 24
    assert generate(lm, heads, 4) == together
    assert generate(lm, heads, 0) == [()] * len(heads)


def test_a_patch_reads_the_whole_text_again_for_each_token() -> None:
    """GRACE and in-context editing look at whole rows, so nothing is kept."""
    lm = random_lm("gpt2", std=0.2)
    seen: list[int] = []

    def choose(logprobs: Tensor, _numbers: Sequence[int], _step: int) -> Tensor:
        seen.append(len(logprobs))
        return logprobs.argmax(1)

    class Watching(type(lm)):  # type: ignore[misc]
        packs = False

    lm.__class__ = Watching
    assert generate(lm, lm.format.prompts(PROMPTS), 3, choose) == plain_continuations(lm, PROMPTS, 3)
    assert seen and torch.tensor(seen).sum() == 3 * len(PROMPTS)


def test_behind_a_codebook_the_prompt_ends_where_it_ended() -> None:
    """GRACE asks its codebook at the prompt's last token, not at the last one that was generated."""
    lm, facts = random_lm("gpt2"), requests(6)
    edit(lm, facts[:3], editor="grace", layers=[1], steps=4)
    heads = lm.format.prompts([fact.prompt for fact in facts])
    tails = generate(lm, heads, 4)
    assert all(score.n_correct == score.n_tokens for score in lm.score_ids(heads, tails))
