"""How a free text runs: the entropy of its n-grams, and how much of it says the same again."""

import math
import re
from collections import Counter

_WEIGHTS = {2: 2 / 3, 3: 4 / 3}
"""Of bigrams and trigrams, as in ROME's code (arXiv 2202.05262)."""


def words(text: str) -> list[str]:
    """Return words and single punctuation marks."""
    return re.findall(r"\w+|[^\w\s]", text)


def ngram_entropy(text: str) -> float | None:
    """Return the mean of the bigrams' and trigrams' entropies in bits, weighted 2/3 and 4/3; None below three words."""
    found = words(text)
    if len(found) < 3:
        return None
    return sum(weight * _entropy(_ngrams(found, n)) for n, weight in _WEIGHTS.items()) / len(_WEIGHTS)


def repetition(text: str, n: int = 4) -> float | None:
    """Return the share of n-grams that have stood in the text before; None if it has none."""
    found = _ngrams(words(text), n)
    return 1 - len(found) / found.total() if found else None


def _ngrams(found: list[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(found[i : i + n]) for i in range(len(found) - n + 1))


def _entropy(counts: Counter[tuple[str, ...]]) -> float:
    total = counts.total()
    return -sum(count / total * math.log2(count / total) for count in counts.values())
