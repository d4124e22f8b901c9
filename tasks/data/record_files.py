"""Files of records: JSON, JSON lines, CSV, TSV (each also gzipped) and Parquet."""

import csv
import io
import json
from pathlib import Path
from typing import Any

from tasks.data.text_files import open_text
from tasks.errors import InputError

SUFFIXES = (".csv", ".tsv", ".json", ".jsonl", ".parquet")


def is_record_file(name: str) -> bool:
    """Return whether a name is that of a file of records, by its end."""
    return name.removesuffix(".gz").endswith(SUFFIXES)


def read_records(path: Path) -> list[Any]:
    """Return the records of a file, by its name's end; cells of CSV and TSV are texts.

    Raises:
        InputError: It is missing, holds something else, or no record at all; says in which line.
    """
    suffix = Path(path.name.removesuffix(".gz")).suffix
    if suffix == ".parquet":
        found: Any = _parquet(path)
    else:
        text = open_text(path)
        if suffix in (".csv", ".tsv"):
            found = _table(path, text, "," if suffix == ".csv" else "\t")
        elif ".jsonl" in path.suffixes:
            found = _lines(path, text)
        else:
            found = _json(path, text)
    if isinstance(found, dict):
        raise InputError(
            f"file {path} holds a table with the keys {list(found)[:8]}; expected a list of records: [{{...}}, ...]"
        )
    if not isinstance(found, list) or not found:
        what = "an empty list" if found == [] else type(found).__name__
        raise InputError(f"file {path} holds no records (found {what}); expected a list of records with at least one")
    return found


def _parquet(path: Path) -> list[Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.is_file():
        raise InputError(f"file {path} does not exist; expected a Parquet file (a path is relative to the YAML file)")
    try:
        return list(pq.read_table(path).to_pylist())
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"file {path} is not Parquet ({error}); expected a table with a row per record") from error


def _json(path: Path, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise InputError(
            f"file {path} is not a JSON list of records ({error}); expected [{{...}}, ...], or one record per line in a file "
            "that ends on .jsonl"
        ) from error


def _lines(path: Path, text: str) -> list[Any]:
    found = []
    for number, line in enumerate(text.split("\n"), start=1):
        try:
            found += [json.loads(line)] if line.strip() else []
        except ValueError as error:
            raise InputError(
                f"file {path} is not one JSON record per line: line {number}: {error}; found {line[:80]!r}"
            ) from error
    return found


def _table(path: Path, text: str, delimiter: str) -> list[dict[str, str]]:
    """Return the rows of a table under its header; an empty cell is an empty text."""
    reader = csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline=""), delimiter=delimiter, strict=True)
    try:
        header = [cell.strip() for cell in next(reader, [])]
        if len(set(header)) < len(header) or not all(header):
            raise InputError(f"file {path}: the first line is {header}; expected the columns' names, each once")
        if len(header) == 1 and (other := next((mark for mark in ";\t|" if mark in header[0]), None)):
            raise InputError(
                f"file {path}: the first line is the one column {header[0]!r}; cells seem to be separated by {other!r}: save "
                "it with commas (.csv) or tabs (.tsv)"
            )
        rows = []
        for row in reader:
            if not row:
                continue
            if len(row) != len(header):
                kind = "a comma in it" if delimiter == "," else "a tab in it"
                raise InputError(
                    f"file {path}, line {reader.line_num}: {len(row)} cells under {len(header)} columns {header}; put a text "
                    f"with {kind} into double quotes"
                )
            rows.append(dict(zip(header, row, strict=True)))
    except csv.Error as error:
        raise InputError(f"file {path}, line {reader.line_num}: {error}; expected a table with a header") from error
    return rows
