"""A run's model as it was after some edits, as an ordinary Hugging Face folder."""

import shutil
from pathlib import Path

import torch
from transformers.utils import logging as transformers_logging

from editing.methods.editor import make_editor
from editing.model.folders import with_ordinary_permissions
from editing.model.loading import load
from storage.sql import query
from storage.store import Store
from tasks.data.model_files import local_folder
from tasks.errors import InputError, LedgerMismatch
from tasks.runs.chain import Beginning, beginning_of, end_of, has_begun, segments
from tasks.runs.ledger import replay
from tasks.runs.rows import last_logits
from tasks.specs.run import ModelRef
from tasks.workers.loaded_models import loaded
from tasks.workers.model_card import write_card

LOGITS_TOLERANCE = 1e-5
"""Relative; a forward pass in another process may use other kernels, the weights themselves are compared bit by bit."""


def checkout(store_root: str | Path, run_id: str, *, after: int, out: Path) -> str:
    """Rebuild the weights from pristine ones and the ledger, check them, and write the folder.

    Returns:
        One line that says what was written and how it was checked.

    Raises:
        InputError: No such run, or ``after`` is not a round boundary that has been reached; names the nearest.
        LedgerMismatch: The rebuilt weights are not those that were committed.
    """
    store = Store(store_root)
    store.refuse_summary("checkout")
    begun = _beginning(store, run_id)
    run, made_on = begun.run, begun.device_kind
    batch_size, n_rounds = run.batch_size, end_of(segments(store, run_id))
    rounds = after // batch_size
    if after % batch_size or not 0 <= rounds <= n_rounds:
        nearest = min(max(round(after / batch_size), 0), n_rounds) * batch_size
        raise InputError(
            f"run {run_id} has no state after {after} edits: its batches hold {batch_size} and it has {n_rounds * batch_size} "
            f"edits; the nearest state is --after {nearest}"
        )
    if out.exists() and any(out.iterdir()):
        raise InputError(f"{out} is not empty; give a new directory")
    transformers_logging.disable_progress_bar()
    torch.set_num_threads(run.execution.compute.threads)
    device = _device_like(made_on)
    model = run.model
    lm = loaded(model, device)
    names = make_editor(run.editor, run.hparams).parameter_names(lm, run.layers)
    if not names:
        raise InputError(
            f"run {run_id}: {run.editor} changes no weights, its edits live beside them; a Hugging Face folder cannot hold "
            "them; score the run instead (benchmarks are scored through the same patches)"
        )
    sequential = run.mode == "sequential"
    exact = device == made_on
    replay(store, lm, run_id, 0 if sequential else max(0, rounds - 1), rounds, names, check=sequential and exact)
    lm.model.save_pretrained(out)
    lm.tokenizer.save_pretrained(out)
    checked = _checked(store_root, run_id, rounds, out, model, device=device, exact=exact)
    _copy_licence(Path(local_folder(model)), out, f"Edited by Palimpsest: {after} edits of the run {run_id}.\n")
    write_card(store, run, out, after=after, checked=checked)
    with_ordinary_permissions(out)
    note = "" if exact else f"made on {made_on} and rebuilt on {device}, so only logits can be compared; "
    if model.text_start != "none":
        note += (
            f"the run put {model.particulars['text_start']!r} in front of every text, which the folder does not say; "
        )
    return f"{out}: {run_id} after {after} edits; {note}{checked}"


def _copy_licence(base: Path, out: Path, changed: str) -> None:
    """Copy a model's licence and notices, which go with whatever is made of it; the notice says what was changed."""
    for path in base.iterdir():
        if path.is_file() and path.stem.upper() in ("LICENSE", "LICENCE", "NOTICE", "COPYING"):
            shutil.copyfile(path, out / path.name)
            if path.stem.upper() == "NOTICE":
                with (out / path.name).open("a", encoding="utf-8") as notice:
                    notice.write(changed)


def _device_like(kind: str) -> str:
    """Return the kind of device that a run was made on if there is one here, else the processor."""
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return kind if accelerator is not None and accelerator.type == kind else "cpu"


def _checked(
    store_root: str | Path, run_id: str, rounds: int, out: Path, model: ModelRef, *, device: str, exact: bool
) -> str:
    """Load the folder as anyone would and compare it with the logits that the run recorded there."""
    sql = f"SELECT prompt, ids, logits FROM logits WHERE run_id = '{run_id}' AND round = {rounds - 1}"
    recorded = query(store_root, sql).to_pylist()
    if not recorded:
        weights = "the weights agree with the ledger's digests" if exact else "nothing was compared"
        return f"no logits were recorded at this round, {weights}"
    lm = load(str(out), device=device, chat=model.chat, text_start=model.text_start)
    tolerance = LOGITS_TOLERANCE if exact else torch.finfo(lm.dtype).eps ** 0.5
    ids, logits = last_logits(lm, recorded[0]["prompt"])
    expected = torch.tensor(recorded[0]["logits"], dtype=torch.float64)
    error = float((torch.tensor(logits, dtype=torch.float64) - expected).norm() / expected.norm())
    if ids != list(recorded[0]["ids"]) or not error <= tolerance:
        raise LedgerMismatch(
            f"{out} gives logits that differ by {error:.1e} (relative) from those recorded after round {rounds - 1} of "
            f"{run_id}; expected at most {tolerance:.0e}; do not use the folder"
        )
    return f"its logits agree with those recorded then ({error:.1e} relative)"


def _beginning(store: Store, run_id: str) -> Beginning:
    found = beginning_of(store, run_id)
    if found is None:
        known = [name for name in store.run_ids() if has_begun(store, name)]
        raise InputError(f"no run {run_id!r} in {store.location}; expected one of {known}")
    return found
