"""One round: a batch edited, and everything that is known of it as rows."""

import json
import platform
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any

import torch
import transformers
from torch import Tensor

from editing.errors import SolveError
from editing.hparams import hparams_digest
from editing.methods.editor import Artifacts, Editor, EditResult, make_editor
from editing.model.lm import LanguageModel
from editing.model.memory import until_it_fits
from editing.requests import EditRequest
from storage.schemas import Tables
from tasks.runs.ledger import result_rows
from tasks.specs.run import RunSpec
from tasks.specs.stored_run import to_json


def run_row(run: RunSpec, digests: Mapping[str, Any], device: str) -> dict[str, Any]:
    """Return a run's row of the table ``runs``, written with its first commit."""
    method = None if run.is_unedited else make_editor(run.editor, run.hparams)
    return {
        "baseline_run_id": None if run.is_unedited else run.baseline_run_id,
        "experiment": run.experiment,
        "model": run.model.name,
        "model_digest": run.model.digest,
        "model_revision": run.model.revision,
        "dtype": run.model.dtype,
        "facts": run.facts.name,
        "facts_run_id": run.facts.run_id,
        "editor": run.editor,
        "variant": method.variant if method else None,
        "hparams": json.dumps(dict(run.hparams), sort_keys=True),
        "hparams_digest": hparams_digest(run.hparams),
        "preset": run.preset,
        "effective_ridge": method.ridge_for(run.batch_size) if method else None,
        "network_digest": digests.get("network"),
        "algorithm_version": run.trajectory.version,
        "layers": list(run.layers),
        "batch_size": run.batch_size,
        "mode": run.mode,
        "sample": run.facts.sample,
        "seed": run.trajectory.seed,
        "protocol": run.protocol,
        "contexts": digests.get("context_texts"),
        "moments_digest": digests.get("moments"),
        "threads": run.execution.compute.threads,
        "tokens_per_forward": run.execution.compute.tokens_per_forward,
        "device_kind": torch.device(device).type,
        "versions": json.dumps(
            {"python": platform.python_version(), "torch": torch.__version__, "transformers": transformers.__version__}
        ),
        "spec": to_json(run),
    }


def edit_batch(
    lm: LanguageModel,
    method: Editor,
    batch: Sequence[EditRequest],
    run: RunSpec,
    state: Mapping[str, Tensor],
    artifacts: Artifacts,
) -> tuple[str, str | None, EditResult | None]:
    """Return (outcome, message, result); a batch that cannot be written is recorded and left out, the run goes on."""
    try:
        result = until_it_fits(lm, lambda: method.edit(lm, batch, run.layers, state, artifacts))
    except SolveError as error:
        return "unsolved", str(error), None
    written = {u.name: [t for t in (u.left, u.right, u.value) if t is not None] for u in result.updates}
    for change in result.patches:
        written.setdefault(change.patch, []).append(change.value)
    for name, tensors in written.items():
        if not all(bool(torch.isfinite(t).all()) for t in tensors):
            return "nan", f"the update of {name} holds NaN or infinite values; it was not applied", None
    return "edited", "; ".join(result.warnings) or None, result


def add_round(
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
                "key_asymmetry": report.key_asymmetry if report else None,
            }
        )
    if result is None:
        return
    for entry in result.edit_updates:
        fields = asdict(entry)
        tables["edit_updates"].append({"round": round_, "fact_id": fields.pop("request_id"), **fields})
    tables["ledger"] += result_rows(round_, result)


def round_rows(
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
        weight, origin = lm.precise(name).double(), pristine[name].double()
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
                "mean_residual": report.mean_residual if report else None,
            }
        )
    return rows or [_patch_round(run, round_, outcome, message, result)]


def _patch_round(
    run: RunSpec, round_: int, outcome: str, message: str | None, result: EditResult | None
) -> dict[str, Any]:
    """Return the row of a round of an editor that changes no weight."""
    changes = result.patches if result else ()
    return {
        "round": round_,
        "edits_so_far": (round_ + 1) * run.batch_size,
        "parameter": changes[0].patch if changes else run.editor,
        "outcome": "unchanged" if outcome == "edited" and not changes else outcome,
        "message": message,
        "update_norm": 0.0,
    }


def logits_row(lm: LanguageModel, prompt: str, rounds: int, run: RunSpec) -> dict[str, Any]:
    ids, logits = last_logits(lm, prompt)
    return {
        "round": rounds - 1,
        "edits_so_far": rounds * run.batch_size,
        "prompt": prompt,
        "ids": ids,
        "logits": logits,
    }


def last_logits(lm: LanguageModel, prompt: str) -> tuple[list[int], list[float]]:
    """Return a prompt's ids and the model's own logits after it, from an ordinary forward pass.

    An encoder-decoder's logits are those of the answer's first token, a classifier's those of its classes.
    """
    (ids,) = lm.format.prompts([lm.patches.rewrite(prompt)])
    rows = torch.tensor([list(ids)], device=lm.input_device)
    start = lm.model.config.decoder_start_token_id if lm.family.head == "seq2seq" else None
    inputs = {} if start is None else {"decoder_input_ids": torch.tensor([[start]], device=rows.device)}
    with torch.no_grad(), ExitStack() as stack:
        stack.enter_context(lm.prompts_end_at((len(ids),)))
        lm.patches.attach(lm, stack)
        logits = lm.model(rows, **inputs).logits[0]
    return list(ids), (logits[-1] if logits.ndim == 2 else logits).double().cpu().tolist()
