"""Tables for the terminal and for files."""

import math
import os
import shutil
import sys
import tempfile
import textwrap
from collections.abc import Mapping, Sequence
from contextlib import closing, nullcontext
from io import StringIO
from pathlib import Path
from typing import Any, TextIO

import duckdb
import pyarrow as pa
from rich.console import Console
from rich.table import Table

from tasks.errors import InputError
from tasks.reports.columns import LONGEST, fit, said_of
from tasks.reports.run_names import with_short_names

_OPTIONS = {"csv": "FORMAT csv, HEADER", "json": "FORMAT json, ARRAY true", "parquet": "FORMAT parquet"}
FORMATS = ("table", *_OPTIONS)
UNLIMITED = 100_000
"""Columns of a table that does not go to a terminal: nothing is cut."""


def print_table(rows: Sequence[Mapping[str, Any]], stream: TextIO | None = None, *, wide: bool = False) -> None:
    """Print rows as a table; numbers to the right, floats with three digits, NULL as a dash.

    In a terminal it fits the width: columns that say least are left out and named below it, runs have their shortest names
    (``wide``: neither).
    """
    width = UNLIMITED if wide or stream is not None else terminal_width()
    if width < UNLIMITED:
        rows = with_short_names(rows)
    (stream or sys.stdout).write(table_text(rows, width))


def terminal_width() -> int:
    """Return the columns of the terminal, or what COLUMNS says; no limit where the output goes to a file."""
    if sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdecimal():
        return shutil.get_terminal_size().columns
    return UNLIMITED


def table_text(rows: Sequence[Mapping[str, Any]], width: int = UNLIMITED) -> str:
    """Return rows as the text of a table that is at most so many columns wide, ending with a line break."""
    if not rows:
        return "(no rows)\n"
    cells = [{str(name): format_cell(value) for name, value in row.items()} for row in rows]
    fitted = fit(cells, rows, width)
    table = Table(box=None, pad_edge=False)
    for name in fitted.shown:
        number = any(isinstance(row[name], (int, float)) for row in rows)
        short = max(len(name), *(len(cell[name]) for cell in cells)) <= LONGEST
        table.add_column(name, justify="right" if number else "left", overflow="fold", no_wrap=short)
    for cell in cells:
        table.add_row(*(cell[name] for name in fitted.shown))
    text = StringIO()
    Console(width=width, file=text, color_system=None, markup=False, highlight=False, emoji=False).print(table)
    lines = [line.rstrip() for line in text.getvalue().splitlines()]
    note = said_of(fitted)
    return "\n".join([*lines, *(textwrap.wrap(note, width) if note else []), ""])


def format_cell(value: Any) -> str:
    """Return a value as every table for people shows it: a float with three digits, NULL and NaN as a dash.

    A float is rounded to twelve significant digits first: two sums of the same numbers in another order differ in their last
    bits, and would be rounded apart where a fourth digit is a five. Files (CSV, JSON, Parquet) hold the full precision.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, float):
        return f"{float(f'{value:.12g}'):.3f}"
    if isinstance(value, list):
        return f"[{', '.join(map(format_cell, value))}]"
    return str(value)


def format_of(out: Path | None) -> str:
    """Return the format that a file's name asks for by its end; ``table`` where there is no file.

    Raises:
        InputError: It ends on something else.
    """
    ends = {".csv": "csv", ".json": "json", ".parquet": "parquet", ".txt": "table", "": "table"}
    suffix = "" if out is None else out.suffix
    if suffix not in ends:
        raise InputError(
            f"--out {out}: nothing is known of {suffix!r}; expected .csv, .json, .parquet or .txt, or --format"
        )
    return ends[suffix]


def write_table(table: pa.Table, format: str, out: Path | None, *, wide: bool = False) -> None:
    """Write a query's result in one of ``FORMATS``.

    Raises:
        InputError: Another format, or Parquet to a terminal.
    """
    if format not in FORMATS:
        raise InputError(f"--format {format!r}: expected one of {list(FORMATS)}")
    if out is not None and (out.is_dir() or not out.parent.is_dir()):
        raise InputError(f"--out {out}: expected a file in a directory that is there")
    if format == "table":
        with out.open("w") if out else nullcontext() as text:
            print_table(table.to_pylist(), text, wide=wide)
        return
    if format == "parquet" and out is None and sys.stdout.isatty():
        raise InputError("--format parquet writes bytes; give --out FILE, or send the output to a file")
    if out is not None:
        _copy(table, format, out)
        return
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "answer"
        _copy(table, format, whole)
        sys.stdout.buffer.write(whole.read_bytes())


def _copy(table: pa.Table, format: str, out: Path) -> None:
    """Have DuckDB write a table; CSV has no lists, so these are written as JSON."""
    nested = {field.name for field in table.schema if format == "csv" and pa.types.is_nested(field.type)}
    quoted = {name: '"' + name.replace('"', '""') + '"' for name in table.column_names}
    columns = [f"to_json({name}) AS {name}" if key in nested else name for key, name in quoted.items()]
    place = str(out).replace("'", "''")
    with closing(duckdb.connect()) as connection:
        connection.register("answer", table)
        connection.execute(f"COPY (SELECT {', '.join(columns)} FROM answer) TO '{place}' ({_OPTIONS[format]})")
