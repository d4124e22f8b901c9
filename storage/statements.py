"""What a SQL statement may do: read the store and files of one's own; write, where asked to, but never below the store."""

import os
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import duckdb

from storage.errors import QueryError

READING = "SELECT, DESCRIBE, SHOW, SUMMARIZE, or EXPLAIN of one of these"
_MODIFIES = re.compile(r"\b(?:COPY|INSERT|UPDATE|DELETE|MERGE)\b", re.IGNORECASE)
_HIDING = frozenset({"query", "json_execute_serialized_sql"})
"""Functions that run a statement which stands in a string."""
_LISTS = re.compile(r"\b(?:SHOW|information_schema|sqlite_master|duckdb_(?:tables|views|columns))\b", re.IGNORECASE)
"""Statements about all tables, which name none of them."""
_FOLDERS = re.compile(
    r"\b(?:EXPORT|IMPORT|PARTITION_BY|PER_THREAD_OUTPUT|FILE_SIZE_BYTES|ROW_GROUPS_PER_FILE)\b|[*?\[]", re.IGNORECASE
)
"""Statements whose strings may name directories, or patterns of files."""
_SCHEME = re.compile(r"[A-Za-z][\w+.-]*:")
_WORD = re.compile(r"\w+")


class _Token(NamedTuple):
    text: str
    kind: duckdb.token_type
    start: int
    """In the statement's bytes."""


class OwnFiles(NamedTuple):
    """What a statement that writes may touch."""

    files: list[str]
    folders: list[str]
    refused: list[str]
    """Why it may not touch others that it names."""


def lists_tables(sql: str) -> bool:
    """Whether a statement may ask which tables there are."""
    return _LISTS.search(sql) is not None


def only_statement(sql: str) -> duckdb.Statement:
    """Return the one statement of a text, without its comments: what is judged here is, letter by letter, what is run.

    Raises:
        QueryError: There is none, there are several, or DuckDB cannot parse it.
    """
    try:
        (bare,) = (_bare(each.query) for each in _statements(sql))
        (found,) = _statements(bare)
        if found.query != bare or _bare(bare) != bare:
            raise QueryError(
                "the statement reads otherwise without its comments; expected one without them: take them out"
            )
    except duckdb.Error as error:
        raise QueryError(str(error).split("LINE ")[0].strip()) from None
    except UnicodeDecodeError as error:
        raise QueryError(
            f"the statement cannot be taken apart ({error}); expected characters, not bytes, in x'...'"
        ) from None
    return found


def _statements(sql: str) -> list[duckdb.Statement]:
    found = duckdb.extract_statements(sql)
    if not found:
        raise QueryError("there is no SQL statement; expected one, such as SELECT * FROM run_summary")
    if len(found) > 1:
        raise QueryError(f"there are {len(found)} SQL statements; expected one: run each by itself")
    return found


def is_reading(statement: duckdb.Statement) -> bool:
    """Whether a statement is one of those that only read, by DuckDB's own parser.

    It may still have a part that writes (`WITH a AS (COPY ...)`), of which :func:`refuse_modifying` has DuckDB's binder judge.
    """
    return _reads(statement.query)


def is_loading(statement: duckdb.Statement) -> bool:
    """Whether a statement installs or loads an extension."""
    return _type_of(statement) == "LOAD"


def may_modify(statement: duckdb.Statement) -> bool:
    """Whether words of a statement are those of parts that write."""
    return _MODIFIES.search(statement.query) is not None


def refuse_modifying(connection: duckdb.DuckDBPyConnection, statement: duckdb.Statement) -> None:
    """Let DuckDB bind a statement that reads as a part of another, where it allows no part to write.

    Raises:
        QueryError: It writes.
        duckdb.Error: It cannot be bound.
    """
    text = statement.query
    explained = _explained(text)
    try:
        connection.sql(_wrapped(text if explained is None else explained))
    except duckdb.BinderException as error:
        if "must be at the top level" in str(error):
            raise QueryError(refusal(statement)) from None
        raise


def refusal(statement: duckdb.Statement) -> str:
    """Return what to say of a statement that does more than read."""
    kind = _type_of(statement) or "of another kind"
    return (
        f"this statement ({kind}) does more than read, or hides what it does; expected {READING}. For the "
        "answer in a file use --out; `--write` runs it over a copy in memory of the tables that it names, and it may write "
        "files outside the store"
    )


def own_files(statement: duckdb.Statement, stores: Sequence[Path]) -> OwnFiles:
    """Return the files and folders that a statement names in quotes and may touch, which are all that it may."""
    found = OwnFiles([], [], [])
    folders = _FOLDERS.search(statement.query) is not None
    for text in _strings(statement.query):
        if not text or _SCHEME.match(text) or (text.startswith("~") and not text.startswith("~/")):
            continue
        try:
            # DuckDB takes `..` away before it looks for links in some places, and the system afterwards in others.
            for name in ("", "tmp_"):
                raw = Path(text).expanduser()
                refuse_below(raw.with_name(f"{name}{raw.name}") if raw.name else raw, text, stores)
            path = Path(os.path.normpath(os.path.abspath(Path(text).expanduser())))  # noqa: PTH100
            _allow(found, path, text, stores, folders=folders)
        except QueryError as error:
            found.refused.append(str(error))
        except (OSError, RuntimeError, ValueError):
            continue  # a text that is no path
    return found


def _allow(found: OwnFiles, path: Path, text: str, stores: Sequence[Path], *, folders: bool) -> None:
    # Beside a file DuckDB writes a temporary one, and a log beside a database.
    beside = (path, path.with_name(f"tmp_{path.name}"), Path(f"{path}.wal"), Path(f"{path}.tmp")) if path.name else ()
    for place in beside:
        refuse_below(place, text, stores)
    found.files.extend(map(str, beside))
    found.files.append(text)
    folder = _fixed_part(path)
    if not folders or not (folder != path or folder.is_dir() or not folder.exists()):
        return
    if any(store.is_relative_to(place) for store in stores for place in (folder, folder.resolve())):
        raise QueryError(f"{text!r} may reach into the store; expected files outside it: give a narrower place")
    for link in _links(folder):
        refuse_below(link, text, stores)
    found.folders.append(f"{folder}/")


def refuse_below(place: Path, text: str, stores: Sequence[Path]) -> None:
    """Refuse to write where a store's own files are.

    Raises:
        QueryError: ``place``, which the user called ``text``, lies below a store, or may be a file of it by a hard link.
    """
    plain = Path(os.path.normpath(os.path.abspath(place)))  # noqa: PTH100 - before links are followed, as DuckDB does
    if any(way.is_relative_to(store) for way in (plain, place.resolve(), plain.resolve()) for store in stores):
        raise QueryError(
            f"{text!r} lies in the store ({plain.resolve()}), where only runs write; give a place outside it"
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


def _reads(text: str) -> bool:
    """Whether a statement, without comments, only reads; what cannot be told does not."""
    tokens = _tokens(text)
    if any(_name(token) in _HIDING and after.text == "(" for token, after in pairwise(tokens)):
        return False
    if tokens and _name(tokens[0]) == "explain":
        return _explained(text) is not None
    kind = _kind(text)
    if kind == duckdb.StatementType.MULTI:
        # PIVOT is two statements to DuckDB, which are run as soon as they are bound; and so is what writes one.
        return _MODIFIES.search(text) is None and _kind(_wrapped(text)) == duckdb.StatementType.MULTI
    return kind == duckdb.StatementType.SELECT


def _explained(text: str) -> str | None:
    """Return what `EXPLAIN` explains, if that only reads; None if it does not, or for another statement."""
    tokens = _tokens(text)
    if not tokens or _name(tokens[0]) != "explain":
        return None
    at = 2 if len(tokens) > 1 and _name(tokens[1]) in ("analyze", "analyse") else 1
    places = [at]
    if at < len(tokens) and tokens[at].text == "(":
        end = next((i for i in range(at, len(tokens)) if tokens[i].text == ")"), len(tokens) - 1)
        # Options such as (ANALYZE, FORMAT json) are plain words; of others it cannot be told where they end.
        if all(
            token.text in ("(", ")", ",") or _WORD.fullmatch(token.text.strip("'")) for token in tokens[at : end + 1]
        ):
            places.append(end + 1)
    raw = text.encode()
    for place in places:
        behind = raw[tokens[place].start :].decode() if place < len(tokens) else ""
        if behind and _kind(behind) is not None:
            return behind if _reads(behind) else None
    return None


def _kind(sql: str) -> duckdb.StatementType | None:
    """Return the kind of a text's one statement, None if it is not one, or of a kind that has no name in Python."""
    try:
        found = duckdb.extract_statements(sql)
        return found[0].type if len(found) == 1 else None
    except (duckdb.Error, ValueError):
        return None


def _type_of(statement: duckdb.Statement) -> str | None:
    try:
        return str(statement.type.name)
    except ValueError:
        return None


def _strings(sql: str) -> Iterator[str]:
    """Return the values of a statement's string constants, as DuckDB reads them."""
    for token in _tokens(sql):
        if token.kind == duckdb.token_type.string_const:
            (value,) = duckdb.execute(f"SELECT {token.text}").fetchone() or ("",)
            yield str(value)


def _wrapped(text: str) -> str:
    return f"SELECT * FROM (\n{text}\n)"


def _name(token: _Token) -> str:
    """Return a word as DuckDB compares names, without the quotes that it may have."""
    return token.text.strip('"').replace('""', '"').lower()


def _tokens(sql: str) -> list[_Token]:
    raw = sql.encode()
    found = duckdb.tokenize(sql)
    ends = [start for start, _ in found[1:]] + [len(raw)]
    return [
        _Token(raw[start:end].decode().strip(), kind, start) for (start, kind), end in zip(found, ends, strict=True)
    ]


def _bare(sql: str) -> str:
    """Return a statement without comments and the semicolon at its end."""
    raw = sql.encode()
    tokens = _tokens(sql)
    ends = [token.start for token in tokens[1:]] + [len(raw)]
    kept = [
        " " if token.kind == duckdb.token_type.comment else raw[token.start : end].decode()
        for token, end in zip(tokens, ends, strict=True)
    ]
    return "".join(kept).strip().rstrip(";").rstrip()
