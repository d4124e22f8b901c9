"""A new store's Prefect records begin with a database that is set up, and with nobody's runs."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from flows.prefect_database import copy_database, keep_database
from tasks.cache import cache_folder


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("PREFECT_API_DATABASE_CONNECTION_URL", "PREFECT_SERVER_DATABASE_CONNECTION_URL"):
        monkeypatch.delenv(name, raising=False)


def home(folder: Path, monkeypatch: pytest.MonkeyPatch, *, runs: int | None = None) -> Path:
    """Make this the home of Prefect's records, with a database of so many runs if that is said."""
    folder.mkdir(exist_ok=True)
    monkeypatch.setenv("PREFECT_HOME", str(folder))
    if runs is not None:
        with closing(sqlite3.connect(folder / "prefect.db")) as made:
            made.execute("CREATE TABLE alembic_version (version TEXT)")
            made.execute("INSERT INTO alembic_version VALUES ('newest')")
            made.execute("CREATE TABLE flow_run (name TEXT)")
            made.executemany("INSERT INTO flow_run VALUES (?)", [(f"run-{i}",) for i in range(runs)])
            made.commit()
    return folder / "prefect.db"


def rows(database: Path) -> tuple[list[str], int]:
    with closing(sqlite3.connect(database)) as found:
        (version,), (count,) = (
            [name for (name,) in found.execute("SELECT version FROM alembic_version")],
            found.execute("SELECT count(*) FROM flow_run").fetchone(),
        )
    return [version], count


def test_a_database_that_is_set_up_is_kept_for_others_without_its_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = home(tmp_path / "first", monkeypatch, runs=2)
    keep_database()
    second = home(tmp_path / "second", monkeypatch)
    copy_database()
    assert rows(first) == (["newest"], 2) and rows(second) == (["newest"], 0)
    assert [path.name for path in (tmp_path / "second").iterdir()] == ["prefect.db"], "nothing lies beside it"


def test_a_database_that_is_there_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home(tmp_path / "first", monkeypatch, runs=2)
    keep_database()
    second = home(tmp_path / "second", monkeypatch, runs=3)
    copy_database()
    assert rows(second) == (["newest"], 3)


def test_a_database_elsewhere_is_nobodys_business(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home(tmp_path / "first", monkeypatch, runs=2)
    keep_database()
    second = home(tmp_path / "second", monkeypatch)
    monkeypatch.setenv("PREFECT_SERVER_DATABASE_CONNECTION_URL", "postgresql+asyncpg://elsewhere/prefect")
    copy_database()
    assert not second.exists()


def test_a_spoilt_one_is_no_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home(tmp_path / "first", monkeypatch, runs=2)
    keep_database()
    (kept,) = (cache_folder() / "prefect").glob("*.db")
    kept.write_bytes(b"no database")
    second = home(tmp_path / "second", monkeypatch)
    copy_database()
    assert not second.exists() and list((tmp_path / "second").iterdir()) == []
