"""DuckDB over a store: one staging view per table, and the marts in ``views/*.sql``."""

import json
import os
import re
import tempfile
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from storage.commits import CommitRow, commits_table, stale
from storage.errors import QueryError
from storage.functions import add_functions
from storage.marts import MACROS, definition, marts, needed_by, public_marts
from storage.schemas import SCHEMAS
from storage.statements import (
    is_loading,
    is_reading,
    lists_tables,
    may_modify,
    only_statement,
    own_files,
    refusal,
    refuse_modifying,
)
from storage.store import Store, run_of

TABLES = (*SCHEMAS, "commits")
_SETTINGS: dict[str, str | bool | int | float | list[str]] = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    # Else below the working directory, which may be the store.
    "temp_directory": str(Path(tempfile.gettempdir(), f"palimpsest-duckdb-{os.getpid()}")),
}
_OF_STATEMENTS = (
    duckdb.ParserException,
    duckdb.BinderException,
    duckdb.CatalogException,
    duckdb.ConversionException,
    duckdb.OutOfRangeException,
)
"""Errors that are the statement's own, and tell nothing of the store's files."""
_FILED = ("unit_id", "attempt", "kind", "recipe", "tables", "files")
"""What says of a commit in which files its rows are, and whether they are shown."""
_UNKNOWN = re.compile(r"Catalog Error: Table with name (\S+) does not exist!")
_BY_TEXT = re.compile(r"\bquery(?:_table)?\s*\(", re.IGNORECASE)
"""Functions that name tables in texts."""
_OFTEN = 3
"""Statements that name a mart from which on it is computed once for all of them."""
_ONE_SELECT = re.compile(r"\s*(?:SELECT|FROM)\b[^;]*;?\s*", re.IGNORECASE)
"""Statements in front of which `WITH` and marts can be written."""


def open_store(path: str | Path) -> duckdb.DuckDBPyConnection:
    """Return an in-memory DuckDB connection with a view per table and per mart, over committed rows only.

    It shows the store as it is now, whatever is committed later.

    Raises:
        StorageError: There is no store, or it has another schema version.
    """
    return _connect(Store(path), TABLES, list(marts()))


def query(place: str | Path | Store, sql: str, *, write: bool = False) -> pa.Table:
    """Run one SQL statement over a store, by its path or as it is open: one that waits is waited for here, too.

    Args:
        write: Let it do more than read: it runs over a copy in memory of the tables and views that it names, and may write
            the files that it names in quotes, but none of the store's.

    Raises:
        StorageError: There is no store, or it has another schema version.
        DamagedFileError: A committed file is damaged.
        QueryError: DuckDB refuses the statement, there are several, or it does more than read and ``write`` is not set.
    """
    statement = only_statement(sql)
    if not write or (is_reading(statement) and not may_modify(statement)):
        return query_many(place, [sql])[0]
    store = place if isinstance(place, Store) else Store(place)
    own = own_files(statement, [store.files.folder.absolute(), store.files.folder.resolve()])
    named = named_in(sql)
    copies = dict(zip(named, query_many(store, [f"FROM {name}" for name in named]), strict=True))
    with closing(duckdb.connect(config=_SETTINGS)) as connection:
        for name, rows in copies.items():
            connection.execute(f"CREATE TABLE {name} AS FROM rows")
            del rows
        if not is_loading(statement):  # what installs an extension reaches for a network and a cache
            connection.execute("SET allowed_paths = $1", [own.files])
            connection.execute("SET allowed_directories = $1", [own.folders])
            connection.execute("SET enable_external_access = false")
        _lock(connection)
        try:
            found = connection.sql(statement.query)
            return pa.table({}) if found is None else found.to_arrow_table()
        except duckdb.Error as error:
            hint = "a statement reaches only files that it names in quotes, outside the store"
            why = own.refused or ([hint] if isinstance(error, duckdb.PermissionException) else [])
            raise QueryError("; ".join([_said(error), *why])) from None


def query_many(place: str | Path | Store, statements: Sequence[str], *, unseen: Collection[str] = ()) -> list[pa.Table]:
    """Run several SQL statements that read over one connection; raises as :func:`query` does.

    Args:
        unseen: Runs and preparations that they see nothing of, as if the store did not hold them.
    """
    parsed = [only_statement(sql) for sql in statements]
    for statement in parsed:
        if not is_reading(statement):
            raise QueryError(refusal(statement))
    store = place if isinstance(place, Store) else Store(place)
    everything = any(map(lists_tables, statements))
    names = {name for sql in statements for name in named_in(sql)}
    read = {*names, *needed_by(names & marts().keys())}
    tables = TABLES if everything else [table for table in TABLES if table in read]
    shown = public_marts() if everything else ()
    for attempt in range(3):
        try:
            with closing(_connect(store, tables, shown, unseen)) as connection:
                often = _compute_once(connection, statements)
                _lock(connection)
                return [_result(connection, statement, often) for statement in parsed]
        except (duckdb.Error, FileNotFoundError) as error:
            if isinstance(error, (duckdb.IOException, FileNotFoundError)) and attempt < 2:
                continue  # a file that a compaction had replaced may have been cleared away since the plan was made
            store.check(store.run_ids())
            if not isinstance(error, _OF_STATEMENTS):
                store.check_content(tables)  # DuckDB names no file, or not what to do about it
            raise QueryError(_said(error)) from None
    raise AssertionError("the last attempt returns or raises")


def _lock(connection: duckdb.DuckDBPyConnection) -> None:
    """Keep a statement from settings, which functions of a SELECT that write logs are to DuckDB, and from Python's names."""
    connection.execute("SET python_enable_replacements = false")
    connection.execute("SET lock_configuration = true")


def _said(error: Exception) -> str:
    """Return what DuckDB says of a statement; of an unknown table the names that a user may have meant."""
    message = str(error).split("LINE ")[0].strip()
    unknown = _UNKNOWN.match(message)
    if unknown is None:
        return message
    near = get_close_matches(unknown.group(1).lower(), [*TABLES, *public_marts()], n=3)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    return f"{unknown.group(0)}{hint}\n(tables: {', '.join(TABLES)}; views: {', '.join(public_marts())})"


def _compute_once(connection: duckdb.DuckDBPyConnection, statements: Sequence[str]) -> list[str]:
    """Make tables of the marts that many of some statements name; return their names."""
    counts = Counter(name for sql in statements for name in named_in(sql) if name in marts())
    often = [name for name in marts() if counts[name] >= _OFTEN]
    for name in often:
        connection.execute(f"CREATE TEMP TABLE {name} AS {definition(name)}")
    return often


def _result(connection: duckdb.DuckDBPyConnection, statement: duckdb.Statement, tables: Sequence[str] = ()) -> pa.Table:
    """Return a statement's answer.

    Args:
        tables: Marts that are there as tables.
    """
    sql = statement.query
    named = [name for name in named_in(sql) if name in marts() and name not in tables]
    if named and _ONE_SELECT.fullmatch(sql):
        # Binding a mart can take as long as running it: so it is bound once, and not for its view, for its types, and to run.
        parts = ", ".join(f"{name} AS NOT MATERIALIZED (\n{definition(name)})" for name in named)
        try:
            connection.execute(f"CREATE OR REPLACE TEMP TABLE _answer AS WITH {parts} {sql}")
        except (duckdb.ParserException, duckdb.BinderException, duckdb.CatalogException):
            pass  # by views, which say what is wrong in terms of the statement
        else:
            return connection.table("_answer").to_arrow_table()
    _make_views(connection, named)
    if may_modify(statement):
        refuse_modifying(connection, statement)
    return connection.sql(sql).to_arrow_table()


def _make_views(connection: duckdb.DuckDBPyConnection, names: Sequence[str]) -> None:
    for name in names:
        connection.execute(f"CREATE OR REPLACE VIEW {name} AS {definition(name)}")


@lru_cache(maxsize=256)
def named_in(sql: str) -> Sequence[str]:
    """Return the tables and marts that a statement reads; where DuckDB does not take it apart, those that it mentions."""
    tree = tree_of(sql)
    if tree["error"] or _BY_TEXT.search(sql):
        words = set(re.findall(r"\w+", sql.lower()))
    else:
        words = {name.lower() for _, name in base_tables(tree)}
    return [name for name in (*marts(), *TABLES) if name in words]


def tree_of(sql: str) -> dict[str, Any]:
    """Return a statement's tree as DuckDB has it; ``error`` says whether it takes it apart."""
    with closing(duckdb.connect(config=_SETTINGS)) as parser:
        answer = parser.execute("SELECT json_serialize_sql($1)", [sql]).fetchone()
    found: dict[str, Any] = json.loads(answer[0]) if answer else {"error": True}
    return found


def base_tables(tree: Any) -> Iterator[tuple[str, str]]:
    """Yield schema (empty where none is named) and name of every table in a statement's tree."""
    if isinstance(tree, dict) and tree.get("type") == "BASE_TABLE":
        yield str(tree.get("schema_name") or ""), str(tree["table_name"])
    for value in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ():
        yield from base_tables(value)


def _connect(
    store: Store, tables: Sequence[str], shown: Sequence[str], unseen: Collection[str] = ()
) -> duckdb.DuckDBPyConnection:
    with ThreadPoolExecutor(1) as opening:  # DuckDB takes as long to start as the commits to read
        started = opening.submit(duckdb.connect, config=_SETTINGS)
        runs = _commits_by_run(store, None if "commits" in tables else _FILED, unseen)
        connection = started.result()
    hidden = {run_id: stale(rows) for run_id, rows in runs.items()}
    # In a database of its own, which `SHOW TABLES` does not show.
    connection.execute("ATTACH ':memory:' AS _palimpsest")
    add_functions(connection)
    connection.execute(MACROS)
    keys = _keys(runs, hidden)
    connection.execute("CREATE TABLE _palimpsest._stale AS FROM keys")
    del keys
    everywhere = _files(runs, hidden)
    if "commits" in tables:
        made = commits_table((run_id, row) for run_id, rows in runs.items() for row in rows.values())
        connection.execute("CREATE TABLE _palimpsest.commits AS FROM made")
        del made
        connection.execute("CREATE VIEW commits AS FROM _palimpsest.commits")
    for table in (name for name in tables if name in SCHEMAS):
        files, shared = everywhere[table]
        if files:
            connection.execute(f"CREATE VIEW {table} AS {_scan(store, table, files, shared)}")
        else:
            empty = pa.schema([pa.field("run_id", pa.string()), *SCHEMAS[table]]).empty_table()
            connection.execute(f"CREATE TABLE _palimpsest.{table} AS FROM empty")
            del empty
            # So that the optimizer sees it, too.
            connection.execute(f"CREATE VIEW {table} AS FROM _palimpsest.{table} WHERE false")
    _make_views(connection, shown)
    return connection


def _commits_by_run(
    store: Store, columns: Sequence[str] | None, unseen: Collection[str]
) -> dict[str, dict[str, CommitRow]]:
    names: dict[str, list[str]] = {}
    for name in store.files.listing("commits"):
        names.setdefault(run_of(name), []).append(name)
    found = {*names, *map(run_of, store.files.listing("compacted"))}
    return {run_id: store.commit_rows(run_id, names.get(run_id, ()), columns) for run_id in sorted(found - set(unseen))}


def _files(
    runs: Mapping[str, Mapping[str, CommitRow]], unseen: Mapping[str, set[str]]
) -> dict[str, tuple[list[str], bool]]:
    """Return for each table the files with its committed rows, and whether stale rows lie among them."""
    seen: dict[str, dict[str, None]] = {table: {} for table in SCHEMAS}
    hidden: dict[str, set[str]] = {table: set() for table in SCHEMAS}
    for run_id, rows in runs.items():
        for unit_id, row in rows.items():
            for table, file in zip(row["tables"], row["files"], strict=True):
                if unit_id in unseen[run_id]:
                    hidden[table].add(file)
                else:
                    seen[table][file] = None
    return {table: (list(files), not hidden[table].isdisjoint(files)) for table, files in seen.items()}


def _keys(runs: Mapping[str, Mapping[str, CommitRow]], units: Mapping[str, set[str]]) -> pa.Table:
    found = [(run_id, unit_id, runs[run_id][unit_id]["attempt"]) for run_id, some in units.items() for unit_id in some]
    columns = list(zip(*found, strict=True)) or [(), (), ()]
    return pa.table([pa.array(column, pa.string()) for column in columns], names=["run_id", "unit_id", "attempt"])


def _scan(store: Store, table: str, files: Sequence[str], shared: bool) -> str:
    columns = ", ".join(_quoted(name) for name in SCHEMAS[table].names)
    # No union_by_name, which would open every file to bind a view: all files of a store have the schema of its version.
    paths = ", ".join(map(_literal, store.files.fetch(files)))
    # Two baselines of different sizes, of two commands or of two stores put together, have both said what their run is.
    scan = (
        f"SELECT {'DISTINCT ON (run_id) ' if table == 'runs' else ''}run_id, {columns} FROM read_parquet([{paths}], "
        "hive_partitioning = true, hive_types = {'run_id': VARCHAR})"
    )
    scan = f"{scan} ANTI JOIN _palimpsest._stale USING (run_id, unit_id, attempt)" if shared else scan
    return f"{scan} ORDER BY run_id, unit_id, attempt" if table == "runs" else scan


def _literal(path: Path) -> str:
    return "'" + str(path).replace("'", "''") + "'"


def _quoted(name: str) -> str:
    return f'"{name}"'
