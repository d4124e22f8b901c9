"""What was found of a run whose model broke, as rows and in a paragraph."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

KIND = "diagnosis"
FALL = 0.3
"""A window, or a round, in which less than this share of what held is lost breaks no model."""


class Step(NamedTuple):
    """What of the probes holds at one state."""

    stage: str
    """``window``, ``bisection``, ``alone`` (one fact on the state before its round), ``beside`` (a later
    fact there), ``first`` (on the pristine model),
    ``ordinary`` (another fact, there; only its norm), ``without`` (the ledger less the round), ``again`` (the later rounds
    edited anew without it)."""
    after_edits: int
    fact_id: str | None
    retention: float | None
    """Share of the earlier edits that hold, of those that held at the window's beginning."""
    neighborhood: float | None
    """The same of neighbors."""
    update_norm: float | None = None
    """Frobenius norm over all parameters."""

    @property
    def health(self) -> float:
        """The mean of what was measured."""
        found = [share for share in (self.retention, self.neighborhood) if share is not None]
        return sum(found) / len(found) if found else 1.0

    @property
    def said(self) -> str:
        parts = ((self.retention, "the edits"), (self.neighborhood, "the neighbors"))
        return " and ".join(f"{100 * share:.0f} % of {name}" for share, name in parts if share is not None) + " hold"


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """What was found."""

    run_id: str
    steps: tuple[Step, ...]
    text: str
    culprit: str | None = None
    """The fact whose edit broke the model; None if no single one did."""
    round: int | None = None
    """The round in which most was lost."""
    n_scored: int = 0
    """States that the bisection scored."""

    def rows(self) -> list[dict[str, Any]]:
        """Return it as rows of the table ``measurements``."""
        found = [
            {
                "item": f"{number:02d} {step.stage} {step.fact_id or ''}".strip(),
                "name": name,
                "value": value,
                "text": None,
            }
            | {"score": KIND, "scored_at": self.round, "edits_so_far": step.after_edits}
            for number, step in enumerate(self.steps)
            for name in ("retention", "neighborhood", "update_norm")
            if (value := getattr(step, name)) is not None
        ]
        verdict = {"item": self.culprit, "name": "verdict", "value": None, "text": self.text}
        return [*found, verdict | {"score": KIND, "scored_at": self.round, "edits_so_far": None}]


def nothing_lost(run_id: str, ends: Sequence[Step], n_small: int = 0) -> str:
    """Return the paragraph about a run that lost little at once.

    Args:
        n_small: Windows that were not looked at, because too few probes were scored at both of their ends.
    """
    found = (
        f"{run_id}: between no two checkpoints that were looked at is much lost at once. Of what held after "
        f"{ends[0].after_edits} edits, {ends[1].said} after {ends[1].after_edits}; between all others more is kept. "
    )
    if n_small:
        return found + (
            f"{n_small} further pairs of checkpoints have too few probes in common to say anything: score.retention: all, or "
            "name them with --from and --to."
        )
    return found + "There is no disabling edit to be found."


def gradual(run_id: str, first_edit: int, last_edit: int, fall: float, whole: float) -> str:
    return (
        f"{run_id}: the fall is gradual. No single round loses much of what held: the worst, edits {first_edit} to "
        f"{last_edit}, loses {100 * fall:.0f} of {100 * whole:.0f} points. There is no disabling edit."
    )


def together(run_id: str, round_: int, n_facts: int, before: Step, after: Step) -> str:
    return (
        f"{run_id}: round {round_} breaks the model ({before.said} before it, {after.said} after it), but among its {n_facts} "
        "facts and later ones, each edited alone on the state before it, none of its own stands out: not one edit does it."
    )


def verdict(
    run_id: str, round_: int, edit: str, steps: Sequence[Step], before: Step, after: Step, ordinary: float
) -> str:
    """Return the paragraph about one edit that broke a model.

    Args:
        edit: What it says: prompt and target.
        steps: All that concern it.
        ordinary: Mean norm of other facts' updates as first edits.
    """
    found = {step.stage: step for step in steps}
    alone, first = found["alone"], found["first"]
    sentences = [
        f"{run_id}: the edit of {alone.fact_id} ({edit}, round {round_}) breaks the model: {before.said} before its round, "
        f"{after.said} after it."
    ]
    if alone.update_norm is not None and first.update_norm is not None:
        sentences.append(
            f"Alone on the state before it, its update has the norm {alone.update_norm:.4g}; as the first edit of the "
            f"pristine model {first.update_norm:.4g}, where others have {ordinary:.4g} on average."
        )
    if first.neighborhood is not None:
        harm = "breaks that model, too" if first.health < 1 - FALL else "does no such harm"
        sentences.append(f"As a first edit it {harm} ({first.said}).")
    if "without" in found:
        without = found["without"]
        sentences.append(f"The ledger without its round: {without.said} after {without.after_edits} edits.")
    if "again" in found:
        sentences.append(f"With the later rounds edited anew: {found['again'].said}.")
    return " ".join(sentences)
