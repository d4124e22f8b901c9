"""What is taken out of a store's rows before they are published: where things stand on a machine."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa

from storage.publication import publish
from storage.store import Store


def export_summary(store: Store, folder: Path) -> list[dict[str, Any]]:
    """Write what queries, figures and reports read of a store into one that is marked as a summary; return a row per table."""
    target = publish(store, str(folder), store.run_ids(), without_places, spec_without_places)
    sizes: Counter[str] = Counter()
    for name, entry in target.files.listing("").items():
        sizes[name.partition("/")[0]] += entry.size
    return [{"table": name, "kB": size / 1000} for name, size in sorted(sizes.items())]


_PLACES = frozenset({"folder", "file", "files", "adapter", "path"})
"""Keys of a spec under which a path may stand (``files``: a table of them); all else may be part of an identity, and stays to
the letter."""


def without_places(table: str, rows: pa.Table) -> pa.Table:
    """Return a table's rows without names and paths of the machine on which they were made; no view reads these."""
    if table == "timings":
        place = rows.schema.get_field_index("device")
        kinds = [None if told is None else told.rpartition("/")[2] for told in rows["device"].to_pylist()]
        return rows.set_column(place, rows.schema.field(place), pa.array(kinds, rows.schema.field(place).type))
    if "spec" not in rows.column_names:
        return rows
    place = rows.schema.get_field_index("spec")
    specs = [None if text is None else spec_without_places(text) for text in rows["spec"].to_pylist()]
    return rows.set_column(place, rows.schema.field(place), pa.array(specs, rows.schema.field(place).type))


def spec_without_places(text: str) -> str:
    """Return a spec's JSON in which each absolute path to a folder or file is its last part."""
    return json.dumps(_placeless(json.loads(text)), sort_keys=True)


def _placeless(value: Any, key: str = "") -> Any:
    if isinstance(value, dict):
        return {name: _placeless(each, key if key == "files" else name) for name, each in value.items()}
    if isinstance(value, list):
        return [_placeless(each, key) for each in value]
    is_place = key in _PLACES and isinstance(value, str) and Path(value).is_absolute()
    return Path(value).name if is_place else value
