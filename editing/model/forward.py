"""Forward passes of a Hugging Face model: whole, packed, ending early, or begun again above some block."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property, partial
from typing import Any, Literal, NamedTuple

import torch
import transformers
from torch import Tensor, nn

from editing.model.families import submodule
from editing.model.heads import Ids
from editing.model.memory import Part, done_in_parts
from editing.model.packing import ROW_TOKENS, Packed, arrange
from editing.model.progress import Progress
from editing.model.tokens import Rows, pad_rows
from editing.model.upper_pass import (
    KeptKeys,
    LiveColumns,
    Prefix,
    UpperPass,
    attention_masks,
    causal_sight,
    cut_columns,
    first_of,
    hooked,
    map_calls,
)
from editing.model.weights import EditableWeights

CPU_OVERHEAD, ACCELERATOR_OVERHEAD = 32, 512
"""Tokens whose time a pass costs beyond its tokens: matrix products of few rows run below the rate of large ones.

The former is measured (docs/log.md), the latter an estimate.
"""


class Site(NamedTuple):
    """A place to read: the edited projection's input (key) or output (value), attention's output, or a block's."""

    kind: Literal["key", "value", "attention", "block"]
    layer: int


class _Enough(Exception):
    pass


class ForwardPasses(EditableWeights):
    """A model whose states can be read and whose upper blocks can run again on other states."""

    @cached_property
    def progress(self) -> Progress:
        """How far it is with what it is made to do."""
        return Progress()

    tokens_per_forward: int = 2048
    """Tokens in one forward pass; more rows are split.  Changes results by rounding only."""
    prompt_ends: tuple[int, ...] | None = None
    """Tokens of each row's prompt, for patches; known while an answer is scored."""

    def module_at(self, site: Site) -> Any:
        """Return the module whose output (or, for keys, input) a site is."""
        if site.kind == "attention":
            return submodule(self.block(site.layer), self.stack_of(site.layer)[1].attention)
        return self.block(site.layer) if site.kind == "block" else self.mlp_out(site.layer)

    @torch.no_grad()
    def states(self, rows: Rows | Packed, sites: Sequence[Site]) -> dict[Site, Tensor]:
        """Return the states [row, column, d] at each site; the forward ends at the deepest one."""
        found: dict[Site, Tensor] = {}

        def keep(site: Site, state: Tensor) -> None:
            found[site] = state
            if len(found) == len(set(sites)):
                raise _Enough

        with ExitStack() as stack:
            for site in set(sites):
                stack.enter_context(_reading(self.module_at(site), site, keep))
            with suppress(_Enough):
                self.forward_packed(rows) if isinstance(rows, Packed) else self.forward(rows)
        return found

    def states_at(
        self, sequences: Sequence[Sequence[int]], at: Sequence[int], sites: Sequence[Site]
    ) -> dict[Site, Tensor]:
        """Return the states [row, d] at one position of each sequence, in as many forwards as memory asks for."""
        if self.packs:  # nothing after a position can change its state, and what sequences begin with is shared
            heads = [tuple(sequence[: position + 1]) for sequence, position in zip(sequences, at, strict=True)]

            def read_packed(arranged: Callable[[], Packed]) -> dict[Site, Tensor]:
                packed = arranged()
                rows = torch.tensor([row for _, row, _ in packed.columns])
                last = torch.tensor([path[-1] for _, _, path in packed.columns])
                return {site: state[rows, last] for site, state in self.states(packed, sites).items()}

            found = done_in_parts(self, range(len(heads)), partial(self.packs_of, heads), read_packed)
        else:

            def read(group: Sequence[int]) -> dict[Site, Tensor]:
                states = self.states(pad_rows([sequences[i] for i in group]), sites)
                index = torch.arange(len(group)), torch.tensor([at[i] for i in group])
                return {site: state[index] for site, state in states.items()}

            found = done_in_parts(self, range(len(sequences)), partial(self.groups_of, sequences), read)
        return {site: _in_order([(members, states[site]) for members, states in found]) for site in sites}

    def packs_of(
        self, sequences: Sequence[Ids], numbers: Sequence[int], head: Packed | None = None
    ) -> list[Part[Callable[[], Packed]]]:
        """Return some of the sequences in packed rows, as parts for :func:`done_in_parts`."""
        tokens = self.tokens_per_forward
        row_tokens = min(ROW_TOKENS, tokens)  # a row that does not fit is taken apart
        made = arrange(sequences, tokens=tokens, row_tokens=row_tokens, head=head, numbers=numbers)
        return [Part(arranged.members, arranged.packed) for arranged in made]

    def groups_of(self, sequences: Sequence[Sequence[int]], numbers: Sequence[int]) -> list[Part[Sequence[int]]]:
        """Return some of the sequences in groups of similar length, as parts for :func:`done_in_parts`."""
        groups = [[numbers[i] for i in group] for group in self.groups([len(sequences[i]) for i in numbers])]
        return [Part(group, group) for group in groups]

    def groups(self, lengths: Sequence[int]) -> list[list[int]]:
        """Return row indices in groups of similar length whose padded size stays within ``tokens_per_forward``.

        Of all such groups of rows in order of length, those with the least padding and overhead.
        """
        overhead = CPU_OVERHEAD if self.input_device.type == "cpu" else ACCELERATOR_OVERHEAD
        order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
        cost, stop = [0] * (len(order) + 1), [0] * len(order)  # of the rows from each one on, and where its group ends
        for start in reversed(range(len(order))):
            longest = lengths[order[start]]
            fits = max(1, self.tokens_per_forward // max(longest, 1))
            ends = range(start + 1, min(start + fits, len(order)) + 1)
            costs = [overhead + (end - start) * longest + cost[end] for end in ends]
            cost[start] = min(costs)
            stop[start] = ends[costs.index(cost[start])]
        groups, start = [], 0
        while start < len(order):
            groups.append(order[start : stop[start]])
            start = stop[start]
        return groups

    @torch.no_grad()
    def upper_pass(self, rows: Rows, first_block: int) -> UpperPass:
        """Run the model once and return its blocks from ``first_block`` on, ready to run again on other states."""
        inputs, calls, blocks, final_norm = self.recorded(first_block, lambda: self.forward(rows))
        return UpperPass(
            inputs[0], blocks, map_calls(lambda value: value, calls), final_norm, self.last_mlp(first_block)
        )

    @torch.no_grad()
    def upper_pass_at(
        self, packed: Packed, live: LiveColumns, first_block: int, prefix: Prefix | None = None
    ) -> UpperPass:
        """As :meth:`upper_pass`, for some columns of packed rows; of the others only what attention sees is kept.

        Args:
            packed: Its last column is padding in every row.
            live: No other column may see one of those that run again.
            prefix: Of ``packed.head``, if there is one.

        Returns:
            A pass over [row, ``live.again``].
        """
        n_head, width = packed.n_head, packed.ids.shape[1]
        kept, again = live
        cache = transformers.DynamicCache() if prefix is None else prefix.cache(len(again))
        inputs, calls, blocks, final_norm = self.recorded(first_block, lambda: self.forward_packed(packed, cache))
        rows = torch.arange(len(again), device=inputs[0].device)[:, None]
        deep = {index: layer for index, layer in enumerate(cache.layers) if index >= first_block}
        seen = KeptKeys({i: (_columns(layer.keys, kept), _columns(layer.values, kept)) for i, layer in deep.items()})
        cut = map_calls(lambda value: seen if value is cache else cut_columns(value, kept, again, width, n_head), calls)
        hidden = inputs[0][rows, again.to(inputs[0].device) - n_head]
        return UpperPass(hidden, blocks, cut, final_norm, self.last_mlp(first_block))

    def last_mlp(self, first_block: int) -> Any:
        """Return the last block's MLP, of which a pass from ``first_block`` on may compute a part; None if it begins there."""
        if first_block >= self.n_layers - 1:
            return None  # a caller may add something at that MLP's output
        path = self.stack_of(self.n_layers - 1)[1].mlp_out
        return submodule(self.block(self.n_layers - 1), path.rpartition(".")[0])

    def recorded(
        self, first_block: int, run: Callable[[], Tensor]
    ) -> tuple[list[Tensor], list[tuple[tuple[Any, ...], dict[str, Any]]], tuple[Any, ...], Any]:
        """Return what each block from one on, and the final norm, is given in a run.

        Returns:
            The states, further arguments of the blocks, the blocks, and the norm.
        """
        (stack_of_blocks,) = self.family.stacks
        blocks = tuple(submodule(self.model, stack_of_blocks.blocks)[first_block:])
        final_norm = submodule(self.model, self.family.final_norm)
        inputs: list[Tensor] = []
        calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

        def record(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            given = dict(kwargs)
            inputs.append(args[0] if args else given.pop("hidden_states"))
            calls.append((args[1:], given))

        with ExitStack() as stack:
            for module in (*blocks, final_norm):
                stack.enter_context(hooked(module.register_forward_pre_hook(record, with_kwargs=True)))
            run()
        return inputs, calls[:-1], blocks, final_norm

    def logits(self, final_states: Tensor) -> Tensor:
        """Return vocabulary logits [..., vocab] of final normalised states [..., d], scaled and capped as the model does."""
        out: Tensor = self.model.get_output_embeddings()(final_states)
        config = self.model.config
        if (scale := getattr(config, "logit_scale", None)) is not None:
            out = out * scale
        if (divisor := getattr(config, "logits_scaling", None)) is not None:
            out = out / divisor
        if (cap := getattr(config, "final_logit_softcapping", None)) is not None:
            out = cap * torch.tanh(out / cap)
        return out

    @torch.no_grad()
    def next_logprobs(self, rows: Rows, prompt_ends: Sequence[int] | None = None) -> Tensor:
        """Return the log-probabilities [row, vocab] of the token after each row's last one.

        Args:
            prompt_ends: Tokens of each row's prompt, for patches; all if None.
        """
        lengths = rows.mask.sum(1)
        with self.prompts_end_at(tuple(lengths.tolist() if prompt_ends is None else prompt_ends)):
            final = self.forward(rows)
        last = lengths.to(final.device) - 1
        return log_softmax(self.logits(final[torch.arange(len(last), device=final.device), last]))

    @property
    def input_device(self) -> torch.device:
        device: torch.device = submodule(self.model, self.family.embeddings).weight.device
        return device

    def forward(self, rows: Rows) -> Tensor:
        """Return the final normalised states [row, column, d]."""
        mask = rows.mask.to(self.input_device)
        inputs: dict[str, Any] = {"input_ids": rows.ids.to(mask.device), "attention_mask": mask, "use_cache": False}
        if getattr(self.model.config, "sliding_window", None) is not None:
            # The mask is written out: behind a sliding window HF's gives NaN for padding that sees only padding.
            at = (mask.cumsum(1) - 1).clamp_min(0)
            masks = attention_masks(causal_sight(mask), at, at, self.dtype, self.model.config)
            inputs |= {"attention_mask": masks, "position_ids": at}
        with ExitStack() as stack:
            self.patches.attach(self, stack)
            final: Tensor = self.model.base_model(**inputs).last_hidden_state
        return final

    @property
    def packs(self) -> bool:
        """Whether sequences can share rows: in a decoder without patches, which look at whole rows."""
        return self.family.head == "causal" and not self.patches

    def forward_packed(self, packed: Packed, cache: "transformers.DynamicCache | None" = None) -> Tensor:
        """Return the final normalised states [row, column, d] of packed rows.

        Args:
            cache: Begins with the keys and values of ``packed.head``, if there is one; receives every column's.
        """
        at, key_at = packed.positions, packed.positions
        if packed.head is not None:
            key_at = torch.cat([packed.head.positions.expand(len(at), -1), at], 1)
        return self.forward_seeing(packed.ids, at, packed.sees, key_at, cache)

    def forward_seeing(
        self, ids: Tensor, at: Tensor, sees: Tensor, key_at: Tensor, cache: "transformers.DynamicCache | None" = None
    ) -> Tensor:
        """Return the final normalised states [row, column, d] of tokens with given places and sights.

        Args:
            ids: int64 [row, column]
            at: int64 [row, column], places in the text.
            sees: bool [row, column, key], the cache's columns first.
            key_at: int64 [row, key], their places.
            cache: Earlier columns' keys and values; receives those of these.
        """
        device = self.input_device
        inputs: dict[str, Any] = {"input_ids": ids.to(device), "position_ids": at.to(device), "use_cache": False}
        if cache is not None:
            inputs |= {"past_key_values": cache, "use_cache": True}
        inputs["attention_mask"] = attention_masks(
            sees.to(device), inputs["position_ids"], key_at.to(device), self.dtype, self.model.config
        )
        final: Tensor = self.model.base_model(**inputs).last_hidden_state
        return final

    @torch.no_grad()
    def prefix(self, head: Packed) -> Prefix:
        """Return the attention keys and values of a row that stands in front of others."""
        cache = transformers.DynamicCache()
        self.forward_packed(head, cache)
        return Prefix(tuple((layer.keys, layer.values) for layer in cache.layers))

    @contextmanager
    def prompts_end_at(self, ends: tuple[int, ...]) -> Iterator[None]:
        """Inside, patches know how many tokens of each row are its prompt."""
        self.prompt_ends = ends
        try:
            yield
        finally:
            self.prompt_ends = None


def log_softmax(logits: Tensor) -> Tensor:
    """Return log-probabilities, in float32 at least."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)


def _columns(states: Tensor, chosen: Tensor) -> Tensor:
    """Return the chosen columns [row, n] of attention keys or values [row, head, column, d]."""
    index = chosen.to(states.device)[:, None, :, None].expand(-1, states.shape[1], -1, states.shape[3])
    return states.gather(2, index)


def _in_order(parts: Sequence[tuple[Sequence[int], Tensor]]) -> Tensor:
    order = torch.tensor([index for members, _ in parts for index in members])
    joined = torch.cat([state for _, state in parts])
    return joined[order.argsort().to(joined.device)]


def _reading(module: nn.Module, site: Site, keep: Callable[[Site, Tensor], None]) -> Any:
    if site.kind == "key":
        return hooked(module.register_forward_pre_hook(lambda _module, args: keep(site, args[0])))
    return hooked(module.register_forward_hook(lambda _module, _args, output: keep(site, first_of(output))))
