"""What locate-then-edit methods share: keys of a batch, targets, and the loop over layers."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from editing.methods.editor import (
    Artifacts,
    BaseEditor,
    EditResult,
    EditUpdateReport,
    FactReport,
    Need,
    ParameterReport,
    ParameterUpdate,
    State,
    causal_only,
    require,
)
from editing.methods.geometry import KeyGeometry, Solution
from editing.methods.targets import TargetHparams, Targets, optimise_targets
from editing.model.families import Family
from editing.model.lm import LanguageModel, Site
from editing.requests import EditRequest

Averaging = Literal["flat", "half_bare", "prefixes_only"]


_KEY_AND_VALUE: tuple[Literal["key", "value"], ...] = ("key", "value")


class Keys(NamedTuple):
    """Keys and values of a batch at one layer."""

    mean: Tensor
    """[edit, d_in], averaged over contexts."""
    bare: Tensor
    """[edit, d_in], of the bare prompt."""
    mean_value: Tensor
    """[edit, d_out], the projection's output averaged like ``mean``."""
    bare_value: Tensor


def read_keys(
    lm: LanguageModel,
    batch: Sequence[EditRequest],
    contexts: Sequence[str],
    layers: Sequence[int],
    averaging: Averaging,
) -> dict[int, Keys]:
    """Return the keys of each layer at each subject's last token, averaged over the contexts (the bare prompt comes first).

    All layers are read in one pass.

    ``flat`` weighs all contexts alike (ROME's code), ``half_bare`` gives the bare prompt one half and the others
    together the other half (MEMIT's and EMMET's code), ``prefixes_only`` leaves the bare prompt out (the papers).
    """
    texts = [context + request.prompt for request in batch for context in contexts]
    ends = [len(context) + request.subject_end for request in batch for context in contexts]
    # A causal model's key does not depend on what follows the subject, so the prompts end there.
    prompts = [(p.ids[: p.lookup + 1], p.lookup) for p in lm.format.lookups(texts, ends)]
    sites = [Site(kind, layer) for layer in layers for kind in _KEY_AND_VALUE]
    found = lm.states_at([ids for ids, _ in prompts], [at for _, at in prompts], sites)
    out = {}
    for layer in layers:
        keys, values = (found[Site(kind, layer)].unflatten(0, (len(batch), len(contexts))) for kind in _KEY_AND_VALUE)
        weights = _context_weights(averaging, len(contexts)).to(device=keys.device, dtype=keys.dtype)
        mean_key, mean_value = (torch.einsum("c,eci->ei", weights, states) for states in (keys, values))
        out[layer] = Keys(mean_key, keys[:, 0], mean_value, values[:, 0])
    return out


def _context_weights(averaging: Averaging, count: int) -> Tensor:
    if averaging == "flat" or count == 1:
        return torch.full((count,), 1.0 / count, dtype=torch.float64)
    bare = 0.5 if averaging == "half_bare" else 0.0
    return torch.tensor([bare] + [(1 - bare) / (count - 1)] * (count - 1), dtype=torch.float64)


def fact_reports(
    batch: Sequence[EditRequest], targets: Targets, updates: Sequence[EditUpdateReport]
) -> tuple[FactReport, ...]:
    """Return what is known of each fact: of its target's optimisation, and of its key at the last edited layer."""
    distances = targets.delta.double().norm(dim=1).tolist()
    asymmetry = {report.request_id: report.key_asymmetry for report in updates}
    return tuple(
        FactReport(
            request_id=request.request_id,
            target_loss=loss,
            n_steps=n,
            target_distance=distance,
            key_asymmetry=asymmetry[request.request_id],
        )
        for request, loss, n, distance in zip(batch, targets.final_loss, targets.n_steps, distances, strict=True)
    )


def edit_update_reports(
    batch: Sequence[EditRequest],
    parameter: str,
    keys: Keys,
    residual: Tensor,
    solution: Solution,
) -> tuple[EditUpdateReport, ...]:
    """Return, per edit, what the geometry predicts of it."""
    bare, mean = (solution.direction * part.double() for part in (keys.bare, keys.mean))
    asymmetry = bare.sum(1) / mean.sum(1)
    norms = residual.double().norm(dim=1)
    return tuple(
        EditUpdateReport(
            request_id=request.request_id,
            parameter=parameter,
            q=float(solution.q[i]),
            residual_norm=float(norms[i]),
            predicted_disturbance=float(solution.disturbance[i]),
            predicted_norm=float(solution.norm[i]),
            key_asymmetry=float(asymmetry[i]),
        )
        for i, request in enumerate(batch)
    )


def contradiction_warnings(batch: Sequence[EditRequest], solution: Solution) -> tuple[str, ...]:
    """Return a warning for each pair of edits with one key and different targets."""
    return tuple(
        f"requests {batch[i].request_id!r} and {batch[j].request_id!r} have the same key and different targets; "
        f"neither is met exactly (shortfall of the batch: {solution.shortfall:.2e})"
        for i, j in solution.contradictions
    )


@dataclass(frozen=True, kw_only=True)
class LocatingEditor(BaseEditor):
    """What ROME, MEMIT and EMMET have in common: the numbers of the target search, and the weights that they edit."""

    steps: int
    lr: float
    weight_decay: float
    clamp: float
    kl_weight: float
    contexts: int
    context_tokens: Sequence[int]
    """Tokens of a prefix after its start; equal shares of the prefixes have each length."""
    context_starts: Sequence[str]
    protocol: str

    needs: ClassVar[frozenset[Need]] = frozenset({"second_moment", "contexts", "subject"})
    writes: ClassVar[Literal["low_rank", "dense", "nothing"]] = "low_rank"
    predicts: ClassVar[bool] = True

    @classmethod
    def refusal(cls, family: Family, n_layers: int) -> str | None:
        return causal_only(family, "it looks for a subject's state in a left-to-right model")

    def __post_init__(self) -> None:
        require(
            self,
            steps=self.steps > 0,
            lr=self.lr > 0,
            clamp=self.clamp > 0,
            weight_decay=self.weight_decay >= 0,
            kl_weight=self.kl_weight >= 0,
            contexts=self.contexts >= 0,
            context_starts=bool(self.context_starts) or not self.contexts,
            context_tokens=bool(self.context_tokens) and min(self.context_tokens) > 0,
        )

    def sampling(self) -> Mapping[str, Any] | None:
        return {
            "contexts": self.contexts,
            "context_tokens": self.context_tokens,
            "context_starts": self.context_starts,
        }

    @property
    def target_hparams(self) -> TargetHparams:
        return TargetHparams(
            steps=self.steps, lr=self.lr, weight_decay=self.weight_decay, clamp=self.clamp, kl_weight=self.kl_weight
        )

    def parameter_names(self, lm: LanguageModel, layers: Sequence[int]) -> tuple[str, ...]:
        """Return the names of the edited weights."""
        return tuple(lm.parameter_names(layer)["weight"] for layer in layers)

    def site(self, family: Family) -> Literal["value", "block"]:
        """Return where the state is read that a target replaces."""
        raise NotImplementedError  # a subclass's duty

    def target_definition(self, family: Family) -> dict[str, Any] | None:
        return {"site": self.site(family), **asdict(self.target_hparams)}

    def targets(
        self,
        lm: LanguageModel,
        batch: Sequence[EditRequest],
        layers: Sequence[int],
        artifacts: Artifacts,
        under: Sequence[Mapping[str, Tensor]] | None = None,
    ) -> Targets:
        """Return the target of each request at the last layer: those given, or found on the model as it is now.

        ``under``: see :func:`editing.methods.targets.optimise_targets`.
        """
        if batch and all(request.request_id in artifacts.values for request in batch):
            return self.given(lm, batch, layers[-1], artifacts.values)
        if batch and all(request.request_id in artifacts.targets for request in batch):
            found = Targets.joined([artifacts.targets[request.request_id] for request in batch])
            return found.on(lm.weight(layers[-1]).device)
        return optimise_targets(
            lm, batch, artifacts.contexts, layers[-1], self.target_hparams, site=self.site(lm.family), under=under
        )

    def given(
        self, lm: LanguageModel, batch: Sequence[EditRequest], layer: int, values: Mapping[str, Tensor]
    ) -> Targets:
        """Return the targets that stand in ``values``; nothing was searched, so that they have no losses."""
        initial = self.present(lm, batch, layer)
        value = torch.stack([values[request.request_id] for request in batch]).to(initial)
        return Targets(initial, value - initial, torch.empty(len(batch), 0, 4, dtype=torch.float64))

    @staticmethod
    def present(lm: LanguageModel, batch: Sequence[EditRequest], layer: int) -> Tensor:
        """Return the state [edit, d] that targets are compared with, at the subject's last token of the bare prompts."""
        prompts = lm.format.lookups([r.prompt for r in batch], [r.subject_end for r in batch])
        site = Site("value" if lm.family.normed_value else "block", layer)
        return lm.states_at([p.ids[: p.lookup + 1] for p in prompts], [p.lookup for p in prompts], [site])[site]


@dataclass(frozen=True, kw_only=True)
class SpreadEditor(LocatingEditor):
    """MEMIT and its relatives: one target at the last layer, reached by equal shares of the residual from each layer.

    At each layer in turn the keys and the present state are read again, on the model with the earlier layers of this
    batch already written.  Subclasses say how the equation of one layer is solved.
    """

    remember: bool
    """Keep what the keys of earlier batches give: as knowledge to preserve at ridge > 0 (``C ← C + KKᵀ/ridge``), as
    constraints with zero residual at ridge 0."""

    @classmethod
    def refusal(cls, family: Family, n_layers: int) -> str | None:
        if family.normed_value and family.head == "causal" and n_layers > 1:
            return (
                "a norm stands between each MLP's output and the residual stream, so a residual cannot be shared among "
                "layers; give one layer"
            )
        return super().refusal(family, n_layers)

    def carried(self) -> Mapping[str, Any]:
        return {"remember": True} if self.remember else {}

    def ridge_for(self, n_edits: int) -> float | None:
        """Return the ridge for a batch of this size; None if it depends on the batch's keys."""
        raise NotImplementedError  # a subclass's one duty

    def ridge_in(self, geometry: KeyGeometry, keys: Tensor) -> float:
        """Return the ridge for a batch of these keys [edit, d_in] at one layer."""
        ridge = self.ridge_for(len(keys))
        assert ridge is not None, "an editor whose ridge depends on the keys says which it is"
        return ridge

    def key_sizes(
        self, lm: LanguageModel, batch: Sequence[EditRequest], artifacts: Artifacts, layers: Sequence[int]
    ) -> dict[int, Tensor]:
        """Return kᵀC⁻¹k [edit] of each request's key at each layer, as the model is: what a ridge is compared with."""
        keys = read_keys(lm, batch, artifacts.contexts, layers, self.averaging)
        return {layer: artifacts.geometry_of(layer).sizes(keys[layer].mean) for layer in layers}

    def solve(self, geometry: KeyGeometry, keys: Tensor, residual: Tensor, earlier: Tensor | None) -> Solution:
        """Return one layer's update; ``earlier`` holds the keys of batches to remember."""
        ridge = self.ridge_in(geometry, keys)
        if earlier is not None and ridge > 0:
            return geometry.remember(earlier, ridge=ridge).least_disturbing_update(keys, residual, ridge=ridge)
        return geometry.least_disturbing_update(keys, residual, ridge=ridge, held=earlier)

    @property
    def averaging(self) -> Averaging:
        return "prefixes_only" if self.protocol == "paper" else "half_bare"

    def site(self, family: Family) -> Literal["value", "block"]:
        return "value" if family.normed_value else "block"

    def edit(
        self, lm: LanguageModel, batch: Sequence[EditRequest], layers: Sequence[int], state: State, artifacts: Artifacts
    ) -> EditResult:
        return self._write(lm, batch, layers, state, artifacts, self.targets(lm, batch, layers, artifacts))

    def edit_each(
        self, lm: LanguageModel, batch: Sequence[EditRequest], layers: Sequence[int], artifacts: Artifacts
    ) -> list[EditResult]:
        targets = self.targets(lm, batch, layers, artifacts)
        return [
            self._write(lm, [request], layers, {}, artifacts, targets.select([i])) for i, request in enumerate(batch)
        ]

    def _write(
        self,
        lm: LanguageModel,
        batch: Sequence[EditRequest],
        layers: Sequence[int],
        state: State,
        artifacts: Artifacts,
        targets: Targets,
    ) -> EditResult:
        updates: list[ParameterUpdate] = []
        edit_updates: list[EditUpdateReport] = []
        parameters: list[ParameterReport] = []
        warnings: list[str] = []
        written: dict[int, Tensor] = {}
        with lm.preserved(self.parameter_names(lm, layers)):
            for index, layer in enumerate(layers):
                name = lm.parameter_names(layer)["weight"]
                geometry = artifacts.geometry_of(layer)
                keys = read_keys(lm, batch, artifacts.contexts, [layer], self.averaging)[layer]
                present = self.present(lm, batch, layers[-1])
                residual = (targets.value - present) / (len(layers) - index)
                solution = self.solve(geometry, keys.mean, residual, state.get(f"keys.{layer}"))
                update = ParameterUpdate.low_rank(lm, name, solution.left, solution.right)
                update.apply(lm)
                updates.append(update)
                ridge = self.ridge_in(geometry, keys.mean)
                parameters.append(
                    ParameterReport(
                        parameter=name, ridge=ridge, shortfall=solution.shortfall, solve_error=solution.solve_error
                    )
                )
                edit_updates += edit_update_reports(batch, name, keys, residual, solution)
                warnings += contradiction_warnings(batch, solution)
                written[layer] = keys.mean
        return EditResult(
            tuple(updates),
            remembered(state, written) if self.remember else {},
            fact_reports(batch, targets, edit_updates),
            tuple(edit_updates),
            tuple(parameters),
            tuple(warnings),
        )


def remembered(state: State, written: Mapping[int, Tensor]) -> State:
    """Return the state with the keys of one more batch."""
    out = dict(state)
    for layer, keys in written.items():
        earlier = [state[f"keys.{layer}"].to(keys)] if f"keys.{layer}" in state else []
        out[f"keys.{layer}"] = torch.cat([*earlier, keys])
    return out
