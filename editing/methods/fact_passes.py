"""The passes of a target search: the facts of a batch in rows of similar length, of one chain of edits or of several."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from editing.methods.fact_rows import FactRows
from editing.model.lm import LanguageModel
from editing.model.packing import Front, Ids, common_front, side_by_side
from editing.model.upper_pass import Prefix, UpperPass, hooked, live_columns

WIDE = 512
"""Columns of a row, from which on a fact's sequences stand in rows of their own: every column of a row looks at every
other, and most of these looks are masked."""
Places = Sequence[tuple[int, int]]
"""Rows and columns."""


class Chains(NamedTuple):
    """Which chain of edits each fact belongs to, and what the blocks below the states are in each."""

    lm: LanguageModel
    owners: tuple[int, ...]
    weights: tuple[Mapping[str, Tensor], ...]

    @classmethod
    def of(cls, lm: LanguageModel, under: Sequence[Mapping[str, Tensor]]) -> "Chains":
        weights = tuple({id(mine): mine for mine in under}.values())
        if len({frozenset(mine) for mine in weights}) > 1:
            raise ValueError(
                f"expected the same parameters of each chain, found {sorted({tuple(mine) for mine in weights})}"
            )
        numbers = {id(mine): number for number, mine in enumerate(weights)}
        return cls(lm, tuple(numbers[id(mine)] for mine in under), weights)

    @property
    def names(self) -> list[str]:
        return sorted({name for mine in self.weights for name in mine})

    def of_facts(self, numbers: Sequence[int]) -> "Chains":
        return self._replace(owners=tuple(self.owners[i] for i in numbers))

    def each(self, facts: Sequence[int]) -> Iterator[tuple[int, list[int]]]:
        """Give each chain's number and those of the facts that are its own, with its weights in the model."""
        for chain in sorted({self.owners[i] for i in facts}):
            self.lm.restore(self.weights[chain])
            yield chain, [i for i in facts if self.owners[i] == chain]


@dataclass(frozen=True)
class FactPass:
    """Some of a batch's facts in the passes of the blocks above the edited layer: a row each, or a row per sequence.

    Attributes:
        facts: int64 [fact], numbers in the batch.
        upper: The pass; its columns are of each sequence those from the lookup token on.
        lookups: Of each fact, where each sequence's lookup token stands, the bare prompt's first and the KL prompt's last.
        predicted: Of each fact, where the target's tokens are predicted, context by context.
    """

    facts: Tensor
    upper: UpperPass
    lookups: tuple[Places, ...]
    predicted: tuple[Places, ...]

    @property
    def initial(self) -> Tensor:
        """The states [fact, d] at the bare prompts' lookup tokens."""
        return self.upper.hidden[_flat([places[:1] for places in self.lookups], self.upper.hidden.device)]

    def above(self, n_blocks: int) -> "FactPass":
        """Return the same rows ``n_blocks`` blocks further up."""
        return replace(self, upper=self.upper.above(n_blocks)) if n_blocks else self

    def select(self, facts: Tensor) -> "FactPass":
        chosen = facts.tolist()
        rows = sorted({row for i in chosen for row, _ in self.lookups[i]})
        number = {row: new for new, row in enumerate(rows)}

        def moved(places: Places) -> Places:
            return [(number[row], column) for row, column in places]

        return FactPass(
            self.facts[facts],
            self.upper.select(torch.tensor(rows, device=facts.device)),
            tuple(moved(self.lookups[i]) for i in chosen),
            tuple(moved(self.predicted[i]) for i in chosen),
        )

    def states(self, delta: Tensor, module: nn.Module | None) -> Tensor:
        """Return the final states [n, d], with ``delta`` [fact, d] added at the lookup tokens.

        Fact by fact where the target's tokens are predicted, then each fact's at the KL prompt's lookup token.
        """
        device = delta.device
        shifted = _flat(self.lookups, device)
        owner = torch.tensor([i for i, places in enumerate(self.lookups) for _ in places], device=device)
        read = _flat([*self.predicted, *(places[-1:] for places in self.lookups)], device)

        def moved(state: Tensor) -> Tensor:
            return state.index_put(shifted, delta[owner].to(state.dtype), accumulate=True)

        if module is None:
            return self.upper(moved(self.upper.hidden), read)
        with hooked(module.register_forward_hook(lambda _module, _args, output: moved(output))):
            return self.upper(self.upper.hidden, read)


def _flat(places: Sequence[Places], device: torch.device) -> tuple[Tensor, Tensor]:
    """Return rows and columns, each int64 [n], of all places."""
    rows, columns = torch.tensor([place for mine in places for place in mine], device=device).T
    return rows, columns


def fact_passes(lm: LanguageModel, facts: Sequence[FactRows], chains: Chains, first_block: int) -> list[FactPass]:
    """Return the facts in parts of similar length, ready for the blocks from ``first_block`` on.

    No pass has more than ``tokens_per_forward`` tokens, unless one row alone has.
    """
    narrow = [i for i, fact in enumerate(facts) if sum(map(len, fact.ids)) <= WIDE]
    parts = []
    if narrow:
        # Contexts stand in front of every fact's prompt; their keys and values are computed once per chain.
        front = _front([facts[i].ids for i in narrow], [facts[i].lookups for i in narrow])
        prefixes = _prefixes(lm, front, chains, narrow)
        for group in lm.groups([facts[i].n_live for i in narrow]):
            numbers = sorted((narrow[i] for i in group), key=lambda i: chains.owners[i])
            mine = [facts[i] for i in numbers]
            rows = [(fact.ids, fact.lookups) for fact in mine]
            upper = _upper_pass(lm, rows, front, prefixes, chains, numbers, first_block)
            lookups = [[(row, column) for column in fact.live_lookups] for row, fact in enumerate(mine)]
            predicted = [[(row, column) for column in fact.live_predicted] for row, fact in enumerate(mine)]
            index = torch.tensor(numbers, device=upper.hidden.device)
            parts.append(FactPass(index, upper, tuple(lookups), tuple(predicted)))
    for i in sorted(set(range(len(facts))) - set(narrow)):
        parts.append(_in_own_rows(lm, facts[i], i, chains, first_block))
    return parts


def _in_own_rows(lm: LanguageModel, fact: FactRows, number: int, chains: Chains, first_block: int) -> FactPass:
    """Return the pass of one fact, whose sequences have a row each."""
    rows = [([ids], [at]) for ids, at in zip(fact.ids, fact.lookups, strict=True)]
    front = _front([ids for ids, _ in rows], [at for _, at in rows])
    prefixes = _prefixes(lm, front, chains, [number])
    upper = _upper_pass(lm, rows, front, prefixes, chains, [number] * len(rows), first_block)
    lookups = [(row, 0) for row in range(len(rows))]
    predicted = [
        (row, head - 1 + k - at)
        for row, (head, at) in enumerate(zip(fact.heads, fact.lookups, strict=False))
        for k in range(len(fact.target))
    ]
    return FactPass(torch.tensor([number], device=upper.hidden.device), upper, (lookups,), (predicted,))


def _front(groups: Sequence[Sequence[Ids]], lookups: Sequence[Sequence[int]]) -> Front:
    return common_front(groups, [min(at) for at in zip(*lookups, strict=True)])


def _prefixes(lm: LanguageModel, front: Front, chains: Chains, facts: Sequence[int]) -> dict[int, Prefix]:
    """Return what stands in front of the rows of each chain."""
    return {} if front.head is None else {chain: lm.prefix(front.head) for chain, _ in chains.each(facts)}


def _upper_pass(
    lm: LanguageModel,
    rows: Sequence[tuple[Sequence[Ids], Sequence[int]]],
    front: Front,
    prefixes: Mapping[int, Prefix],
    chains: Chains,
    facts: Sequence[int],
    first_block: int,
) -> UpperPass:
    """Return one pass over the columns from the lookup tokens on.

    Args:
        rows: Sequences of each row, and where in each its lookup token stands.
        facts: The fact of each row; those of one chain stand together.
    """
    packed = side_by_side([sequences for sequences, _ in rows], front)
    paths: list[list[tuple[int, ...]]] = [[] for _ in rows]
    for _, row, path in packed.columns:
        paths[row].append(path)
    live = live_columns(
        packed,
        [
            [column for path, at in zip(mine, lookups, strict=True) for column in path[at:]]
            for mine, (_, lookups) in zip(paths, rows, strict=True)
        ],
    )
    at_once = max(1, lm.tokens_per_forward // packed.ids.shape[1])
    uppers, start = [], 0
    for chain, own in chains.each(facts):
        for begin in range(start, start + len(own), at_once):
            some = slice(begin, min(begin + at_once, start + len(own)))
            uppers.append(lm.upper_pass_at(packed.rows(some), live.rows(some), first_block, prefixes.get(chain)))
        start += len(own)
    return UpperPass.joined(uppers)


def still_going(parts: Sequence[FactPass], going: Tensor) -> list[FactPass]:
    """Return the parts without the facts that are done; ``going`` is bool [edit], in the parts' order."""
    kept, start = [], 0
    for part in parts:
        stop = start + len(part.facts)
        chosen = going[start:stop].nonzero()[:, 0]
        if len(chosen):
            kept.append(part if len(chosen) == len(part.facts) else part.select(chosen))
        start = stop
    return kept


def inverse_order(parts: Sequence[FactPass]) -> Tensor:
    """Return where in the parts' order each fact stands."""
    return torch.cat([part.facts for part in parts]).argsort()
