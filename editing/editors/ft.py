"""FT: fine-tuning without a constraint, with weight decay if asked for (arXiv:2202.05262, arXiv:2210.07229, 2311.04661)."""

from dataclasses import dataclass
from math import exp
from typing import ClassVar

from editing.editor import editor
from editing.fine_tuning import FineTuning


@editor("ft")
@dataclass(frozen=True, kw_only=True)
class Ft(FineTuning):
    """Plain fine-tuning.  ``scaled_decay`` takes MEMIT's weight decay for n edits at once, ``n^-0.87 · e^0.156``."""

    scaled_decay: bool

    version: ClassVar[int] = 1

    def decay_for(self, n_edits: int) -> float:
        return n_edits**-0.87 * exp(0.156) if self.scaled_decay else self.weight_decay
