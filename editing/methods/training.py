"""Training a hyper-network on facts that no run edits; resumable at any step."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any, Literal

import torch
from torch import Tensor

from editing.errors import RequestError
from editing.methods.hypernetwork import HyperNetworks, NetworkShape
from editing.methods.meta import (
    Accuracy,
    MetaLoss,
    MetaTask,
    PairBatches,
    accuracy,
    edit_batches,
    edited_modules,
    meta_gradient,
    shapes_of,
)
from editing.model.heads import TokenChoice
from editing.model.lm import LanguageModel
from editing.model.memory import until_it_fits
from editing.model.weights import Part
from editing.requests import EditRequest, facts_with_variants

MetaSchedule = Literal["constant", "linear"]


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """How a hyper-network is trained."""

    layers: tuple[int, ...]
    parts: tuple[Part, ...]
    tokens: TokenChoice
    edits: int
    """Facts edited jointly in one step (m)."""
    steps: int
    """0 means one epoch of the facts."""
    meta_lr: float
    lr_lr: float
    """Adam's learning rate for the step sizes η."""
    meta_schedule: MetaSchedule
    """``linear``: the meta learning rate falls in a straight line, from its value to 0 after the last step."""
    locality_weight: float
    max_gradient_norm: float
    per_batch_mean: bool
    microbatch: int | None
    """Rows of one micro-batch; as many as one forward pass takes if None."""
    seed: int


class Trainer:
    """A hyper-network, its optimiser, and how many steps they have seen.

    Args:
        facts: Training facts; each needs a paraphrase and a neighborhood prompt.

    Raises:
        RequestError: There are fewer facts than one step edits, or a fact lacks a prompt.
    """

    def __init__(
        self, lm: LanguageModel, facts: Sequence[EditRequest], plan: TrainingPlan, shape: NetworkShape
    ) -> None:
        check_training_facts(facts, plan.edits)
        self._variants = facts_with_variants(facts)
        self._lm, self.plan = lm, replace(plan, steps=plan.steps or len(self._variants) // plan.edits)
        self.modules = edited_modules(lm, plan.layers, plan.parts)
        dtype = torch.promote_types(lm.dtype, torch.float32)
        self.networks = HyperNetworks(shapes_of(lm, list(self.modules)), shape).to(lm.input_device, dtype)
        named = list(self.networks.named_parameters())
        step_sizes = [parameter for name, parameter in named if name.endswith(".lr.weight")]
        others = [parameter for name, parameter in named if not name.endswith(".lr.weight")]
        self._optimizer = torch.optim.Adam([{"params": others}, {"params": step_sizes}])
        self.steps = 0

    def step(self) -> MetaLoss:
        """Take one meta-gradient step."""
        plan, seen = self.plan, {name: value.clone() for name, value in self.networks.named_buffers()}

        def gradient() -> tuple[float, float]:
            task = self.task(self._batch(self.steps), random.Random(f"prompts-{plan.seed}-{self.steps}"))
            self._optimizer.zero_grad(set_to_none=False)
            self.networks.load_state_dict(seen, strict=False)  # statistics of inputs grow in each attempt
            return meta_gradient(
                self._lm,
                self.networks,
                task,
                self.modules,
                plan.tokens,
                locality_weight=plan.locality_weight,
                per_batch_mean=plan.per_batch_mean,
            )

        generalisation, locality = until_it_fits(self._lm, gradient)
        norm = self.descend()
        return MetaLoss(generalisation, locality, norm)

    def descend(self) -> float:
        """Clip the gradient, take Adam's step, and return the norm before clipping."""
        left = 1 - self.steps / self.plan.steps if self.plan.meta_schedule == "linear" else 1
        for group, rate in zip(self._optimizer.param_groups, (self.plan.meta_lr, self.plan.lr_lr), strict=True):
            group["lr"] = rate * left
        norm = float(torch.nn.utils.clip_grad_norm_(self.networks.parameters(), self.plan.max_gradient_norm))
        if isfinite(norm):  # one NaN would make every parameter NaN; the step is on record with its norm
            self._optimizer.step()
        self.steps += 1
        return norm

    def train(self, until: int, on_step: Callable[[int, MetaLoss], None] = lambda step, loss: None) -> None:
        """Go on to ``until`` steps."""
        while self.steps < until:
            loss = self.step()
            on_step(self.steps, loss)

    def validate(self, facts: Sequence[EditRequest]) -> Accuracy:
        """Return what one joint edit of other facts does; the networks see nothing of it."""
        task = self.task(facts, random.Random(f"validation-{self.plan.seed}"))
        return accuracy(
            self._lm, self.networks, task, self.modules, self.plan.tokens, per_batch_mean=self.plan.per_batch_mean
        )

    def task(self, facts: Sequence[EditRequest], rng: random.Random) -> MetaTask:
        """Return the micro-batches of some facts, each with one of its paraphrases and neighborhood prompts."""
        lm, rows = self._lm, self.plan.microbatch
        paraphrases = [rng.choice(fact.paraphrase_prompts) for fact in facts]
        neighbors = [rng.choice(fact.neighbors) for fact in facts]
        return MetaTask(
            edit_batches(lm, facts, rows),
            PairBatches(lm, paraphrases, [fact.target_new for fact in facts], rows),
            PairBatches(lm, [prompt for prompt, _ in neighbors], [answer for _, answer in neighbors], rows),
        )

    def _batch(self, step: int) -> list[EditRequest]:
        """Return the facts of one step: each epoch is a seeded order of all facts, cut into full batches.

        Of requests that change one fact to different answers, an epoch takes one, and the next epoch another.
        """
        per_epoch = len(self._variants) // self.plan.edits
        epoch, place = divmod(step, per_epoch)
        order = list(range(len(self._variants)))
        random.Random(f"epoch-{self.plan.seed}-{epoch}").shuffle(order)
        start = place * self.plan.edits
        chosen = [self._variants[i] for i in order[start : start + self.plan.edits]]
        return [variants[epoch % len(variants)] for variants in chosen]

    def state(self) -> dict[str, Tensor]:
        """Return everything a resumed training needs, as named tensors."""
        found = {f"net.{name}": value.detach().clone() for name, value in self.networks.state_dict().items()}
        for name, parameter in self.networks.named_parameters():
            for key, value in self._optimizer.state.get(parameter, {}).items():
                found[f"adam.{key}.{name}"] = torch.as_tensor(value).clone()
        found["steps"] = torch.tensor(self.steps)
        return found

    def resume(self, state: Mapping[str, Tensor]) -> None:
        """Go back to where :meth:`state` was taken."""
        load_networks(self.networks, state)
        for name, parameter in self.networks.named_parameters():
            kept: dict[str, Any] = {
                key: state[f"adam.{key}.{name}"].clone().to(parameter.device if key != "step" else "cpu")
                for key in ("step", "exp_avg", "exp_avg_sq")
                if f"adam.{key}.{name}" in state
            }
            if kept:
                self._optimizer.state[parameter] = kept
        self.steps = int(state["steps"])


def load_networks(networks: HyperNetworks, state: Mapping[str, Tensor]) -> HyperNetworks:
    """Put the saved weights and statistics into ``networks``."""
    networks.load_state_dict({k.removeprefix("net."): v for k, v in state.items() if k.startswith("net.")})
    return networks


def check_training_facts(facts: Sequence[EditRequest], edits: int) -> None:
    """Raise RequestError if a hyper-network cannot be trained on these facts."""
    count = len(facts_with_variants(facts))
    if count < edits:
        raise RequestError(f"{count} training facts, fewer than one step edits ({edits}); expected at least as many")
    for fact in facts:
        if not fact.paraphrase_prompts or not fact.neighborhood_prompts:
            raise RequestError(
                f"training fact {fact.request_id!r} has {len(fact.paraphrase_prompts)} paraphrase and "
                f"{len(fact.neighborhood_prompts)} neighborhood prompts; expected at least one of each"
            )
