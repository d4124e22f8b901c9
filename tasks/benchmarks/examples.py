"""A benchmark's examples as they are published: rows of the hub, of local files, or of a generator."""

import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from editing.factworld.benchmarks import TASKS
from tasks.benchmarks.definition import Definition, Source
from tasks.data.record_files import read_records
from tasks.data.text_files import open_text
from tasks.errors import InputError

Row = Mapping[str, Any]
PLACE = "_place"
"""Beside a record, where it stands: its file and number."""
GENERATED = 1000
"""Examples of each split that a generator is asked for."""


def read_examples(definition: Definition, split: str, group: str | None, folder: str | None) -> list[Row]:
    """Return the records of one split, of one group where groups have files of their own.

    Args:
        folder: Where the published files are; None: from the hub.

    Raises:
        InputError: There is no such file or split, it cannot be read, or the hub does not answer.
    """
    source = definition.source
    if source.generator is not None:
        task = TASKS[source.generator]
        rows = task.examples(GENERATED, split="test" if split == "test" else "train")
        return [{"record": vars(example), PLACE: f"generated {split} record {i}"} for i, example in enumerate(rows)]
    if source.path is not None:
        if split != "test":
            raise InputError(
                f"benchmark {definition.name}: {source.path} has no {split} examples; {_other_shots(split)}"
            )
        return _numbered(read_records(Path(source.path)), Path(source.path))
    if folder is None:
        return _from_hub(definition, split, group)
    records: list[Row] = []
    for path in published_files(definition, split, group, folder):
        records += _records(source, path)
    return records


def has_split(source: Source, split: str, *, local: bool) -> bool:
    return source.generator is not None or split in (source.files if local else source.splits)


def published_files(definition: Definition, split: str, group: str | None, folder: str) -> list[Path]:
    """Return the files of a split in a folder: of each pattern all that fit, and at least one."""
    root, found = Path(folder), list[Path]()
    if not root.is_dir():
        raise InputError(f"benchmark {definition.name}: path {root} is no folder; expected the published files in it")
    patterns = [pattern.replace("{group}", group or "") for pattern in definition.source.files.get(split, ())]  # type: ignore[call-overload]
    for pattern in patterns:
        fitting = sorted(root.glob(pattern)) or sorted(root.glob(f"{pattern}.gz"))
        twice = [name for name, count in Counter(path.name for path in fitting).items() if count > 1]
        if twice:
            raise InputError(
                f"benchmark {definition.name}: {root} holds {twice[0]} in several folders; give the folder of one of them"
            )
        if not fitting:
            raise InputError(
                f"benchmark {definition.name}: {root} has no file {pattern} (or .gz) of its {split} examples"
                + (f", group {group}; name the groups that are there with groups:" if group else "; check path:")
            )
        found += fitting
    if not patterns:
        raise InputError(
            f"benchmark {definition.name}: its published files have no {split} examples; {_other_shots(split)}"
        )
    return found


def _other_shots(split: str) -> str:
    return "use shots_from: dev or file, or shots: 0" if split == "train" else "check the definition"


def _records(source: Source, path: Path) -> list[Row]:
    text = open_text(path).removeprefix("\ufeff")
    try:
        if source.format == "jsonl":
            return _numbered((json.loads(line) for line in text.split("\n") if line.strip()), path)
        if source.format == "json":
            return _numbered(_listed(json.loads(text)), path)
    except ValueError as error:
        raise InputError(f"{path} is not {source.format} ({error}); expected the file as published") from error
    table = io.StringIO(text)
    try:
        rows = list(
            csv.reader(table)
            if source.format == "csv"
            else csv.reader(table, delimiter="\t", quoting=csv.QUOTE_NONE)  # quotes there are the text's own
        )
    except csv.Error as error:
        raise InputError(f"{path} is not {source.format} ({error}); expected the file as published") from error
    if not rows:
        raise InputError(f"{path} is empty; expected the file as published")
    if source.columns is None:
        names, rows = rows[0], rows[1:]
    else:
        names = list(source.columns)
        rows = rows[1:] if rows and source.header is not None and rows[0][0] == source.header else rows
    for number, row in enumerate(rows, start=1):
        if row and len(row) != len(names):
            raise InputError(f"{path}, row {number}: {len(row)} cells; expected {len(names)}: {names}; found {row}")
    return _numbered((dict(zip(names, row, strict=True)) for row in rows if row), path)


def _numbered(records: Iterable[Any], path: Path) -> list[Row]:
    """Return records with where they stand, for messages."""
    return [{"record": record, PLACE: f"{path.name}, record {number}"} for number, record in enumerate(records)]


def _listed(value: Any) -> list[Any]:
    """Return the records of a JSON file: a list, or the one list in its table."""
    if isinstance(value, dict):
        lists = [item for item in value.values() if isinstance(item, list)]
        if len(lists) == 1:
            return lists[0]
        return [value]
    return value if isinstance(value, list) else [value]


def _from_hub(definition: Definition, split: str, group: str | None) -> list[Row]:
    source = definition.source
    name = source.splits.get(split)  # type: ignore[call-overload]
    if name is None:
        raise InputError(f"benchmark {definition.name}: the hub has no {split} examples of it; {_other_shots(split)}")
    config = source.config.replace("{group}", group or "") if source.config else None
    instead = f"benchmarks: [{{name: {definition.name}, path: FOLDER}}]"
    if source.revision is None:
        raise InputError(
            f"benchmark {definition.name}: no revision of {source.hub!r} is pinned; give one with revision: (a commit), or a "
            f"folder with the published files: {instead}"
        )
    import datasets

    try:
        found = datasets.load_dataset(source.hub, config, split=name, revision=source.revision)
        return [{"record": dict(row), PLACE: f"{name} record {i} of {source.hub}"} for i, row in enumerate(found)]
    except Exception as error:
        wanted = ", ".join(p.replace("{group}", group or "") for p in source.files.get(split, ())) or "its files"  # type: ignore[call-overload]
        raise InputError(
            f"benchmark {definition.name}: the hub did not give {source.hub!r} at {source.revision!r} ({error}); give a folder "
            f"with {wanted} instead: {instead}"
        ) from error


def unfolded(levels: Mapping[str, str], row: Row, evaluate: Any, names: Sequence[str] | None = None) -> Iterator[Row]:
    """Yield a nested record's innermost items, each with all that it lies in by name."""
    left = list(levels) if names is None else list(names)
    if not left:
        yield row
        return
    for item in evaluate(levels[left[0]], row):
        yield from unfolded(levels, {**row, left[0]: item}, evaluate, left[1:])
