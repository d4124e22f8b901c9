"""What an unedited model knows: each fact asked by its first token, by all tokens, and by letting the model write."""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch

from editing.model.forward import log_softmax
from editing.model.lm import LanguageModel
from editing.model.memory import done_in_parts
from editing.requests import EditRequest

VERSION = 1
"""Raised when its results change."""


class Answered(NamedTuple):
    """What a model makes of the prompt of a fact."""

    rank: int
    """Of the true answer's first token among all tokens, 1 for the likeliest."""
    probability: float
    """Of that token."""
    first_token: bool
    """Whether it is the likeliest."""
    all_tokens: bool
    """Whether every token of the answer is the likeliest behind those before it."""
    nll: float
    """Of the whole answer, in nats, summed over its tokens."""
    n_tokens: int
    text: str | None
    """What the model writes behind the prompt; None where it gives NaN."""


@torch.no_grad()
def ask_facts(lm: LanguageModel, requests: Sequence[EditRequest], *, text_tokens: int) -> list[Answered | None]:
    """Ask each request's prompt for its true target; None where it has none, or its prompt fills the model's context.

    Args:
        text_tokens: How many tokens the model writes, the same number behind every prompt.
    """
    prompts = [request.prompt for request in requests]
    ids, limit = lm.format.prompts(prompts), lm.context_tokens
    fits = [i for i, row in enumerate(ids) if limit is None or len(row) + text_tokens < limit]
    asked = [i for i in fits if requests[i].target_true]
    found: list[Answered | None] = [None] * len(requests)
    if not asked:
        return found
    heads = [ids[i] for i in asked]
    tails = lm.format.answers([prompts[i] for i in asked], [requests[i].target_true for i in asked])
    with lm.progress.part(0.0, 0.6):
        texts = lm.continue_greedily([prompts[i] for i in asked], text_tokens)

    def ask(group: Sequence[int]) -> list[Answered]:
        rows = lm.answer_rows([heads[i] for i in group], [tails[i] for i in group])
        logprobs = log_softmax(lm.answer_logits(rows))
        wanted = logprobs.gather(1, rows.token[:, None].to(logprobs.device))
        ranks = ((logprobs > wanted).sum(1) + 1).cpu()
        best = (logprobs.argmax(1).cpu() == rows.token.cpu()) & ~logprobs.isnan().any(1).cpu()
        nll = -wanted[:, 0].double().cpu()
        answered, start = [], 0
        for number in group:
            stop = start + len(tails[number])
            answered.append(
                Answered(
                    rank=int(ranks[start]),
                    probability=float((-nll[start]).exp()),
                    first_token=bool(best[start]),
                    all_tokens=bool(best[start:stop].all()),
                    nll=float(nll[start:stop].sum()),
                    n_tokens=len(tails[number]),
                    text=texts[number],
                )
            )
            start = stop
        return answered

    whole = [head + tail[:-1] for head, tail in zip(heads, tails, strict=True)]
    with lm.progress.part(0.6, 1.0):
        parts = done_in_parts(lm, range(len(asked)), partial(lm.groups_of, whole), ask)
    for members, answered in parts:
        for number, answer in zip(members, answered, strict=True):
            found[asked[number]] = answer
    return found
