"""Fact scores: every probe of a request, raw: both targets under teacher forcing, and what the model says when let run."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from editing.requests import EditRequest

if TYPE_CHECKING:
    from editing.model.lm import AnswerScore, LanguageModel

ProbeKind = Literal["rewrite", "paraphrase", "neighborhood", "question", "completion"]
PROBE_KINDS: tuple[ProbeKind, ...] = ("rewrite", "paraphrase", "neighborhood", "question", "completion")


class Probe(NamedTuple):
    """One prompt on which a request is scored."""

    request_id: str
    kind: ProbeKind
    number: int
    """Position among the request's prompts of this kind, from 0."""
    prompt: str
    target_new: str
    target_true: str
    """Empty if it is not known."""

    @property
    def probe_id(self) -> str:
        return f"{self.request_id}/{self.kind}/{self.number}"


@dataclass(frozen=True, slots=True)
class ProbeScore:
    """How the model scores both targets of a probe."""

    probe: Probe
    new: "AnswerScore"
    true: "AnswerScore | None"
    """None where the probe has no true target."""
    text: str | None = None
    """The model's likeliest continuation of the prompt, empty if it gives NaN; None if none was asked for."""

    @property
    def is_nan(self) -> bool:
        return any(side.nll_sum != side.nll_sum for side in (self.new, self.true) if side is not None)

    @property
    def success(self) -> bool:
        """The wanted order of the mean token NLLs, strict on both sides: a tie and a NaN fail.

        Without a true target: whether every token of the new one is the argmax.
        """
        if self.true is None:
            return self.new.correct
        if self.probe.kind == "neighborhood":
            return self.true.nll_mean < self.new.nll_mean
        return self.new.nll_mean < self.true.nll_mean


def probes_of(request: EditRequest, kinds: Sequence[ProbeKind] = PROBE_KINDS) -> list[Probe]:
    """Return a request's probes, kind by kind.

    A neighborhood prompt's ``target_true`` is its own answer, if it has one.
    """
    true = request.target_true
    prompts: dict[ProbeKind, Sequence[tuple[str, str]]] = {
        "rewrite": [(request.prompt, true)],
        "paraphrase": [(prompt, true) for prompt in request.paraphrase_prompts],
        "neighborhood": request.neighbors,
        "question": [(prompt, true) for prompt in request.question_prompts],
        "completion": [(prompt, true) for prompt in request.completion_prompts],
    }
    return [
        Probe(request.request_id, kind, index, prompt, request.target_new, expected)
        for kind in PROBE_KINDS
        if kind in kinds
        for index, (prompt, expected) in enumerate(prompts[kind])
    ]


def score_probes(lm: "LanguageModel", probes: Sequence[Probe], *, text_tokens: int = 0) -> list[ProbeScore]:
    """Return the scores of each probe on the model as it is now, in order.

    Args:
        text_tokens: Length of the free-running texts, the same for every probe: an answer's length must not show.
    """
    prompts = [probe.prompt for probe in probes]
    known = [place for place, probe in enumerate(probes) if probe.target_true]
    share = 0.5 if text_tokens else 1.0
    with lm.progress.part(0.0, share):
        both = lm.answer_logprobs(
            [*prompts, *(prompts[i] for i in known)],
            [*(probe.target_new for probe in probes), *(probes[i].target_true for i in known)],
        )
    new: list[AnswerScore] = both[: len(probes)]
    of_true = dict(zip(known, both[len(probes) :], strict=True))
    true = [of_true.get(place) for place in range(len(probes))]
    with lm.progress.part(share, 1.0):
        texts = (
            [text or "" for text in lm.continue_greedily(prompts, text_tokens)] if text_tokens else [None] * len(probes)
        )
    return [ProbeScore(*row) for row in zip(probes, new, true, texts, strict=True)]
