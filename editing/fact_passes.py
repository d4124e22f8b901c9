"""The passes of a target search: the facts of a batch in rows of similar length, of one chain of edits or of several."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from editing.fact_rows import FactRows
from editing.lm import LanguageModel
from editing.packing import common_front, side_by_side
from editing.passes import UpperPass, hooked, live_columns


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
    """Some of a batch's facts, of similar length: one row each in the passes of the blocks above the edited layer.

    Attributes:
        facts: int64 [row], numbers in the batch.
        upper: The pass; its columns are of each of a fact's sequences those from the lookup token on.
        lookups: Of each row, the column of each sequence's lookup token, the KL prompt's last.
        predicted: Of each row, the columns in which the target's tokens are predicted, context by context.
    """

    facts: Tensor
    upper: UpperPass
    lookups: tuple[tuple[int, ...], ...]
    predicted: tuple[tuple[int, ...], ...]

    def above(self, n_blocks: int) -> "FactPass":
        """Return the same rows ``n_blocks`` blocks further up."""
        return replace(self, upper=self.upper.above(n_blocks)) if n_blocks else self

    def select(self, rows: Tensor) -> "FactPass":
        chosen = rows.tolist()
        return FactPass(
            self.facts[rows],
            self.upper.select(rows),
            tuple(self.lookups[row] for row in chosen),
            tuple(self.predicted[row] for row in chosen),
        )

    def states(self, delta: Tensor, module: nn.Module | None) -> Tensor:
        """Return the final states [n, d], with ``delta`` [row, d] added at the lookup tokens.

        Row by row where the target's tokens are predicted, then each row's at the KL prompt's lookup token.
        """
        device = delta.device
        shifted = _places(self.lookups, device)
        predicted = _places(self.predicted, device)
        kl = _places([mine[-1:] for mine in self.lookups], device)
        read = (torch.cat([predicted[0], kl[0]]), torch.cat([predicted[1], kl[1]]))

        def moved(state: Tensor) -> Tensor:
            return state.index_put(shifted, delta[shifted[0]].to(state.dtype), accumulate=True)

        if module is None:
            return self.upper(moved(self.upper.hidden), read)
        with hooked(module.register_forward_hook(lambda _module, _args, output: moved(output))):
            return self.upper(self.upper.hidden, read)


def _places(columns: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Return rows and columns, each int64 [n], of the columns listed for each row."""
    rows = [row for row, mine in enumerate(columns) for _ in mine]
    flat = [column for mine in columns for column in mine]
    return torch.tensor(rows, device=device), torch.tensor(flat, device=device)


def fact_passes(lm: LanguageModel, facts: Sequence[FactRows], chains: Chains, first_block: int) -> list[FactPass]:
    """Return the facts in parts of similar length, ready for the blocks from ``first_block`` on."""
    # Contexts stand in front of every fact's prompt; their keys and values are computed once per chain.
    limits = [min(at) for at in zip(*(fact.lookups for fact in facts), strict=True)]
    front = common_front([fact.ids for fact in facts], limits)
    prefixes = {} if front.head is None else {i: lm.prefix(front.head) for i, _ in chains.each(range(len(facts)))}
    parts = []
    for group in lm.groups([fact.n_live for fact in facts]):
        group = sorted(group, key=lambda i: chains.owners[i])
        mine = [facts[i] for i in group]
        packed = side_by_side([fact.ids for fact in mine], front)
        paths: list[list[tuple[int, ...]]] = [[] for _ in mine]
        for _, row, path in packed.columns:
            paths[row].append(path)
        live = live_columns(
            packed,
            [
                [column for path, at in zip(rows, fact.lookups, strict=True) for column in path[at:]]
                for rows, fact in zip(paths, mine, strict=True)
            ],
        )
        uppers, start = [], 0
        for chain, own in chains.each(group):
            rows, start = slice(start, start + len(own)), start + len(own)
            uppers.append(lm.upper_pass_at(packed.rows(rows), live.rows(rows), first_block, prefixes.get(chain)))
        upper = UpperPass.joined(uppers)
        index = torch.tensor(group, device=upper.hidden.device)
        parts.append(FactPass(index, upper, tuple(f.live_lookups for f in mine), tuple(f.live_predicted for f in mine)))
    return parts


def still_going(parts: Sequence[FactPass], going: Tensor) -> list[FactPass]:
    """Return the parts without the facts that are done; ``going`` is bool [edit], in the parts' order."""
    kept, start = [], 0
    for part in parts:
        stop = start + len(part.facts)
        rows = going[start:stop].nonzero()[:, 0]
        if len(rows):
            kept.append(part if len(rows) == len(part.facts) else part.select(rows))
        start = stop
    return kept


def inverse_order(parts: Sequence[FactPass]) -> Tensor:
    """Return where in the parts' order each fact stands."""
    return torch.cat([part.facts for part in parts]).argsort()
