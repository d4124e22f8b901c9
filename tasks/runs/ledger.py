"""The edit ledger: changes of parameters and patches as rows, rows as changes, replays, and digests of what they give."""

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from editing.methods.editor import EditResult, ParameterUpdate
from editing.model.lm import LanguageModel
from editing.model.patches import PatchChange
from storage.digests import digest_of_bytes
from storage.store import Store
from tasks.errors import LedgerMismatch
from tasks.runs.chain import segments

_log = logging.getLogger(__name__)

STATE, PATCH = "state", "patch"
Change = ParameterUpdate | PatchChange


def update_row(round_: int, update: ParameterUpdate) -> dict[str, Any]:
    """Return one row of the ledger."""
    if update.value is not None:
        return {"round": round_, "parameter": update.name, "kind": "value", **_tensor_fields(update.value)}
    assert update.left is not None and update.right is not None
    right = _tensor_fields(update.right)
    return {
        "round": round_,
        "parameter": update.name,
        "kind": "low_rank",
        **_tensor_fields(update.left),
        "right": right["value"],
        "right_shape": right["shape"],
    }


def patch_row(round_: int, change: PatchChange) -> dict[str, Any]:
    """Return one row of the ledger: one row of a patch's table, set or appended."""
    where = {"round": round_, "parameter": change.patch, "kind": PATCH, "column": change.column, "row": change.row}
    return {**where, **_tensor_fields(change.value)}


def result_rows(round_: int, result: EditResult) -> list[dict[str, Any]]:
    """Return an edit's rows of the ledger, in the order in which they are applied."""
    return [*(update_row(round_, u) for u in result.updates), *(patch_row(round_, c) for c in result.patches)]


def state_rows(round_: int, state: Mapping[str, Tensor]) -> list[dict[str, Any]]:
    """Return an editor's state after ``round_`` as rows, to be read back by :func:`state_of`."""
    return [
        {"round": round_, "parameter": name, "kind": STATE, **_tensor_fields(value)}
        for name, value in sorted(state.items())
    ]


def changes_of(rows: Iterable[Mapping[str, Any]]) -> dict[int, list[Change]]:
    """Return the changes by round, in the order in which they were made."""
    found: dict[int, list[Change]] = {}
    for row in rows:
        if row["kind"] != STATE:
            found.setdefault(int(row["round"]), []).append(_change(row))
    return found


def apply_change(lm: LanguageModel, change: Change) -> None:
    """Make one change of the ledger."""
    if isinstance(change, PatchChange):
        lm.patches.apply(change, lm.input_device)
    else:
        change.apply(lm)


def state_of(rows: Iterable[Mapping[str, Any]]) -> dict[str, Tensor]:
    """Return the editor's state that the rows hold."""
    return {row["parameter"]: _tensor(row["dtype"], row["shape"], row["value"]) for row in rows if row["kind"] == STATE}


def replay(
    store: Store, lm: LanguageModel, run_id: str, start: int, stop: int, names: Sequence[str], *, check: bool = True
) -> None:
    """Apply rounds [start, stop) of a run's ledger, comparing digests wherever a segment ends.

    Raises:
        LedgerMismatch: The ledger ends before ``stop``, or the weights are not those that were committed.
    """
    at, began = start, time.perf_counter()
    for commit in segments(store, run_id):
        first, last = commit.first_round or 0, commit.last_round or 0
        if last <= start or first >= stop:
            continue
        changes = changes_of(store.rows(commit, "ledger"))
        for round_ in range(max(first, start), min(last, stop)):
            for change in changes.get(round_, ()):
                apply_change(lm, change)
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
    if stop - start > 1:  # not each step of one that scores round by round
        _log.info(
            "rounds %d to %d of %s replayed from the ledger in %.2f s", start, stop, run_id, time.perf_counter() - began
        )


def digest_of_parameters(lm: LanguageModel, names: Sequence[str]) -> str:
    """Return the digest of the bits of the named parameters (as precise as edits are) and of all patches."""
    parts = []
    for name in sorted(names):
        fields = _tensor_fields(lm.precise(name))
        parts += [name.encode(), fields["dtype"].encode(), fields["value"]]
    for patch in lm.patches.all():
        for column, rows in sorted(patch.columns.items()):
            for fields in map(_tensor_fields, rows):
                parts += [patch.name.encode(), column.encode(), fields["dtype"].encode(), fields["value"]]
    return digest_of_bytes(*parts)


def _change(row: Mapping[str, Any]) -> Change:
    value = _tensor(row["dtype"], row["shape"], row["value"])
    if row["kind"] == PATCH:
        return PatchChange(row["parameter"], row["column"], row["row"], value)
    if row["kind"] == "value":
        return ParameterUpdate(row["parameter"], value=value)
    return ParameterUpdate(row["parameter"], left=value, right=_tensor(row["dtype"], row["right_shape"], row["right"]))


def _tensor_fields(tensor: Tensor) -> dict[str, Any]:
    flat = tensor.detach().cpu().contiguous()
    return {
        "dtype": str(flat.dtype).removeprefix("torch."),
        "shape": list(flat.shape),
        "value": flat.reshape(-1).view(torch.uint8).numpy().tobytes(),
    }


def _tensor(dtype: str, shape: Sequence[int], content: bytes) -> Tensor:
    return torch.frombuffer(bytearray(content), dtype=getattr(torch, dtype)).reshape(list(shape))
