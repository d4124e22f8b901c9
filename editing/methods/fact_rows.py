"""The token rows that a target search reads for each fact."""

from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

from editing.model.lm import LanguageModel
from editing.requests import EditRequest

KL_PROMPT = "{} is a"


class FactRows(NamedTuple):
    """The token rows of one fact: every context with the prompt and the target in it, then the KL prompt."""

    ids: list[tuple[int, ...]]
    lookups: list[int]
    target: tuple[int, ...]
    heads: list[int]
    """Length of the prompt part of each rewriting row; the target's tokens are predicted from ``head - 1`` on."""

    @property
    def n_live(self) -> int:
        """Columns that run again: what lies before a subject's last token never changes."""
        return sum(len(ids) - at for ids, at in zip(self.ids, self.lookups, strict=True))

    @property
    def live_lookups(self) -> tuple[int, ...]:
        """Of each sequence, where its lookup token stands among the live columns."""
        lengths = [len(ids) - at for ids, at in zip(self.ids, self.lookups, strict=True)]
        return tuple(accumulate(lengths[:-1], initial=0))

    @property
    def live_predicted(self) -> tuple[int, ...]:
        """Where each context's target tokens are predicted, among the live columns."""
        return tuple(
            at + head - 1 + k - lookup
            for at, head, lookup in zip(self.live_lookups, self.heads, self.lookups, strict=False)
            for k in range(len(self.target))
        )


def fact_rows(lm: LanguageModel, requests: Sequence[EditRequest], contexts: Sequence[str]) -> list[FactRows]:
    """Return the rows of each request; all have one row per context, and the KL prompt."""
    texts, ends = [], []
    for request in requests:
        for context in contexts:
            texts.append(context + request.prompt)
            ends.append(len(context) + request.subject_end)
        texts.append(KL_PROMPT.replace("{}", request.subject))
        ends.append(len(request.subject))
    prompts = lm.format.lookups(texts, ends)
    targets = lm.format.answers([r.prompt for r in requests], [r.target_new for r in requests])
    facts = []
    width = len(contexts) + 1
    for index, target in enumerate(targets):
        mine = prompts[index * width : (index + 1) * width]
        facts.append(
            FactRows(
                ids=[prompt.ids + target[:-1] for prompt in mine[:-1]] + [mine[-1].ids],
                lookups=[prompt.lookup for prompt in mine],
                target=target,
                heads=[len(prompt.ids) for prompt in mine[:-1]],
            )
        )
    return facts
