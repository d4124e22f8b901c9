"""Facts as people have them: dicts, CounterFact records, rows of a data frame; read into edit requests."""

import difflib
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from editing.errors import RequestError
from editing.requests import SLOT, EditRequest

_TEXTS = ("prompt", "subject", "target_new", "target_true", "relation")
_IDS = ("id", "request_id", "fact_id", "case_id")
"""Columns that name a fact; its place among the others does, if there is none of them."""
_LISTS = {
    "paraphrase_prompts": ("paraphrase_prompts", "paraphrase_prompt", "paraphrases", "paraphrase"),
    "neighborhood_prompts": ("neighborhood_prompts", "neighborhood_prompt"),
    "neighborhood_answers": ("neighborhood_answers", "neighborhood_answer"),
    "question_prompts": ("question_prompts", "question_prompt", "questions", "question"),
    "completion_prompts": ("completion_prompts", "completion_prompt"),
    "generation_prompts": ("generation_prompts", "generation_prompt"),
}
"""Fields of a request that hold several texts, with the columns in which they may stand."""
COLUMNS = (*_TEXTS, *_IDS, *(column for columns in _LISTS.values() for column in columns))
"""All columns that are looked at."""
_EXPECTED = (
    "expected prompt (with {} for the subject, or the subject in it), subject, target_new; target_true is optional"
)


def requests_from(facts: Any) -> list[EditRequest]:
    """Return the edit requests of facts in any form that :func:`request_from` reads, or of a data frame.

    Args:
        facts: An iterable of requests or records; one of them alone; or a frame of pandas, polars, or Arrow.

    Raises:
        RequestError: There is none, two have one id, or a record cannot be read; says which.
    """
    records = _records(facts)
    if not records:
        raise RequestError("no requests; expected at least one")
    found = [request_from(record, number) for number, record in enumerate(records)]
    places: dict[str, int] = {}
    for number, request in enumerate(found):
        first = places.setdefault(request.request_id, number)
        if first != number:
            raise RequestError(
                f"records {first} and {number} have the same id {request.request_id!r}; expected one of each"
            )
    return found


def request_from(record: Any, number: int) -> EditRequest:
    """Return one record as an edit request: a table with columns, CounterFact's layout, or a request as it is.

    Args:
        number: Its place among the others, from 0: its id, unless it has one.

    Raises:
        RequestError: A field is missing or not a text, or the subject is not in the prompt; names record, field, what was found
            and what is expected.
    """
    if isinstance(record, EditRequest):
        return record
    if not isinstance(record, Mapping):
        raise RequestError(f"record {number}: found {type(record).__name__} {str(record)[:80]!r}; {_EXPECTED}")
    if "requested_rewrite" in record:
        return EditRequest.from_counterfact(record)
    return _from_columns(record, number)


def columns_unused(records: Iterable[Any]) -> list[str]:
    """Return the columns of records that nothing looks at, in the order in which they appear."""
    names = (str(name) for record in records if isinstance(record, Mapping) for name in record)
    return [name for name in dict.fromkeys(names) if name not in COLUMNS and name != "requested_rewrite"]


def _records(facts: Any) -> list[Any]:
    """Return a frame's rows as dicts, by the methods that frames of this kind have; else the items of an iterable."""
    if isinstance(facts, (str, bytes)):
        raise RequestError(
            f"found the text {facts[:80]!r}; {_EXPECTED}, as dicts or a data frame (pandas.read_csv reads a file into one)"
        )
    if isinstance(facts, (EditRequest, Mapping)):
        return [facts]
    for method, arguments in (("to_pylist", ()), ("to_dicts", ()), ("to_dict", ("records",))):
        if callable(read := getattr(facts, method, None)) and hasattr(facts, "columns"):
            return list(read(*arguments))
    if type(facts).__name__ == "Series":  # a row of a frame
        return [facts.to_dict()]
    if not isinstance(facts, Iterable):
        raise RequestError(f"found {type(facts).__name__}; expected a list of dicts, of requests, or a data frame")
    return list(facts)


def _from_columns(record: Mapping[Any, Any], number: int) -> EditRequest:
    texts = {name: _text(record, name, number).strip() for name in _TEXTS}
    for name in ("prompt", "target_new"):
        if not texts[name].strip():
            raise RequestError(
                f"record {number}: {name}: found {_what(record, name)}; expected a text{_near(record, name)} ({_EXPECTED})",
                reason=f"no {name}",
            )
    ident = next((_ident(record, name, number) for name in _IDS if not _is_missing(record.get(name))), str(number))
    fields: dict[str, Any] = {
        "request_id": ident,
        **{name: texts[name] for name in ("target_new", "target_true", "relation")},
        **{field: _list(record, columns, number) for field, columns in _LISTS.items()},
    }
    for field in _LISTS if texts["subject"] else ():  # written as the prompt is, with a slot
        if field.endswith("_prompts") and field != "neighborhood_prompts":
            fields[field] = tuple(text.replace(SLOT, texts["subject"]) for text in fields[field])
    if left := [text for field in _LISTS for text in fields[field] if SLOT in text]:
        raise RequestError(
            f"record {number}: found {left[0]!r} with a slot {{}}, for which there is no subject (a neighborhood prompt is "
            "about another one); write the whole prompt",
            reason="slot without subject",
        )
    try:
        return EditRequest(template=_template(texts["prompt"], texts["subject"]), subject=texts["subject"], **fields)
    except RequestError as error:
        raise RequestError(f"record {number}: {error}", reason=error.reason) from error


def _ident(record: Mapping[Any, Any], name: str, number: int) -> str:
    """Return an id as text; a frame's column of whole numbers with a gap holds them as floats."""
    value = record[name]
    return str(int(value)) if isinstance(value, float) and value.is_integer() else _text(record, name, number)


def _template(prompt: str, subject: str) -> str:
    """Return a prompt with a slot in the place of its subject: of a whole word, where the subject stands in others, too."""
    if SLOT in prompt or not subject:
        return prompt
    whole = re.search(rf"(?<!\w){re.escape(subject)}(?!\w)", prompt)
    start = whole.start() if whole else prompt.find(subject)
    if start < 0:
        raise RequestError(
            f"the subject {subject!r} is not in its prompt {prompt!r}; expected the prompt to contain it letter by letter "
            "(check case, accents and spaces), or {} in its place",
            reason="subject not in prompt",
        )
    return prompt[:start] + SLOT + prompt[start + len(subject) :]


def _is_missing(value: Any) -> bool:
    return value is None or value != value or (isinstance(value, str) and not value.strip())


def _is_missing_or_empty(value: Any) -> bool:
    if hasattr(value, "__len__") and not isinstance(value, str):
        return len(value) == 0
    return _is_missing(value)


def _text(record: Mapping[Any, Any], name: str, number: int) -> str:
    """Return a field as text, empty where it is missing; whole numbers are taken as they are written."""
    value = record.get(name)
    if _is_missing(value):
        return ""
    if isinstance(value, str):
        return value
    if type(value).__name__ in ("int", "int32", "int64", "uint32", "uint64"):
        return str(value)
    raise RequestError(
        f"record {number}: {name}: found {value!r} ({type(value).__name__}); expected a text; write it as one",
        reason="not a text",
    )


def _list(record: Mapping[Any, Any], columns: Iterable[str], number: int) -> tuple[str, ...]:
    """Return a field that holds several texts: a list, a list in JSON, or one text."""
    name = next((column for column in columns if not _is_missing_or_empty(record.get(column))), None)
    value = record.get(name) if name is not None else None
    if callable(as_list := getattr(value, "tolist", None)):  # an array, as pandas reads lists of Parquet
        value = as_list()
    if name is None:
        return ()
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise RequestError(
                f'record {number}: {name}: found {value[:80]!r}, which is not JSON ({error}); expected one text, or ["a", "b"]',
                reason="not a list of texts",
            ) from error
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, (list, tuple)) or not all(isinstance(item, str) and item.strip() for item in items):
        raise RequestError(
            f"record {number}: {name}: found {value!r}; expected one text, or a list of them",
            reason="not a list of texts",
        )
    return tuple(item.strip() for item in items)


def _what(record: Mapping[Any, Any], name: str) -> str:
    return repr(record[name]) if name in record else f"only the columns {[str(column) for column in record]}"


def _near(record: Mapping[Any, Any], name: str) -> str:
    """Return which column may be meant by another name."""
    others = [str(column) for column in record if column not in COLUMNS]
    known = {"target_new": ("target", "new", "answer", "object"), "prompt": ("text", "template", "sentence")}
    near = [*difflib.get_close_matches(name, others, n=1), *(other for other in others if other in known[name])]
    return f"; is it the column {near[0]!r}? Call it {name}" if near and name not in record else ""
