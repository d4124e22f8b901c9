"""A corrupted run of one prompt, and what becomes of it where one position's states are put back.

A restored state changes neither the blocks below it nor the positions before it, so these are taken from the corrupted run.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
import transformers
from torch import Tensor, nn

from editing.model.families import submodule
from editing.model.lm import LanguageModel, Site, log_softmax
from editing.model.memory import Part, done_in_parts
from editing.model.upper_pass import Calls, KeptKeys, UpperPass, cut_columns, hooked, map_calls


class Corrupted(NamedTuple):
    """The prompt with noise on some embeddings, a row per draw, recorded block by block."""

    lm: LanguageModel
    inputs: tuple[Tensor, ...]
    """Of each block [draw, column, d], and of the final norm."""
    calls: Calls
    """What else each block was given."""
    blocks: tuple[Any, ...]
    final_norm: Any
    cache: "transformers.DynamicCache"
    answer: int

    @property
    def n_draws(self) -> int:
        return int(self.inputs[0].shape[0])

    @property
    def n_tokens(self) -> int:
        return int(self.inputs[0].shape[1])

    @property
    def low(self) -> float:
        """The answer's probability, mean over draws."""
        return float(self._probability(self.final_norm(self.inputs[-1][:, -1])).mean())

    def restored(
        self, positions: Sequence[int], states: Mapping[Site, Tensor], *, kind: str, first_layer: int
    ) -> Tensor:
        """Return the answer's probability [position] with each position's states put back, mean over draws.

        Args:
            states: [column, d] at each site that is restored.
            kind: Of the sites; a ``block``'s output is the input of the next one.
            first_layer: The lowest of their layers.
        """
        numbers = [(position, draw) for position in positions for draw in range(self.n_draws)]
        first = first_layer + 1 if kind == "block" else first_layer

        def split(chosen: Sequence[int]) -> list[Part[list[tuple[int, int]]]]:
            lengths = [self.n_tokens - numbers[i][0] for i in chosen]
            groups = [[chosen[i] for i in group] for group in self.lm.groups(lengths)]
            return [Part(group, [numbers[i] for i in group]) for group in groups]

        def work(rows: list[tuple[int, int]]) -> Tensor:
            return self._run(rows, states, kind, first)

        found = done_in_parts(self.lm, range(len(numbers)), split, work)
        order = torch.tensor([number for members, _ in found for number in members])
        probability = torch.cat([part for _, part in found])[order.argsort()]
        return probability.reshape(len(positions), self.n_draws).mean(1)

    def _run(self, rows: list[tuple[int, int]], states: Mapping[Site, Tensor], kind: str, first: int) -> Tensor:
        """Return the answer's probability [row] of (position, draw) rows, which run from the first position on."""
        begin = min(position for position, _ in rows)
        device = self.inputs[0].device
        draws = torch.tensor([draw for _, draw in rows], device=device)
        index, places = torch.arange(len(rows), device=device), torch.tensor([p for p, _ in rows], device=device)
        hidden = self.inputs[first][draws, begin:]

        def put_back(whole: Tensor, state: Tensor) -> Tensor:
            return whole.index_put((index, places - begin), state[places.to(state.device)].to(whole))

        if kind == "block":
            ((_, state),) = states.items()
            hidden = put_back(hidden, state)
            states = {}
        # At the last block's MLP only the last column is needed, unless something is put back there.
        last_mlp = None if any(site.layer == self.lm.n_layers - 1 for site in states) else self.lm.last_mlp(first)
        upper = UpperPass(hidden, self.blocks[first:], self._cut(first, begin, draws), self.final_norm, last_mlp)
        read = index, torch.full_like(index, self.n_tokens - 1 - begin)
        with ExitStack() as stack:
            for site, state in states.items():
                stack.enter_context(hooked(self.lm.module_at(site).register_forward_hook(_changed(put_back, state))))
            final = upper(hidden, read) if self.blocks[first:] else self.final_norm(hidden[read])
        return self._probability(final)

    def _cut(self, first: int, begin: int, draws: Tensor) -> Calls:
        """Return what the blocks from ``first`` on are given for the columns from ``begin`` on, row by row of the draws."""
        kept = torch.arange(begin).expand(self.n_draws, -1)
        again = torch.arange(begin, self.n_tokens).expand(self.n_draws, -1)
        layers = {i: layer for i, layer in enumerate(self.cache.layers) if i >= first}
        seen = KeptKeys({i: (layer.keys[:, :, :begin], layer.values[:, :, :begin]) for i, layer in layers.items()})

        def cut(value: Any) -> Any:
            if value is self.cache:
                return seen.select(draws)
            columns = cut_columns(value, kept, again, self.n_tokens, 0)
            per_draw = isinstance(columns, Tensor) and columns.ndim > 1 and columns.shape[0] == self.n_draws
            return columns[draws.to(columns.device)] if per_draw else columns

        return map_calls(cut, self.calls[first:])

    def _probability(self, final: Tensor) -> Tensor:
        return log_softmax(self.lm.logits(final))[:, self.answer].exp().double().cpu()


@torch.no_grad()
def corrupted_run(
    lm: LanguageModel, ids: Sequence[int], subject: tuple[int, int], shift: Tensor, answer: int
) -> Corrupted:
    """Return the run of a prompt with noise on its subject's embeddings.

    Args:
        subject: First and last position.
        shift: [draw, subject's token, d], what is added.
    """
    n_draws, n_tokens = len(shift), len(ids)
    rows = torch.tensor([list(ids)]).expand(n_draws, -1)
    at = torch.arange(n_tokens).expand(n_draws, -1)
    sees = torch.ones(n_tokens, n_tokens, dtype=torch.bool).tril().expand(n_draws, -1, -1)
    cache = transformers.DynamicCache()
    with noise_on(lm, subject, shift):
        inputs, calls, blocks, norm = lm.recorded(0, lambda: lm.forward_seeing(rows, at, sees, at, cache))
    return Corrupted(lm, tuple(inputs), tuple(calls), blocks, norm, cache, answer)


@contextmanager
def noise_on(lm: LanguageModel, subject: tuple[int, int], shift: Tensor) -> Any:
    """Inside, each row's embeddings from ``subject``'s first to its last position have their row of ``shift`` added."""

    def corrupt(_module: nn.Module, _args: Any, output: Tensor) -> Tensor:
        noisy = output.clone()
        noisy[:, subject[0] : subject[1] + 1] += shift.to(output)
        return noisy

    with hooked(submodule(lm.model, lm.family.embeddings).register_forward_hook(corrupt)):
        yield


def _changed(change: Callable[[Tensor, Tensor], Tensor], state: Tensor) -> Callable[..., Any]:
    """Return a hook that changes a module's output, whether it is a tensor or a tuple that begins with it."""

    def hook(_module: nn.Module, _args: Any, output: Any) -> Any:
        whole = output[0] if isinstance(output, tuple) else output
        whole = change(whole, state)
        return (whole, *output[1:]) if isinstance(output, tuple) else whole

    return hook
