"""FT-C: constrained fine-tuning of one projection, the baseline of the ROME paper (arXiv:2012.00363)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from editing.methods.editor import State, editor, require
from editing.methods.fine_tuning import FineTuning


@editor("ft_c")
@dataclass(frozen=True, kw_only=True)
class FtC(FineTuning):
    """Fine-tuning with each value kept within ±``bound`` of where this batch, or the run, found it.

    The official bound is against the weights before *this* batch, so drift over many batches is not bounded; ``bound_from:
    pristine`` holds it against the weights before the first.
    """

    bound: float
    bound_from: str
    """``batch`` or ``pristine``."""

    version: ClassVar[int] = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, bound=self.bound > 0, bound_from=self.bound_from in ("batch", "pristine"))

    def carried(self) -> Mapping[str, Any]:
        return {"bound_from": self.bound_from} if self.bound_from == "pristine" else {}

    def origins(self, values: Mapping[str, Tensor], state: State) -> State:
        if self.bound_from == "batch":
            return {}
        return state or {name: value.clone() for name, value in values.items()}

    def bounded(self, value: Tensor, start: Tensor) -> Tensor:
        return value.clamp(start - self.bound, start + self.bound)
