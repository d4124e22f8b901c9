"""DuckDB over a store: one staging view per table, and the marts in ``views/*.sql``."""

from collections.abc import Sequence
from pathlib import Path

import duckdb
import pyarrow as pa

from storage.errors import QueryError
from storage.schemas import COMMITS, SCHEMAS
from storage.store import Store

_CURRENT = """
    SELECT commits.* FROM commits
    LEFT JOIN (SELECT run_id, unit_id, recipe AS wanted FROM commits WHERE kind = 'recipe') AS chosen
        ON chosen.run_id = commits.run_id AND chosen.unit_id = 'recipe-' || commits.kind
    WHERE commits.recipe IS NULL OR wanted IS NULL OR commits.recipe = wanted
"""
"""Without what was scored in another way than the last command wanted: rows of two recipes never stand side by side."""
VIEWS = Path(__file__).parent / "views"
ORDER = (
    "run_latest",
    "probe_outcomes",
    "protocol_scores",
    "ranking_flips",
    "own_scores",
    "editing_curve",
    "forgetting_curve",
    "retention_by_age",
    "retention_summary",
    "question_completion",
    "benchmark_metrics",
    "benchmark_curve",
    "benchmark_groups",
    "generation_curve",
    "perplexity_curve",
    "drift_curve",
    "collapse",
    "run_summary",
    "batch_size_summary",
    "layer_summary",
    "trace_summary",
    "moment_curve",
    "training_curve",
    "joint_edits",
    "key_asymmetry",
)
"""Marts in the order in which they build on each other."""
PUBLIC = tuple(name for name in ORDER if name not in ("run_latest", "own_scores", "collapse", "benchmark_metrics"))


def open_store(path: str | Path) -> duckdb.DuckDBPyConnection:
    """Return an in-memory DuckDB connection with a view per table and per mart, over committed rows only.

    The views read the files anew at each query, so a connection sees what has been committed meanwhile.

    Raises:
        StorageError: There is no store, or it has another schema version.
    """
    return _connect(Store(path), ORDER)


def _connect(store: Store, marts: Sequence[str]) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(config={"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"})
    connection.execute(f"CREATE VIEW commits AS {_scan(store.root, 'commits')}")
    connection.execute(f"CREATE VIEW current_commits AS {_CURRENT}")
    for table in SCHEMAS:
        connection.execute(
            f"CREATE VIEW {table} AS SELECT * FROM ({_scan(store.root, table)}) "
            "SEMI JOIN (SELECT run_id, unit_id, attempt FROM current_commits) USING (run_id, unit_id, attempt)"
        )
    for name in marts:
        connection.execute(f"CREATE VIEW {name} AS {(VIEWS / f'{name}.sql').read_text()}")
    return connection


def _needed(statements: Sequence[str]) -> list[str]:
    """Return the marts that the statements name, and those that these build on, in ``ORDER``: binding a view takes time."""
    text, found = " ".join(statements), set[str]()
    for name in reversed(ORDER):
        if name in text:
            found.add(name)
            text += (VIEWS / f"{name}.sql").read_text()
    return [name for name in ORDER if name in found]


def query(path: str | Path, sql: str) -> pa.Table:
    """Run one SQL statement over a store.

    Raises:
        StorageError: There is no store, or it has another schema version.
        DamagedFileError: A committed file is damaged.
        QueryError: DuckDB refuses the statement.
    """
    return query_many(path, [sql])[0]


def query_many(path: str | Path, statements: Sequence[str]) -> list[pa.Table]:
    """Run several SQL statements over one connection; raises as :func:`query` does."""
    connection = _connect(Store(path), _needed(statements))
    try:
        return [connection.sql(sql).to_arrow_table() for sql in statements]
    except duckdb.Error as error:
        store = Store(path)
        store.check(store.run_ids())
        message = str(error).split("LINE ")[0].strip()
        raise QueryError(
            f"{message}\n(tables: {', '.join([*SCHEMAS, 'commits'])}; views: {', '.join(PUBLIC)})"
        ) from None
    finally:
        connection.close()


def _scan(root: Path, table: str) -> str:
    # No union_by_name, which would open every file to bind a view: all files of a store have the schema of its version,
    # and the empty file, which sorts first, is the one that DuckDB takes it from.
    files = root / table / "*" / "*.parquet"
    columns = ", ".join(_quoted(name) for name in (COMMITS if table == "commits" else SCHEMAS[table]).names)
    return (
        f"SELECT run_id, {columns} FROM read_parquet({_literal(files)}, "
        "hive_partitioning = true, hive_types = {'run_id': VARCHAR})"
    )


def _literal(path: Path) -> str:
    return "'" + str(path).replace("'", "''") + "'"


def _quoted(name: str) -> str:
    return f'"{name}"'
