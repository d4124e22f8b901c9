"""``collapsed_at`` fires at the right edit when one edit is made a hundred times too large, and only then."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from editing.editors.rome import Rome
from editing.methods.editor import Artifacts, EditResult, ParameterUpdate, State
from editing.model.lm import LanguageModel
from editing.requests import EditRequest
from storage.sql import query
from tests.tasks.support import run_all

DISABLING = 13
"""The edit (counted from 0) that is multiplied; it falls between the checkpoints after 12 and after 18 edits."""
SETTINGS: dict[str, Any] = {
    "editors": [{"name": "rome", "contexts": 2}],
    "layers": [0],
    "batch_sizes": [1],
    "facts": {"name": "factworld", "size": 36},
    "score": {"every_edits": 6},
    "commit_every": 6,
}


def test_an_ordinary_run_does_not_collapse(tmp_path: Path) -> None:
    store, _ = run_all(tmp_path, **SETTINGS)
    rows = query(store.location, "SELECT collapsed_at FROM run_summary WHERE editor = 'rome'").to_pylist()
    assert rows == [{"collapsed_at": None}]


def test_a_disabling_edit_is_dated_to_the_first_checkpoint_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, count = Rome.edit, [0]

    def disabling(
        self: Rome,
        lm: LanguageModel,
        batch: Sequence[EditRequest],
        layers: Sequence[int],
        state: State,
        artifacts: Artifacts,
    ) -> EditResult:
        result = original(self, lm, batch, layers, state, artifacts)
        count[0] += 1
        if count[0] - 1 != DISABLING:
            return result
        (update,) = result.updates
        assert update.left is not None
        return result._replace(updates=(ParameterUpdate(update.name, left=100 * update.left, right=update.right),))

    monkeypatch.setattr(Rome, "edit", disabling)
    store, _ = run_all(tmp_path, **SETTINGS)
    (row,) = query(store.location, "SELECT collapsed_at FROM run_summary WHERE editor = 'rome'").to_pylist()
    assert row["collapsed_at"] == 18
    (largest,) = query(store.location, "SELECT arg_max(round, update_norm) AS round FROM rounds").to_pylist()
    assert largest["round"] == DISABLING
