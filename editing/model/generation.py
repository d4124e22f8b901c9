"""Free generation: each new token is one more column behind kept attention keys and values."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch
import transformers
from torch import Tensor

from editing.errors import ModelError
from editing.model.forward import log_softmax
from editing.model.heads import Ids
from editing.model.memory import done_in_parts
from editing.model.tokens import pad_rows
from editing.model.upper_pass import causal_sight

if TYPE_CHECKING:
    from editing.model.lm import LanguageModel

NO_TOKEN = -1
"""Stands last in a continuation in which the model gave NaN."""
Choose = Callable[[Tensor, Sequence[int], int], Tensor]
"""Of log-probabilities [row, vocab], the numbers of the heads that the rows continue and how many tokens these have got, the
next tokens, int64 [row]."""
Stop = Callable[[Sequence[int]], bool]
"""Whether a continuation is complete: nothing is to follow these tokens."""


def likeliest(logprobs: Tensor, _numbers: Sequence[int], _step: int) -> Tensor:
    """Return the likeliest token of each row, ``NO_TOKEN`` where there is NaN."""
    best = logprobs.max(1)
    return best.indices.masked_fill(best.values.isnan(), NO_TOKEN)


class Draw:
    """Draws from the ``top_k`` likeliest tokens; what a head draws depends on the seed and its number only.

    Args:
        without: Tokens that are never drawn.
        first: The number of the first head.
        temperature: By which logits are divided.
    """

    def __init__(
        self, top_k: int, seed: int, without: Sequence[int], *, first: int = 0, temperature: float = 1.0
    ) -> None:
        self._top_k, self._seed, self._without = top_k, seed, torch.tensor(without, dtype=torch.int64)
        self._first, self._temperature = first, temperature

    def __call__(self, logprobs: Tensor, numbers: Sequence[int], step: int) -> Tensor:
        allowed = logprobs.double().cpu().index_fill(1, self._without, -torch.inf)
        lost = allowed.isnan().any(1)
        best = allowed.masked_fill(lost[:, None], 0.0).topk(min(self._top_k, allowed.shape[1]))
        drawn = [
            torch.multinomial(chances, 1, generator=self._generator(number, step))
            for chances, number in zip((best.values / self._temperature).softmax(1), numbers, strict=True)
        ]
        return best.indices.gather(1, torch.stack(drawn))[:, 0].masked_fill(lost, NO_TOKEN).to(logprobs.device)

    def _generator(self, number: int, step: int) -> torch.Generator:
        # Of its own for each token: a part that is done again, because memory did not suffice, draws the same.
        place = self._seed * 1_000_003 + self._first + number
        return torch.Generator().manual_seed((place * 1_000_003 + step) % 2**63)


def never(_tail: Sequence[int]) -> bool:
    return False


@torch.no_grad()
def generate(
    lm: "LanguageModel", heads: Sequence[Ids], n_tokens: int, choose: Choose = likeliest, stop: Stop = never
) -> list[Ids]:
    """Return at most ``n_tokens`` further tokens of each head, chosen one after another.

    Every token is computed once.  Patches look at whole rows, and an encoder-decoder's decoder keeps nothing: there the
    whole text is read again for each token.

    Args:
        heads: Token ids, at least one each.
        stop: Where a continuation ends early; its last token is part of it.  It also ends at ``NO_TOKEN``.
    """
    longest = max(map(len, heads), default=0)
    if lm.context_tokens is not None and longest + n_tokens > lm.context_tokens:
        raise ModelError(
            f"{n_tokens} tokens after a prompt of {longest} exceed the model's context of {lm.context_tokens}; ask for fewer "
            "tokens (score.text_tokens, score.generation.tokens)"
        )
    work = _kept if lm.packs else _whole

    def grow(group: Sequence[int]) -> list[list[int]]:
        def choose_for(logprobs: Tensor, going: Sequence[int], step: int) -> Tensor:
            return choose(logprobs, [group[i] for i in going], step)

        return work(lm, [tuple(heads[i]) for i in group], n_tokens, choose_for, stop)

    rooms = [[*head, *[0] * n_tokens] for head in heads]
    out: list[Ids] = [()] * len(heads)
    for members, tails in done_in_parts(lm, range(len(heads)), partial(lm.groups_of, rooms), grow):
        for i, tail in zip(members, tails, strict=True):
            out[i] = tuple(tail)
    return out


def _kept(lm: "LanguageModel", heads: Sequence[Ids], n_tokens: int, choose: Choose, stop: Stop) -> list[list[int]]:
    rows = pad_rows(heads)
    mask = rows.mask.to(lm.input_device)
    at = (mask.cumsum(1) - 1).clamp_min(0)
    lengths, every = mask.sum(1), torch.arange(len(heads), device=mask.device)
    cache = transformers.DynamicCache()
    tails: list[list[int]] = [[] for _ in heads]
    going = list(range(len(heads)))
    final = lm.forward_seeing(rows.ids, at, causal_sight(mask), at, cache)[every, lengths - 1] if n_tokens else None
    for step in range(n_tokens):
        assert final is not None
        chosen = choose(log_softmax(lm.logits(final)), going, step)
        kept = _append(tails, going, chosen, stop)
        if not kept or step + 1 == n_tokens:
            break
        if len(kept) < len(going):
            left = torch.tensor(kept, device=mask.device)
            chosen, mask, at, lengths = chosen[left.to(chosen.device)], mask[left], at[left], lengths[left]
            cache.batch_select_indices(left)
            going = [going[i] for i in kept]
        now = (lengths + step)[:, None]
        mask = torch.cat([mask, torch.ones_like(now)], 1)
        at = torch.cat([at, now], 1)
        final = lm.forward_seeing(chosen[:, None], now, mask[:, None].bool(), at, cache)[:, 0]
    return tails


def _whole(lm: "LanguageModel", heads: Sequence[Ids], n_tokens: int, choose: Choose, stop: Stop) -> list[list[int]]:
    tails: list[list[int]] = [[] for _ in heads]
    going = list(range(len(heads)))
    for step in range(min(n_tokens, lm.head.longest or n_tokens)):
        logits = lm.head.next_logits(lm, [heads[i] for i in going], [tuple(tails[i]) for i in going])
        kept = _append(tails, going, choose(log_softmax(logits), going, step), stop)
        going = [going[i] for i in kept]
        if not going:
            break
    return tails


def _append(tails: list[list[int]], going: Sequence[int], chosen: Tensor, stop: Stop) -> list[int]:
    """Give each row that goes on its token; return which of them, by place among these, still go on."""
    for row, token in zip(going, chosen.tolist(), strict=True):
        tails[row].append(token)
    return [place for place, row in enumerate(going) if tails[row][-1] != NO_TOKEN and not stop(tails[row])]
