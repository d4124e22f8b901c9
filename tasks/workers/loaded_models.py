"""Models in a worker's memory, and where each stands: pristine, or after some rounds of a run."""

import logging
import os
import platform
import time
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor

from editing.methods.editor import make_editor
from editing.model.lm import LanguageModel
from editing.model.loading import load
from editing.model.memory import tokens_that_fit
from editing.model.progress import Progress
from storage.digests import digest_of
from storage.store import Store
from tasks.data.adapters import merge_adapter
from tasks.data.model_files import local_folder
from tasks.errors import ClusterError, LedgerMismatch
from tasks.runs.chain import beginning_of, segments
from tasks.runs.ledger import replay, state_of
from tasks.specs.run import TOKENS_PER_FORWARD, ModelRef, RunSpec

_log = logging.getLogger(__name__)

FAKE_GPUS = "PALIMPSEST_FAKE_GPUS"
"""Set on nodes whose GPUs are only said to be there, as in tests of a cluster."""


def device_for(n_gpus: float) -> str:
    """Return the kind of device on which models go.

    Raises:
        ClusterError: The cluster has given GPUs of which torch sees none: on the CPU every unit would be slow, and differ.
    """
    accelerator = torch.accelerator.current_accelerator(check_available=True) if n_gpus else None
    if accelerator is None and n_gpus and not os.environ.get(FAKE_GPUS):
        raise ClusterError(
            f"{platform.node()} has {n_gpus:g} GPUs for a worker by Ray's account, and torch {torch.__version__} sees none; "
            "expected an accelerator: install torch for it there, or start the node with --num-gpus=0"
        )
    return accelerator.type if accelerator is not None else "cpu"


def loaded(model: ModelRef, device: str) -> LanguageModel:
    """Load a model as a plan describes it."""
    return load(
        local_folder(model),
        dtype=model.dtype,
        device=device,
        chat=model.chat,
        text_start=model.text_start,
        adapt=None if model.adapter is None else partial(merge_adapter, folder=model.adapter),
    )


@dataclass
class Loaded:
    """A model in memory, with the pristine bits of every parameter that has ever been edited, and where it stands."""

    lm: LanguageModel
    pristine: dict[str, Tensor] = field(default_factory=dict)
    run_id: str | None = None
    rounds: int = 0
    """Rounds of ``run_id`` that are applied now."""
    standing: dict[str, tuple[int, dict[str, Tensor]]] = field(default_factory=dict)
    """By run id, after how many rounds the runs that last went in step stand, and with which parameters."""


class Models:
    """The models in the memory of one process.

    Args:
        device: Where they are loaded to.
        spread: Over all devices of that kind.
        progress: What all of them tell how far they are.
    """

    def __init__(self, store: Store, device: str, *, spread: bool = False, progress: Progress | None = None) -> None:
        self._progress = progress or Progress()
        self._store, self._device = store, "auto" if spread else device
        self._loaded: dict[str, Loaded] = {}
        self._sizes: dict[str, int] = {}

    def loaded(self, model: ModelRef) -> Loaded:
        """Return a model wherever it stands."""
        key = _key(model)
        if key not in self._loaded:
            began = time.perf_counter()
            lm = loaded(model, self._device)
            lm.name, lm.progress = model.name, self._progress
            self._loaded[key] = Loaded(lm)
            _log.info("%s loaded to %s in %.1f s", model.name, self._device, time.perf_counter() - began)
        return self._loaded[key]

    def pristine(self, model: ModelRef) -> Loaded:
        """Return a model as it was loaded."""
        loaded = self.loaded(model)
        loaded.lm.restore(loaded.pristine)
        loaded.lm.patches.clear()
        loaded.lm.tokens_per_forward = TOKENS_PER_FORWARD  # what a unit before this one set must not reach its rows
        loaded.run_id, loaded.rounds = None, 0
        return loaded

    def forget_position(self, model: ModelRef) -> None:
        """Let the next unit start from the pristine weights: after an exception they may stand between two rounds."""
        if _key(model) in self._loaded:
            self._loaded[_key(model)].run_id = None
            self._loaded[_key(model)].standing.clear()

    def forget_run(self, model: ModelRef, run_id: str) -> None:
        """Let a run that has gone in step start from its ledger again: another attempt's bits may differ."""
        self.loaded(model).standing.pop(run_id, None)

    def at(self, run: RunSpec, rounds: int) -> tuple[Loaded, tuple[str, ...]]:
        """Return the model as it is after ``rounds`` rounds of ``run``, rebuilt from pristine weights and the ledger."""
        loaded = self.loaded(run.model)
        lm = loaded.lm
        lm.tokens_per_forward = self.sized(run).execution.compute.tokens_per_forward or TOKENS_PER_FORWARD
        names = self._parameters(lm, run)
        for name in names:
            if name not in loaded.pristine:  # whatever has been edited before is in there already
                loaded.pristine[name] = lm.parameter(name).detach().clone()
        start = loaded.rounds if loaded.run_id == run.run_id else None
        if start == rounds:
            return loaded, names
        if start is None or start > rounds or run.mode == "independent":
            loaded.run_id = None
            lm.restore(loaded.pristine)
            lm.patches.clear()
            start = 0 if run.mode == "sequential" else max(0, rounds - 1)
            stands, weights = loaded.standing.get(run.run_id, (rounds + 1, {}))
            if stands <= rounds:
                lm.restore(weights)
                start = stands
        loaded.run_id = None
        replay(self._store, lm, run.run_id, start, rounds, names, check=run.mode == "sequential")
        loaded.run_id, loaded.rounds = run.run_id, rounds
        return loaded, names

    def sized(self, run: RunSpec) -> RunSpec:
        """Return the run with the micro-batches with which it began, or that fit into memory now."""
        if run.execution.compute.tokens_per_forward is not None:
            return run
        if run.run_id not in self._sizes:
            begun = beginning_of(self._store, run.run_id)
            if begun is None or (tokens := begun.run.execution.compute.tokens_per_forward) is None:
                # Not kept: another worker may begin the run with another number.
                tokens = tokens_that_fit(self.loaded(run.model).lm)
                return run.changed(compute=replace(run.execution.compute, tokens_per_forward=tokens))
            self._sizes[run.run_id] = tokens
        return run.changed(compute=replace(run.execution.compute, tokens_per_forward=self._sizes[run.run_id]))

    def state_before(self, run: RunSpec, first: int) -> dict[str, Tensor]:
        """Return the editor's state with which a segment that starts at round ``first`` begins.

        Raises:
            LedgerMismatch: No segment ends there, so that none can start there.
        """
        chain = segments(self._store, run.run_id)
        for commit in chain:
            if commit.last_round == first:
                return state_of(self._store.rows(commit, "ledger"))
        if first:
            raise LedgerMismatch(
                f"run {run.run_id}: no segment ends before round {first}, found {[c.last_round for c in chain]}; another "
                "process has cut it otherwise; run the same command again"
            )
        return {}

    def _parameters(self, lm: LanguageModel, run: RunSpec) -> tuple[str, ...]:
        if run.is_unedited:
            return ()
        return make_editor(run.editor, run.hparams).parameter_names(lm, run.layers)


def _key(model: ModelRef) -> str:
    return digest_of(model.identity)
