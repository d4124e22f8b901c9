"""The store: immutable Parquet files and one commit file per unit of work, written last.

    <store>/<table>/run_id=<run>/<unit>.<attempt>.parquet    data, unique per attempt
    <store>/commits/run_id=<run>/<unit>.parquet              created exclusively: the first writer wins
    <store>/_tmp/                                            files being written
    <store>/<table>/run_id=_/empty.parquet                   fixes the table's columns, and makes its glob match
    <store>/artifacts/                                       see artifacts.py

A unit is done if and only if its commit file exists.  Data of an attempt that never committed is not seen by any view.
"""

import contextlib
import json
import math
import os
import platform
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from storage.errors import DamagedFileError, StorageError, StoreVersionError
from storage.schemas import COMMITS, SCHEMA_VERSION, SCHEMAS

Row = Mapping[str, Any]
NO_RUN = "_"
"""The partition of the empty files that fix each table's columns."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")


@dataclass(frozen=True, kw_only=True)
class Commit:
    """One finished unit of work."""

    run_id: str
    unit_id: str
    attempt: str
    kind: str
    recipe: str | None
    status: str
    first_round: int | None
    last_round: int | None
    digest: str | None
    tables: tuple[str, ...]
    files: tuple[str, ...]
    file_bytes: tuple[int, ...]
    spec: dict[str, Any]
    message: str | None
    seconds: float | None


@dataclass(frozen=True, kw_only=True)
class CommitInfo:
    """What a unit says of itself when it commits."""

    kind: str
    recipe: str | None = None
    """How something was scored, where that can change: views show what a run's newest recipe gave, never a mixture."""
    status: str = "done"
    """``done``, or ``quarantined`` for a unit that failed every attempt."""
    first_round: int | None = None
    last_round: int | None = None
    """A segment holds rounds [first_round, last_round)."""
    digest: str | None = None
    """Of the edited parameters after the unit."""
    spec: Row = field(default_factory=dict)
    message: str | None = None
    seconds: float | None = None


def failure_id(unit_id: str, number: int | str) -> str:
    """Return the name of the commit that says that a unit was given up, once more each time."""
    return f"failed-{unit_id}-{number}"


class Store:
    """A results directory.

    Args:
        root: The directory; created with its schema files if ``create``.

    Raises:
        StorageError: There is no store at ``root`` and ``create`` is False.
        StoreVersionError: The store was written with another schema version.
    """

    def __init__(self, root: str | Path, *, create: bool = False) -> None:
        self.root = Path(root).absolute()
        marker = self.root / "store.json"
        if not marker.exists():
            if not create:
                raise StorageError(
                    f"no store at {self.root}: store.json is missing; expected a directory written by `palimpsest run`; "
                    "check --store"
                )
            self._initialise()
        try:
            found = json.loads(marker.read_text()).get("schema_version")
        except (ValueError, AttributeError) as error:
            raise DamagedFileError(
                f'{marker} is not readable JSON ({error}); expected {{"schema_version": {SCHEMA_VERSION}}}; restore it'
            ) from error
        if found != SCHEMA_VERSION:
            raise StoreVersionError(
                f"the store {self.root} has schema version {found}, this version of palimpsest reads and writes "
                f"{SCHEMA_VERSION}; use another store, or the palimpsest version that wrote it; nothing was changed"
            )

    # --- writing

    def commit(self, run_id: str, unit_id: str, tables: Mapping[str, Sequence[Row]], info: CommitInfo) -> bool:
        """Publish a unit's rows, then its commit; return False if another attempt had committed it before.

        Killed at any instant, the unit is either wholly there or not at all.

        Raises:
            StorageError: A table or column that has no schema.
        """
        _check_name(run_id)
        _check_name(unit_id)
        attempt = uuid.uuid4().hex[:12]
        files, counts, sizes = [], [], []
        for name, rows in tables.items():
            if not rows:
                continue
            path = self.root / name / f"run_id={run_id}" / f"{unit_id}.{attempt}.parquet"
            self._publish(_table(name, rows, unit_id, attempt), path, exclusive=False)
            files.append(path.relative_to(self.root).as_posix())
            counts.append(len(rows))
            sizes.append(path.stat().st_size)
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
            "host": platform.node(),
            "seconds": info.seconds,
            "finished_at": datetime.now(UTC),
        }
        path = self._commit_path(run_id, unit_id)
        return self._publish(pa.Table.from_pylist([row], schema=COMMITS), path, exclusive=True)

    def withdraw(self, run_id: str, unit_id: str) -> None:
        """Forget a commit, so that its unit is done again; its data files stay, unseen."""
        self._commit_path(run_id, unit_id).unlink(missing_ok=True)

    # --- reading

    def is_committed(self, run_id: str, unit_id: str) -> bool:
        return self._commit_path(run_id, unit_id).exists()

    def gave_up(self, run_id: str, unit_id: str) -> bool:
        """Return whether a unit has failed every attempt that some command gave it."""
        return any((self.root / "commits" / f"run_id={run_id}").glob(f"{failure_id(unit_id, '*')}.parquet"))

    def run_ids(self) -> list[str]:
        """Return the ids of all runs and preparation units with a commit."""
        found = (path.name.removeprefix("run_id=") for path in (self.root / "commits").glob("run_id=*"))
        return sorted(run_id for run_id in found if run_id != NO_RUN)

    def commits(self, run_id: str) -> dict[str, Commit]:
        """Return a run's commits by unit id, in the order of the names."""
        paths = sorted((self.root / "commits" / f"run_id={run_id}").glob("*.parquet"))
        found = (self.read_commit(run_id, path.stem) for path in paths)
        return {commit.unit_id: commit for commit in found if commit is not None}

    def read_commit(self, run_id: str, unit_id: str) -> Commit | None:
        """Return one commit, or None.

        Raises:
            DamagedFileError: The commit file is not readable.
        """
        path = self._commit_path(run_id, unit_id)
        if not path.exists():
            return None
        (row,) = _read(path).to_pylist()
        return Commit(
            run_id=run_id,
            unit_id=row["unit_id"],
            attempt=row["attempt"],
            kind=row["kind"],
            recipe=row["recipe"],
            status=row["status"],
            first_round=row["first_round"],
            last_round=row["last_round"],
            digest=row["digest"],
            tables=tuple(row["tables"]),
            files=tuple(row["files"]),
            file_bytes=tuple(row["file_bytes"]),
            spec=json.loads(row["spec"]),
            message=row["message"],
            seconds=row["seconds"],
        )

    def rows(self, commit: Commit, table: str) -> list[dict[str, Any]]:
        """Return the rows of one table that a commit published.

        Raises:
            DamagedFileError: The file is missing, truncated or unreadable.
        """
        out: list[dict[str, Any]] = []
        for name, file in zip(commit.tables, commit.files, strict=True):
            if name == table:
                out += _read(self.root / file).to_pylist()
        return out

    def check(self, run_ids: Iterable[str]) -> None:
        """Raise DamagedFileError if a committed file of these runs is missing or has another size than committed."""
        for run_id in run_ids:
            for commit in self.commits(run_id).values():
                for file, size in zip(commit.files, commit.file_bytes, strict=True):
                    path = self.root / file
                    found = path.stat().st_size if path.exists() else None
                    if found != size:
                        raise DamagedFileError(
                            f"{path} is {'missing' if found is None else f'{found} bytes long'}; its commit says {size} "
                            f"bytes; restore the file from a backup, or delete {self._commit_path(run_id, commit.unit_id)} "
                            "so that the next run computes this unit again; nothing else is affected"
                        )

    # --- files

    def _initialise(self) -> None:
        for name, schema in {**SCHEMAS, "commits": COMMITS}.items():
            path = self.root / name / f"run_id={NO_RUN}" / "empty.parquet"
            self._publish(schema.empty_table(), path, exclusive=False)
        marker = self.root / "store.json"
        temporary = self._temporary()
        temporary.write_text(json.dumps({"schema_version": SCHEMA_VERSION}) + "\n")
        temporary.replace(marker)

    def _commit_path(self, run_id: str, unit_id: str) -> Path:
        return self.root / "commits" / f"run_id={run_id}" / f"{unit_id}.parquet"

    def _temporary(self) -> Path:
        folder = self.root / "_tmp"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / uuid.uuid4().hex

    def _publish(self, table: pa.Table, final: Path, *, exclusive: bool) -> bool:
        temporary = self._temporary()
        with temporary.open("wb") as stream:
            pq.write_table(table, stream, compression="zstd")
            stream.flush()
            os.fsync(stream.fileno())
        final.parent.mkdir(parents=True, exist_ok=True)
        try:
            if exclusive:
                os.link(temporary, final)
            else:
                temporary.replace(final)
            _sync_directory(final.parent)
        except FileExistsError:
            return False
        finally:
            temporary.unlink(missing_ok=True)
        return True


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


def _read(path: Path) -> pa.Table:
    try:
        return pq.ParquetFile(path).read()
    except (OSError, pa.ArrowException) as error:
        raise DamagedFileError(
            f"{path} cannot be read ({error}); expected a Parquet file written by palimpsest; restore it from a backup, or "
            "delete the commit file of its unit so that the next run computes it again"
        ) from error


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise StorageError(f"{name!r} cannot name a run or unit; expected letters, digits and _ . + - only")


def _sync_directory(path: Path) -> None:
    with _opened(path) as descriptor:
        os.fsync(descriptor)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
