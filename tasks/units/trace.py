"""Causal tracing: the facts that a model knows are found first, then traced."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from storage.digests import digest_of
from storage.store import Store
from tasks.errors import InputError
from tasks.specs.recipes import Recipe, TraceRecipe, set_version
from tasks.specs.run import ModelRef
from tasks.units.unfinished import leave_rows, rows_left
from tasks.units.unit import Bench, Done, Preparation, Record

if TYPE_CHECKING:
    from editing.model.lm import LanguageModel
    from editing.requests import EditRequest

_LOOK = 64
"""Candidates for tracing that are looked at together."""
_log = logging.getLogger(__name__)
Rule = Literal["first_token", "whole_answer"]
"""When a fact is known; see :mod:`editing.measure.tracing`."""


@dataclass(frozen=True, kw_only=True)
class TraceJob:
    """Causal tracing of facts that the model knows: first they are found, then traced."""

    model: ModelRef
    facts_run_id: str
    facts_digest: str
    order: Mapping[str, Any]
    """What determines the candidates, beside the facts."""
    candidates: tuple[int, ...]
    """Positions of facts in the order in which they are looked at."""
    wanted: int
    """Known facts that are to be traced; fewer where the candidates hold fewer."""
    rule: Rule
    samples: int
    window: int
    noise: float | None
    threads: int
    per_unit: int = 5

    @property
    def recipe(self) -> Recipe:
        recipe: TraceRecipe = {
            **self.model.identity,
            "facts": self.facts_digest,
            "order": dict(self.order),
            "known": self.rule,
            "wanted": self.wanted,
            "samples": self.samples,
            "window": self.window,
            "noise": self.noise,
        }
        set_version(recipe, "tracing")
        return recipe

    @property
    def run_id(self) -> str:
        return f"trace-{digest_of(self.recipe, length=10)}"

    def known_unit(self) -> "KnownFacts":
        return KnownFacts(run_id=self.run_id, model=self.model, threads=self.threads, job=self)

    def traces(self, store: Store) -> list["Trace"]:
        """Return the traces of the facts that were found to be known; none before they are looked for."""
        commit = store.read_commit(*self.known_unit().key)
        if commit is None or not commit.spec:
            return []
        found = KnownRecord.of_json(commit.spec)
        return [
            Trace(
                run_id=self.run_id,
                model=self.model,
                threads=self.threads,
                facts_run_id=self.facts_run_id,
                start=start,
                positions=tuple(found.known[start : start + self.per_unit]),
                samples=self.samples,
                window=self.window,
                noise=found.noise,
            )
            for start in range(0, len(found.known), self.per_unit)
        ]

    def units(self, store: Store) -> list[Preparation]:
        """Return all units that can be named: the search for known facts, and once it is done the traces of these."""
        return [self.known_unit(), *self.traces(store)]


class Known(NamedTuple):
    """What a search for known facts has found."""

    known: list[int]
    """Their places among the candidates."""
    asked: int
    """How many were asked."""
    noise: float


@dataclass(frozen=True, kw_only=True)
class KnownRecord(Record):
    """Positions of the known facts, how many were asked, the standard deviation of the noise, and when a fact is known."""

    known: tuple[int, ...]
    asked: int
    noise: float
    rule: str
    model: str | None = None
    """Its name; None in stores of earlier versions."""


@dataclass(frozen=True, kw_only=True)
class KnownFacts(Preparation):
    """The search for facts that the model knows."""

    kind: ClassVar[str] = "known"
    cost_per_item: ClassVar[float] = 0.02
    job: TraceJob

    @property
    def unit_id(self) -> str:
        return "known"

    @property
    def n_items(self) -> int:
        return self.job.wanted

    def do(self, bench: Bench) -> Done:
        job = self.job
        facts = bench.facts(job.facts_run_id)
        found = find_known(bench.pristine(self.model), [facts[i] for i in job.candidates], job)
        positions = tuple(job.candidates[i] for i in found.known)
        record = KnownRecord(
            known=positions, asked=found.asked, noise=found.noise, rule=job.rule, model=self.model.name
        )
        return Done({}, record)


@dataclass(frozen=True, kw_only=True)
class TraceRecord(Record):
    """How facts were traced."""

    facts_run_id: str
    threads: int
    n_items: int
    samples: int
    window: int
    noise: float


@dataclass(frozen=True, kw_only=True)
class Trace(Preparation):
    """Causal traces of a few known facts."""

    kind: ClassVar[str] = "trace"
    cost_per_item: ClassVar[float] = 2.0
    facts_run_id: str
    start: int
    """Their place among the known facts."""
    positions: tuple[int, ...]
    samples: int
    window: int
    noise: float
    """All facts are traced with one, whatever unit they fall into."""

    @property
    def unit_id(self) -> str:
        return f"facts-{self.start:04d}"

    @property
    def n_items(self) -> int:
        return len(self.positions)

    def do(self, bench: Bench) -> Done:
        from editing.model.progress import Interrupted

        facts, lm = bench.facts(self.facts_run_id), bench.pristine(self.model)
        rows = rows_left(bench.store, self.key)
        traced = {row["fact_id"] for row in rows}
        wanted = [facts[i] for i in self.positions if facts[i].request_id not in traced]
        try:
            with bench.progress.interruptible():
                for fact in bench.progress.over(wanted):
                    rows += trace_rows(lm, [fact], self)
        except Interrupted:
            leave_rows(bench.store, self.key, rows)
            raise
        record = TraceRecord(
            facts_run_id=self.facts_run_id,
            threads=self.threads,
            n_items=self.n_items,
            samples=self.samples,
            window=self.window,
            noise=self.noise,
        )
        return Done({"traces": rows}, record)


def find_known(lm: "LanguageModel", requests: "Sequence[EditRequest]", job: TraceJob) -> Known:
    """Look through candidates until enough facts are known.

    Raises:
        InputError: The model knows none of them.
    """
    from editing.measure.tracing import known_facts, subject_noise

    wanted, rule = job.wanted, job.rule
    found: list[int] = []
    asked = 0
    for start in range(0, len(requests), _LOOK):
        for number, is_known in enumerate(known_facts(lm, requests[start : start + _LOOK], rule), start):
            asked = number + 1
            if is_known:
                found.append(number)
            if len(found) == wanted:
                break
        if len(found) == wanted:
            break
    if not found:
        raise InputError(
            f"the model knows none of the {asked} facts ({rule}: its likeliest next token is not the answer's); tracing needs "
            "facts that it knows: give others, or leave locate.trace out and name layers as numbers"
        )
    if len(found) < wanted:
        _log.warning("%d of %d facts are known; %d are traced, not %d", len(found), asked, len(found), wanted)
    noise = job.noise
    return Known(found, asked, subject_noise(lm, [requests[i] for i in found]) if noise is None else noise)


def trace_rows(lm: "LanguageModel", requests: "Sequence[EditRequest]", settings: Trace) -> list[dict[str, Any]]:
    """Trace facts; one row per (fact, kind, layer, token)."""
    from editing.measure.tracing import TracePlan, causal_trace

    plan = TracePlan(samples=settings.samples, window=settings.window, noise=settings.noise)
    rows = []
    for trace in causal_trace(lm, requests, plan):
        for kind, grid in trace.scores.items():
            for position, token in enumerate(trace.tokens):
                for layer in range(grid.shape[1]):
                    rows.append(
                        {
                            "fact_id": trace.request_id,
                            "kind": kind,
                            "layer": layer,
                            "position": position,
                            "token": token,
                            "role": token_role(position, trace.subject, len(trace.tokens)),
                            "probability": float(grid[position, layer]),
                            "low": trace.low,
                            "high": trace.high,
                        }
                    )
    return rows


def token_role(position: int, subject: tuple[int, int], n_tokens: int) -> str:
    """Return what a token is in its prompt, in the words of the ROME paper's figures."""
    first, last = subject
    if position < first:
        return "before subject"
    if position <= last:
        return "last subject token" if position == last else "earlier subject token"
    return "last token" if position == n_tokens - 1 else "after subject"
