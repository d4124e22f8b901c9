"""Free generation: each new token is one more column behind kept attention keys and values."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor
from transformers import DynamicCache

from editing.forward import ForwardPasses, log_softmax
from editing.heads import Ids
from editing.memory import done_in_parts
from editing.passes import causal_sight
from editing.tokens import pad_rows

Choose = Callable[[Tensor], Tensor]
"""Of log-probabilities [row, vocab], the next token of each row, int64 [row]."""


def likeliest(logprobs: Tensor) -> Tensor:
    """Return the likeliest token of each row."""
    return logprobs.argmax(1)


@torch.no_grad()
def generate(lm: ForwardPasses, heads: Sequence[Ids], n_tokens: int, choose: Choose = likeliest) -> list[Ids]:
    """Return ``n_tokens`` further tokens of each head, chosen one after another.

    Every token is computed once.  Patches look at whole rows: behind them the whole text is read again for each token.

    Args:
        heads: Token ids, at least one each.
    """
    work = _kept if lm.packs else _whole

    def grow(group: Sequence[int]) -> list[list[int]]:
        return work(lm, [tuple(heads[i]) for i in group], n_tokens, choose)

    rooms = [[*head, *[0] * n_tokens] for head in heads]
    out: list[Ids] = [()] * len(heads)
    for members, tails in done_in_parts(lm, range(len(heads)), partial(lm.groups_of, rooms), grow):
        for i, tail in zip(members, tails, strict=True):
            out[i] = tuple(tail)
    return out


def _kept(lm: ForwardPasses, heads: Sequence[Ids], n_tokens: int, choose: Choose) -> list[list[int]]:
    rows = pad_rows(heads)
    mask = rows.mask.to(lm.input_device)
    at = (mask.cumsum(1) - 1).clamp_min(0)
    lengths, every = mask.sum(1), torch.arange(len(heads), device=mask.device)
    cache = DynamicCache()
    final = lm.forward_seeing(rows.ids, at, causal_sight(mask), at, cache)[every, lengths - 1]
    tokens: list[Tensor] = []
    for step in range(n_tokens):
        tokens.append(choose(log_softmax(lm.logits(final))))
        if step + 1 < n_tokens:
            now = (lengths + step)[:, None]
            mask = torch.cat([mask, torch.ones_like(now)], 1)
            at = torch.cat([at, now], 1)
            final = lm.forward_seeing(tokens[-1][:, None], now, mask[:, None].bool(), at, cache)[:, 0]
    chosen: list[list[int]] = torch.stack(tokens, 1).tolist() if tokens else [[] for _ in heads]
    return chosen


def _whole(lm: ForwardPasses, heads: Sequence[Ids], n_tokens: int, choose: Choose) -> list[list[int]]:
    grown, ends = [list(head) for head in heads], [len(head) for head in heads]
    for _ in range(n_tokens):
        for row, token in zip(grown, choose(lm.next_logprobs(pad_rows(grown), ends)).tolist(), strict=True):
            row.append(token)
    return [row[len(head) :] for row, head in zip(grown, heads, strict=True)]
