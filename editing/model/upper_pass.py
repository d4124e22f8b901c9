"""Running a model's upper blocks again on other states, without the columns that never change."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import transformers
from torch import Tensor

from editing.model.packing import Packed

Calls = tuple[tuple[tuple[Any, ...], dict[str, Any]], ...]


class KeptKeys:
    """Attention keys and values of the columns that never change, in the place of a Hugging Face cache."""

    def __init__(self, kept: Mapping[int, tuple[Tensor, Tensor]]) -> None:
        self._kept = kept

    def update(
        self, keys: Tensor, values: Tensor, layer_idx: int, *_args: Any, **_kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Return the kept columns followed by the new ones; nothing is stored."""
        old_keys, old_values = self._kept[layer_idx]
        return torch.cat([old_keys, keys], 2), torch.cat([old_values, values], 2)

    def select(self, rows: Tensor) -> "KeptKeys":
        return KeptKeys({layer: (keys[rows], values[rows]) for layer, (keys, values) in self._kept.items()})

    @classmethod
    def joined(cls, parts: Sequence["KeptKeys"]) -> "KeptKeys":
        """Return the rows of all parts, which have as many columns."""
        pairs = {layer: [part._kept[layer] for part in parts] for layer in parts[0]._kept}
        return cls({i: (torch.cat([k for k, _ in of]), torch.cat([v for _, v in of])) for i, of in pairs.items()})


class LiveColumns(NamedTuple):
    """Which columns of packed rows run again, and which never change; int64 [row, n], filled up with padding."""

    kept: Tensor
    again: Tensor

    def rows(self, chosen: slice) -> "LiveColumns":
        return LiveColumns(self.kept[chosen], self.again[chosen])


def live_columns(packed: Packed, live: Sequence[Sequence[int]]) -> LiveColumns:
    """Return the columns of packed rows, whose last one is padding, by whether they are ``live`` in their row."""
    padding = packed.n_head + packed.ids.shape[1] - 1
    used: list[set[int]] = [set() for _ in live]
    for _, row, path in packed.columns:
        used[row].update(path)
    fixed = [sorted(mine - set(chosen)) for mine, chosen in zip(used, live, strict=True)]
    return LiveColumns(_padded_columns(fixed, padding), _padded_columns(live, padding))


def _padded_columns(columns: Sequence[Sequence[int]], padding: int) -> Tensor:
    """Return int64 [row, longest], filled up with the column ``padding``."""
    longest = max(map(len, columns))
    return torch.tensor([[*mine, *[padding] * (longest - len(mine))] for mine in columns], dtype=torch.long)


@dataclass(frozen=True)
class UpperPass:
    """The blocks from one on, ready to run again on other states: HF's own modules with the arguments HF gave them."""

    hidden: Tensor
    """[row, column, d] input of the first of these blocks, or of the final norm if there is none."""
    _blocks: tuple[Any, ...]
    _calls: Calls
    _final_norm: Any
    _last_mlp: Any = None
    """The last block's MLP; nothing of what it gives is seen by another column."""

    def __call__(self, hidden: Tensor, read: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Return the final normalised states [row, column, d] for ``hidden`` in place of :attr:`hidden`.

        Args:
            read: int64 [n] rows and columns; only there are they computed to the end, and returned, [n, d].
        """
        for block, (args, kwargs) in zip(self._blocks[:-1], self._calls[:-1], strict=True):
            hidden = first_of(block(hidden, *args, **kwargs))
        with ExitStack() as stack:
            if read is not None and self._last_mlp is not None:
                stack.enter_context(_only_at(self._last_mlp, read))
            for block, (args, kwargs) in zip(self._blocks[-1:], self._calls[-1:], strict=True):
                hidden = first_of(block(hidden, *args, **kwargs))
        normed: Tensor = self._final_norm(hidden if read is None else hidden[read])
        return normed

    @torch.no_grad()
    def above(self, n_blocks: int) -> "UpperPass":
        """Return the pass that begins ``n_blocks`` blocks further up, on the states that they make of :attr:`hidden`."""
        hidden = self.hidden
        for block, (args, kwargs) in zip(self._blocks[:n_blocks], self._calls[:n_blocks], strict=True):
            hidden = first_of(block(hidden, *args, **kwargs))
        blocks, calls = self._blocks[n_blocks:], self._calls[n_blocks:]
        return UpperPass(hidden, blocks, calls, self._final_norm, self._last_mlp if len(blocks) > 1 else None)

    def select(self, rows: Tensor) -> "UpperPass":
        """Return the same pass for some of the rows (``rows``: int64 indices)."""
        n_rows = self.hidden.shape[0]

        def pick(value: Any) -> Any:
            if isinstance(value, KeptKeys):
                return value.select(rows.to(self.hidden.device))
            if isinstance(value, Tensor) and value.ndim > 1 and value.shape[0] == n_rows:
                return value[rows.to(value.device)]
            return value

        calls = map_calls(pick, self._calls)
        return UpperPass(self.hidden[rows], self._blocks, calls, self._final_norm, self._last_mlp)

    @classmethod
    def joined(cls, parts: Sequence["UpperPass"]) -> "UpperPass":
        """Return one pass over the rows of all parts: the same blocks, and as many columns."""
        if len(parts) == 1:
            return parts[0]

        def join(*values: Any) -> Any:
            first = values[0]
            if isinstance(first, KeptKeys):
                return KeptKeys.joined(values)
            if isinstance(first, tuple):
                return tuple(join(*items) for items in zip(*values, strict=True))
            if isinstance(first, dict):
                return {name: join(*(value[name] for value in values)) for name in first}
            per_row = isinstance(first, Tensor) and first.ndim > 1 and first.shape[0] == parts[0].hidden.shape[0]
            return torch.cat(values) if per_row else first

        calls = join(*(part._calls for part in parts))
        hidden = torch.cat([part.hidden for part in parts])
        return cls(hidden, parts[0]._blocks, calls, parts[0]._final_norm, parts[0]._last_mlp)


@contextmanager
def _only_at(module: Any, read: tuple[Tensor, Tensor]) -> Iterator[None]:
    """Inside, a module works on the columns ``read`` of its input, all different, and gives 0 in the others."""
    shapes: list[torch.Size] = []

    def narrow(_module: Any, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        shapes.append(args[0].shape)
        return (args[0][read], *args[1:])

    def spread(_module: Any, _args: Any, output: Tensor) -> Tensor:
        return output.new_zeros(shapes.pop()).index_put(read, output)

    with hooked(module.register_forward_pre_hook(narrow)), hooked(module.register_forward_hook(spread)):
        yield


@contextmanager
def hooked(handle: Any) -> Iterator[None]:
    """Inside, a hook is on; given is what registering it returned."""
    try:
        yield
    finally:
        handle.remove()


def cut_columns(value: Any, kept: Tensor, live: Tensor, width: int, n_head: int) -> Any:
    """Return a block's argument for the ``live`` columns: of rows [row, width, ...] those, of a mask what they see.

    A mask [row, 1, width, n_head + width] becomes [row, 1, live, kept + live].

    Args:
        kept, live: int64 [row, n], columns; those of the head are in front.
    """
    if not isinstance(value, Tensor) or value.ndim < 2:
        return value
    rows = torch.arange(len(live), device=value.device)[:, None]
    kept, live = kept.to(value.device), live.to(value.device)
    if value.ndim == 4 and value.shape[-2:] == (width, n_head + width):
        seen, live = torch.cat([kept, live], 1), live - n_head
        return value.expand(len(live), -1, -1, -1)[rows[..., None], :, live[:, :, None], seen[:, None]].permute(
            0, 3, 1, 2
        )
    if value.shape[1] == width:
        return value.expand(len(live), *value.shape[1:])[rows, live - n_head]
    return value


def first_of(output: Any) -> Tensor:
    """Return a block's state: a tensor in some families and versions, a tuple that begins with it in others."""
    state: Tensor = output[0] if isinstance(output, tuple) else output
    return state


def map_calls(change: Callable[[Any], Any], calls: Sequence[tuple[tuple[Any, ...], dict[str, Any]]]) -> Calls:
    """Return recorded arguments with each value, inside tuples too, changed."""

    def deep(value: Any) -> Any:
        return tuple(deep(item) for item in value) if isinstance(value, tuple) else change(value)

    return tuple((deep(args), {name: deep(value) for name, value in kwargs.items()}) for args, kwargs in calls)


def attention_masks(
    sees: Tensor, query_at: Tensor, key_at: Tensor, dtype: torch.dtype, config: Any
) -> Tensor | dict[str, Tensor]:
    """Return what is added to attention scores, 0 where a query may look, else the least number, as a model takes it.

    [row, 1, query, key]; where only some layers look through a sliding window (Gemma 2 and 3, some Qwen), one per kind of
    layer.

    Args:
        sees: bool [row, query, key], before any window.
        query_at, key_at: int64 [row, query] and [row, key], places in the text: a window of n shows a query the n last ones.
    """
    window = getattr(config, "sliding_window", None)
    kinds = set(getattr(config, "layer_types", None) or ())
    if window is None or (kinds and "sliding_attention" not in kinds):
        return _additive(sees, dtype)
    near = sees & (query_at[:, :, None] - key_at[:, None, :] < window)
    if not kinds:
        return _additive(near, dtype)
    return {"full_attention": _additive(sees, dtype), "sliding_attention": _additive(near, dtype)}


def _additive(sees: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.zeros(sees.shape, dtype=dtype, device=sees.device).masked_fill(~sees, torch.finfo(dtype).min)[:, None]


def causal_sight(mask: Tensor) -> Tensor:
    """Return, for padded rows [row, column], whether a query may look at a key: bool [row, query, key]."""
    width = mask.shape[1]
    order = torch.ones(width, width, dtype=torch.bool, device=mask.device).tril()
    # A padding column looks at itself: a query that may look nowhere gives NaN.
    return order & (mask[:, None, :].bool() | torch.eye(width, dtype=torch.bool, device=mask.device))


class Prefix(NamedTuple):
    """Attention keys and values of the columns in front of many rows (``Packed.head``), computed once."""

    kept: tuple[tuple[Tensor, Tensor], ...]
    """Per layer, [1, attention head, column, d]."""

    def cache(self, n_rows: int) -> "transformers.DynamicCache":
        """Return a Hugging Face cache that begins with these columns in each row."""
        cache = transformers.DynamicCache()
        for layer, (keys, values) in enumerate(self.kept):
            cache.update(keys.expand(n_rows, -1, -1, -1), values.expand(n_rows, -1, -1, -1), layer)
        return cache
