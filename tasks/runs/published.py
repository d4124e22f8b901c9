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
    target = publish(store, str(folder), store.run_ids(), without_places)
    sizes: Counter[str] = Counter()
    for name, entry in target.files.listing("").items():
        sizes[name.partition("/")[0]] += entry.size
    return [{"table": name, "kB": size / 1000} for name, size in sorted(sizes.items())]


def without_places(table: str, rows: pa.Table) -> pa.Table:
    """Return a table's rows without paths of the machine on which they were made; no view reads them."""
    if table != "runs":
        return rows
    specs = [json.dumps(_placeless(json.loads(text)), sort_keys=True) for text in rows["spec"].to_pylist()]
    place = rows.schema.get_field_index("spec")
    return rows.set_column(place, rows.schema.field(place), pa.array(specs, rows.schema.field(place).type))


def _placeless(spec: dict[str, Any]) -> dict[str, Any]:
    model = spec["model"] | {"folder": ""}
    if model.get("file"):
        model["file"] = model["file"].replace("\\", "/").rpartition("/")[2]
    if "/" in model["name"] and model["name"].startswith(("/", ".", "~")):
        model["name"] = model["name"].rstrip("/").rpartition("/")[2]
    scores = {
        kind: {name: {} if name == "files" else value for name, value in settings.items()}
        for kind, settings in spec.get("scores", {}).items()
    }
    return spec | {"model": model, "scores": scores}
