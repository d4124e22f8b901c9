"""What a SQL statement may do: read the store and files of one's own; write, where asked to, but never below the store."""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import duckdb

from storage.errors import QueryError

_EXPLAIN = re.compile(r"EXPLAIN\b\s*(?:ANALY[SZ]E\b\s*)?", re.IGNORECASE)
_MODIFIES = re.compile(r"\b(?:COPY|INSERT|UPDATE|DELETE|MERGE)\b", re.IGNORECASE)
_LISTS = re.compile(r"\b(?:SHOW|information_schema|sqlite_master|duckdb_(?:tables|views|columns))\b", re.IGNORECASE)
"""Statements about all tables, which name none of them."""
READING = "SELECT, DESCRIBE, SHOW, SUMMARIZE, or EXPLAIN of one of these"


def lists_tables(sql: str) -> bool:
    """Whether a statement may ask which tables there are."""
    return _LISTS.search(sql) is not None


def only_statement(sql: str) -> duckdb.Statement:
    """Return the one statement of a text.

    Raises:
        QueryError: There is none, there are several, or DuckDB cannot parse it.
    """
    try:
        found = duckdb.extract_statements(sql)
    except duckdb.Error as error:
        raise QueryError(str(error).split("LINE ")[0].strip()) from None
    if not found:
        raise QueryError("there is no SQL statement; expected one, such as SELECT * FROM run_summary")
    if len(found) > 1:
        raise QueryError(f"there are {len(found)} SQL statements; expected one: run each by itself")
    return found[0]


def is_reading(statement: duckdb.Statement) -> bool:
    """Whether a statement is one of those that only read, by DuckDB's own parser; what is inside of it is not bound yet."""
    text = statement.query.strip()
    if statement.type == duckdb.StatementType.SELECT:
        return True
    bare = _without_comments(text)
    explain = _EXPLAIN.match(bare)
    if explain:
        behind = bare[explain.end() :]
        return any(_parses_as_reading(candidate) for candidate in (behind, _behind_options(behind)))
    # PIVOT is two statements to DuckDB, and so is what writes or makes a table of one: only PIVOT itself can be selected from.
    return statement.type == duckdb.StatementType.MULTI and _parses(_wrapped(text))


def may_modify(statement: duckdb.Statement) -> bool:
    """Whether a statement that reads could have a part that writes (`WITH a AS (COPY ...)`), which only binding can tell."""
    return _MODIFIES.search(statement.query) is not None


def refuse_modifying(connection: duckdb.DuckDBPyConnection, statement: duckdb.Statement) -> None:
    """Let DuckDB bind a statement as a part of another, where it allows no part to write.

    Raises:
        QueryError: It writes.
    """
    text = _without_comments(statement.query.strip())
    explain = _EXPLAIN.match(text)
    if explain:
        behind = text[explain.end() :]
        text = behind if _parses_as_reading(behind) else _behind_options(behind)
    try:
        connection.sql(_wrapped(text))
    except duckdb.BinderException as error:
        if "must be at the top level" in str(error):
            raise QueryError(refusal(statement)) from None


def refusal(statement: duckdb.Statement) -> str:
    """Return what to say of a statement that does more than read."""
    return (
        f"this statement ({statement.type.name}) does more than read; expected {READING}. For the answer in a file use --out; "
        "`--write` runs it over a copy in memory of the tables that it names, and it may write files outside the store"
    )


def own_files(statement: duckdb.Statement, stores: Sequence[Path]) -> tuple[list[str], list[str]]:
    """Return the files and folders that a statement names in quotes, which are all that it may touch.

    Raises:
        QueryError: One of them is, leads into or contains a store.
    """
    files: list[str] = []
    folders: list[str] = []
    for text in filter(None, _strings(statement.query)):
        path = Path(text).expanduser()
        # Beside a file DuckDB writes a temporary one, and a log beside a database.
        beside = (
            (path, path.with_name(f"tmp_{path.name}"), Path(f"{path}.wal"), Path(f"{path}.tmp")) if path.name else ()
        )
        for place in beside:
            refuse_below(place, text, stores)
            files += [str(place), str(place.absolute())]
        folder = _fixed_part(path)
        if any(store.is_relative_to(folder.resolve()) for store in stores):
            if folder != path:
                raise QueryError(
                    f"{text!r} may reach into the store; expected files outside it: give a narrower pattern"
                )
            continue
        for link in _links(folder):
            refuse_below(link, text, stores)
        folders.append(f"{folder.absolute()}/")
    return files, folders


def refuse_below(place: Path, text: str, stores: Sequence[Path]) -> None:
    """Refuse to write where a store's own files are.

    Raises:
        QueryError: ``place``, which the user called ``text``, lies below a store, or may be a file of it by a hard link.
    """
    if any(place.resolve().is_relative_to(store) for store in stores):
        raise QueryError(
            f"{text!r} lies in the store ({place.resolve()}), where only runs write; give a place outside it"
        )
    if place.is_file() and place.stat().st_nlink > 1:
        raise QueryError(f"{text!r} is a hard link, which may be a file of the store; give a new name")


def _links(folder: Path) -> Iterator[Path]:
    for root, names, files in os.walk(folder):
        for name in (*names, *files):
            place = Path(root, name)
            if place.is_symlink() or (place.is_file() and place.stat().st_nlink > 1):
                yield place


def _fixed_part(path: Path) -> Path:
    """Return the part of a path in front of its first wildcard."""
    parts: list[str] = []
    for part in path.parts:
        if any(sign in part for sign in "*?["):
            break
        parts.append(part)
    return Path(*parts)


def _strings(sql: str) -> Iterator[str]:
    """Return the values of a statement's string constants, as DuckDB reads them."""
    raw = sql.encode()
    tokens = duckdb.tokenize(sql)
    ends = [start for start, _ in tokens[1:]] + [len(raw)]
    for (start, kind), end in zip(tokens, ends, strict=True):
        if kind == duckdb.token_type.string_const:
            (value,) = duckdb.execute(f"SELECT {raw[start:end].decode()}").fetchone() or ("",)
            yield str(value)


def _wrapped(text: str) -> str:
    return f"SELECT * FROM (\n{text}\n)"


def _parses(sql: str) -> bool:
    try:
        return len(duckdb.extract_statements(sql)) == 1
    except duckdb.Error:
        return False


def _parses_as_reading(sql: str) -> bool:
    try:
        found = duckdb.extract_statements(sql)
    except duckdb.Error:
        return False
    return len(found) == 1 and is_reading(found[0])


def _behind_options(sql: str) -> str:
    """Return what follows `(ANALYZE, FORMAT json)`."""
    return sql.partition(")")[2] if sql.startswith("(") else ""


def _without_comments(sql: str) -> str:
    raw = sql.encode()
    tokens = duckdb.tokenize(sql)
    ends = [start for start, _ in tokens[1:]] + [len(raw)]
    kept = [
        " " if kind == duckdb.token_type.comment else raw[start:end].decode()
        for (start, kind), end in zip(tokens, ends, strict=True)
    ]
    return "".join(kept).strip()
