"""What tables and views hold, column by column, as one page in Markdown."""

import re
import textwrap
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pyarrow as pa
import yaml

from storage.marts import marts, public_marts
from storage.schemas import COMMITS, SCHEMAS

_HEAD = """# Tables and views

Made from `storage/schemas.py`, `storage/columns.yaml` and `storage/views/`; a test keeps it true (`python -m tests.docs`
writes it anew). `palimpsest query "SHOW TABLES"` lists the names, `DESCRIBE run_summary` one's columns.

Ask the views first: they have the rules of `docs/scores.md` in them. The tables are the raw rows that they are made of.
Missing values are NULL, never NaN; rounds and layers count from 0; every table also has `run_id`, `unit_id` and `attempt`.
"""
_WORDS = 70
"""Of a paragraph, at most."""


@cache
def _described() -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = yaml.safe_load(
        (Path(__file__).parent / "columns.yaml").read_text(encoding="utf-8")
    )
    return found


def described_columns() -> dict[str, str]:
    """Return what each column of tables and views holds."""
    return dict(_described()["columns"])


def about_table(table: str) -> str:
    """Return what a table holds."""
    return _described()["tables"][table]


def about_column(table: str, column: str) -> str:
    """Return what a column of a table or view holds.

    Raises:
        KeyError: Nothing says it.
    """
    said = _described()["columns"]
    return said.get(f"{table}.{column}") or said[column]


def schema_page(views: dict[str, pa.Schema]) -> str:
    """Return the page.

    Args:
        views: The schema of each view's answer.
    """
    lines = [_HEAD, "## Views", ""]
    for name in public_marts():
        lines += [f"### {name}", "", *_wrapped(marts()[name].about), "", *_columns(name, views[name], ()), ""]
    lines += ["## Tables", ""]
    for name, schema in {**SCHEMAS, "commits": COMMITS}.items():
        lines += [
            f"### {name}",
            "",
            about_table(name),
            "",
            *_columns(name, schema, ("run_id", "unit_id", "attempt")),
            "",
        ]
    return "\n".join(lines).rstrip() + "\n"


def _columns(table: str, schema: pa.Schema, left_out: tuple[str, ...]) -> Iterator[str]:
    yield "| column | type | what |"
    yield "|---|---|---|"
    for field in schema:
        if field.name not in left_out:
            yield f"| `{field.name}` | {_type(field.type)} | {about_column(table, field.name)} |"


def _type(kind: pa.DataType) -> str:
    if pa.types.is_list(kind):
        return f"list of {_type(kind.value_type)}"
    names = {"string": "text", "int64": "integer", "int32": "integer", "double": "number", "bool": "true or false"}
    return names.get(str(kind), str(kind))


def _wrapped(text: str) -> list[str]:
    """Return a text as short paragraphs of short lines: a new one where a sentence begins after some sixty words."""
    paragraphs = [list[str]()]
    for sentence in re.split(r"(?<=[.:]) (?=[A-Z`])", text):
        if paragraphs[-1] and len(" ".join([*paragraphs[-1], sentence]).split()) > _WORDS:
            paragraphs.append([])
        paragraphs[-1].append(sentence)
    lines: list[str] = []
    for paragraph in paragraphs:
        whole = " ".join(paragraph)
        lines += [*([""] if lines else []), *textwrap.wrap(whole, 150, break_long_words=False, break_on_hyphens=False)]
    return lines
