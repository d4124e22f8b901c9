"""A worker: one process with models on one device, doing one unit of work at a time and committing it to the store."""

import platform
import time

import torch
from transformers.utils import logging as transformers_logging

from editing.model.progress import Interrupted
from storage.commits import CommitInfo
from storage.store import Store
from tasks.units.unfinished import forget
from tasks.units.unit import LEFT, Done, Unit
from tasks.workers.bench import WorkerBench
from tasks.workers.loaded_models import device_for
from tasks.workers.unit_log import UnitLog


class Worker:
    """Does units of work; each is idempotent, and done when the store says so.

    Args:
        root: The store, an absolute path.
        n_gpus: GPUs that this process sees; with none, models stay on the CPU, over several one is spread.
        patience_s: For how long to wait for a store that does not answer.
    """

    def __init__(self, root: str, *, n_gpus: float = 0.0, patience_s: float = 0.0) -> None:
        transformers_logging.disable_progress_bar()
        store = Store(root, patience_s=patience_s)
        self.bench = WorkerBench(store, device_for(n_gpus), spread=n_gpus > 1)

    def ping(self) -> str:
        return f"{platform.node()}/{self.bench.device}"

    def look(self, *, stop: bool) -> float:
        """Return the share of the unit in work that is done; called from another thread than :meth:`do`.

        Args:
            stop: Ask it to end where it can go on later.
        """
        self.bench.progress.is_asked_to_stop = stop
        return self.bench.progress.share

    def do(self, unit: Unit) -> str:
        """Do one unit.

        Returns:
            ``done``, ``skipped`` (it was committed already), ``lost`` (another attempt was faster) or ``left`` (it was asked to
            end, and goes on later from where it is).
        """
        if self.bench.store.is_committed(*unit.key):
            return "skipped"
        torch.set_num_threads(unit.threads)
        started, log, models = time.perf_counter(), UnitLog(), self.bench.models
        self.bench.progress.begin()
        try:
            with log.listening():
                done = unit.do(self.bench)
        except Interrupted:
            models.forget_position(unit.model)
            return LEFT
        except BaseException as error:
            models.forget_position(unit.model)
            if said := log.text():
                error.add_note(said)
            raise
        for run_id, other in done.others.items():  # the unit's own commit says that all are written
            if not self._commit(unit, run_id, other, started, log):
                models.forget_run(unit.model, run_id)
        if self._commit(unit, unit.run_id, done, started, log):
            forget(self.bench.store, unit.key)
            return "done"
        models.forget_position(unit.model)  # what another attempt has committed may differ in bits
        return "lost"

    def _commit(self, unit: Unit, run_id: str, done: Done, started: float, log: UnitLog) -> bool:
        """Commit what a unit has done for a run; runs that go in step have equal shares of its time."""
        runs = len(unit.run_ids)
        seconds, (first, last) = (time.perf_counter() - started) / runs, unit.rounds_held
        n_items = unit.n_items // runs
        if done.last_round is not None and first is not None and last is not None:
            n_items, last = n_items * (done.last_round - first) // (last - first), done.last_round
        timing = {"stage": unit.kind, "seconds": seconds, "n_items": n_items, "device": self.ping()}
        info = CommitInfo(
            kind=unit.kind,
            recipe=unit.recipe,
            first_round=first,
            last_round=last,
            digest=done.digest,
            spec=done.record.to_json() if done.record else {},
            seconds=seconds,
            log=log.text(),
        )
        return self.bench.store.commit(run_id, unit.unit_id, {**done.tables, "timings": [timing]}, info)
