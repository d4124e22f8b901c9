"""Tables for the terminal and for files."""

import math
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any, TextIO

import duckdb
import pyarrow as pa
from rich.console import Console
from rich.table import Table

from tasks.errors import InputError

_OPTIONS = {"csv": "FORMAT csv, HEADER", "json": "FORMAT json, ARRAY true", "parquet": "FORMAT parquet"}
FORMATS = ("table", *_OPTIONS)
PLAIN_WIDTH = 220
"""Columns of a table that does not go to a terminal: nothing is cut."""


def print_table(rows: Sequence[Mapping[str, Any]], stream: TextIO | None = None) -> None:
    """Print rows as a table; numbers to the right, floats with three digits, NULL as a dash."""
    console = Console() if stream is None and sys.stdout.isatty() else Console(width=PLAIN_WIDTH, file=stream)
    if not rows:
        console.print("(no rows)")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in rows[0]:
        number = any(isinstance(row[name], (int, float)) for row in rows)
        table.add_column(str(name), justify="right" if number else "left", overflow="fold")
    for row in rows:
        table.add_row(*(format_cell(value) for value in row.values()))
    console.print(table)


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


def write_table(table: pa.Table, format: str, out: Path | None) -> None:
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
            print_table(table.to_pylist(), text)
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
