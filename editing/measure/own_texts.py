"""Texts that a model samples itself: what second moments can be taken over where nobody gives texts."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from editing.model.lm import LanguageModel

TOKENS = 64
"""Of each text, its first one aside."""
TOP_K = 50
TOKENS_PER_DIMENSION = 4
"""Sampled tokens for each dimension of a key: with fewer than one a second moment is singular.  Enough to try an editor; an
update is exact to some per cent only with hundreds to thousands (docs/own-model.md)."""
FEWEST = 200


def own_texts(
    lm: "LanguageModel",
    texts: range,
    *,
    seed: int = 0,
    n_tokens: int = TOKENS,
    top_k: int = TOP_K,
    temperature: float = 1.0,
) -> list[str]:
    """Return some of the texts that a model samples from the start of text; each depends on its number and the seed only.

    Args:
        texts: Their numbers.
        n_tokens: Of each text; fewer where the model's context is shorter.
        top_k: Each token is drawn from so many of the likeliest.
        temperature: By which their logits are divided.

    Raises:
        TokenizationError: The tokenizer has neither a start-of-text nor an end-of-text token.
    """
    # Beside a start of text, and what a tokenizer may add where the text is read again.
    room = n_tokens if lm.context_tokens is None else lm.context_tokens - 2
    return lm.sample_texts(texts, min(n_tokens, room), top_k=top_k, seed=seed, temperature=temperature)


def enough(d_in: int) -> int:
    """Return how many texts a second moment of keys of this size takes at least."""
    return max(FEWEST, -(-TOKENS_PER_DIMENSION * d_in // TOKENS))
