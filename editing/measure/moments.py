"""Second moments of a layer's keys over a corpus: streamed, mergeable, of all layers in one pass."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from editing.errors import MomentError
from editing.model.lm import LanguageModel, Site
from editing.model.memory import done_in_parts
from editing.model.tokens import pad_rows

BLOCKS, SMALLEST_BLOCK = 8, 128
"""Into how many bands a sum is cut, so that what lies above the diagonal need not be computed, and the narrowest band."""
TEXTS_AT_ONCE = 64
"""Texts put into rows together: shards of a multiple of it have the very same rows, and so the same float32 products."""
_CONSTRUCTOR = "util.runningstats.SecondMoment()"


@dataclass(frozen=True)
class SecondMoment:
    """The uncentred second moment of one layer's keys, ``C = E[kkᵀ]``, over ``n_tokens`` tokens."""

    matrix: Tensor
    """float64 [d_in, d_in]"""
    n_tokens: int

    def write_npz(self, path: Path, *, sample_size: int = -1) -> None:
        """Write the layout that ROME, MEMIT and EasyEdit read: the sum of ``kkᵀ`` and the number of tokens.

        Args:
            sample_size: Texts; those readers take a file only where it is what they are asked for.
        """
        total = (self.matrix.double() * self.n_tokens).cpu().numpy()
        content: dict[str, Any] = {"mom2.constructor": _CONSTRUCTOR, "mom2.count": self.n_tokens, "mom2.mom2": total}
        np.savez(path, **content, sample_size=sample_size)

    @classmethod
    def read_npz(cls, path: Path, *, d_in: int) -> "SecondMoment":
        """Read a file that ROME, MEMIT or EasyEdit published, or that :meth:`write_npz` wrote.

        Raises:
            MomentError: It is no such file, it counts no tokens, or its matrix is not ``[d_in, d_in]``, real, symmetric, finite
                and without negative squares on its diagonal.
        """
        expected = "the .npz of ROME's layer_stats, with mom2.count and mom2.mom2 (the sum over tokens, not the mean)"
        try:
            with np.load(path, allow_pickle=False) as file:
                count, found = int(file["mom2.count"]), file["mom2.mom2"]
            if found.dtype.kind != "f":
                raise ValueError(f"mom2.mom2 holds {found.dtype}, not real numbers")
            total = torch.from_numpy(found).double()
        except (OSError, EOFError, KeyError, TypeError, ValueError, BadZipFile) as error:
            raise MomentError(f"{path} cannot be read ({error}); expected {expected}") from error
        if total.shape != (d_in, d_in):
            raise MomentError(
                f"{path} holds mom2.mom2 of shape {list(total.shape)}; expected [{d_in}, {d_in}], the layer's input size"
            )
        squares = total.diagonal()
        fits = torch.isfinite(total).all() and torch.allclose(total, total.T, rtol=1e-3)
        if count <= 0 or not fits or float(squares.min()) < 0 or float(squares.max()) == 0:
            raise MomentError(
                f"{path} counts {count} tokens (mom2.count), or its mom2.mom2 is not finite, symmetric, of positive squares; "
                f"expected {expected}"
            )
        matrix = total / count
        return cls((matrix + matrix.T) / 2, count)


class MomentAccumulator:
    """Streaming sums of ``kkᵀ`` for several layers; accumulators over parts of a corpus add up by :meth:`merge`.

    Every token of every text counts once, special tokens included and padding excluded.  Products are taken in the keys' own
    precision (float32 at least) and added in float64; of a symmetric matrix only the lower half is computed.
    """

    def __init__(self, layers: Sequence[int]) -> None:
        self.layers = tuple(layers)
        self.n_tokens = 0
        self._sums: dict[int, Tensor] = {}

    def update(self, lm: LanguageModel, sequences: Sequence[Sequence[int]]) -> None:
        """Add the keys of token sequences; all layers are read in one forward pass."""
        for _ in self.updates(lm, sequences):
            pass

    def updates(self, lm: LanguageModel, sequences: Sequence[Sequence[int]], *, start: int = 0) -> Iterator[int]:
        """Add the keys of token sequences, group by group; yield how many groups have been added.

        Args:
            start: How many it has already; groups are those of the same sequences and ``tokens_per_forward``.
        """
        sites = [Site("key", layer) for layer in self.layers]

        def read(group: Sequence[int]) -> dict[int, Tensor]:
            rows = pad_rows([sequences[i] for i in group])
            real = rows.mask.bool()
            return {site.layer: state[real.to(state.device)] for site, state in lm.states(rows, sites).items()}

        groups = lm.groups([len(sequence) for sequence in sequences])
        for number, part in enumerate(groups[start:], start):  # the keys of one group at a time
            with lm.progress.part(number / len(groups), (number + 1) / len(groups)):
                for members, found in done_in_parts(lm, part, partial(lm.groups_of, sequences), read):
                    self.n_tokens += sum(len(sequences[i]) for i in members)
                    for layer, keys in found.items():
                        self._add(layer, keys.to(torch.promote_types(keys.dtype, torch.float32)))
            yield number + 1

    def _add(self, layer: int, keys: Tensor) -> None:
        size = keys.shape[1]
        if layer not in self._sums:
            self._sums[layer] = torch.zeros(size, size, dtype=torch.float64, device=keys.device)
        total = self._sums[layer]
        for start, stop in _lower_blocks(size):
            total[start:stop, :stop] += keys[:, start:stop].T @ keys[:, :stop]

    def state(self, layer: int) -> dict[str, Tensor]:
        """Return one layer's sum and the number of tokens; of the symmetric sum only the blocks up to the diagonal.

        Without tokens there is no sum.
        """
        total = self._sums.get(layer)
        blocks = {} if total is None else {f"{a}": total[a:b, :b].contiguous() for a, b in _lower_blocks(len(total))}
        return {**blocks, "n_tokens": torch.tensor(self.n_tokens)}

    @classmethod
    def of_state(cls, layer: int, state: Mapping[str, Tensor]) -> "MomentAccumulator":
        """Return an accumulator of one layer that goes on from what :meth:`state` gave."""
        made = cls([layer])
        made.n_tokens = int(state["n_tokens"])
        blocks = {int(name): block for name, block in state.items() if name != "n_tokens"}
        if blocks:
            size = max(block.shape[1] for block in blocks.values())
            total = made._sums[layer] = blocks[0].new_zeros(size, size)
            for start, block in blocks.items():
                total[start : start + len(block), : block.shape[1]] = block
        return made

    @classmethod
    def of_states(cls, states: Mapping[int, Mapping[str, Tensor]]) -> "MomentAccumulator":
        """Return an accumulator of several layers that goes on from what :meth:`state` gave of each."""
        made = cls(tuple(states))
        for layer, state in states.items():
            one = cls.of_state(layer, state)
            made.n_tokens = one.n_tokens
            made._sums |= one._sums
        return made

    def merge(self, other: "MomentAccumulator") -> None:
        """Add the sums of another accumulator over the same layers.

        Raises:
            MomentError: The layers differ.
        """
        if other.layers != self.layers:
            raise MomentError(f"cannot merge second moments of layers {other.layers} into those of {self.layers}")
        self.n_tokens += other.n_tokens
        for layer, total in other._sums.items():
            self._sums[layer] = self._sums[layer] + total if layer in self._sums else total

    def result(self) -> dict[int, SecondMoment]:
        """Return the second moment of each layer.

        Raises:
            MomentError: No token was seen.
        """
        if not self.n_tokens:
            raise MomentError("second moments of no tokens at all; expected texts with at least one token")
        return {
            layer: SecondMoment(_mirrored(self._sums[layer] / self.n_tokens), self.n_tokens) for layer in self.layers
        }


def _mirrored(matrix: Tensor) -> Tensor:
    """Write what lies below the diagonal above it, and return the matrix."""
    for start, stop in _lower_blocks(len(matrix)):
        matrix[:start, start:stop] = matrix[start:stop, :start].T
        square = matrix[start:stop, start:stop]
        square.copy_(square.tril() + square.tril(-1).T)
    return matrix


def _lower_blocks(size: int) -> list[tuple[int, int]]:
    """Return the first row and the one after the last of the blocks that a symmetric sum is kept in."""
    step = max(SMALLEST_BLOCK, -(-size // BLOCKS))
    return [(start, min(start + step, size)) for start in range(0, size, step)]


def collect_moments(
    lm: LanguageModel,
    texts: Sequence[str],
    layers: Sequence[int],
    *,
    max_tokens: int | None = None,
) -> dict[int, SecondMoment]:
    """Return the second moments of ``layers`` over ``texts``, in one pass on the model as it is now.

    Collect them before the first edit: taken lazily, a deeper layer would see keys of an already edited model.

    Args:
        max_tokens: Cut each text after this many tokens; the model's context length if None.
    """
    return accumulate_moments(lm, texts, layers, max_tokens=max_tokens).result()


def accumulate_moments(
    lm: LanguageModel,
    texts: Sequence[str],
    layers: Sequence[int],
    *,
    max_tokens: int | None = None,
) -> MomentAccumulator:
    """As :func:`collect_moments`, before the division: what parts of a corpus give can be merged."""
    accumulator = MomentAccumulator(layers)
    for _ in add_texts(accumulator, lm, texts, max_tokens=max_tokens):
        pass
    return accumulator


def add_texts(
    accumulator: MomentAccumulator,
    lm: LanguageModel,
    texts: Sequence[str],
    *,
    start: tuple[int, int] = (0, 0),
    max_tokens: int | None = None,
) -> Iterator[tuple[int, int]]:
    """Add the keys of texts to an accumulator, ``TEXTS_AT_ONCE`` at once.

    Yields how many texts have been added, and how many groups of the next ``TEXTS_AT_ONCE``: sums that go on from there (with
    the same ``tokens_per_forward``) are those that were never left.

    Args:
        start: What the accumulator has already.
    """
    lm.check_layers(accumulator.layers)
    limit = max_tokens or int(lm.model.config.max_position_embeddings)
    begun, n_groups = start
    for at in range(begun, len(texts), TEXTS_AT_ONCE):
        chunk = list(texts[at : at + TEXTS_AT_ONCE])
        sequences = [ids[:limit] for ids in lm.format.prompts(chunk) if ids]
        with lm.progress.part(at / len(texts), (at + len(chunk)) / len(texts)):
            for done in accumulator.updates(lm, sequences, start=n_groups):
                yield at, done
        n_groups = 0
        yield at + len(chunk), 0


def layers_that_fit(lm: LanguageModel, layers: Sequence[int], n_bytes: float) -> list[list[int]]:
    """Return the layers in groups whose float64 sums [d_in, d_in] take at most ``n_bytes``; one layer at least."""
    groups: list[list[int]] = []
    used = 0.0
    for layer in layers:
        need = 8.0 * lm.weight(layer).shape[1] ** 2
        if not groups or used + need > n_bytes:
            groups.append([])
            used = 0.0
        groups[-1].append(layer)
        used += need
    return groups
