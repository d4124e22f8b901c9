"""The notebooks run, from the first cell to the last."""

import json
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.docs.pages import DOCS

NOTEBOOKS = sorted((DOCS / "notebooks").glob("*.ipynb"))


HEAVY = {"analysis": pytest.mark.minutes}
"""Beside the other two it asks nothing new of the code."""


@pytest.mark.slow
@pytest.mark.parametrize(
    "path", [pytest.param(path, id=path.stem, marks=HEAVY.get(path.stem, ())) for path in NOTEBOOKS]
)
def test_a_notebook_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # other tests run beside it
    book = nbformat.read(path, as_version=4)
    NotebookClient(book, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = json.dumps([cell.get("outputs", []) for cell in book.cells], ensure_ascii=False)
    assert {"first-edit": "3 of 3 took", "own-model": "of 3 took", "analysis": "p_holm"}[path.stem] in shown


def test_there_are_three_and_they_hold_no_outputs() -> None:
    """What they would hold is of one machine."""
    assert [path.stem for path in NOTEBOOKS] == ["analysis", "first-edit", "own-model"]
    for path in NOTEBOOKS:
        assert all(not cell.get("outputs") for cell in nbformat.read(path, as_version=4).cells)
