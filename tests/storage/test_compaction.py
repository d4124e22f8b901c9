"""Compaction and clearing away change nothing that a reader sees, killed or not, beside readers and writers."""

import multiprocessing
import os
import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage import compaction
from storage.cleaning import gc, withdraw
from storage.commits import CommitInfo, recipe_id
from storage.compaction import compact
from storage.errors import DamagedFileError
from storage.schemas import SCHEMAS
from storage.sql import open_store, query
from storage.store import Store

RUN = "run-a"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store", create=True)


def edits(unit: int, count: int = 3) -> list[dict[str, Any]]:
    return [{"round": unit, "position": i, "fact_id": f"f{unit}-{i}", "target_loss": i / 2} for i in range(count)]


def write(store: Store, units: range, *, run_id: str = RUN, recipe: str | None = None, count: int = 3) -> None:
    for unit in units:
        info = CommitInfo(kind="own", recipe=recipe, first_round=unit, last_round=unit + 1, digest=f"d{unit}")
        store.commit(run_id, f"unit-{unit:03d}-{recipe}", {"edits": edits(unit, count)}, info)


def contents(store: Store) -> list[Any]:
    statements = ("SELECT * FROM edits ORDER BY ALL", "SELECT * EXCLUDE (files, file_bytes) FROM commits ORDER BY ALL")
    return [query(store.location, sql).to_pylist() for sql in statements]


def files(store: Store) -> list[str]:
    return sorted(name for name in store.files.listing("") if not name.startswith("_tmp/"))


def test_row_groups_hold_units_of_one_kind_after_many_compactions_too(store: Store) -> None:
    for unit in range(4):
        kind = "own" if unit % 2 else "retention"
        info = CommitInfo(kind=kind, digest=None)
        store.commit(RUN, f"{kind}-{unit}", {"edits": edits(unit)}, info)
        compact(store, RUN)
    (name,) = {file for commit in store.commits(RUN).values() for file in commit.files}
    with pq.ParquetFile(store.files.local(name)) as file:
        groups = [file.read_row_group(number)["unit_id"].to_pylist() for number in range(file.num_row_groups)]
    assert [{unit.partition("-")[0] for unit in group} for group in groups] == [{"own"}, {"retention"}]
    assert [row["fact_id"] for row in query(store.location, "SELECT fact_id FROM edits ORDER BY ALL").to_pylist()] == [
        f"f{unit}-{i}" for unit in range(4) for i in range(3)
    ]


def test_compacted_runs_read_as_before_from_few_files(store: Store) -> None:
    write(store, range(5))
    write(store, range(2), run_id="run-b")
    before, commits = contents(store), store.commits(RUN)
    assert compact(store, RUN) and not compact(store, RUN), "there is nothing left to do"
    assert contents(store) == before
    for unit_id, commit in store.commits(RUN).items():
        assert commit.digest == commits[unit_id].digest
        assert store.rows(commit, "edits") == store.rows(commits[unit_id], "edits")
    assert gc(store, grace_s=0).files > 0
    kept = [name for name in files(store) if RUN in name]
    assert len(kept) == 2 and kept[0] == "compacted/run_id=run-a/00000001.parquet" and kept[1].startswith("edits/")
    assert contents(store) == before and len(store.commits("run-b")) == 2
    assert store.run_ids() == [RUN, "run-b"] and store.is_committed(RUN, "unit-003-None")
    store.check(store.run_ids())


def test_rows_of_a_time_with_other_columns_are_compacted(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A column that the table had not yet is NULL; one that it has no more is left out."""
    today = SCHEMAS["edits"]
    then = today.remove(today.get_field_index("target_loss")).append(pa.field("mood", pa.string()))
    with monkeypatch.context() as earlier:
        earlier.setitem(SCHEMAS, "edits", then)
        rows = [{"round": 0, "position": 0, "fact_id": "f", "mood": "good"}]
        store.commit(RUN, "unit-then", {"edits": rows}, CommitInfo(kind="own", digest=None))
    write(store, range(1))
    assert compact(store, RUN)
    found = query(store.location, "SELECT fact_id, target_loss FROM edits ORDER BY 1, 2").to_pylist()
    assert found[0] == {"fact_id": "f", "target_loss": None} and [row["target_loss"] for row in found[1:]] == [
        0,
        0.5,
        1,
    ]
    (name,) = {file for commit in store.commits(RUN).values() for file in commit.files}
    assert store.read_parquet(name).column_names == today.names


def test_a_run_goes_on_after_its_compaction(store: Store) -> None:
    write(store, range(3))
    compact(store, RUN)
    gc(store, grace_s=0)
    write(store, range(5))
    assert len(store.commits(RUN)) == 5
    assert query(store.location, "SELECT count(*) AS n FROM edits").to_pylist() == [{"n": 15}]
    before = contents(store)
    assert compact(store, RUN)
    gc(store, grace_s=0)
    assert contents(store) == before and len([name for name in files(store) if RUN in name]) == 2


def test_a_late_attempt_at_a_compacted_unit_is_not_seen(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its unit was committed, compacted and cleared away between its start and its end."""
    write(store, range(2))
    before = contents(store)
    late = Store(store.location)
    assert late.commits(RUN)
    compact(store, RUN)
    gc(store, grace_s=0)
    assert not late.commit(RUN, "unit-001-None", {"edits": edits(7)}, CommitInfo(kind="own"))
    assert contents(store) == before
    gc(store, grace_s=0)
    assert len([name for name in files(store) if name.startswith("edits/")]) == 1, "its rows are cleared away"


def test_withdrawn_units_are_gone_and_may_be_done_again(store: Store) -> None:
    write(store, range(3))
    compact(store, RUN)
    withdraw(store, RUN, "unit-001-None")
    assert [row["round"] for row in contents(store)[0]] == [0] * 3 + [2] * 3
    assert not store.is_committed(RUN, "unit-001-None")
    write(store, range(3), count=2)
    assert [row["round"] for row in contents(store)[0]] == [0] * 3 + [1] * 2 + [2] * 3
    before = contents(store)
    compact(store, RUN)
    gc(store, grace_s=0)
    assert contents(store) == before


def test_dense_files_are_smaller_and_say_the_same(store: Store, tmp_path: Path) -> None:
    write(store, range(200))
    other = Store(shutil.copytree(store.location, tmp_path / "dense"))
    before = contents(store)
    assert compact(store, RUN) and compact(other, RUN, dense=True)
    assert contents(store) == contents(other) == before

    def size(of: Store) -> int:
        gc(of, grace_s=0)
        return sum(path.stat().st_size for path in Path(of.location).rglob("*.parquet"))

    assert size(other) < 0.8 * size(store)


def test_a_withdrawal_holds_against_a_compaction_that_is_under_way(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(store, range(3))
    other, put_together = Store(store.location), compaction._put_together

    def meanwhile(*given: Any, **named: Any) -> Any:
        monkeypatch.setattr(compaction, "_put_together", put_together)
        withdraw(other, RUN, "unit-001-None")
        return put_together(*given, **named)

    monkeypatch.setattr(compaction, "_put_together", meanwhile)
    assert not compact(store, RUN), "it knows less than the withdrawal"
    assert not store.is_committed(RUN, "unit-001-None") and len(contents(store)[0]) == 6
    write(store, range(3))
    before = contents(store)
    assert compact(store, RUN) and contents(store) == before and not compact(store, RUN)
    gc(store, grace_s=0)
    assert contents(store) == before and len([name for name in files(store) if RUN in name]) == 2


def test_a_withdrawal_reads_no_rows_that_lie_in_files_of_their_own(store: Store) -> None:
    write(store, range(3))
    for unit_id, row in store.commit_rows(RUN).items():
        if unit_id != "unit-001-None":
            store.files.write(row["files"][0], b"torn")
    assert withdraw(store, RUN, "unit-001-None") == {"unit-001-None"}
    assert set(store.commits(RUN)) == {"unit-000-None", "unit-002-None"}


@pytest.mark.parametrize("content", [None, b"torn"])
def test_a_compacted_file_that_is_damaged_costs_the_units_whose_rows_lie_in_it(
    content: bytes | None, store: Store
) -> None:
    write(store, range(3))
    store.commit(RUN, "other", {"rounds": [{"round": 0, "parameter": "w"}]}, CommitInfo(kind="own"))
    compact(store, RUN)
    gc(store, grace_s=0)
    write(store, range(3, 4))
    (name,) = (name for name in store.files.listing("edits") if name.endswith(".compacted.parquet"))
    store.files.delete(name)
    if content is not None:
        store.files.write(name, content)
    with pytest.raises(DamagedFileError, match=r"palimpsest withdraw run-a unit-000-None"):
        store.check([RUN])
    with pytest.raises(DamagedFileError, match=r"cannot be read .*palimpsest withdraw"):
        compact(store, RUN)
    assert withdraw(store, RUN, "unit-001-None") == {f"unit-{i:03d}-None" for i in range(3)}
    store.check([RUN])
    assert set(store.commits(RUN)) == {"other", "unit-003-None"} and len(contents(store)[0]) == 3
    write(store, range(4))
    assert compact(store, RUN) and len(contents(store)[0]) == 12


def test_rows_of_another_recipe_stay_unseen_in_a_compacted_file(store: Store) -> None:
    for recipe in ("old", "new"):
        write(store, range(2), recipe=recipe)
    for number, recipe in enumerate(("new", "old", "new")):
        store.commit(RUN, recipe_id("own", number), {}, CommitInfo(kind="recipe", recipe=recipe))
        seen = query(store.location, "SELECT DISTINCT unit_id FROM edits ORDER BY 1").to_pylist()
        assert [row["unit_id"] for row in seen] == [f"unit-000-{recipe}", f"unit-001-{recipe}"]
        compact(store, RUN)
        assert query(store.location, "SELECT DISTINCT unit_id FROM edits ORDER BY 1").to_pylist() == seen


def test_large_files_stay_as_they_are(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    write(store, range(2))
    write(store, range(2, 3), count=3000)
    monkeypatch.setattr(compaction, "LARGE_BYTES", 10_000)
    before = contents(store)
    compact(store, RUN)
    gc(store, grace_s=0)
    assert contents(store) == before
    assert sum("unit-002" in name for name in files(store)) == 1 and len(files(store)) == 4


def test_nothing_young_is_cleared_away(store: Store) -> None:
    write(store, range(3))
    store.files.write(f"edits/run_id={RUN}/unit-009.0123456789ab.parquet", b"an attempt on its way to its commit")
    compact(store, RUN)
    before = files(store)
    assert gc(store, grace_s=3600) == (0, 0) and files(store) == before
    wanted = gc(store, grace_s=0, dry_run=True)
    assert files(store) == before and wanted.files == 3 + 3 + 1 + 1, "commits, data, orphan, clock"
    assert gc(store, grace_s=0) == wanted


def test_a_reader_whose_file_was_cleared_away_plans_once_more(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    write(store, range(3))
    plans = []
    connect = compaction_between(store, plans)
    monkeypatch.setattr("storage.sql._connect", connect)
    assert query(store.location, "SELECT count(*) AS n FROM edits").to_pylist() == [{"n": 9}]
    assert len(plans) == 2


def compaction_between(store: Store, plans: list[int]) -> Any:
    """Return a ``_connect`` after whose first plan the run is compacted and the small files are cleared away."""
    from storage.sql import _connect

    def connect(*given: Any) -> Any:
        found = _connect(*given)
        if not plans:
            compact(store, RUN)
            gc(store, grace_s=0)
        plans.append(1)
        return found

    return connect


def _write(root: str, seed: float) -> None:
    store, rng = Store(root), random.Random(seed)
    while True:
        unit = rng.randrange(200)
        store.commit(RUN, f"unit-{unit}", {"edits": edits(unit, 20)}, CommitInfo(kind="own"))


def _compact(root: str, _seed: float) -> None:
    store = Store(root)
    while True:
        compact(store, RUN)
        gc(store, grace_s=0.5)


def compactions(store: Store) -> int:
    """Return the number of the newest compaction."""
    return max((int(Path(name).stem) for name in store.files.listing("compacted")), default=0)


@pytest.mark.slow
def test_kills_of_writers_and_compactors_beside_readers(store: Store) -> None:
    """Every reader sees whole units, each once, and never fewer than before."""
    spawn, rng = multiprocessing.get_context("spawn"), random.Random(os.getpid())
    deadline, seen, n_kills = time.monotonic() + 90, set[str](), 0
    while time.monotonic() < deadline and n_kills < 6:
        jobs = [spawn.Process(target=job, args=(store.location, rng.random())) for job in (_write, _write, _compact)]
        for job in jobs:
            job.start()
        begun, moved_at = compactions(store), 0.0
        while time.monotonic() < deadline and not (moved_at and time.monotonic() - moved_at > rng.uniform(0.1, 0.8)):
            rows = query(store.location, "SELECT unit_id, count(*) AS n FROM edits GROUP BY 1").to_pylist()
            assert all(row["n"] == 20 for row in rows), "a torn or doubled unit"
            found = {row["unit_id"] for row in rows}
            assert seen <= found, "a unit that was there is gone"
            seen = found
            moved_at = moved_at or (time.monotonic() if compactions(store) > begun else 0.0)
        for job in jobs:
            assert job.pid is not None
            os.kill(job.pid, signal.SIGKILL)
            job.join()
        n_kills += 1
        if len(seen) == 200:
            break
    assert len(seen) > 20 and store.compacted(RUN), "both came to something"
    store.check([RUN])


def test_a_connection_outlives_a_compaction(store: Store) -> None:
    write(store, range(3))
    connection = open_store(store.location)
    compact(store, RUN)
    assert connection.sql("SELECT count(*) FROM edits").fetchall() == [(9,)]


def test_what_a_compaction_replaces_while_gc_runs_is_not_old_yet(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is a commit that was withdrawn and made anew meanwhile: it has the old one's name."""
    write(store, range(4))
    other, rows = Store(store.location), Store.commit_rows

    def meanwhile(self: Store, *given: Any) -> Any:
        if self is store:
            compact(other, RUN)
        return rows(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "commit_rows", meanwhile)
        gc(store, grace_s=0)
    assert len([name for name in files(store) if name.endswith(".json") and RUN in name]) == 4
    compacted = store.compacted

    def remade(*given: Any) -> Any:
        found = compacted(*given)
        withdraw(other, RUN, "unit-001-None")
        write(other, range(1, 2))
        return found

    with monkeypatch.context() as patch:
        patch.setattr(store, "compacted", remade)
        gc(store, grace_s=0)
    assert len(store.commits(RUN)) == 4 and len(query(store.location, "SELECT * FROM edits")) == 12
    store.check([RUN])
