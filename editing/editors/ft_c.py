"""FT-C: constrained fine-tuning of one projection, the baseline of the ROME paper (arXiv:2012.00363)."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from editing.editor import editor, require
from editing.fine_tuning import FineTuning


@editor("ft_c")
@dataclass(frozen=True, kw_only=True)
class FtC(FineTuning):
    """Fine-tuning with each value kept within ±``bound`` of where this edit found it.

    The bound is against the weights before *this* edit, so drift over many edits is not bounded.
    """

    bound: float

    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, bound=self.bound > 0)

    def bounded(self, value: Tensor, start: Tensor) -> Tensor:
        return value.clamp(start - self.bound, start + self.bound)
