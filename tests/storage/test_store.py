"""Commits are atomic and exclusive; damage and foreign versions are refused with a way out."""

import json
import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from storage.artifacts import find_artifact, put_artifact
from storage.cleaning import withdraw
from storage.commits import CommitInfo
from storage.errors import (
    ArtifactMismatch,
    DamagedFileError,
    QueryError,
    StorageError,
    StoreUnavailableError,
    StoreVersionError,
)
from storage.files import LocalFiles
from storage.sql import open_store, query
from storage.store import Store
from tests.end_to_end.support import wait_until


def edits(round_: int, count: int = 2) -> dict[str, list[dict[str, object]]]:
    return {
        "edits": [
            {"round": round_, "position": round_ * count + i, "fact_id": f"f{i}", "target_loss": float("nan")}
            for i in range(count)
        ]
    }


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store", create=True)


def test_first_writer_wins_and_the_loser_stays_unseen(store: Store) -> None:
    assert store.commit("run-a", "segment-0", edits(0), CommitInfo(kind="segment"))
    assert not store.commit("run-a", "segment-0", edits(0, count=5), CommitInfo(kind="segment"))
    assert len(list((Path(store.location) / "edits/run_id=run-a").glob("*.parquet"))) == 2, "both attempts wrote data"
    assert query(store.location, "SELECT count(*) AS n FROM edits").to_pylist() == [{"n": 2}]


def test_nan_is_stored_as_null(store: Store) -> None:
    store.commit("run-a", "segment-0", edits(0), CommitInfo(kind="segment"))
    assert query(store.location, "SELECT DISTINCT target_loss FROM edits").to_pylist() == [{"target_loss": None}]


def test_unknown_tables_columns_and_names_are_refused(store: Store) -> None:
    with pytest.raises(StorageError, match="no table 'nonsense'"):
        store.commit("run-a", "u", {"nonsense": [{"a": 1}]}, CommitInfo(kind="x"))
    with pytest.raises(StorageError, match=r"table 'edits' has no columns \['roundd'\]"):
        store.commit("run-a", "u", {"edits": [{"roundd": 1}]}, CommitInfo(kind="x"))
    with pytest.raises(StorageError, match="cannot name a run"):
        store.commit("../elsewhere", "u", {}, CommitInfo(kind="x"))
    assert store.run_ids() == []


def test_a_missing_store_is_said_and_not_made(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"no store at .*store\.json is missing"):
        Store(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()
    for name in ("demo", "real"):
        Store(tmp_path / "results" / name, create=True)
    with pytest.raises(StorageError, match=r"below it are .*results/demo, .*results/real: give one as --store"):
        Store(tmp_path / "results")


def test_a_store_of_another_schema_version_is_refused_unchanged(store: Store) -> None:
    store.commit("run-a", "segment-0", edits(0), CommitInfo(kind="segment"))
    (Path(store.location) / "store.json").write_text(json.dumps({"schema_version": 999}))
    before = sorted(Path(store.location).rglob("*"))
    with pytest.raises(StoreVersionError, match=r"schema version 999.*reads and writes \d.*nothing was changed"):
        Store(store.location, create=True)
    assert sorted(Path(store.location).rglob("*")) == before


def test_a_truncated_file_is_named_with_a_way_out_and_nothing_else_is_lost(store: Store) -> None:
    store.commit("run-a", "segment-0", edits(0), CommitInfo(kind="segment"))
    store.commit("run-a", "segment-1", edits(1), CommitInfo(kind="segment"))
    commit = store.read_commit("run-a", "segment-0")
    assert commit is not None
    path = Path(store.location) / commit.files[0]
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(
        DamagedFileError, match=r"bytes long; its commit says .* run `palimpsest withdraw run-a segment-0`"
    ):
        store.check(["run-a"])
    with pytest.raises(DamagedFileError, match="its commit says"):
        query(store.location, "SELECT * FROM edits")
    with pytest.raises(DamagedFileError, match="cannot be read"):
        store.rows(commit, "edits")
    withdraw(store, "run-a", "segment-0")
    path.unlink()
    assert store.commit("run-a", "segment-0", edits(0), CommitInfo(kind="segment"))
    assert query(store.location, "SELECT count(*) AS n FROM edits").to_pylist() == [{"n": 4}]


def test_wrong_sql_says_what_there_is(store: Store) -> None:
    with pytest.raises(QueryError, match=r"(?s)run_sumary.*views: .*editing_curve.*run_summary"):
        query(store.location, "SELECT * FROM run_sumary")
    with pytest.raises(QueryError, match="no SQL statement"):
        query(store.location, "-- nothing")
    with pytest.raises(QueryError, match=r"nowhere\.csv"):
        query(store.location, "SELECT * FROM read_csv('nowhere.csv')")


def test_an_open_connection_shows_the_store_as_it_was(store: Store) -> None:
    connection = open_store(store.location)
    assert connection.sql("SELECT count(*) FROM edits").fetchall() == [(0,)]
    store.commit("run-a", "segment-0", edits(0), CommitInfo(kind="segment"))
    assert connection.sql("SELECT count(*) FROM edits").fetchall() == [(0,)]
    assert open_store(store.location).sql("SELECT count(*) FROM edits").fetchall() == [(2,)]


def test_artifacts_are_shared_checked_and_refused_when_they_changed(store: Store) -> None:
    recipe = {"model": "abc", "layers": [1, 2]}
    assert find_artifact(store, "moments", recipe) is None
    first = put_artifact(store, "moments", recipe, {"a.bin": b"content"})
    second = put_artifact(store, "moments", recipe, {"a.bin": b"later writer"})
    assert second.digest == first.digest and second.path("a.bin").read_bytes() == b"content", "the first writer wins"
    first.path("a.bin").write_bytes(b"damaged")
    with pytest.raises(ArtifactMismatch, match=r"is not what was stored: digest .* expected .* delete"):
        find_artifact(store, "moments", recipe)
    (card,) = (Path(store.location) / "artifacts").rglob("artifact.json")
    card.write_text(json.dumps({"recipe": {"model": "other"}, "files": {}, "attempt": "a"}))
    with pytest.raises(ArtifactMismatch, match=r"made by another recipe: found .*other.* expected .*abc"):
        find_artifact(store, "moments", recipe)


def _write_until_killed(root: str, seed: int) -> None:
    store, rng = Store(root), random.Random(seed)
    while True:
        unit = rng.randrange(40)
        rows = {"edits": edits(unit, 50)["edits"], "timings": [{"stage": "x", "n_items": unit}]}
        store.commit("run-a", f"segment-{unit}", rows, CommitInfo(kind="segment"))


@pytest.mark.slow
def test_racing_writers_killed_at_random_instants_leave_whole_units_only(store: Store) -> None:
    spawn = multiprocessing.get_context("spawn")
    rng = random.Random(os.getpid())
    for _ in range(8):
        if (before := len(store.commits("run-a"))) == 40:
            break
        writers = [
            spawn.Process(target=_write_until_killed, args=(str(store.location), rng.random())) for _ in range(2)
        ]
        for writer in writers:
            writer.start()
        assert wait_until(lambda before=before: len(store.committed("run-a")) > before, seconds=60)
        time.sleep(rng.uniform(0.0, 0.3))
        for writer in writers:
            assert writer.pid is not None
            os.kill(writer.pid, signal.SIGKILL)
            writer.join()
        (row,) = query(store.location, "SELECT count(*) AS n, count(DISTINCT unit_id) AS u FROM edits").to_pylist()
        assert row["n"] == 50 * row["u"], "a torn or doubled unit"
    units = store.commits("run-a")
    assert query(store.location, "SELECT count(*) AS n FROM timings").to_pylist() == [{"n": len(units)}]
    assert all(pq.ParquetFile(Path(store.location) / f).metadata.num_rows for c in units.values() for f in c.files)


def test_a_store_that_goes_away_between_two_steps_of_a_write_is_not_made_anew(tmp_path: Path) -> None:
    """The instant between the temporary file and its new name."""
    Store(tmp_path / "store", create=True)

    class Unmounting(LocalFiles):
        def _room(self, name: str) -> Path:
            (tmp_path / "store").rename(tmp_path / "away")
            return super()._room(name)

    with pytest.raises(StoreUnavailableError, match="is gone"):
        Unmounting(tmp_path / "store").write("control/new/x.json", b"{}")
    assert not (tmp_path / "store").exists() and list((tmp_path / "away" / "control").rglob("*.json")) == []


def test_an_empty_mount_point_takes_nothing(tmp_path: Path) -> None:
    """Where the store itself is mounted, its place is there when the store is not."""
    store = Store(tmp_path / "store", create=True)
    (tmp_path / "store").rename(tmp_path / "away")
    (tmp_path / "store").mkdir()
    with pytest.raises(StoreUnavailableError, match="is gone"):
        store.commit("run", "unit", edits(0), CommitInfo(kind="segment"))
    assert list((tmp_path / "store").rglob("*.parquet")) == [] and not (tmp_path / "store" / "commits").exists()
