"""A segment of a run's chain: some rounds of edits, and of the runs that go in step with it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from storage.store import Store
from tasks.errors import LedgerMismatch
from tasks.runs.chain import SEGMENT, beginning_of, has_begun, segment_id
from tasks.specs.run import RunSpec
from tasks.units.unit import Bench, Done, Record, RunUnit

if TYPE_CHECKING:
    from tasks.units.work.edited_rounds import RunInWork


@dataclass(frozen=True, kw_only=True)
class SegmentRecord(Record):
    """What a segment's commit says beside its rounds and its digest."""

    tokens_per_forward: int | None = None
    """With how many it ended, where memory did not suffice for those with which the run began."""


@dataclass(frozen=True, kw_only=True)
class Segment(RunUnit):
    """Rounds [first, last) of a run, and of those that go in step with it."""

    kind: ClassVar[str] = SEGMENT
    cost_per_item: ClassVar[float] = 1.0
    edits: ClassVar[bool] = True
    first: int
    last: int
    others: tuple[RunSpec, ...] = ()
    """Runs that go in step with ``run``, whose commit is written last: it says that all are."""

    @classmethod
    def at(cls, run: RunSpec, first: int, others: Sequence[RunSpec] = (), *, before: int | None = None) -> "Segment":
        """Return the segment that starts at round ``first``; segments end on multiples of the planned length.

        Args:
            before: Where the next committed segment begins, if one behind a gap does.
        """
        length = run.rounds_per_segment
        last = min((first // length + 1) * length, run.n_rounds)
        return cls(run=run, first=first, last=last if before is None else min(last, before), others=tuple(others))

    @property
    def unit_id(self) -> str:
        return segment_id(self.first)

    @property
    def n_items(self) -> int:
        return (self.last - self.first) * self.run.batch_size * (1 + len(self.others))

    @property
    def run_ids(self) -> tuple[str, ...]:
        return (self.run_id, *(other.run_id for other in self.others))

    @property
    def rounds_left(self) -> int:
        return self.run.n_rounds - self.first

    @property
    def rounds_held(self) -> tuple[int, int]:
        return self.first, self.last

    def do(self, bench: Bench) -> Done:
        import torch

        from tasks.units.work.edited_rounds import do_rounds

        members = (self.run, *self.others)
        begun = [run for run in members if has_begun(bench.store, run.run_id)]
        compute = bench.sized((begun or members)[0]).execution.compute
        torch.set_num_threads(compute.threads)
        works = [self._work(bench, run.changed(compute=compute)) for run in members]
        loaded = bench.models.loaded(self.model)
        loaded.run_id = None
        last, digests = do_rounds(loaded.lm, works, self.first, self.last)
        tokens = loaded.lm.tokens_per_forward
        halved = tokens != compute.tokens_per_forward  # memory did not suffice
        record = SegmentRecord(tokens_per_forward=tokens if halved else None)
        if self.others:
            loaded.standing = {work.run.run_id: (last, work.weights) for work in works}
        else:
            loaded.run_id, loaded.rounds = self.run_id, last
        mine, *others = [Done(work.tables, record, digest, last) for work, digest in zip(works, digests, strict=True)]
        return mine._replace(others={run.run_id: done for run, done in zip(self.others, others, strict=True)})

    def _work(self, bench: Bench, run: RunSpec) -> "RunInWork":
        """Return a run that stands at this segment's first round; unless it is alone, with a copy of its parameters."""
        from tasks.runs.guard import Guard
        from tasks.runs.rows import run_row
        from tasks.units.work.edited_rounds import RunInWork

        editor, artifacts, digests = bench.inputs(run)
        if self.first:
            _check_inputs(bench.store, run, digests)
        loaded, names = bench.models.at(run, self.first)
        from_pristine = self.first == 0 or run.mode == "independent"
        work = RunInWork(
            run=run,
            method=editor,
            artifacts=artifacts,
            order=bench.order(run)[: run.facts.size],
            names=names,
            pristine=loaded.pristine,
            state=bench.models.state_before(run, self.first),
            shared=bench.targets(run) if from_pristine else {},
            weights=loaded.lm.snapshot(names) if self.others else {},
            guard=Guard.of(bench.store, run, self.first),
        )
        if self.first == 0:
            work.tables["runs"] = [run_row(run, digests, bench.device)]
        return work


def _check_inputs(store: Store, run: RunSpec, digests: Mapping[str, Any]) -> None:
    """Raise if a run would go on with other second moments, prefixes or networks than it began with."""
    begun = beginning_of(store, run.run_id)
    changed = [name for name, value in (begun.digests if begun else {}).items() if value != digests[name]]
    if changed:
        raise LedgerMismatch(
            f"run {run.run_id}: its {', '.join(changed)} are not those that it began with; an artifact has been made "
            "again with other content; restore it, or use a new store"
        )
