"""Commits: what says that a unit of work is done, and in which files its rows are."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import pyarrow as pa

from storage.errors import DamagedFileError
from storage.schemas import COMMITS, SCHEMAS

_PYTHON = {pa.string(): (str, type(None)), pa.int64(): (int, type(None)), pa.float64(): (float, int, type(None))}
_TYPES = {
    field.name: (list,) if pa.types.is_list(field.type) else _PYTHON[field.type]
    for field in COMMITS
    if field.name != "finished_at"
}
"""Of each column, the types that it may have in a commit's file: JSON has others, too."""
_LISTS = {
    field.name: int if pa.types.is_integer(field.type.value_type) else str
    for field in COMMITS
    if pa.types.is_list(field.type)
}
_NEEDED = ("unit_id", "attempt", "kind", "status", "spec")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
CommitRow = dict[str, Any]
"""A commit as it is written: the columns of ``COMMITS``."""


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
    spec: Mapping[str, Any] = field(default_factory=dict)
    message: str | None = None
    log: str | None = None
    """What was said while the unit was done: warnings, and how its weights came to stand."""
    seconds: float | None = None


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


def commit_of(run_id: str, row: CommitRow) -> Commit:
    """Return a commit by its row.

    Raises:
        DamagedFileError: What its unit says of itself cannot be read.
    """
    try:
        spec = json.loads(row["spec"])
        if not isinstance(spec, dict):
            raise ValueError(f"found {spec!r}")
    except ValueError as error:
        raise DamagedFileError(
            f"the commit {run_id}/{row['unit_id']}.json says spec {row['spec']!r} ({error}); expected a table in JSON, as "
            "palimpsest writes it; restore it from a backup, or withdraw the unit so that the next run computes it again"
        ) from error
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
        spec=spec,
        message=row["message"],
        seconds=row["seconds"],
    )


def to_json(row: CommitRow) -> bytes:
    return (json.dumps(row | {"finished_at": row["finished_at"].isoformat()}) + "\n").encode()


def _check(found: CommitRow, unit_id: str) -> None:
    """Raise for what JSON can say and a commit's columns cannot hold, or no commit says."""
    for column, types in _TYPES.items():
        value = found[column]
        if type(value) not in types or (isinstance(value, int) and not -(2**63) <= value < 2**63):
            raise TypeError(f"{column} is {value!r}")
        if isinstance(value, str) and not value.isascii():
            value.encode()
    for column, kind in _LISTS.items():
        if any(type(item) is not kind for item in found[column]) or len(found[column]) != len(found["tables"]):
            raise TypeError(f"{column} is {found[column]!r}")
    if missing := [column for column in _NEEDED if found[column] is None]:
        raise TypeError(f"{missing[0]} is null")
    if unknown := [table for table in found["tables"] if table not in SCHEMAS]:
        raise ValueError(f"no table {unknown[0]!r}")
    if found["unit_id"] != unit_id:
        raise ValueError(f"unit_id is {found['unit_id']!r}")


def from_json(content: bytes, name: str) -> CommitRow:
    """Return the row of a commit file.

    Raises:
        DamagedFileError: It is not one.
    """
    try:
        row = json.loads(content)
        found = {column: row[column] for column in COMMITS.names}
        _check(found, PurePosixPath(name).stem)
        return found | {"finished_at": datetime.fromisoformat(found["finished_at"])}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DamagedFileError(
            f"{name} cannot be read ({type(error).__name__}: {error}); expected a commit written by palimpsest; restore it "
            "from a backup, or delete it so that the next run computes its unit again"
        ) from error


def from_table(table: pa.Table) -> list[CommitRow]:
    """Return the rows of a table of commits, which may lack columns."""
    # Arrow makes times with a zone five times slower than this does, and rows slower than columns.
    columns = {name: table[name].to_pylist() for name in table.schema.names if name != "finished_at"}
    if "finished_at" in table.schema.names:
        microseconds = table["finished_at"].cast(pa.int64()).to_pylist()
        columns["finished_at"] = [_EPOCH + timedelta(microseconds=since) for since in microseconds]
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def commits_table(rows: Iterable[tuple[str, CommitRow]]) -> pa.Table:
    """Return commits with their runs as an Arrow table, as SQL sees them."""
    schema = pa.schema([pa.field("run_id", pa.string()), *COMMITS])
    return pa.Table.from_pylist([{"run_id": run_id, **row} for run_id, row in rows], schema=schema)


class ScoringRecipe(NamedTuple):
    """How a kind of units is to be scored, as some command has wanted it; the one with the highest number holds."""

    number: int
    recipe: str | None


NO_RECIPE = ScoringRecipe(-1, None)


def recipe_id(kind: str, number: int) -> str:
    """Return the name of the commit that says how a kind of units is to be scored from now on."""
    return f"recipe-{kind}-{number:06d}"


def newest_recipes(rows: Mapping[str, CommitRow]) -> dict[str, ScoringRecipe]:
    """Return by kind of unit how the last command wanted it scored."""
    found: dict[str, ScoringRecipe] = {}
    for row in rows.values():
        if row["kind"] == "recipe":
            kind, _, number = row["unit_id"].removeprefix("recipe-").partition("-")
            found[kind] = max(found.get(kind, NO_RECIPE), ScoringRecipe(int(number or 0), row["recipe"]))
    return found


def stale(rows: Mapping[str, CommitRow]) -> set[str]:
    """Return the units of a run that were scored in another way than the last command wanted: no view shows their rows.

    Rows of two recipes never stand side by side.
    """
    wanted = {kind: newest.recipe for kind, newest in newest_recipes(rows).items()}

    def is_stale(row: CommitRow) -> bool:
        made, now = row["recipe"], wanted.get(row["kind"])
        return row["kind"] != "recipe" and made is not None and now is not None and made != now

    return {unit_id for unit_id, row in rows.items() if is_stale(row)}
