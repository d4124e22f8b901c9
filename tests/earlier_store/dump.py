"""Write what the code at hand reads from the store beside this file: ``python -m tests.earlier_store.dump STORE CONTINUED``.

It was run once, by the code that made the store; a new dump is made only together with a new store.
"""

import gzip
import json
import sys
from pathlib import Path
from typing import Any

import storage
from storage.schemas import SCHEMAS
from storage.sql import query

HERE = Path(__file__).parent
CLOCK = {"timings"}
"""Tables that say when and how fast."""


def rows_of(store: Path, table: str) -> list[dict[str, Any]]:
    """Return a table's or view's rows as JSON has them, in one order; without attempts, and bytes by their length."""
    rows = query(store, f"SELECT * FROM {table}").to_pylist()
    return sorted((_plain(row) for row in rows), key=_place)


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    kept = {name: f"{len(value)} bytes" if isinstance(value, bytes) else value for name, value in row.items()}
    return json.loads(json.dumps({name: value for name, value in kept.items() if name != "attempt"}, default=str))


def _place(row: dict[str, Any]) -> str:
    """Return where a row stands: by what it is about, before what was measured."""
    return json.dumps([[name, value] for name, value in row.items() if not isinstance(value, float | list)])


def write(path: Path, found: dict[str, list[dict[str, Any]]]) -> None:
    path.write_bytes(gzip.compress(json.dumps(found).encode(), mtime=0))


def read(path: Path) -> dict[str, list[dict[str, Any]]]:
    return json.loads(gzip.decompress(path.read_bytes()))


if __name__ == "__main__":
    tables = sorted(SCHEMAS.keys() - CLOCK)
    views = sorted(path.stem for path in Path(storage.__path__[0], "views").glob("*.sql"))
    stored, continued = map(Path, sys.argv[1:])
    write(HERE / "stored.json.gz", {name: rows_of(stored, name) for name in [*tables, *views]})
    write(HERE / "continued.json.gz", {name: rows_of(continued, name) for name in tables})
