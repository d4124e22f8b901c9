"""MEND (arXiv:2110.11309), as the MALMEN paper trains it: for many edits at once, with the same two-stage gradient."""

from dataclasses import dataclass
from typing import ClassVar

from editing.methods.editor import editor
from editing.methods.trained import TrainedEditor


@editor("mend")
@dataclass(frozen=True, kw_only=True)
class Mend(TrainedEditor):
    """``S* = -η Σ v'_j k'_jᵀ``: the sum of every token's shift."""

    version: ClassVar[int] = 1
