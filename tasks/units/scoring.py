"""Scores as rows: fact probes, benchmark answers, traces and layer searches."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from editing.measure.scores import ProbeScore, probes_of, score_probes
from editing.measure.search import search_layer
from editing.measure.tracing import TracePlan, causal_trace, known_facts, subject_noise
from editing.methods.editor import Artifacts, Editor
from editing.methods.meta import MetaLoss
from editing.methods.training import Trainer
from editing.model.lm import LanguageModel
from editing.requests import EditRequest
from storage.store import Store
from tasks.benchmarks.answering import answer_row, ask, grade
from tasks.benchmarks.harness import harness_rows
from tasks.benchmarks.questions import read_questions, read_recipe
from tasks.benchmarks.sandbox import run_program
from tasks.errors import InputError
from tasks.specs.run import BenchmarkRef, RunSpec
from tasks.units.fluency import ngram_entropy, repetition

_LOOK = 64
"""Candidates for tracing that are looked at together."""
_log = logging.getLogger(__name__)


def probe_rows(
    lm: LanguageModel,
    requests: Sequence[EditRequest],
    *,
    purpose: str,
    edited_at: Callable[[int], int | None],
    run: RunSpec,
    rounds: int,
) -> list[dict[str, Any]]:
    """Score all probes of ``requests`` on the model as it is; ``edited_at`` maps an index to its round."""
    probes = [(index, probe) for index, request in enumerate(requests) for probe in probes_of(request)]
    free = purpose != "retention" or run.texts == "all"
    scores = score_probes(lm, [probe for _, probe in probes], text_tokens=run.text_tokens if free else 0)
    return [
        {
            "purpose": purpose,
            "fact_id": score.probe.request_id,
            "edited_at": edited_at(index),
            "scored_at": rounds - 1,
            "edits_so_far": rounds * run.batch_size,
            "argmax_new": list(score.new.argmax_ids),
            "argmax_true": list(score.true.argmax_ids),
            "text": score.text,
            **_score_fields(score),
        }
        for (index, _), score in zip(probes, scores, strict=True)
    ]


def answer_rows(
    store: Store, lm: LanguageModel, benchmark: BenchmarkRef, asked: range, run: RunSpec, rounds: int
) -> list[dict[str, Any]]:
    """Answer some of a benchmark's questions on the model as it is."""
    common = {
        "benchmark": benchmark.name,
        "questions_run_id": benchmark.run_id,
        "scored_at": rounds - 1,
        "edits_so_far": rounds * run.batch_size,
    }
    harness = read_recipe(store, benchmark.run_id).spec.get("harness")
    if harness is not None:
        own = common | {"n_shots": harness["shots"], "shots_from": "lm-eval"}
        return [own | row for row in harness_rows(lm, harness, asked)]
    questions, rule, recipe = read_questions(store, benchmark.run_id, asked)
    common |= {"n_shots": recipe["n_shots"], "shots_from": recipe["shots_from"]}
    check = run_program if rule.value == "code" else None
    return [
        common | answer_row(question, answer, grade(question, answer, rule, check), rule)
        for question, answer in zip(questions, ask(lm, questions, rule), strict=True)
    ]


def generation_rows(
    lm: LanguageModel, requests: Sequence[EditRequest], run: RunSpec, rounds: int
) -> list[dict[str, Any]]:
    """Let the model write about each fact's subject, with the entropy and repetition of what it writes (NULL: NaN)."""
    assert run.generation is not None
    recipe = run.generation
    prompts = [request.generation_prompts[0] if request.generation_prompts else request.prompt for request in requests]
    texts = lm.write_freely(prompts, recipe["tokens"], top_k=recipe["top_k"], seed=recipe["seed"])
    return [
        {
            "scored_at": rounds - 1,
            "edits_so_far": rounds * run.batch_size,
            "fact_id": request.request_id,
            "prompt": prompt,
            "text": text,
            "n_tokens": recipe["tokens"],
            "entropy": None if text is None else ngram_entropy(text),
            "repetition": None if text is None else repetition(text),
            "top_k": recipe["top_k"],
            "seed": recipe["seed"],
        }
        for request, prompt, text in zip(requests, prompts, texts, strict=True)
    ]


def text_rows(lm: LanguageModel, texts: Sequence[str], run: RunSpec, rounds: int) -> list[dict[str, Any]]:
    """Return the NLL of each text, cut to the wanted length, from its second token on."""
    assert run.perplexity is not None
    limit = min((n for n in (run.perplexity["max_tokens"], lm.context_tokens) if n is not None), default=None)
    ids = [lm.format.plain(text)[:limit] for text in texts]
    kept = [(number, row) for number, row in enumerate(ids) if len(row) > 1]
    scores = lm.score_ids([row[:1] for _, row in kept], [row[1:] for _, row in kept])
    return [
        {
            "scored_at": rounds - 1,
            "edits_so_far": rounds * run.batch_size,
            "text_id": f"text-{number:06d}",
            "nll": _finite(score.nll_sum),
            "n_tokens": score.n_tokens,
            "max_tokens": limit,
        }
        for (number, _), score in zip(kept, scores, strict=True)
    ]


def find_known(lm: LanguageModel, requests: Sequence[EditRequest], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Look through candidates until enough facts are known; return their positions, how many were asked, and the noise.

    Raises:
        InputError: The model knows none of them.
    """
    positions, wanted, rule = settings["positions"], settings["wanted"], settings["rule"]
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
    noise = settings["noise"]
    return {
        "known": [positions[i] for i in found],
        "asked": asked,
        "noise": subject_noise(lm, [requests[i] for i in found]) if noise is None else noise,
    }


def trace_rows(lm: LanguageModel, requests: Sequence[EditRequest], settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Trace facts; one row per (fact, kind, layer, token)."""
    plan = TracePlan(samples=settings["samples"], window=settings["window"], noise=settings["noise"])
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


def search_rows(
    lm: LanguageModel, requests: Sequence[EditRequest], run: RunSpec, method: Editor, artifacts: Artifacts
) -> list[dict[str, Any]]:
    """Edit one layer with each request alone; one row per (fact, probe)."""
    (layer,) = run.layers
    return [
        {
            "model": run.model.name,
            "editor": run.editor,
            "protocol": run.protocol,
            "layer": layer,
            "fact_id": edit.request_id,
            "error": edit.error,
            **_score_fields(score),
        }
        for edit in search_layer(lm, requests, layer, method, artifacts)
        for score in edit.scores
    ]


def _score_fields(score: ProbeScore) -> dict[str, Any]:
    return {
        "probe_id": score.probe.probe_id,
        "kind": score.probe.kind,
        "nll_new": _finite(score.new.nll_sum),
        "n_new": score.new.n_tokens,
        "nll_true": _finite(score.true.nll_sum),
        "n_true": score.true.n_tokens,
        "n_correct_new": score.new.n_correct,
        "n_correct_true": score.true.n_correct,
        "is_nan": score.is_nan,
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def train_rows(
    trainer: Trainer, validation: Sequence[EditRequest], last: int, recipe: Mapping[str, Any], model: str
) -> list[dict[str, Any]]:
    """Train up to ``last`` steps; return a row per step, and one of what the network does to unseen facts by then."""
    common = {"editor": recipe["editor"], "model": model, "n_edits": trainer.plan.edits}
    rows: list[dict[str, Any]] = []

    def note(step: int, loss: MetaLoss) -> None:
        rows.append(
            {
                **common,
                "step": step,
                "split": "train",
                "generalisation_loss": _finite(loss.generalisation),
                "locality_loss": _finite(loss.locality),
                "gradient_norm": _finite(loss.gradient_norm),
            }
        )

    trainer.train(last, note)
    size = min(trainer.plan.edits, len(validation))
    found = [trainer.validate(validation[at : at + size]) for at in range(0, len(validation) - size + 1, size)]
    ridges = [float(trainer.networks.ridge(module).detach()) for module in trainer.modules]
    rows.append(
        {
            **common,
            "step": last,
            "split": "validation",
            "n_edits": size,
            "edit_success": sum(a.edit for a in found) / len(found),
            "generalisation_success": sum(a.equivalent for a in found) / len(found),
            "locality_success": sum(a.unrelated for a in found) / len(found),
            "mean_residual": _finite(sum(a.mean_residual for a in found) / len(found)),
            "mean_ridge": sum(ridges) / len(ridges),
        }
    )
    return rows
