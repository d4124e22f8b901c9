"""Data sets of facts by layout: one YAML file says where a record's prompts and targets stand."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from editing.errors import RequestError, did_you_mean
from editing.measure.scores import PROBE_KINDS
from editing.records import request_from
from editing.requests import EditRequest
from tasks.data.expressions import ERRORS, evaluate
from tasks.data.lint import Finding
from tasks.data.shipped_facts import NAME
from tasks.errors import InputError, NothingToEdit

LAYOUTS = Path(__file__).parent / "layouts"
_FIELDS = {field.name for field in fields(EditRequest)} - {"origins"} | {"prompt"}
_LISTS = {name for name in _FIELDS if name.endswith(("_prompts", "_answers"))}
_HINT = "check that the file has this layout, or mend the layout (docs/add-a-data-set.md)"
_HINTS: dict[str | None, str] = {
    "columns": "mend the file; of a published data set say its layout as well: facts: {name: zsre, path: FILE} "
    "(palimpsest list datasets)"
}


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Hub(_Strict):
    """Where a data set is on the hub."""

    id: str
    revision: str
    """A commit."""
    config: str | None = None
    split: str = "train"


class Layout(_Strict):
    """How a data set's records are read; every value is an expression over ``record`` and its place ``number``."""

    title: str
    hub: Hub | None = None
    reader: Literal["counterfact", "columns"] | None = None
    """Records in ROME's layout, or as :func:`editing.records.request_from` reads them; ``fields`` add to it."""
    fields: dict[str, str]
    """Of an edit request; ``prompt`` is a full prompt in which the subject stands, in place of ``template``."""
    origins: dict[str, str] = {}
    """By kind of probe, where each of its prompts comes from: a list as long as they, or of one for all."""

    @field_validator("fields")
    @classmethod
    def _known(cls, value: dict[str, str]) -> dict[str, str]:
        if unknown := sorted(set(value) - _FIELDS):
            raise ValueError(f"no fields {unknown}; expected some of {sorted(_FIELDS)}")
        return value

    @field_validator("origins")
    @classmethod
    def _of_kinds(cls, value: dict[str, str]) -> dict[str, str]:
        if unknown := sorted(set(value) - {*PROBE_KINDS, "generation"}):
            raise ValueError(f"no kinds of probe {unknown}; expected some of {[*PROBE_KINDS, 'generation']}")
        return value


@dataclass(frozen=True)
class Facts:
    """What a data set gives: requests that can be edited, and what was found wrong with its records."""

    requests: list[EditRequest]
    findings: list[Finding]
    n_records: int


def layout_names() -> list[str]:
    return sorted(path.stem for path in LAYOUTS.glob("*.yaml"))


def read_layout(name: str) -> Layout:
    """Return a layout by name, or from a file of one's own (``.yaml``).

    Raises:
        InputError: There is none, or it is not a layout; lists every error.
    """
    path, known = (
        Path(name) if name.endswith(".yaml") else LAYOUTS / f"{name}.yaml",
        ["factworld", NAME, *layout_names()],
    )
    if not path.is_file():
        raise InputError(
            f"no data set {name!r}{did_you_mean(name, known)}; expected one of {known}, a file of facts (.csv, .tsv, .json, "
            ".jsonl, .parquet), or a layout (.yaml)"
        )
    try:
        return Layout.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (yaml.YAMLError, ValidationError, UnicodeDecodeError) as error:
        raise InputError(f"data set {path}: {error}; see docs/add-a-data-set.md") from error


def requests_of(layout: Layout, records: Sequence[Any], completions: Mapping[str, str] | None = None) -> Facts:
    """Return the requests of all records that can be edited, and why the others cannot.

    Args:
        completions: By prompt, the same fact as the beginning of a sentence.

    Raises:
        NothingToEdit: No record can be edited; repeats what is wrong with the first.
    """
    requests, findings, seen = [], [], set[str]()
    for number, record in enumerate(records):
        try:
            request = _request(layout, record, number, records, completions or {})
            if request.request_id in seen:
                ident = request.request_id
                findings.append(
                    Finding(ident, "duplicate id", True, f"record {number} has the id {ident!r} of another")
                )
                continue
            seen.add(request.request_id)
            requests.append(request)
        except (RequestError, *ERRORS) as error:
            ident = str(record.get("case_id", number)) if isinstance(record, Mapping) else str(number)
            reason = error.reason if isinstance(error, RequestError) else "malformed record"
            said = str(error)
            detail = said if said.startswith(f"record {number}:") else f"record {number}: {said}"
            findings.append(Finding(ident, reason, True, detail))
    if not requests:
        raise NothingToEdit(
            f"none of its {len(records)} records can be edited; {findings[0].detail}; {_HINTS.get(layout.reader, _HINT)}"
        )
    return Facts(requests, findings, len(records))


def _request(
    layout: Layout, record: Any, number: int, records: Sequence[Any], completions: Mapping[str, str]
) -> EditRequest:
    base = None
    if layout.reader is not None:
        base = EditRequest.from_counterfact(record) if layout.reader == "counterfact" else request_from(record, number)
    values = {"record": record, "number": number, "records": records, "others": _others}
    found: dict[str, Any] = {}
    for name, expression in layout.fields.items():
        try:
            value = evaluate(expression, values)
            found[name] = _texts(name, value) if name in _LISTS else _text(name, value)
        except ERRORS as error:
            raise ValueError(f"{name}, which is {expression}: {error}") from error
    kinds = {kind: _texts(f"origins.{kind}", evaluate(text, values)) for kind, text in layout.origins.items()}
    if base is not None:
        found = {field.name: getattr(base, field.name) for field in fields(base)} | found
    prompt, subject = found.pop("prompt", None), found.get("subject", "")
    if prompt is not None and prompt in completions:
        found["completion_prompts"] = (completions[prompt],)
    found["origins"] = {
        kind: origins * len(found.get(f"{kind}_prompts", ())) if len(origins) == 1 else origins
        for kind, origins in kinds.items()
        if origins
    }
    if prompt is None:
        return EditRequest(**found)
    if not subject:
        return EditRequest(template=prompt, **found)
    found.pop("subject")
    return EditRequest.from_prompt(prompt, subject=subject, **found)


def _text(name: str, value: Any) -> str:
    if value is None or isinstance(value, (list, tuple, dict)):
        raise ValueError(f"{name} is {value!r}; expected a text")
    return str(value)


def _texts(name: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"{name} is {value!r}; expected a list of texts")
    return tuple(_text(name, item) for item in value)


def _others(records: Sequence[Mapping[str, Any]], group: str, field: str, number: int) -> Any:
    """Return another value of a field: of the next record of the same group that has one, else of the next at all."""
    mine = records[number]
    following = [*records[number + 1 :], *records[:number]]
    same = (r[field] for r in following if r[group] == mine[group] and r[field] != mine[field])
    return next(same, None) or next(r[field] for r in following if r[field] != mine[field])


def hub_records(hub: Hub) -> list[dict[str, Any]]:
    """Return the records of a hub data set at a commit.

    Raises:
        InputError: The hub does not give it.
    """
    import datasets

    try:
        found = datasets.load_dataset(hub.id, hub.config, revision=hub.revision, split=hub.split)
    except Exception as error:
        raise InputError(
            f"the hub did not give {hub.id!r} at {hub.revision!r} ({error}); give a local file with path: instead"
        ) from error
    return [dict(row) for row in found]
