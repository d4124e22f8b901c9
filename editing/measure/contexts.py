"""Context prefixes: short texts sampled from the model itself, put before a prompt so that edits do not depend on it."""

from collections.abc import Sequence

from editing.model.lm import LanguageModel

TOP_K = 5


def sample_contexts(
    lm: LanguageModel, n_contexts: int, *, n_tokens: Sequence[int], seed: int, starts: Sequence[str]
) -> tuple[str, ...]:
    """Return the bare context ``""`` followed by ``n_contexts`` sampled prefixes, each ending in ``". "``.

    The reference samples without a seed, so that even ROME differs between processes; here the same seed gives the
    same prefixes, and runs store them.

    Args:
        n_tokens: Lengths after the start; equal shares of the prefixes have each, the first lengths one more if need be.
        starts: What the prefixes begin with, in turn; ``""`` is the start of text.
    """
    texts = []
    for part, length in enumerate(n_tokens):
        share = range(part, n_contexts, len(n_tokens))
        begins = [starts[i % len(starts)] for i in range(len(share))]
        texts += lm.sample(begins, length, top_k=TOP_K, seed=seed + part) if begins else []
    # Braces would read as slots elsewhere in the field's tools, and a second full stop as an empty sentence.
    return ("", *(text.replace("{", " ").replace("}", " ").rstrip(". ") + ". " for text in texts))
