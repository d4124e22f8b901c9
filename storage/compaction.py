"""Compaction: many small files of a run become one per table, and its commits one file.

A compaction is a file ``compacted/run_id=<run>/<number>.parquet`` with the commits of all units whose rows it has put
together, or has left where they were (after a withdrawal); the highest number holds, and what it names wins over commit
files of the same units.  It is created exclusively and last, so that a reader sees the run either before it or after it.
What it replaces stays until :func:`storage.cleaning.gc`.
"""

import tempfile
import uuid
from collections.abc import Collection, Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from storage.commits import CommitRow
from storage.schemas import COMMITS, SCHEMAS
from storage.store import SHARED, Store

LARGE_BYTES = 8 * 2**20
"""Files from this size on stay as they are: there is nothing to win, and a ledger may be of many gigabytes."""
_GROUP_BYTES = 32 * 2**20
"""Of rows in memory, after which a row group ends: SQL is fastest with about a hundred thousand rows at a time."""
_LEDGER_GROUP_BYTES = 4 * 2**20
"""Ledgers are read unit by unit, each time with the others' rows in its group."""


def compact(store: Store, run_id: str, *, without: Collection[str] = (), dense: bool = False) -> bool:
    """Put a run's committed rows together; return whether anything was to be done and no other compaction was faster.

    Killed at any instant, it has not happened.

    Args:
        without: Units whose commits no longer hold.
        dense: Whether files shall be as small as they can be, however long they take to write.
    """
    # Before the commits: whoever publishes meanwhile takes the number, and this attempt, which knows less, comes to nothing.
    numbers = [int(Path(name).stem) for name in store.files.listing(f"compacted/run_id={run_id}")]
    rows = store.commit_rows(run_id)
    kept = {unit_id: rows[unit_id] for unit_id in sorted(rows) if unit_id not in without}
    tables = [table for table in sorted(SCHEMAS) if _is_to_be_rewritten(table, rows, without)]
    if not tables and not without and kept.keys() == store.compacted(run_id).keys():
        return False
    with tempfile.TemporaryDirectory(prefix="palimpsest-") as folder:
        for table in tables:
            kept = _put_together(store, run_id, table, kept, Path(folder), dense=dense)
        manifest = Path(folder) / "manifest.parquet"
        commits = pa.Table.from_pylist(list(kept.values()), schema=COMMITS)
        pq.write_table(commits, manifest, **_format(COMMITS, dense=dense))
        return store.files.create(f"compacted/run_id={run_id}/{max(numbers, default=0) + 1:08d}.parquet", manifest)


def _is_to_be_rewritten(table: str, rows: Mapping[str, CommitRow], without: Collection[str]) -> bool:
    """Return whether rows are to be left out of a table's shared file; where nothing is left out, whether it has small ones."""
    if without:
        files = (_file_of(row, table) for unit_id, row in rows.items() if unit_id in without)
        return any(file is not None and file.shared for file in files)
    files = (_file_of(row, table) for row in rows.values())
    return any(file is not None and not file.shared and file.size < LARGE_BYTES for file in files)


def _put_together(
    store: Store, run_id: str, table: str, rows: dict[str, CommitRow], folder: Path, *, dense: bool
) -> dict[str, CommitRow]:
    """Write one file of a table's small ones; return the commits as they name their files then."""
    small = {
        unit_id: row
        for unit_id, row in rows.items()
        if (found := _file_of(row, table)) is not None and (found.size < LARGE_BYTES or found.shared)
    }
    if not small:
        return rows
    path = folder / f"{table}.parquet"
    schema = SCHEMAS[table]
    with pq.ParquetWriter(path, schema, **_format(schema, dense=dense)) as writer:
        for group in _groups(store, table, small):
            writer.write_table(group, row_group_size=group.num_rows)
    name = f"{table}/run_id={run_id}/{uuid.uuid4().hex[:12]}{SHARED}"
    store.files.write(name, path)
    return rows | {unit_id: _with_file(row, table, name, path.stat().st_size) for unit_id, row in small.items()}


def _format(schema: pa.Schema, *, dense: bool) -> dict[str, Any]:
    """Return how a file is written: plainly, or so that names go by what the one before has not, and floats byte by byte."""
    repeating = _repeating(schema)
    if not dense:
        return {"compression": "zstd", "use_dictionary": repeating}
    floats = [field.name for field in schema if pa.types.is_floating(field.type)]
    names = [field.name for field in schema if pa.types.is_string(field.type) and field.name.endswith("_id")]
    return {
        "compression": "brotli",
        "compression_level": 11,
        "use_dictionary": [name for name in repeating if name not in names],
        "column_encoding": dict.fromkeys(floats, "BYTE_STREAM_SPLIT") | dict.fromkeys(names, "DELTA_BYTE_ARRAY"),
        # Of files this small these are most: nobody skips their row groups, and the store knows its schemas.
        "write_statistics": False,
        "store_schema": False,
    }


def _repeating(schema: pa.Schema) -> list[str]:
    """Return the columns whose values are worth a dictionary: one of floats is as long as they are."""
    lists = {field.name for field in schema if pa.types.is_list(field.type)}
    leaves = {field.name: field.type.value_type if field.name in lists else field.type for field in schema}
    return [
        f"{name}.list.element" if name in lists else name
        for name, leaf in leaves.items()
        if not pa.types.is_floating(leaf)
    ]


class _File(NamedTuple):
    name: str
    size: int

    @property
    def shared(self) -> bool:
        return self.name.endswith(SHARED)


def _file_of(row: CommitRow, table: str) -> _File | None:
    if table not in row["tables"]:
        return None
    place = row["tables"].index(table)
    return _File(row["files"][place], row["file_bytes"][place])


def _with_file(row: CommitRow, table: str, name: str, size: int) -> CommitRow:
    place = row["tables"].index(table)
    files, sizes = list(row["files"]), list(row["file_bytes"])
    files[place], sizes[place] = name, size
    return row | {"files": files, "file_bytes": sizes}


def _groups(store: Store, table: str, rows: dict[str, CommitRow]) -> Iterator[pa.Table]:
    """Yield the units' rows in the order of their names, several of one kind together until they are worth a row group."""
    waiting: list[pa.Table] = []
    enough, kind_before = _LEDGER_GROUP_BYTES if table == "ledger" else _GROUP_BYTES, ""
    for kind, part in _parts(store, table, rows):
        # Kinds apart: whoever asks for one passes the groups of others by.
        if waiting and (kind != kind_before or sum(each.nbytes for each in waiting) >= enough):
            yield pa.concat_tables(waiting).combine_chunks()
            waiting = []
        waiting.append(_with_all_columns(part, SCHEMAS[table]))
        kind_before = kind
    if waiting:
        yield pa.concat_tables(waiting).combine_chunks()


def _with_all_columns(part: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return rows as a table has them today; a column that it had not when they were written is NULL."""
    return pa.table(
        {
            field.name: part[field.name].cast(field.type)
            if field.name in part.column_names
            else pa.nulls(part.num_rows, field.type)
            for field in schema
        },
        schema=schema,
    )


def _parts(store: Store, table: str, rows: dict[str, CommitRow]) -> Iterator[tuple[str, pa.Table]]:
    """Yield each unit's kind and rows; a file of several units is read once for all that stand in it one after another."""
    files = [(file, row) for row in rows.values() if (file := _file_of(row, table)) is not None]
    for file, members in groupby(files, key=lambda pair: pair[0]):
        if not file.shared:
            (row,) = (row for _, row in members)
            yield row["kind"], store.read_parquet(file.name)
            continue
        kinds = {row["attempt"]: row["kind"] for _, row in members}
        attempts = pa.array(list(kinds))
        try:
            # Row group by row group: a shared file may be large.
            with pq.ParquetFile(store.files.local(file.name)) as shared:
                for number in range(shared.num_row_groups):
                    group = shared.read_row_group(number)
                    wanted = group.filter(pc.is_in(group["attempt"], attempts))
                    if wanted.num_rows:
                        yield kinds[wanted["attempt"][0].as_py()], wanted
        except (OSError, pa.ArrowException) as error:
            raise store.damaged(file.name, error) from error
