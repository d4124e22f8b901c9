"""The editor that does nothing: whatever a table shows for it is the measurement's own noise."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from editing.methods.editor import Artifacts, BaseEditor, EditResult, FactReport, State, editor
from editing.model.lm import LanguageModel
from editing.requests import EditRequest


@editor("no_op")
@dataclass(frozen=True, kw_only=True)
class NoOp(BaseEditor):
    """Goes through every round of a run and changes nothing."""

    protocol: str

    version: ClassVar[int] = 1
    writes: ClassVar[Literal["low_rank", "dense", "nothing"]] = "nothing"

    def edit(
        self, lm: LanguageModel, batch: Sequence[EditRequest], layers: Sequence[int], state: State, artifacts: Artifacts
    ) -> EditResult:
        return EditResult((), {}, tuple(FactReport(request_id=request.request_id) for request in batch))

    def parameter_names(self, lm: LanguageModel, layers: Sequence[int]) -> tuple[str, ...]:
        """Return the weights that a locating editor would change, so that their standing still is on record."""
        return tuple(lm.parameter_names(layer)["weight"] for layer in layers)
