"""What a statement may do: read; write where asked to; and never below the store."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from storage.errors import QueryError
from storage.sql import query
from storage.statements import is_reading, only_statement
from storage.store import Store
from tests.storage.test_views import fill


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A store in a folder that is the working directory, too; no test leaves another file below it."""
    made = Store(tmp_path / "store", create=True)
    fill(made, 4, own={}, kept={}, every=4)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.csv").write_text("fact_id,label\nf0,first\nf1,second\n")
    before = contents(tmp_path / "store")
    yield made
    assert contents(tmp_path / "store") == before


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1",
        "FROM runs",
        "(SELECT 1)",
        "VALUES (1)",
        "TABLE runs",
        "WITH a AS (SELECT 1) FROM a",
        "DESCRIBE runs",
        "SHOW TABLES",
        "SUMMARIZE runs",
        "PIVOT (SELECT 1 AS a, 2 AS b) ON a USING sum(b)",
        "EXPLAIN SELECT 1",
        "EXPLAIN /* all */ ANALYZE -- of it\n SELECT 1",
        "EXPLAIN (ANALYZE, FORMAT json) SELECT 1",
        "EXPLAIN (SELECT 1)",
        "EXPLAIN (FORMAT 'json') SELECT 1",
        "EXPLAIN PIVOT (SELECT 1 AS a, 2 AS b) ON a USING sum(b)",
        "SELECT 'a; b' -- ; c",
        "SELECT 1;",
        "WITH x AS (SELECT 'delete' AS a) SELECT * FROM x;",
        "SELECT count(*) FROM edits; -- delete",
        "EXPLAIN SELECT 'update' AS a;",
        "PIVOT (SELECT 1 AS a, 2 AS b) ON a USING sum(b);",
        "SELECT copy.a AS update FROM (SELECT 1 AS a) AS copy",
        "SELECT 1 AS query",
        "SELECT 'é' AS a /* é */, 'copy' AS b -- é",
    ],
)
def test_statements_that_read(store: Store, sql: str) -> None:
    assert is_reading(only_statement(sql))
    query(store, sql)


WRITING = [
    "COPY runs TO 'x.csv'",
    "COPY (SELECT 1) TO 'x.csv' (USE_TMP_FILE false)",
    "COPY (PIVOT (SELECT 1 AS a, 2 AS b) ON a USING sum(b)) TO 'x.csv'",
    "EXPLAIN ANALYZE COPY (SELECT 1) TO 'x.csv'",
    "EXPLAIN (ANALYZE) COPY (SELECT 1) TO 'x.csv'",
    "EXPLAIN COPY (SELECT 1) TO 'x.csv'",
    "WITH a AS (COPY (SELECT 1) TO 'x.csv') SELECT * FROM a",
    "WITH a AS MATERIALIZED (/* now */ COPY (SELECT 1) TO 'x.csv') SELECT * FROM a",
    "EXPLAIN ANALYZE WITH a AS (COPY (SELECT 1) TO 'x.csv') SELECT * FROM a",
    "ATTACH 'x.db'",
    "INSTALL httpfs",
    "LOAD httpfs",
    "CREATE TABLE x AS SELECT 1",
    "CREATE TABLE x AS PIVOT (SELECT 1 AS a, 2 AS b) ON a USING sum(b)",
    "DROP VIEW runs",
    "SET memory_limit = '1GB'",
    "PRAGMA enable_profiling",
    "CALL enable_logging(storage = 'file', storage_path = 'x')",
    "EXPORT DATABASE 'x'",
    "IMPORT DATABASE 'x'",
    "CHECKPOINT",
    "PREPARE x AS SELECT 1",
    "EXPLAIN (ANALYZE ')SELECT 1--') COPY (SELECT 1) TO 'x.csv'",
    "EXPLAIN (ANALYZE \")SELECT 1--\") COPY (SELECT 1) TO 'x.csv'",
    "EXPLAIN (ANALYZE $$)SELECT 1--$$) COPY (SELECT 1) TO 'x.csv'",
    "WITH a AS (COPY (SELECT 1 AS x) TO 'x.csv') PIVOT (SELECT 1 AS y) ON y USING count(*)",
    "EXPLAIN ANALYZE WITH a AS (COPY (SELECT 1 AS x) TO 'x.csv') PIVOT (SELECT 1 AS y) ON y USING count(*)",
    "FROM json_execute_serialized_sql('{}')",
    "SELECT * FROM \"JSON_execute_serialized_sql\" ('{}')",
    "FROM query('SELECT 1')",
    "UPDATE EXTENSIONS",
]


@pytest.mark.parametrize("sql", WRITING)
def test_statements_that_do_more_need_to_be_asked_for(store: Store, tmp_path: Path, sql: str) -> None:
    with pytest.raises(QueryError, match=r"does more than read.*expected SELECT, .*--write"):
        query(store, sql)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["own.csv", "store"]


def test_functions_that_would_write_are_refused_in_a_select(store: Store, tmp_path: Path) -> None:
    with pytest.raises(QueryError, match="locked"):
        query(store, "FROM enable_logging(storage = 'file', storage_path = 'x')")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["own.csv", "store"]


def test_what_is_judged_is_what_is_run(store: Store, tmp_path: Path) -> None:
    """A quote in a comment keeps DuckDB from taking a no-break space for a space, which moves the ends of strings."""
    space = "\u00a0"
    for front in ("", "EXPLAIN ANALYZE "):
        sql = (
            f"{front}WITH /*'*/ c AS (SELECT {{{space}$t$: 1}}), b AS (COPY (SELECT 1) TO $u$x.csv$u$), "
            f"d AS (SELECT {{{space}$t$: 1}}) SELECT 1 /*'*/"
        )
        with contextlib.suppress(QueryError):
            query(store, sql)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["own.csv", "store"]
    with pytest.raises(QueryError, match=r"cannot be taken apart"):
        query(store, "SELECT x'é'")


def test_one_statement_at_a_time(store: Store) -> None:
    with pytest.raises(QueryError, match=r"^there are 2 SQL statements; expected one"):
        query(store, "SELECT 1; SELECT 2")
    for nothing in ("", "  ", ";", "-- nothing"):
        with pytest.raises(QueryError, match="there is no SQL statement"):
            query(store, nothing)
    with pytest.raises(QueryError, match="syntax error at or near"):
        query(store, "SELEC 1")


def test_files_of_ones_own_are_read_beside_the_store(store: Store) -> None:
    rows = query(store, "SELECT label FROM edits JOIN 'own.csv' USING (fact_id) ORDER BY 1").to_pylist()
    assert rows == [{"label": "first"}, {"label": "second"}]
    assert query(store, "SELECT label FROM edits JOIN 'own.csv' USING (fact_id) ORDER BY 1", write=True).num_rows == 2


def test_asked_to_a_statement_writes_what_it_names(store: Store, tmp_path: Path) -> None:
    query(store, "COPY (SELECT run_id, edits FROM run_summary) TO 'x.csv'", write=True)
    assert (tmp_path / "x.csv").read_text() == "run_id,edits\nmemit-b1-hand,4\n"
    query(store, "COPY (SELECT run_id, edits + 1 AS edits FROM run_summary) TO 'x.csv'", write=True)
    assert (tmp_path / "x.csv").read_text() == "run_id,edits\nmemit-b1-hand,5\n"
    query(store, f"COPY edits TO '{tmp_path}/parts' (FORMAT parquet, PARTITION_BY (fact_id))", write=True)
    assert len(list((tmp_path / "parts").rglob("*.parquet"))) == 4
    query(store, "WITH a AS (COPY (SELECT 2 AS b) TO 'y.csv') SELECT * FROM a", write=True)
    assert (tmp_path / "y.csv").read_text() == "b\n2\n"
    assert query(store, "CREATE TABLE mine AS SELECT * FROM 'own.csv'", write=True).num_rows in (0, 1)
    query(store, "ATTACH 'x.db'", write=True)
    query(store, "EXPORT DATABASE 'all'", write=True)
    assert (tmp_path / "all" / "schema.sql").exists()
    assert [row["n"] for row in query(store, "SELECT count(*) AS n FROM edits").to_pylist()] == [4]


@pytest.mark.parametrize(
    "sql",
    [
        "COPY runs TO 'store/x.csv'",
        "COPY runs TO 'store/store.json' (USE_TMP_FILE false)",
        "EXPLAIN ANALYZE COPY runs TO 'store/x.csv'",
        "COPY runs TO '{root}/store/x.csv'",
        "COPY runs TO 'other/../store/x.csv'",
        "COPY runs TO 'link/x.csv'",
        "COPY runs TO 'hard.json' (USE_TMP_FILE false)",
        "COPY runs TO E'st\\x6fre/x.csv'",
        "COPY runs TO $$store/x.csv$$",
        "COPY edits TO 'store' (FORMAT parquet, PARTITION_BY (fact_id), OVERWRITE_OR_IGNORE)",
        "COPY edits TO 'holds' (FORMAT parquet, PARTITION_BY (fact_id), OVERWRITE_OR_IGNORE)",
        "EXPORT DATABASE 'store'",
        "EXPORT DATABASE '{root}/store/new'",
        "ATTACH 'store/x.db'",
        "WITH a AS (COPY (SELECT 1) TO 'store/x.csv') SELECT * FROM a",
        "CALL enable_logging(storage = 'file', storage_path = 'store/logs')",
        "COPY (FROM 'sto*/*.json') TO 'x.csv'",
        "COPY edits TO 'away/../store' (FORMAT csv, PARTITION_BY fact_id)",
        "COPY edits TO 'away/../store' (FORMAT csv, PER_THREAD_OUTPUT)",
        "ATTACH 'away/../store/x.db'",
        "EXPORT DATABASE 'away/../store'",
        "COPY runs TO 'inner/../x.csv'",
        "COPY runs TO '{root}/inner/../x.csv'",
        "EXPORT DATABASE 'linked'",
        "COPY edits TO 'linked' (FORMAT csv, PARTITION_BY fact_id, OVERWRITE_OR_IGNORE)",
        "COPY runs TO 'file:store/x.csv'",
        "COPY runs TO 'file://{root}/store/x.csv'",
        "COPY runs TO 'file:store/store.json' (USE_TMP_FILE false)",
    ],
)
def test_nothing_ever_writes_below_the_store(store: Store, tmp_path: Path, sql: str) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "store")
    (tmp_path / "other" / "deep").mkdir(parents=True)
    (tmp_path / "away").symlink_to(tmp_path / "other" / "deep")
    (tmp_path / "inner").symlink_to(tmp_path / "store" / "edits")
    (tmp_path / "linked" / "fact_id=f0").mkdir(parents=True)
    os.link(tmp_path / "store" / "store.json", tmp_path / "linked" / "schema.sql")
    os.link(tmp_path / "store" / "store.json", tmp_path / "linked" / "fact_id=f0" / "data_0.csv")
    os.link(tmp_path / "store" / "store.json", tmp_path / "hard.json")
    (tmp_path / "holds").mkdir()
    (tmp_path / "holds" / "fact_id=f0").symlink_to(tmp_path / "store")
    with pytest.raises(QueryError, match=r"in(to)? the store|hard link|outside the store"):
        query(store, sql.format(root=tmp_path), write=True)


def test_from_within_the_store_nothing_is_written_beside_its_files(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path / "store" / "edits")
    for sql in ("EXPORT DATABASE '.'", "COPY edits TO 'x.csv'", "COPY edits TO '.' (FORMAT csv, PARTITION_BY fact_id)"):
        with pytest.raises(QueryError, match="the store"):
            query(store, sql, write=True)
    assert ".tmp" not in str(query(store, "SELECT current_setting('temp_directory') AS place").to_pylist())
    where = query(store, "SELECT current_setting('temp_directory') AS place").to_pylist()[0]["place"]
    assert not Path(where).is_relative_to(tmp_path / "store")


def test_strings_that_are_no_paths_are_let_be(store: Store, tmp_path: Path) -> None:
    long = "x" * 300
    for sql in (
        f"COPY (SELECT '{long}' AS a, split_part('a.b', '.', 1) AS b) TO 'x.csv' (DELIMITER '~')",
        "COPY (SELECT '~nobody' AS a, '/' AS b) TO 'y.csv'",
        "CREATE TABLE z AS SELECT 'store' AS a",
    ):
        query(store, sql, write=True)
    assert (tmp_path / "x.csv").exists() and (tmp_path / "y.csv").exists()


def test_names_of_this_program_are_no_tables(store: Store) -> None:
    for name in ("sql", "statement", "connection", "marts"):
        with pytest.raises(QueryError, match=f"Table with name {name} does not exist!"):
            query(store, f"SELECT * FROM {name}")


def test_a_place_that_is_computed_is_not_reached(store: Store) -> None:
    for sql in ("COPY runs TO ('sto' || 're/x.csv')", "COPY runs TO (concat('store', '/x.csv'))", "COPY runs TO store"):
        with pytest.raises(QueryError):
            query(store, sql, write=True)


def test_an_unknown_table_is_answered_with_names_of_the_store(store: Store) -> None:
    with pytest.raises(QueryError) as refused:
        query(store, "SELECT * FROM run_sumary")
    said = str(refused.value)
    assert "Did you mean run_summary" in said and "views: " in said and "pg_" not in said and "duckdb_" not in said
    with pytest.raises(QueryError) as other:
        query(store, "SELECT nope FROM runs")
    assert "views: " not in str(other.value)


def test_all_tables_and_views_are_shown_and_nothing_else(store: Store) -> None:
    from storage.marts import public_marts
    from storage.sql import TABLES

    shown = {row["name"] for row in query(store, "SHOW TABLES").to_pylist()}
    assert shown == {*TABLES, *public_marts()}
    listed = query(store, "SELECT table_name FROM information_schema.tables WHERE table_catalog = current_database()")
    assert {row["table_name"] for row in listed.to_pylist()} == shown


def test_duckdb_itself_would_do_all_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The statements above are refused for what they do, not because they would fail."""
    monkeypatch.chdir(tmp_path)
    with duckdb.connect() as connection:
        connection.execute("CREATE TABLE runs AS SELECT 1 AS a")
        for sql in WRITING[:9]:
            connection.execute(sql)
            written = [path for path in tmp_path.iterdir() if path.name == "x.csv"]
            assert bool(written) == (not sql.startswith("EXPLAIN COPY")), sql
            for path in written:
                path.unlink()
