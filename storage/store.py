"""The store: immutable Parquet files and one commit file per unit of work, written last.

    <store>/<table>/run_id=<run>/<unit>.<attempt>.parquet    data, unique per attempt
    <store>/commits/run_id=<run>/<unit>.json                 created exclusively: the first writer wins
    <store>/compacted/run_id=<run>/<number>.parquet          created exclusively: commits whose rows were put together; the
                                                             highest number holds, see compaction.py
    <store>/artifacts/                                       see artifacts.py
    <store>/_tmp/                                            files being written

A unit is done if and only if it is committed.  Data of an attempt that never committed is not seen by any view.
"""

import json
import math
import platform
import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from storage.commits import Commit, CommitInfo, CommitRow, commit_of, from_json, from_table, to_json
from storage.errors import DamagedFileError, StorageError, StoreUnavailableError, StoreVersionError
from storage.files import MARKER, Entry, Files
from storage.locations import open_files
from storage.retrying import PatientFiles
from storage.schemas import SCHEMA_VERSION, SCHEMAS

Row = Mapping[str, Any]
SHARED = ".compacted.parquet"
"""How names of data files end that hold rows of several units."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")


def failure_id(unit_id: str, number: int | str) -> str:
    """Return the name of the commit that says that a unit was given up, once more each time."""
    return f"failed-{unit_id}-{number}"


class Store:
    """A place for results.

    Args:
        root: A directory, or a bucket's ``s3://BUCKET/PREFIX``; made a store if ``create``.
        patience_s: For how long to wait where the place does not answer, is full or is not mounted.

    Raises:
        StorageError: There is no store at ``root`` and ``create`` is False.
        StoreVersionError: The store was written with another schema version.
    """

    def __init__(self, root: str | Path, *, create: bool = False, patience_s: float = 0.0) -> None:
        files = open_files(root)
        self.location = files.location
        self.files: Files = files if not patience_s else PatientFiles(files, patience_s)
        self._compacted: dict[str, tuple[tuple[Any, ...], dict[str, CommitRow]]] = {}
        if patience_s and not create:
            self.files.size(MARKER)  # waits for a store that is not mounted yet
        try:
            marker = files.read(MARKER)
        except FileNotFoundError:
            if not create:
                below = ", ".join(sorted(path.parent.as_posix() for path in Path(root).glob(f"*/{MARKER}")))
                raise StorageError(
                    f"no store at {self.location}: {MARKER} is missing; expected a directory written by `palimpsest run`; "
                    f"{f'below it are {below}: give one as --store' if below else 'check --store'}"
                ) from None
            self.files.make()
            marker = (json.dumps({"schema_version": SCHEMA_VERSION}) + "\n").encode()
            self.files.write(MARKER, marker)
        try:
            said = json.loads(marker)
            found, self.is_summary = said.get("schema_version"), bool(said.get("summary"))
        except (ValueError, AttributeError) as error:
            raise DamagedFileError(
                f"{self.location}/{MARKER} is not readable JSON ({error}); expected "
                f'{{"schema_version": {SCHEMA_VERSION}}}; restore it'
            ) from error
        if found != SCHEMA_VERSION:
            raise StoreVersionError(
                f"the store {self.location} has schema version {found}, this version of palimpsest reads and writes "
                f"{SCHEMA_VERSION}; use another store, or the palimpsest version that wrote it; nothing was changed"
            )

    def refuse_summary(self, wanted: str) -> None:
        """Raise StorageError where the store is a summary, which has neither weights nor artifacts.

        Args:
            wanted: What needs them, as the beginning of a sentence.
        """
        if self.is_summary:
            raise StorageError(
                f"{wanted} needs weights and artifacts; {self.location} is a summary of a store, for queries, figures and "
                "reports: give the store that it was made of, or another"
            )

    # --- writing

    def commit(self, run_id: str, unit_id: str, tables: Mapping[str, Sequence[Row]], info: CommitInfo) -> bool:
        """Publish a unit's rows, then its commit; return False if another attempt had committed it before.

        Killed at any instant, the unit is either wholly there or not at all.

        Raises:
            StorageError: A table or column that has no schema.
            StoreUnavailableError: The store cannot be written for longer than ``patience_s``.
        """
        check_name(run_id)
        check_name(unit_id)
        attempt = uuid.uuid4().hex[:12]
        files, counts, sizes = [], [], []
        for name, rows in tables.items():
            if not rows:
                continue
            content = parquet_bytes(_table(name, rows, unit_id, attempt))
            files.append(f"{name}/run_id={run_id}/{unit_id}.{attempt}.parquet")
            counts.append(len(rows))
            sizes.append(len(content))
            self.files.write(files[-1], content)
        row = {
            "unit_id": unit_id,
            "attempt": attempt,
            "schema_version": SCHEMA_VERSION,
            "kind": info.kind,
            "recipe": info.recipe,
            "status": info.status,
            "first_round": info.first_round,
            "last_round": info.last_round,
            "digest": info.digest,
            "tables": [name for name, rows in tables.items() if rows],
            "files": files,
            "file_rows": counts,
            "file_bytes": sizes,
            "spec": json.dumps(dict(info.spec), sort_keys=True),
            "message": info.message,
            "log": info.log,
            "host": platform.node(),
            "seconds": info.seconds,
            "finished_at": datetime.now(UTC),
        }
        if not self.files.create(commit_name(run_id, unit_id), to_json(row)):
            return False
        if unit_id in self.compacted(run_id):
            # Compacted, and its commit file cleared away, between this attempt's start and its end.
            self.files.delete(commit_name(run_id, unit_id))
            return False
        return True

    # --- reading

    def is_committed(self, run_id: str, unit_id: str) -> bool:
        return self.files.size(commit_name(run_id, unit_id)) is not None or unit_id in self.compacted(run_id)

    def committed(self, run_id: str) -> set[str]:
        """Return the names of all units of a run that are committed, with two questions to the store's place."""
        names = self.files.listing(f"commits/run_id={run_id}")
        return {PurePosixPath(name).stem for name in names} | self.compacted(run_id).keys()

    def gave_up(self, run_id: str, unit_id: str) -> bool:
        """Return whether a unit has failed every attempt that some command gave it."""
        return self.failures(run_id, unit_id) > 0

    def failures(self, run_id: str, unit_id: str) -> int:
        """Return how many commands have given a unit up."""
        prefix = failure_id(unit_id, "")
        return sum(name.startswith(prefix) for name in self.committed(run_id))

    def run_ids(self) -> list[str]:
        """Return the ids of all runs and preparation units with a commit."""
        names = [*self.files.listing("commits"), *self.files.listing("compacted")]
        return sorted({run_of(name) for name in names})

    def commits(self, run_id: str) -> dict[str, Commit]:
        """Return a run's commits by unit id, in the order of the names."""
        rows = self.commit_rows(run_id)
        return {unit_id: commit_of(run_id, rows[unit_id]) for unit_id in sorted(rows)}

    def commit_rows(
        self, run_id: str, names: Iterable[str] | None = None, columns: Sequence[str] | None = None
    ) -> dict[str, CommitRow]:
        """Return a run's commits as they are written, by unit id.

        Args:
            names: Of its commit files, where they are known already.
            columns: All that is needed of them; the others may be left out.
        """
        found = dict(self.compacted(run_id, columns))
        wanted = self.files.listing(f"commits/run_id={run_id}") if names is None else names
        small = self.files.read_all(name for name in wanted if PurePosixPath(name).stem not in found)
        rows = [from_json(content, f"{self.location}/{name}") for name, content in small.items()]
        return found | {row["unit_id"]: row for row in rows}

    def read_commit(self, run_id: str, unit_id: str) -> Commit | None:
        """Return one commit, or None.

        Raises:
            DamagedFileError: The commit file is not readable.
        """
        row = self.compacted(run_id).get(unit_id) or self._commit_row(commit_name(run_id, unit_id))
        return None if row is None else commit_of(run_id, row)

    def rows(self, commit: Commit, table: str) -> list[dict[str, Any]]:
        """Return the rows of one table that a commit published.

        Raises:
            DamagedFileError: The file is missing, truncated or unreadable.
        """
        out: list[dict[str, Any]] = []
        mine = [("unit_id", "=", commit.unit_id), ("attempt", "=", commit.attempt)]
        for name, file in zip(commit.tables, commit.files, strict=True):
            if name == table:
                out += self.read_parquet(file, filters=mine if file.endswith(SHARED) else None).to_pylist()
        return out

    def check(self, run_ids: Iterable[str]) -> None:
        """Raise DamagedFileError if a committed file of these runs is missing or has another size than committed."""
        for run_id in run_ids:
            commits = self.commits(run_id).values()
            there: dict[str, Entry] = {}
            for table in sorted({table for commit in commits for table in commit.tables}):
                there |= self.files.listing(f"{table}/run_id={run_id}")
            for commit in commits:
                for file, size in zip(commit.files, commit.file_bytes, strict=True):
                    found = there[file].size if file in there else None
                    if found != size:
                        raise DamagedFileError(
                            f"{self.location}/{file} is {'missing' if found is None else f'{found} bytes long'}; its commit "
                            f"says {size} bytes; restore the file from a backup, or run `palimpsest withdraw {run_id} "
                            f"{commit.unit_id}` so that the next run computes this unit again; nothing else is affected"
                        )

    def check_content(self, tables: Iterable[str]) -> None:
        """Raise DamagedFileError if a committed file of these tables, whose size is right, cannot be read all the same."""
        wanted = set(tables)
        for run_id in self.run_ids():
            for commit in self.commits(run_id).values():
                for table, file in zip(commit.tables, commit.files, strict=True):
                    if table in wanted:
                        self.read_parquet(file)

    def compacted(self, run_id: str, columns: Sequence[str] | None = None) -> dict[str, CommitRow]:
        """Return the commits of a run that the newest compaction holds, by unit id; all columns, or these."""
        for _ in range(3):
            there = self.files.listing(f"compacted/run_id={run_id}")
            if not there:
                return {}
            newest = max(there)
            # With size and time: a run that was removed and made anew counts from one again.
            state, known = (newest, there[newest], columns), self._compacted.get(run_id)
            if known is not None and known[0] == state:
                return known[1]
            try:
                # Not by its path, where a bucket's file may be kept: numbers are given again once a run was removed.
                content = self.files.read(newest)
            except FileNotFoundError:  # a newer one has taken its place meanwhile
                continue
            found = {row["unit_id"]: row for row in self._parsed(newest, content, columns)}
            self._compacted[run_id] = state, found
            return found
        raise StoreUnavailableError(
            f"the compaction of {run_id} in {self.location} changes faster than it can be read; try again"
        )

    def read_parquet(self, name: str, filters: Any = None) -> pa.Table:
        """Return what a Parquet file holds.

        Raises:
            DamagedFileError: It is missing, truncated or unreadable.
        """
        try:
            return pq.read_table(self.files.local(name), filters=filters, partitioning=None)
        except (OSError, pa.ArrowException):
            pass  # said below
        try:
            # As bytes, since that waits for a store that is away just now, and passes a damaged copy of a bucket's file by.
            return pq.read_table(BytesIO(self.files.read(name)), filters=filters)
        except (OSError, pa.ArrowException) as error:
            raise self.damaged(name, error) from error

    def _parsed(self, name: str, content: bytes, columns: Sequence[str] | None) -> list[CommitRow]:
        try:
            # One thread: the file is small, and what many would win their start would take.
            return from_table(pq.ParquetFile(BytesIO(content)).read(columns, use_threads=False))
        except (OSError, pa.ArrowException) as error:
            raise self.damaged(name, error) from error

    def damaged(self, name: str, error: Exception) -> DamagedFileError:
        """Return the error that says that a data file cannot be read, and what to do."""
        return DamagedFileError(
            f"{self.location}/{name} cannot be read ({error}); expected a Parquet file written by palimpsest; restore it "
            "from a backup, or forget its unit with `palimpsest withdraw` so that the next run computes it again"
        )

    def _commit_row(self, name: str) -> CommitRow | None:
        try:
            return from_json(self.files.read(name), f"{self.location}/{name}")
        except FileNotFoundError:
            return None


def commit_name(run_id: str, unit_id: str) -> str:
    return f"commits/run_id={run_id}/{unit_id}.json"


def run_of(name: str) -> str:
    """Return the run that a file of the store is of."""
    return name.split("/")[1].removeprefix("run_id=")


def check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise StorageError(f"{name!r} cannot name a run or unit; expected letters, digits and _ . + - only")


def parquet_bytes(table: pa.Table) -> bytes:
    """Return a table as a Parquet file."""
    stream = BytesIO()
    pq.write_table(table, stream, compression="zstd")
    return stream.getvalue()


def _table(name: str, rows: Sequence[Row], unit_id: str, attempt: str) -> pa.Table:
    if name not in SCHEMAS:
        raise StorageError(
            f"no table {name!r}; expected one of {sorted(SCHEMAS)}; add its schema to storage/schemas.py"
        )
    schema = SCHEMAS[name]
    known = set(schema.names)
    unknown = set(rows[0]) - known
    if unknown:
        raise StorageError(f"table {name!r} has no columns {sorted(unknown)}; expected some of {sorted(known)}")
    stamped = [
        {"unit_id": unit_id, "attempt": attempt, **{key: _without_nan(value) for key, value in row.items()}}
        for row in rows
    ]
    return pa.Table.from_pylist(stamped, schema=schema)


def _without_nan(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, (list, tuple)):
        return [_without_nan(item) for item in value]
    return value
