"""Compaction: many small files of a run become one per table, and its commits one file; and what nobody needs is cleared away.

A compaction is a file ``compacted/run_id=<run>/<number>.parquet`` with the commits of all units whose rows it has put
together, or has left where they were (after a withdrawal); the highest number holds, and what it names wins over commit
files of the same units.  It is created exclusively and last, so that a reader sees the run either before it or after it.
What it replaces stays until :func:`gc`.
"""

import tempfile
import uuid
from collections.abc import Collection, Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from storage.artifacts import CARD
from storage.commits import CommitRow
from storage.errors import DamagedFileError
from storage.files import Entry
from storage.schemas import COMMITS, SCHEMAS
from storage.store import SHARED, Store, commit_name, run_of

LARGE_BYTES = 8 * 2**20
"""Files from this size on stay as they are: there is nothing to win, and a ledger may be of many gigabytes."""
_GROUP_BYTES = 32 * 2**20
"""Of rows in memory, after which a row group ends: SQL is fastest with about a hundred thousand rows at a time."""
_LEDGER_GROUP_BYTES = 4 * 2**20
"""Ledgers are read unit by unit, each time with the others' rows in its group."""
_OF_RUNS = {*SCHEMAS, "commits", "compacted"}


class Cleared(NamedTuple):
    """What :func:`gc` has deleted, or would delete."""

    files: int
    bytes: int


def compact(store: Store, run_id: str, *, without: Collection[str] = ()) -> bool:
    """Put a run's committed rows together; return whether anything was to be done and no other compaction was faster.

    Killed at any instant, it has not happened.

    Args:
        without: Units whose commits no longer hold.
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
            kept = _put_together(store, run_id, table, kept, Path(folder))
        manifest = Path(folder) / "manifest.parquet"
        pq.write_table(pa.Table.from_pylist(list(kept.values()), schema=COMMITS), manifest, compression="zstd")
        return store.files.create(f"compacted/run_id={run_id}/{max(numbers, default=0) + 1:08d}.parquet", manifest)


def _is_to_be_rewritten(table: str, rows: Mapping[str, CommitRow], without: Collection[str]) -> bool:
    """Return whether rows are to be left out of a table's shared file; where nothing is left out, whether it has small ones."""
    if without:
        files = (_file_of(row, table) for unit_id, row in rows.items() if unit_id in without)
        return any(file is not None and file.shared for file in files)
    files = (_file_of(row, table) for row in rows.values())
    return any(file is not None and not file.shared and file.size < LARGE_BYTES for file in files)


def withdraw(store: Store, run_id: str, unit_id: str) -> set[str]:
    """Forget a commit, so that its unit is done again; its rows stay, unseen, until :func:`gc`.

    Returns:
        The units that were forgotten: with it, those whose rows lie in the same file where that cannot be read any more.

    Raises:
        DamagedFileError: Rows of the run that do not lie beside the unit's cannot be read.
    """
    forgotten, is_done = {unit_id}, False
    while not is_done:
        # First the commit files, then a compaction without them: one under way that has read them comes to nothing.
        for name in forgotten:
            store.files.delete(commit_name(run_id, name))
        try:
            is_done = compact(store, run_id, without=forgotten)
        except DamagedFileError:
            lost = _unreadable(store, store.compacted(run_id))
            if lost <= forgotten:
                raise
            forgotten |= lost
    return forgotten


def _unreadable(store: Store, rows: Mapping[str, CommitRow]) -> set[str]:
    """Return the units of a compaction with rows in a file that cannot be read."""
    damaged = set()
    for name in sorted({file for row in rows.values() for file in row["files"] if file.endswith(SHARED)}):
        try:
            store.read_parquet(name)
        except DamagedFileError:
            damaged.add(name)
    return {unit_id for unit_id, row in rows.items() if not damaged.isdisjoint(row["files"])}


def _put_together(
    store: Store, run_id: str, table: str, rows: dict[str, CommitRow], folder: Path
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
    with pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=_repeating(schema)) as writer:
        for group in _groups(store, table, small):
            writer.write_table(group, row_group_size=group.num_rows)
    name = f"{table}/run_id={run_id}/{uuid.uuid4().hex[:12]}{SHARED}"
    store.files.write(name, path)
    return rows | {unit_id: _with_file(row, table, name, path.stat().st_size) for unit_id, row in small.items()}


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
        waiting.append(part.cast(SCHEMAS[table]))
        kind_before = kind
    if waiting:
        yield pa.concat_tables(waiting).combine_chunks()


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


def gc(store: Store, *, grace_s: float, dry_run: bool = False) -> Cleared:
    """Delete what no commit names any more: replaced small files, rows of attempts that never committed, leftovers.

    Args:
        grace_s: Only what has stood for so long, by the clock of the store's own disk.  It must be longer than any query,
            and than a writer takes from its first file to its commit.
    """
    store.files.write("_tmp/clock", b"")
    everything = store.files.listing("")
    now = everything["_tmp/clock"].modified
    old = {name for name, entry in everything.items() if now - entry.modified >= grace_s}
    cleared: set[str] = set()

    def clear(garbage: set[str]) -> None:
        for name in sorted(garbage & old) if not dry_run else ():
            store.files.delete(name)
        cleared.update(garbage & old)

    clear(
        {name for name in old if name.startswith(("_tmp/", "control/cancel-"))} | _half_made_artifacts(set(everything))
    )
    for run_id in sorted({run_of(name) for name in everything if name.split("/")[0] in _OF_RUNS}):
        clear(_replaced(store, run_id, everything, old))
    return Cleared(len(cleared), sum(everything[name].size for name in cleared))


def _replaced(store: Store, run_id: str, everything: Mapping[str, Entry], old: set[str]) -> set[str]:
    """Return the files of a run that its commits do not name; nothing while its newest compaction is young.

    Args:
        everything: What there was a while ago, and is older than the grace.
    """
    numbers = sorted(name for name in everything if name.startswith(f"compacted/run_id={run_id}/"))
    if numbers and numbers[-1] not in old:
        return set()
    needed = {file for row in store.commit_rows(run_id).values() for file in row["files"]}
    replaced = {commit_name(run_id, unit_id) for unit_id in store.compacted(run_id)}
    data = {name for name in everything if name.split("/")[0] in SCHEMAS and run_of(name) == run_id}
    # A commit that was withdrawn and made anew meanwhile has the name of the one that was replaced.
    commits = {
        name
        for name, entry in store.files.listing(f"commits/run_id={run_id}").items()
        if name in replaced and entry == everything.get(name)
    }
    if sorted(store.files.listing(f"compacted/run_id={run_id}")) != numbers:
        return set()  # compacted since: what that has replaced is not old yet
    return (data - needed) | commits | set(numbers[:-1])


def _half_made_artifacts(everything: set[str]) -> set[str]:
    found = {name for name in everything if name.startswith("artifacts/")}
    return {name for name in found if f"{name.rpartition('/')[0]}/{CARD}" not in found}
