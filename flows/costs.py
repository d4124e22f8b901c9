"""What an experiment will cost before anything of it has run: FLOPs of each stage, from the model's shapes, and hours.

An estimate, meant to be right within a factor of three: what a stage reads is counted in tokens, and every token costs two
FLOPs for each weight that it passes (three times that where a gradient goes back).  What the store holds costs nothing, and
targets that runs share are searched for once.
"""

import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from flows import lacking
from flows.spec_values import SpecError
from storage.locations import is_store
from storage.store import Store
from tasks.driver.plan import Plan, with_known_layers
from tasks.specs.run import ModelRef, RunSpec
from tasks.units.knowledge import TEXT_TOKENS
from tasks.units.targets import TargetSearch, from_pristine, target_units, with_shared_targets
from tasks.units.unit import RunUnit

DEVICES: Mapping[str, Mapping[str, float]] = {
    "a100": {"float32": 19.5, "half": 312.0},
    "h100": {"float32": 67.0, "half": 989.0},
    "h200": {"float32": 67.0, "half": 989.0},
    "l40s": {"float32": 91.6, "half": 362.0},
    "rtx4090": {"float32": 82.6, "half": 165.0},
}
"""Peak TFLOP/s without sparsity, by the makers' data sheets."""
_SHARE_OF_PEAK = {"device": 0.25, "here": 0.6}
"""What passes of a few hundred short rows reach of it: here as measured on a real model (docs/log.md), on a device assumed."""
_PROBES, _ANSWER = 13, 3
"""Prompts of a fact, and tokens of an answer with the one before it."""
_PROMPT, _LEAST_S = 10.0, 0.02
"""Tokens of a fact's prompt, about, and what the search for its target takes on however small a model."""
_UNSHARED = 0.35
"""Of the time of a trace in whole passes, what it takes (30 blocks, prompts of 15 tokens: docs/log.md)."""
_TEXT, _SAMPLED = 512, 1.0
"""Tokens of a text, at most, and how much dearer a token is that is drawn after the one before it (docs/log.md)."""
_QUESTION = 150
"""Tokens of a benchmark's question with its shots, about."""


class Shapes(NamedTuple):
    """A model's weights, by its files' headers."""

    n_layers: int
    block: int
    """Weights of a block."""
    all: int


def shapes_of(folder: Path, n_layers: int) -> Shapes:
    """Return the shapes of a checkpoint."""
    from tasks.data.weight_files import read_headers

    total, blocks = 0, 0
    for name, header in read_headers(folder).items():
        size = 1
        for side in header.shape:
            size *= side
        total += size
        blocks += size if re.search(r"\.\d+\.", name) else 0
    return Shapes(n_layers, blocks // max(1, n_layers), total)


def costs(plan: Plan, requests: Sequence[Any], device: str | None = None) -> tuple[list[dict[str, Any]], str]:
    """Return a row per stage with its PFLOP and the time of one worker, and what they rest on: of what the store lacks.

    Args:
        requests: The experiment's facts, by whose length prompts are counted.
        device: One of ``DEVICES``; this machine's processor, measured now, if None.

    Raises:
        SpecError: No such device.
    """
    if not all(model.folder for model in plan.models):
        return [], "cost: the model's files are not here"
    store = Store(plan.store) if is_store(plan.store) else None
    runs = with_shared_targets(with_known_layers(plan, store) if store else plan.runs)
    prompt = max(4.0, sum(len(request.prompt) for request in requests[:200]) / max(1, len(requests[:200])) / 4)
    work, seconds = Counter[str](), Counter[str]()
    weights, n_bytes, rates = [], [], {}
    for model in plan.models:
        shapes = shapes_of(Path(model.folder), model.n_layers)
        if (kind := _kind(model.dtype)) not in rates:
            rates[kind] = _rate(kind, device)
        mine = _prepared(plan, model, store, shapes, prompt)
        mine += _edited([run for run in runs if run.model == model], store, shapes, prompt)
        work += mine
        seconds += Counter({stage: flops / rates[kind][0] for stage, flops in mine.items()})
        bytes_each = 4 if model.dtype in ("float32", "auto") else 8 if model.dtype == "float64" else 2
        weights.append(f"{shapes.all / 1e9:.2g}")
        n_bytes.append(f"{shapes.all * bytes_each / 2**30:.1f}")
    work["all"], seconds["all"] = sum(work.values()), sum(seconds.values())
    rows = [
        {"stage": stage, "PFLOP": flops / 1e15, "one worker": _time(seconds[stage])}
        for stage, flops in work.items()
        if flops
    ]
    if not rows:
        return [], "cost: nothing is left to do"
    said = "; ".join(dict.fromkeys(said for _, said in rates.values()))
    sizes = f"{' and '.join(weights)} billion weights, {' and '.join(n_bytes)} GB of a device"
    of_what = "cost" if store is None else "cost of what the store lacks"
    return rows, f"{of_what}: {said}; {sizes}; an estimate within a factor of three"


def _prepared(plan: Plan, model: ModelRef, store: Store | None, shapes: Shapes, prompt: float) -> Counter[str]:
    """Return the FLOPs of each stage of one model's part of a plan, before its runs."""
    work: Counter[str] = Counter()
    for job in (each for each in plan.unasked if each.model == model):
        n_asked = lacking.share_of(store, job.units()) * job.n_asked
        work["asking"] += int(n_asked * _pass(shapes, 2 * prompt + _ANSWER + TEXT_TOKENS))
    for moments in (each for each in plan.moments if each.model == model):
        n_texts = lacking.share_of_moments(store, moments) * sum(
            stop - start for wave in moments.waves for start, stop in wave
        )
        source, most = moments.recipe["texts"], moments.recipe["max_tokens"] or _TEXT
        tokens = n_texts * min(most, source["tokens"] if source["name"] == "own" else _TEXT)
        work["second moments"] += int(_pass(shapes, tokens))
        if source["name"] == "own":
            n_sampled = lacking.texts_of_moments(store, moments)
            work["sampling texts"] += int(_SAMPLED * _pass(shapes, n_sampled * source["tokens"]))
    for texts in (each for each in plan.texts if each.model == model):
        n_tokens = lacking.share_of(store, [texts]) * texts.n_items * texts.source["tokens"]
        work["sampling texts"] += int(_SAMPLED * _pass(shapes, n_tokens))
    for training in (each for each in plan.trainings if each.model == model):
        n_edits = lacking.steps_of(store, training) * training.recipe["edits"]
        work["training"] += int(n_edits * 6 * _pass(shapes, prompt + _ANSWER))
    for search in (each for each in plan.searches if each.template.model == model):
        work["layer search"] += int(sum(_searched(unit, shapes, prompt) for unit in search.units_left(store)))
    for trace in (each for each in plan.traces if each.model == model):
        # The blocks below a restored state and the positions before it are shared.
        cells = 3 * shapes.n_layers * prompt
        wanted = lacking.facts_of_trace(store, trace)
        work["tracing"] += int(wanted * (trace.samples + 2) * cells * _pass(shapes, prompt) * _UNSHARED)
    return work


def _edited(runs: Sequence[RunSpec], store: Store | None, shapes: Shapes, prompt: float) -> Counter[str]:
    """Return the FLOPs of one model's runs: of their edits and of their scores."""
    work: Counter[str] = Counter()
    unfinished = []
    for run in runs:
        left, n_all = lacking.left_of(store, run), run.n_rounds * run.batch_size
        unfinished += [run] if left.edits else []
        alone = min(left.edits, n_all - (from_pristine(run) if run.execution.shared_targets else 0))
        work["editing"] += int(alone * _target(run, shapes, prompt) + left.edits * _update(run, shapes, prompt))
        work["scoring"] += int(left.scores * _scores(run, shapes, prompt))
    for unit in target_units(unfinished):
        if store is None or not store.is_committed(*unit.key):
            work["editing"] += int(_searched(unit, shapes, prompt))
    return work


def _searched(unit: RunUnit, shapes: Shapes, prompt: float) -> float:
    """Return the FLOPs of a unit of shared targets, or of a layer search."""
    if isinstance(unit, TargetSearch):
        per_fact = [
            _target(unit.run.changed(layers=(layer,)), shapes, prompt) for layer in unit.shared.recipe["layers"]
        ]
        return (unit.last - unit.first) * sum(per_fact)
    search = 0.0 if unit.run.execution.shared_targets else _target(unit.run, shapes, prompt)
    return unit.n_items * (search + _update(unit.run, shapes, prompt) + _score(shapes, prompt, 0))


def target_seconds(plan: Plan) -> float | None:
    """Return how long the search for one fact's target may take on this machine's processor, None where nothing is edited.

    The unit in which units of work say what they cost; an estimate, until something has been timed.
    """
    run = next((run for run in plan.runs if not run.is_unedited and run.model.folder), None)
    if run is None:
        return None
    shapes = shapes_of(Path(run.model.folder), run.model.n_layers)
    rate, _ = _rate(_kind(run.model.dtype), None)
    return max(_edit(run, shapes, _PROMPT), _pass(shapes, _PROMPT)) / rate + _LEAST_S


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _pass(shapes: Shapes, tokens: float, share: float = 1.0) -> float:
    """Return the FLOPs of a forward pass of so many tokens through a share of the blocks."""
    return 2 * shapes.block * shapes.n_layers * share * tokens


def _edit(run: RunSpec, shapes: Shapes, prompt: float) -> float:
    """Return the FLOPs of one fact's edit."""
    return _target(run, shapes, prompt) + _update(run, shapes, prompt)


def _target(run: RunSpec, shapes: Shapes, prompt: float) -> float:
    """Return the FLOPs of the search for one fact's target; none where an editor searches for none."""
    hparams = run.hparams
    if "contexts" not in hparams or run.is_unedited or run.trajectory.targets is not None:
        return 0.0
    above = 1 - (max(run.layers) if run.layers else 0) / shapes.n_layers
    # The gradient is of states, not of weights: back costs what forth does.
    return 2 * int(hparams.get("steps", 1)) * _pass(shapes, _rows(run) * (_ANSWER + prompt / 2), above)


def _update(run: RunSpec, shapes: Shapes, prompt: float) -> float:
    """Return the FLOPs of what else an edit takes: steps of a gradient, or its keys."""
    if run.is_unedited:
        return 0.0
    if run.trajectory.network is not None:  # trained before; an edit is one gradient
        return 3 * _pass(shapes, prompt + _ANSWER)
    if "contexts" not in run.hparams:
        return 3 * int(run.hparams.get("steps", 1)) * _pass(shapes, prompt + _ANSWER)
    return max(1, len(run.layers)) * _pass(shapes, _rows(run) * (prompt + 8))


def _rows(run: RunSpec) -> int:
    """Return how many rows a fact's prompt becomes by its contexts."""
    return int(run.hparams.get("contexts", 0)) + 1


def _score(shapes: Shapes, prompt: float, text_tokens: int) -> float:
    return _pass(shapes, _PROBES * (prompt + 2 * _ANSWER + text_tokens))


def _scores(run: RunSpec, shapes: Shapes, prompt: float) -> float:
    scoring, edits = run.scoring, run.n_rounds * run.batch_size
    facts = run.facts.size if run.is_unedited else edits
    total = facts * _score(shapes, prompt, scoring.text_tokens)
    questions = sum(benchmark.n_examples for benchmark in scoring.benchmarks)
    for rounds in run.checkpoints:
        again = 0 if scoring.retention == "none" else rounds * run.batch_size
        again = again if isinstance(scoring.retention, str) else min(again, scoring.retention)
        total += again * _score(shapes, prompt, 0)
    return total + len(run.benchmark_checkpoints) * questions * _pass(shapes, _QUESTION)


def _kind(dtype: str) -> str:
    return "half" if dtype in ("bfloat16", "float16") else "float32"


def _rate(kind: str, device: str | None) -> tuple[float, str]:
    """Return FLOP/s in numbers of a kind, and what they are."""
    if device is None:
        measured = _measured()
        return measured * _SHARE_OF_PEAK["here"], (
            f"{measured / 1e9:.0f} GFLOP/s of one thread here, measured now, {_SHARE_OF_PEAK['here']:g} of it reached"
        )
    if device not in DEVICES:
        raise SpecError(f"--device {device!r}: expected one of {sorted(DEVICES)}")
    peak = DEVICES[device][kind]
    return peak * 1e12 * _SHARE_OF_PEAK[
        "device"
    ], f"one {device}, {peak:g} TFLOP/s peak in {kind}, a quarter of it reached (assumed until measured)"


def _measured() -> float:
    """Return the FLOP/s of a float32 matrix product on one thread of this machine: of the quickest of five."""
    import numpy as np
    from threadpoolctl import threadpool_limits

    side, seconds = 1536, []
    a = np.ones((side, side), dtype=np.float32)
    with threadpool_limits(limits=1):
        for _ in range(5):
            started = time.perf_counter()
            a @ a
            seconds.append(time.perf_counter() - started)
    return 2 * side**3 / min(seconds)
