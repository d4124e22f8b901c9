"""A worker: one process with models on one device, doing one unit of work at a time and committing it to the store."""

import json
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from functools import lru_cache, partial
from typing import Any

import torch
from transformers.utils import logging as transformers_logging

from editing.methods.editor import Artifacts, Editor, make_editor
from editing.methods.targets import Targets
from editing.model.lm import LanguageModel
from editing.model.memory import tokens_that_fit
from editing.requests import EditRequest
from storage.commits import CommitInfo
from storage.digests import digest_of
from storage.store import Store
from tasks.data.corpora import corpus_texts
from tasks.data.facts import read_facts
from tasks.data.orders import read_order
from tasks.errors import LedgerMismatch
from tasks.runs.rows import Tables, run_row
from tasks.specs.run import RunSpec, Unit
from tasks.units.artifacts import Factored, artifacts_for, network_state, put_network, trainer_of
from tasks.units.contexts import look_at, make_contexts, texts_of
from tasks.units.moments import collect_shard, merge_shards, read_published
from tasks.units.ready import scoring_recipe, training_unit_id
from tasks.units.scoring import (
    answer_rows,
    find_known,
    generation_rows,
    probe_rows,
    search_rows,
    text_rows,
    trace_rows,
    train_rows,
)
from tasks.units.segment import Chain, do_rounds
from tasks.units.targets import find_targets, shared_targets
from tasks.workers.loaded_models import TOKENS_PER_FORWARD, Models, device_for
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
        self._store = Store(root, patience_s=patience_s)
        self._device = device_for(n_gpus)
        self._models = Models(self._store, self._device, spread=n_gpus > 1)
        self._requests: dict[str, list[EditRequest]] = {}
        self._factored = Factored()
        self._prepared = lru_cache(maxsize=8)(self._prepare)
        self._runs: dict[str, RunSpec] = {}
        self._shared: dict[str, Mapping[str, Targets]] = {}
        self._log = UnitLog()

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
            "moment_shard": self._moment_shard,
            "moments": self._moments,
            "train": self._train,
            "targets": self._targets,
            "known": self._known,
            "trace": self._trace,
            "search": self._search,
            "segment": self._segment,
            "own": self._own,
            "retention": self._retention,
            "benchmark": self._benchmark,
            "generation": self._generation,
            "perplexity": self._perplexity,
            "baseline": self._baseline,
        }
        self._log = log = UnitLog()
        try:
            with log.listening():
                tables, info = work[unit.kind](unit)
        except BaseException as error:
            self._models.forget_position(unit.model)
            if said := log.text():
                error.add_note(said)
            raise
        if self._commit(unit, unit.run_id, tables, info, started):
            return "done"
        self._models.forget_position(unit.model)  # what another attempt has committed may differ in bits
        return "lost"

    def _commit(self, unit: Unit, run_id: str, tables: Tables, info: CommitInfo, started: float) -> bool:
        """Commit what a unit has done for a run; runs that go in step have equal shares of its time."""
        runs = 1 + len(unit.others)
        seconds, n_items = (time.perf_counter() - started) / runs, int(unit.payload.get("n_items", 0)) // runs
        tables["timings"] = [{"stage": unit.kind, "seconds": seconds, "n_items": n_items, "device": self.ping()}]
        return self._store.commit(run_id, unit.unit_id, tables, replace(info, seconds=seconds, log=self._log.text()))

    # --- preparation

    def _contexts(self, unit: Unit) -> tuple[Tables, CommitInfo]:
        lm = self._models.pristine(unit.model).lm
        artifact = make_contexts(self._store, lm, unit.payload["recipe"])
        looks = look_at(lm, [text for text in texts_of(artifact) if text])
        spec = {"recipe": unit.payload["recipe"], "looks": looks}
        return {}, CommitInfo(kind="contexts", digest=artifact.digest, spec=spec)

    def _moment_shard(self, unit: Unit) -> tuple[Tables, CommitInfo]:
        lm, given = self._models.pristine(unit.model).lm, unit.payload
        shard = (int(given["shard"][0]), int(given["shard"][1]))
        n_tokens = collect_shard(self._store, lm, given["recipe"], given["layers"], shard, given["files"])
        return {}, CommitInfo(kind="moment_shard", spec={"shard": list(shard), "n_tokens": n_tokens})

    def _moments(self, unit: Unit) -> tuple[Tables, CommitInfo]:
        lm, given = self._models.pristine(unit.model).lm, unit.payload
        recipe, layers, files = given["recipe"], given["layers"], given["files"]
        if recipe["texts"]["name"] == "npz":
            found = read_published(self._store, lm, recipe, layers, files)
        else:
            waves = [[(int(a), int(b)) for a, b in wave] for wave in given["waves"]]
            found = merge_shards(self._store, lm, recipe, layers, waves, last=given["last"], files=files)
        digests = {str(layer): digest for layer, digest in found.digests.items()}
        model = {"model": unit.model.name, "model_digest": unit.model.digest}
        spec: dict[str, Any] = {"recipe": recipe, "digests": digests}
        if recipe["texts"]["name"] == "npz":  # for a message that has to name one
            named = recipe["texts"]["files"]
            spec["files"] = {layer: files[named[layer]] for layer in digests if named.get(layer) in files}
        info = CommitInfo(kind="moments", digest=digest_of(digests), spec=spec)
        return {"second_moments": [model | row for row in found.rows]}, info

    def _train(self, unit: Unit) -> tuple[Tables, CommitInfo]:
        first, last = int(unit.payload["first_round"]), int(unit.payload["last_round"])
        lm = self._models.pristine(unit.model).lm
        recipe, compute = unit.payload["recipe"], self._training_compute(unit, lm)
        torch.set_num_threads(compute["threads"])
        lm.tokens_per_forward = compute["tokens_per_forward"]
        trainer, validation = trainer_of(self._store, lm, recipe)
        if first:
            trainer.resume(network_state(self._store, recipe, first)[0])
        rows = train_rows(trainer, validation, last, recipe, unit.model.name)
        artifact = put_network(self._store, recipe, last, trainer.state())
        spec = {"recipe": recipe, "compute": compute}
        info = CommitInfo(kind="train", first_round=first, last_round=last, digest=artifact.digest, spec=spec)
        return {"training": rows}, info

    def _training_compute(self, unit: Unit, lm: LanguageModel) -> dict[str, int]:
        """Return the threads and micro-batches with which this training began: they can change bits."""
        begun = self._store.read_commit(unit.run_id, training_unit_id(0))
        found: dict[str, int] = dict((begun.spec or {})["compute"] if begun else unit.payload["compute"])
        return found | {"tokens_per_forward": found["tokens_per_forward"] or tokens_that_fit(lm)}

    def _targets(self, unit: Unit) -> tuple[Tables, CommitInfo]:
        run = self._models.sized(_run_of(unit))
        lm = self._models.pristine(unit.model).lm
        lm.tokens_per_forward = run.compute.tokens_per_forward or TOKENS_PER_FORWARD
        first, last = int(unit.payload["first"]), int(unit.payload["last"])
        artifacts = self._prepared_for(run)[1]
        facts = self._chosen(unit) if "positions" in unit.payload else self._whole_order(run)[first:last]
        digest = find_targets(self._store, lm, run, (first, last), facts, artifacts)
        return {}, CommitInfo(kind="targets", digest=digest)

    def _known(self, unit: Unit) -> tuple[Tables, CommitInfo]:
        found = find_known(self._models.pristine(unit.model).lm, self._chosen(unit), unit.payload)
        return {}, CommitInfo(kind="known", spec={**found, "rule": unit.payload["rule"]})

    def _trace(self, unit: Unit) -> tuple[Tables, CommitInfo]:
        lm = self._models.pristine(unit.model).lm
        requests = self._chosen(unit)
        rows = trace_rows(lm, requests, unit.payload)
        return {"traces": rows}, CommitInfo(kind="trace", spec=_public(unit.payload))

    def _search(self, unit: Unit) -> tuple[Tables, CommitInfo]:
        assert unit.run is not None
        loaded = self._models.pristine(unit.model)
        artifacts, _ = artifacts_for(self._store, loaded.lm, unit.run, self._factored)
        artifacts = replace(artifacts, targets=self._shared_targets(unit.run))
        method = make_editor(unit.run.editor, unit.run.hparams)
        rows = search_rows(loaded.lm, self._chosen(unit), unit.run, method, artifacts)
        return {"layer_scores": rows}, CommitInfo(kind="search", spec=_public(unit.payload))

    # --- editing

    def _segment(self, unit: Unit) -> tuple[Tables, CommitInfo]:
        first, last = int(unit.payload["first_round"]), int(unit.payload["last_round"])
        started = time.perf_counter()
        members = (_run_of(unit), *unit.others)
        begun = [run for run in members if self._store.is_committed(run.run_id, "segment-000000")]
        compute = self._models.sized((begun or members)[0]).compute
        torch.set_num_threads(compute.threads)
        runs = [replace(run, compute=compute) for run in members]
        chains = [self._chain(one, first, alone=not unit.others) for one in runs]
        loaded = self._models.loaded(unit.model)
        loaded.run_id = None
        digests = do_rounds(loaded.lm, chains, first, last)
        halved = loaded.lm.tokens_per_forward != compute.tokens_per_forward  # memory did not suffice
        spec = {"tokens_per_forward": loaded.lm.tokens_per_forward} if halved else {}
        infos = [
            CommitInfo(kind="segment", first_round=first, last_round=last, digest=digest, spec=spec)
            for digest in digests
        ]
        stands = [chains[0]]
        for chain, info in zip(chains[1:], infos[1:], strict=True):  # the unit's own commit says that all are written
            if self._commit(unit, chain.run.run_id, chain.tables, info, started):
                stands.append(chain)
        if unit.others:
            loaded.standing = {chain.run.run_id: (last, chain.weights) for chain in stands}
        else:
            loaded.run_id, loaded.rounds = unit.run_id, last
        return chains[0].tables, infos[0]

    def _chain(self, run: RunSpec, first: int, *, alone: bool) -> Chain:
        """Return a run that stands after ``first`` rounds; unless it is alone, with its own copy of its parameters."""
        method, artifacts, digests = self._prepared_for(run)
        self._check_inputs(run, digests, first)
        loaded, names = self._models.at(run, first)
        chain = Chain(
            run=run,
            method=method,
            artifacts=artifacts,
            order=self._order(run),
            names=names,
            pristine=loaded.pristine,
            state=self._models.state_before(run, first),
            shared=self._shared_targets(run) if first == 0 or run.mode == "independent" else {},
            weights={} if alone else loaded.lm.snapshot(names),
        )
        if first == 0:
            chain.tables["runs"] = [run_row(run, digests, self._device)]
        return chain

    def _shared_targets(self, run: RunSpec) -> Mapping[str, Targets]:
        if run.shared_targets is None:
            return {}
        key = digest_of({**asdict(run.shared_targets), "layer": run.layers[-1]})
        if key not in self._shared:
            self._shared = {key: shared_targets(self._store, run)}  # of one recipe at a time
        return self._shared[key]

    def _check_inputs(self, run: RunSpec, digests: Mapping[str, Any], first: int) -> None:
        """Raise if a run would go on with other second moments, prefixes or networks than it began with."""
        begun = self._store.read_commit(run.run_id, "segment-000000") if first else None
        for row in self._store.rows(begun, "runs") if begun else ():
            before = {
                "moments": row["moments_digest"],
                "network": row["network_digest"],
                "context_texts": row["contexts"],
            }
            changed = [name for name, value in before.items() if value != digests[name]]
            if changed:
                raise LedgerMismatch(
                    f"run {run.run_id}: its {', '.join(changed)} are not those that it began with; an artifact has been made "
                    "again with other content; restore it, or use a new store"
                )

    # --- scoring

    def _own(self, unit: Unit) -> tuple[Tables, CommitInfo]:
        run = _run_of(unit)
        first, last = int(unit.payload["first_round"]), int(unit.payload["last_round"])
        order, rows = self._order(run), []
        for round_ in range(first, last):
            lm = self._models.at(run, round_ + 1)[0].lm
            batch = order[round_ * run.batch_size : (round_ + 1) * run.batch_size]
            rows += probe_rows(
                lm, batch, purpose="own", edited_at=partial(_constant, round_), run=run, rounds=round_ + 1
            )
        info = CommitInfo(kind="own", recipe=scoring_recipe(run, "own"), first_round=first, last_round=last)
        return {"fact_scores": rows}, info

    def _retention(self, unit: Unit) -> tuple[Tables, CommitInfo]:
        run, rounds = _run_of(unit), int(unit.payload["rounds"])
        lm = self._models.at(run, rounds)[0].lm
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
        spec = {"rounds": rounds, "positions": chosen}
        recipe = scoring_recipe(run, "retention")
        info = CommitInfo(kind="retention", recipe=recipe, first_round=rounds - 1, last_round=rounds, spec=spec)
        return {"fact_scores": rows}, info

    def _benchmark(self, unit: Unit) -> tuple[Tables, CommitInfo]:
        run, rounds = _run_of(unit), int(unit.payload["rounds"])
        lm = self._models.at(run, rounds)[0].lm
        asked = range(int(unit.payload["first"]), int(unit.payload["n_examples"]))
        (benchmark,) = (each for each in run.benchmarks if each.run_id == unit.payload["questions"])
        rows = answer_rows(self._store, lm, benchmark, asked, run, rounds)
        return {"benchmark_answers": rows}, CommitInfo(kind="benchmark", spec=_public(unit.payload))

    def _generation(self, unit: Unit) -> tuple[Tables, CommitInfo]:
        run, rounds = _run_of(unit), int(unit.payload["rounds"])
        assert run.generation is not None
        lm = self._models.at(run, rounds)[0].lm
        rows = generation_rows(lm, self._order(run)[: run.generation["prompts"]], run, rounds)
        info = CommitInfo(kind="generation", recipe=scoring_recipe(run, "generation"), spec=_public(unit.payload))
        return {"generations": rows}, info

    def _perplexity(self, unit: Unit) -> tuple[Tables, CommitInfo]:
        run, rounds = _run_of(unit), int(unit.payload["rounds"])
        assert run.perplexity is not None
        texts = corpus_texts(self._store, run.perplexity["texts"], run.perplexity["files"])
        rows = text_rows(self._models.at(run, rounds)[0].lm, texts, run, rounds)
        info = CommitInfo(kind="perplexity", recipe=scoring_recipe(run, "perplexity"), spec=_public(unit.payload))
        return {"text_nlls": rows}, info

    def _baseline(self, unit: Unit) -> tuple[Tables, CommitInfo]:
        run = _run_of(unit)
        lm = self._models.pristine(unit.model).lm
        first, last = int(unit.payload["first"]), int(unit.payload["last"])
        rows = probe_rows(
            lm, self._order(run)[first:last], purpose="baseline", edited_at=partial(_constant, None), run=run, rounds=0
        )
        tables: Tables = {"fact_scores": rows}
        if first == 0:
            fixed = replace(run, compute=replace(run.compute, tokens_per_forward=TOKENS_PER_FORWARD))
            tables["runs"] = [run_row(fixed, {}, self._device)]
        recipe = scoring_recipe(run, "baseline")
        return tables, CommitInfo(kind="baseline", recipe=recipe, spec={"first": first, "last": last})

    # --- inputs

    def _order(self, run: RunSpec) -> list[EditRequest]:
        return self._whole_order(run)[: run.facts.size]

    def _whole_order(self, run: RunSpec) -> list[EditRequest]:
        """Return all facts as the run's sample takes them; its size may be less than what others, or an earlier one, took."""
        requests = self._facts(run.facts.run_id)
        return [requests[i] for i in read_order(self._store, run.facts.run_id, run.facts.order)]

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
        artifacts, digests = artifacts_for(self._store, self._models.loaded(run.model).lm, run, self._factored)
        return make_editor(run.editor, run.hparams), artifacts, digests


def _constant(round_: int | None, _index: int) -> int | None:
    return round_


def _run_of(unit: Unit) -> RunSpec:
    assert unit.run is not None, "units of a run carry it"
    return unit.run


def _public(payload: Mapping[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps({key: value for key, value in payload.items() if key != "positions"}))
