"""A worker: one process with models on one device, doing one unit of work at a time and committing it to the store."""

import json
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache, partial
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers.utils import logging as transformers_logging

from editing.editor import Artifacts, Editor, EditResult, make_editor
from editing.errors import SolveError
from editing.hparams import hparams_digest
from editing.lm import LanguageModel, load
from editing.requests import EditRequest
from storage.identity import digest_of
from storage.store import CommitInfo, Store
from tasks.datasets import read_facts, sample_order
from tasks.errors import LedgerMismatch
from tasks.identity import ModelRef, RunSpec, Unit
from tasks.ledger import digest_of_parameters, state_of, state_rows, update_row, updates_of
from tasks.prepared import artifacts_for, make_contexts, make_moments
from tasks.scoring import answer_rows, probe_rows, search_rows, trace_rows

Tables = dict[str, list[dict[str, Any]]]


@dataclass
class Loaded:
    """A model in memory, with the pristine bits of every parameter that has ever been edited, and where it stands."""

    lm: LanguageModel
    pristine: dict[str, Tensor] = field(default_factory=dict)
    run_id: str | None = None
    rounds: int = 0
    """Rounds of ``run_id`` that are applied now."""


class Worker:
    """Does units of work; each is idempotent, and done when the store says so.

    Args:
        root: The store, an absolute path.
        device: Where models go, as torch names it.
    """

    def __init__(self, root: str, device: str) -> None:
        transformers_logging.disable_progress_bar()
        self._store = Store(root)
        self._device = device
        self._models: dict[str, Loaded] = {}
        self._requests: dict[str, list[EditRequest]] = {}
        self._prepared = lru_cache(maxsize=8)(self._prepare)
        self._runs: dict[str, RunSpec] = {}

    def ping(self) -> str:
        return f"{platform.node()}/{self._device}"

    def do(self, unit: Unit) -> str:
        """Do one unit; return ``done``, ``skipped`` (it was committed already) or ``lost`` (another attempt was faster)."""
        if self._store.is_committed(*unit.key):
            return "skipped"
        torch.set_num_threads(unit.run.compute.threads if unit.run else int(unit.payload.get("threads", 1)))
        started = time.perf_counter()
        work: dict[str, Callable[[Unit], tuple[Tables, CommitInfo]]] = {
            "contexts": self._contexts,
            "moments": self._moments,
            "trace": self._trace,
            "search": self._search,
            "segment": self._segment,
            "own": self._own,
            "retention": self._retention,
            "benchmark": self._benchmark,
            "baseline": self._baseline,
        }
        try:
            tables, info = work[unit.kind](unit)
        except BaseException:
            self._forget_position(unit.model)
            raise
        seconds = time.perf_counter() - started
        n_items = int(unit.payload.get("n_items", 0))
        tables["timings"] = [{"stage": unit.kind, "seconds": seconds, "n_items": n_items, "device": self.ping()}]
        fresh = self._store.commit(unit.run_id, unit.unit_id, tables, _timed(info, seconds))
        return "done" if fresh else "lost"

    # --- preparation

    def _contexts(self, unit: Unit) -> tuple[Tables, CommitInfo]:
        artifact = make_contexts(self._store, self._pristine(unit.model).lm, unit.payload["recipe"])
        return {}, CommitInfo(kind="contexts", digest=artifact.digest, spec={"recipe": unit.payload["recipe"]})

    def _moments(self, unit: Unit) -> tuple[Tables, CommitInfo]:
        lm = self._pristine(unit.model).lm
        digests = make_moments(self._store, lm, unit.payload["recipe"], unit.payload["layers"])
        spec = {"recipe": unit.payload["recipe"], "digests": {str(layer): d for layer, d in digests.items()}}
        return {}, CommitInfo(kind="moments", digest=digest_of(spec["digests"]), spec=spec)

    def _trace(self, unit: Unit) -> tuple[Tables, CommitInfo]:
        lm = self._pristine(unit.model).lm
        requests = self._chosen(unit)
        rows = trace_rows(lm, requests, unit.payload)
        return {"traces": rows}, CommitInfo(kind="trace", spec=_public(unit.payload))

    def _search(self, unit: Unit) -> tuple[Tables, CommitInfo]:
        assert unit.run is not None
        loaded = self._pristine(unit.model)
        artifacts, _ = artifacts_for(self._store, unit.run)
        method = make_editor(unit.run.editor, unit.run.hparams)
        rows = search_rows(loaded.lm, self._chosen(unit), unit.run, method, artifacts)
        return {"layer_scores": rows}, CommitInfo(kind="search", spec=_public(unit.payload))

    # --- editing

    def _segment(self, unit: Unit) -> tuple[Tables, CommitInfo]:
        run = _run_of(unit)
        first, last = int(unit.payload["first_round"]), int(unit.payload["last_round"])
        method, artifacts, digests = self._prepared_for(run)
        loaded, names = self._at(run, first)
        lm = loaded.lm
        state: Mapping[str, Tensor] = self._state_before(run, first)
        tables: Tables = {"edits": [], "edit_updates": [], "rounds": [], "ledger": [], "logits": []}
        if first == 0:
            tables["runs"] = [run_row(run, digests, self._device)]
        order = self._order(run)
        for round_ in range(first, last):
            if run.mode == "independent":
                lm.restore({name: loaded.pristine[name] for name in names})
            batch = [order[i] for i in range(round_ * run.batch_size, (round_ + 1) * run.batch_size)]
            before = lm.snapshot(names)
            outcome, message, result = _edit(lm, method, batch, run, state, artifacts)
            if result is not None:
                state = result.state
                for update in result.updates:
                    update.apply(lm)
            loaded.rounds = round_ + 1
            _add_round(tables, run, round_, batch, outcome, message, result)
            tables["rounds"] += _round_rows(lm, names, loaded.pristine, before, run, round_, outcome, message, result)
        tables["ledger"] += state_rows(last - 1, state)
        tables["logits"].append(_logits_row(lm, order[0].prompt, last, run))
        digest = digest_of_parameters(lm, names)
        return tables, CommitInfo(kind="segment", first_round=first, last_round=last, digest=digest)

    # --- scoring

    def _own(self, unit: Unit) -> tuple[Tables, CommitInfo]:
        run = _run_of(unit)
        first, last = int(unit.payload["first_round"]), int(unit.payload["last_round"])
        order, rows = self._order(run), []
        for round_ in range(first, last):
            lm = self._at(run, round_ + 1)[0].lm
            batch = order[round_ * run.batch_size : (round_ + 1) * run.batch_size]
            rows += probe_rows(
                lm, batch, purpose="own", edited_at=partial(_constant, round_), run=run, rounds=round_ + 1
            )
        return {"fact_scores": rows}, CommitInfo(kind="own", first_round=first, last_round=last)

    def _retention(self, unit: Unit) -> tuple[Tables, CommitInfo]:
        run, rounds = _run_of(unit), int(unit.payload["rounds"])
        lm = self._at(run, rounds)[0].lm
        order = self._order(run)
        chosen = [int(i) for i in unit.payload["positions"]]
        rows = probe_rows(
            lm,
            [order[i] for i in chosen],
            purpose="retention",
            edited_at=lambda i: chosen[i] // run.batch_size,
            run=run,
            rounds=rounds,
        )
        return {"fact_scores": rows}, CommitInfo(kind="retention", first_round=rounds - 1, last_round=rounds)

    def _benchmark(self, unit: Unit) -> tuple[Tables, CommitInfo]:
        run, rounds = _run_of(unit), int(unit.payload["rounds"])
        lm = self._at(run, rounds)[0].lm
        rows = answer_rows(lm, unit.payload["benchmark"], int(unit.payload["n_examples"]), run, rounds)
        return {"benchmark_answers": rows}, CommitInfo(kind="benchmark", spec=_public(unit.payload))

    def _baseline(self, unit: Unit) -> tuple[Tables, CommitInfo]:
        run = _run_of(unit)
        lm = self._pristine(unit.model).lm
        first, last = int(unit.payload["first"]), int(unit.payload["last"])
        rows = probe_rows(
            lm, self._order(run)[first:last], purpose="baseline", edited_at=partial(_constant, None), run=run, rounds=0
        )
        tables: Tables = {"fact_scores": rows}
        if first == 0:
            tables["runs"] = [run_row(run, {}, self._device)]
        return tables, CommitInfo(kind="baseline")

    # --- where the model stands

    def _loaded(self, model: ModelRef) -> Loaded:
        if model.digest not in self._models:
            lm = load(model.folder, dtype=model.dtype, device=self._device)
            lm.name = model.name
            self._models[model.digest] = Loaded(lm)
        return self._models[model.digest]

    def _pristine(self, model: ModelRef) -> Loaded:
        loaded = self._loaded(model)
        loaded.lm.restore(loaded.pristine)
        loaded.run_id, loaded.rounds = None, 0
        return loaded

    def _forget_position(self, model: ModelRef) -> None:
        # After an exception the weights may stand between two rounds; the next unit starts from the pristine ones.
        if model.digest in self._models:
            self._models[model.digest].run_id = None

    def _at(self, run: RunSpec, rounds: int) -> tuple[Loaded, tuple[str, ...]]:
        """Return the model as it is after ``rounds`` rounds of ``run``, rebuilt from pristine weights and the ledger."""
        loaded = self._loaded(run.model)
        lm = loaded.lm
        lm.tokens_per_forward = run.compute.tokens_per_forward
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
            start = 0 if run.mode == "sequential" else max(0, rounds - 1)
        loaded.run_id = None
        replay(self._store, lm, run.run_id, start, rounds, names, check=run.mode == "sequential")
        loaded.run_id, loaded.rounds = run.run_id, rounds
        return loaded, names

    def _state_before(self, run: RunSpec, first: int) -> dict[str, Tensor]:
        for commit in segments(self._store, run.run_id):
            if commit.last_round == first:
                return state_of(self._store.rows(commit, "ledger"))
        return {}

    def _parameters(self, lm: LanguageModel, run: RunSpec) -> tuple[str, ...]:
        if run.editor == "none":
            return ()
        return make_editor(run.editor, run.hparams).parameter_names(lm, run.layers)

    # --- inputs

    def _order(self, run: RunSpec) -> list[EditRequest]:
        requests = self._facts(run.facts.run_id)
        order = sample_order(len(requests), sample=run.facts.sample, seed=run.facts.sample_seed)
        return [requests[i] for i in order[: run.facts.size]]

    def _chosen(self, unit: Unit) -> list[EditRequest]:
        requests = self._facts(unit.payload["facts_run_id"])
        return [requests[i] for i in unit.payload["positions"]]

    def _facts(self, run_id: str) -> list[EditRequest]:
        if run_id not in self._requests:
            self._requests[run_id] = read_facts(self._store, run_id)
        return self._requests[run_id]

    def _prepared_for(self, run: RunSpec) -> tuple[Editor, Artifacts, Mapping[str, Any]]:
        self._runs[run.run_id] = run
        return self._prepared(run.run_id)

    def _prepare(self, run_id: str) -> tuple[Editor, Artifacts, Mapping[str, Any]]:
        run = self._runs[run_id]
        artifacts, digests = artifacts_for(self._store, run)
        return make_editor(run.editor, run.hparams), artifacts, digests


def segments(store: Store, run_id: str) -> list[Any]:
    """Return a run's committed segments as a chain: each starts where the one before ended."""
    found = {c.first_round: c for c in store.commits(run_id).values() if c.kind == "segment" and c.status == "done"}
    chain, at = [], 0
    while at in found:
        chain.append(found[at])
        at = found[at].last_round or 0
    return chain


def replay(
    store: Store, lm: LanguageModel, run_id: str, start: int, stop: int, names: Sequence[str], *, check: bool = True
) -> None:
    """Apply rounds [start, stop) of a run's ledger, comparing digests wherever a segment ends.

    Raises:
        LedgerMismatch: The ledger ends before ``stop``, or the weights are not those that were committed.
    """
    at = start
    for commit in segments(store, run_id):
        first, last = commit.first_round or 0, commit.last_round or 0
        if last <= start or first >= stop:
            continue
        updates = updates_of(store.rows(commit, "ledger"))
        for round_ in range(max(first, start), min(last, stop)):
            for update in updates.get(round_, ()):
                update.apply(lm)
        at = min(last, stop)
        if check and last <= stop:
            found = digest_of_parameters(lm, names)
            if found != commit.digest:
                raise LedgerMismatch(
                    f"run {run_id}: after round {last - 1} the replayed weights have digest {found[:12]}, the commit says "
                    f"{str(commit.digest)[:12]}; the model files, the store, or the kind of device have changed since; "
                    "restore them, or use a new store"
                )
    if at < stop:
        raise LedgerMismatch(f"run {run_id}: the ledger ends at round {at}, wanted {stop}; let the run go on first")


def run_row(run: RunSpec, digests: Mapping[str, Any], device: str) -> dict[str, Any]:
    """Return a run's row of the table ``runs``, written with its first commit."""
    variant = {"rome": "r-ROME" if run.protocol != "code" else "ROME"}.get(run.editor)
    return {
        "baseline_run_id": None if run.editor == "none" else run.baseline_run_id,
        "experiment": run.experiment,
        "model": run.model.name,
        "model_digest": run.model.digest,
        "model_revision": run.model.revision,
        "dtype": run.model.dtype,
        "facts": run.facts.name,
        "facts_run_id": run.facts.run_id,
        "editor": run.editor,
        "variant": variant,
        "hparams": json.dumps(dict(run.hparams), sort_keys=True),
        "hparams_digest": hparams_digest(run.hparams),
        "algorithm_version": run.version,
        "layers": list(run.layers),
        "batch_size": run.batch_size,
        "mode": run.mode,
        "sample": run.facts.sample,
        "seed": run.seed,
        "protocol": run.protocol,
        "contexts": digests.get("context_texts"),
        "moments_digest": digests.get("moments"),
        "threads": run.compute.threads,
        "tokens_per_forward": run.compute.tokens_per_forward,
        "device_kind": torch.device(device).type,
        "versions": json.dumps(
            {"python": platform.python_version(), "torch": torch.__version__, "transformers": transformers.__version__}
        ),
        "spec": json.dumps(asdict(run), sort_keys=True),
    }


def _edit(
    lm: LanguageModel,
    method: Editor,
    batch: Sequence[EditRequest],
    run: RunSpec,
    state: Mapping[str, Tensor],
    artifacts: Artifacts,
) -> tuple[str, str | None, EditResult | None]:
    """Return (outcome, message, result); a batch that cannot be written is recorded and left out, the run goes on."""
    try:
        result = method.edit(lm, batch, run.layers, state, artifacts)
    except SolveError as error:
        return "unsolved", str(error), None
    for update in result.updates:
        tensors = [t for t in (update.left, update.right, update.value) if t is not None]
        if not all(bool(torch.isfinite(t).all()) for t in tensors):
            return "nan", f"the update of {update.name} holds NaN or infinite values; it was not applied", None
    return "edited", "; ".join(result.warnings) or None, result


def _add_round(
    tables: Tables,
    run: RunSpec,
    round_: int,
    batch: Sequence[EditRequest],
    outcome: str,
    message: str | None,
    result: EditResult | None,
) -> None:
    reports = {report.request_id: report for report in result.facts} if result else {}
    for index, request in enumerate(batch):
        report = reports.get(request.request_id)
        tables["edits"].append(
            {
                "round": round_,
                "position": round_ * run.batch_size + index,
                "fact_id": request.request_id,
                "target_loss": report.target_loss if report else None,
                "n_steps": report.n_steps if report else None,
                "target_distance": report.target_distance if report else None,
            }
        )
    if result is None:
        return
    for entry in result.edit_updates:
        fields = asdict(entry)
        tables["edit_updates"].append({"round": round_, "fact_id": fields.pop("request_id"), **fields})
    tables["ledger"] += [update_row(round_, update) for update in result.updates]


def _round_rows(
    lm: LanguageModel,
    names: Sequence[str],
    pristine: Mapping[str, Tensor],
    before: Mapping[str, Tensor],
    run: RunSpec,
    round_: int,
    outcome: str,
    message: str | None,
    result: EditResult | None,
) -> list[dict[str, Any]]:
    reports = {report.parameter: report for report in result.parameters} if result else {}
    rows = []
    for name in names:
        weight, origin = lm.parameter(name).double(), pristine[name].double()
        moved, size = float((weight - origin).norm()), float(origin.norm())
        step = float((weight - before[name].double()).norm())
        report = reports.get(name)
        rows.append(
            {
                "round": round_,
                "edits_so_far": (round_ + 1) * run.batch_size,
                "parameter": name,
                "outcome": "unchanged" if outcome == "edited" and step == 0 else outcome,
                "message": message,
                "update_norm": step,
                "weight_norm": float(weight.norm()),
                "drift": moved / size if size else None,
                "drift_per_value": moved / origin.numel(),
                "ridge": report.ridge if report else None,
                "shortfall": report.shortfall if report else None,
                "solve_error": report.solve_error if report else None,
            }
        )
    return rows


def _logits_row(lm: LanguageModel, prompt: str, rounds: int, run: RunSpec) -> dict[str, Any]:
    ids, logits = last_logits(lm, prompt)
    return {
        "round": rounds - 1,
        "edits_so_far": rounds * run.batch_size,
        "prompt": prompt,
        "ids": ids,
        "logits": logits,
    }


def last_logits(lm: LanguageModel, prompt: str) -> tuple[list[int], list[float]]:
    """Return a prompt's ids and the model's own logits after it, from an ordinary forward pass."""
    (ids,) = lm.format.prompts([prompt])
    with torch.no_grad():
        logits = lm.model(torch.tensor([list(ids)], device=lm.model.device)).logits[0, -1]
    return list(ids), logits.double().cpu().tolist()


def _constant(round_: int | None, _index: int) -> int | None:
    return round_


def _run_of(unit: Unit) -> RunSpec:
    assert unit.run is not None, "units of a run carry it"
    return unit.run


def _timed(info: CommitInfo, seconds: float) -> CommitInfo:
    return replace(info, seconds=seconds)


def _public(payload: Mapping[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps({key: value for key, value in payload.items() if key != "positions"}))
