"""The plain versions: one fact at a time, the whole model, all logits, a pass per layer, as anyone would write them.

They are the baselines of the benchmarks, so they must themselves be right: ``tests/parity/test_plain.py`` holds them to
the golden vectors.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from editing.methods.fact_rows import KL_PROMPT
from editing.methods.targets import TargetHparams
from editing.model.lm import LanguageModel, Site
from editing.model.tokens import pad_rows
from editing.model.upper_pass import first_of
from editing.requests import EditRequest


def plain_target(
    lm: LanguageModel,
    request: EditRequest,
    contexts: Sequence[str],
    layer: int,
    hparams: TargetHparams,
    *,
    site: Literal["value", "block"],
    logits_twice: bool = False,
) -> tuple[Tensor, Tensor, list[float]]:
    """Return (initial state [d], delta [d], total loss of each step) for one request.

    With ``logits_twice`` the vocabulary logits of the loss are computed beside those that the model has computed
    already, as the official code does.
    """
    texts = [context + request.prompt for context in contexts] + [KL_PROMPT.replace("{}", request.subject)]
    ends = [len(context) + request.subject_end for context in contexts] + [len(request.subject)]
    prompts = lm.format.lookups(texts, ends)
    (target,) = lm.format.answers([request.prompt], [request.target_new])
    rows = pad_rows([p.ids + target[:-1] for p in prompts[:-1]] + [prompts[-1].ids])
    ids, mask = rows.ids.to(lm.input_device), rows.mask.to(lm.input_device)
    lookups = torch.tensor([p.lookup for p in prompts])
    index = torch.arange(len(texts))
    module = lm.block(layer) if site == "block" else lm.mlp_out(layer)
    d = lm.weight(layer).shape[0]
    delta = torch.zeros(d, dtype=lm.dtype, device=lm.input_device, requires_grad=True)
    found: list[Tensor] = []

    def add_delta(_module: object, _args: object, output: Tensor | tuple[Tensor, ...]) -> Tensor | tuple[Tensor, ...]:
        state = output[0] if isinstance(output, tuple) else output
        if not found:
            found.append(state[0, lookups[0]].detach().clone())
        moved = state.clone()
        moved[index, lookups] += delta
        return (moved, *output[1:]) if isinstance(output, tuple) else moved

    spots = [(row, len(p.ids) - 1 + k, token) for row, p in enumerate(prompts[:-1]) for k, token in enumerate(target)]
    at = tuple(torch.tensor(spots, device=lm.input_device).T)
    optimizer = torch.optim.Adam([delta], lr=hparams.lr)
    before: Tensor | None = None
    losses: list[float] = []
    for step in range(hparams.steps):
        handle = module.register_forward_hook(add_delta)
        try:
            states = lm.model.base_model(input_ids=ids, attention_mask=mask).last_hidden_state
        finally:
            handle.remove()
        logits = lm.logits(states)
        logprobs = (lm.logits(states) if logits_twice else logits).log_softmax(-1)
        nll = -logprobs[at].mean()
        now = logits[-1, lookups[-1]].log_softmax(-1)
        before = now.detach() if before is None else before
        kl = (now.exp() * (now - before)).sum()
        loss = nll + hparams.kl_weight * kl + hparams.weight_decay * delta.norm() / found[0].norm() ** 2
        losses.append(float(loss.detach()))
        if losses[-1] < hparams.stop_loss or step == hparams.steps - 1:
            break
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            largest = hparams.clamp * found[0].norm()
            if delta.norm() > largest:
                delta.mul_(largest / delta.norm())
    return found[0], delta.detach(), losses


@torch.no_grad()
def plain_states(
    lm: LanguageModel, requests: Sequence[EditRequest], contexts: Sequence[str], module: nn.Module, *, inputs: bool
) -> Tensor:
    """Return a module's input or output [edit, context, d] at each subject's last token: whole prompts, whole model."""
    found = []
    for request in requests:
        texts = [context + request.prompt for context in contexts]
        prompts = lm.format.lookups(texts, [len(context) + request.subject_end for context in contexts])
        rows = pad_rows([p.ids for p in prompts])
        kept: list[Tensor] = []

        def keep(_module: object, args: tuple[Tensor, ...], output: Any, kept: list[Tensor] = kept) -> None:
            kept.append(args[0] if inputs else first_of(output))

        handle = module.register_forward_hook(keep)
        try:
            lm.model(input_ids=rows.ids.to(lm.input_device), attention_mask=rows.mask.to(lm.input_device))
        finally:
            handle.remove()
        found.append(kept[0][torch.arange(len(texts)), torch.tensor([p.lookup for p in prompts])])
    return torch.stack(found)


def plain_keys(lm: LanguageModel, requests: Sequence[EditRequest], contexts: Sequence[str], layer: int) -> Tensor:
    """Return keys [edit, d_in]: half the bare prompt's, half the mean of the prefixed ones'."""
    keys = plain_states(lm, requests, contexts, lm.mlp_out(layer), inputs=True)
    return 0.5 * keys[:, 0] + 0.5 * keys[:, 1:].mean(1)


def plain_spread(
    lm: LanguageModel,
    requests: Sequence[EditRequest],
    contexts: Sequence[str],
    layers: Sequence[int],
    hparams: TargetHparams,
    moments: Mapping[int, Tensor],
    ridge: float,
    *,
    logits_twice: bool = True,
) -> dict[int, Tensor]:
    """Return MEMIT's update [d_out, d_in] of each layer; with one layer, EMMET's at the same ridge.

    The model is left as it was.
    """
    targets = [
        plain_target(lm, request, contexts, layers[-1], hparams, site="block", logits_twice=logits_twice)
        for request in requests
    ]
    wanted = torch.stack([initial + delta for initial, delta, _ in targets])
    updates: dict[int, Tensor] = {}
    with lm.preserved(tuple(lm.parameter_names(layer)["weight"] for layer in layers)):
        for index, layer in enumerate(layers):
            keys = plain_keys(lm, requests, contexts, layer)
            present = plain_states(lm, requests, ("",), lm.block(layers[-1]), inputs=False)[:, 0]
            residual = (wanted - present) / (len(layers) - index)
            updates[layer] = plain_solve(moments[layer], keys, residual, ridge)
            lm.weight(layer).add_(updates[layer].to(lm.dtype))
    return updates


def plain_solve(moment: Tensor, keys: Tensor, residual: Tensor, ridge: float) -> Tensor:
    """Return ``R Kᵀ (λC + KKᵀ)⁻¹`` [d_out, d_in] in float64 (MEMIT's code)."""
    return residual.double().T @ plain_right_factor(moment, keys, ridge)


def plain_right_factor(moment: Tensor, keys: Tensor, ridge: float) -> Tensor:
    """Return what the residuals are multiplied with, ``Kᵀ (λC + KKᵀ)⁻¹`` [edit, d_in], by one dense solve in float64."""
    k = keys.double().T
    return torch.linalg.solve(ridge * moment.double() + k @ k.T, k).T


def plain_emmet_solve(moment: Tensor, keys: Tensor, residual: Tensor, ridge: float) -> Tensor:
    """Return ``R (KᵀC⁻¹K + ridge·I)⁻¹ KᵀC⁻¹`` [d_out, d_in] by an inverse in float64 (EMMET's code)."""
    k, inverse = keys.double().T, torch.linalg.inv(moment.double())
    system = k.T @ inverse @ k + ridge * torch.eye(k.shape[1], dtype=torch.float64, device=k.device)
    return residual.double().T @ torch.linalg.inv(system) @ k.T @ inverse


@torch.no_grad()
def plain_moment(lm: LanguageModel, sequences: Sequence[Sequence[int]], layer: int) -> Tensor:
    """Return one layer's second moment [d_in, d_in]: one text after another, up to that layer."""
    total, count, site = torch.zeros((), device=lm.input_device), 0, Site("key", layer)
    for sequence in sequences:
        keys = lm.states(pad_rows([sequence]), [site])[site][0]
        total, count = total + keys.T @ keys, count + len(keys)
    return total / count


@torch.no_grad()
def plain_scores(lm: LanguageModel, prompts: Sequence[str], answers: Sequence[Sequence[str]]) -> Tensor:
    """Return the summed NLL [prompt, answer] of each answer after each prompt: every pair a padded row, all logits."""
    pairs = [(prompt, answer) for prompt, mine in zip(prompts, answers, strict=True) for answer in mine]
    heads = lm.format.prompts([prompt for prompt, _ in pairs])
    tails = lm.format.answers([prompt for prompt, _ in pairs], [answer for _, answer in pairs])
    rows = pad_rows([head + tail for head, tail in zip(heads, tails, strict=True)])
    logits = lm.model(input_ids=rows.ids.to(lm.input_device), attention_mask=rows.mask.to(lm.input_device)).logits
    logprobs = logits.log_softmax(-1)
    nll = [
        -sum(logprobs[row, len(head) - 1 + k, token] for k, token in enumerate(tail))
        for row, (head, tail) in enumerate(zip(heads, tails, strict=True))
    ]
    return torch.stack(nll).unflatten(0, (len(prompts), -1))


@torch.no_grad()
def plain_continuations(lm: LanguageModel, prompts: Sequence[str], n_tokens: int) -> list[tuple[int, ...]]:
    """Return the ``n_tokens`` likeliest next tokens, one after another, of each prompt: the whole texts again for each."""
    texts = [list(ids) for ids in lm.format.prompts(prompts)]
    for _ in range(n_tokens):
        rows = pad_rows(texts)
        logits = lm.model(input_ids=rows.ids.to(lm.input_device), attention_mask=rows.mask.to(lm.input_device)).logits
        for row, text in enumerate(texts):
            text.append(int(logits[row, len(text) - 1].argmax()))
    return [tuple(text[-n_tokens:]) for text in texts]
