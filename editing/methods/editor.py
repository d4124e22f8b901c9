"""What an editor is: from a batch of requests to parameter updates, with everything that is known of them."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from editing.errors import HparamsError, MomentError, did_you_mean
from editing.hparams import editor_names
from editing.methods.geometry import KeyGeometry
from editing.model.families import Family
from editing.model.lm import LanguageModel
from editing.model.patches import PatchChange
from editing.requests import EditRequest

Need = Literal["second_moment", "contexts", "network", "subject"]
State = Mapping[str, Tensor]
"""What an editor carries from round to round; a value, never hidden.  Empty for editors without memory."""


@dataclass(frozen=True)
class ParameterUpdate:
    """A change to one parameter, by name: low-rank factors to add, or the whole new value (never a difference)."""

    name: str
    left: Tensor | None = None
    """[d_out, rank], with ``right`` [rank, d_in]: ``left @ right`` is added to the parameter's ``[d_out, d_in]`` view."""
    right: Tensor | None = None
    value: Tensor | None = None
    """The new parameter, in its own layout; float32 for a 16-bit one."""

    @classmethod
    def low_rank(cls, lm: LanguageModel, name: str, left: Tensor, right: Tensor) -> "ParameterUpdate":
        """Return the smaller of factors in the stored dtype and the whole new tensor (both give the same bits)."""
        stored = lm.stored_dtype(name)
        update = cls(name, left.to(stored).contiguous(), right.to(stored).contiguous())
        if left.numel() + right.numel() < lm.parameter(name).numel():
            return update
        with lm.preserved([name]):
            update.apply(lm)
            return cls(name, value=lm.precise(name).detach().clone())

    @classmethod
    def dense(cls, lm: LanguageModel, name: str, change: Tensor) -> "ParameterUpdate":
        """Return the new value of a parameter to whose ``[d_out, d_in]`` view ``change`` is added."""
        weight = lm.precise(name)
        step = change.T if lm.is_transposed(name) else change
        return cls(name, value=(weight.double() + step.double()).to(lm.stored_dtype(name)).contiguous())

    @torch.no_grad()
    def apply(self, lm: LanguageModel) -> None:
        """Change the model.  A chain and its replay both come here, so they agree bit by bit."""
        if self.value is not None:
            lm.write(self.name, self.value)
            return
        assert self.left is not None and self.right is not None
        weight = lm.precise(self.name)
        change = self.left.to(weight.device).double() @ self.right.to(weight.device).double()
        change = change.T if lm.is_transposed(self.name) else change
        lm.write(self.name, (weight.double() + change).to(lm.stored_dtype(self.name)))


@dataclass(frozen=True, kw_only=True)
class FactReport:
    """What is known of one edit of a batch."""

    request_id: str
    target_loss: float | None = None
    n_steps: int | None = None
    target_distance: float | None = None
    """‖z - h‖"""
    key_asymmetry: float | None = None
    """(C⁻¹k̄)ᵀk_bare / (C⁻¹k̄)ᵀk̄ at the last edited layer."""


@dataclass(frozen=True, kw_only=True)
class EditUpdateReport:
    """What is known of one edit at one parameter before it is written."""

    request_id: str
    parameter: str
    q: float
    """kᵀC⁻¹k"""
    residual_norm: float
    predicted_disturbance: float
    predicted_norm: float
    key_asymmetry: float
    """(C⁻¹k̄)ᵀk_bare / (C⁻¹k̄)ᵀk̄; near 0 the original ROME divides by almost nothing."""


@dataclass(frozen=True, kw_only=True)
class ParameterReport:
    """What is known of one update of one parameter."""

    parameter: str
    ridge: float | None = None
    shortfall: float | None = None
    solve_error: float | None = None
    mean_residual: float | None = None
    """Mean over tokens of ‖S*u - d‖/‖d‖: how much of each token's shift is lost when shifts are joined (MALMEN)."""


class EditResult(NamedTuple):
    """An edit, not yet applied."""

    updates: tuple[ParameterUpdate, ...]
    state: State
    facts: tuple[FactReport, ...]
    edit_updates: tuple[EditUpdateReport, ...] = ()
    parameters: tuple[ParameterReport, ...] = ()
    warnings: tuple[str, ...] = ()
    losses: tuple[float, ...] = ()
    """Loss of every optimiser step of editors that fine-tune."""
    patches: tuple[PatchChange, ...] = ()
    """Changes of what lives beside the weights (GRACE's codebook)."""

    def apply(self, lm: LanguageModel) -> None:
        """Write the edit into the model."""
        for update in self.updates:
            update.apply(lm)
        for change in self.patches:
            lm.patches.apply(change, lm.input_device)


@dataclass(frozen=True, kw_only=True)
class Artifacts:
    """Computed inputs that editors declare they need."""

    geometry: Mapping[int, KeyGeometry] = field(default_factory=dict)
    contexts: tuple[str, ...] = ("",)
    """Texts put before a prompt; the bare prompt (``""``) comes first."""
    networks: Any = None
    """A trained :class:`editing.methods.hypernetwork.HyperNetworks`, for editors that need one."""
    targets: Mapping[str, Any] = field(default_factory=dict)
    """By request id, :class:`editing.methods.targets.Targets` of one fact each that were found on these very weights by the
    same definition; an editor takes them in place of a search."""

    values: Mapping[str, Any] = field(default_factory=dict)
    """By request id, the state [d] that a user wants at the last layer's output, in place of any search."""

    def geometry_of(self, layer: int) -> KeyGeometry:
        """Raise MomentError if the second moment of ``layer`` is not there."""
        if layer not in self.geometry:
            raise MomentError(
                f"no second moment for layer {layer}; found layers {sorted(self.geometry)}; pass texts= (or moments=), or "
                "let the pipeline's prepare stage collect it"
            )
        return self.geometry[layer]


class Training(NamedTuple):
    """The training of a hyper-network."""

    steps: int
    edits: int
    """Facts that one step edits jointly."""


class Editor(Protocol):
    """A method of knowledge editing.  One file in ``editing/editors`` and one YAML in ``editing/hparams``."""

    version: ClassVar[int]
    """Raised when results change; part of a run's identity."""
    needs: ClassVar[frozenset[Need]]
    max_batch: ClassVar[int | None]
    max_layers: ClassVar[int | None]
    writes: ClassVar[Literal["low_rank", "dense", "nothing"]]
    predicts: ClassVar[bool]
    """Whether it says of each edit, before it is written, what it will do (:class:`EditUpdateReport`)."""

    def needed(self) -> frozenset[Need]:
        """Return what it needs with these hyper-parameters: ``needs``, or less."""
        ...

    def carried(self) -> Mapping[str, Any]:
        """Return the hyper-parameters by which something passes from batch to batch, where it does.

        They mean nothing where each batch begins on the unedited model.
        """
        ...

    def unsettled(self) -> str | None:
        """Return which choice of these hyper-parameters leaves to the machine what results depend on; None if none does."""
        ...

    def sampling(self) -> Mapping[str, Any] | None:
        """Return how context prefixes are sampled for it; None if it reads none."""
        ...

    def seeds(self) -> Sequence[str]:
        """Return the hyper-parameters that are seeds of what is random in it; a run's seed takes their place."""
        ...

    def training(self, batch_size: int) -> Training | None:
        """Return how long its network is trained, and for how many joint edits; None if it has none."""
        ...

    @property
    def variant(self) -> str | None:
        """What the literature calls it with these hyper-parameters, where one name stands for several methods."""
        ...

    @classmethod
    def refusal(cls, family: Family, n_layers: int) -> str | None:
        """Return why this editor cannot edit ``n_layers`` layers of such a model; None if it can."""
        ...

    def edit(
        self, lm: LanguageModel, batch: Sequence[EditRequest], layers: Sequence[int], state: State, artifacts: Artifacts
    ) -> EditResult:
        """Return the updates that write ``batch``; the model is left as it was, bit by bit."""
        ...

    def edit_each(
        self, lm: LanguageModel, batch: Sequence[EditRequest], layers: Sequence[int], artifacts: Artifacts
    ) -> list[EditResult]:
        """Return, for each request, the edit of it alone on the present model (independent edits)."""
        ...

    def parameter_names(self, lm: LanguageModel, layers: Sequence[int]) -> tuple[str, ...]:
        """Return the names of all parameters that this editor may change."""
        ...

    def target_definition(self, family: Family) -> dict[str, Any] | None:
        """Return what, beside model, layer, contexts and fact, determines a target vector; None if there is none."""

    def ridge_for(self, n_edits: int) -> float | None:
        """Return the effective ridge for a batch of this size."""
        ...


class BaseEditor:
    """What most editors share: any family, and independent edits one after another."""

    needs: ClassVar[frozenset[Need]] = frozenset()
    max_batch: ClassVar[int | None] = None
    max_layers: ClassVar[int | None] = None
    writes: ClassVar[Literal["low_rank", "dense", "nothing"]] = "dense"
    """What a round adds to the ledger, for forecasts of its size: rows per edit, whole weights, or next to nothing."""
    predicts: ClassVar[bool] = False

    def needed(self) -> frozenset[Need]:
        return self.needs

    def carried(self) -> Mapping[str, Any]:
        return {}

    def unsettled(self) -> str | None:
        return None

    def sampling(self) -> Mapping[str, Any] | None:
        return None

    def seeds(self) -> Sequence[str]:
        return ()

    def training(self, batch_size: int) -> Training | None:
        return None

    @property
    def variant(self) -> str | None:
        return None

    @classmethod
    def refusal(cls, family: Family, n_layers: int) -> str | None:
        return None

    def edit(
        self, lm: LanguageModel, batch: Sequence[EditRequest], layers: Sequence[int], state: State, artifacts: Artifacts
    ) -> EditResult:
        raise NotImplementedError

    def edit_each(
        self, lm: LanguageModel, batch: Sequence[EditRequest], layers: Sequence[int], artifacts: Artifacts
    ) -> list[EditResult]:
        return [self.edit(lm, [request], layers, {}, artifacts) for request in batch]

    def parameter_names(self, lm: LanguageModel, layers: Sequence[int]) -> tuple[str, ...]:
        return ()

    def ridge_for(self, n_edits: int) -> float | None:
        """Return the ridge for a batch of this size; None where there is none, or where it is learnt."""
        return None

    def target_definition(self, family: Family) -> dict[str, Any] | None:
        """Return what, beside model, layer, contexts and fact, determines a target vector; None if there is none.

        Editors of one definition share their targets.
        """
        return None


def check_parts(owner: Any, parts: Sequence[str], allowed: Sequence[str]) -> None:
    """Raise HparamsError unless ``parts`` are some of the allowed ones, each once."""
    known = all(isinstance(part, str) and part in allowed for part in parts)
    if not parts or not known or len(set(parts)) != len(parts):
        raise HparamsError(f"{type(owner).__name__}: parts {list(parts)}; expected some of {list(allowed)}, each once")


def unsettled_microbatch(protocol: str, microbatch: int) -> str | None:
    """Return what is left to the machine where gradients are of each micro-batch's mean loss, as the authors' code has it."""
    if protocol != "code" or microbatch:
        return None
    return (
        "under protocol code it depends on how facts fall into micro-batches; say so with microbatch: 4 (rows of one), which "
        "becomes part of the run's identity"
    )


def causal_only(family: Family, why: str) -> str | None:
    """Return a refusal of models that are not decoders."""
    return None if family.head == "causal" else f"{why}; this model has a {family.head} head"


_EDITORS: dict[str, type] = {}


def editor(name: str) -> Callable[[type], type]:
    """Register an editor class, a frozen keyword-only dataclass whose fields are its hyper-parameters."""

    def register(cls: type) -> type:
        _EDITORS[name] = cls
        return cls

    return register


def editor_class(name: str) -> Any:
    """Return an editor's class.

    Raises:
        HparamsError: No such editor.
    """
    if name not in editor_names():
        raise HparamsError(f"no editor {name!r}{did_you_mean(name, editor_names())}; expected one of {editor_names()}")
    import_module(f"editing.editors.{name}")
    return _EDITORS[name]


def make_editor(name: str, hparams: Mapping[str, Any]) -> Editor:
    """Build an editor from resolved hyper-parameters.

    Raises:
        HparamsError: A value is out of range.
    """
    made: Editor = editor_class(name)(**hparams)
    return made


def require(owner: Any, **rules: bool) -> None:
    """Raise HparamsError naming every field of ``owner`` whose rule is False."""
    broken = {name: getattr(owner, name) for name, holds in rules.items() if not holds}
    if broken:
        known = {f.name for f in dataclasses.fields(owner)}
        raise HparamsError(
            f"{type(owner).__name__}: impossible values {broken}; expected positive steps, rates and clamps, and "
            f"non-negative weights (fields: {sorted(known)})"
        )
