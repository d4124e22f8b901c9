"""What editing has done to a model: a short table, what is known of each batch, and the way back."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from math import exp, hypot
from statistics import median
from typing import Any, overload

from torch import Tensor

from editing.methods.editor import EditResult
from editing.model.lm import ANSWER_ENDS, AnswerScore, LanguageModel
from editing.requests import EditRequest

_SHOWN = 20
"""Facts that a table shows."""
LITTLE = 0.5
"""Share of a wanted change that is missing, above which that is told."""
_FOUND = 1.0
"""Loss, in nats, below which the search for a target has succeeded."""
ANSWER_TOKENS = 8
"""Of the answers that it shows."""


@dataclass(frozen=True)
class Look:
    """How a model stands to some facts at one time."""

    scores: Sequence[AnswerScore]
    """Of each fact's new target."""
    answers: Sequence[str | None]
    """What the model says after each prompt; None where it gives NaN."""

    @classmethod
    def at(cls, lm: LanguageModel, requests: Sequence[EditRequest]) -> "Look":
        """Look at the model as it is now."""
        prompts = [request.prompt for request in requests]
        scores = lm.answer_logprobs(prompts, [request.target_new for request in requests])
        longest = max(map(len, lm.prompt_ids(prompts)))
        room = ANSWER_TOKENS if lm.context_tokens is None else min(ANSWER_TOKENS, lm.context_tokens - longest)
        return cls(scores, lm.continue_greedily(prompts, room, until=ANSWER_ENDS))


@dataclass(frozen=True, eq=False)
class Edits(Sequence[EditResult]):
    """The batches that :func:`editing.edit` has written into a model; prints as a table of its facts.

    In a ``with`` statement the edits are undone at its end, bit by bit; :meth:`undo` does so at any time.
    """

    lm: LanguageModel = field(repr=False)
    requests: Sequence[EditRequest]
    batches: Sequence[EditResult]
    before: Look
    after: Look
    norms: Mapping[str, float]
    """‖change‖ of each parameter, over all batches."""
    said: Sequence[str]
    """What was chosen where nothing was given, and warnings."""
    _weights: Mapping[str, Tensor]
    _patches: Any

    @overload
    def __getitem__(self, index: int) -> EditResult: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[EditResult]: ...
    def __getitem__(self, index: int | slice) -> EditResult | Sequence[EditResult]:
        """Return what is known of a batch."""
        return self.batches[index]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[EditResult]:
        return iter(self.batches)

    def __enter__(self) -> "Edits":
        return self

    def __exit__(self, *_: object) -> None:
        self.undo()

    def undo(self) -> None:
        """Put the model back, bit by bit, as it was before these edits; what was edited later is undone with them.

        Nothing happens where they are undone already.
        """
        while any(each is self for each in self.lm.edited):
            newest = self.lm.edited.pop()
            self.lm.restore(newest._weights)
            self.lm.patches.restore(newest._patches)

    @property
    def took(self) -> list[bool]:
        """Whether the model says each fact's new target now: every token of it is the likeliest."""
        return [score.correct for score in self.after.scores]

    @property
    def norm(self) -> float:
        """‖change‖ of all parameters together."""
        return hypot(*self.norms.values())

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One dict per fact, as ``pandas.DataFrame(edits.rows)`` and ``polars.DataFrame(edits.rows)`` take them.

        ``loss`` is the mean NLL of the new target's tokens in nats, ``probability`` that of the whole target; both on the model
        after all batches.
        """
        pairs = zip(
            self.requests, self.before.scores, self.before.answers, self.after.scores, self.after.answers, strict=True
        )
        return [
            {
                "fact": request.request_id,
                "prompt": request.prompt,
                "target_new": request.target_new,
                "took": new.correct,
                "answer_before": _answer(said),
                "answer": _answer(says),
                "probability_before": exp(-old.nll_sum),
                "probability": exp(-new.nll_sum),
                "loss": new.nll_mean,
            }
            for request, old, said, new, says in pairs
        ]

    def __repr__(self) -> str:
        rows = [["took", "prompt", "target_new", "before", "after", "p before", "p after", "loss"], *self._cells()]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        return "\n".join([*lines, *self._summary()])

    def _repr_html_(self) -> str:
        """Return the table as notebooks show it."""
        names = ("took", "prompt", "target_new", "before", "after", "p before", "p after", "loss")
        head = "".join(f"<th>{name}</th>" for name in names)
        body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in self._cells())
        said = "<br>".join(map(escape, self._summary()))
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table><p>{said}</p>"

    def _cells(self) -> list[list[str]]:
        return [
            [
                "yes" if row["took"] else "no",
                _short(row["prompt"], 44),
                _short(row["target_new"], 20),
                _short(row["answer_before"], 20),
                _short(row["answer"], 20),
                f"{row['probability_before']:.3f}",
                f"{row['probability']:.3f}",
                f"{row['loss']:.3f}",
            ]
            for row in self.rows[:_SHOWN]
        ]

    def _summary(self) -> list[str]:
        more = len(self.requests) - _SHOWN
        batches = f"{len(self.batches)} batch" if len(self.batches) == 1 else f"{len(self.batches)} batches"
        where = ", ".join(self.norms) if len(self.norms) <= 3 else f"{len(self.norms)} parameters"
        return [
            *([f"... and {more} more (.rows has all)"] if more > 0 else []),
            f"{sum(self.took)} of {len(self.requests)} took, in {batches}; "
            + (f"‖change‖ {self.norm:.3f} in {where}" if self.norms else "no weight changed"),
            *self.said,
            *self._doubts(),
        ]

    def _doubts(self) -> Iterator[str]:
        """Yield where little of a change arrives, and why facts did not take whose target was searched for.

        Either the search has failed, or the write did not deliver what it found.
        """
        yield from dict.fromkeys(text for batch in self.batches for text in _little(batch))
        reports = {fact.request_id: fact for batch in self.batches for fact in batch.facts}
        for request, took in zip(self.requests, self.took, strict=True):
            report = reports.get(request.request_id)
            if took or report is None or report.target_loss is None:
                continue
            found = report.target_loss < _FOUND
            yield (
                f"{request.request_id}: did not take; its target was "
                + (f"found (loss {report.target_loss:.2f}), and not delivered" if found else "not found ")
                + ("" if found else f"(loss {report.target_loss:.2f} after {report.n_steps} steps)")
            )


def _little(batch: EditResult) -> Iterator[str]:
    """Say where less than half of the wanted change arrives, because the ridge is large beside the keys."""
    for report in batch.parameters:
        if not report.ridge or report.shortfall is None or report.shortfall <= LITTLE:
            continue
        sizes = [update.q for update in batch.edit_updates if update.parameter == report.parameter]
        q = median(size for size in sizes if size is not None)
        yield (
            f"{report.parameter}: {max(1 - report.shortfall, 0.0):.0%} of the wanted change arrives: the ridge "
            f"{report.ridge:.4g} is {report.ridge / q:.2g} times the median kᵀC⁻¹k of these keys ({q:.4g}); give a smaller "
            "one, or preservation_weight={'times_median_q': 0.25}"
        )


def _answer(said: str | None) -> str:
    return "(NaN)" if said is None else said.strip()


def _short(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"
