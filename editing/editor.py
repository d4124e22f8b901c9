"""What an editor is: from a batch of requests to parameter updates, with everything that is known of them."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from editing.errors import HparamsError, MomentError
from editing.geometry import KeyGeometry
from editing.hparams import editor_names
from editing.lm import LanguageModel
from editing.requests import EditRequest

Need = Literal["second_moment", "contexts"]
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
    """The new parameter, in its own layout."""

    @classmethod
    def low_rank(cls, lm: LanguageModel, name: str, left: Tensor, right: Tensor) -> "ParameterUpdate":
        """Return the smaller of factors in the stored dtype and the whole new tensor (both give the same bits)."""
        stored = torch.promote_types(lm.parameter(name).dtype, torch.float32)
        update = cls(name, left.to(stored).contiguous(), right.to(stored).contiguous())
        if left.numel() + right.numel() < lm.parameter(name).numel():
            return update
        with lm.preserved([name]):
            update.apply(lm)
            return cls(name, value=lm.parameter(name).detach().clone())

    @torch.no_grad()
    def apply(self, lm: LanguageModel) -> None:
        """Change the model.  A chain and its replay both come here, so they agree bit by bit."""
        if self.value is not None:
            lm.parameter(self.name).copy_(self.value)
            return
        assert self.left is not None and self.right is not None
        view = lm.weight_view(self.name)
        left, right = self.left.to(view.device).double(), self.right.to(view.device).double()
        view.copy_((view.double() + left @ right).to(view.dtype))


@dataclass(frozen=True, kw_only=True)
class FactReport:
    """What is known of one edit of a batch."""

    request_id: str
    target_loss: float | None = None
    n_steps: int | None = None
    target_distance: float | None = None
    """‖z - h‖"""


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


@dataclass(frozen=True, kw_only=True)
class Artifacts:
    """Computed inputs that editors declare they need."""

    geometry: Mapping[int, KeyGeometry] = field(default_factory=dict)
    contexts: tuple[str, ...] = ("",)
    """Texts put before a prompt; the bare prompt (``""``) comes first."""

    def geometry_of(self, layer: int) -> KeyGeometry:
        """Raise MomentError if the second moment of ``layer`` is not there."""
        if layer not in self.geometry:
            raise MomentError(
                f"no second moment for layer {layer}; found layers {sorted(self.geometry)}; pass texts= (or moments=), or "
                "let the pipeline's prepare stage collect it"
            )
        return self.geometry[layer]


class Editor(Protocol):
    """A method of knowledge editing.  One file in ``editing/editors`` and one YAML in ``editing/hparams``."""

    version: ClassVar[int]
    """Raised when results change; part of a run's identity."""
    needs: ClassVar[frozenset[Need]]
    max_batch: ClassVar[int | None]
    max_layers: ClassVar[int | None]

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
        raise HparamsError(f"no editor {name!r}; expected one of {editor_names()}")
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
