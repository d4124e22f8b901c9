"""Runs are removed whole, stores are put together where they agree, and a store that is away for a while is waited for."""

import errno
import multiprocessing
import os
import resource
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from storage.artifacts import find_artifact, put_artifact
from storage.cleaning import gc, remove_run
from storage.commits import CommitInfo
from storage.compaction import compact
from storage.errors import MergeConflict, StorageError, StoreUnavailableError
from storage.files import LocalFiles
from storage.merge import merge
from storage.sql import query
from storage.store import Store

RUN = "run-a"


def segment(store: Store, first: int, *, digest: str | None = None, run_id: str = RUN, last: int | None = None) -> None:
    rows = [{"round": first, "position": i, "fact_id": f"f{i}"} for i in range(3)]
    info = CommitInfo(kind="segment", first_round=first, last_round=last or first + 2, digest=digest or f"d{first}")
    assert store.commit(run_id, f"segment-{first:06d}", {"edits": rows}, info)


def rows_of(store: Store) -> list[Any]:
    return query(store.location, "SELECT * FROM edits ORDER BY ALL").to_pylist()


def made(path: Path, segments: list[int], run_id: str = RUN) -> Store:
    store = Store(path, create=True)
    for first in segments:
        segment(store, first, run_id=run_id)
    return store


def test_a_removed_run_leaves_nothing(tmp_path: Path) -> None:
    store = made(tmp_path / "s", [0, 2])
    compact(store, RUN)
    segment(store, 4)
    segment(store, 0, run_id="run-b")
    assert remove_run(store, RUN) == 3
    assert store.run_ids() == ["run-b"] and len(rows_of(store)) == 3
    assert not [name for name in store.files.listing("") if RUN in name]
    with pytest.raises(StorageError, match=r"no run 'run-a' in .*palimpsest status"):
        remove_run(store, RUN)


def test_a_removal_leaves_the_rows_of_an_attempt_that_is_about_to_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = made(tmp_path / "s", [0, 2])
    other, create = Store(store.location), LocalFiles.create

    def slow(files: LocalFiles, name: str, content: Any) -> bool:
        if name.endswith("segment-000004.json"):
            remove_run(other, RUN)
        return create(files, name, content)

    monkeypatch.setattr(LocalFiles, "create", slow)
    segment(store, 4)
    store.check([RUN])
    assert len(rows_of(store)) == 3 and store.run_ids() == [RUN]


def test_a_run_that_was_removed_and_made_anew_is_not_taken_for_the_old_one(tmp_path: Path) -> None:
    store = made(tmp_path / "s", [0, 2, 4])
    compact(store, RUN)
    other = Store(store.location)
    assert len(other.commits(RUN)) == 3
    remove_run(store, RUN)
    assert other.commits(RUN) == {}
    segment(store, 0)
    compact(store, RUN)
    assert list(other.commits(RUN)) == ["segment-000000"] and not other.is_committed(RUN, "segment-000002")


def test_a_removal_that_is_killed_has_happened_or_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for kill_at in range(1, 9):
        store = made(tmp_path / str(kill_at), [0, 2, 4])
        done, delete = [0], store.files.delete

        def killed(name: str, *, limit: int = kill_at, done: list[int] = done, delete: Any = delete) -> None:
            done[0] += 1
            if done[0] == limit:
                raise KeyboardInterrupt
            delete(name)

        monkeypatch.setattr(store.files, "delete", killed)
        try:
            remove_run(store, RUN)
        except KeyboardInterrupt:
            assert len(rows_of(Store(store.location))) in (0, 9)


def test_stores_are_put_together(tmp_path: Path) -> None:
    one, other = made(tmp_path / "one", [0, 2]), made(tmp_path / "other", [0, 2, 4])
    segment(other, 0, run_id="run-b")
    compact(other, RUN)
    gc(other, grace_s=0)
    put_artifact(other, "moments", {"model": "m"}, {"a.bin": b"content"})
    put_artifact(one, "moments", {"model": "n"}, {"a.bin": b"another"})
    expected = rows_of(other)
    assert merge(one, other) == (2, 2, 1)
    without = [[{k: v for k, v in row.items() if k != "attempt"} for row in rows] for rows in (rows_of(one), expected)]
    assert without[0] == without[1]
    found = find_artifact(one, "moments", {"model": "m"})
    assert found is not None and found.path("a.bin").read_bytes() == b"content"
    one.check(one.run_ids())
    assert merge(one, other) == (0, 0, 0), "there is nothing left to copy"


@pytest.mark.parametrize("change", [{"digest": "other"}, {"last": 5}])
def test_stores_that_disagree_are_kept_apart(change: dict[str, Any], tmp_path: Path) -> None:
    one, other = made(tmp_path / "one", [0]), made(tmp_path / "other", [0], run_id="run-b")
    segment(other, 0, **change)
    before = one.files.listing("")
    with pytest.raises(MergeConflict, match=r"unit segment-000000 of run-a differs: .*palimpsest rm"):
        merge(one, other)
    assert one.files.listing("").keys() == before.keys(), "nothing was copied"


def test_artifacts_that_disagree_are_kept_apart(tmp_path: Path) -> None:
    one, other = made(tmp_path / "one", []), made(tmp_path / "other", [0])
    for store, content in ((one, b"a"), (other, b"b")):
        put_artifact(store, "moments", {"model": "m"}, {"a.bin": content})
    with pytest.raises(MergeConflict, match=r"artifact artifacts/moments/.* differs"):
        merge(one, other)
    assert one.run_ids() == []


# --- a store that is away


def test_a_store_that_is_not_mounted_does_not_look_empty(tmp_path: Path) -> None:
    store = made(tmp_path / "s", [0])
    (tmp_path / "s").rename(tmp_path / "away")
    for ask in (
        store.run_ids,
        lambda: store.is_committed(RUN, "segment-000000"),
        lambda: segment(store, 2),
        lambda: find_artifact(store, "moments", {"model": "m"}),
        lambda: store.files.delete("commits/run_id=run-a/segment-000000.json"),
    ):
        with pytest.raises(StoreUnavailableError, match=r"the store .* is gone: store\.json is missing; mount it"):
            ask()
    assert not (tmp_path / "s").exists(), "it is not made anew"


def test_a_store_that_comes_back_is_waited_for(tmp_path: Path) -> None:
    made(tmp_path / "s", [0])
    store = Store(tmp_path / "s", patience_s=30)
    (tmp_path / "s").rename(tmp_path / "away")
    timer = threading.Timer(1.0, (tmp_path / "away").rename, [tmp_path / "s"])
    timer.start()
    started = time.monotonic()
    segment(store, 2)
    assert time.monotonic() - started > 0.8 and len(rows_of(store)) == 6
    timer.join()
    commit = store.read_commit(RUN, "segment-000002")
    assert commit is not None
    (tmp_path / "s").rename(tmp_path / "away")
    timer = threading.Timer(1.0, (tmp_path / "away").rename, [tmp_path / "s"])
    timer.start()
    assert len(store.rows(commit, "edits")) == 3, "a reader waits as well"
    timer.join()


def test_a_worker_that_starts_meanwhile_waits_too(tmp_path: Path) -> None:
    made(tmp_path / "s", [0])
    (tmp_path / "s").rename(tmp_path / "away")
    timer = threading.Timer(1.0, (tmp_path / "away").rename, [tmp_path / "s"])
    timer.start()
    assert len(Store(tmp_path / "s", patience_s=30).commits(RUN)) == 1
    timer.join()


@pytest.mark.parametrize("code", ["ENOSPC", "EDQUOT", "EIO", "ESTALE", "EROFS", "ENOTCONN"])
def test_what_a_disk_may_say_that_passes_is_waited_for(
    code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, sync, said = made(tmp_path / "s", []), os.fsync, []

    def fails_once(descriptor: int) -> None:
        if not said:
            said.append(code)
            raise OSError(getattr(errno, code), "no")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", fails_once)
    with pytest.raises(StoreUnavailableError, match="cannot be used now: no; expected a writable directory"):
        segment(store, 0)
    assert not store.commits(RUN)
    said.clear()
    segment(Store(tmp_path / "s", patience_s=30), 0)
    assert said and len(rows_of(store)) == 3


def _write_beyond_the_limit(root: str, size: int, connection: Any) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    store = Store(root)
    rows = [{"round": 2, "position": i, "fact_id": os.urandom(60).hex()} for i in range(2000)]
    try:
        store.commit(RUN, "segment-000002", {"edits": rows}, CommitInfo(kind="segment"))
        connection.send("written")
    except StorageError as error:
        connection.send(f"{type(error).__name__}: {error}")


def test_a_full_disk_is_said_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    """The system refuses to write more than so many bytes into a file, as it does where the disk is full."""
    store = made(tmp_path / "s", [0])
    before = store.files.listing("").keys()
    spawn = multiprocessing.get_context("spawn")
    mine, theirs = spawn.Pipe()
    for size, expected in ((20_000, "StoreUnavailableError"), (10_000_000, "written")):
        writer = spawn.Process(target=_write_beyond_the_limit, args=(store.location, size, theirs))
        writer.start()
        assert mine.poll(60)
        said = mine.recv()
        writer.join()
        assert said.startswith(expected), said
        if size == 20_000:
            assert "expected a writable directory with free space; what is committed is whole" in said
            assert store.files.listing("").keys() == before
    assert len(store.commits(RUN)) == 2
