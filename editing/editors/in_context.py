"""The bar that parameter edits must beat: facts edited so far are put before every prompt that names their subject."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from editing.methods.editor import Artifacts, BaseEditor, EditResult, FactReport, Need, State, causal_only, editor
from editing.model.families import Family
from editing.model.lm import LanguageModel
from editing.model.patches import Patch, PatchChange, patch_kind
from editing.requests import EditRequest

KIND = "in_context"


@patch_kind(KIND)
class Reminders(Patch):
    """Rows of (subject, sentence), as UTF-8 bytes; a later sentence about the same subject stands after an earlier one."""

    def rewrite(self, prompt: str) -> str:
        """Return the prompt after the sentences of all facts whose subject occurs in it, letter by letter."""
        subjects, sentences = (self.columns.get(column, []) for column in ("subject", "sentence"))
        said = [_text(s) for subject, s in zip(subjects, sentences, strict=True) if _text(subject) in prompt]
        return " ".join([*said, prompt])


@editor(KIND)
@dataclass(frozen=True, kw_only=True)
class InContext(BaseEditor):
    """Changes no weight; each fact is remembered as the sentence "prompt answer."."""

    protocol: str

    version: ClassVar[int] = 1
    writes: ClassVar[Literal["low_rank", "dense", "nothing"]] = "nothing"
    needs: ClassVar[frozenset[Need]] = frozenset({"subject"})

    @classmethod
    def refusal(cls, family: Family, n_layers: int) -> str | None:
        return causal_only(family, "reminders are read from left to right")

    def edit(
        self, lm: LanguageModel, batch: Sequence[EditRequest], layers: Sequence[int], state: State, artifacts: Artifacts
    ) -> EditResult:
        live = lm.patches.get(KIND)
        start = len(live.columns["subject"]) if live is not None else 0
        changes = [
            PatchChange(KIND, column, start + place, _bytes(text))
            for place, request in enumerate(batch)
            for column, text in (("subject", request.subject), ("sentence", f"{request.prompt} {request.target_new}."))
        ]
        facts = tuple(FactReport(request_id=request.request_id) for request in batch)
        return EditResult((), {}, facts, patches=tuple(changes))


def _bytes(text: str) -> Tensor:
    return torch.tensor(list(text.encode()), dtype=torch.uint8)


def _text(row: Tensor) -> str:
    return bytes(row.tolist()).decode()
