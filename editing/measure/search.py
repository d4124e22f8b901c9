"""Layer search: edit each layer independently, with the same facts, and score what comes of it."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from editing.errors import SolveError
from editing.measure.scores import ProbeScore, probes_of, score_probes
from editing.methods.editor import Artifacts, Editor, EditResult
from editing.model.lm import LanguageModel
from editing.requests import EditRequest

_SHARE_OF_EDITS = 0.8
"""Of the time of a layer's search, about; the rest is scoring."""


class LayerEdit(NamedTuple):
    """One independent edit of one layer, and its probes scored on the edited model."""

    layer: int
    request_id: str
    scores: tuple[ProbeScore, ...]
    error: str | None
    """Why the edit could not be made, if it could not; its probes are then scored on the unedited model."""


def search_layer(
    lm: LanguageModel,
    requests: Sequence[EditRequest],
    layer: int,
    method: Editor,
    artifacts: Artifacts,
    *,
    chunk: int = 32,
) -> Iterator[LayerEdit]:
    """Write each request alone at ``layer``, score all its probes, restore; targets of a chunk are found together."""
    names = method.parameter_names(lm, [layer])
    for start in lm.progress.over(range(0, len(requests), chunk)):
        part = requests[start : start + chunk]
        with lm.progress.part(0.0, _SHARE_OF_EDITS):
            edits = _each(lm, part, layer, method, artifacts)
        with lm.progress.part(_SHARE_OF_EDITS, 1.0):
            for request, (result, error) in zip(lm.progress.over(part), edits, strict=True):
                with lm.preserved(names):
                    if result is not None:
                        result.apply(lm)
                    scores = tuple(score_probes(lm, probes_of(request)))
                yield LayerEdit(layer, request.request_id, scores, error)


def _each(
    lm: LanguageModel, part: Sequence[EditRequest], layer: int, method: Editor, artifacts: Artifacts
) -> list[tuple[EditResult | None, str | None]]:
    """Return each request's edit, or why there is none; one that cannot be solved does not concern the others."""
    try:
        return [(result, None) for result in method.edit_each(lm, part, [layer], artifacts)]
    except SolveError as error:
        if len(part) == 1:
            return [(None, str(error))]
    return [found for request in part for found in _each(lm, [request], layer, method, artifacts)]


def harmonic_score(efficacy: float, paraphrase: float, neighborhood: float) -> float:
    """Return the harmonic mean of the three, 0 if any is 0."""
    parts = (efficacy, paraphrase, neighborhood)
    return 0.0 if min(parts) <= 0 else 3.0 / sum(1.0 / part for part in parts)


def layer_rates(edits: Sequence[LayerEdit]) -> dict[str, float]:
    """Return efficacy, paraphrase, neighborhood and score: means over edits of the mean over their prompts."""
    rates = {}
    for name, kind in (("efficacy", "rewrite"), ("paraphrase", "paraphrase"), ("neighborhood", "neighborhood")):
        means = [
            sum(score.success for score in mine) / len(mine)
            for edit in edits
            if (mine := [score for score in edit.scores if score.probe.kind == kind])
        ]
        rates[name] = sum(means) / len(means) if means else 0.0
    return {**rates, "score": harmonic_score(rates["efficacy"], rates["paraphrase"], rates["neighborhood"])}
