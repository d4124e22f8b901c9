"""Fact scores: every probe of a request under teacher forcing, raw, for both targets."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from editing.lm import AnswerScore, LanguageModel
from editing.requests import EditRequest

ProbeKind = Literal["rewrite", "paraphrase", "neighborhood"]
PROBE_KINDS: tuple[ProbeKind, ...] = ("rewrite", "paraphrase", "neighborhood")
SCORING_VERSION = 1
"""Raised when a probe's score changes meaning or value; part of a score unit's name."""


class Probe(NamedTuple):
    """One prompt on which a request is scored."""

    request_id: str
    kind: ProbeKind
    number: int
    """Position among the request's prompts of this kind, from 0."""
    prompt: str
    target_new: str
    target_true: str

    @property
    def probe_id(self) -> str:
        return f"{self.request_id}/{self.kind}/{self.number}"


@dataclass(frozen=True, slots=True)
class ProbeScore:
    """How the model scores both targets of a probe."""

    probe: Probe
    new: AnswerScore
    true: AnswerScore

    @property
    def is_nan(self) -> bool:
        return self.new.nll_sum != self.new.nll_sum or self.true.nll_sum != self.true.nll_sum

    @property
    def success(self) -> bool:
        """The wanted order of the mean token NLLs, strict on both sides: a tie and a NaN fail."""
        if self.probe.kind == "neighborhood":
            return self.true.nll_mean < self.new.nll_mean
        return self.new.nll_mean < self.true.nll_mean


def probes_of(request: EditRequest, kinds: Sequence[ProbeKind] = PROBE_KINDS) -> list[Probe]:
    """Return a request's probes, in the order rewrite, paraphrases, neighbors."""
    prompts: dict[ProbeKind, tuple[str, ...]] = {
        "rewrite": (request.prompt,),
        "paraphrase": request.paraphrase_prompts,
        "neighborhood": request.neighborhood_prompts,
    }
    return [
        Probe(request.request_id, kind, index, prompt, request.target_new, request.target_true)
        for kind in PROBE_KINDS
        if kind in kinds
        for index, prompt in enumerate(prompts[kind])
    ]


def score_probes(lm: LanguageModel, probes: Sequence[Probe]) -> list[ProbeScore]:
    """Return the scores of each probe on the model as it is now, in order."""
    prompts = [probe.prompt for probe in probes]
    both = lm.answer_logprobs([*prompts, *prompts], [*(p.target_new for p in probes), *(p.target_true for p in probes)])
    new, true = both[: len(probes)], both[len(probes) :]
    return [ProbeScore(*row) for row in zip(probes, new, true, strict=True)]
