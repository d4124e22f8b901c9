"""Tables for the terminal and for files."""

import math
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from tasks.errors import InputError

FORMATS = ("table", "csv", "json", "parquet")
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
    stream = out.open("wb") if out else sys.stdout.buffer
    try:
        if format == "parquet":
            pq.write_table(table, stream)
        elif format == "csv":
            pa_csv.write_csv(_flat(table), stream)
        else:
            stream.write(_json(table))
    finally:
        if out:
            stream.close()


def _json(table: pa.Table) -> bytes:
    import json

    return (json.dumps(table.to_pylist(), default=str) + "\n").encode()


def _flat(table: pa.Table) -> pa.Table:
    # CSV has no lists; they are written as JSON text.
    import json

    columns = [
        pa.array([json.dumps(value) for value in column.to_pylist()]) if pa.types.is_nested(column.type) else column
        for column in table.columns
    ]
    return pa.table(dict(zip(table.column_names, columns, strict=True)))
