"""After which edit a model broke: a run's ledger bisected between two checkpoints, and what that edit does elsewhere."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from typing import NamedTuple

import torch
from torch import Tensor
from transformers.utils import logging as transformers_logging

from editing.measure.scores import Probe, probes_of, score_probes
from editing.model.lm import LanguageModel
from editing.requests import EditRequest
from storage.commits import CommitInfo
from storage.digests import digest_of
from storage.sql import query_many
from storage.store import Store
from tasks.errors import InputError
from tasks.reports.diagnosis import FALL, KIND, Diagnosis, Step, gradual, nothing_lost, together, verdict
from tasks.runs.chain import beginning_of, end_of, segments
from tasks.runs.ledger import state_of
from tasks.runs.rows import edit_batch
from tasks.runs.windows import Window, worst_window
from tasks.specs.run import RunSpec
from tasks.workers.bench import WorkerBench
from tasks.workers.loaded_models import device_for

_MOST = 200
"""Probes of a kind that are looked at."""
_BESIDE = 6
"""Facts at the least that are tried on the state before a round: one alone does not stand out."""
_ORDINARY = 8
"""Other facts whose updates are sized as first edits."""
Told = Callable[[Step], None]


class _Edited(NamedTuple):
    """A batch that was written into a model."""

    state: Mapping[str, Tensor]
    """What the editor carries on."""
    norm: float
    """Of the change, over all parameters."""


@dataclass
class _Case:
    """A run on the bench, and the probes that are looked at: by kind, those that held at the window's beginning."""

    bench: WorkerBench
    run: RunSpec
    order: Sequence[EditRequest]
    probes: Mapping[str, Sequence[Probe]]
    told: Told
    left_out: Collection[int] = frozenset()
    """Rounds that wrote nothing, because a guard, a contradiction or NaN kept them out."""
    kept_out: Collection[tuple[int, str]] = frozenset()
    """Rounds, each with a fact that a guard kept out."""
    steps: list[Step] = field(default_factory=list)

    def add(self, step: Step) -> Step:
        self.steps.append(step)
        self.told(step)
        return step

    def look(
        self, lm: LanguageModel, stage: str, rounds: int, fact: str | None = None, norm: float | None = None
    ) -> Step:
        """Score the probes on the model as it is now; the pristine one has no edits to keep."""
        shares = {
            kind: _share(lm, probes) for kind, probes in self.probes.items() if (stage, kind) != ("first", "rewrite")
        }
        edits = rounds * self.run.batch_size
        return self.add(Step(stage, edits, fact, shares.get("rewrite"), shares.get("neighborhood"), norm))

    def batch(self, round_: int) -> Sequence[EditRequest]:
        """Return the facts that a round edited: without those that a guard kept out."""
        batch = self.order[round_ * self.run.batch_size : (round_ + 1) * self.run.batch_size]
        return (
            []
            if round_ in self.left_out
            else [each for each in batch if (round_, each.request_id) not in self.kept_out]
        )

    def edit(self, lm: LanguageModel, batch: Sequence[EditRequest], state: Mapping[str, Tensor]) -> _Edited:
        """Edit a batch on the model as it is now, with what the run edits with; nothing, if it is empty."""
        if not batch:
            return _Edited(state, 0.0)
        editor, artifacts, _ = self.bench.inputs(self.run)
        names = editor.parameter_names(lm, self.run.layers)
        before = {name: lm.precise(name).double().clone() for name in names}
        _, _, result = edit_batch(lm, editor, batch, self.run, state, artifacts)
        if result is None:
            return _Edited(state, 0.0)
        result.apply(lm)
        squares = [float((lm.precise(name).double() - before[name]).square().sum()) for name in names]
        return _Edited(result.state, math.sqrt(sum(squares)))

    def before(self, round_: int) -> tuple[LanguageModel, Mapping[str, Tensor]]:
        """Return the model as it stands before a round, and what its editor carries, which is kept where segments end."""
        chain = [commit for commit in segments(self.bench.store, self.run.run_id) if (commit.last_round or 0) <= round_]
        state: Mapping[str, Tensor] = state_of(self.bench.store.rows(chain[-1], "ledger")) if chain else {}
        carries = bool(self.bench.inputs(self.run).editor.carried() or state)
        at = end_of(chain) if carries else round_
        lm = self.bench.at(self.run, at)
        self.leave()
        for each in range(at, round_):
            state = self.edit(lm, self.batch(each), state).state
        return lm, state

    def leave(self) -> None:
        """Let nobody take the model for the run's own state any more."""
        self.bench.models.forget_position(self.run.model)


def diagnose(
    place: str,
    run_id: str,
    *,
    start: int | None = None,
    stop: int | None = None,
    again: bool = False,
    told: Told = lambda step: None,
) -> Diagnosis:
    """Find the edit after which what a run's model knew and was taught is lost, and say what it does elsewhere.

    The diagnosis is kept in the table ``measurements``.

    Args:
        start: Edits at a checkpoint before the fall; the checkpoints between which most is lost unless given.
        stop: Edits at a checkpoint after it.
        again: Edit all later rounds anew without that edit, too.
        told: Called with each step as it is known.

    Raises:
        InputError: The run has not begun, is not sequential, or its checkpoints scored no earlier edits.
    """
    transformers_logging.disable_progress_bar()
    store = Store(place)
    store.refuse_summary("diagnose")
    begun = beginning_of(store, run_id)
    if begun is None or begun.run.mode != "sequential" or begun.run.is_unedited:
        raise InputError(
            f"run {run_id!r} is no sequential run of edits in {store.location}; only such a chain can be bisected"
        )
    run = begun.run
    torch.set_num_threads(run.execution.compute.threads)
    window = worst_window(store, run, start, stop)
    bench = WorkerBench(store, device_for(0), spread=False)
    case = _Case(bench, run, bench.order(run), _probes(bench, run, window), told, *_kept_out(store, run))
    ends = [case.add(_stored(case, window, edits)) for edits in (window.first, window.last)]
    if ends[0].health - ends[1].health < FALL:
        found = Diagnosis(run_id=run_id, steps=(), text=nothing_lost(run_id, ends, window.n_small))
    else:
        found = _bisected(case, window, ends, again=again)
    found = replace(found, steps=tuple(case.steps))
    unit_id = f"{KIND}-{digest_of([found.text, *map(list, found.steps)], length=10)}"
    store.commit(run_id, unit_id, {"measurements": found.rows()}, CommitInfo(kind=KIND))
    return found


def _bisected(case: _Case, window: Window, ends: Sequence[Step], *, again: bool) -> Diagnosis:
    """Halve the window where more was lost, down to one round, and look at that round."""
    run, size = case.run, case.run.batch_size
    low, high = window.first // size, window.last // size
    before, after, n_scored = *ends, 0
    while high - low > 1:
        middle = (low + high) // 2
        step = case.look(case.bench.at(run, middle), "bisection", middle)
        n_scored += 1
        if before.health - step.health >= step.health - after.health:
            high, after = middle, step
        else:
            low, before = middle, step
    found = Diagnosis(run_id=run.run_id, steps=(), text="", round=low, n_scored=n_scored)
    fall, whole = before.health - after.health, ends[0].health - ends[1].health
    if fall < FALL or fall < whole / 2:
        return replace(found, text=gradual(run.run_id, low * size + 1, high * size, fall, whole))
    culprit = _culprit(case, low, before, after)
    if culprit is None:
        return replace(found, text=together(run.run_id, low, size, before, after))
    _look_elsewhere(case, low, culprit, window.last // size, again=again)
    mine = [step for step in case.steps if step.fact_id == culprit.request_id]
    edit = f"{culprit.prompt!r} -> {culprit.target_new!r}"
    norms = [step.update_norm or 0.0 for step in case.steps if step.stage == "ordinary"]
    text = verdict(run.run_id, low, edit, mine, before, after, sum(norms) / max(1, len(norms)))
    return replace(found, culprit=culprit.request_id, text=text)


def _without(case: _Case, round_: int, last: int) -> LanguageModel:
    """Return the model after ``last`` rounds, less what one round added: whole tensors of later rounds hold it, too."""
    names = case.bench.inputs(case.run).editor.parameter_names(case.bench.at(case.run, round_), case.run.layers)
    ends = []
    for at in (round_, round_ + 1):
        lm = case.bench.at(case.run, at)
        ends.append({name: lm.precise(name).double().clone() for name in names})
    lm = case.bench.at(case.run, last)
    case.leave()
    for name in names:
        less = lm.precise(name).double() - (ends[1][name] - ends[0][name])
        lm.write(name, less.to(lm.stored_dtype(name)))
    return lm


def _culprit(case: _Case, round_: int, before: Step, after: Step) -> EditRequest | None:
    """Return the fact of a round whose edit alone, on the state before it, breaks the model; None if none stands out."""
    batch, steps = case.batch(round_), []
    size = case.run.batch_size
    later = case.order[(round_ + 1) * size : case.run.facts.size]  # what else might have been edited here
    beside = list(later[:: max(1, len(later) // _BESIDE)][: max(0, _BESIDE - len(batch))])
    for stage, requests in (("alone", batch), ("beside", beside)):
        for request in requests:
            lm, state = case.before(round_)
            edited = case.edit(lm, [request], state)
            steps.append((case.look(lm, stage, round_, request.request_id, edited.norm), request))
    worst, request = min(steps[: len(batch)], key=lambda pair: pair[0].health)
    loss = before.health - worst.health
    others = [before.health - step.health for step, other in steps if other is not request]
    does_it = loss >= max(FALL, 0.75 * (before.health - after.health))
    return request if does_it and (not others or median(others) < loss / 2) else None


def _look_elsewhere(case: _Case, round_: int, culprit: EditRequest, last: int, *, again: bool) -> None:
    """Look at the edit as the first one of the pristine model, at the ledger without its round, at later edits made anew."""
    case.bench.at(case.run, 0)  # so that the parameters' pristine bits are known
    lm = case.bench.pristine(case.run.model)
    case.look(lm, "first", 0, culprit.request_id, case.edit(lm, [culprit], {}).norm)
    others = [request for request in case.order[: case.run.facts.size] if request is not culprit]
    for request in others[:: max(1, len(others) // _ORDINARY)][:_ORDINARY]:
        edited = case.edit(case.bench.pristine(case.run.model), [request], {})
        case.add(Step("ordinary", 0, request.request_id, None, None, edited.norm))
    if not case.bench.at(case.run, last).patches.all():
        case.look(_without(case, round_, last), "without", last, culprit.request_id)
    if again:
        lm, state = case.before(round_)
        for each in range(round_ + 1, last):
            state = case.edit(lm, case.batch(each), state).state
        case.look(lm, "again", last, culprit.request_id)


def _kept_out(store: Store, run: RunSpec) -> tuple[set[int], set[tuple[int, str]]]:
    """Return the rounds in which nothing was written, and the facts that a guard kept out of others."""
    sql = (
        f"SELECT round FROM rounds WHERE run_id = '{run.run_id}' GROUP BY round "
        "HAVING max(update_norm) = 0 AND bool_and(outcome IN ('guarded', 'nan', 'unsolved'))",
        f"SELECT scored_at AS round, item AS fact FROM measurements WHERE run_id = '{run.run_id}' AND score = 'guarded'",
    )
    rounds, facts = (table.to_pylist() for table in query_many(store, sql))
    return {row["round"] for row in rounds}, {(row["round"], row["fact"]) for row in facts}


def _probes(bench: WorkerBench, run: RunSpec, window: Window) -> dict[str, list[Probe]]:
    """Return the probes of a window by kind, evenly chosen where they are many."""
    found: dict[str, list[Probe]] = {}
    for request in bench.order(run)[: run.facts.size]:
        for probe in probes_of(request, ("rewrite", "neighborhood")):
            if probe.probe_id in window.held:
                found.setdefault(probe.kind, []).append(probe)
    return {kind: probes[:: max(1, -(-len(probes) // _MOST))] for kind, probes in found.items()}


def _stored(case: _Case, window: Window, edits: int) -> Step:
    """Return what was stored at an end of the window, of the probes that are looked at."""
    shares = {
        kind: sum(edits == window.first or window.held[probe.probe_id] for probe in probes) / len(probes)
        for kind, probes in case.probes.items()
    }
    return Step("window", edits, None, shares.get("rewrite"), shares.get("neighborhood"))


def _share(lm: LanguageModel, probes: Sequence[Probe]) -> float:
    """Return the share of probes whose wanted answer is the argmax, token by token."""
    scores = score_probes(lm, probes)
    wanted = [score.true if score.probe.kind == "neighborhood" else score.new for score in scores]
    return sum(answer is not None and answer.correct for answer in wanted) / len(wanted)
