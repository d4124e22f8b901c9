"""Where a run is, told while it is under way: in its store, for ``palimpsest status --watch``, and to Prefect's server."""

import json
import logging
import os
import platform
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, cast
from uuid import UUID

import httpx
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.context import TaskRunContext
from prefect.exceptions import PrefectException

from storage.errors import StorageError
from storage.store import open_files

_log = logging.getLogger(__name__)
_FOLDER = "control"
_PREFIX = "progress-"
_EVERY_S = 2.0


@dataclass
class _Stage:
    """What is known of a stage."""

    name: str
    cost: float
    units: int
    artifact: UUID | None = None
    done_cost: float = 0.0
    done: int = 0
    since: float = field(default_factory=time.monotonic)

    def row(self) -> dict[str, Any]:
        return {
            "stage": self.name,
            "units": self.units,
            "done": self.done,
            "cost": self.cost,
            "done_cost": self.done_cost,
            "seconds": time.monotonic() - self.since,
        }


class Beacon:
    """Tells every two seconds, from a thread of its own: neither the store nor the server can hold a run up by it.

    Args:
        look: What else there is to tell, as how many workers are busy.
    """

    def __init__(self, store: str, name: str, look: Callable[[], Mapping[str, Any]]) -> None:
        self._files, self._name, self._look = open_files(store), name, look
        self._stage: _Stage | None = None
        self._beat, self._said = 0, threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep_telling, name="beacon", daemon=True)
        self._thread.start()

    @contextmanager
    def stage(self, name: str, cost: float, n_units: int) -> Iterator[Callable[[float], None]]:
        """Inside, a stage is under way; yields a function that is told the cost of each finished unit."""
        stage = _Stage(name, max(cost, 1e-9), n_units)
        if TaskRunContext.get() is not None:
            made = create_progress_artifact(
                0.0, key=artifact_key(name, self._name), description=f"Progress of {self._name}: {name}"
            )
            stage.artifact = cast(UUID, made)
        self._stage = stage

        def advance(cost: float) -> None:
            stage.done += 1
            stage.done_cost += cost

        try:
            yield advance
        finally:
            self._tell()
            self._stage = None

    def close(self, ended: str) -> None:
        """Say how the run has ended, and be silent."""
        self._over.set()
        self._thread.join(_EVERY_S * 2)
        self._tell(ended)

    def _keep_telling(self) -> None:
        while not self._over.wait(_EVERY_S):
            self._tell()

    def _tell(self, ended: str | None = None) -> None:
        with self._said:
            stage, self._beat = self._stage, self._beat + 1
            row = {"experiment": self._name, "driver": f"{platform.node()}:{os.getpid()}", "beat": self._beat}
            row |= {"ended": ended, **(stage.row() if stage else {}), **self._look()}
            with suppress(StorageError, OSError):  # what matters is committed elsewhere
                self._files.write(f"{_FOLDER}/{_PREFIX}{self._name}.json", json.dumps(row).encode())
            if stage and stage.artifact:
                try:
                    update_progress_artifact(stage.artifact, progress=min(100.0, 100 * stage.done_cost / stage.cost))
                except (httpx.HTTPError, PrefectException) as error:
                    _log.warning("Prefect's server takes no progress (%s); the run goes on without telling it", error)
                    stage.artifact = None


def read_progress(store: str) -> list[dict[str, Any]]:
    """Return what the drivers on a store have said last, one row per experiment."""
    files, rows = open_files(store), []
    for name in sorted(files.listing(_FOLDER)):
        if name.rpartition("/")[2].startswith(_PREFIX):
            with suppress(FileNotFoundError, ValueError):
                rows.append(json.loads(files.read(name)))
    return rows


def artifact_key(*parts: str) -> str:
    """Return a key as Prefect wants it: lower-case letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", "-".join(parts).lower()).strip("-")
