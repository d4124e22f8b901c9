"""ROME (arXiv:2202.05262) and its correction r-ROME (arXiv:2403.07175): one fact, one layer, one rank."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from editing.errors import HparamsError
from editing.methods.editor import (
    Artifacts,
    EditResult,
    Need,
    ParameterReport,
    ParameterUpdate,
    State,
    editor,
    require,
)
from editing.methods.geometry import EuclideanGeometry
from editing.methods.locate import (
    Averaging,
    Keys,
    LocatingEditor,
    edit_update_reports,
    fact_reports,
    read_keys,
    remembered,
)
from editing.methods.targets import Targets
from editing.model.families import Family
from editing.model.lm import LanguageModel
from editing.requests import EditRequest


@editor("rome")
@dataclass(frozen=True, kw_only=True)
class Rome(LocatingEditor):
    """``Δ = (v* - W k) uᵀ / (uᵀk)`` with ``u = C⁻¹k``.

    ``corrected`` and ``paper`` use one key for every k, so that the edited weight maps it to v* exactly: the
    prefix-averaged one, or under ``corrected`` the bare prompt's (``key: bare``).  ``code`` takes u from the average but
    k in the denominator and in W k from the bare prompt; where the two disagree it divides by almost nothing
    (disabling edits).
    """

    use_second_moment: bool
    """If not, u = k: the ablation that EasyEdit's and AlphaEdit's files for Llama ship (``mom2_adjustment: false``)."""
    key: str
    """``mean`` over the prefixes, or ``bare``: the two variants of r-ROME."""
    remember: bool
    """Keep what the keys of earlier edits give, exactly: they enter as constraints with zero residual."""

    version: ClassVar[int] = 1
    max_batch: ClassVar[int | None] = 1
    max_layers: ClassVar[int | None] = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, key=self.key in ("mean", "bare"))
        if self.protocol != "corrected" and self.key == "bare":
            raise HparamsError(
                f"Rome: key is 'bare' and the protocol {self.protocol!r}; expected key mean, or protocol corrected: a bare key "
                "throughout is one of r-ROME's corrections"
            )
        if self.protocol == "code" and self.remember:
            raise HparamsError(
                "Rome: remember is true and the protocol 'code'; expected false there: the original forgets"
            )

    def needed(self) -> frozenset[Need]:
        return self.needs - (frozenset() if self.use_second_moment else {"second_moment"})

    def carried(self) -> Mapping[str, Any]:
        return {"remember": True} if self.remember else {}

    @property
    def variant(self) -> str:
        return "ROME" if self.protocol == "code" else "r-ROME"

    def ridge_for(self, n_edits: int) -> float:
        return 0.0

    @property
    def averaging(self) -> Averaging:
        return "prefixes_only" if self.protocol == "paper" else "flat"

    def edit(
        self, lm: LanguageModel, batch: Sequence[EditRequest], layers: Sequence[int], state: State, artifacts: Artifacts
    ) -> EditResult:
        assert len(batch) == 1 and len(layers) == 1, "the caller checks max_batch and max_layers"
        return self._edit_each(lm, batch, layers, artifacts, state)[0]

    def site(self, family: Family) -> Literal["value", "block"]:
        return "value"

    def edit_each(
        self, lm: LanguageModel, batch: Sequence[EditRequest], layers: Sequence[int], artifacts: Artifacts
    ) -> list[EditResult]:
        return self._edit_each(lm, batch, layers, artifacts, {})

    def _edit_each(
        self, lm: LanguageModel, batch: Sequence[EditRequest], layers: Sequence[int], artifacts: Artifacts, state: State
    ) -> list[EditResult]:
        targets = self.targets(lm, batch, layers, artifacts)
        keys = read_keys(lm, batch, artifacts.contexts, layers, self.averaging)[layers[0]]
        if self.key == "bare":
            keys = keys._replace(mean=keys.bare, mean_value=keys.bare_value)
        return [
            self._write(
                lm, request, layers[0], artifacts, targets.select([i]), Keys(*(part[i : i + 1] for part in keys)), state
            )
            for i, request in enumerate(batch)
        ]

    def _write(
        self,
        lm: LanguageModel,
        request: EditRequest,
        layer: int,
        artifacts: Artifacts,
        targets: Targets,
        keys: Keys,
        state: State,
    ) -> EditResult:
        name = lm.parameter_names(layer)["weight"]
        device = lm.weight(layer).device
        geometry = artifacts.geometry_of(layer) if self.use_second_moment else EuclideanGeometry.on(device)
        present = keys.bare_value if self.protocol == "code" else keys.mean_value
        residual = (targets.value - present).double()
        solution = geometry.least_disturbing_update(keys.mean, residual, held=state.get(f"keys.{layer}"))
        left, right, shortfall = solution.left, solution.right, solution.shortfall
        if self.protocol == "code":
            u = geometry.solve_moment(keys.mean.T).T
            u = u / u.norm()
            left, right = residual.T / (keys.bare.double() @ u.T), u
            wanted = residual.T  # what the averaged key should have received
            shortfall = float((left @ (right @ keys.mean.double().T) - wanted).norm() / wanted.norm())
        update = ParameterUpdate.low_rank(lm, name, left, right)
        known = edit_update_reports([request], name, keys, residual, solution)
        report = ParameterReport(parameter=name, ridge=0.0, shortfall=shortfall, solve_error=solution.solve_error)
        return EditResult(
            (update,),
            remembered(state, {layer: keys.mean}) if self.remember else {},
            fact_reports([request], targets, known),
            known,
            (report,),
        )
