"""A unit that fails stops what needs it, and nothing else; the report is written before it is said."""

import time
from pathlib import Path
from typing import Any

import pytest

from editing.errors import EditingError
from storage.commits import CommitInfo
from storage.sql import query
from storage.store import Store
from tasks.driver.session import Session
from tasks.driver.stages import _settle, analyse, edit_and_score, locate, prepare, refuse_failed
from tasks.errors import InputError, Stopped
from tasks.units.fact_scores import Retention
from tasks.units.moments import MomentMerge
from tasks.units.ready import ready_units, units_left
from tasks.units.search import LayerSearch
from tasks.units.unit import Bench, Done, Unit
from tasks.workers.worker import Worker
from tests.tasks.support import InProcess, plan

MEMIT = {"name": "memit", "steps": 6, "contexts": 2}
FT_C = {"name": "ft_c", "steps": 4, "layers": [[3]]}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("broken", "layers", "reasons"),
    [
        (MomentMerge, [[0, 1]], ("no memory for it", "lacks the second_moments")),
        (LayerSearch, "search", ("no memory for it",)),
        (Retention, [[0, 1]], ("no memory for it",)),
    ],
)
def test_what_does_not_need_a_failed_unit_is_done_and_reported(
    broken: type[Unit], layers: Any, reasons: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(self: Unit, bench: Bench) -> Done:
        raise EditingError("no memory for it")

    planned = plan(tmp_path, editors=[MEMIT, FT_C], layers=layers, locate={"search": {"edits": 4}})
    store = Store(planned.store)
    session = Session(planned, store, InProcess(store, Worker(planned.store)))
    monkeypatch.setattr(broken, "do", fails)
    prepare(session)
    runs = locate(session)
    edit_and_score(session, runs)
    with pytest.raises(
        InputError, match=r"units were given up; everything else is in the store and in .*report-t\.html"
    ):
        refuse_failed(session, analyse(session, runs))
    assert (Path(planned.store) / "report-t.html").exists()
    assert all(any(reason in said for said in session.failed.values()) for reason in reasons)
    edits = {
        row["editor"]: row["edits"]
        for row in query(planned.store, "SELECT editor, edits, benchmark_f1 FROM run_summary").to_pylist()
    }
    assert edits["ft_c"] == 12 and "none" in edits
    assert edits.get("memit") == (12 if broken is Retention else None)


@pytest.mark.slow
@pytest.mark.parametrize("asked", [True, False])
def test_units_that_nobody_can_do_or_see_done_do_not_hold_a_run_for_ever(
    asked: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their commits are there, and whoever lists them does not see them, as for a while on NFS."""
    planned = plan(tmp_path, editors=[FT_C], layers=[[3]])
    store = Store(planned.store)
    session = Session(planned, store, InProcess(store, Worker(planned.store)))
    monkeypatch.setattr("tasks.driver.stages._SETTLE_S", 600.0 if asked else 0.5)
    unit = ready_units(store, planned.runs[0])[0]
    store.commit(*unit.key, {}, CommitInfo(kind=unit.kind))
    began = time.monotonic()
    if asked:
        session.pool.stop = lambda: "interrupted" if time.monotonic() - began > 1.5 else None
    expected = (Stopped, "interrupted: 1 units are not done") if asked else (InputError, "1 units are neither done nor")
    with pytest.raises(expected[0], match=expected[1]):
        _settle(session, lambda: [unit], lambda unit: [])
    assert time.monotonic() - began < 60


def test_an_interrupted_run_says_how_much_is_left_with_what_would_have_followed(tmp_path: Path) -> None:
    planned = plan(tmp_path, editors=[FT_C], layers=[[3]])
    store = Store(planned.store)
    session = Session(planned, store, InProcess(store, Worker(planned.store)))
    prepare(session)
    runs = locate(session)
    left = [unit for run in runs for unit in units_left(store, run)]
    session.pool.stop = lambda: "interrupted" if any(store.is_committed(*unit.key) for unit in left) else None
    with pytest.raises(Stopped, match=f"interrupted: {len(left) - 1} units are not done"):
        edit_and_score(session, runs)
    assert len(left) > 1 + sum(len(ready_units(store, run)) for run in runs), "some follow those that can be done now"
