"""What a unit leaves behind that is asked to end before it is done, so that it can go on from there."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from storage.artifacts import Artifact, drop_artifact, find_artifact, put_artifact
from storage.errors import ArtifactMismatch
from storage.store import Store

_KIND = "unfinished"
Key = tuple[str, str]
"""A unit's run and name."""


def leave(store: Store, key: Key, files: Mapping[str, bytes]) -> None:
    """Keep what a unit has done so far, in place of what it had left before."""
    forget(store, key)
    put_artifact(store, _KIND, _recipe(key), files)


def left(store: Store, key: Key) -> Artifact | None:
    """Return what a unit has left; None if it has left nothing that can be read."""
    try:
        return find_artifact(store, _KIND, _recipe(key))
    except ArtifactMismatch:  # it only saves time
        return None


def leave_rows(store: Store, key: Key, rows: Sequence[Mapping[str, Any]]) -> None:
    """Keep the rows that a unit has so far."""
    leave(store, key, {"rows.json": json.dumps(list(rows)).encode()})


def rows_left(store: Store, key: Key) -> list[dict[str, Any]]:
    """Return the rows that a unit has left."""
    kept = left(store, key)
    found: list[dict[str, Any]] = [] if kept is None else json.loads(kept.path("rows.json").read_text())
    return found


def forget(store: Store, key: Key) -> None:
    """Delete what a unit has left, if anything."""
    drop_artifact(store, _KIND, _recipe(key))


def _recipe(key: Key) -> dict[str, list[str]]:
    return {"unit": list(key)}
