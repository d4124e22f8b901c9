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
from contextvars import Context, copy_context
from dataclasses import dataclass
from typing import Any, cast
from uuid import UUID

import psutil

from storage.errors import StorageError
from storage.files import Files
from storage.locations import open_files
from tasks.driver.stage_progress import StageProgress

_log = logging.getLogger(__name__)
_FOLDER = "control"
_PREFIX = "progress-"
_EVERY_S = 2.0
SILENT_AFTER = 8
"""Looks, one every two seconds, without a sign of a driver after which it is called silent."""


@dataclass
class _Told:
    """A stage that Prefect is told of."""

    stage: StageProgress
    context: Context | None
    """Of the Prefect task that it is, if it is one."""
    artifact: UUID | None = None


class Heartbeat:
    """Tells every two seconds, each listener from a thread of its own: none of them can hold up the run, or the other.

    Args:
        look: What else there is to tell, as how many workers are busy.
    """

    def __init__(self, store: str, name: str, look: Callable[[], Mapping[str, Any]]) -> None:
        self._files, self._name, self._look = open_files(store), name, look
        self._driver = f"{platform.node()}:{os.getpid()}"
        self._now: StageProgress | None = None
        self._untold: list[_Told] = []
        """Stages that Prefect is still to hear of."""
        self._beat = 0
        self._ended: str | None = None
        self._over = threading.Event()
        _clear(self._files, name)
        self._threads = [
            threading.Thread(target=self._repeat, args=(tell,), daemon=True)
            for tell in (self._tell_store, self._tell_prefect)
        ]
        for thread in self._threads:
            thread.start()

    @contextmanager
    def stage(self, stage: StageProgress) -> Iterator[None]:
        """Inside, a stage is under way."""
        from prefect.context import TaskRunContext

        self._untold.append(_Told(stage, copy_context() if TaskRunContext.get() is not None else None))
        self._now = stage
        try:
            yield
        finally:
            self._now, stage.over = None, True

    def close(self, ended: str) -> None:
        """Say how the run has ended, and be silent; not longer than a few seconds for a server that does not answer."""
        self._ended = ended
        self._over.set()
        for thread in self._threads:
            thread.join(2 * _EVERY_S)

    def _repeat(self, tell: Callable[[], None]) -> None:
        while not self._over.wait(_EVERY_S):
            tell()
        tell()

    def _tell_store(self) -> None:
        now = self._now
        self._beat += 1
        row = {"experiment": self._name, "driver": self._driver, "beat": self._beat, "ended": self._ended}
        row |= {**(now.row() if now else {}), **self._look()}
        with suppress(StorageError, OSError):  # what matters is committed elsewhere
            name = f"{_PREFIX}{self._name}-{self._driver.replace(':', '-')}.json"
            self._files.write(f"{_FOLDER}/{name}", json.dumps(row).encode())

    def _tell_prefect(self) -> None:
        import httpx
        from prefect.exceptions import PrefectException

        for told in list(self._untold):
            if told.stage.over:  # once more, with what it came to
                self._untold.remove(told)
            if told.context is None:
                continue
            try:
                told.context.run(self._show, told)
            except (httpx.HTTPError, PrefectException) as error:
                _log.warning("Prefect's server takes no progress (%s); the run goes on without telling it", error)
                told.context = None
            except RuntimeError as error:  # httpx, of a client that Prefect has closed with the stage
                if "client has been closed" not in str(error):
                    raise
                told.context = None

    def _show(self, told: _Told) -> None:
        from prefect.artifacts import create_progress_artifact, update_progress_artifact

        progress, name = 100 * told.stage.share, told.stage.name
        if told.artifact is not None:
            update_progress_artifact(told.artifact, progress=progress)
            return
        key, described = artifact_key(name, self._name), f"Progress of {self._name}: {name}"
        told.artifact = cast(UUID, create_progress_artifact(progress, key=key, description=described))


def read_progress(store: str) -> list[dict[str, Any]]:
    """Return what the drivers on a store have said last, one row for each."""
    return list(_said(open_files(store)).values())


def is_under_way(store: str, name: str) -> str | None:
    """Return the driver that is at an experiment, if there is one: its word changes while it is looked at.

    No clock is asked and no process: a driver may be anywhere.
    """
    before = {
        row["driver"]: row["beat"] for row in read_progress(store) if row["experiment"] == name and not row["ended"]
    }
    deadline = time.monotonic() + (SILENT_AFTER * _EVERY_S if before else 0.0)
    while time.monotonic() < deadline:
        time.sleep(_EVERY_S / 4)
        for row in read_progress(store):
            if row["experiment"] == name and not row["ended"] and row["beat"] != before.get(row["driver"]):
                return str(row["driver"])
    return None


def artifact_key(*parts: str) -> str:
    """Return a key as Prefect wants it: lower-case letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", "-".join(parts).lower()).strip("-")


def _said(files: Files) -> dict[str, dict[str, Any]]:
    found = {}
    for name in sorted(files.listing(_FOLDER)):
        if name.rpartition("/")[2].startswith(_PREFIX):
            with suppress(FileNotFoundError, ValueError):
                found[name] = json.loads(files.read(name))
    return found


def _clear(files: Files, experiment: str) -> None:
    """Delete what earlier drivers have said of an experiment: those that have ended, or were killed on this host."""
    with suppress(StorageError, OSError):
        for name, row in _said(files).items():
            host, _, pid = row["driver"].rpartition(":")
            killed = host == platform.node() and not psutil.pid_exists(int(pid))
            if row["experiment"] == experiment and (row["ended"] or killed):
                files.delete(name)
