"""FT: fine-tuning without a constraint, with weight decay if asked for (arXiv:2202.05262, arXiv:2210.07229, 2311.04661)."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp
from typing import ClassVar

from editing.errors import HparamsError
from editing.methods.editor import editor, require
from editing.methods.fine_tuning import FineTuning


@editor("ft")
@dataclass(frozen=True, kw_only=True)
class Ft(FineTuning):
    """Plain fine-tuning, with a weight decay that may depend on how many facts are edited at once."""

    decay_power: Sequence[float]
    """``[a, b]``: the weight decay of n edits is ``n^a · e^b`` (MEMIT's ``wd_power_law``); empty: it is ``weight_decay``."""

    version: ClassVar[int] = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, decay_power=len(self.decay_power) in (0, 2) and all(abs(x) <= 10 for x in self.decay_power))
        if self.decay_power and self.weight_decay:
            raise HparamsError(
                f"Ft: found weight_decay {self.weight_decay:g} and decay_power {list(self.decay_power)}; expected one of them"
            )

    def decay_for(self, n_edits: int) -> float:
        if not self.decay_power:
            return self.weight_decay
        if self.protocol == "code":  # it looks for a tuple, its JSON file gives a list, and so nothing decays
            return 0.0
        power, factor = self.decay_power
        return float(n_edits**power * exp(factor))
