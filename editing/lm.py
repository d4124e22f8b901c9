"""A Hugging Face causal language model as editing sees it: weights to edit, states to read, a forward to restart."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache, PreTrainedModel, PreTrainedTokenizerBase
from transformers.pytorch_utils import Conv1D

from editing.errors import ModelError
from editing.families import family_of, submodule
from editing.tokens import PromptFormat, Rows, pad_rows


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


@dataclass(frozen=True)
class UpperPass:
    """The blocks from one on, ready to run again on other states: HF's own modules with the arguments HF gave them."""

    hidden: Tensor
    """[row, column, d] input of the first of these blocks, or of the final norm if there is none."""
    _blocks: tuple[Any, ...]
    _calls: tuple[tuple[tuple[Any, ...], dict[str, Any]], ...]
    _final_norm: Any

    def __call__(self, hidden: Tensor) -> Tensor:
        """Return the final normalised states [row, column, d] for ``hidden`` in place of :attr:`hidden`."""
        for block, (args, kwargs) in zip(self._blocks, self._calls, strict=True):
            hidden = _first(block(hidden, *args, **kwargs))
        normed: Tensor = self._final_norm(hidden)
        return normed

    def select(self, rows: Tensor) -> "UpperPass":
        """Return the same pass for some of the rows (``rows``: int64 indices)."""
        n_rows = self.hidden.shape[0]

        def pick(value: Any) -> Any:
            if isinstance(value, KeptKeys):
                return value.select(rows.to(self.hidden.device))
            if isinstance(value, Tensor) and value.ndim > 1 and value.shape[0] == n_rows:
                return value[rows.to(value.device)]
            return value

        return UpperPass(self.hidden[rows], self._blocks, _map_calls(pick, self._calls), self._final_norm)


class LanguageModel:
    """A causal language model with its tokenizer.

    Parameters are frozen (no gradients unless an editor asks for them) and the model is in evaluation mode.

    Raises:
        ModelError: The family is unknown, a weight is NaN, or an edited weight is shared with another module.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, name: str = "") -> None:
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.name = name
        self.family = family_of(model.config)
        self.format = PromptFormat(tokenizer)
        self.tokens_per_forward = 2048
        """Padded tokens in one forward pass; more rows are split.  Changes results by rounding only."""
        self._refuse_nan()

    @property
    def n_layers(self) -> int:
        return len(submodule(self.model, self.family.blocks))

    @property
    def dtype(self) -> torch.dtype:
        return self.weight(0).dtype

    # --- parameters

    def check_layers(self, layers: Sequence[int]) -> None:
        """Raise ModelError for a layer that does not exist."""
        wrong = [layer for layer in layers if not 0 <= layer < self.n_layers]
        if wrong or not layers:
            raise ModelError(
                f"layers {list(layers)} of {self.name or 'the model'}: found {wrong or 'none'}; expected layers from 0 to "
                f"{self.n_layers - 1} (counted from 0)"
            )

    def block(self, layer: int) -> Any:
        return submodule(self.model, self.family.blocks)[layer]

    def mlp_out(self, layer: int) -> Any:
        return submodule(self.block(layer), self.family.mlp_out)

    def parameter_names(self, layer: int) -> dict[str, str]:
        """Return the full names of the edited projection's parameters, by their short name (weight, bias)."""
        prefix = f"{self.family.blocks}.{layer}.{self.family.mlp_out}"
        return {short: f"{prefix}.{short}" for short, _ in self.mlp_out(layer).named_parameters()}

    def parameter(self, name: str) -> Tensor:
        found: Tensor = self.model.get_parameter(name)
        return found

    def weight_view(self, name: str) -> Tensor:
        """Return a parameter as ``[d_out, d_in]``: a transposed view for GPT-2's Conv1D, itself otherwise."""
        parameter = self.parameter(name)
        owner = submodule(self.model, name.rpartition(".")[0])
        transposed = isinstance(owner, Conv1D) and parameter.ndim == 2
        view: Tensor = parameter.T if transposed else parameter
        return view

    def weight(self, layer: int) -> Tensor:
        """Return the edited projection's weight as ``[d_out, d_in]``, sharing memory with the model."""
        return self.weight_view(self.parameter_names(layer)["weight"])

    def snapshot(self, names: Iterable[str]) -> dict[str, Tensor]:
        """Return copies of the named parameters; :meth:`restore` puts them back bit by bit."""
        return {name: self.parameter(name).detach().clone() for name in names}

    @torch.no_grad()
    def restore(self, snapshot: Mapping[str, Tensor]) -> None:
        for name, value in snapshot.items():
            self.parameter(name).copy_(value)

    @contextmanager
    def preserved(self, names: Iterable[str]) -> Iterator[None]:
        """Inside, the named parameters may be changed; on leaving they are put back bit by bit."""
        snapshot = self.snapshot(names)
        try:
            yield
        finally:
            self.restore(snapshot)

    def _refuse_nan(self) -> None:
        for name, parameter in self.model.named_parameters():
            if not torch.isfinite(parameter).all():
                n_bad = int((~torch.isfinite(parameter)).sum())
                raise ModelError(
                    f"model {self.name or self.model.config.model_type!r}: {n_bad} of {parameter.numel()} values of "
                    f"{name} are NaN or infinite; expected finite weights; the file is damaged or was saved in a "
                    "dtype that overflows: load it again"
                )

    # --- states

    def module_at(self, site: Site) -> Any:
        """Return the module whose output (or, for keys, input) a site is."""
        block = self.block(site.layer)
        if site.kind == "block":
            return block
        return submodule(block, self.family.attention if site.kind == "attention" else self.family.mlp_out)

    @torch.no_grad()
    def states(self, rows: Rows, sites: Sequence[Site]) -> dict[Site, Tensor]:
        """Return the states [row, token, d] at each site; the forward ends at the deepest one."""
        found: dict[Site, Tensor] = {}

        def keep(site: Site, state: Tensor) -> None:
            found[site] = state
            if len(found) == len(set(sites)):
                raise _Enough

        with ExitStack() as stack:
            for site in set(sites):
                stack.enter_context(_reading(self.module_at(site), site, keep))
            with suppress(_Enough):
                self._forward(rows)
        return found

    def states_at(
        self, sequences: Sequence[Sequence[int]], at: Sequence[int], sites: Sequence[Site]
    ) -> dict[Site, Tensor]:
        """Return the states [row, d] at one position of each sequence, in as many forwards as memory asks for."""
        parts: dict[Site, list[tuple[list[int], Tensor]]] = {site: [] for site in sites}
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
        blocks = tuple(submodule(self.model, self.family.blocks)[first_block:])
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
            self._forward(rows, cache)
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

        return UpperPass(inputs[0][:, first_column:], blocks, _map_calls(crop, calls[:-1]), final_norm)

    def logits(self, final_states: Tensor) -> Tensor:
        """Return vocabulary logits [..., vocab] of final normalised states [..., d]."""
        out: Tensor = self.model.get_output_embeddings()(final_states)
        return out

    @torch.no_grad()
    def next_logprobs(self, rows: Rows) -> Tensor:
        """Return the log-probabilities [row, vocab] of the token after each row's last one."""
        final = self._forward(rows)
        last = rows.mask.sum(1).to(final.device) - 1
        return log_softmax(self.logits(final[torch.arange(len(last), device=final.device), last]))

    def _forward(self, rows: Rows, cache: DynamicCache | None = None) -> Tensor:
        """Return the final normalised states [row, column, d]; ``cache`` receives every column's keys and values."""
        device = submodule(self.model, self.family.embeddings).weight.device
        mask = rows.mask.to(device)
        inputs: dict[str, Any] = {"input_ids": rows.ids.to(device), "attention_mask": mask, "use_cache": False}
        if cache is not None:
            # The mask is written out, because its rows will be used without the earlier ones, and the positions are
            # counted from each row's first token, because these rows are padded on the left as well.
            positions = (mask.cumsum(1) - 1).clamp_min(0)
            inputs |= {"attention_mask": _causal_mask(mask, self.dtype), "position_ids": positions}
            inputs |= {"past_key_values": cache, "use_cache": True}
        final: Tensor = self.model.base_model(**inputs).last_hidden_state
        return final

    # --- answers

    @torch.no_grad()
    def answer_logprobs(self, prompts: Sequence[str], answers: Sequence[str]) -> list[AnswerScore]:
        """Score each answer after its prompt.  The result of a pair does not depend on the others, up to rounding."""
        heads = self.format.prompts(prompts)
        tails = self.format.answers(prompts, answers)
        return self.score_ids(heads, tails)

    @torch.no_grad()
    def score_ids(self, heads: Sequence[tuple[int, ...]], tails: Sequence[tuple[int, ...]]) -> list[AnswerScore]:
        """Score each tail after its head; logits are computed at the tails' positions only."""
        scores: list[AnswerScore | None] = [None] * len(heads)
        for group in self.groups([len(h) + len(t) - 1 for h, t in zip(heads, tails, strict=True)]):
            final = self._forward(pad_rows([heads[i] + tails[i][:-1] for i in group]))
            where = [(row, len(heads[i]) - 1 + k) for row, i in enumerate(group) for k in range(len(tails[i]))]
            at = torch.tensor(where, device=final.device)
            logprobs = log_softmax(self.logits(final[at[:, 0], at[:, 1]]))
            wanted = torch.tensor([token for i in group for token in tails[i]], device=logprobs.device)
            nll = -logprobs.gather(1, wanted[:, None])[:, 0].double().cpu()
            argmax = logprobs.argmax(1).cpu()
            start = 0
            for i in group:
                stop = start + len(tails[i])
                best = tuple(argmax[start:stop].tolist())
                n_correct = sum(a == b for a, b in zip(best, tails[i], strict=True))
                total = float(nll[start:stop].sum())
                scores[i] = AnswerScore(total, len(tails[i]), best, n_correct if total == total else 0)
                start = stop
        return [score for score in scores if score is not None]

    @torch.no_grad()
    def sample(self, starts: Sequence[str], n_tokens: int, *, top_k: int, seed: int) -> list[str]:
        """Continue each start by ``n_tokens`` tokens drawn from the ``top_k`` likeliest; the same seed, the same texts."""
        generator = torch.Generator().manual_seed(seed)
        texts = []
        special = set(self.tokenizer.all_special_ids)
        for ids in self.format.prompts(starts):
            grown = list(ids)
            for _ in range(n_tokens):
                logprobs = self.next_logprobs(pad_rows([grown]))[0].double().cpu()
                logprobs[list(special)] = -torch.inf
                best = logprobs.topk(min(top_k, len(logprobs)))
                drawn = torch.multinomial(best.values.softmax(0), 1, generator=generator)
                grown.append(int(best.indices[drawn]))
            texts.append(self.format.decode([token for token in grown if token not in special]).strip())
        return texts


def load(
    name_or_path: str, *, revision: str | None = None, dtype: str | torch.dtype = "auto", device: str = "cpu"
) -> LanguageModel:
    """Load a bundled model by its name, or a Hugging Face model by hub id or folder.

    Args:
        name_or_path: ``factworld-gpt2`` and the like, a folder with ``config.json``, or a hub id.
        revision: Commit of the hub repository; pin it in experiments.
        dtype: A torch dtype or its name; ``"auto"`` takes the checkpoint's.
        device: Where the whole model goes.

    Raises:
        ModelError: No such model, a family without a row in the table, or NaN weights.
    """
    from editing.factworld.bundled import bundled_folder

    folder = bundled_folder(name_or_path) or name_or_path
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, revision=revision)
        model = AutoModelForCausalLM.from_pretrained(folder, revision=revision, dtype=dtype)
    except (OSError, ValueError) as error:
        raise ModelError(
            f"model {name_or_path!r} could not be loaded: {error}; expected a bundled model, a local folder in Hugging "
            "Face's layout (config.json, model.safetensors, tokenizer.json), or a hub id that this machine can reach"
        ) from error
    return LanguageModel(model.to(device), tokenizer, name=str(name_or_path))


def log_softmax(logits: Tensor) -> Tensor:
    """Return log-probabilities, in float32 at least."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)


def _first(output: Any) -> Tensor:
    # A block returns a tensor in some families and versions, a tuple that begins with it in others.
    state: Tensor = output[0] if isinstance(output, tuple) else output
    return state


def _map_calls(
    change: Callable[[Any], Any], calls: Sequence[tuple[tuple[Any, ...], dict[str, Any]]]
) -> tuple[tuple[tuple[Any, ...], dict[str, Any]], ...]:
    def deep(value: Any) -> Any:
        return tuple(deep(item) for item in value) if isinstance(value, tuple) else change(value)

    return tuple((deep(args), {name: deep(value) for name, value in kwargs.items()}) for args, kwargs in calls)


def _causal_mask(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Return what is added to attention scores [row, 1, query, key]: 0 where a query may look, else the least number."""
    width = mask.shape[1]
    order = torch.ones(width, width, dtype=torch.bool, device=mask.device).tril()
    # A padding column looks at itself: a query that may look nowhere gives NaN.
    allowed = order & (mask[:, None, None, :].bool() | torch.eye(width, dtype=torch.bool, device=mask.device))
    return torch.zeros(allowed.shape, dtype=dtype, device=mask.device).masked_fill(~allowed, torch.finfo(dtype).min)


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
    return _hook(module.register_forward_hook(lambda _module, _args, output: keep(site, _first(output))))
