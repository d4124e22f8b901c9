"""A Hugging Face causal language model as editing sees it: weights to edit, states to read, a forward to restart."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from editing.families import submodule
from editing.heads import HEADS, AnswerRows, Ids, TokenChoice
from editing.packing import Packed, pack, shared_prefix
from editing.passes import (
    KeptKeys,
    Prefix,
    UpperPass,
    attention_masks,
    causal_sight,
    first_of,
    map_calls,
)
from editing.tokens import PromptFormat, Rows, pad_rows
from editing.weights import EditableWeights

KEPT_PREFIX = 16
"""A common beginning of at least this many tokens is computed once for all rows; within a row it always is."""


class Site(NamedTuple):
    """A place to read: the edited projection's input (key) or output (value), attention's output, or a block's."""

    kind: Literal["key", "value", "attention", "block"]
    layer: int


class _Enough(Exception):
    pass


class AnswerScore(NamedTuple):
    """How a model scores one answer after its prompt, under teacher forcing."""

    nll_sum: float
    """Negative log-likelihood in nats, summed over the answer's tokens; NaN if the model gives NaN."""
    n_tokens: int
    argmax_ids: tuple[int, ...]
    n_correct: int

    @property
    def nll_mean(self) -> float:
        return self.nll_sum / self.n_tokens

    @property
    def correct(self) -> bool:
        """Whether every token of the answer is the argmax."""
        return self.n_correct == self.n_tokens


class LanguageModel(EditableWeights):
    """A model with its tokenizer: states to read, answers to score, a forward pass to restart.

    Raises:
        ModelError: The family is unknown, the weights are quantised, or one of them is NaN.
    """

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, name: str = "", chat: bool = False
    ) -> None:
        super().__init__(model, name=name)
        self.tokenizer = tokenizer
        self.head = HEADS[self.family.head]
        self.format = PromptFormat(tokenizer, head=self.family.head, labels=model.config.label2id, chat=chat)
        self.tokens_per_forward = 2048
        """Padded tokens in one forward pass; more rows are split.  Changes results by rounding only."""
        self.prompt_ends: tuple[int, ...] | None = None
        """Tokens of each row's prompt, for patches; known while an answer is scored."""

    # --- states

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
        parts: dict[Site, list[tuple[list[int], Tensor]]] = {site: [] for site in sites}
        if self.packs:  # nothing after a position can change its state, and what sequences begin with is shared
            heads = [sequence[: position + 1] for sequence, position in zip(sequences, at, strict=True)]
            for packed in pack(heads, tokens=self.tokens_per_forward):
                rows = torch.tensor([row for _, row, _ in packed.columns])
                last = torch.tensor([path[-1] for _, _, path in packed.columns])
                for site, state in self.states(packed, sites).items():
                    parts[site].append(([number for number, _, _ in packed.columns], state[rows, last]))
            return {site: _in_order(part, len(sequences)) for site, part in parts.items()}
        for group in self.groups([len(sequence) for sequence in sequences]):
            found = self.states(pad_rows([sequences[i] for i in group]), sites)
            for site, state in found.items():
                picked = state[torch.arange(len(group)), torch.tensor([at[i] for i in group])]
                parts[site].append((group, picked))
        return {site: _in_order(part, len(sequences)) for site, part in parts.items()}

    def groups(self, lengths: Sequence[int]) -> list[list[int]]:
        """Return row indices in groups of similar length whose padded size stays within ``tokens_per_forward``."""
        order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
        groups: list[list[int]] = []
        for index in order:
            if groups and (len(groups[-1]) + 1) * lengths[groups[-1][0]] <= self.tokens_per_forward:
                groups[-1].append(index)
            else:
                groups.append([index])
        return groups

    @torch.no_grad()
    def upper_pass(self, rows: Rows, first_block: int, *, first_column: int = 0) -> UpperPass:
        """Run the model once and return its blocks from ``first_block`` on, ready to run again on other states.

        With ``first_column`` the pass covers that column and the later ones; what the earlier ones give to attention is
        kept. In a causal model nothing that happens from ``first_column`` on can change it.
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

        cache = DynamicCache() if first_column else None
        with ExitStack() as stack:
            for module in (*blocks, final_norm):
                stack.enter_context(_hook(module.register_forward_pre_hook(record, with_kwargs=True)))
            self.forward(rows, cache)
        if cache is None:
            return UpperPass(inputs[0], blocks, tuple(calls[:-1]), final_norm)
        kept = KeptKeys(
            {
                index: (layer.keys[:, :, :first_column], layer.values[:, :, :first_column])
                for index, layer in enumerate(cache.layers)
                if index >= first_block
            }
        )

        def crop(value: Any) -> Any:
            if value is cache:
                return kept
            if not isinstance(value, Tensor) or value.ndim < 2:
                return value
            return value[:, :, first_column:] if value.ndim == 4 else value[:, first_column:]

        return UpperPass(inputs[0][:, first_column:], blocks, map_calls(crop, calls[:-1]), final_norm)

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
    def next_logprobs(self, rows: Rows) -> Tensor:
        """Return the log-probabilities [row, vocab] of the token after each row's last one."""
        lengths = rows.mask.sum(1)
        with self.prompts_end_at(tuple(lengths.tolist())):
            final = self.forward(rows)
        last = lengths.to(final.device) - 1
        return log_softmax(self.logits(final[torch.arange(len(last), device=final.device), last]))

    @property
    def input_device(self) -> torch.device:
        device: torch.device = submodule(self.model, self.family.embeddings).weight.device
        return device

    def forward(self, rows: Rows, cache: DynamicCache | None = None) -> Tensor:
        """Return the final normalised states [row, column, d]; ``cache`` receives every column's keys and values."""
        mask = rows.mask.to(self.input_device)
        inputs: dict[str, Any] = {"input_ids": rows.ids.to(mask.device), "attention_mask": mask, "use_cache": False}
        if cache is not None or getattr(self.model.config, "sliding_window", None) is not None:
            # The mask is written out: behind a sliding window HF's gives NaN for padding that sees only padding, and a
            # pass with a cache will be used without the earlier rows of its mask. Positions are counted from each row's
            # first token, because rows may be padded on the left as well.
            at = (mask.cumsum(1) - 1).clamp_min(0)
            masks = attention_masks(causal_sight(mask), at, at, self.dtype, self.model.config)
            inputs |= {"attention_mask": masks, "position_ids": at}
        if cache is not None:
            inputs |= {"past_key_values": cache, "use_cache": True}
        with ExitStack() as stack:
            self.patches.attach(self, stack)
            final: Tensor = self.model.base_model(**inputs).last_hidden_state
        return final

    @property
    def packs(self) -> bool:
        """Whether sequences can share rows: in a decoder without patches, which look at whole rows."""
        return self.family.head == "causal" and not self.patches

    def forward_packed(self, packed: Packed, prefix: Prefix | None = None) -> Tensor:
        """Return the final normalised states [row, column, d] of packed rows, each of which begins with ``prefix``."""
        device = self.input_device
        at, sees, length = packed.positions.to(device), packed.sees.to(device), 0
        inputs: dict[str, Any] = {"input_ids": packed.ids.to(device), "use_cache": False}
        key_at = at
        if prefix is not None:
            n_rows, width = at.shape
            length = prefix.length
            at = at + length
            key_at = torch.cat([torch.arange(length, device=device).expand(n_rows, -1), at], 1)
            sees = torch.cat([torch.ones(n_rows, width, length, dtype=torch.bool, device=device), sees], 2)
            inputs |= {"past_key_values": prefix.cache(n_rows), "use_cache": True}
        masks = attention_masks(sees, at, key_at, self.dtype, self.model.config)
        final: Tensor = self.model.base_model(**inputs, attention_mask=masks, position_ids=at).last_hidden_state
        return final

    @torch.no_grad()
    def prefix(self, ids: Ids) -> Prefix:
        """Return the attention keys and values of tokens that many rows begin with."""
        cache = DynamicCache()
        self.forward(pad_rows([ids]), cache)
        return Prefix(len(ids), tuple((layer.keys, layer.values) for layer in cache.layers))

    @contextmanager
    def prompts_end_at(self, ends: tuple[int, ...]) -> Iterator[None]:
        """Inside, patches know how many tokens of each row are its prompt."""
        self.prompt_ends = ends
        try:
            yield
        finally:
            self.prompt_ends = None

    # --- answers

    @torch.no_grad()
    def answer_logprobs(self, prompts: Sequence[str], answers: Sequence[str]) -> list[AnswerScore]:
        """Score each answer after its prompt.  The result of a pair does not depend on the others, up to rounding."""
        rewritten = [self.patches.rewrite(prompt) for prompt in prompts]
        heads = self.format.prompts(rewritten)
        tails = self.format.answers(rewritten, answers)
        return self.score_ids(heads, tails)

    @torch.no_grad()
    def score_ids(self, heads: Sequence[Ids], tails: Sequence[Ids]) -> list[AnswerScore]:
        """Score each tail after its head; logits are computed at the tails' positions only."""
        if self.packs:
            return self._score_packed(heads, tails)
        scores: list[AnswerScore | None] = [None] * len(heads)
        for group in self.groups([len(h) + len(t) - 1 for h, t in zip(heads, tails, strict=True)]):
            rows = self.answer_rows([heads[i] for i in group], [tails[i] for i in group])
            logprobs = log_softmax(self.answer_logits(rows))
            nll = -logprobs.gather(1, rows.token[:, None].to(logprobs.device))[:, 0].double().cpu()
            argmax = logprobs.argmax(1).cpu()
            for i, score in zip(group, _scores([tails[i] for i in group], nll, argmax), strict=True):
                scores[i] = score
        return [score for score in scores if score is not None]

    def _score_packed(self, heads: Sequence[Ids], tails: Sequence[Ids]) -> list[AnswerScore]:
        """Score pairs in packed rows: answers share their prompt, prompts what they begin with."""
        shared = shared_prefix(heads)
        prefix = self.prefix(heads[0][:shared]) if shared >= KEPT_PREFIX else None
        cut = shared if prefix is not None else 0
        sequences = [(head + tail[:-1])[cut:] for head, tail in zip(heads, tails, strict=True)]
        scores: list[AnswerScore | None] = [None] * len(heads)
        for packed in pack(sequences, tokens=self.tokens_per_forward):
            numbers = [number for number, _, _ in packed.columns]
            width = packed.ids.shape[1]
            places = [
                row * width + column
                for number, row, path in packed.columns
                for column in path[len(heads[number]) - 1 - cut :]
            ]
            read, which = torch.tensor(places).unique(return_inverse=True)
            final = self.forward_packed(packed, prefix).flatten(0, 1)
            logprobs = log_softmax(self.logits(final[read.to(final.device)]))
            token = torch.tensor([token for number in numbers for token in tails[number]])
            nll = -logprobs[which.to(logprobs.device), token.to(logprobs.device)].double().cpu()
            argmax = logprobs.argmax(1).cpu()[which]
            for number, score in zip(numbers, _scores([tails[i] for i in numbers], nll, argmax), strict=True):
                scores[number] = score
        return [score for score in scores if score is not None]

    def answer_rows(self, heads: Sequence[Ids], tails: Sequence[Ids], *, whole: bool = False) -> AnswerRows:
        """Return prompts with their answers as one forward pass reads them (``whole``: the last answer token as well)."""
        return self.head.rows(self.model, heads, tails, whole=whole or self.patches.reads_answer)

    def answer_logits(self, rows: AnswerRows) -> Tensor:
        """Return the logits [token, vocab] where the answers' tokens are predicted; differentiable."""
        return self.head.logits(self, rows)

    def answer_gradients(
        self, rows: AnswerRows, modules: Mapping[str, int], tokens: TokenChoice
    ) -> tuple[dict[str, tuple[Tensor, Tensor]], float]:
        """Return, per module, its inputs and the loss's gradients at its outputs, and the loss.

        The loss is the mean cross-entropy of the answers' tokens.

        Args:
            modules: Full names of linear modules, with the number of the stack in which each stands.
            tokens: Where inputs and gradients are taken: at the positions that predict the answer, or at all.

        Returns:
            ``{module: ([token, d_in], [token, d_out])}``, tokens in row-major order; detached.
        """
        inputs: dict[str, Tensor] = {}
        outputs: dict[str, Tensor] = {}

        def watch(name: str) -> Callable[..., Tensor]:
            def hook(_module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
                inputs[name] = args[0].detach()
                outputs[name] = output if output.requires_grad else output.detach().requires_grad_(True)
                return outputs[name]

            return hook

        with torch.enable_grad(), ExitStack() as stack:
            for name in modules:
                stack.enter_context(_hook(submodule(self.model, name).register_forward_hook(watch(name))))
            loss = self.answer_loss(rows)
            gradients = torch.autograd.grad(loss, [outputs[name] for name in modules])
        found = {}
        for (name, number), gradient in zip(modules.items(), gradients, strict=True):
            mask = rows.mask(number, tokens).to(gradient.device)
            found[name] = (inputs[name][mask], gradient[mask])
        return found, float(loss.detach())

    def answer_loss(self, rows: AnswerRows) -> Tensor:
        """Return the mean cross-entropy of the answers' tokens (a scalar, in nats)."""
        logprobs = log_softmax(self.answer_logits(rows))
        return -logprobs.gather(1, rows.token[:, None].to(logprobs.device)).mean()

    @torch.no_grad()
    def sample(self, starts: Sequence[str], n_tokens: int, *, top_k: int, seed: int) -> list[str]:
        """Continue each start by ``n_tokens`` tokens drawn from the ``top_k`` likeliest; the same seed, the same texts.

        An empty start is the start-of-text token.
        """
        generator = torch.Generator().manual_seed(seed)
        texts = []
        special = set(self.tokenizer.all_special_ids)
        for ids in self.format.prompts(starts):
            grown = list(ids) or [self.tokenizer.bos_token_id]
            for _ in range(n_tokens):
                logprobs = self.next_logprobs(pad_rows([grown]))[0].double().cpu()
                logprobs[list(special)] = -torch.inf
                best = logprobs.topk(min(top_k, len(logprobs)))
                drawn = torch.multinomial(best.values.softmax(0), 1, generator=generator)
                grown.append(int(best.indices[drawn]))
            texts.append(self.format.decode([token for token in grown if token not in special]).strip())
        return texts


def _scores(tails: Sequence[Ids], nll: Tensor, argmax: Tensor) -> Iterator[AnswerScore]:
    """Yield each answer's score from its tokens' NLLs and argmaxes, which stand one after another."""
    start = 0
    for tail in tails:
        stop = start + len(tail)
        best = tuple(argmax[start:stop].tolist())
        n_correct = sum(a == b for a, b in zip(best, tail, strict=True))
        total = float(nll[start:stop].sum())
        yield AnswerScore(total, len(tail), best, n_correct if total == total else 0)
        start = stop


def log_softmax(logits: Tensor) -> Tensor:
    """Return log-probabilities, in float32 at least."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)


def _in_order(parts: list[tuple[list[int], Tensor]], count: int) -> Tensor:
    order = torch.tensor([index for group, _ in parts for index in group])
    joined = torch.cat([state for _, state in parts])
    out = torch.empty_like(joined)
    out[order.to(joined.device)] = joined
    return out[:count]


@contextmanager
def _hook(handle: Any) -> Iterator[None]:
    try:
        yield
    finally:
        handle.remove()


def _reading(module: nn.Module, site: Site, keep: Callable[[Site, Tensor], None]) -> Any:
    if site.kind == "key":
        return _hook(module.register_forward_pre_hook(lambda _module, args: keep(site, args[0])))
    return _hook(module.register_forward_hook(lambda _module, _args, output: keep(site, first_of(output))))
