"""A benchmark of one's own from a file of questions alone: what its columns say of how it is asked."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from tasks.data.expressions import as_texts
from tasks.data.record_files import read_records
from tasks.errors import InputError

_COLUMNS = ("question", "choices", "answer", "text", "label", "labels")
_EXPECTED = (
    "expected the columns question, choices (a list; or A, B, C ...), answer; or question and answer, which the model then "
    "writes; or text and label, one word per class"
)
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_GOLD = {
    "a choice's text": "record.answer | string | trim",
    "a letter": f"options['{LETTERS}'.index(record.answer.strip().upper())]",
    "a number from 0": "options[record.answer | int]",
}
"""The ways in which an answer names a choice, with what gives the choice."""
WRITTEN_TOKENS = 32
"""Of a written answer, at most."""


def definition_of_file(path: Path) -> dict[str, Any]:
    """Return the definition of a benchmark whose records have the columns question, choices, answer (or text, label).

    A choice's likelihood is compared by byte, so that long ones lose nothing; questions are asked as they stand, all of them,
    without shots.  An answer is a choice's own text, its letter (A is the first), or its number from 0; all in one way.

    Raises:
        InputError: The file cannot be read, or a record has not these columns; says which.
    """
    records = read_records(path)
    for number, record in enumerate(records):
        if not isinstance(record, Mapping):
            raise InputError(f"{path}, record {number}: found {str(record)[:80]!r}; {_EXPECTED}")
    first = {name for record in records for name in record}
    whole = {
        "name": re.sub(r"[^A-Za-z0-9_.-]+", "-", path.name.split(".")[0]).strip("-") or "own",
        "title": f"questions of {path.name}",
        "source": {"path": str(path)},
        "order": {"seed": None},
    }
    if "question" in first and ("choices" in first or {"A", "B"} <= first):
        return {**whole, **_choices(path, records)}
    if near := _near(first):  # a file of choices whose column is called otherwise is none of written answers
        raise InputError(f"{path}: found the columns {sorted(first)}{near}; {_EXPECTED}")
    if "question" in first and "answer" in first:
        return {**whole, **_written(path, records)}
    if "text" in first and ("label" in first or "labels" in first):
        return {**whole, **_labelled(path, records, "label" if "label" in first else "labels")}
    raise InputError(f"{path}, record 0: found the columns {sorted(first)}; {_EXPECTED}")


def _choices(path: Path, records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    _texts_of(path, records, "question")
    letters = not any("choices" in record for record in records)
    readings = [_readings(path, number, record, letters) for number, record in enumerate(records)]
    common = list(_GOLD)
    for number, found in enumerate(readings):
        left = [rule for rule in common if rule in found]
        if not left:
            raise InputError(
                f"{path}: the answers before record {number} can all be {' or '.join(common)}, and that of record {number} "
                f"({records[number]['answer']!r}) is {' or '.join(found)}; expected all in one way"
            )
        common = left
    columns = [letter for letter in LETTERS if letter in records[0]]
    return {
        "fields": {
            "options": f"[{', '.join(f'record.{c}' for c in columns)}] | texts" if letters else "record.choices | texts"
        },
        "prompt": "Question: {{ record.question }}\nAnswer:",
        "choices": "options",
        "gold": _GOLD[common[0]],
        "answer": {"kind": "choices", "by": "byte"},
    }


def _readings(path: Path, number: int, record: Mapping[str, Any], letters: bool) -> list[str]:
    """Return in which ways a record's answer names one of its choices, the likeliest first."""
    where = f"{path}, record {number}"
    try:
        given = [record.get(name) for name in LETTERS if name in record] if letters else record.get("choices")
        choices = as_texts(given)
    except ValueError as error:
        raise InputError(f"{where}: choices: {error}") from error
    if not 2 <= len(choices) <= len(LETTERS) or len(set(choices)) < len(choices):
        raise InputError(f"{where}: choices: found {choices}; expected two or more, each once, at most 26")
    answer = record.get("answer")
    text = "" if answer is None or isinstance(answer, bool) else str(answer).strip()
    by_number = text.isdecimal() and int(text) < len(choices)
    if text in choices and by_number and not isinstance(answer, str) and choices[int(text)] != text:
        raise InputError(
            f"{where}: answer: found the number {answer!r}, which is one of the choices {choices} and another's place; "
            f'write it as a text ("{text}") if it is the choice'
        )
    found = ["a choice's text"] * (text in choices)
    found += ["a letter"] * (len(text) == 1 and text.upper() in LETTERS[: len(choices)])
    found += ["a number from 0"] * by_number
    if not found:
        raise InputError(
            f"{where}: answer: found {answer!r}; expected one of {choices}, its letter (A to {LETTERS[len(choices) - 1]}), "
            f"or its number (0 to {len(choices) - 1})"
        )
    return found


def _written(path: Path, records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    _texts_of(path, records, "question")
    _texts_of(path, records, "answer")
    return {
        "fields": {},
        "prompt": "Question: {{ record.question }}\nAnswer:",
        "gold": "record.answer",
        "answer": {"kind": "text", "tokens": WRITTEN_TOKENS, "until": "\n", "extract": "first_line", "normal": "squad"},
    }


def _labelled(path: Path, records: Sequence[Mapping[str, Any]], column: str) -> dict[str, Any]:
    _texts_of(path, records, "text")
    _texts_of(path, records, column)
    labels = sorted({str(record[column]).strip() for record in records})
    if len(labels) < 2:
        raise InputError(f"{path}: every {column} is {labels[0]!r}; expected two classes or more")
    return {
        "fields": {"label": f"record.{column} | string | trim"},
        "prompt": "{{ record.text }}\nLabel:",
        "choices": json.dumps(labels, ensure_ascii=False),
        "gold": "label",
        "answer": {"kind": "choices", "by": "byte"},
        "metrics": ["accuracy", "f1"],
    }


def _texts_of(path: Path, records: Sequence[Mapping[str, Any]], column: str) -> None:
    for number, record in enumerate(records):
        value = record.get(column)
        if isinstance(value, bool) or not isinstance(value, (str, int)) or not str(value).strip():
            raise InputError(f"{path}, record {number}: {column}: found {value!r}; expected a text")


def _near(record: Iterable[str]) -> str:
    """Return which columns may be meant by others; nothing where there is none."""
    names = set(map(str, record))
    called = {
        "options": "choices",
        "option": "choices",
        "candidates": "choices",
        "endings": "choices",
        "target": "answer",
    }
    near = {
        name: called.get(name.casefold())
        or next(iter(get_close_matches(name.casefold(), _COLUMNS, n=1, cutoff=0.8)), None)
        for name in sorted(names - {*_COLUMNS, *LETTERS})
    }
    meant = [f"{found} for {name}" for name, found in near.items() if found and found not in names]
    return f" (did you mean {' and '.join(meant)}?)" if meant else ""
