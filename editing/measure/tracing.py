"""Causal tracing (arXiv:2202.05262): which states, put back into a corrupted run, bring the answer back."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from editing.errors import RequestError
from editing.measure.corrupted_run import corrupted_run, noise_on
from editing.model.families import submodule
from editing.model.lm import LanguageModel, Site
from editing.model.memory import Part, done_in_parts
from editing.model.tokens import pad_rows
from editing.model.upper_pass import hooked
from editing.requests import EditRequest

Kind = Literal["hidden", "mlp", "attention"]
KINDS: tuple[Kind, ...] = ("hidden", "mlp", "attention")
_SITES: dict[Kind, Literal["block", "value", "attention"]] = {
    "hidden": "block",
    "mlp": "value",
    "attention": "attention",
}


class Trace(NamedTuple):
    """Tracing of one fact."""

    request_id: str
    tokens: tuple[str, ...]
    subject: tuple[int, int]
    """First and last position of the subject's tokens."""
    low: float
    """Probability of the answer's first token in the corrupted run, mean over noise samples."""
    high: float
    """The same in the clean run."""
    scores: dict[Kind, Tensor]
    """[token, layer], the probability with that state restored."""


@dataclass(frozen=True, kw_only=True)
class TracePlan:
    """How to trace."""

    kinds: tuple[Kind, ...] = KINDS
    samples: int = 10
    """Noise draws per fact."""
    window: int = 10
    """MLP and attention outputs are restored in so many layers around l, from l - window//2 on; hidden states one at a time."""
    noise: float | None = None
    """Standard deviation of the noise; None is 3 sigma of the subjects' token embeddings."""
    seed: int = 1


Rule = Literal["first_token", "whole_answer"]
"""When a model knows a fact: the first token of the true target is the argmax behind the prompt; or that token is, as it
decodes, the whole target (the official code's ``expect``)."""


def known_facts(lm: LanguageModel, requests: Sequence[EditRequest], rule: Rule) -> list[bool]:
    """Return of each request whether the model knows its true target; the trace of one that it does not know is noise.

    A prompt that fills the model's context is answered by nothing, so that its fact is not known; nor is one without a true
    target.
    """
    prompts = [request.prompt for request in requests]
    ids, limit = lm.format.prompts(prompts), lm.context_tokens
    fits = [i for i, row in enumerate(ids) if limit is None or len(row) < limit]
    asked = [i for i in fits if requests[i].target_true]
    answers = lm.format.answers([prompts[i] for i in asked], [requests[i].target_true for i in asked])
    scores = lm.score_ids([ids[i] for i in asked], [answer[:1] for answer in answers])
    found = [False] * len(requests)
    for i, score in zip(asked, scores, strict=True):
        whole = lm.format.decode(score.argmax_ids).strip() == requests[i].target_true.strip()
        found[i] = score.n_correct == 1 and (whole or rule == "first_token")
    return found


def subject_noise(lm: LanguageModel, requests: Sequence[EditRequest]) -> float:
    """Return three standard deviations of the token embeddings of all subjects, as they enter the model (Gemma scales them)."""
    texts = [request.subject for request in requests]
    ids = [token for text in lm.tokenizer(texts, add_special_tokens=False)["input_ids"] for token in text]
    embedded = submodule(lm.model, lm.family.embeddings)(torch.tensor(ids, device=lm.input_device))
    return 3.0 * float(embedded.detach().double().std())


def causal_trace(
    lm: LanguageModel,
    requests: Sequence[EditRequest],
    plan: TracePlan,
    *,
    share: bool = True,
) -> list[Trace]:
    """Trace each request's *true* target: noise on the subject's embeddings, one state at a time restored.

    All token positions of a layer are restored together; noise is the same in every one of them.

    Args:
        share: Take the blocks below a restored state, and the positions before it, from the corrupted run (of decoders without
            patches); else every cell is a whole pass.  Changes results by rounding only.

    Raises:
        RequestError: No requests.
    """
    if not requests:
        raise RequestError("no facts to trace; expected at least one that the model knows")
    noise = subject_noise(lm, requests) if plan.noise is None else plan.noise
    return [_trace(lm, request, plan, noise, share=share) for request in lm.progress.over(requests)]


def _trace(lm: LanguageModel, request: EditRequest, plan: TracePlan, noise: float, *, share: bool) -> Trace:
    prompt = lm.format.lookups([request.prompt], [request.subject_end])[0]
    start = request.template.index("{}")
    first = lm.format.lookups([request.prompt], [start + 1])[0].lookup
    answer = lm.format.answers([request.prompt], [request.target_true])[0][0]
    subject = (first, prompt.lookup)
    n_tokens = len(prompt.ids)
    draws = np.random.RandomState(plan.seed).randn(plan.samples, subject[1] - subject[0] + 1, _width(lm))
    shift = torch.tensor(draws * noise)
    layers = range(lm.n_layers)
    sites = [Site(_SITES[kind], layer) for kind in plan.kinds for layer in layers]
    clean = lm.states(pad_rows([prompt.ids]), sites)
    high = float(_probability(lm, [prompt.ids], answer)[0])
    run = corrupted_run(lm, prompt.ids, subject, shift, answer) if lm.packs and share else None
    low = float(_corrupted(lm, prompt.ids, subject, shift, answer, {}, 1)[0]) if run is None else run.low
    scores = {}
    for kind in lm.progress.over(plan.kinds):
        grid = torch.empty(n_tokens, lm.n_layers, dtype=torch.float64)
        for layer in lm.progress.over(layers):
            first_layer = layer - plan.window // 2 if kind != "hidden" else layer
            n_restored = plan.window if kind != "hidden" else 1
            within = range(max(0, first_layer), min(lm.n_layers, first_layer + n_restored))
            restored = {Site(_SITES[kind], each): clean[Site(_SITES[kind], each)][0] for each in within}
            if run is None:
                grid[:, layer] = _corrupted(lm, prompt.ids, subject, shift, answer, restored, n_tokens)
                continue
            grid[: subject[0], layer] = low  # what stands before the subject is not corrupted
            positions = range(subject[0], n_tokens)
            grid[subject[0] :, layer] = run.restored(positions, restored, kind=_SITES[kind], first_layer=min(within))
        scores[kind] = grid
    tokens = tuple(lm.format.decode([token]) for token in prompt.ids)
    return Trace(request.request_id, tokens, subject, low, high, scores)


def _width(lm: LanguageModel) -> int:
    return int(submodule(lm.model, lm.family.embeddings).weight.shape[1])


def _corrupted(
    lm: LanguageModel,
    ids: tuple[int, ...],
    subject: tuple[int, int],
    shift: Tensor,
    answer: int,
    restored: dict[Site, Tensor],
    n_positions: int,
) -> Tensor:
    """Return the answer's probability with each of the first ``n_positions`` positions restored, mean over draws.

    Rows are (position, draw); in the rows of position t the sites' states at t are the clean ones.
    """
    n_draws = shift.shape[0]

    def split(numbers: Sequence[int]) -> list[Part[Sequence[int]]]:
        size = max(1, lm.tokens_per_forward // len(ids))
        chunks = [numbers[start : start + size] for start in range(0, len(numbers), size)]
        return [Part(chunk, chunk) for chunk in chunks]

    def work(numbers: Sequence[int]) -> Tensor:
        rows = torch.arange(len(numbers))
        positions, draws = torch.tensor(numbers) // n_draws, torch.tensor(numbers) % n_draws

        def restore(state: Tensor) -> Callable[..., Any]:
            def hook(_module: nn.Module, _args: Any, output: Any) -> Any:
                whole = output[0] if isinstance(output, tuple) else output
                whole = whole.clone()
                whole[rows, positions] = state[positions.to(state.device)]
                return (whole, *output[1:]) if isinstance(output, tuple) else whole

            return hook

        with ExitStack() as stack:
            stack.enter_context(noise_on(lm, subject, shift[draws]))
            for site, state in restored.items():
                stack.enter_context(hooked(lm.module_at(site).register_forward_hook(restore(state))))
            return _probability(lm, [ids] * len(numbers), answer)

    found = done_in_parts(
        lm, range(n_positions * n_draws), split, work
    )  # in their order: parts are taken from the front
    probability = torch.cat([part for _, part in found])
    return probability.reshape(n_positions, n_draws).mean(1)


def _probability(lm: LanguageModel, sequences: list[tuple[int, ...]], answer: int) -> Tensor:
    """Return the probability [row] of ``answer`` after each sequence (all of one length)."""
    return lm.next_logprobs(pad_rows(sequences))[:, answer].exp().double().cpu()
