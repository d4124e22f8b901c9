"""A store in a bucket: a real server process on loopback; killed writers, and a server that stops for a while."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import psutil
import pytest

from storage.artifacts import find_artifact, put_artifact
from storage.cleaning import gc, remove_run, withdraw
from storage.commits import CommitInfo
from storage.compaction import compact
from storage.errors import StorageError, StoreUnavailableError
from storage.files import check_exclusive
from storage.locations import is_store
from storage.merge import merge
from storage.s3 import S3Files
from storage.sql import query
from storage.store import Store
from tasks.driver.doctor import _store
from tasks.workers.node_files import describe
from tests.storage.bucket import bucket_server

RUN = "run-a"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[psutil.Process]:
    """Yield the server's process; the environment says where it is."""
    with bucket_server(tmp_path_factory.mktemp("s3")) as (process, variables), pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        boto3.client("s3").create_bucket(Bucket="results")
        yield process


@pytest.fixture
def store(server: psutil.Process, request: pytest.FixtureRequest) -> Store:
    return Store(f"s3://results/{request.node.name}", create=True)


def edits(unit: int, count: int = 3) -> dict[str, list[dict[str, Any]]]:
    return {"edits": [{"round": unit, "position": i, "fact_id": f"f{unit}-{i}"} for i in range(count)]}


def write(store: Store, units: range, run_id: str = RUN) -> None:
    for unit in units:
        assert store.commit(run_id, f"unit-{unit}", edits(unit), CommitInfo(kind="own", digest=f"d{unit}"))


def contents(store: Store) -> list[Any]:
    return query(store.location, "SELECT * FROM edits ORDER BY ALL").to_pylist()


def test_the_first_writer_wins(store: Store) -> None:
    other = Store(store.location)
    write(store, range(2))
    assert not other.commit(RUN, "unit-1", edits(7), CommitInfo(kind="own"))
    assert [row["round"] for row in contents(other)] == [0] * 3 + [1] * 3
    assert other.run_ids() == [RUN] and other.is_committed(RUN, "unit-0") and not other.is_committed(RUN, "unit-9")
    other.check([RUN])


def test_compacted_cleared_withdrawn_merged_and_removed_as_on_a_disk(store: Store, tmp_path: Path) -> None:
    write(store, range(4))
    before = contents(store)
    assert compact(store, RUN) and gc(store, grace_s=0).files >= 8
    assert contents(store) == before and len(store.files.listing("")) == 3, "marker, commits, rows"
    withdraw(store, RUN, "unit-2")
    assert len(contents(store)) == 9
    put_artifact(store, "moments", {"model": "m"}, {"a.bin": b"content"})
    local = Store(tmp_path / "local", create=True)
    assert merge(local, store) == (1, 3, 1) and len(contents(local)) == 9
    back = Store(f"{store.location}-back", create=True)
    assert merge(back, local) == (1, 3, 1) and contents(back) == contents(local)
    found = find_artifact(back, "moments", {"model": "m"})
    assert found is not None and found.path("a.bin").read_bytes() == b"content"
    assert remove_run(store, RUN) == 3 and store.run_ids() == []


def test_a_run_that_was_removed_and_made_anew_is_not_read_from_what_this_machine_has_kept(store: Store) -> None:
    write(store, range(3))
    compact(store, RUN)
    assert len(contents(store)) == 9
    remove_run(Store(store.location), RUN)
    write(store, range(5, 7))
    compact(store, RUN)
    assert {row["round"] for row in contents(store)} == {5, 6}
    store.check([RUN])


def test_a_reader_whose_file_vanishes_plans_once_more(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(store, range(3))
    fetch, calls = S3Files.fetch, 0
    with monkeypatch.context() as patch:  # what another machine reads is not kept on this one
        patch.setenv("PALIMPSEST_CACHE", str(tmp_path))
        other = Store(store.location)

    def late(files: S3Files, names: Any) -> list[Path]:
        nonlocal calls
        calls += 1
        if calls == 1:
            compact(other, RUN)
            gc(other, grace_s=0)
        return fetch(files, names)

    monkeypatch.setattr(S3Files, "fetch", late)
    assert len(contents(store)) == 9 and calls == 2


def test_what_is_wrong_is_said(server: psutil.Process, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StorageError, match=r"'s3://results' names no store; expected s3://BUCKET/PREFIX"):
        Store("s3://results")
    with pytest.raises(StorageError, match=r"no store at s3://results/nowhere: store.json is missing"):
        Store("s3://results/nowhere")
    with pytest.raises(
        StorageError, match=r"s3://nothing/x refuses store.json: .*NoSuchBucket.*check the bucket's name"
    ):
        Store("s3://nothing/x", create=True)
    file = tmp_path / "file"
    file.write_bytes(b"content")
    with pytest.raises(StorageError, match=r"s3://nothing/x refuses a: .*NoSuchBucket"):
        S3Files("s3://nothing/x").write("a", file)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    away = S3Files("s3://results/x")
    operations = (lambda: away.write("a", file), lambda: away.local("a"), lambda: Store("s3://results/x"))
    for operation in operations:
        with pytest.raises(StoreUnavailableError, match=r"does not answer: .*AWS_ENDPOINT_URL"):
            operation()


def _upload(location: str, content: bytes | Path, connection: Any) -> None:
    files = S3Files(location)
    connection.send("go")
    files.write("edits/run_id=run-a/unit-9.0123456789ab.parquet", content)
    connection.send("done")


def _through_loopback() -> int:
    return psutil.net_io_counters(pernic=True)["lo"].bytes_recv


@pytest.mark.parametrize("kind", ["bytes", "file"])
def test_a_writer_killed_in_mid_upload_leaves_nothing_half_visible(kind: str, store: Store, tmp_path: Path) -> None:
    """Bytes go as one request, a file in parts: when an eighth has come through, the writer is killed."""
    write(store, range(2))
    content: bytes | Path = b"x" * 400 * 2**20
    if kind == "file":
        (tmp_path / "file").write_bytes(content)
        content = tmp_path / "file"
    before = store.files.listing("").keys()
    spawn = multiprocessing.get_context("spawn")
    mine, theirs = spawn.Pipe()
    writer = spawn.Process(target=_upload, args=(store.location, content, theirs))
    writer.start()
    assert mine.poll(60) and mine.recv() == "go"
    before_it = _through_loopback()
    while _through_loopback() - before_it < 50 * 2**20:
        time.sleep(0.001)
    assert writer.pid is not None
    os.kill(writer.pid, signal.SIGKILL)
    writer.join()
    assert not mine.poll(0.5), "it was killed before its end"
    assert store.files.listing("").keys() == before and len(contents(store)) == 6


def test_a_server_that_stops_for_a_while_is_waited_for(
    store: Store, server: psutil.Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped, it takes connections and does not answer; a request whose answer was lost is not done twice.

    Longer than a request waits, and than it is asked again by the library.
    """
    monkeypatch.setattr("storage.s3._READ_S", 1.0)
    patient, hasty = Store(store.location, patience_s=120), Store(store.location)
    server.suspend()
    with pytest.raises(StoreUnavailableError, match="does not answer"):
        hasty.files.read("store.json")
    timer = threading.Timer(6.0, server.resume)
    timer.start()
    began = time.monotonic()
    write(patient, range(3))
    assert time.monotonic() - began > 5.5
    timer.join()
    assert len(contents(store)) == 9 and len(store.commits(RUN)) == 3


def test_a_server_that_does_not_heed_conditions_is_found_out(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    check_exclusive(store.files)

    def careless(self: S3Files, name: str, content: bytes) -> bool:
        self.write(name, content)
        return True

    monkeypatch.setattr(S3Files, "create", careless)
    with pytest.raises(StorageError, match=r"s3://results/careless: its server lets two writers create one object"):
        Store("s3://results/careless", create=True)
    assert not is_store("s3://results/careless"), "no run begins there"
    for place in (store.location, "s3://results/none-yet"):
        with pytest.raises(StorageError, match="lets two writers"):
            _store(place)


def test_missing_keys_are_said_and_not_waited_for(
    server: psutil.Process, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)  # it has found the keys before
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(StorageError, match=r"needs keys, and .* has none .*before `ray start`"):
        Store("s3://results/x", patience_s=60)
    assert describe("s3://results/x")["store"].startswith("not seen: the store s3://results/x needs keys")


def test_a_conditional_put_that_is_asked_twice_is_ours(store: Store) -> None:
    name = f"commits/run_id={RUN}/unit-0.json"
    assert store.files.create(name, b"mine") and store.files.create(name, b"mine")
    assert not store.files.create(name, b"another's")
    assert store.files.read(name) == b"mine"
