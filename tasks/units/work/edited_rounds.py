"""Some rounds of one run in a worker's memory, or of several that search for their targets in one batch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor

from editing.methods.editor import Artifacts, Editor, EditResult
from editing.methods.locate import LocatingEditor
from editing.methods.targets import Targets
from editing.model.lm import LanguageModel
from editing.requests import EditRequest
from storage.schemas import Tables
from tasks.runs.guard import GUARDED, Guard, guarded_row
from tasks.runs.ledger import digest_of_parameters, state_rows
from tasks.runs.rows import add_round, edit_batch, logits_row, round_rows
from tasks.specs.run import RunSpec


@dataclass
class RunInWork:
    """One run while some of its rounds are done."""

    run: RunSpec
    method: Editor
    artifacts: Artifacts
    order: Sequence[EditRequest]
    """The sample's facts."""
    names: tuple[str, ...]
    """Of the parameters that it may edit."""
    pristine: Mapping[str, Tensor]
    state: Mapping[str, Tensor]
    shared: Mapping[str, Targets]
    """By request id, targets that were found on the pristine weights."""
    guard: Guard | None = None
    weights: dict[str, Tensor] = field(default_factory=dict)
    """Its parameters, and those of the runs that it goes in step with; empty if it is alone."""
    tables: Tables = field(
        default_factory=lambda: {
            name: [] for name in ("edits", "edit_updates", "rounds", "ledger", "logits", "measurements")
        }
    )

    def batch(self, round_: int) -> Sequence[EditRequest]:
        size = self.run.batch_size
        return self.order[round_ * size : (round_ + 1) * size]

    def inputs(self, round_: int) -> Artifacts:
        """Return the inputs of a round, with shared targets if it starts from pristine weights."""
        from_pristine = round_ == 0 or self.run.mode == "independent"
        return replace(self.artifacts, targets=self.shared) if from_pristine and self.shared else self.artifacts

    def do_round(self, lm: LanguageModel, round_: int, inputs: Artifacts) -> None:
        """Edit a round's batch; the model stands where the run does."""
        if self.run.mode == "independent":
            lm.restore({name: self.pristine[name] for name in self.names})
            lm.patches.clear()
            self.state = {}
        batch, before = self.batch(round_), lm.snapshot(self.names)
        outcome, message, result = self._edited(lm, batch, round_, inputs)
        if result is not None:
            self.state = result.state
            result.apply(lm)
        add_round(self.tables, self.run, round_, batch, outcome, message, result)
        self.tables["rounds"] += round_rows(
            lm, self.names, self.pristine, before, self.run, round_, outcome, message, result
        )

    def _edited(
        self, lm: LanguageModel, batch: Sequence[EditRequest], round_: int, inputs: Artifacts
    ) -> tuple[str, str | None, EditResult | None]:
        """Return (outcome, message, result) of a batch, without what the run's guard keeps out."""
        guard, kept, left_out = self.guard, list(batch), dict[str, float]()
        if guard is not None and guard.has_stopped:
            return GUARDED, "an earlier round was kept out, and the guard stops there", None
        while True:
            outcome, message, result = edit_batch(lm, self.method, kept, self.run, self.state, inputs)
            suspects = {} if guard is None or result is None else guard.suspects(result)
            if not suspects or guard is None:
                break
            left_out |= suspects
            guard.has_stopped = guard.rule["on_spike"] == "stop"
            kept = [] if guard.has_stopped else [request for request in kept if request.request_id not in suspects]
            if not kept:
                result = None
                break
        if guard is not None and result is not None:
            guard.remember(result)
        if not left_out:
            return outcome, message, result
        self.tables["measurements"] += [guarded_row(self.run, round_, *each) for each in left_out.items()]
        said = ", ".join(f"{fact} ({times:.1f} times the median)" for fact, times in left_out.items())
        return GUARDED, f"kept out by the guard: {said}", result

    def finish(self, lm: LanguageModel, last: int) -> str:
        """Add what a segment ends with; return the digest of the parameters."""
        self.tables["ledger"] += state_rows(last - 1, self.state)
        self.tables["logits"].append(logits_row(lm, self.order[0].prompt, last, self.run))
        return digest_of_parameters(lm, self.names)


def do_rounds(lm: LanguageModel, runs: Sequence[RunInWork], first: int, last: int) -> tuple[int, list[str]]:
    """Do rounds [first, last) of all runs, or fewer where the work is asked to end.

    Several runs go in step, and the targets of a round of all of them are searched for together: the blocks above the
    edited layers, which the search runs, are the same in all.

    Returns:
        The round behind the last one that was done, and each run's digest of the parameters.
    """
    alone = len(runs) == 1
    every = sorted({name for work in runs for name in work.names})
    for work in () if alone else runs:  # what another work edits is pristine in this one
        work.weights = {name: work.weights.get(name, work.pristine[name]) for name in every}
    end = first
    for round_ in lm.progress.over(range(first, last)):
        if alone:
            runs[0].do_round(lm, round_, runs[0].inputs(round_))
        else:
            _do_round_of_all(lm, runs, round_)
        end = round_ + 1
        if lm.progress.is_asked_to_stop:
            break
    if alone:
        return end, [runs[0].finish(lm, end)]
    digests = []
    for work in runs:
        lm.restore(work.weights)
        digests.append(work.finish(lm, end))
    return end, digests


def _do_round_of_all(lm: LanguageModel, runs: Sequence[RunInWork], round_: int) -> None:
    for work, inputs in zip(runs, _searched(lm, runs, round_), strict=True):
        lm.restore(work.weights)
        work.do_round(lm, round_, inputs)
        work.weights |= lm.snapshot(work.names)


def _searched(lm: LanguageModel, runs: Sequence[RunInWork], round_: int) -> list[Artifacts]:
    """Return each work's inputs of a round, with the targets of its batch."""
    inputs = [work.inputs(round_) for work in runs]
    missing = [i for i, given in enumerate(inputs) if not given.targets]
    if not missing:
        return inputs
    one = runs[missing[0]]
    assert isinstance(one.method, LocatingEditor), "only runs of one target definition go together"
    batches = [runs[i].batch(round_) for i in missing]
    requests = [request for batch in batches for request in batch]
    under = [runs[i].weights for i, batch in zip(missing, batches, strict=True) for _ in batch]
    found = one.method.targets(lm, requests, one.run.layers, one.artifacts, under=under)
    start = 0
    for i, batch in zip(missing, batches, strict=True):
        mine = {request.request_id: found.select([start + k]) for k, request in enumerate(batch)}
        inputs[i] = replace(inputs[i], targets=mine)
        start += len(batch)
    return inputs
