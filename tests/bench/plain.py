"""The plain version of target optimisation: one fact at a time, the whole model, all logits, as anyone would write it.

It is the baseline of the benchmarks, so it must itself be right: ``tests/parity/test_plain.py`` holds it to the golden
vectors.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from editing.lm import LanguageModel
from editing.requests import EditRequest
from editing.targets import KL_PROMPT, TargetHparams
from editing.tokens import pad_rows


def plain_target(
    lm: LanguageModel,
    request: EditRequest,
    contexts: Sequence[str],
    layer: int,
    hparams: TargetHparams,
    *,
    site: Literal["value", "block"],
) -> tuple[Tensor, Tensor, list[float]]:
    """Return (initial state [d], delta [d], total loss of each step) for one request."""
    texts = [context + request.prompt for context in contexts] + [KL_PROMPT.replace("{}", request.subject)]
    ends = [len(context) + request.subject_end for context in contexts] + [len(request.subject)]
    prompts = lm.format.lookups(texts, ends)
    (target,) = lm.format.answers([request.prompt], [request.target_new])
    rows = pad_rows([p.ids + target[:-1] for p in prompts[:-1]] + [prompts[-1].ids])
    lookups = torch.tensor([p.lookup for p in prompts])
    index = torch.arange(len(texts))
    module = lm.block(layer) if site == "block" else lm.mlp_out(layer)
    d = lm.weight(layer).shape[0]
    delta = torch.zeros(d, dtype=lm.dtype, requires_grad=True)
    found: list[Tensor] = []

    def add_delta(_module: object, _args: object, output: Tensor | tuple[Tensor, ...]) -> Tensor | tuple[Tensor, ...]:
        state = output[0] if isinstance(output, tuple) else output
        if not found:
            found.append(state[0, lookups[0]].detach().clone())
        moved = state.clone()
        moved[index, lookups] += delta
        return (moved, *output[1:]) if isinstance(output, tuple) else moved

    optimizer = torch.optim.Adam([delta], lr=hparams.lr)
    before: Tensor | None = None
    losses: list[float] = []
    for step in range(hparams.steps):
        handle = module.register_forward_hook(add_delta)
        try:
            logits = lm.model(input_ids=rows.ids, attention_mask=rows.mask).logits
        finally:
            handle.remove()
        logprobs = logits.log_softmax(-1)
        nll = torch.stack(
            [
                -torch.stack([logprobs[row, len(p.ids) - 1 + k, token] for k, token in enumerate(target)]).mean()
                for row, p in enumerate(prompts[:-1])
            ]
        ).mean()
        now = logprobs[-1, lookups[-1]]
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
