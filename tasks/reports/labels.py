"""What settings are called in a legend: by what tells them apart, and by nothing else."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]
_GROUP = ("model", "facts", "dtype", "mode")
"""What nobody compares within one picture: each has a row of small multiples of its own."""
_FURTHER = (
    "layers",
    "preset",
    "protocol",
    "variant",
    "guard",
    "given_contexts",
    "given_targets",
    "hparams_digest",
    "moments",
    "sample",
    "seed",
    "setting",
)
"""What a name says beside editor and batch size, in this order, until all names differ."""
_SPLIT = ("layers", "preset", "editor", "sample")
"""By what too many lines are spread over several rows of pictures."""
_MANY = 8
"""More lines in one picture cannot be told apart."""
Line = tuple[Any, ...]
"""What has a line of its own: a setting, or one of its runs where rows are of single ones."""


def labelled(rows: Sequence[Row], *, spread: bool = True, on_axes: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Return rows with ``label``, what their line is called, ``series``, the same for all batch sizes, and ``group``, in which
    row of pictures it stands.

    Args:
        spread: Spread many lines over several rows of pictures.
        on_axes: Columns that the picture's axes show; what else tells settings apart is then part of ``group``.

    Rows of no setting (the unedited model, tracing, second moments) have neither.
    """
    lines = {_line(row): row for row in rows if row.get("setting")}
    grouped = _different(lines.values(), _GROUP)
    split = _split(lines, grouped) if spread else ()
    names: dict[Line, str] = {}
    for group in {_said(row, grouped) for row in lines.values()}:
        names |= _names({line: row for line, row in lines.items() if _said(row, grouped) == group}, split)
    apart = _apart_from_batch_size(lines, (*grouped, *split, *on_axes))
    if on_axes:
        grouped = (*grouped, *apart)
    said = {
        line: {
            "label": names[line],
            "series": " ".join(filter(None, (row["editor"], *(_value(row, column) for column in apart)))),
            "group": _said(row, (*grouped, *split)),
        }
        for line, row in lines.items()
    }
    return [dict(row) | said.get(_line(row), {}) for row in rows]


def _line(row: Row) -> Line:
    return (row.get("setting"), row.get("sample"), row.get("seed"))


def _split(lines: Mapping[Line, Row], grouped: Sequence[str]) -> tuple[str, ...]:
    """Return by what the lines are spread over further rows of pictures, until each has few."""
    found: tuple[str, ...] = ()
    for column in _SPLIT:
        counts = Counter(_said(row, (*grouped, *found)) for row in lines.values())
        if max(counts.values(), default=0) <= _MANY:
            break
        found += _different(lines.values(), (column,))
    return found


def _names(lines: Mapping[Line, Row], split: Sequence[str]) -> dict[Line, str]:
    """Return a name for each line, with what differs among those that would be called alike in one picture."""
    names = {line: f"{row['editor']} b{row['batch_size']}" for line, row in lines.items()}
    for column in _FURTHER:
        alike: dict[tuple[str, str], list[Line]] = {}
        for line, row in lines.items():
            alike.setdefault((names[line], _said(row, split)), []).append(line)
        for same in alike.values():
            if column not in split and _different([lines[line] for line in same], (column,)):
                names |= {line: f"{names[line]} {_value(lines[line], column)}".strip() for line in same}
    return names


def _apart_from_batch_size(lines: Mapping[Line, Row], shown: Sequence[str]) -> list[str]:
    """Return by which columns lines of one editor and batch size differ that stand in one picture."""
    alike: dict[Any, list[Row]] = {}
    for row in lines.values():
        alike.setdefault((row["editor"], row["batch_size"], _said(row, shown)), []).append(row)
    found = {column for same in alike.values() for column in _different(same, _FURTHER[:-1])}
    return [column for column in _FURTHER if column in found and column not in shown]


def _different(rows: Iterable[Row], columns: Sequence[str]) -> tuple[str, ...]:
    found = list(rows)
    return tuple(column for column in columns if len({str(row.get(column)) for row in found}) > 1)


def _said(row: Row, columns: Sequence[str]) -> str:
    return " · ".join(filter(None, (_value(row, column) for column in columns)))


def _value(row: Row, column: str) -> str:
    value = row.get(column)
    if value is None:
        return ""
    if column == "layers":
        return f"layer {value[0]}" if len(value) == 1 else f"layers {', '.join(map(str, value))}"
    if column in ("sample", "seed"):
        return f"{column} {value}"
    if column == "guard":
        return f"guard: {json.loads(value)['on_spike']}"
    if column == "given_contexts":
        return f"contexts {value}"
    if column == "given_targets":
        return f"targets {value}"
    return str(value)[:6] if column in ("hparams_digest", "moments", "setting") else str(value)
